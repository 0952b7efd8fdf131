"""States without names: mapped through the file's own names where the shapes leave one way, else refused."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import loadstone
from loadstone.training.optimizer_positions import by_position
from loadstone.training.optimizer_saved import read_saved
from loadstone.training.optimizers import names_of, plan_optimizer

torch.set_num_threads(1)


class Net(nn.Module):
    """A convolution, a batch norm with its buffers, and two linear layers of different sizes."""

    def __init__(self, order: str = "cnab") -> None:
        super().__init__()
        made = {"c": lambda: nn.Conv2d(1, 4, 3), "n": lambda: nn.BatchNorm2d(4), "a": lambda: nn.Linear(4, 6),
                "b": lambda: nn.Linear(6, 3)}  # fmt: skip
        for name in order:
            setattr(self, name, made[name]())


def trained(model: nn.Module, groups: list) -> torch.optim.Optimizer:
    optimizer = torch.optim.SGD([{"params": list(group)} for group in groups], lr=0.1, momentum=0.9)
    for parameter in model.parameters():
        parameter.grad = torch.rand(parameter.shape)
    optimizer.step()
    return optimizer


def planned(old: nn.Module, first: torch.optim.Optimizer, new: nn.Module, strict: str = "transfer", **options):
    state = old.state_dict()
    return plan_optimizer(
        torch.optim.SGD(new.parameters(), lr=0.1, momentum=0.9), first.state_dict(), model=new, strict=strict,
        file_names=list(state), file_shapes={key: tuple(value.shape) for key, value in state.items()}, **options,
    )  # fmt: skip


def test_all_parameters_in_one_group_are_in_the_files_order():
    old, new = Net(), Net("bnac")
    first = trained(old, [old.parameters()])
    plan = planned(old, first, new)
    plan.apply()
    for name, parameter in new.named_parameters():
        wanted = first.state[old.get_parameter(name)]["momentum_buffer"]
        assert plan._optimizer.state[parameter]["momentum_buffer"].equal(wanted), name
    assert plan.lines[0].why == "by the file's own order: 8 of 8 shapes agree"


def test_layers_of_one_shape_that_changed_places_are_told_apart_by_the_files_names():
    old = nn.Sequential()
    new = nn.Sequential()
    for names, model in (("xyz", old), ("zyx", new)):
        for name in names:
            model.add_module(name, nn.Linear(3, 3))
    first = trained(old, [old.parameters()])
    plan = planned(old, first, new)
    plan.apply()
    assert plan._optimizer.state[new.x.weight]["momentum_buffer"].equal(first.state[old.x.weight]["momentum_buffer"])


def test_weights_and_biases_in_groups_of_their_own_are_found_by_shape():
    old = Net()
    first = trained(old, [[p for p in old.parameters() if p.ndim > 1], [p for p in old.parameters() if p.ndim == 1]])
    plan = planned(old, first, Net())
    assert len(plan.named("kept")) == 8
    assert plan.ok


def test_a_trained_head_is_found_where_its_shapes_stand_once():
    old = Net()
    plan = planned(old, trained(old, [old.b.parameters()]), Net())
    assert plan.named("kept") == ["b.weight", "b.bias"]
    assert "the only order of 2 of the file's 8 parameters" in plan.lines[-1].why


def test_shapes_that_allow_several_orders_are_refused_with_their_number():
    old = Net()
    first = trained(old, [[old.n.weight], list(old.a.parameters())])  # n.weight, n.bias and c.bias are alike
    plan = planned(old, first, Net())
    assert not plan.ok
    assert plan.diagnostics[0].code == "optimizer-unnamed"
    assert "3 orders" in plan.diagnostics[0].message


def test_names_from_somebody_who_knows_them_settle_it():
    old, new = Net(), Net()
    first = trained(old, [[old.n.weight], list(old.a.parameters())])
    plan = planned(old, first, new, saved_names=names_of(first, old))
    assert plan.named("kept") == ["n.weight", "a.weight", "a.bias"]


def test_a_sorted_file_says_nothing_about_positions():
    old = Net()
    plan = planned(old, trained(old, [old.parameters()]), Net(), is_defined_order=False)
    assert not plan.ok
    assert plan.diagnostics[0].fixes[0].safety == "unsafe"
    assert "8 of 8 shapes agree" in str(plan.diagnostics[0])


def test_a_state_in_a_file_of_its_own_has_nothing_to_take_names_from(tmp_path):
    old = Net()
    torch.save(trained(old, [old.parameters()]).state_dict(), tmp_path / "optimizer.pt")
    second = torch.optim.SGD(old.parameters(), lr=0.1, momentum=0.9)
    with loadstone.open(tmp_path / "optimizer.pt") as checkpoint:
        plan = plan_optimizer(second, checkpoint, model=old)
        assert "no names of parameters beside it" in plan.diagnostics[0].message
        plan = plan_optimizer(second, checkpoint, model=old, saved_names=names_of(second, old))
        assert plan.ok


def test_states_keyed_by_id_are_read_as_torch_before_1_5_wrote_them():
    old, new = Net(), Net("banc")
    first = trained(old, [old.parameters()])
    state = first.state_dict()
    identity = [140178894882424 - 72 * number for number in range(8)]
    ancient = {
        "state": {identity[number]: entry for number, entry in state["state"].items()},
        "param_groups": [{**state["param_groups"][0], "params": identity}],
    }
    second = torch.optim.SGD(new.parameters(), lr=0.1, momentum=0.9)
    weights = old.state_dict()
    plan = plan_optimizer(
        second, ancient, model=new, strict="transfer", file_names=list(weights),
        file_shapes={key: tuple(value.shape) for key, value in weights.items()},
    )  # fmt: skip
    plan.apply()
    assert second.state[new.c.weight]["momentum_buffer"].equal(first.state[old.c.weight]["momentum_buffer"])


def test_frozen_parameters_that_the_optimizer_was_given_have_no_state():
    old = Net()
    old.c.requires_grad_(False)
    old.c.weight.grad = None
    first = torch.optim.SGD(old.parameters(), lr=0.1, momentum=0.9)
    for name, parameter in old.named_parameters():
        parameter.grad = None if name.startswith("c.") else torch.rand(parameter.shape)
    first.step()
    plan = planned(old, first, Net())
    assert plan.ok
    assert "6 of 8 shapes agree, 2 have no state" in plan.lines[0].why


def test_exact_goes_on_from_a_plain_file_with_the_same_model():
    old = Net()
    assert planned(old, trained(old, [old.parameters()]), Net(), strict="exact").ok


def test_exact_lists_every_difference():
    old, new = Net("cna"), Net("cab")
    first = trained(old, [old.parameters()])
    second = torch.optim.SGD(new.parameters(), lr=0.1, momentum=0.8, weight_decay=0.1)
    names = list(old.state_dict())
    shapes = {key: tuple(value.shape) for key, value in old.state_dict().items()}
    plan = plan_optimizer(second, first.state_dict(), model=new, file_names=names, file_shapes=shapes)
    rows = dict(plan.diagnostics[0].evidence)
    assert rows["new"].startswith("b.{weight,bias}")
    assert rows["dropped"].startswith("n.{weight,bias}")
    assert [value for label, value in plan.diagnostics[0].evidence if label == "group 0"] == [
        "momentum   0.9 in the file, 0.8 here",
        "weight_decay   0 in the file, 0.1 here",
    ]


SHAPES = st.sampled_from([(2,), (3,), (2, 2)])


@settings(deadline=None, max_examples=150)
@given(st.data())
def test_the_ways_are_counted_right(data):
    """Against every assignment spelt out."""
    file = data.draw(st.lists(SHAPES, min_size=1, max_size=6))
    lengths = data.draw(st.lists(st.integers(0, 3), min_size=1, max_size=3).filter(lambda each: 0 < sum(each) <= 6))
    groups, first = [], 0
    shapes = []
    for length in lengths:
        groups.append(list(range(first, first + length)))
        first += length
        shapes += [data.draw(SHAPES) for _ in range(length)]
    saved = read_saved(
        {
            "state": {number: {"momentum_buffer": torch.zeros(shape)} for number, shape in enumerate(shapes)},
            "param_groups": [{"params": own} for own in groups],
        }
    )
    ways = [
        chosen
        for chosen in itertools.permutations(range(len(file)), len(shapes))
        if all(file[place] == shape for place, shape in zip(chosen, shapes, strict=True))
        and all(chosen[one] < chosen[other] for own in groups for one, other in itertools.pairwise(own))
    ]
    names = [f"p{place}" for place in range(len(file))]
    found = by_position(saved, names, dict(zip(names, file, strict=True)), is_known=True)
    assert (found.names is not None) == (len(ways) == 1)
    if found.names is not None:
        assert found.names == tuple(names[place] for place in ways[0])
    elif len(groups) > 1 or len(shapes) < len(file):
        assert found.ways == len(ways)


def test_a_count_that_would_take_too_long_is_not_begun():
    count = 400
    saved = read_saved(
        {
            "state": {number: {"momentum_buffer": torch.zeros(2)} for number in range(count)},
            "param_groups": [{"params": list(range(at, count, 4))} for at in range(4)],
        }
    )
    names = [f"p{place}" for place in range(2 * count)]
    found = by_position(saved, names, dict.fromkeys(names, (2,)), is_known=True)
    assert found.names is None
    assert "too many ways" in found.how


@pytest.mark.parametrize("count", [1, 30])
def test_more_positions_than_parameters_are_refused(count):
    saved = read_saved(
        {
            "state": {number: {"momentum_buffer": torch.zeros(2)} for number in range(count + 1)},
            "param_groups": [{"params": list(range(count + 1))}],
        }
    )
    names = [f"p{place}" for place in range(count)]
    assert by_position(saved, names, dict.fromkeys(names, (2,)), is_known=True).names is None
