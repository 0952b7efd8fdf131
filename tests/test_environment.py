"""tools/environment.py: an environment is made once, whole, and found again."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ASK = """
import sys
sys.path.insert(0, sys.argv[1])
import environment
print(environment.environment("empty", environment.Layer(files=(), proof="json"), above=()))
"""


def ask(cache: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", ASK, str(ROOT / "tools")],
        env={**os.environ, "XDG_CACHE_HOME": str(cache)}, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    """What two askers at the same time were told, where a third had been killed half way."""
    cache = tmp_path_factory.mktemp("cache")
    first = ask(cache)
    line = first.stderr.readline()  # it has begun
    while not (half := [place for place in (cache / "loadstone").iterdir() if place.suffix != ".lock"]):
        time.sleep(0.01)
    first.kill()
    first.communicate()
    (half[0] / "left-behind").touch()
    askers = [ask(cache), ask(cache)]
    return [line, *(asker.communicate() for asker in askers)]


def test_setting_up_is_said_in_one_line(answers):
    assert answers[0].startswith("setting up ")


def test_two_at_the_same_time_make_it_once(answers):
    assert sorted(stderr.count("setting up") for _, stderr in answers[1:]) == [0, 1]


def test_both_are_given_the_same_python_and_it_works(answers):
    (python,) = {stdout.strip() for stdout, _ in answers[1:]}
    assert subprocess.run([python, "-c", "import json"]).returncode == 0


def test_a_half_made_one_is_made_again(answers):
    place = Path(answers[1][0].strip()).parent.parent
    assert (place / "complete").exists()
    assert not (place / "left-behind").exists()


def test_a_wrong_target_is_told_the_right_ones():
    done = subprocess.run([sys.executable, ROOT / "tools" / "environment.py", "x"], capture_output=True, text=True)
    assert done.returncode == 1
    assert "test|demo|bench" in done.stderr
