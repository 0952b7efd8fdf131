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


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_damage_in_a_file_with_digests_is_found_unasked_and_the_model_is_as_it_was(tmp_path, suffix):
    saved, model = network(), network()
    torch.nn.init.ones_(model[0].weight)
    path = tmp_path / f"a{suffix}"
    ls.save(saved, path)
    flip(path, "1.weight")
    before = bits(model)
    with pytest.raises(ls.IntegrityError, match=r"bad-digest.*`1.weight`"):
        ls.load(model, path)
    assert same(bits(model), before)
    ls.load(model, path, verify=False)
    assert not torch.equal(model[1].weight, saved[1].weight)


def test_only_what_is_loaded_has_to_be_whole(tmp_path):
    path = tmp_path / "a.pth"
    saved, model = network(), network()
    ls.save({"epoch": 3, "model_state_dict": saved.state_dict(), "optimizer": {"momentum": torch.ones(999)}}, path)
    flip(path, "optimizer.momentum")
    torch.nn.init.ones_(model[0].weight)
    ls.load(model, path)
    assert same(bits(model), saved.state_dict())
    flip(path, "model_state_dict.0.weight")
    with pytest.raises(ls.IntegrityError, match=r"bad-digest.*`0.weight`"):
        ls.load(model, path)


def test_strided_tied_and_cast_tensors_are_proved_too(tmp_path):
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Linear(6, 6)
            self.second = nn.Linear(6, 6)
            self.second.weight = self.first.weight

    saved = Tied()
    saved.first.weight.data = torch.randn(6, 6).t()
    path = tmp_path / "a.pth"
    ls.save(saved, path)
    model = Tied()
    ls.load(model, path, verify=True, dtype=torch.float64)
    assert torch.equal(model.first.weight, saved.first.weight.double())
    flip(path, "first.weight")
    with pytest.raises(ls.IntegrityError, match="bad-digest"):
        ls.load(model, path, dtype=torch.float64)


def test_a_model_on_meta_is_not_materialised_from_a_damaged_file(tmp_path):
    path = tmp_path / "a.safetensors"
    ls.save(network(), path)
    flip(path, "0.bias")
    with torch.device("meta"):
        model = network()
    with pytest.raises(ls.IntegrityError, match="bad-digest"):
        ls.load(model, path)
    assert all(parameter.is_meta for parameter in model.parameters())
