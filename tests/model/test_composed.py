"""Composed tensors are read part by part to where they belong: the same values, no copy, every part proved."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import loadstone as ls
from loadstone.matching.step_shapes import carried_out
from loadstone.matching.structure.items import Assignment, Taken
from loadstone.matching.structure.steps import Narrow, Permute, Reshape
from loadstone.model.composed import parts_of


class Apart(nn.Module):
    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.up = nn.Linear(width, 4 * width)


class Joined(nn.Module):
    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.qkv, self.fc = nn.Linear(width, 3 * width), nn.Linear(width, 4 * width)


def blocks(kind: type[nn.Module], depth: int = 3, width: int = 8) -> nn.Module:
    return nn.ModuleList(kind(width) for _ in range(depth))


def joined(source: nn.Module, number: int, role: str) -> torch.Tensor:
    return torch.cat([getattr(getattr(source[number], part), role) for part in ("query", "key", "value")])


@pytest.fixture
def saved(tmp_path: Path) -> tuple[nn.Module, Path]:
    source = blocks(Apart)
    return source, Path(ls.save(source.state_dict(), tmp_path / "apart.pth").path)


def test_joined_parts_are_read_to_their_stretches(saved) -> None:
    source, path = saved
    model = blocks(Joined)
    memory = model[0].qkv.weight.data_ptr()
    ls.load(model, path, match="structure")
    for number in range(3):
        for role in ("weight", "bias"):
            assert torch.equal(getattr(model[number].qkv, role), joined(source, number, role))
    assert model[0].qkv.weight.data_ptr() == memory


def test_another_dtype_and_the_meta_device_get_tensors_of_their_own(saved) -> None:
    source, path = saved
    half = blocks(Joined)
    ls.load(half, path, match="structure", dtype=torch.float16)
    assert torch.equal(half[1].qkv.weight, joined(source, 1, "weight").half())
    with torch.device("meta"):
        empty = blocks(Joined)
    ls.load(empty, path, match="structure")
    assert torch.equal(empty[2].qkv.bias, joined(source, 2, "bias"))


def test_damage_in_any_part_is_found_before_the_first_write(saved) -> None:
    source, path = saved
    content = bytearray(path.read_bytes())
    value = source[1].value.weight.detach().numpy().tobytes()
    at = content.index(value) + len(value) // 2
    content[at] ^= 1
    path.write_bytes(content)
    model = blocks(Joined)
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    with pytest.raises(ls.IntegrityError, match=r"1\.value\.weight"):
        ls.load(model, path, match="structure")
    assert all(torch.equal(tensor, before[key]) for key, tensor in model.state_dict().items())


def test_a_state_dict_in_memory_is_joined_and_stays_as_it_is() -> None:
    source, model = blocks(Apart), blocks(Joined)
    given = source.state_dict()
    before = {key: tensor.clone() for key, tensor in given.items()}
    ls.load(model, given, match="structure")
    assert torch.equal(model[2].qkv.weight, joined(source, 2, "weight"))
    with torch.no_grad():
        model[2].qkv.weight.zero_()
    assert all(torch.equal(tensor, before[key]) for key, tensor in given.items())


def test_a_cast_that_breaks_any_part_is_an_error(tmp_path: Path) -> None:
    source = blocks(Apart)
    with torch.no_grad():
        source[1].value.weight[3, 3] = 1e6
    torch.save(source.state_dict(), tmp_path / "wide.pth")
    with pytest.raises(ls.MatchError, match=r"1\.value\.weight"):
        ls.load(blocks(Joined).half(), tmp_path / "wide.pth", match="structure")


def test_a_state_dict_of_the_very_memory_is_read_before_it_is_written() -> None:
    model = blocks(Joined)
    want = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    parts = {}
    for key, tensor in model.state_dict().items():
        if ".qkv." in key:
            for name, rows in zip(("value", "key", "query"), reversed(tensor.chunk(3)), strict=True):
                parts[key.replace("qkv", name)] = rows
        else:
            parts[key.replace("fc", "up")] = tensor
    ls.load(model, parts, match="structure")
    assert all(torch.equal(tensor, want[key]) for key, tensor in model.state_dict().items())


def test_a_join_takes_no_memory_of_its_own(tmp_path: Path) -> None:
    torch.save(blocks(Apart, 4, 1024).state_dict(), tmp_path / "big.pth")
    script = f"""
import torch, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from test_composed import Joined, blocks
import loadstone as ls
def mib(name):
    return int(next(l for l in open("/proc/self/status") if l.startswith(name)).split()[1]) / 1024
small, model = blocks(Joined, 4, 16), blocks(Joined, 4, 1024)
torch.save(blocks(Joined, 4, 16).state_dict(), {str(tmp_path / "small.pth")!r})
ls.load(small, {str(tmp_path / "small.pth")!r})
plan = ls.plan(model, {str(tmp_path / "big.pth")!r}, match="structure")
for parameter in model.parameters():
    parameter.data.fill_(0)
before = mib("VmRSS")
open("/proc/self/clear_refs", "w").write("5")
plan.apply()
print(mib("VmHWM") - before)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert float(done.stdout) < 8  # the joined matrices are 48 MiB


# property: whatever the steps, the parts hold what the steps make -----------------------------------------------------

step_lists = st.sampled_from(
    [
        (),
        (Reshape((12, 2)),),
        (Permute((1, 0)),),
        (Reshape((2, 12)), Permute((1, 0))),
        (Reshape((2, 3, 4)), Permute((2, 0, 1)), Reshape((4, 6))),
        (Narrow(2, 3), Permute((1, 0))),
        (Narrow(1, 4), Reshape((2, 8))),
    ]
)


@given(step_lists, st.sampled_from([(), (Permute((1, 0)),)]), st.integers(1, 3))
@settings(max_examples=60, deadline=None)
def test_parts_hold_what_the_steps_make(before, after, count) -> None:
    tensors = {f"t{n}": torch.arange(24.0).reshape(6, 4) + 100 * n for n in range(count)}
    with tempfile.NamedTemporaryFile(suffix=".pth") as file:
        torch.save(tensors, file.name)
        infos = ls.open(file.name).tensors
    made = Assignment("x", tuple(Taken(key, before) for key in tensors), after, "forced", "")
    want = carried_out(torch.cat([carried_out(tensor, before) for tensor in tensors.values()]), after)
    target = torch.zeros(want.shape)
    parts = parts_of(made, infos, target)
    assert parts is not None or any(isinstance(step, Reshape) for step in before[1:])
    for info, view in parts or ():
        view.copy_(info.read())
    assert parts is None or torch.equal(target, want)
