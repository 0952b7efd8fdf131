"""A save beside the training: one at a time, its errors raised once, and the interpreter's exit waits for it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time

import pytest
import torch
from torch import nn

from loadstone.training.background import Background


@pytest.fixture
def background():
    made = Background()
    yield made
    with contextlib.suppress(Exception):
        made.close()


def test_what_the_job_returns_is_the_last_result(background, tmp_path):
    path = tmp_path / "a.pth"
    background.submit({"w": torch.ones(3)}, lambda copied: torch.save(copied, path) or path)
    background.wait()
    assert background.last == path
    assert torch.equal(torch.load(path)["w"], torch.ones(3))


def test_the_state_may_change_as_soon_as_submit_returns(background):
    model = nn.BatchNorm1d(4)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    changed, seen = threading.Event(), []

    def job(copied):
        assert changed.wait(10)
        seen.append({key: value.clone() for key, value in copied.items()})

    background.submit(model.state_dict(), job)
    model(torch.rand(8, 4) + 3)
    changed.set()
    background.wait()
    assert not torch.equal(model.running_mean, before["running_mean"])
    assert all(torch.equal(seen[0][key], before[key]) for key in before)


def test_there_is_one_save_at_a_time(background):
    running, most = [], []

    def job(copied):
        running.append(copied)
        most.append(len(running))
        time.sleep(0.02)
        running.pop()

    for each in range(4):
        background.submit({"epoch": each}, job)
    background.wait()
    assert most == [1, 1, 1, 1]


@pytest.mark.parametrize("call", ["check", "wait", "close", "submit"])
def test_an_error_of_the_writer_is_raised_by_the_next_call_and_only_once(background, call):
    def job(copied):
        raise OSError(28, "no space left")

    background.submit({}, job)
    while background.is_busy:
        time.sleep(0.001)
    calls = {
        "check": background.check, "wait": background.wait, "close": background.close,
        "submit": lambda: background.submit({}, lambda copied: "written"),
    }  # fmt: skip
    with pytest.raises(OSError, match="no space left") as caught:
        calls[call]()
    assert caught.traceback[-1].name == "job"
    assert "in the background" in caught.value.__notes__[0]
    calls[call]()
    background.wait()


def test_check_does_not_wait(background):
    go = threading.Event()
    background.submit({}, lambda copied: go.wait(10))
    assert background.is_busy
    background.check()
    assert background.is_busy
    go.set()
    background.wait()
    assert not background.is_busy
    assert background.last is True


def test_an_interrupt_of_the_wait_leaves_the_save_under_way(background):
    go = threading.Event()
    background.submit({"w": torch.ones(2)}, lambda copied: go.wait(10) and copied["w"].sum().item())
    threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt):
        background.wait()
    assert background.is_busy
    go.set()
    background.wait()
    assert background.last == 2.0


def test_close_gives_the_memory_back(background):
    background.submit({"w": torch.ones(1000)}, lambda copied: None)
    assert background._snapshot.nbytes >= 4000
    background.close()
    assert background._snapshot.nbytes == 0


def test_a_process_forked_during_a_save_neither_waits_nor_writes(background, tmp_path):
    go = threading.Event()
    background.submit({}, lambda copied: go.wait(10) and (tmp_path / f"{os.getpid()}").touch())
    pid = os.fork()
    if pid == 0:  # as a DataLoader's worker
        status = 1
        with contextlib.suppress(BaseException):
            background.wait()
            background.close()
            status = 0 if background.last is None and not background.is_busy else 2
        os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    go.set()
    background.wait()
    assert [path.name for path in tmp_path.iterdir()] == [f"{os.getpid()}"]


# Each case is forked from a process that has torch, and ends as any interpreter does: where its program ends.
SERVER = """
import atexit, json, os, sys, time
folder = sys.argv[1]
from loadstone.io.side import SideThread
from loadstone.training.background import Background

def job(copied):
    time.sleep(0.2)
    with SideThread("side") as side:  # as writing a file does
        side.take(lambda: print(end="")).result()
    if has_failing_job:
        raise OSError(28, "no space left")
    open(out, "w").write("written")

names = {}
for name, (has_failing_job, then) in json.load(sys.stdin).items():
    out = f"{folder}/{name}.out"
    pid = os.fork()
    if pid == 0:
        for number, kind in ((1, "stdout"), (2, "stderr")):
            os.dup2(os.open(f"{folder}/{name}.{kind}", os.O_WRONLY | os.O_CREAT), number)
        break
    names[pid] = name

if pid:
    for pid, name in names.items():
        open(f"{folder}/{name}.status", "w").write(str(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])))
else:
    atexit.register(print, "another handler")
    background = Background()
    background.submit({"epoch": 1}, job)
    exec(then)
"""
CASES = {
    "plain": (False, ""),
    "status": (False, "sys.exit(3)"),
    "exception": (False, "raise ValueError"),
    "forgotten": (False, "del background"),
    "error": (True, ""),
    "error-of-forgotten": (True, "del background"),
    "error-before-exit": (True, "time.sleep(0.4)"),
    "error-that-was-raised": (True, "try: background.wait()\nexcept OSError: print('caught')"),
    "exit-handler": (
        False,
        "background.wait(); os.unlink(out)\n"
        "atexit.register(background.submit, {}, lambda copied: open(out, 'w').write('written'))",
    ),
}


@pytest.fixture(scope="module")
def ended(tmp_path_factory):
    """By case: exit status, standard output and error, and what the job wrote."""
    folder = tmp_path_factory.mktemp("exits")
    subprocess.run([sys.executable, "-c", SERVER, folder], input=json.dumps(CASES), text=True, check=True, timeout=100)

    def read(name: str, kind: str) -> str:
        path = folder / f"{name}.{kind}"
        return path.read_text() if path.exists() else ""

    return {
        name: (int(read(name, "status")), read(name, "stdout"), read(name, "stderr"), read(name, "out"))
        for name in CASES
    }


@pytest.mark.parametrize(("name", "status"), [("plain", 0), ("status", 3), ("exception", 1), ("forgotten", 0)])
def test_the_exit_of_the_interpreter_waits_for_the_save(ended, name, status):
    assert ended[name][0] == status
    assert ended[name][3] == "written"


@pytest.mark.parametrize("name", ["error", "error-of-forgotten", "error-before-exit"])
def test_an_error_that_nobody_asked_for_is_printed_at_exit_with_an_error_status(ended, name):
    status, stdout, stderr, _ = ended[name]
    assert status == 120
    assert stderr.count("OSError: [Errno 28] no space left") == 1
    assert "_Unflushable" not in stderr
    assert stdout == "another handler\n"


def test_an_error_that_was_raised_is_not_said_again_at_exit(ended):
    assert ended["error-that-was-raised"] == (0, "caught\nanother handler\n", "", "")


def test_a_save_in_an_exit_handler_is_still_made(ended):
    assert ended["exit-handler"] == (0, "another handler\n", "", "written")
