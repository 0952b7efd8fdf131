"""A run under torchrun: two real processes, stopped in the middle of an epoch, go on as if they had not been."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import loadstone as ls

SCRIPT = Path(__file__).with_name("training.py")
RANKS = 2


@pytest.fixture(scope="module")
def left(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory that the ranks worked in."""
    directory = tmp_path_factory.mktemp("training")
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={RANKS}"]
    run = subprocess.run(
        [*launch, str(SCRIPT), str(directory)],
        capture_output=True, text=True, timeout=120, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert run.returncode == 0, run.stderr[-4000:]
    return directory


def left_by(directory: Path, name: str, rank: int) -> Any:
    return torch.load(directory / f"{name}-{rank}.pth", weights_only=True)


def test_one_rank_writes(left: Path) -> None:
    names = [path.name for path in sorted((left / "parted").glob("*.pth"))]
    assert names == [f"net_epoch000{each}.pth" for each in ("1", "1_step000006", "2", "3")]
    assert (left / "path-0").read_text().endswith("net_epoch0001_step000006.pth")
    assert (left / "path-1").read_text() == "None"


@pytest.mark.parametrize("rank", range(RANKS))
def test_every_rank_resumes_at_the_same_place(left: Path, rank: int) -> None:
    assert (left / f"resumed-{rank}").read_text() == "1 6 2"


@pytest.mark.parametrize("rank", range(RANKS))
def test_weights_and_batches_are_those_of_a_training_that_was_not_stopped(left: Path, rank: int) -> None:
    whole, parted = left_by(left, "whole", rank), left_by(left, "parted", rank)
    assert len(whole["seen"]) == 12
    assert all(torch.equal(one, other) for one, other in zip(whole["seen"], parted["seen"], strict=True))
    assert all(torch.equal(parted["weights"][key], value) for key, value in whole["weights"].items())


def test_the_ranks_had_other_data_and_epochs_another_order(left: Path) -> None:
    """Else the tests above would prove nothing of samplers."""
    first, second = (left_by(left, "whole", rank)["seen"] for rank in range(RANKS))
    assert not torch.equal(torch.cat(first[:4]), torch.cat(second[:4]))
    assert not torch.equal(torch.cat(first[:4]), torch.cat(first[4:8]))


@pytest.mark.parametrize("rank", range(RANKS))
def test_a_signal_to_one_rank_saves_and_ends_all(left: Path, rank: int) -> None:
    assert (left / f"ended-{rank}").read_text() == "[2]"
    assert [path.name for path in (left / "ended").glob("*.pth")] == ["net_epoch0000_step000002.pth"]


def test_ranks_with_directories_of_their_own_write_each(left: Path) -> None:
    for rank in range(RANKS):
        assert [path.name for path in (left / f"apart-{rank}").glob("*.pth")] == ["net_epoch0001.pth"]


@pytest.mark.parametrize("rank", range(RANKS))
def test_what_one_rank_refuses_all_refuse(left: Path, rank: int) -> None:
    assert (left / f"refused-{rank}").read_text() == "file-not-found"


@pytest.mark.parametrize("rank", range(RANKS))
def test_a_model_in_shards_is_refused(left: Path, rank: int) -> None:
    assert "`weight` lies in parts on several processes" in (left / f"sharded-{rank}").read_text()


def test_another_number_of_processes_is_a_difference(left: Path) -> None:
    model = nn.Sequential(nn.Linear(4, 7), nn.Dropout(0.3), nn.Linear(7, 1))
    run = ls.Run(left / "parted", name="net", model=model, optimizer=torch.optim.AdamW(model.parameters(), lr=0.05))
    with pytest.raises(ls.MatchError, match="of 2 processes that train together, here is 1"):
        run.resume(checkpoint="net_epoch0001_step000006.pth")
    at = run.resume(strict="transfer", checkpoint="net_epoch0001_step000006.pth")
    assert (at.epoch, at.batch) == (1, 0)
    assert "epoch 2 begins anew: the checkpoint is of 2 processes" in str(at.report)
