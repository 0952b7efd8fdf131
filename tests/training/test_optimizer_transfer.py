"""State of an optimizer carried over by name: it lands on the same parameter to the bit, or a line says why not."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import loadstone
from loadstone.errors import MatchError
from loadstone.training.optimizer_groups import same_bits
from loadstone.training.optimizers import named_state, names_of, plan_optimizer

torch.set_num_threads(1)
STATEFUL = {
    "sgd": (torch.optim.SGD, {"lr": 0.05, "momentum": 0.9}),
    "adam": (torch.optim.Adam, {"lr": 0.01}),
    "adamw": (torch.optim.AdamW, {"lr": 0.01, "amsgrad": True}),
    "rmsprop": (torch.optim.RMSprop, {"lr": 0.01, "momentum": 0.9, "centered": True}),
    "adagrad": (torch.optim.Adagrad, {"lr": 0.01}),
    "adafactor": (torch.optim.Adafactor, {"lr": 0.01}),
    "nadam": (torch.optim.NAdam, {"lr": 0.01}),
    "rprop": (torch.optim.Rprop, {"lr": 0.01}),
    "asgd": (torch.optim.ASGD, {"lr": 0.01}),
}


class Layers(nn.Module):
    """Linear layers of one shape, registered in the order of `names` and always applied in the alphabet's."""

    def __init__(self, names: str, head: int = 0) -> None:
        super().__init__()
        for name in names:
            torch.manual_seed(ord(name))
            setattr(self, name, nn.Linear(4, 4))
        if head:
            torch.manual_seed(0)
            self.head = nn.Linear(4, head)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for name, layer in sorted(self.named_children()):
            x = torch.tanh(layer(x)) if name != "head" else layer(x)
        return x


def gradients(model: nn.Module, seed: int) -> None:
    """The same gradient for a parameter of the same name and shape, whatever model it stands in."""
    for name, parameter in model.named_parameters():
        generator = torch.Generator().manual_seed(hash_of(name) + seed)
        parameter.grad = torch.randn(parameter.shape, generator=generator) if parameter.requires_grad else None


def hash_of(name: str) -> int:
    return sum(ord(letter) * 31**place for place, letter in enumerate(name)) % 2**31


def stepped(model: nn.Module, optimizer: torch.optim.Optimizer, first: int, count: int) -> None:
    for seed in range(first, first + count):
        gradients(model, seed)
        optimizer.step()


def picture(optimizer: torch.optim.Optimizer) -> tuple[object, ...]:
    """The optimizer as it is: objects, and copies of their values."""
    return (
        id(optimizer.state),
        [(id(group), {key: copy.deepcopy(value) for key, value in group.items() if key != "params"},
          [id(each) for each in group["params"]]) for group in optimizer.param_groups],
        [(id(parameter), id(entry), {key: (id(value), repr(value)) for key, value in entry.items()})
         for parameter, entry in optimizer.state.items()],
    )  # fmt: skip


@pytest.mark.parametrize("kind", STATEFUL)
def test_parameters_that_stay_go_on_as_if_never_saved(kind):
    """Layers moved, one removed, a head added, one frozen, groups split: the rest takes the same steps to the bit."""
    make, options = STATEFUL[kind]
    old = Layers("abcd")
    never_saved = make(old.parameters(), **options)
    stepped(old, never_saved, 0, 3)
    saved = copy.deepcopy(named_state(never_saved, old))

    new = Layers("dca", head=5)  # b is gone
    new.load_state_dict({key: value for key, value in old.state_dict().items() if key[0] != "b"}, strict=False)
    new.c.weight.requires_grad_(False)
    weights = [each for each in new.parameters() if each.ndim > 1 and each.requires_grad]
    biases = [each for each in new.parameters() if each.ndim == 1]
    optimizer = make([{"params": biases}, {"params": weights}], **options)
    plan = plan_optimizer(optimizer, saved, model=new, strict="transfer")
    plan.apply()
    stepped(old, never_saved, 3, 4)
    stepped(new, optimizer, 3, 4)
    for name in ("a.weight", "a.bias", "c.bias", "d.weight", "d.bias"):
        assert new.get_parameter(name).equal(old.get_parameter(name)), name
    assert sorted(plan.named("kept")) == ["a.bias", "a.weight", "c.bias", "d.bias", "d.weight"]
    assert sorted(plan.named("new")) == ["head.bias", "head.weight"]
    assert sorted(plan.named("dropped")) == ["b.bias", "b.weight", "c.weight"]


