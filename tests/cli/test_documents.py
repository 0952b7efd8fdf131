"""What --json says about values is JSON for every parser, however strange the values are."""

from __future__ import annotations

import json

import pytest

from loadstone.cli.documents import Plain
from loadstone.tensors import TensorInfo
from loadstone.values import Opaque

TENSOR = TensorInfo("w", "float32", (2,), (1,))


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (float("nan"), "nan"),
        (float("-inf"), "-inf"),
        (2**70, str(2**70)),
        pytest.param(1 << 100_000, {"$integer": "100001 bits"}, id="huge"),
        (b"\x00\xff", {"$bytes": 2}),
        (3 + 4j, "(3+4j)"),
        ({1: "a", None: "b", (1, 2): "c"}, {"1": "a", "None": "b", "tuple": "c"}),
        ({"state": {0: {"exp_avg": TENSOR}}, "epoch": 3}, {"epoch": 3}),
        (TENSOR, None),
        ([TENSOR, 1], [1]),
        ({}, {}),
        (Opaque("pkg.Config", state={"lr": 0.1}), {"$class": "pkg.Config", "state": {"lr": 0.1}}),
    ],
)
def test_values_as_json(value, plain):
    assert Plain().value(value) == plain


def test_a_long_text_is_cut():
    assert len(Plain().value("x" * 10_000_000)) < 3000


def test_an_object_that_holds_itself_ends():
    knot = Opaque("pkg.Node")
    knot.state = {"parent": knot}
    assert "$truncated" in json.dumps(Plain().value(knot))


def test_sharing_cannot_multiply():
    laughs = ["ha"] * 10
    for _ in range(30):
        laughs = [laughs] * 10
    assert len(json.dumps(Plain().value(laughs))) < 2_000_000
