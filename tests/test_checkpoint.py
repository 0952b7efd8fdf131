"""An open checkpoint, as users hold it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

import loadstone as ls


@pytest.fixture
def training(tmp_path: Path) -> Path:
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    model(torch.randn(5, 3)).sum().backward()
    optimizer.step()
    path = tmp_path / "checkpoint.pth"
    torch.save(
        {
            "epoch": 3,
            "model_state_dict": model.state_dict(),
            "optimizer_state_dict": optimizer.state_dict(),
            "loss": 0.25,
            "history": [torch.tensor(1.0), (torch.tensor(2.0), "x")],
        },
        path,
    )
    return path


def test_a_training_checkpoint_shows_its_parts(training: Path) -> None:
    with ls.open(training) as checkpoint:
        assert checkpoint.format == "torch-zip"
        assert checkpoint.weight_sets == ["model_state_dict"]
        assert checkpoint.tree["epoch"] == 3
        assert checkpoint.tree["loss"] == 0.25
        assert list(checkpoint.weights)[:2] == ["0.weight", "0.bias"]
        assert "optimizer_state_dict.state.0.exp_avg" in checkpoint.tensors
        assert checkpoint.nbytes == training.stat().st_size


def test_a_part_is_read_as_torch_reads_it(training: Path) -> None:
    expected = torch.load(training)
    with ls.open(training) as checkpoint:
        optimizer = checkpoint.read("optimizer_state_dict")
        assert optimizer["param_groups"] == expected["optimizer_state_dict"]["param_groups"]
        for number, state in expected["optimizer_state_dict"]["state"].items():
            for name, tensor in state.items():
                assert torch.equal(optimizer["state"][number][name], tensor)
        assert checkpoint.read("history", 1, 0).item() == 2.0
        assert checkpoint.read("history")[1] == (torch.tensor(2.0), "x")
        assert checkpoint.read()["epoch"] == 3


def test_a_part_that_is_not_there_names_those_that_are(training: Path) -> None:
    with ls.open(training) as checkpoint, pytest.raises(ls.FormatError, match="unknown-part") as raised:
        checkpoint.read("optimizer")
    assert "optimizer_state_dict" in str(raised.value)


def test_the_repr_is_one_line(training: Path) -> None:
    with ls.open(training) as checkpoint:
        assert repr(checkpoint) == f"<Checkpoint {training} torch-zip, 21 tensors>"


@pytest.mark.parametrize("name", ["x" * 5000, "a\0b", "a\0.index.json", "x" * 300 + ".index.json", "\ud800"])
def test_a_path_that_no_file_can_have_is_an_error_of_ours(name: str) -> None:
    with pytest.raises(ls.LoadstoneError, match=r"file-not-found|io-error"):
        ls.open(name)


def test_an_address_of_another_kind_is_refused() -> None:
    with pytest.raises(ls.FormatError, match=r"address-refused.*`s3:`"):
        ls.open("s3://bucket/model.pth")


def test_opening_leaves_no_file_open_when_it_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "broken.pth"
    path.write_bytes(b"PK\x03\x04 and nothing more")
    before = set(Path("/proc/self/fd").iterdir())
    for _ in range(5):
        with pytest.raises(ls.LoadstoneError):
            ls.open(path)
    assert len(set(Path("/proc/self/fd").iterdir())) == len(before)


def test_weights_are_loaded_from_a_file_that_asks_for_code_and_it_is_said(tmp_path: Path) -> None:
    class Payload:
        def __reduce__(self) -> tuple[object, ...]:
            return Path.touch, (tmp_path / "must_not_appear",)

    source, target = nn.Linear(2, 3), nn.Linear(2, 3)
    torch.save({"state_dict": source.state_dict(), "extra": Payload()}, tmp_path / "file.pth")
    plan = ls.load(target, tmp_path / "file.pth")
    assert torch.equal(target.weight, source.weight)
    assert [(one.code, one.severity) for one in plan.diagnostics] == [("dangerous-global", "warning")]
    assert not (tmp_path / "must_not_appear").exists()