def test_torch_itself_gives_layers_the_momentum_of_others():
    """What this module is for; when it fails, torch goes by name."""
    old, new = Layers("abc"), Layers("cba")
    first = torch.optim.SGD(old.named_parameters(), lr=0.1, momentum=0.9)
    stepped(old, first, 0, 2)
    second = torch.optim.SGD(new.named_parameters(), lr=0.1, momentum=0.9)
    second.load_state_dict(first.state_dict())
    wrong = second.state[new.a.weight]["momentum_buffer"]
    assert wrong.equal(first.state[old.c.weight]["momentum_buffer"])
    plan_optimizer(second, first.state_dict(), model=new, strict="transfer").apply()
    right = second.state[new.a.weight]["momentum_buffer"]
    assert right.equal(first.state[old.a.weight]["momentum_buffer"])
    assert second.param_groups[0]["param_names"] == names_of(second, new)[0]  # torch put the file's there


@st.composite
def arrangements(draw):
    """Layers in some order, and which group each of their parameters stands in; None for frozen."""
    names = draw(st.permutations("abcdef"))[: draw(st.integers(1, 6))]
    groups = {f"{name}.{kind}": draw(st.sampled_from([0, 1, 2, None])) for name in names for kind in ("weight", "bias")}
    return "".join(names), groups


def arranged(names: str, groups: dict[str, int | None]) -> tuple[nn.Module, torch.optim.Optimizer]:
    model = Layers(names)
    chosen = [[model.get_parameter(name) for name, group in groups.items() if group == number] for number in range(3)]
    spare = nn.Parameter(torch.zeros(2))
    return model, torch.optim.Adam([{"params": each, "lr": 0.1**at} for at, each in enumerate([*chosen, [spare]], 1)])


@settings(deadline=None, max_examples=40)
@given(arrangements(), arrangements())
def test_state_lands_on_the_same_name_however_the_parameters_are_arranged(before, after):
    old, first = arranged(*before)
    stepped(old, first, 0, 2)
    new, second = arranged(*after)
    plan = plan_optimizer(second, named_state(first, old), model=new, strict="transfer")
    plan.apply()
    trained = {name for name, group in before[1].items() if group is not None}
    wanted = {name for name, group in after[1].items() if group is not None}
    for name in wanted:
        state = second.state.get(new.get_parameter(name), {})
        assert bool(state) == (new.get_parameter(name) in second.state) == (name in trained)
        for key, value in state.items():
            assert same_bits(value, first.state[old.get_parameter(name)][key])
    spares = {"#3.0"}  # of no model
    assert {line.name for line in plan.lines} == trained | wanted | spares
    assert len(plan.lines) == len(trained | wanted | spares)
    for group in second.param_groups:
        assert {"lr", "betas", "eps", "weight_decay"} <= group.keys()


def test_training_on_does_not_change_what_was_loaded_from():
    model = Layers("a")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    stepped(model, optimizer, 0, 1)
    saved = copy.deepcopy(named_state(optimizer, model))
    before = copy.deepcopy(saved)
    plan_optimizer(optimizer, saved, model=model).apply()
    stepped(model, optimizer, 1, 2)
    assert saved["state"][0]["momentum_buffer"].equal(before["state"][0]["momentum_buffer"])


def test_what_is_new_keeps_the_state_that_the_optimizer_has():
    old, new = Layers("a"), Layers("ab")
    first, second = (torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9) for model in (old, new))
    stepped(old, first, 0, 1)
    stepped(new, second, 5, 1)
    before = second.state[new.b.bias]["momentum_buffer"].clone()
    plan_optimizer(second, named_state(first, old), model=new, strict="transfer").apply()
    assert second.state[new.b.bias]["momentum_buffer"].equal(before)


def test_a_parameter_of_another_shape_starts_afresh():
    old, new = Layers("a", head=5), Layers("a", head=7)
    first = torch.optim.Adam(old.parameters())
    stepped(old, first, 0, 1)
    second = torch.optim.Adam(new.parameters())
    shapes = {key: tuple(value.shape) for key, value in old.state_dict().items()}
    for known in (None, shapes):
        plan = plan_optimizer(second, named_state(first, old), model=new, strict="transfer", file_shapes=known)
        assert plan.named("reshaped") == ["head.weight", "head.bias"]
    plan.apply()
    stepped(new, second, 1, 1)
    assert "5 × 4 in the file, 7 × 4 here" in plan.report()


