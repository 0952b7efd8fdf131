"""A training that was killed and resumed computes what it would have computed: every bit, batch and learning rate.

Every pair of options meets in the quick set; `make test-long` runs the product of all of them.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

OPTIONS = {
    "optimizer": ["sgd", "adam", "adamw-foreach", "adamw-fused", "lbfgs"],
    "scheduler": ["step", "cosine", "onecycle", "sequential", "plateau"],
    "workers": [0, 2],
    "accumulate": [1, 3],
    "scaler": [False, True],
    "generator": [False, True],
    "wait": [True, False],
    "layout": ["file", "folder"],
}
WAYS_OF_SAVING = ("generator", "wait", "layout")  # drawn for each cell of the product


def is_possible(cell):
    """LBFGS takes a closure, with which neither a scaler nor accumulation works."""
    return cell["optimizer"] != "lbfgs" or (cell["accumulate"] == 1 and not cell["scaler"])


def product():
    names = [name for name in OPTIONS if name not in WAYS_OF_SAVING]
    chance = random.Random(0)
    for values in itertools.product(*(OPTIONS[name] for name in names)):
        cell = dict(zip(names, values, strict=True)) | {name: chance.choice(OPTIONS[name]) for name in WAYS_OF_SAVING}
        if is_possible(cell):
            yield cell


def pairs_of(cell):
    return set(itertools.combinations(sorted(cell.items(), key=lambda item: item[0]), 2))


def covering():
    """Few cells in which every two values of different options that can meet do."""
    chance = random.Random(1)
    every = (dict(zip(OPTIONS, values, strict=True)) for values in itertools.product(*OPTIONS.values()))
    possible = [cell for cell in every if is_possible(cell)]
    missing = set().union(*map(pairs_of, possible))
    chosen = []
    while missing:
        best = max(chance.sample(possible, 200), key=lambda cell: len(pairs_of(cell) & missing))
        if not pairs_of(best) & missing:
            best = next(cell for cell in possible if pairs_of(cell) & missing)
        missing -= pairs_of(best)
        chosen.append(best)
    return chosen


def outcomes(cells):
    program = Path(__file__).with_name("resume_cells.py")
    done = subprocess.run(
        [sys.executable, program],
        input="\n".join(map(json.dumps, cells)),
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()], done.stderr


def with_kills(cells, seed):
    chance = random.Random(seed)
    return [{**cell, "kill": chance.choice([n for n in range(3, 14) if n % 7 not in (0, 1)])} for cell in cells]


def check(cells):
    found, stderr = outcomes(cells)
    assert len(found) == len(cells)
    for cell, outcome in zip(cells, found, strict=True):
        assert outcome["statuses"] == [0, -9, 0], (cell, stderr)
        *whole, whole_end = outcome["whole"]
        *resumed, resumed_end = outcome["resumed"]
        _, step, batch = resumed_end["resumed"]
        assert step < cell["kill"], cell
        assert not cell["wait"] or step >= cell["kill"] - 3, cell  # in the background it may have been under way
        assert step == 0 or step % 7 == batch, cell
        assert resumed == whole[step:], cell  # batches and learning rates
        assert outcome["killed"] == whole[: cell["kill"]], cell
        assert resumed_end["weights"] == whole_end["weights"], cell


def test_resumed_training_is_the_same_to_the_bit():
    check(with_kills(covering(), seed=2))


@pytest.mark.long
def test_resumed_training_is_the_same_to_the_bit_for_every_combination():
    check(with_kills(list(product()), seed=3))
