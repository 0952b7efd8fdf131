"""Grids of another size: position embeddings, tables of relative positions, the kernels of patch embeddings.

Embeddings     bicubic with antialiasing, pixel areas aligned: as timm's `resample_abs_pos_embed`, which is what ViT and
               DeiT weights are commonly moved to other image sizes with.  torchvision's `interpolate_embeddings`
               aligns the corner pixels instead and so differs a little towards the border.
Tables         bicubic without antialiasing, as the authors of Swin do (utils.py, `load_pretrained`).
Kernels        the pseudo-inverse of the resize (FlexiViT, Beyer et al. 2023, section 3.4): of all kernels of the new
               size, the one whose products with resized patches are closest to the old ones with the patches as they
               were.  Plain bicubic would scale every output with the area of the patch.
"""

from __future__ import annotations

import torch
from torch.nn import functional

from loadstone.matching.steps import Resize


def resized(values: torch.Tensor, step: Resize, shape: tuple[int, ...]) -> torch.Tensor:
    """The values in the new shape and in their own dtype; float64 is computed in float64, all others in float32."""
    exact = values.to(torch.float64 if values.dtype == torch.float64 else torch.float32)
    if step.layout == "kernel":
        result = _kernel(exact, step)
    elif step.layout == "planes":
        result = _planes(exact, step.new)
    elif step.layout == "last":
        result = _planes(exact.permute(0, 3, 1, 2), step.new).permute(0, 2, 3, 1)
    else:
        result = _unrolled(exact.reshape(-1, values.shape[-1]), step).reshape(shape)
    return result.to(values.dtype)


def _unrolled(rows: torch.Tensor, step: Resize) -> torch.Tensor:
    """Rows (prefix + h · w, D), or (h · w + extra, D) for a table, whose extra rows stand at the end."""
    is_table = step.layout == "table"
    first = 0 if is_table else step.extra
    count = step.old[0] * step.old[1]
    grid = rows[first : first + count].reshape(*step.old, -1).permute(2, 0, 1).unsqueeze(0)
    new = _planes(grid, step.new, antialias=not is_table).squeeze(0).flatten(1).transpose(0, 1)
    return torch.cat((rows[:first], new, rows[first + count :]))


def _planes(planes: torch.Tensor, size: tuple[int, int], *, antialias: bool = True) -> torch.Tensor:
    """(batch, D, height, width) in the new size."""
    if size[1] == 1 != size[0]:  # torch 2.14 resizes the height wrongly where it antialiases to a width of one
        return _planes(planes.transpose(2, 3), (1, size[0]), antialias=antialias).transpose(2, 3)
    return functional.interpolate(planes, size=size, mode="bicubic", align_corners=False, antialias=antialias)


def _kernel(weight: torch.Tensor, step: Resize) -> torch.Tensor:
    """Weights (out, in, height, width) for patches of the new size.

    Resizing an image is separable, R = Rh ⊗ Rw, and so is the pseudo-inverse: each axis has its own small matrix.
    """
    rows, columns = (_inverse(old, new, weight.device) for old, new in zip(step.old, step.new, strict=True))
    return rows @ weight.to(torch.float64) @ columns.transpose(0, 1)


def _inverse(old: int, new: int, device: torch.device) -> torch.Tensor:
    """(new, old): the pseudo-inverse of the transposed matrix that resizes `old` pixels to `new`, in float64."""
    pixels = torch.eye(old, dtype=torch.float64, device=device).reshape(1, 1, old, old)
    inverse: torch.Tensor = torch.linalg.pinv(_planes(pixels, (old, new)).reshape(old, new))
    return inverse