def test_groups_that_come_together_keep_the_optimizers_own_rate_and_say_so():
    model = Layers("ab")
    first = torch.optim.SGD([{"params": model.a.parameters(), "lr": 0.5}, {"params": model.b.parameters()}], lr=0.1,
                            momentum=0.9)  # fmt: skip
    second = torch.optim.SGD(model.parameters(), lr=0.3)
    plan = plan_optimizer(second, named_state(first, model), model=model, strict="transfer")
    plan.apply()
    assert (second.param_groups[0]["lr"], second.param_groups[0]["momentum"]) == (0.3, 0.9)
    assert [each.code for each in plan.diagnostics] == ["optimizer-regrouped", "optimizer-hyperparameters"]
    assert "lr stays 0.3" in plan.report()


def test_a_group_that_is_split_has_all_its_hyperparameters_and_the_differences_it_was_split_for():
    model = Layers("ab")
    first = torch.optim.AdamW(model.parameters(), lr=0.5, weight_decay=0.2)
    second = torch.optim.AdamW(
        [{"params": model.a.parameters(), "weight_decay": 0.0}, {"params": model.b.parameters()}], lr=0.1
    )
    plan_optimizer(second, named_state(first, model), model=model, strict="transfer").apply()
    assert [(group["lr"], group["weight_decay"]) for group in second.param_groups] == [(0.5, 0.0), (0.5, 0.01)]
    assert all(group["betas"] == (0.9, 0.999) for group in second.param_groups)


def test_initial_lr_of_a_schedule_comes_along():
    model = Layers("ab")
    first = torch.optim.SGD(model.parameters(), lr=0.5)
    torch.optim.lr_scheduler.ConstantLR(first, factor=0.1)
    second = torch.optim.SGD(model.parameters(), lr=0.1)
    plan_optimizer(second, named_state(first, model), model=model).apply()
    assert second.param_groups[0]["initial_lr"] == 0.5
    assert second.param_groups[0]["lr"] == pytest.approx(0.05)


def test_an_adamw_stays_one_when_it_takes_over_the_moments_of_adam():
    model = Layers("a")
    first = torch.optim.Adam(model.parameters())
    stepped(model, first, 0, 1)
    second = torch.optim.AdamW(model.parameters())
    plan_optimizer(second, named_state(first, model), model=model, strict="transfer").apply()
    assert second.param_groups[0]["decoupled_weight_decay"] is True
    assert same_bits(second.state[model.a.bias]["exp_avg"], first.state[model.a.bias]["exp_avg"])


def test_how_a_step_is_computed_stays_the_optimizers_own():
    model = Layers("a")
    first = torch.optim.Adam(model.parameters(), fused=True)
    stepped(model, first, 0, 1)
    second = torch.optim.Adam(model.parameters(), foreach=True)
    plan = plan_optimizer(second, named_state(first, model), model=model, strict="transfer")
    plan.apply()
    assert (second.param_groups[0]["foreach"], second.param_groups[0]["fused"]) == (True, None)
    stepped(model, second, 1, 1)
    exact = plan_optimizer(second, named_state(first, model), model=model)
    assert not exact.ok
    assert "fused" in str(exact)


@pytest.mark.parametrize(("kind", "other"), [("sgd", "adam"), ("adam", "sgd"), ("rmsprop", "adam"), ("nadam", "adam")])
def test_state_of_another_kind_of_optimizer_is_not_used(kind, other):
    model = Layers("ab")
    first = STATEFUL[kind][0](model.parameters(), **STATEFUL[kind][1])
    stepped(model, first, 0, 1)
    saved = named_state(first, model)
    second = STATEFUL[other][0](model.parameters(), **STATEFUL[other][1])
    before = picture(second)
    plan = plan_optimizer(second, saved, model=model, strict="transfer")
    plan.apply()
    assert picture(second) == before
    assert [each.code for each in plan.diagnostics] == ["optimizer-other-kind"]
    assert not plan_optimizer(second, saved, model=model).ok
    stepped(model, second, 1, 1)


