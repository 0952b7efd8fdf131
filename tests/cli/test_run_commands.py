"""`list`, `prune`, `pin` and `verify`: exit status, JSON, and screens that fit their width."""

from __future__ import annotations

import json

import pytest
import torch

from loadstone.cli import main
from loadstone.model.save import write_checkpoint


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for epoch, accuracy in enumerate((0.5, 0.9, float("nan"), 0.7, 0.8), start=1):
        training = {"name": "net", "epoch": epoch, "step": epoch * 10, "batch": 0, "metrics": {"val_acc": accuracy}}
        path = tmp_path / "run" / f"net_epoch{epoch:04d}.pth"
        path.parent.mkdir(exist_ok=True)
        write_checkpoint({"model_state_dict": {"w": torch.full((500,), float(epoch))}}, path, training=training)
    return tmp_path / "run"


def document(capsys, *words) -> tuple[int, dict]:
    status = main([*words, "--json"])
    return status, json.loads(capsys.readouterr().out)


def damage(path) -> None:
    data = bytearray(path.read_bytes())
    data[data.index(torch.ones(4).numpy().tobytes())] ^= 4
    path.write_bytes(data)


def test_list_marks_the_best_and_what_is_damaged(run, capsys):
    damage(run / "net_epoch0001.pth")
    status, shown = document(capsys, "list", "run", "--metric", "val_acc", "--mode", "max", "--verify")
    assert status == 1
    assert [entry["epoch"] for entry in shown["checkpoints"] if entry["is_best"]] == [2]
    assert [entry["state"] for entry in shown["checkpoints"]] == ["damaged", *["whole"] * 4]
    assert shown["checkpoints"][2]["metrics"] == {"val_acc": "nan"}


def test_prune_touches_nothing_until_it_is_told_to(run, capsys):
    words = ("prune", "run", "--keep-last", "1", "--keep-best", "1", "--metric", "val_acc", "--mode", "max")
    status, shown = document(capsys, *words)
    assert (status, shown["removed"], len(list(run.glob("*.pth")))) == (0, [], 5)
    status, done = document(capsys, *words, "--yes")
    assert status == 0
    assert done["nbytes"] == shown["nbytes"]
    assert sorted(path.name for path in run.glob("*.pth")) == ["net_epoch0002.pth", "net_epoch0005.pth"]


def test_a_pinned_checkpoint_stays_until_the_pin_is_taken_back(run, capsys):
    assert main(["pin", "run/net_epoch0001.pth"]) == 0
    assert main(["prune", "run", "--keep-last", "1", "--yes"]) == 0
    assert sorted(path.name for path in run.glob("*.pth")) == ["net_epoch0001.pth", "net_epoch0005.pth"]
    assert main(["pin", "--remove", "run/net_epoch0001.pth"]) == 0
    assert main(["prune", "run", "--keep-last", "1", "--yes"]) == 0
    assert [path.name for path in run.glob("*.pth")] == ["net_epoch0005.pth"]


def test_options_that_contradict_each_other_are_refused(run, capsys):
    assert main(["prune", "run", "--keep-best", "1"]) == 2
    assert "invalid-option" in capsys.readouterr().err


def test_verify_of_a_run_reads_all_its_checkpoints(run, capsys):
    status, shown = document(capsys, "verify", "run")
    assert status == 0
    assert [entry["checked"] for entry in shown["checkpoints"]] == ["digest"] * 5
    damage(run / "net_epoch0001.pth")
    status, shown = document(capsys, "verify", "run")
    assert (status, [entry["ok"] for entry in shown["checkpoints"]]) == (1, [False, True, True, True, True])


def test_verify_of_nothing_could_not(run, capsys):
    assert main(["verify", "run/nowhere.pth", "run"]) == 2


@pytest.mark.parametrize("width", [80, 100])
@pytest.mark.parametrize(
    "words", [("list", "run", "--verify"), ("list", "run", "--metric", "val_acc"), ("prune", "run"), ("verify", "run")]
)
def test_screens_fit_their_width(run, capsys, monkeypatch, width, words):
    monkeypatch.setenv("COLUMNS", str(width))
    damage(run / "net_epoch0001.pth")
    main([*words])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) >= 5
    assert max(map(len, lines)) <= width
