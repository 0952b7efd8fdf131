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


class Gated(nn.Module):
    """Gated MLPs, with gate and up apart or in one matrix."""

    def __init__(self, *names: str, gate: int = 0) -> None:
        super().__init__()
        self.names, self.gate = names, gate
        shapes = [(8, 24 // (len(names) - 1))] * (len(names) - 1) + [(12, 8)]
        layer = lambda: nn.ModuleDict({name: nn.Linear(*shape) for name, shape in zip(names, shapes, strict=True)})  # noqa: E731
        self.layers = nn.ModuleList(layer() for _ in range(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            *into, out = (layer[name] for name in self.names)
            both = torch.cat([each(x) for each in into], -1).chunk(2, -1)
            x = x + out(functional.silu(both[self.gate]) * both[1 - self.gate])
        return x


def test_gate_and_up_are_joined_and_cut() -> None:
    example = torch.randn(2, 8)
    apart, joined = Gated("gate_proj", "up_proj", "down_proj"), Gated("gate_up_proj", "down_proj")
    plan = loaded(joined, apart, example)
    assert plan.rules["layers.{a}.gate_up_proj.*"] == "layers.{a}.gate_proj.* + layers.{a}.up_proj.*"
    loaded(Gated("gate_proj", "up_proj", "down_proj"), joined, example)


def test_a_gate_that_comes_second_is_found_by_the_second_answer() -> None:
    example = torch.randn(2, 8)
    joined = Gated("fc1", "fc2", gate=1)
    plan = ls.plan(joined, Gated("w1", "w3", "w2").state_dict(), match="structure")
    [question] = [one for one in plan.diagnostics if one.code == "open-question"]
    answers = [eval(fix.paste.removeprefix("answers=")) for fix in question.fixes]
    with pytest.raises(ls.MatchError, match="function-differs"):
        loaded(joined, Gated("w1", "w3", "w2"), example, answers[0])
    loaded(joined, Gated("w1", "w3", "w2"), example, answers[1])
    answer = {"layers.0.w1.weight": "layers.0.fc1.weight | blocks(0; 1, 0)"}
    back = loaded(Gated("w1", "w3", "w2"), joined, example, answer)
    assert back.rules["layers.{a}.w1.*"] == "layers.{a}.fc1.* | chunk(1, 2)"


class Apart(nn.Module):
    """Experts of their own modules, every one of them weighted by a router."""

    def __init__(self, width: int = 6, inner: int = 10) -> None:
        super().__init__()
        self.router = nn.Linear(width, 3)
        shapes = {"w1": (width, inner), "w2": (inner, width), "w3": (width, inner)}
        experts = ({name: nn.Linear(*shape, bias=False) for name, shape in shapes.items()} for _ in range(3))
        self.experts = nn.ModuleList(map(nn.ModuleDict, experts))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        made = [each["w2"](functional.silu(each["w1"](x)) * each["w3"](x)) for each in self.experts]
        return (torch.stack(made, -1) * self.router(x).softmax(-1)[..., None, :]).sum(-1)


class Stacked(nn.Module):
    """The same in two tensors, of which one has gate and up in one."""

    def __init__(self, width: int = 6, inner: int = 10, *, turned: bool = False, up_first: bool = False) -> None:
        super().__init__()
        self.turned, self.up_first = turned, up_first
        self.gate = nn.Linear(width, 3)
        self.both = nn.Parameter(torch.empty((3, width, 2 * inner) if turned else (3, 2 * inner, width)))
        self.back = nn.Parameter(torch.empty((3, inner, width) if turned else (3, width, inner)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        both, back = (self.both, self.back) if self.turned else (self.both.mT, self.back.mT)
        one, other = torch.einsum("bi,eio->ebo", x, both).chunk(2, -1)
        hidden = functional.silu(other) * one if self.up_first else functional.silu(one) * other
        return torch.einsum("ebi,eio,be->bo", hidden, back, self.gate(x).softmax(-1))


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("up_first", [False, True])
def test_experts_are_stacked_and_taken_apart(turned: bool, up_first: bool) -> None:
    example = torch.randn(4, 6)
    apart, stacked = Apart(), Stacked(turned=turned, up_first=up_first)
    for model, reference in ((stacked, apart), (apart, stacked)):
        plan = ls.plan(model, reference.state_dict(), match="structure")
        [question] = [one for one in plan.diagnostics if one.code == "open-question"]
        answers = [eval(fix.paste.removeprefix("answers=")) for fix in question.fixes]
        loaded(model, reference, example, answers[up_first])
        with pytest.raises(ls.MatchError, match="function-differs"):
            loaded(model, reference, example, answers[not up_first])


def test_experts_of_square_matrices_are_asked_about() -> None:
    for turned in (False, True):
        plan = ls.plan(Stacked(6, 6, turned=turned), Apart(6, 6).state_dict(), match="structure")
        assert not {"both", "back"} & plan.compositions.keys()


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
