"""Pruning: what goes, goes whole; a crash at any call loses nothing that was to stay; pins are never lost."""

from __future__ import annotations

import json
import multiprocessing
import shutil

import pytest

import loadstone
from loadstone.errors import IntegrityError
from loadstone.io.disk import Disk, using
from loadstone.runs.facts import FILE, Facts, pin, read_facts, record_resume, unpin
from loadstone.runs.keep import Keep, retain
from loadstone.runs.listing import checkpoints, verified_now
from loadstone.runs.prune import prune
from loadstone.runs.seen import Verified

KEEP = Keep(last=1, best=1, metric="loss")


def decided(folder, keep=KEEP):
    return retain(verified_now(checkpoints(folder), Verified()), keep)


def epochs(folder) -> list[int]:
    return [entry.epoch for entry in checkpoints(folder)]


def test_what_no_rule_keeps_is_removed_and_its_bytes_counted(run):
    going = [entry.nbytes for entry in checkpoints(run) if entry.epoch in (1, 3)]
    done = prune(run, decided(run))
    assert epochs(run) == [2, 4]
    assert (len(done.removed), done.nbytes, done.diagnostics) == (2, sum(going), ())


def test_a_linked_file_frees_nothing_while_another_folder_has_it(run):
    decisions = decided(run)
    shared = next((run / "net_epoch0001").glob("model-*.safetensors"))
    (run / "elsewhere").mkdir()
    (run / "elsewhere" / shared.name).hardlink_to(shared)
    before = sum(entry.nbytes for entry in checkpoints(run) if entry.epoch in (1, 3))
    assert prune(run, decisions).nbytes == before - (run / "elsewhere" / shared.name).stat().st_size


def test_a_pin_that_comes_between_is_kept(run):
    decisions = decided(run)
    pin(run / "net_epoch0001")
    done = prune(run, decisions)
    assert epochs(run) == [1, 2, 4]
    assert [found.code for found in done.diagnostics] == ["not-removed"]


def test_a_checkpoint_that_took_the_name_is_kept(run, made):
    decisions = decided(run)
    shutil.rmtree(run / "net_epoch0001")
    made.write(run, 1, loss=0.0)
    assert [found.code for found in prune(run, decisions).diagnostics] == ["not-removed"]
    assert epochs(run) == [1, 2, 4]


def test_what_is_gone_already_is_no_error(run):
    decisions = decided(run)
    shutil.rmtree(run / "net_epoch0001")
    done = prune(run, decisions)
    assert [path.name for path in done.removed] == ["net_epoch0003"]
    assert done.diagnostics == ()


def test_nothing_goes_while_the_pins_cannot_be_read(run):
    (run / FILE).write_text('{"version": 1, "pinned": [')
    assert [found.code for found in prune(run, decided(run)).diagnostics] == ["invalid-run-facts"]
    assert epochs(run) == [1, 2, 3, 4]
    with pytest.raises(IntegrityError, match="invalid-run-facts"):
        pin(run / "net_epoch0001")
    assert (run / FILE).read_text() == '{"version": 1, "pinned": ['


class Stops(Disk):
    """A disk on which the process dies at the n-th change."""

    def __init__(self, calls: int) -> None:
        self.left = calls

    def _count(self) -> None:
        if self.left == 0:
            raise KeyboardInterrupt
        self.left -= 1

    def rename(self, source, target):
        self._count()
        super().rename(source, target)

    def sync_folder(self, path):
        self._count()
        super().sync_folder(path)

    def remove(self, path):
        self._count()
        super().remove(path)

    def remove_folder(self, path):
        self._count()
        super().remove_folder(path)


def test_a_crash_at_any_call_leaves_whole_checkpoints_and_is_swept(tmp_path, made):
    crashes = 0
    while True:
        folder = tmp_path / f"crash{crashes}"
        folder.mkdir()
        for epoch in (1, 2, 3):
            made.write(folder, epoch, loss=1 / epoch)
        try:
            with using(Stops(crashes)):
                prune(folder, decided(folder))
        except KeyboardInterrupt:
            crashes += 1
        else:
            break
        entries = verified_now(checkpoints(folder), Verified())
        assert {entry.state for entry in entries} == {"whole"}
        assert 3 in [entry.epoch for entry in entries]
        prune(folder, decided(folder))
        assert [path.name for path in folder.iterdir() if path.name.startswith(".trash")] == []
        assert epochs(folder) == [3]
    assert crashes > 8


class Refuses(Disk):
    def rename(self, source, target):
        raise PermissionError(13, "Permission denied")


def test_what_the_system_refuses_is_said(run):
    decisions = decided(run)
    with using(Refuses()):
        done = prune(run, decisions)
    assert epochs(run) == [1, 2, 3, 4]
    assert [found.code for found in done.diagnostics] == ["not-removed"] * 2
    assert "Permission denied" in done.diagnostics[0].message


def test_pins_and_facts_read_back(run):
    pin(run / "net_epoch0001")
    pin(run / "net_epoch0003")
    record_resume(run, name="net", resumed_from="net_epoch0002")
    unpin(run / "net_epoch0001")
    assert read_facts(run) == Facts("net", ("net_epoch0003",), "net_epoch0002")
    assert json.loads((run / FILE).read_text())["version"] == 1


def test_pinning_what_is_not_there_is_an_error(run):
    with pytest.raises(loadstone.MissingFileError, match="file-not-found"):
        pin(run / "net_epoch0099")


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", '{"version": 2}', '{"version": 1, "name": 3, "pinned": [], "resumed_from": null}', "[" * 100_000],
)
def test_any_other_run_json_is_said_to_be_damaged(tmp_path, text):
    (tmp_path / FILE).write_text(text)
    assert [found.code for found in read_facts(tmp_path).diagnostics] == ["invalid-run-facts"]


def _pin_many(folder, names):
    for name in names:
        pin(folder / name)


def test_pins_of_several_processes_are_all_kept(tmp_path):
    names = [f"net_epoch{number:04d}.pth" for number in range(40)]
    for name in names:
        (tmp_path / name).write_bytes(b"")
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=_pin_many, args=(tmp_path, names[at::4])) for at in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert [worker.exitcode for worker in workers] == [0, 0, 0, 0]
    assert sorted(read_facts(tmp_path).pinned) == names
