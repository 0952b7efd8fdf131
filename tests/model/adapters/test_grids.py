"""Grids of another size, held against torch's own interpolation and what each kind of grid promises."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional
from torchvision.models.swin_transformer import SwinTransformer
from torchvision.models.vision_transformer import VisionTransformer, interpolate_embeddings

import loadstone as ls
from loadstone.matching.steps import Resize
from loadstone.model.adapters.grids import resized

KEY = "encoder.pos_embedding"


def vit(image_size: int = 224, patch_size: int = 16) -> nn.Module:
    """torchvision's vision transformer with few features."""
    return VisionTransformer(image_size, patch_size, 1, 2, 16, 16, num_classes=5).eval()


def bicubic(rows: torch.Tensor, old: tuple[int, int], new: tuple[int, int], *, antialias: bool) -> torch.Tensor:
    """(h · w, D) in the new size, by torch alone."""
    planes = rows.T.reshape(1, -1, *old)
    new_planes = functional.interpolate(planes, size=new, mode="bicubic", align_corners=False, antialias=antialias)
    return new_planes.reshape(rows.shape[1], -1).T


def test_larger_image_keeps_the_class_token_and_interpolates_the_rest():
    old, model = vit(224), vit(384)
    ls.load(model, old.state_dict(), adapt={KEY: "interpolate"})
    before, after = old.state_dict()[KEY][0], model.state_dict()[KEY][0]
    assert torch.equal(after[0], before[0])
    torch.testing.assert_close(after[1:], bicubic(before[1:], (14, 14), (24, 24), antialias=True))
    assert model(torch.rand(1, 3, 384, 384)).shape == (1, 5)


def test_smaller_image_is_antialiased_as_timm_does():
    values = torch.randn(1, 198, 8)
    new = resized(values, Resize("tokens", (14, 14), (7, 7), 2), (1, 51, 8))
    assert torch.equal(new[:, :2], values[:, :2])
    torch.testing.assert_close(new[0, 2:], bicubic(values[0, 2:], (14, 14), (7, 7), antialias=True))


def test_smooth_embedding_comes_out_as_from_torchvision():
    old, model = vit(224), vit(384)
    across = torch.linspace(0, torch.pi, 14)
    waves = torch.stack([torch.sin(across[:, None] + k * across[None, :] / 8).flatten() for k in range(16)], dim=1)
    with torch.no_grad():
        old.encoder.pos_embedding[0, 1:] = waves
    expected = interpolate_embeddings(384, 16, old.state_dict())
    ls.load(model, old.state_dict(), adapt={KEY: "interpolate"})
    assert model.state_dict().keys() == expected.keys()
    # torchvision aligns the corners of the grid, which moves what lies near the border by up to half a patch
    difference = (model.state_dict()[KEY] - expected[KEY]).abs()
    assert difference.mean() < 0.05
    assert torch.equal(difference[0, 0], torch.zeros(16))


def test_grid_of_its_own_size_gives_equal_output_to_the_bit():
    old, model = vit(), vit()
    grid = ls.interpolate(prefix_tokens=1, old_grid=(14, 14), new_grid=(14, 14))
    ls.load(model, old.state_dict(), adapt={KEY: grid})
    image = torch.rand(1, 3, 224, 224)
    assert torch.equal(model(image), old(image))


def test_height_and_width_are_not_mixed_up():
    rows = torch.arange(14.0).repeat_interleave(7).reshape(1, 98, 1)  # grows downwards in a grid 14 × 7
    new = resized(rows, Resize("tokens", (14, 7), (7, 21)), (1, 147, 1)).reshape(7, 21)
    torch.testing.assert_close(new, new[:, :1].expand(7, 21))
    assert (new[1:, 0] > new[:-1, 0]).all()


@given(st.tuples(st.integers(1, 5), st.integers(1, 5)), st.tuples(st.integers(1, 5), st.integers(1, 5)))
def test_layouts_of_one_grid_agree(old, new):
    planes = torch.randn(1, 3, *old)
    last = planes.permute(0, 2, 3, 1)
    expected = resized(planes, Resize("planes", old, new), (1, 3, *new))
    assert expected.shape == (1, 3, *new)
    as_last = resized(last, Resize("last", old, new), (1, *new, 3))
    as_rows = resized(last.reshape(1, -1, 3), Resize("tokens", old, new), (1, new[0] * new[1], 3))
    torch.testing.assert_close(as_last, expected.permute(0, 2, 3, 1))
    torch.testing.assert_close(as_rows, as_last.reshape(1, -1, 3))


