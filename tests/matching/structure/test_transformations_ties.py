"""Embedding and head in one tensor or in two, in the file and in the model."""

from __future__ import annotations

import pytest

import loadstone as ls

torch = pytest.importorskip("torch")
nn = torch.nn


class Words(nn.Module):
    def __init__(self, names: tuple[str, str, str], *, tied: bool) -> None:
        super().__init__()
        self.names = names
        embedding, middle, head = names
        self.add_module(embedding, nn.Embedding(30, 8))
        self.add_module(middle, nn.Linear(8, 8))
        self.add_module(head, nn.Linear(8, 30, bias=False))
        if tied:
            getattr(self, head).weight = getattr(self, embedding).weight

    def forward(self, words: torch.Tensor) -> torch.Tensor:
        for name in self.names:
            words = getattr(self, name)(words)
        return words


def theirs(*, tied: bool) -> Words:
    torch.manual_seed(0)
    return Words(("embed", "mid", "out"), tied=tied)


def ours(*, tied: bool) -> Words:
    return Words(("tokens", "fc", "logits"), tied=tied)


WORDS = torch.arange(12).reshape(2, 6)


def under_one_name(model: Words) -> dict[str, torch.Tensor]:
    return {key: value for key, value in model.state_dict().items() if key != "out.weight"}


def test_one_tensor_fills_two_that_are_not_tied_after_one_question() -> None:
    reference, model = theirs(tied=True), ours(tied=False)
    weights = under_one_name(reference)
    plan = ls.plan(model, weights, match="structure")
    [question] = plan.questions
    assert (question.kind, question.options) == ("tied", ("embed.weight",))
    assert not plan.ok
    plan = ls.load(model, weights, match="structure", answers={question.target: question.options[0]})
    plan.check(WORDS, reference=reference)
    assert torch.equal(model.tokens.weight, model.logits.weight)
    assert model.tokens.weight is not model.logits.weight
    assert {plan.compositions[key].grade for key in ("tokens.weight", "logits.weight")} == {"answer"}


def test_two_names_of_one_memory_fill_two_without_a_question() -> None:
    reference, model = theirs(tied=True), ours(tied=False)
    plan = ls.load(model, reference.state_dict(), match="structure")
    plan.check(WORDS, reference=reference)


def test_two_equal_tensors_fill_one_and_two_different_ones_are_an_error() -> None:
    reference, model = theirs(tied=True), ours(tied=True)
    weights = {key: value.clone() for key, value in reference.state_dict().items()}
    ls.load(model, weights, match="structure").check(WORDS, reference=reference)
    before = model.tokens.weight.clone()
    with pytest.raises(ls.MatchError, match="tied-conflict"):
        ls.load(model, theirs(tied=False).state_dict(), match="structure")
    assert torch.equal(model.tokens.weight, before)


def test_two_matrices_inside_blocks_are_not_taken_for_a_tied_pair() -> None:
    class Block(nn.Module):
        def __init__(self, *names: str) -> None:
            super().__init__()
            self.blocks = nn.ModuleList(nn.ModuleDict({name: nn.Linear(8, 30) for name in names}) for _ in range(2))

    plan = ls.plan(Block("a", "b"), Block("c").state_dict(), match="structure")
    assert not any(question.kind == "tied" for question in plan.questions)
