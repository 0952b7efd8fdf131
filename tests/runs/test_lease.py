"""One process at a time writes a run; a process that is gone, however it went, holds nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import loadstone as ls
from loadstone.runs.lease import hold

HOLDER = """
import os, sys, time
from pathlib import Path
from loadstone.runs.lease import hold
hold(Path(sys.argv[1]), "net")
if os.fork() == 0:  # as a loader's worker would: it outlives its parent
    time.sleep(float(sys.argv[2]))
    os._exit(0)
print("held", flush=True)
time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path), "3"], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def test_the_second_process_is_told(tmp_path: Path, holder):
    with pytest.raises(ls.SaveError, match=r"run-in-use.*`net`"):
        hold(tmp_path, "net")
    hold(tmp_path, "another")  # another run in the same directory


def test_a_killed_process_holds_nothing_though_its_child_lives(tmp_path: Path, holder):
    holder.send_signal(signal.SIGKILL)
    os.waitpid(holder.pid, 0)
    hold(tmp_path, "net")


def test_runs_of_one_process_share_it_and_the_last_one_gives_it_back(tmp_path: Path):
    first, second = hold(tmp_path, "net"), hold(tmp_path, "net")
    first.release()
    assert is_refused(tmp_path)
    second.release()
    assert not is_refused(tmp_path)


def is_refused(folder: Path) -> bool:
    """Whether another process may not write."""
    asked = (
        "import sys; from pathlib import Path; from loadstone.runs.lease import hold; hold(Path(sys.argv[1]), 'net')"
    )
    return "run-in-use" in subprocess.run([sys.executable, "-c", asked, str(folder)], stderr=-1, text=True).stderr
