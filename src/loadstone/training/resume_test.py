"""Prove that a script resumes exactly: run it in one go, run it killed and started again, and compare the two.

The script is run as it is, by the same interpreter and in the same directory.  Only the directories of its runs are
redirected, into a scratch folder that is gone afterwards (witness.py); what the script writes by itself, it writes.
A kill is SIGKILL at a batch in the middle of an epoch, one in each part of the training.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Literal

from loadstone.errors import Diagnostic, Fix, RecipeError
from loadstone.training.resume_compare import Difference, first_difference
from loadstone.training.witnessed import FOLDER, KILL, Life, Seen, lives

Verdict = Literal["pass", "differs", "not-resumed", "script-failed"]
_LINES = 20  # of a script's output that are shown


@dataclass(frozen=True, slots=True)
class Kill:
    """One kill: the step that was under way, with its epoch and batch, and the step the script went on with.

    It went on at step 1 where there was no checkpoint yet, and at 0 where nothing was left to do.
    """

    step: int
    epoch: int
    batch: int
    went_on_at: int = 0


@dataclass(frozen=True, slots=True)
class Failure:
    """The script ended by itself with an error, or did not end: in which life, how, and the last lines it printed."""

    life: int
    how: str
    output: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ResumeTest:
    """What a resume-test found.

    Attributes:
        script: the script and its arguments.
        epochs, steps: of the run in one go; `seconds` is what it took.
        kills: where the other one was killed.
        compared: how many batches were compared, those done twice counted twice.
        values: how many tensors and states were compared at the end.
    """

    script: tuple[str, ...]
    epochs: int = 0
    steps: int = 0
    seconds: float = 0
    kills: tuple[Kill, ...] = ()
    compared: int = 0
    values: int = 0
    difference: Difference | None = None
    failure: Failure | None = None

    @property
    def verdict(self) -> Verdict:
        """In one word."""
        if self.failure or self.difference:
            return "script-failed" if self.failure else "differs"
        return "pass" if any(kill.went_on_at != 1 for kill in self.kills) else "not-resumed"

    @property
    def is_ok(self) -> bool:
        """Everything was the same to the bit."""
        return self.verdict == "pass"


def resume_test(
    script: str, arguments: Sequence[str] = (), *, kills: int = 3, seed: int = 0, timeout: float = 3600,
    progress: Callable[[str], AbstractContextManager[object]] = lambda text: nullcontext(),
) -> ResumeTest:  # fmt: skip
    """Run the script in one go and killed `kills` times, and compare; `timeout` is for one process, in seconds.

    Raises RecipeError (no-run) where the script trains nothing that could be compared.
    """
    command = (script, *arguments)
    with tempfile.TemporaryDirectory(prefix="loadstone-resume-test-") as scratch:
        whole = _Player(command, Path(scratch, "whole"), timeout)
        start = time.monotonic()
        with progress(f"{script}, in one go"):
            failure = whole.play()
        seconds = time.monotonic() - start
        if failure:
            return ResumeTest(command, seconds=seconds, failure=failure)
        seen = [each for life in whole.lives[0] for each in life.seen]
        if not seen:
            raise _no_batches(script, whole.lives[0])
        steps = kill_steps(seen, kills, seed)
        killed = _Player(command, Path(scratch, "killed"), timeout)
        for step in (*steps, None):
            number = len(killed.lives)
            with progress(f"{script}, killed {number} of {len(steps)} times"):
                failure = killed.play(step)
            if failure or killed.ended:
                break
        difference = None if failure else first_difference(whole.lives[0], killed.lives)
        return ResumeTest(
            command,
            len({each.epoch for each in seen}),
            len(seen),
            seconds,
            _kills(killed.lives),
            sum(len(life.seen) for each in killed.lives for life in each),
            sum(len(life.ended_with or ()) for life in whole.lives[0]),
            difference,
            failure,
        )


def kill_steps(seen: Sequence[Seen], kills: int, seed: int) -> list[int]:
    """Steps to be killed at: a random one of each part of the training, not the first of an epoch where that can be."""
    steps = sorted({each.step for each in seen if each.batch > 1} or {each.step for each in seen})
    kills = min(kills, len(steps))
    generator = random.Random(seed)
    return [
        steps[generator.randrange(len(steps) * part // kills, len(steps) * (part + 1) // kills)]
        for part in range(kills)
    ]


class _Player:
    """Plays the script, life after life, in one folder."""

    def __init__(self, command: Sequence[str], folder: Path, timeout: float) -> None:
        self.lives: list[list[Life]] = []
        self.ended = False
        self._command = [sys.executable, *command]
        self._folder = folder
        self._timeout = timeout
        self._known: list[Path] = []
        folder.mkdir()

    def play(self, kill_at: int | None = None) -> Failure | None:
        """One life: until the script ends, or until the step at which it dies."""
        settings = {**os.environ, FOLDER: str(self._folder), KILL: "" if kill_at is None else str(kill_at)}
        with tempfile.TemporaryFile() as output:
            status = self._status(settings, output.fileno())
            output.seek(0)
            text = output.read().decode("utf-8", "replace")
        new = lives(self._folder, self._known)
        self._known += [path for path, _ in new]
        self.lives.append([life for _, life in new])
        self.ended = status == 0
        was_killed = status == -signal.SIGKILL and kill_at is not None
        if status == 0 or was_killed:
            return None
        return Failure(len(self.lives) - 1, _how(status, self._timeout), tuple(text.splitlines()[-_LINES:]))

    def _status(self, settings: dict[str, str], output: int) -> int | None:
        """The exit status; None where the time was up."""
        # a session of its own: what a killed script leaves behind, such as the workers of its loader, ends with it
        with subprocess.Popen(
            self._command, env=settings, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
        ) as child:
            try:
                return child.wait(self._timeout)
            except subprocess.TimeoutExpired:
                return None
            finally:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(child.pid, signal.SIGKILL)


def _how(status: int | None, timeout: float) -> str:
    if status is None:
        return f"did not end within {timeout:g} seconds"
    return f"ended with status {status}" if status > 0 else f"was ended by {signal.Signals(-status).name}"


def _kills(lives: Sequence[Sequence[Life]]) -> tuple[Kill, ...]:
    """Where each life but the last ended, and where the next one went on."""
    found = []
    for each, following in pairwise(lives):
        last = [seen for life in each for seen in life.seen][-1:]
        first = [seen for life in following for seen in life.seen][:1]
        found += [Kill(seen.step, seen.epoch, seen.batch, first[0].step if first else 0) for seen in last]
    return tuple(found)


def _no_batches(script: str, lives: Sequence[Life]) -> RecipeError:
    missing = "takes no batches from `run.batches`" if lives else "makes no `loadstone.Run` with a model"
    return RecipeError(
        Diagnostic(
            "no-run",
            f"`{script}` {missing}, so there is nothing to compare",
            fixes=(Fix("train in a run", "for batch in run.batches(loader): ..."),),
        )
    )
