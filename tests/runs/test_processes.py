"""Several processes on one run: writers, readers and prunes, and what each of them sees."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import time
from contextlib import suppress
from pathlib import Path

import pytest
import torch

import loadstone
from loadstone.model.save import write_checkpoint
from loadstone.runs.keep import Keep, retain
from loadstone.runs.listing import checkpoints, newest_first, verified_now
from loadstone.runs.names import free_path
from loadstone.runs.prune import prune
from loadstone.runs.seen import Verified

FORK = multiprocessing.get_context("fork")  # the import of torch is paid once
KEEP = Keep(last=2, best=1, metric="loss")
ELEMENTS = 20_000


@pytest.fixture(autouse=True)
def one_thread():
    """torch's threads do not survive a fork."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def save(folder: Path, epoch: int) -> Path:
    path = free_path(folder, "net", epoch=epoch)
    metrics = {"loss": abs(epoch - 3.0)}
    training = {"name": "net", "epoch": epoch, "step": epoch, "batch": 0, "metrics": metrics, "config": {}}
    content = {"model_state_dict": {"w": torch.full((ELEMENTS,), float(epoch))}}
    write_checkpoint(content, path, training=training, verify=False)
    return path


def decide(folder: Path, seen: Verified):
    return retain(verified_now(checkpoints(folder, verified=seen), seen), KEEP)


def writer(folder: Path, first: int, stop: int) -> None:
    for epoch in range(first, stop):
        save(folder, epoch)


def pruner(folder: Path, rounds: int) -> None:
    seen = Verified()
    for _ in range(rounds):
        done = prune(folder, decide(folder, seen))
        assert done.diagnostics == (), done.diagnostics


def reader(folder: Path, rounds: int) -> None:
    """Opens the newest, lets others work, and reads: every value is that of its epoch."""
    for _ in range(rounds):
        for entry in newest_first(checkpoints(folder)):
            with suppress(FileNotFoundError), loadstone.open(entry.path) as checkpoint:
                time.sleep(0.001)
                values = checkpoint.weights["w"].read()
                assert bool((values == entry.epoch).all()), entry.path


def run(*works) -> None:
    """Run each in a process of its own; all end well."""
    processes = [FORK.Process(target=work, args=arguments) for work, *arguments in works]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    assert [process.exitcode for process in processes] == [0] * len(processes)


def states(folder: Path) -> list[tuple[int, str]]:
    return [(entry.epoch, entry.state) for entry in verified_now(checkpoints(folder), Verified())]


def test_two_prunes_at_once_remove_each_checkpoint_once_and_keep_what_stays(tmp_path):
    writer(tmp_path, 1, 40)
    run((pruner, tmp_path, 20), (pruner, tmp_path, 20), (pruner, tmp_path, 20))
    assert states(tmp_path) == [(3, "whole"), (38, "whole"), (39, "whole")]


def test_a_reader_sees_whole_checkpoints_while_they_are_pruned(tmp_path):
    writer(tmp_path, 1, 60)
    run((reader, tmp_path, 8), (reader, tmp_path, 8), (pruner, tmp_path, 8))
    assert len(states(tmp_path)) == 3


def test_a_checkpoint_that_is_open_is_read_to_its_end_after_it_was_pruned(tmp_path):
    writer(tmp_path, 1, 6)
    with loadstone.open(tmp_path / "net_epoch0001.pth") as checkpoint:
        run((pruner, tmp_path, 1))
        assert not (tmp_path / "net_epoch0001.pth").exists()
        assert bool((checkpoint.weights["w"].read() == 1).all())


def test_writers_pruners_and_readers_at_once_lose_nothing_that_stays(tmp_path):
    save(tmp_path, 1)
    run(
        (writer, tmp_path, 2, 80),
        (pruner, tmp_path, 60),
        (pruner, tmp_path, 60),
        (reader, tmp_path, 60),
    )
    pruner(tmp_path, 1)
    assert states(tmp_path) == [(3, "whole"), (78, "whole"), (79, "whole")]
    assert [name for name in os.listdir(tmp_path) if name.startswith(".trash") or name.endswith(".partial")] == []


def overwriter(path: Path, rounds: int) -> None:
    for value in range(1, rounds):
        write_checkpoint({"w": torch.full((ELEMENTS,), float(value))}, path, verify=False)


def reader_of_one(path: Path, rounds: int) -> None:
    last = 0.0
    for _ in range(rounds):
        with loadstone.open(path) as checkpoint:
            values = checkpoint.weights["w"].read()
        assert bool((values == values[0]).all())
        assert values[0] >= last
        last = float(values[0])


def test_a_reader_of_a_file_that_is_replaced_sees_the_old_or_the_new_one(tmp_path):
    path = tmp_path / "last.pth"
    write_checkpoint({"w": torch.zeros(ELEMENTS)}, path)
    run((overwriter, path, 100), (reader_of_one, path, 150), (reader_of_one, path, 150))


def killed(folder: Path, first: int, stop: int, pause: float) -> None:
    """Saves and prunes in a process that is killed after a while."""
    process = FORK.Process(target=saves_and_prunes, args=(folder, first, stop))
    process.start()
    time.sleep(pause)
    with suppress(ProcessLookupError):
        os.kill(process.pid, signal.SIGKILL)
    process.join(60)


def saves_and_prunes(folder: Path, first: int, stop: int) -> None:
    seen = Verified()
    for epoch in range(first, stop):
        save(folder, epoch)
        prune(folder, decide(folder, seen))


def survives(folder: Path, kills: int, seed: int) -> int:
    """The last epoch, after so many kills; after each the run is whole, and goes on from its newest checkpoint."""
    rng = random.Random(seed)
    epoch = 1
    saves_and_prunes(folder, epoch, 4)
    for _ in range(kills):
        before = max(number for number, state in states(folder) if state == "whole")
        killed(folder, before + 1, before + 12, rng.uniform(0.0, 0.12))
        found = [number for number, state in states(folder) if state == "whole"]
        assert {state for _, state in states(folder)} <= {"whole", "unfinished"}
        assert max(found) >= before
        assert 3 in found
        epoch = max(found)
    saves_and_prunes(folder, epoch + 1, epoch + 2)
    assert [name for name in os.listdir(folder) if name.startswith(".trash")] == []
    return epoch


def test_a_run_that_is_killed_while_it_saves_and_prunes_loses_nothing(tmp_path):
    survives(tmp_path, kills=12, seed=1)


@pytest.mark.long
def test_a_thousand_saves_with_random_kills(tmp_path):
    saved, seed = 0, 0
    while saved < 1000:
        folder = tmp_path / str(seed)
        folder.mkdir()
        saved += survives(folder, kills=60, seed=seed)
        seed += 1
