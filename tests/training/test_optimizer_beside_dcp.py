"""Beside torch.distributed.checkpoint, which also goes by name: its cases, and the ones that it lets pass."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)

from loadstone.errors import MatchError
from loadstone.training.optimizers import named_state, plan_optimizer

torch.set_num_threads(1)
pytestmark = pytest.mark.filterwarnings("ignore")  # torch's own, about its own


def net(names: str, size: int = 4) -> nn.Module:
    model = nn.Sequential()
    for name in names:
        model.add_module(name, nn.Linear(size, size))
    return model


def adam(model: nn.Module, *groups: dict) -> torch.optim.Optimizer:
    return torch.optim.Adam(groups or model.parameters(), lr=0.1)


def after_a_step(model: nn.Module, optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    for parameter in model.parameters():
        parameter.grad = torch.rand_like(parameter)
    optimizer.step()
    return optimizer


def by_dcp(old: nn.Module, first: torch.optim.Optimizer, new: nn.Module, second: torch.optim.Optimizer) -> None:
    state = copy.deepcopy(get_optimizer_state_dict(old, first))
    set_optimizer_state_dict(new, second, state, options=StateDictOptions(strict=False))


def by_us(old: nn.Module, first: torch.optim.Optimizer, new: nn.Module, second: torch.optim.Optimizer):
    plan = plan_optimizer(second, named_state(first, old), model=new, strict="transfer")
    plan.apply()
    return plan


@pytest.mark.parametrize("names", ["ba", "abc", "a"], ids=["reordered", "added", "removed"])
def test_where_dcp_is_right_the_state_is_the_same(names):
    old = net("ab")
    first = after_a_step(old, adam(old))
    new = net(names)
    theirs, ours = adam(new), adam(new)
    by_dcp(old, first, new, theirs)
    plan = by_us(old, first, new, ours)
    for parameter in new.parameters():
        assert ours.state[parameter].keys() == theirs.state[parameter].keys()
        for key, value in ours.state[parameter].items():
            assert value.equal(theirs.state[parameter][key])
    assert len(plan.lines) == len(set(dict(old.named_parameters())) | set(dict(new.named_parameters())))


def test_another_shape_is_loaded_by_dcp_and_starts_afresh_here():
    old, new = net("a", 4), net("a", 5)
    first = after_a_step(old, adam(old))
    theirs, ours = adam(new), adam(new)
    by_dcp(old, first, new, theirs)
    assert theirs.state[new.a.weight]["exp_avg"].shape == (4, 4)
    assert by_us(old, first, new, ours).named("reshaped") == ["a.weight", "a.bias"]
    assert not ours.state


def test_a_split_group_loses_its_rate_in_dcp_and_keeps_it_here():
    old, new = net("ab"), net("ab")
    first = after_a_step(old, adam(old))
    theirs, ours = (adam(new, *({"params": layer.parameters()} for layer in new)) for _ in range(2))
    by_dcp(old, first, new, theirs)
    assert "lr" not in theirs.param_groups[0]
    by_us(old, first, new, ours)
    assert [(group["lr"], group["betas"]) for group in ours.param_groups] == [(0.1, (0.9, 0.999))] * 2


def test_merged_groups_take_the_last_rate_in_dcp_and_keep_their_own_here():
    old, new = net("ab"), net("ab")
    first = after_a_step(old, adam(old, {"params": old.a.parameters(), "lr": 0.5},
                                   {"params": old.b.parameters(), "lr": 0.25}))  # fmt: skip
    theirs, ours = adam(new), adam(new)
    by_dcp(old, first, new, theirs)
    assert theirs.param_groups[0]["lr"] == 0.25
    plan = by_us(old, first, new, ours)
    assert ours.param_groups[0]["lr"] == 0.1
    assert "0.5, 0.25 in the file's groups 0, 1" in plan.report()


def test_state_of_adam_goes_into_sgd_by_dcp_and_is_refused_here():
    old, new = net("a"), net("a")
    first = after_a_step(old, adam(old))
    theirs, ours = (torch.optim.SGD(new.parameters(), lr=0.1, momentum=0.9) for _ in range(2))
    by_dcp(old, first, new, theirs)
    assert "exp_avg" in theirs.state[new.a.weight]
    plan = by_us(old, first, new, ours)
    assert [each.code for each in plan.diagnostics] == ["optimizer-other-kind"]
    assert not ours.state
    with pytest.raises(MatchError):
        plan_optimizer(ours, named_state(first, old), model=new).apply()


def test_what_dcp_writes_is_read_by_its_names():
    old, new = net("ab"), net("ba")
    first = after_a_step(old, adam(old))
    optimizer = adam(new)
    plan_optimizer(optimizer, get_optimizer_state_dict(old, first), model=new, strict="transfer").apply()
    assert optimizer.state[new.a.weight]["exp_avg"].equal(first.state[old.a.weight]["exp_avg"])
