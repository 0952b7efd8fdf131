"""What an open question does to the output, told without another model."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

import loadstone as ls


class Twins(nn.Module):
    """Two layers of one shape whose outputs are added, which does not tell them apart, or subtracted, which does."""

    def __init__(self, names: tuple[str, str], *, adds: bool) -> None:
        super().__init__()
        self.names, self.adds = names, adds
        self.stem, self.head = nn.Linear(4, 6), nn.Linear(6, 3)
        for name in names:
            self.add_module(name, nn.Linear(6, 6))

    def forward(self, x):
        x = self.stem(x)
        one, other = (getattr(self, name)(x) for name in self.names)
        return self.head(one + other if self.adds else one - other)


def sensitivity(*, adds: bool):
    torch.manual_seed(0)
    model = Twins(("left", "right"), adds=adds)
    plan = ls.plan(model, Twins(("foo", "bar"), adds=adds).state_dict(), match="structure")
    before = copy.deepcopy(model.state_dict())
    (found,) = plan.sensitivity(torch.randn(5, 4))
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert found.question == plan.questions[0]
    assert set(found.options) == {"foo.weight", "bar.weight"}
    return found


def test_a_question_that_changes_nothing_is_moot():
    found = sensitivity(adds=True)
    assert found.is_moot
    assert found.apart < 1e-12
    assert "any answer gives the same output" in str(found)


def test_a_question_that_matters_says_how_far_the_output_moves():
    found = sensitivity(adds=False)
    assert not found.is_moot
    assert found.apart > 0.1
    assert "moves the output by" in str(found)


def test_a_yes_or_no_about_an_order_is_compared_with_other_orders():
    class Cells(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inputs, self.hidden, self.out = nn.Linear(5, 24), nn.Linear(6, 24), nn.Linear(6, 3)

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm, self.score = nn.LSTM(5, 6, batch_first=True), nn.Linear(6, 3)

        def forward(self, x):
            return self.score(self.lstm(x)[0])

    torch.manual_seed(0)
    (found,) = ls.plan(Net(), Cells().state_dict(), match="structure").sensitivity(torch.randn(2, 4, 5))
    assert found.question.kind == "gates"
    assert len(found.options) == 6
    assert not found.is_moot


def test_what_fits_with_no_answer_is_an_error():
    plan = ls.plan(Twins(("left", "right"), adds=True), {"other.weight": torch.zeros(2, 2)}, match="structure")
    with pytest.raises(ls.MatchError, match="cannot be applied"):
        plan.sensitivity(torch.randn(5, 4))