def test_a_plain_sgd_is_not_taken_for_an_adam_without_state():
    model = Layers("a")
    saved = named_state(torch.optim.SGD(model.parameters(), lr=0.1), model)
    plan = plan_optimizer(torch.optim.Adam(model.parameters()), saved, model=model, strict="transfer")
    assert [each.code for each in plan.diagnostics] == ["optimizer-other-kind"]


def test_lbfgs_goes_on_only_with_the_same_parameters():
    def closure():
        optimizer.zero_grad()
        loss = model(torch.ones(2, 4)).square().sum()
        loss.backward()
        return loss

    model = Layers("ab")
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=3)
    optimizer.step(closure)
    saved = copy.deepcopy(named_state(optimizer, model))
    weights = copy.deepcopy(model.state_dict())
    optimizer.step(closure)
    wanted = copy.deepcopy(model.state_dict())

    model.load_state_dict(weights)
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=3)
    plan_optimizer(optimizer, saved, model=model).apply()
    optimizer.step(closure)
    assert all(value.equal(wanted[key]) for key, value in model.state_dict().items())

    moved = Layers("ba")
    plan = plan_optimizer(torch.optim.LBFGS(moved.parameters(), max_iter=3), saved, model=moved, strict="transfer")
    assert plan.named("kept") == []


def test_state_that_a_switched_on_amsgrad_would_miss_starts_afresh():
    model = Layers("ab")
    first = torch.optim.Adam([{"params": model.a.parameters()}, {"params": model.b.parameters(), "amsgrad": True}])
    stepped(model, first, 0, 1)
    second = torch.optim.Adam(model.parameters(), amsgrad=True)
    plan = plan_optimizer(second, named_state(first, model), model=model, strict="transfer")
    plan.apply()
    assert plan.named("new") == ["a.weight", "a.bias"]
    stepped(model, second, 1, 1)


@pytest.mark.parametrize("wrapper", [nn.DataParallel, lambda model: torch.compile(model, backend="eager")])
def test_wrapped_models_have_the_names_of_what_they_wrap(wrapper):
    model = Layers("ab")
    optimizer = torch.optim.SGD(wrapper(model).parameters(), lr=0.1)
    assert names_of(optimizer, wrapper(model)) == [["a.weight", "a.bias", "b.weight", "b.bias"]]


def test_names_that_a_wrapper_left_in_a_file_are_understood():
    model = Layers("ab")
    wrapped = nn.DataParallel(model)
    first = torch.optim.SGD(wrapped.named_parameters(), lr=0.1, momentum=0.9)
    stepped(model, first, 0, 1)
    assert first.state_dict()["param_groups"][0]["param_names"][0] == "module.a.weight"
    plan = plan_optimizer(torch.optim.SGD(model.parameters(), lr=0.1), first.state_dict(), model=model,
                          strict="transfer")  # fmt: skip
    assert len(plan.named("kept")) == 4


def test_tied_parameters_are_one_under_either_name():
    model = Layers("ab")
    model.b.weight = model.a.weight
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    assert names_of(optimizer, model) == [["a.weight", "a.bias", "b.bias"]]
    stepped(model, optimizer, 0, 1)
    saved = named_state(optimizer, model)
    saved["param_groups"][0]["param_names"] = ["b.weight", "a.bias", "b.bias"]
    plan = plan_optimizer(torch.optim.SGD(model.parameters(), lr=0.1), saved, model=model, strict="transfer")
    assert len(plan.named("kept")) == 3


def test_renamed_layers_bring_their_state_along():
    old, new = Layers("ab"), Layers("bc")
    first = torch.optim.SGD(old.parameters(), lr=0.1, momentum=0.9)
    stepped(old, first, 0, 1)
    second = torch.optim.SGD(new.parameters(), lr=0.1)
    renames = {"a.weight": "c.weight", "a.bias": "c.bias"}
    plan_optimizer(second, named_state(first, old), model=new, strict="transfer", renames=renames).apply()
    assert same_bits(second.state[new.c.weight]["momentum_buffer"], first.state[old.a.weight]["momentum_buffer"])


def test_groups_can_still_be_added_after_names_came_from_a_file():
    model = Layers("ab")
    saved = named_state(torch.optim.SGD(model.a.parameters(), lr=0.1), model)
    optimizer = torch.optim.SGD(model.a.parameters(), lr=0.1)
    plan_optimizer(optimizer, saved, model=model).apply()
    optimizer.add_param_group({"params": list(model.b.parameters())})
    torch_itself = torch.optim.SGD(model.a.parameters(), lr=0.1)
    torch_itself.load_state_dict(saved)
    with pytest.raises(ValueError, match="with/without names"):
        torch_itself.add_param_group({"params": list(model.b.parameters())})


