"""Attention without a bias of k, into one that has q, k and v in one bias, and back."""

from __future__ import annotations

from pathlib import Path

import pytest

import loadstone as ls
from loadstone.matching.structure import Item, match
from loadstone.matching.structure.layers import layers
from loadstone.matching.structure.tables import constants

torch = pytest.importorskip("torch")
nn = torch.nn


class Attention(nn.Module):
    """One matrix for q, k and v; the bias of all three, or those of q and v, or of three layers of which k has none."""

    def __init__(self, style: str, width: int = 8) -> None:
        super().__init__()
        self.style = style
        if style == "apart":
            self.q_proj, self.v_proj = nn.Linear(width, width), nn.Linear(width, width)
            self.k_proj = nn.Linear(width, width, bias=False)
        else:
            self.qkv = nn.Linear(width, 3 * width, bias=style == "whole")
        if style == "two":
            self.q_bias, self.v_bias = nn.Parameter(torch.randn(width)), nn.Parameter(torch.randn(width))
        self.proj = nn.Linear(width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.style == "apart":
            q, k, v = self.q_proj(x), self.k_proj(x), self.v_proj(x)
        elif self.style == "two":
            bias = torch.cat((self.q_bias, torch.zeros_like(self.q_bias), self.v_bias))
            q, k, v = nn.functional.linear(x, self.qkv.weight, bias).chunk(3, -1)
        else:
            q, k, v = self.qkv(x).chunk(3, -1)
        return self.proj(nn.functional.scaled_dot_product_attention(q, k, v))


class Network(nn.Module):
    def __init__(self, style: str, names: tuple[str, str, str, str]) -> None:
        super().__init__()
        torch.manual_seed(0)
        stem, blocks, attention, up = names
        self.names = names
        self.add_module(stem, nn.Linear(3, 8))
        block = ({attention: Attention(style), up: nn.Linear(8, 16)} for _ in range(3))
        self.add_module(blocks, nn.ModuleList(map(nn.ModuleDict, block)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        stem, blocks, attention, up = self.names
        x = self.get_submodule(stem)(x)
        for block in self.get_submodule(blocks):
            x = x + block[attention](x) + block[up](x)[..., :8]
        return x


THEIRS, OURS = ("stem", "layers", "attn", "up"), ("patches", "blocks", "attention", "wide")
X = torch.linspace(-1, 1, 30).reshape(2, 5, 3)


@pytest.mark.parametrize("styles", [("two", "whole"), ("whole", "two"), ("apart", "whole"), ("whole", "apart")])
def test_one_question_says_what_becomes_of_the_bias_of_k(styles: tuple[str, str], tmp_path: Path) -> None:
    reference, model = Network(styles[0], THEIRS), Network(styles[1], OURS)
    plan = ls.plan(model, reference.state_dict(), match="structure")
    [question] = plan.questions
    assert "bias of k" in question.text
    assert not any("attention" in key and "bias" in key and "proj.bias" not in key for key in plan.compositions)
    plan = ls.load(model, reference.state_dict(), match="structure", answers={question.target: question.options[0]})
    plan.check(X, reference=reference)  # a bias of k adds the same to every score of a query
    recipe, again = tmp_path / "theirs.toml", Network(styles[1], OURS)
    recipe.write_text(plan.recipe())
    ls.load(again, reference.state_dict(), recipe=recipe).check(X, reference=reference)


def test_zeros_stand_where_the_bias_of_k_is_and_nothing_else_is_made_up() -> None:
    reference, model = Network("two", THEIRS), Network("whole", OURS)
    answers = {"blocks.0.attention.qkv.weight": "layers.0.attn.qkv.weight"}
    ls.load(model, reference.state_dict(), match="structure", answers=answers)
    for theirs, ours in zip(reference.layers, model.blocks, strict=True):
        q, k, v = ours["attention"].qkv.bias.chunk(3)
        assert torch.equal(q, theirs["attn"].q_bias)
        assert torch.equal(v, theirs["attn"].v_bias)
        assert not k.any()


def attention(path: str, *, one: bool, biases: str) -> list[Item]:
    found = [Item(f"{path}.qkv.weight", (24, 8)), Item(f"{path}.proj.weight", (8, 8))]
    return found + ([Item(f"{path}.qkv.bias", (24,))] if one else [Item(f"{path}.{b}_bias", (8,)) for b in biases])


@pytest.mark.parametrize("biases", ["qk", "v", "q", ""])
def test_other_biases_than_those_of_q_and_v_make_no_whole_one(biases: str) -> None:
    source = [item for n in range(3) for item in attention(f"layers.{n}.attn", one=True, biases="")]
    target = [item for n in range(3) for item in attention(f"blocks.{n}.mix", one=False, biases=biases)]
    result = match(source, target)
    assert result.verdict != "complete"
    assert not any(key.endswith("_bias") for key in result.assignments)


def test_a_table_that_does_not_grow_with_its_block_is_no_layer_and_one_that_grows_is() -> None:
    def block(n: int, width: int) -> list[Item]:
        shapes = {"qkv.weight": (3 * width, width), "coords": (7, 7, 2), "places": (7, width), "scale": (2, 1, 1)}
        return [Item(f"layers.{n}.{name}", shape) for name, shape in shapes.items()]

    found = layers([*block(0, 8), *block(1, 16)])
    assert {found[index].text for index in constants(found)} == {"layers.0.coords", "layers.1.coords"}
    assert not constants(layers([*block(0, 8), *block(1, 8)]))
