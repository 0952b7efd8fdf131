"""A load that is to be verified finds damage before the first write, and names the tensor."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import loadstone as ls


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(64, 32), nn.Linear(32, 8))


def flip(path: Path, key: str) -> None:
    """Change one bit in the middle of a tensor."""
    with ls.open(path) as checkpoint:
        info = checkpoint.tensors[key]
        place = info.storage.extents[0].offset + info.byte_range()[0] + info.nbytes // 2
    data = bytearray(path.read_bytes())
    data[place] ^= 4
    path.write_bytes(data)


def bits(model: nn.Module) -> dict[str, torch.Tensor]:
    return copy.deepcopy(model.state_dict())


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(one[key], other[key]) for key in one)


def test_a_plain_torch_file_is_proved_by_the_checksums_of_its_records(tmp_path):
    saved, target = network(), nn.Sequential(nn.Linear(64, 32), nn.Linear(32, 8))
    path = tmp_path / "a.pth"
    torch.save(saved.state_dict(), path)
    ls.load(target, path, verify=True)
    assert same(bits(target), saved.state_dict())
    flip(path, "1.weight")
    before = bits(target)
    with pytest.raises(ls.IntegrityError, match=r"bad-checksum.*`1.weight` in .*a\.pth"):
        ls.load(target, path, verify=True)
    assert same(bits(target), before)


def test_a_file_without_checksums_cannot_be_verified_and_says_so(tmp_path):
    path = tmp_path / "a.safetensors"
    save_file(network().state_dict(), path)
    model = network()
    with pytest.raises(ls.IntegrityError, match=r"no-digest.*4 of 4 tensors"):
        ls.load(model, path, verify=True)
    assert ls.load(model, path).ok


def test_verify_takes_three_values(tmp_path):
    torch.save(network().state_dict(), tmp_path / "a.pth")
    with pytest.raises(ls.RecipeError, match="`verify` is 'yes'"):
        ls.load(network(), tmp_path / "a.pth", verify="yes")  # type: ignore[arg-type]