def test_positions_along_one_line_come_out_alike_in_both_directions():
    line = torch.randn(1, 14, 3, dtype=torch.float64)
    down = resized(line, Resize("tokens", (14, 1), (20, 1)), (1, 20, 3))
    across = resized(line, Resize("tokens", (1, 14), (1, 20)), (1, 20, 3))
    band = resized(line.repeat_interleave(3, dim=1), Resize("tokens", (14, 3), (20, 3)), (1, 60, 3))
    torch.testing.assert_close(down, across)
    torch.testing.assert_close(down, band[:, ::3])


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_dtype_stays(dtype):
    values = torch.randn(1, 4, 2, 2).to(dtype)
    assert resized(values, Resize("planes", (2, 2), (3, 3)), (1, 4, 3, 3)).dtype == dtype


# --- tables of relative positions -------------------------------------------------------------------------------------


def swin(window: int) -> nn.Module:
    """torchvision's Swin transformer with few features."""
    return SwinTransformer([4, 4], 8, [2, 2], [1, 2], [window, window], num_classes=5).eval()


def test_swin_takes_another_window():
    old, model = swin(7), swin(8)
    adapt = {"**.relative_position_bias_table": "interpolate", "**.relative_position_index": "fresh"}
    ls.load(model, old.state_dict(), adapt=adapt)
    key = "features.1.0.attn.relative_position_bias_table"
    expected = bicubic(old.state_dict()[key], (13, 13), (15, 15), antialias=False)
    torch.testing.assert_close(model.state_dict()[key], expected)
    assert model(torch.rand(1, 3, 64, 64)).shape == (1, 5)


def test_swin_says_what_to_paste():
    plan = ls.plan(swin(8), swin(7).state_dict())
    (fix,) = [fix for one in plan.diagnostics for fix in one.fixes if "interpolate" in fix.paste][:1]
    assert fix.paste.count('"interpolate"') == fix.paste.count('"fresh"') == 1


def test_rows_after_a_table_are_kept():
    values = torch.randn(9 + 3, 2)
    new = resized(values, Resize("table", (3, 3), (5, 5), 3), (28, 2))
    assert torch.equal(new[-3:], values[-3:])


# --- kernels of patch embeddings --------------------------------------------------------------------------------------


def test_larger_patch_sees_a_resized_image_as_the_old_one_saw_the_image():
    weight, patch = torch.randn(4, 3, 14, 14, dtype=torch.float64), torch.randn(1, 3, 14, 14, dtype=torch.float64)
    new = resized(weight, Resize("kernel", (14, 14), (16, 20)), (4, 3, 16, 20))
    larger = functional.interpolate(patch, size=(16, 20), mode="bicubic", antialias=True)
    torch.testing.assert_close(functional.conv2d(larger, new), functional.conv2d(patch, weight))


def test_smaller_patch_is_the_pseudo_inverse_of_the_whole_resize():
    # timm/layers/patch_embed.py resample_patch_embed, which builds the matrix from all pixels at once
    weight = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    pixels = torch.eye(64, dtype=torch.float64).reshape(64, 1, 8, 8)
    resize = functional.interpolate(pixels, size=(6, 6), mode="bicubic", antialias=True).reshape(64, 36)
    expected = (weight.reshape(6, 64) @ torch.linalg.pinv(resize).T).reshape(2, 3, 6, 6)
    torch.testing.assert_close(resized(weight, Resize("kernel", (8, 8), (6, 6)), (2, 3, 6, 6)), expected)


def test_vit_takes_another_patch_size():
    old, model = vit(patch_size=16), vit(patch_size=14)
    plan = ls.load(model, old.state_dict(), adapt={"conv_proj.weight": "interpolate", KEY: "interpolate"})
    texts = {action.target: action.ops[0].text for action in plan.actions if action.ops}
    assert "patch 16 × 16 → 14 × 14" in texts["conv_proj.weight"]
    assert "grid 14 × 14 → 16 × 16" in texts[KEY]
