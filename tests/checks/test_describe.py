"""Model files as stable text."""

from __future__ import annotations

import gzip
import math

import pytest
import torch

import loadstone as ls
from loadstone.checks.describe import describe
from loadstone.checks.values import summary


def only_line(tensor: torch.Tensor, tmp_path) -> str:
    torch.save({"t": tensor, "other": torch.zeros(3)}, tmp_path / "a.pth")
    return next(line for line in describe(tmp_path / "a.pth").splitlines() if line.startswith("t "))


DTYPES = [
    torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2,
    torch.int64, torch.int8, torch.uint8, torch.bool,
]  # fmt: skip


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_norm_and_range_are_those_of_torch(dtype, tmp_path):
    torch.manual_seed(0)
    tensor = (torch.randn(50, 30) * 10).abs().to(dtype)
    torch.save({"t": tensor.t()}, tmp_path / "a.pth")
    with ls.open(tmp_path / "a.pth") as checkpoint:
        found = summary(checkpoint.tensors["t"])
    expected = tensor.double()
    assert found.norm == pytest.approx(expected.norm().item())
    assert (found.low, found.high) == (expected.min().item(), expected.max().item())


def test_every_code_of_an_eight_bit_float_is_read_as_torch_reads_it():
    from loadstone.checks.values import _numbers

    codes = torch.arange(256, dtype=torch.uint8)
    for dtype in (torch.float8_e4m3fn, torch.float8_e5m2):
        found = torch.from_numpy(_numbers(memoryview(bytes(range(256))), str(dtype).removeprefix("torch.")))
        assert torch.equal(found.nan_to_num(1e9), codes.view(dtype).double().nan_to_num(1e9))


def test_values_that_are_not_finite_are_counted(tmp_path):
    line = only_line(torch.tensor([math.nan, math.inf, 3.0, 4.0]), tmp_path)
    assert "norm 5  min 3  max 4  not finite 2" in line


def test_large_files_are_described_without_their_values(tmp_path):
    torch.save({"t": torch.zeros(1000), "n": 3}, tmp_path / "a.pth")
    text = describe(tmp_path / "a.pth", most_nbytes=100)
    assert "# more than 100 B of values: norms and digests are left out" in text
    assert "t  float32  [1000]  crc " in text
    assert "n = 3" in text


def test_a_long_list_is_its_length_and_digest(tmp_path):
    torch.save({"t": torch.zeros(1), "rng": tuple(range(625))}, tmp_path / "a.pth")
    assert "rng = 625 values, digest " in describe(tmp_path / "a.pth")


def test_control_characters_do_not_reach_the_terminal(tmp_path):
    torch.save({"t\x1b[31m": torch.zeros(1), "n": "\x1b]0;x\x07"}, tmp_path / "a.pth")
    text = describe(tmp_path / "a.pth")
    assert "\x1b" not in text
    assert len(text.splitlines()) == 3


def test_what_cannot_be_read_is_told_by_its_diagnostic_and_its_name_alone(tmp_path):
    path = tmp_path / "a.pth"
    torch.save({"t": torch.zeros(100)}, path)
    path.write_bytes(path.read_bytes()[:-400])
    text = describe(path)
    assert text.startswith("# error[")
    assert str(tmp_path) not in text


def test_compressed_and_expanded_tensors_do_not_cost_more_than_they_hold(tmp_path):
    torch.save({"t": torch.zeros(1).expand(10**10), "u": torch.ones(2)}, tmp_path / "a.pth")
    (tmp_path / "b.gz").write_bytes(gzip.compress((tmp_path / "a.pth").read_bytes()))
    assert "more than" in describe(tmp_path / "a.pth")
    assert "more than" in describe(tmp_path / "b.gz")
