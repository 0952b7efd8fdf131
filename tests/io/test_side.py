"""Calls in a second thread: in order, with their results and errors, and at the interpreter's end too."""

from __future__ import annotations

import subprocess
import sys
import threading

import pytest

from loadstone.io.side import SideThread

AT_EXIT = """
import atexit, sys, torch
import loadstone as ls
atexit.register(lambda: print(ls.save({"a": torch.ones(1_000_000)}, sys.argv[1]).nbytes))
"""


def test_calls_are_made_in_order_in_another_thread():
    made = []
    with SideThread("side") as side:
        calls = [side.take(lambda number=number: made.append((number, threading.get_ident()))) for number in range(50)]
        calls[-1].result()
        assert [number for number, _ in made] == list(range(50))
    assert {thread for _, thread in made}.isdisjoint({threading.get_ident()})


def test_an_error_comes_with_the_result_and_later_calls_are_made():
    with SideThread("side") as side:
        wrong, right = side.take(lambda: 1 / 0), side.take(lambda: 3)
        assert right.result() == 3
        with pytest.raises(ZeroDivisionError):
            wrong.result()


def test_the_end_waits_for_what_was_taken():
    gate, done = threading.Event(), []
    with SideThread("side") as side:
        side.take(gate.wait)
        side.take(lambda: done.append(True))
        gate.set()
    assert done == [True]


def test_an_exit_handler_can_save(tmp_path):
    path = tmp_path / "last.pth"
    ended = subprocess.run([sys.executable, "-c", AT_EXIT, str(path)], capture_output=True, text=True)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert int(ended.stdout) == path.stat().st_size
