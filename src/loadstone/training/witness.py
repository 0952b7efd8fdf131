"""What a training run did, batch by batch, for `loadstone resume-test`: which data came, and what stood beside it.

The test runs a script twice, once in one go and once killed and started again, and compares what the witnesses of the
two wrote.  Where `LOADSTONE_RESUME_TEST` names a folder, a Run keeps its checkpoints below that folder instead of the
directory it was given, and its witness writes one file for each life of the process::

    FOLDER/runs/...              the directories of the script's runs
    FOLDER/witness-0001.jsonl    {"run": "runs/resnet18"}
                                 {"epoch": 1, "batch": 1, "step": 1, "data": "xxh3-128:…", "rates": [0.1], "weights": …}
                                 …
                                 {"finished": {"model.fc.weight": "xxh3-128:…", …}}

Epochs, batches and steps are counted from 1.  A line is written when its batch is handed out: what it says of weights
and optimizer is how they were before that batch.  `LOADSTONE_RESUME_TEST_KILL=130` has the process kill itself as
SIGKILL would, when batch 130 is handed out.

Without the variable there is no witness, and nothing of this costs anything.
"""

from __future__ import annotations

import atexit
import itertools
import json
import os
import random
import signal
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import final

import torch
from torch import nn

from loadstone.io.digests import Digest
from loadstone.io.disk import disk
from loadstone.training.digesting import feed, feed_tensor
from loadstone.training.witnessed import FOLDER, KILL, RUNS, WITNESS


def attend(directory: str | os.PathLike[str], model: nn.Module, optimizers: Iterable[object] = ()) -> Witness | None:
    """The witness of the run that was given this directory; None where no resume-test is under way."""
    folder = os.environ.get(FOLDER)
    return Witness(Path(folder), os.fspath(directory), model, tuple(optimizers)) if folder else None


def redirected(directory: str | os.PathLike[str]) -> Path:
    """Where a run keeps its checkpoints: the directory it was given, or one of its own below the test's folder."""
    folder = os.environ.get(FOLDER)
    return Path(folder, RUNS, _inside(os.fspath(directory))) if folder else Path(directory)


@final
class Witness:
    """Writes down what a run does; dies where the test says so."""

    def __init__(self, folder: Path, run: str, model: nn.Module, optimizers: Sequence[object]) -> None:
        self._model = model
        self._optimizers = optimizers
        self._pid = os.getpid()  # a worker forked from this process is no witness
        self._last_step = int(os.environ.get(KILL) or 0)
        self._file: int | None = _new_file(folder)
        self._write({"run": run})
        atexit.register(self.finished)  # a script need not close its run

    def batch(self, epoch: int, batch: int, step: int, data: object, learning_rates: Sequence[float]) -> None:
        """The loader gave this data, and the script is about to get it; all numbers are counted from 1."""
        if self._file is None or os.getpid() != self._pid:
            return
        self._write(
            {
                "epoch": epoch,
                "batch": batch,
                "step": step,
                "data": _digest(data),
                "rates": [float(rate) for rate in learning_rates],
                "weights": _digest(self._model.state_dict()),
                "optimizer": _digest([_state(optimizer) for optimizer in self._optimizers]),
                "random": {name: _digest(state) for name, state in _generators().items()},
            }
        )
        if step == self._last_step:
            os.kill(self._pid, signal.SIGKILL)

    def finished(self) -> None:
        """The run is over: write down what it ended with.  Called again, or at exit, it does nothing more."""
        if self._file is None or os.getpid() != self._pid:
            return
        self._write({"finished": _final(self._model, self._optimizers)})
        disk().close(self._file)
        self._file = None

    def _write(self, line: Mapping[str, object]) -> None:
        assert self._file is not None  # the callers looked
        text = json.dumps(line).encode() + b"\n"
        while text:
            text = text[disk().write(self._file, text) :]


def _inside(directory: str) -> str:
    """A path as one below the test's folder; two that differ stay two."""
    parts = Path(os.path.normpath(directory)).parts
    return "/".join("_up" if part == ".." else "_root" if part == os.sep else part for part in parts)


def _new_file(folder: Path) -> int:
    for number in itertools.count(1):
        try:
            return disk().create(folder / WITNESS.format(number))
        except FileExistsError:
            continue
    raise AssertionError("numbers do not end")


def _digest(value: object) -> str:
    digest = Digest()
    feed(digest, value)
    return str(digest)


def _state(optimizer: object) -> object:
    return optimizer.state_dict() if hasattr(optimizer, "state_dict") else None


def _final(model: nn.Module, optimizers: Sequence[object]) -> dict[str, str]:
    """Digests by name: every tensor of the model, and each optimizer's state as a whole."""
    digests = {}
    for key, value in model.state_dict().items():
        digest = Digest()
        feed_tensor(digest, value) if isinstance(value, torch.Tensor) else feed(digest, value)
        digests[f"model.{key}"] = str(digest)
    for number, optimizer in enumerate(optimizers):
        digests[f"optimizer.{number}" if number else "optimizer"] = _digest(_state(optimizer))
    return digests


def _generators() -> dict[str, object]:
    """The states of the generators that all code shares, by the module that has them."""
    states: dict[str, object] = {"random": random.getstate(), "torch": torch.get_rng_state()}
    if "numpy" in sys.modules:
        states["numpy"] = sys.modules["numpy"].random.get_state(legacy=True)
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        states["torch.cuda"] = torch.cuda.get_rng_state_all()
    return states
