"""Answers that name no tensor, through a plan: they are read, printed, checked and kept in the recipe."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

import loadstone as ls


class Block(nn.Module):
    def __init__(self, *names: str) -> None:
        super().__init__()
        for name in names[:2]:
            self.add_module(name, nn.LayerNorm(8))
        self.add_module(names[2], nn.Linear(8, 32))
        self.add_module(names[3], nn.Linear(32, 8))


class Net(nn.Module):
    def __init__(self, blocks: str, *names: str) -> None:
        super().__init__()
        self.add_module(blocks, nn.ModuleList(Block(*names) for _ in range(3)))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    model = Net("body", "one", "other", "widen", "narrow")
    for parameter in model.parameters():
        nn.init.normal_(parameter)
    torch.save(model.state_dict(), tmp_path / "theirs.pth")
    return tmp_path / "theirs.pth"


def ours() -> Net:
    return Net("layers", "west", "east", "up", "down")


def test_order_loads_what_was_open_and_is_called_a_guess(file: Path) -> None:
    model = ours()
    plan = ls.load(model, file, match="structure", answers={"*": "order"})
    assert torch.equal(model.state_dict()["layers.2.west.weight"], torch.load(file)["body.2.one.weight"])
    assert "12 tensors by the order of keys, because you asked: a guess." in str(plan)
    assert plan.admissible > 0
    assert '"*" = "order"' in plan.recipe()


def test_none_of_these_leaves_the_model_its_own_values(file: Path) -> None:
    model = ours()
    plan = ls.load(model, file, match="structure", answers={"layers.0.west.weight": ""}, strict=False)
    assert not plan.questions
    assert "layers.0.west.weight" in plan.missing_keys
    assert torch.equal(model.state_dict()["layers.1.west.weight"], torch.ones(8))
    assert torch.equal(model.state_dict()["layers.1.up.weight"], torch.load(file)["body.1.widen.weight"])


@pytest.mark.parametrize("answers", [{"*": "size"}, {"layers.0.north.weight": ""}])
def test_an_answer_that_says_nothing_that_can_be_done_is_an_error(file: Path, answers: dict[str, str]) -> None:
    with pytest.raises(ls.MatchError) as raised:
        ls.load(ours(), file, match="structure", answers=answers)
    assert "answer-unfit" in {found.code for found in raised.value.diagnostics}
