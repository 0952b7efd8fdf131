"""Equal values have equal digests, in any process and memory; others have others."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch

from loadstone.io.digests import Digest
from loadstone.training.digesting import feed


def digest(value: object) -> str:
    made = Digest()
    feed(made, value)
    return str(made)


@dataclass
class Batch:
    x: object
    names: object = ()


class Graph:
    def __init__(self, x: object) -> None:
        self.x = x


@pytest.mark.parametrize(
    ("one", "same"),
    [
        (torch.arange(6.0).reshape(2, 3), torch.arange(6.0).reshape(2, 3).t().contiguous().t()),
        ([1, {"a": torch.ones(2)}], [1, {"a": torch.ones(2)}]),
        (Graph(torch.ones(2)), Graph(torch.ones(2))),
        (np.arange(4), np.arange(4)),
        (torch.eye(3).to_sparse(), torch.eye(3).to_sparse()),
    ],
)  # fmt: skip
def test_equal_values_have_equal_digests(one, same):
    assert digest(one) == digest(same)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (torch.zeros(2), torch.zeros(2, dtype=torch.float64)),
        (torch.zeros(4), torch.zeros(2, 2)),
        (torch.tensor([0.0]), torch.tensor([-0.0])),
        ([1, 2], [[1], 2]),
        ((1,), [1]),
        (1, 1.0),
        ("ab", b"ab"),
        (["a", "b"], ["ab"]),
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}),
        (Batch(torch.ones(2)), Batch(torch.zeros(2))),
        (np.arange(4), np.arange(4, dtype=np.int32)),
        (torch.tensor([1 + 1j]), torch.tensor([1 + 1j]).conj()),
    ],
)
def test_other_values_have_other_digests(one, other):
    assert digest(one) != digest(other)


def test_a_value_inside_itself_comes_to_an_end():
    value: list[object] = [1]
    value.append(value)
    assert digest(value) == digest(value)
