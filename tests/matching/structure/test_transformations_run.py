"""The same network written two ways computes the same after a load by structure: real modules, run in float64."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

import loadstone as ls

torch = pytest.importorskip("torch")
nn, functional = torch.nn, torch.nn.functional


def randomised(model: nn.Module) -> nn.Module:
    """Every number another one, variances positive: nothing is equal by its initial value."""
    generator = torch.Generator().manual_seed(0)
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point():
            tensor.copy_(torch.randn(tensor.shape, generator=generator) * 0.4 + 0.1)
            if name.endswith("var"):
                tensor.abs_().add_(0.5)
    return model.eval()


def loaded(
    model: nn.Module, reference: nn.Module, example: torch.Tensor, answers: Mapping[str, str] | None = None
) -> ls.Plan:
    """The plan that filled the model from the reference, after it has been proven by running both."""
    plan = ls.load(model, randomised(reference).state_dict(), match="structure", answers=dict(answers or {}))
    plan.check(example, reference=reference)
    return plan


# orders inside a layer -----------------------------------------------------------------------------------------------


class Torch(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(5, 6, batch_first=True)
        self.out = nn.Linear(6, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(self.lstm(x)[0])


class Ifog(nn.Module):
    """The gates in another order than torch has them: i, f, o, g."""

    def __init__(self) -> None:
        super().__init__()
        self.inputs = nn.Linear(5, 24)
        self.hidden = nn.Linear(6, 24)
        self.score = nn.Linear(6, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        state, cell = x.new_zeros(len(x), 6), x.new_zeros(len(x), 6)
        states = []
        for step in x.unbind(1):
            i, f, o, g = (self.inputs(step) + self.hidden(state)).chunk(4, -1)
            cell = f.sigmoid() * cell + i.sigmoid() * g.tanh()
            state = o.sigmoid() * cell.tanh()
            states.append(state)
        return self.score(torch.stack(states, 1))


def test_gates_of_another_order_are_put_in_order_by_one_answer() -> None:
    example = torch.randn(2, 4, 5)
    key = "lstm.weight_ih_l0"
    plan = loaded(Torch(), Ifog(), example, {key: "inputs.weight | blocks(0; 0, 1, 3, 2)"})
    assert plan.compositions["lstm.bias_hh_l0"].grade == "answer"
    op = next(action for action in plan.loaded if action.target == key).ops[0]
    assert (op.name, op.text) == ("compose", "reordered: 24 × 5 → 24 × 5")
    with pytest.raises(ls.MatchError, match="function-differs"):
        loaded(Torch(), Ifog(), example, {key: "inputs.weight"})


class Attention(nn.Module):
    """q, k and v in one matrix: part by part, or head by head."""

    def __init__(self, name: str, *, by_heads: bool) -> None:
        super().__init__()
        self.name, self.by_heads = name, by_heads
        self.layers = nn.ModuleList(nn.ModuleDict({name: nn.Linear(8, 24), "out": nn.Linear(8, 8)}) for _ in range(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            rows = layer[self.name](x)
            if self.by_heads:
                q, k, v = rows.unflatten(-1, (2, 3, 4)).unbind(-2)
            else:
                q, k, v = rows.unflatten(-1, (3, 2, 4)).unbind(-3)
            made = functional.scaled_dot_product_attention(*(each.transpose(1, 2) for each in (q, k, v)))
            x = x + layer["out"](made.transpose(1, 2).flatten(2))
        return x


def test_heads_and_parts_are_brought_together_both_ways() -> None:
    example = torch.randn(2, 5, 8)
    heads, parts = Attention("query_key_value", by_heads=True), Attention("qkv", by_heads=False)
    answer = {"layers.0.qkv.weight": "layers.0.query_key_value.weight | regroup(0; 2, 3, 4; 1, 0, 2)"}
    plan = loaded(parts, heads, example, answer)
    assert plan.rules["layers.{a}.qkv.*"] == "layers.{a}.query_key_value.* | regroup(0; 2, 3, 4; 1, 0, 2)"
    back = {"layers.0.query_key_value.weight": "layers.0.qkv.weight | regroup(0; 3, 2, 4; 1, 0, 2)"}
    loaded(Attention("query_key_value", by_heads=True), parts, example, back)


def test_an_order_that_was_said_is_kept_in_the_recipe(tmp_path) -> None:
    example = torch.randn(2, 4, 5)
    plan = loaded(Torch(), Ifog(), example, {"lstm.weight_ih_l0": "inputs.weight | blocks(0; 0, 1, 3, 2)"})
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(plan.recipe())
    assert plan.rules["lstm.weight_hh_l0"] == "hidden.weight | blocks(0; 0, 1, 3, 2)"
    again = Torch()
    replayed = ls.load(again, Ifog().state_dict(), recipe=recipe)
    assert replayed.ok
    assert replayed.to_json() == ls.plan(Torch(), Ifog().state_dict(), recipe=recipe).to_json()


@pytest.mark.parametrize(
    ("key", "text", "said"),
    [
        ("lstm.weight_ih_l0", "inputs.weight | blocks(0; 0, 2)", "cannot be read"),
        ("lstm.weight_ih_l0", "inputs.weight | blocks(0; 4, 3, 2, 1, 0)", "cannot be done"),
        ("lstm.weight_ih_l0", "nowhere.weight | blocks(0; 1, 0)", "no key of the checkpoint"),
        ("lstm.weight_ih_l0", "score.weight | blocks(0; 2, 1, 0)", "fits neither shapes"),
        ("lstm.bias_ih_l0", "inputs.bias | blocks(0; 0, 1, 3, 2)", "was not taken"),
        ("out.bias", "score.bias | blocks(0; 2, 1, 0)", "was not taken"),
    ],
)
def test_an_order_that_comes_to_nothing_is_an_error(key, text, said) -> None:
    gates = {"lstm.weight_ih_l0": "inputs.weight"}
    plan = ls.plan(Torch(), Ifog().state_dict(), match="structure", answers={**gates, key: text})
    assert said in next(one.message for one in plan.diagnostics if one.code == "answer-unfit")
