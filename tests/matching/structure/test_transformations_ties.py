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


class Headed(nn.Module):
    """A head whose matrix is that of the words, or has its bias in a module of its own, as implementations differ."""

    def __init__(self, words: str, head: str, *, nested: bool) -> None:
        super().__init__()
        self.names = head, words
        self.add_module(words, nn.Embedding(30, 8))
        self.add_module("places", nn.Embedding(12, 8))
        inner = nn.Linear(8, 30)
        inner.weight = self.get_submodule(words).weight
        outer = nn.Module()
        outer.add_module("mix", nn.Linear(8, 8))
        outer.add_module("last", inner)
        if nested:  # the bias under two names, the matrix under two others
            outer.bias = inner.bias
        self.add_module(head, outer if nested else nn.ModuleDict({"mix": outer.mix}))
        if not nested:
            self.get_submodule(head).weight, self.get_submodule(head).bias = inner.weight, inner.bias

    def forward(self, words: torch.Tensor) -> torch.Tensor:
        head, table = map(self.get_submodule, self.names)
        hidden = head.mix(table(words) + self.places.weight[: words.shape[1]])
        return nn.functional.linear(hidden, table.weight, head.bias)


@pytest.mark.parametrize("names", [("tokens", "head"), ("zebra", "able")])
@pytest.mark.parametrize("nested", [(True, False), (False, True), (True, True)])
def test_of_two_names_that_one_stands_which_leaves_layers_as_the_other_side_has_them(
    names: tuple[str, str], nested: tuple[bool, bool]
) -> None:
    torch.manual_seed(0)
    reference, model = Headed("embed", "out", nested=nested[0]), Headed(*names, nested=nested[1])
    weights = reference.state_dict()
    for some in (weights, dict(reversed(weights.items()))):
        for parameter in model.parameters():
            nn.init.zeros_(parameter)
        ls.load(model, some, match="structure").check(WORDS, reference=reference)


class Twice(nn.Module):
    """A layer that is registered under two names, as where a Sequential holds what has names of its own."""

    def __init__(self, names: tuple[str, str], twice: str = "") -> None:
        super().__init__()
        layers = nn.Conv1d(3, 8, 3, padding=1), nn.Conv1d(8, 8, 3, padding=1)
        self.names = names
        for name, layer in zip(names, layers, strict=True):
            self.add_module(name, layer)
        self.add_module("side" if twice else "match", nn.Conv1d(3, 8, 1))
        if twice:
            self.add_module(twice, nn.Sequential(layers[0], nn.ReLU(), layers[1]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        first, second = (self.get_submodule(name) for name in self.names)
        side = self.side if hasattr(self, "side") else self.match
        return second(first(x).relu()) + side(x)


@pytest.mark.parametrize("twice", ["net", "a_net"])
def test_a_layer_under_two_names_is_one_layer_under_the_name_beside_the_others(twice: str) -> None:
    torch.manual_seed(0)
    reference, model = Twice(("conv1", "conv2"), twice), Twice(("first", "second"))
    x = torch.randn(2, 3, 5)
    plan = ls.load(model, dict(reversed(reference.state_dict().items())), match="structure")
    plan.check(x, reference=reference)
    plan = ls.load(Twice(("conv1", "conv2"), twice), model.state_dict(), match="structure")
    plan.check(x, reference=model)


def test_an_answer_may_name_either_of_two_names() -> None:
    reference, model = theirs(tied=True), ours(tied=True)
    for key in ("embed.weight", "out.weight"):
        for place in ("tokens.weight", "logits.weight"):
            plan = ls.load(model, reference.state_dict(), match="structure", answers={place: key})
            plan.check(WORDS, reference=reference)
