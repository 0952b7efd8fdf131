"""The optimizer's state follows a match by structure: training goes on in the other implementation as if in the first.

The same network is written twice.  It is trained in one, transferred, and trained on in the other: weights and state
are those of a training that was never interrupted, up to the rounding of sums taken in another order.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import loadstone as ls
from loadstone.training.optimizer_rearranging import keys_of

torch = pytest.importorskip("torch")
nn = torch.nn
functional = torch.nn.functional


class Transposed(nn.Module):
    """A linear layer with its matrix the other way round, as GPT-2's Conv1D is."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(inputs, outputs) / inputs**0.5)
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x @ self.weight + self.bias


def attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    q, k, v = (each.unflatten(-1, (2, -1)).transpose(1, 2) for each in (q, k, v))
    return functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)


class Apart(nn.Module):
    """Query, key and value in a matrix each."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.stem = nn.Linear(6, width)
        self.layer = nn.ModuleList(
            nn.ModuleDict(
                {
                    "query": nn.Linear(width, width),
                    "key": nn.Linear(width, width),
                    "value": nn.Linear(width, width),
                    "dense": nn.Linear(width, width),
                    "feed_in": nn.Linear(width, 3 * width + 1),
                    "feed_out": nn.Linear(3 * width + 1, width),
                }
            )
            for _ in range(2)
        )
        self.score = nn.Linear(width, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        for block in self.layer:
            x = x + block["dense"](attention(block["query"](x), block["key"](x), block["value"](x)))
            x = x + block["feed_out"](block["feed_in"](x).tanh())
        return self.score(x)


class Joined(nn.Module):
    """All three in one matrix, and every matrix of a block transposed."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.embedder = nn.Linear(6, width)
        self.h = nn.ModuleList(
            nn.ModuleDict(
                {
                    "qkv": Transposed(width, 3 * width),
                    "proj": Transposed(width, width),
                    "fc": Transposed(width, 3 * width + 1),
                    "out": Transposed(3 * width + 1, width),
                }
            )
            for _ in range(2)
        )
        self.head = nn.Linear(width, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.embedder(x)
        for block in self.h:
            x = x + block["proj"](attention(*block["qkv"](x).chunk(3, -1)))
            x = x + block["out"](block["fc"](x).tanh())
        return self.head(x)


class Stacked(nn.Module):
    """Queries, keys and values of two heads in one matrix, part by part."""

    def __init__(self, inner: str = "attn") -> None:
        super().__init__()
        self.stem = nn.Linear(6, 8)
        self.blocks = nn.ModuleList(
            nn.ModuleDict({inner: nn.Linear(8, 24), "dense": nn.Linear(8, 8), "fc": nn.Linear(8, 8)}) for _ in range(2)
        )
        self.inner = inner
        self.head = nn.Linear(8, 3)

    def split(self, qkv: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return qkv.chunk(3, -1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        for block in self.blocks:
            x = x + block["fc"](block["dense"](attention(*self.split(block[self.inner](x)))).tanh())
        return self.head(x)


class ByHeads(Stacked):
    """And head by head."""

    def __init__(self) -> None:
        super().__init__("query_key_value")

    def split(self, qkv: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return tuple(each.flatten(2) for each in qkv.unflatten(-1, (2, 3, -1)).unbind(3))


class Convolutions(nn.Module):
    """Channels mixed by 1 × 1 convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.ModuleList([nn.Conv1d(6, 8, 1), nn.Conv1d(8, 12, 1), nn.Conv1d(12, 3, 1)])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x.transpose(1, 2)
        for layer in self.mix:
            x = layer(x).tanh()
        return x.transpose(1, 2)


class Linears(nn.Module):
    """And by linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(6, 8), nn.Linear(8, 12), nn.Linear(12, 3)])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x = layer(x).tanh()
        return x


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.LSTM(6, 5, num_layers=2, batch_first=True)
        self.head = nn.Linear(5, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.rnn(x)[0])


class Cells(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cells = nn.ModuleList([nn.LSTMCell(6, 5), nn.LSTMCell(5, 5)])
        self.out = nn.Linear(5, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        states: list[tuple[torch.Tensor, torch.Tensor] | None] = [None, None]
        outputs = []
        for at in range(x.shape[1]):
            y = x[:, at]
            for number, cell in enumerate(self.cells):
                states[number] = cell(y, states[number])
                y = states[number][0]  # type: ignore[index]
            outputs.append(self.out(y))
        return torch.stack(outputs, 1)


WAYS: dict[str, tuple[type[nn.Module], type[nn.Module], dict[str, str]]] = {
    "q, k and v joined": (Apart, Joined, {}),
    "and cut": (Joined, Apart, {}),
    "in another order inside an axis": (
        Stacked,
        ByHeads,
        {"blocks.0.query_key_value.weight": "blocks.0.attn.weight | regroup(0; 3, 2, 4; 1, 0, 2)"},
    ),
    "1 × 1 convolutions as linear layers": (Convolutions, Linears, {}),
    "and back": (Linears, Convolutions, {}),
    "an LSTM as cells": (Recurrent, Cells, {}),
    "and as one": (Cells, Recurrent, {}),
}
# A key's bias has no gradient but that of rounding, which a small eps would blow up.
OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "AdamW": lambda parameters: torch.optim.AdamW(parameters, lr=0.02, eps=1e-3, amsgrad=True),
    "SGD": lambda parameters: torch.optim.SGD(parameters, lr=0.05, momentum=0.9),
    "RMSprop": lambda parameters: torch.optim.RMSprop(parameters, lr=0.01, momentum=0.5, eps=1e-3, centered=True),
}


def train(model: nn.Module, optimizer: torch.optim.Optimizer, first: int, count: int) -> None:
    for seed in range(first, first + count):
        generator = torch.Generator().manual_seed(seed)
        x, y = (torch.randn(4, 5, size, generator=generator, dtype=torch.float64) for size in (6, 3))
        optimizer.zero_grad()
        (model(x) - y).square().mean().backward()
        optimizer.step()


def states(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    return {
        f"{name}/{key}": torch.as_tensor(value)
        for name, parameter in model.named_parameters()
        for key, value in optimizer.state[parameter].items()
    }


def apart(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    assert one.keys() == other.keys()
    return max(float((one[key].double() - other[key].double()).abs().max()) for key in one)


def transferred(
    old: nn.Module, optimizer: torch.optim.Optimizer, new: nn.Module, kind: str, answers: dict[str, str]
) -> tuple[torch.optim.Optimizer, ls.OptimizerPlan]:
    """The new model with the old one's weights, and an optimizer with its state."""
    weights = ls.load(new, old.state_dict(), match="structure", answers=answers)
    following = OPTIMIZERS[kind](new.parameters())
    plan = ls.plan_optimizer(following, ls.named_state(optimizer, old), model=new, strict="transfer", weights=weights)
    plan.apply()
    return following, plan


@pytest.mark.parametrize("kind", OPTIMIZERS)
@pytest.mark.parametrize("way", WAYS)
def test_training_goes_on_in_the_other_implementation_as_in_the_first(way: str, kind: str) -> None:
    before, after, answers = WAYS[way]
    torch.manual_seed(0)
    old = before().double()
    optimizer = OPTIMIZERS[kind](old.parameters())
    train(old, optimizer, 0, 6)
    new = after().double()
    following, plan = transferred(old, optimizer, new, kind, answers)
    assert {line.status for line in plan.lines} <= {"kept", "rearranged"}
    alone = copy.deepcopy(new)
    without_state = OPTIMIZERS[kind](alone.parameters())

    train(old, optimizer, 6, 9)
    train(new, following, 6, 9)
    train(alone, without_state, 6, 9)
    wanted = after().double()
    wanted_optimizer, _ = transferred(old, optimizer, wanted, kind, answers)
    assert apart(new.state_dict(), wanted.state_dict()) < 1e-12
    assert apart(states(new, following), states(wanted, wanted_optimizer)) < 1e-12
    assert apart(alone.state_dict(), wanted.state_dict()) > 1e-4


def run_of(folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> ls.Run:
    return ls.Run(folder, name="net", model=model, optimizer=optimizer)


def test_a_run_goes_on_in_the_other_implementation_and_says_what_was_rearranged(tmp_path: Path) -> None:
    torch.manual_seed(0)
    old = Apart().double()
    first = OPTIMIZERS["AdamW"](old.parameters())
    train(old, first, 0, 3)
    with run_of(tmp_path / "run", old, first) as run:
        run.save(epoch=1)
    new = Joined().double()
    second = OPTIMIZERS["AdamW"](new.parameters())
    with run_of(tmp_path / "run", new, second) as run:
        at = run.resume(strict="transfer", match="structure")
    assert at.epoch == 1
    assert at.report.new == []
    assert "20 tensors, 10 of them rearranged" in str(at.report)
    assert "state of 20 parameters, 10 of them rearranged as their weights are" in str(at.report)
    assert "rearranged" in at.report.details[0]
    block = old.layer[1]
    for key in ("exp_avg", "exp_avg_sq", "max_exp_avg_sq"):
        parts = [first.state[block[name].weight][key] for name in ("query", "key", "value")]
        assert torch.equal(second.state[new.h[1]["qkv"].weight][key], torch.cat(parts).T)
    assert second.state[new.h[1]["qkv"].weight]["step"] == 3


def resumed(new: nn.Module, folder: Path, kind: Callable[..., torch.optim.Optimizer]) -> tuple[Any, ls.Progress]:
    """The new model's optimizer, and where the run of the old one was found."""
    optimizer = kind(new.parameters())
    with run_of(folder, new, optimizer) as run:
        return optimizer, run.resume(strict="transfer", match="structure")


def test_parts_with_other_step_counts_start_anew(tmp_path: Path) -> None:
    old = Apart().double()
    first = OPTIMIZERS["AdamW"](old.parameters())
    old.layer[0]["key"].requires_grad_(False)
    train(old, first, 0, 2)
    old.requires_grad_(True)
    train(old, first, 2, 1)
    with run_of(tmp_path, old, first) as run:
        run.save(epoch=1)
    new = Joined().double()
    second, at = resumed(new, tmp_path, OPTIMIZERS["AdamW"])
    assert at.report.new == ["optimizer.h.0.qkv.weight", "optimizer.h.0.qkv.bias"]
    assert "step of `layer.0.key.weight` is 1, of `layer.0.query.weight` 3" in str(at.report)
    assert "its weights go into `h.0.qkv.weight`, whose state starts afresh" in str(at.report)
    assert new.h[0]["qkv"].weight not in second.state
    assert second.state[new.h[1]["qkv"].weight]["step"] == 3


def test_a_part_that_was_not_trained_leaves_the_whole_without_state(tmp_path: Path) -> None:
    old = Apart().double()
    trained = [parameter for name, parameter in old.named_parameters() if "key" not in name]
    first = OPTIMIZERS["SGD"](trained)
    train(old, first, 0, 2)
    with run_of(tmp_path, old, first) as run:
        run.save(epoch=1)
    new = Joined().double()
    second, at = resumed(new, tmp_path, OPTIMIZERS["SGD"])
    assert "`layer.0.key.weight` is not in the file's optimizer" in str(at.report)
    assert new.h[0]["qkv"].weight not in second.state
    assert new.h[0]["fc"].weight in second.state


def test_moments_in_factors_start_anew_where_a_matrix_is_turned(tmp_path: Path) -> None:
    torch.manual_seed(0)
    old = Apart().double()
    first = torch.optim.Adafactor(old.parameters())
    train(old, first, 0, 2)
    with run_of(tmp_path, old, first) as run:
        run.save(epoch=1)
    new = Joined().double()
    second, at = resumed(new, tmp_path, torch.optim.Adafactor)
    turned = [f"optimizer.h.{at}.{name}.weight" for at in range(2) for name in ("qkv", "proj", "fc", "out")]
    assert at.report.new == turned
    assert "is not known to be one number a weight" in str(at.report)
    biases = [first.state[old.layer[0][name].bias]["variance"] for name in ("query", "key", "value")]
    assert torch.equal(second.state[new.h[0]["qkv"].bias]["variance"], torch.cat(biases))
    assert second.state[new.head.weight]["row_var"].equal(first.state[old.score.weight]["row_var"])


class Preconditioned(torch.optim.Optimizer):
    """Keeps momentum and, as Shampoo does, a square matrix for each side of a matrix; in a list, if asked for."""

    def __init__(self, parameters: Any, *, is_list: bool = False) -> None:
        super().__init__(parameters, {"lr": 0.1})
        self.is_list = is_list

    def step(self, closure: Any = None) -> None:
        for parameter in (each for group in self.param_groups for each in group["params"]):
            state = self.state[parameter]
            state["momentum"] = state.get("momentum", 0) + parameter.grad
            if parameter.ndim == 2:
                left = parameter.grad @ parameter.grad.T
                state["left"] = [left] if self.is_list else left


@pytest.mark.parametrize("is_list", [False, True])
def test_a_square_factor_of_a_square_matrix_is_not_taken_for_a_moment(tmp_path: Path, is_list: bool) -> None:
    torch.manual_seed(0)
    old = Apart().double()
    first = Preconditioned(old.parameters(), is_list=is_list)
    train(old, first, 0, 2)
    with run_of(tmp_path, old, first) as run:
        run.save(epoch=1)
    new = Joined().double()
    second, at = resumed(new, tmp_path, Preconditioned)
    assert "optimizer.h.0.proj.weight" in at.report.new
    assert "left is not known to be one number a weight" in str(at.report)
    assert "momentum" in second.state[new.h[0]["qkv"].bias]


@pytest.mark.parametrize(
    ("shapes", "is_moment"),
    [
        ([(4, 4), (8, 4)], True),  # one that is not square tells
        ([(4, 4), (8, 8)], False),  # all could be factors
        ([(4, 4), (4,)], False),
        ([(4,), (8,)], True),
    ],
)
def test_what_an_unknown_key_holds_is_told_by_shapes_that_are_not_square(
    shapes: list[tuple[int, ...]], is_moment: bool
) -> None:
    optimizer = Preconditioned([nn.Parameter(torch.zeros(1))])
    states = [({"key": torch.zeros(shape), "step": torch.tensor(1.0)}, shape) for shape in shapes]
    keys = keys_of(optimizer, states)
    assert ("key" in keys.each) == is_moment
    assert keys.whole == {"step"}


def test_positions_in_a_file_of_plain_torch_are_named_and_rearranged(tmp_path: Path) -> None:
    torch.manual_seed(0)
    old = Apart().double()
    first = OPTIMIZERS["AdamW"](old.parameters())
    train(old, first, 0, 3)
    torch.save({"model": old.state_dict(), "optimizer": first.state_dict()}, tmp_path / "theirs.pth")
    new = Joined().double()
    second = OPTIMIZERS["AdamW"](new.parameters())
    weights = ls.load(new, tmp_path / "theirs.pth", match="structure")
    with ls.open(tmp_path / "theirs.pth") as checkpoint:
        plan = ls.plan_optimizer(second, checkpoint, model=new, weights=weights, strict="transfer")
        plan.apply()
    assert len(plan.named("rearranged")) == 10
    assert torch.equal(
        second.state[new.h[1]["fc"].weight]["exp_avg"], first.state[old.layer[1]["feed_in"].weight]["exp_avg"].T
    )


def test_nothing_is_rearranged_without_the_plan_that_rearranged_the_weights() -> None:
    old = Apart().double()
    first = OPTIMIZERS["SGD"](old.parameters())
    train(old, first, 0, 1)
    new = Joined().double()
    second = OPTIMIZERS["SGD"](new.parameters())
    plan = ls.plan_optimizer(second, ls.named_state(first, old), model=new, strict="transfer")
    assert plan.named("rearranged") == plan.named("kept") == []


def test_an_exact_plan_lists_what_would_be_rearranged() -> None:
    old, new = Convolutions().double(), Linears().double()
    first, second = (OPTIMIZERS["SGD"](model.parameters()) for model in (old, new))
    train(old, first, 0, 1)
    weights = ls.load(new, old.state_dict(), match="structure")
    plan = ls.plan_optimizer(second, ls.named_state(first, old), model=new, weights=weights)
    assert not plan.ok
    assert [row[0] for row in plan.diagnostics[0].evidence] == ["rearranged"] * 3


class Normed(nn.Module):
    """Two norms of one shape in a block, which nothing tells apart."""

    def __init__(self, first: str, second: str, inner: str) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            nn.ModuleDict({first: nn.LayerNorm(6), inner: nn.Linear(6, 6), second: nn.LayerNorm(6)}) for _ in range(2)
        )
        self.names = first, inner, second
        self.head = nn.Linear(6, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for block in self.blocks:
            for name in self.names:
                x = block[name](x)
        return self.head(x)


def test_open_questions_stop_a_resume_and_are_answered_in_it(tmp_path: Path) -> None:
    torch.manual_seed(0)
    old = Normed("front", "behind", "mix").double()
    first = OPTIMIZERS["AdamW"](old.parameters())
    train(old, first, 0, 2)
    with run_of(tmp_path / "run", old, first) as run:
        run.save(epoch=1)
    new = Normed("a", "b", "c").double()
    before = copy.deepcopy(new.state_dict())
    second = OPTIMIZERS["AdamW"](new.parameters())
    with run_of(tmp_path / "run", new, second) as run:
        with pytest.raises(ls.MatchError) as asked:
            run.resume(strict="transfer", match="structure")
        assert "open-question" in [each.code for each in asked.value.diagnostics]
        pastes = [fix.paste for each in asked.value.diagnostics for fix in each.fixes]
        assert 'answers={"blocks.0.a.weight": "blocks.0.front.weight"}' in pastes
        assert all(torch.equal(before[key], value) for key, value in new.state_dict().items())
        assert not second.state

        run.resume(strict="transfer", match="structure", answers={"blocks.0.a.weight": "blocks.0.front.weight"})
    moments = first.state[old.blocks[1]["front"].weight]["exp_avg"]
    assert torch.equal(second.state[new.blocks[1]["a"].weight]["exp_avg"], moments)


def test_a_recipe_resumes_as_it_loads(tmp_path: Path) -> None:
    torch.manual_seed(0)
    old = Apart().double()
    first = OPTIMIZERS["AdamW"](old.parameters())
    train(old, first, 0, 2)
    with run_of(tmp_path / "run", old, first) as run:
        run.save(epoch=1)
    new = Joined().double()
    (tmp_path / "theirs.toml").write_text(ls.load(new, old.state_dict(), match="structure").recipe())
    second = OPTIMIZERS["AdamW"](new.parameters())
    with run_of(tmp_path / "run", new, second) as run:
        at = run.resume(strict="transfer", recipe=tmp_path / "theirs.toml")
    assert at.report.new == []
    assert len(second.state) == len(list(new.parameters()))


def test_weights_that_go_to_two_parameters_leave_both_without_state(tmp_path: Path) -> None:
    old, new = Convolutions().double(), Linears().double()
    first = OPTIMIZERS["SGD"](old.parameters())
    train(old, first, 0, 2)
    rules = "\n".join(
        f'"layers.{at}.{name}" = "mix.{at}.{name}{" | reshape(" + ", ".join(map(str, shape)) + ")" if shape else ""}"'
        for at, name, shape in [
            (0, "weight", (8, 6)), (0, "bias", ()), (1, "weight", (12, 8)), (1, "bias", ()), (2, "bias", ()),
        ]
    )  # fmt: skip
    rules += '\n"layers.2.weight" = "mix.1.weight | reshape(8, 12) | chunk(0, 1) | reshape(8, 12) | rows(0, 3)"'
    (tmp_path / "twice.toml").write_text(f'[options]\nmatch = "structure"\nstrict = false\n[options.rules]\n{rules}\n')
    weights = ls.load(new, old.state_dict(), recipe=tmp_path / "twice.toml")
    second = OPTIMIZERS["SGD"](new.parameters())
    plan = ls.plan_optimizer(second, ls.named_state(first, old), model=new, strict="transfer", weights=weights)
    assert plan.named("rearranged") == ["layers.0.weight"]
    assert "go to several parameters" in plan.report()


def test_state_does_not_follow_weights_that_are_computed() -> None:
    old, new = Linears().double(), Linears().double()
    first, second = (OPTIMIZERS["SGD"](model.parameters()) for model in (old, new))
    train(old, first, 0, 2)
    rows = ls.classes(list("abc"), list("cab"))  # the same shape, and the rows in another order
    weights = ls.load(new, old.state_dict(), adapt={"layers.2": rows})
    plan = ls.plan_optimizer(second, ls.named_state(first, old), model=new, strict="transfer", weights=weights)
    assert plan.named("new") == ["layers.2.weight", "layers.2.bias"]
    assert "its weights are computed" in plan.report()


class Pair(nn.Module):
    """Two matrices of one shape; tied, they are one parameter with the gradients of both."""

    def __init__(self, *, is_tied: bool) -> None:
        super().__init__()
        self.first = nn.Linear(6, 6, bias=False)
        self.second = nn.Linear(6, 6, bias=False)
        self.head = nn.Linear(6, 3)
        if is_tied:
            self.second.weight = self.first.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.second(self.first(x).tanh()))


@pytest.mark.parametrize("is_file", [True, False])
def test_the_momentum_of_a_tied_weight_is_not_that_of_its_copies(tmp_path: Path, is_file: bool) -> None:
    old, new = Pair(is_tied=True).double(), Pair(is_tied=False).double()
    first, second = (OPTIMIZERS["SGD"](model.parameters()) for model in (old, new))
    train(old, first, 0, 2)
    content = {"model": old.state_dict(), "optimizer": first.state_dict()}
    torch.save(content, tmp_path / "old.pth")
    with ls.open(tmp_path / "old.pth") as checkpoint:
        weights = ls.load(new, checkpoint if is_file else content["model"])
        plan = ls.plan_optimizer(second, checkpoint, model=new, strict="transfer", weights=weights)
    assert plan.named("kept") == ["head.weight", "head.bias"]
    assert plan.named("new") == ["first.weight", "second.weight"]
    assert "go to several parameters" in plan.report()


def test_gradients_that_wait_for_their_step_go_where_their_weights_go(tmp_path: Path) -> None:
    torch.manual_seed(0)
    old, new = Apart().double(), Joined().double()
    first, second = OPTIMIZERS["AdamW"](old.parameters()), OPTIMIZERS["AdamW"](new.parameters())
    train(old, first, 0, 2)
    first.zero_grad()
    data = [torch.randn(4, 5, 6, dtype=torch.float64) for _ in range(2)]
    with ls.Run(tmp_path, name="net", model=old, optimizer=first, data=data) as run:
        for x in run.batches():
            old(x).square().sum().backward()
            run.save()
            break
    with ls.Run(tmp_path, name="net", model=new, optimizer=second, data=data) as run:
        assert run.resume(strict="transfer", match="structure").batch == 1
    parts = [old.layer[1][name].weight.grad for name in ("query", "key", "value")]
    assert torch.equal(new.h[1]["qkv"].weight.grad, torch.cat(parts).T)
    assert torch.equal(new.h[1]["proj"].weight.grad, old.layer[1]["dense"].weight.grad.T)
    assert torch.equal(new.head.bias.grad, old.score.bias.grad)


@pytest.mark.parametrize("strict", ["exact", "transfer", "weights"])
def test_a_resume_by_names_that_finds_nothing_says_that_structure_would_fit(tmp_path: Path, strict: Any) -> None:
    old, new = Apart(), Joined()
    with run_of(tmp_path, old, OPTIMIZERS["SGD"](old.parameters())) as run:
        run.save(epoch=1)
    with run_of(tmp_path, new, OPTIMIZERS["SGD"](new.parameters())) as run, pytest.raises(ls.MatchError) as error:
        run.resume(strict=strict)
    (note,) = [each for each in error.value.diagnostics if each.code == "fits-by-structure"]
    (fix,) = note.fixes
    assert fix.paste == f'run.resume(strict="{"weights" if strict == "weights" else "transfer"}", match="structure")'


class Normalised(torch.optim.Optimizer):
    """Keeps momentum, a count, and the norm of the whole tensor, as some kinds of Adafactor do."""

    def __init__(self, parameters: Any) -> None:
        super().__init__(parameters, {"lr": 0.1})

    def step(self, closure: Any = None) -> None:
        for parameter in (each for group in self.param_groups for each in group["params"]):
            state = self.state[parameter]
            state["momentum"] = state.get("momentum", 0) + parameter.grad
            state["steps"] = state.get("steps", 0) + 1
            state["norm"] = parameter.grad.norm()


def test_a_number_of_a_whole_tensor_is_not_that_of_its_parts(tmp_path: Path) -> None:
    torch.manual_seed(0)
    old, new = Joined().double(), Apart().double()
    first = Normalised(old.parameters())
    train(old, first, 0, 2)
    with run_of(tmp_path, old, first) as run:
        run.save(epoch=1)
    second, at = resumed(new, tmp_path, Normalised)
    assert "norm is one number for a whole tensor, and tensors are cut or joined" in str(at.report)
    assert new.layer[0]["query"].weight not in second.state
    turned = second.state[new.layer[0]["feed_in"].weight]
    assert turned["steps"] == 2
    assert torch.equal(turned["norm"], first.state[old.h[0]["fc"].weight]["norm"])
