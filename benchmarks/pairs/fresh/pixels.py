"""SegFormer's encoder, by hand: queries on all places, keys and values joined on fewer."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

from benchmarks.pairs.fresh.written import Tensor, by_head, onto_grid


class Mix(nn.Module):
    """Four stages of overlapping patches and attention on reduced keys."""

    def __init__(
        self,
        widths: tuple[int, ...] = (16, 32, 40, 64),
        depths: tuple[int, ...] = (2, 2, 2, 2),
        heads: tuple[int, ...] = (1, 2, 5, 8),
        less: tuple[int, ...] = (8, 4, 2, 1),
    ) -> None:
        super().__init__()
        self.heads, self.less, self.depths = heads, less, depths
        for n, (have, want) in enumerate(zip((3, *widths), widths, strict=False), 1):
            patch = nn.Module()
            patch.proj = nn.Conv2d(have, want, 7 if n == 1 else 3, 4 if n == 1 else 2, 3 if n == 1 else 1)
            patch.norm = nn.LayerNorm(want)
            setattr(self, f"patch_embed{n}", patch)
        for n, want in enumerate(widths, 1):
            setattr(self, f"block{n}", nn.ModuleList(self._block(want, less[n - 1]) for _ in range(depths[n - 1])))
            setattr(self, f"norm{n}", nn.LayerNorm(want))

    def _block(self, width: int, less: int) -> nn.Module:
        block, attn, mlp = nn.Module(), nn.Module(), nn.Module()
        attn.q, attn.kv, attn.proj = nn.Linear(width, width), nn.Linear(width, 2 * width), nn.Linear(width, width)
        if less > 1:
            attn.sr, attn.norm = nn.Conv2d(width, width, less, less), nn.LayerNorm(width)
        mlp.fc1, mlp.fc2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        mlp.dwconv = nn.Module()
        mlp.dwconv.dwconv = nn.Conv2d(4 * width, 4 * width, 3, 1, 1, groups=4 * width)
        block.norm1, block.attn, block.norm2, block.mlp = nn.LayerNorm(width), attn, nn.LayerNorm(width), mlp
        return block

    def forward(self, x: Tensor) -> Tensor:
        for n in range(1, 5):
            patch = self.get_submodule(f"patch_embed{n}")
            x = patch.proj(x)  # type: ignore[operator]
            side = x.shape[-1]
            x = patch.norm(x.flatten(2).transpose(1, 2))  # type: ignore[operator]
            for block in self.get_submodule(f"block{n}").children():
                x = x + self._attend(block.attn, block.norm1(x), n - 1, side)  # type: ignore[operator]
                x = x + self._feed(block.mlp, block.norm2(x), side)  # type: ignore[operator]
            x = self.get_submodule(f"norm{n}")(x)
            x = onto_grid(x, side)
        return x

    def _attend(self, attn: nn.Module | Tensor, x: Tensor, n: int, side: int) -> Tensor:
        assert isinstance(attn, nn.Module)
        fewer = x
        if self.less[n] > 1:
            grid = onto_grid(x, side)
            fewer = attn.norm(attn.sr(grid).flatten(2).transpose(1, 2))  # type: ignore[operator]
        q, k, v = (
            by_head(each, x.shape[-1] // self.heads[n])
            for each in (attn.q(x), *attn.kv(fewer).chunk(2, -1))  # type: ignore[operator]
        )
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        found: Tensor = attn.proj(mixed)  # type: ignore[operator]
        return found

    def _feed(self, mlp: nn.Module | Tensor, x: Tensor, side: int) -> Tensor:
        assert isinstance(mlp, nn.Module)
        x = onto_grid(mlp.fc1(x), side)  # type: ignore[operator]
        x = mlp.dwconv.dwconv(x).flatten(2).transpose(1, 2)  # type: ignore[operator,union-attr]
        found: Tensor = mlp.fc2(F.gelu(x))  # type: ignore[operator]
        return found


def square(model: nn.Module, x: Tensor) -> Tensor:
    """transformers' last state, as an image."""
    found: Tensor = model(x).last_hidden_state
    return found if found.ndim == 4 else onto_grid(found, int(found.shape[1] ** 0.5))


def reconstructed(model: nn.Module, x: Tensor) -> Tensor:
    """Through an encoder and a decoder, without what lies between."""
    found: torch.Tensor = model.decoder(model.encoder(x))  # type: ignore[operator]
    return found