def test_the_state_is_read_from_the_file_only_when_it_is_applied(tmp_path):
    model = Layers("ab")
    first = torch.optim.Adam(model.parameters())
    stepped(model, first, 0, 2)
    torch.save({"model_state_dict": model.state_dict(), "optimizer_state_dict": named_state(first, model)},
               tmp_path / "a.pth")  # fmt: skip
    second = torch.optim.Adam(model.parameters())
    with loadstone.open(tmp_path / "a.pth") as checkpoint:
        plan = plan_optimizer(second, checkpoint.tree["optimizer_state_dict"], model=model)
        plan.apply()
    for parameter in model.parameters():
        for key, value in first.state[parameter].items():
            assert same_bits(second.state[parameter][key], value)


def test_dtypes_of_state_are_kept_where_the_parameter_kept_its_own():
    class Precise(torch.optim.Optimizer):
        """Keeps its moments in float32 for parameters in bfloat16."""

        def __init__(self, parameters):
            super().__init__(parameters, {"lr": 0.1})

        def step(self):
            for parameter in (each for group in self.param_groups for each in group["params"]):
                self.state[parameter]["mean"] = torch.full(parameter.shape, 1 / 3)

    model = Layers("a").bfloat16()
    first = Precise(model.parameters())
    first.step()
    second = Precise(model.parameters())
    dtypes = dict.fromkeys(model.state_dict(), "bfloat16")
    plan_optimizer(second, named_state(first, model), model=model, file_dtypes=dtypes).apply()
    assert same_bits(second.state[model.a.bias]["mean"], first.state[model.a.bias]["mean"])
    refused = plan_optimizer(second, named_state(first, model), model=model)
    assert not refused.ok
    assert "mean float32 → bfloat16" in str(refused)


@pytest.mark.parametrize("stage", ["load", "verify"])
def test_an_optimizer_that_fails_half_way_is_as_it_was(stage):
    class Failing(torch.optim.Adam):
        def load_state_dict(self, state_dict):
            for entry in self.state.values():
                entry["exp_avg"].zero_()
            super().load_state_dict(state_dict)
            if stage == "load":
                raise RuntimeError("no")
            next(iter(self.state.values()))["exp_avg"].add_(1)

    model = Layers("ab")
    optimizer = Failing(model.parameters())
    stepped(model, optimizer, 0, 1)
    saved = copy.deepcopy(named_state(optimizer, model))
    stepped(model, optimizer, 1, 1)
    before = picture(optimizer)
    plan = plan_optimizer(optimizer, saved, model=model, strict="transfer")
    with pytest.raises(RuntimeError if stage == "load" else MatchError):
        plan.apply()
    assert picture(optimizer) == before


def test_a_plan_is_refused_once_the_optimizer_has_other_parameters():
    model = Layers("ab")
    optimizer = torch.optim.SGD(model.a.parameters(), lr=0.1)
    plan = plan_optimizer(optimizer, named_state(optimizer, model), model=model)
    optimizer.add_param_group({"params": list(model.b.parameters())})
    with pytest.raises(MatchError, match="other parameters"):
        plan.apply()


@pytest.mark.parametrize(
    "saved",
    [
        {},
        "a.pth",
        {"state": {}, "param_groups": {}},
        {"state": {}, "param_groups": [{"lr": 1}]},
        {"state": {7: {}}, "param_groups": [{"params": [0]}]},
        {"state": {}, "param_groups": [{"params": [0, 0]}]},
        {"state": {0: 1}, "param_groups": [{"params": [0]}]},
        {"state": {}, "param_groups": [{"params": [0], "param_names": ["a", "b"]}]},
        {"state": {}, "param_groups": [{"params": [0, 1], "param_names": ["a", "a"]}]},
    ],
)
def test_what_is_no_optimizers_state_is_refused(saved):
    model = Layers("a")
    with pytest.raises(MatchError) as error:
        plan_optimizer(torch.optim.SGD(model.parameters(), lr=0.1), saved, model=model)
    assert error.value.code == "optimizer-invalid"
