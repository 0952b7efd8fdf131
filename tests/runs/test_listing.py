"""The list of a run: from headers, in the order of training, with what else lies in the folder."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

import loadstone
from loadstone.errors import MissingFileError
from loadstone.runs.facts import pin, record_resume
from loadstone.runs.listing import checkpoints, is_run, verified_now
from loadstone.runs.seen import Verified


def names(entries):
    return [entry.path.name for entry in entries]


def test_checkpoints_come_in_the_order_of_training_whatever_their_times(run, made):
    os.utime(run / "net_epoch0001", (2e9, 2e9))
    inside = made.write(run, 2, step=250, batch=50)
    assert names(checkpoints(run)) == ["net_epoch0001", "net_epoch0002", inside.name, "net_epoch0003", "net_epoch0004"]


def test_an_entry_says_what_the_run_said(run):
    entry = checkpoints(run)[1]
    assert (entry.name, entry.epoch, entry.step, entry.batch) == ("net", 2, 200, 0)
    assert entry.metrics == {"loss": 0.1}
    assert entry.nbytes == sum(file.stat().st_size for file in entry.path.iterdir())
    assert entry.state == "unverified"


def test_a_taken_name_is_newer(tmp_path, made):
    first, second = made.write(tmp_path, 1), made.write(tmp_path, 1)
    assert names(checkpoints(tmp_path)) == [first.name, second.name]


def test_listing_reads_no_values(run, made):
    shard = next((run / "net_epoch0001").glob("model-*.safetensors"))
    made.flip(shard, shard.stat().st_size - 5)
    assert [entry.state for entry in checkpoints(run)] == ["unverified"] * 4


def test_verifying_tells_whole_from_damaged(run, made):
    shard = next((run / "net_epoch0002").glob("model-*.safetensors"))
    made.flip(shard, shard.stat().st_size - 5)
    entries = verified_now(checkpoints(run), Verified())
    assert [entry.state for entry in entries] == ["whole", "damaged", "whole", "whole"]
    assert entries[1].diagnostics[0].code == "bad-digest"


def test_what_is_known_is_not_read_again(run, made):
    seen, read = Verified(), []
    check = lambda path: read.append(path.name) or ()  # noqa: E731
    verified_now(checkpoints(run, verified=seen), seen, check=check)
    assert [entry.state for entry in checkpoints(run, verified=seen)] == ["whole"] * 4
    shard = next((run / "net_epoch0002").glob("model-*.safetensors"))
    made.flip(shard, shard.stat().st_size - 5)
    entries = checkpoints(run, verified=seen)
    assert [entry.state for entry in entries] == ["whole", "unverified", "whole", "whole"]
    verified_now(entries, seen, check=check)
    assert len(read) == 5


def test_files_of_other_people_are_listed_as_theirs(run):
    torch.save({"w": torch.zeros(3)}, run / "best.pth")
    loadstone.save({"w": torch.zeros(3)}, run / "weights.safetensors")
    (run / "notes.txt").write_text("lr was too high")
    (run / "last.pth").symlink_to("best.pth")
    (run / "gone.pth").symlink_to("nowhere.pth")
    found = {entry.path.name: entry.state for entry in checkpoints(run) if not entry.name}
    assert found == dict.fromkeys(("best.pth", "weights.safetensors", "last.pth", "gone.pth"), "foreign")


def test_a_checkpoint_of_ours_that_does_not_open_is_damaged(run):
    (run / "net_epoch0009.pth").write_bytes(b"PK\3\4" + bytes(100))
    (run / "of_somebody.pth").write_bytes(b"PK\3\4" + bytes(100))
    found = {entry.path.name: entry for entry in checkpoints(run)}
    assert (found["net_epoch0009.pth"].state, found["net_epoch0009.pth"].epoch) == ("damaged", 9)
    assert found["of_somebody.pth"].state == "foreign"
    assert found["of_somebody.pth"].diagnostics


def test_what_a_killed_writer_left_is_unfinished(run):
    (run / ".net_epoch0005.pth.0123456789abcdef.partial").write_bytes(b"PK")
    (run / ".trash-0123456789abcdef").write_bytes(b"PK")
    assert [(entry.epoch, entry.state) for entry in checkpoints(run) if entry.epoch > 4] == [(5, "unfinished")]
    assert len(checkpoints(run)) == 5


def test_pins_and_where_the_run_went_on_are_shown(run):
    pin(run / "net_epoch0001")
    record_resume(run, name="net", resumed_from="net_epoch0003")
    entries = checkpoints(run)
    assert [entry.epoch for entry in entries if entry.is_pinned] == [1]
    assert [entry.epoch for entry in entries if entry.is_resumed_from] == [3]


def test_a_run_is_told_from_a_checkpoint_in_several_files(run, tmp_path):
    assert is_run(run)
    assert not is_run(run / "net_epoch0001")
    assert not is_run(tmp_path / "nowhere")


def test_a_folder_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(MissingFileError):
        checkpoints(tmp_path / "nowhere")


def test_listing_needs_no_torch(run):
    program = (
        "import sys; from loadstone.runs.listing import checkpoints as c; print(len(c(sys.argv[1])), *sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program, run], capture_output=True, text=True, check=True)
    count, *modules = done.stdout.split()
    assert count == "4"
    assert "torch" not in modules
