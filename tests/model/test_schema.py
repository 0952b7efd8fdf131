"""What a live module wants, as data."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
import torch
from torch import nn

import loadstone as ls
from loadstone import collector
from loadstone.model.schema import extra_state_of, is_described, schema_of, walk


def test_keys_are_those_of_state_dict_in_its_order(small: nn.Module) -> None:
    assert list(schema_of(small).slots) == list(small.state_dict())


def test_slot_has_dtype_shape_and_kind(small: nn.Module) -> None:
    slots = schema_of(small).slots
    assert (slots["first.weight"].dtype, slots["first.weight"].shape) == ("float32", (4, 3))
    assert slots["first.weight"].kind == "parameter"
    assert (slots["norm.num_batches_tracked"].dtype, slots["norm.num_batches_tracked"].kind) == ("int64", "buffer")


def test_tied_parameter_names_the_first_key_of_its_memory(small: nn.Module) -> None:
    slots = schema_of(small).slots
    assert slots["head.weight"].tied_to == "embed.weight"
    assert slots["embed.weight"].tied_to is None


def test_parameters_of_one_storage_but_other_places_are_not_tied() -> None:
    model = nn.Module()
    memory = torch.zeros(2, 3)
    model.a, model.b = nn.Parameter(memory[0]), nn.Parameter(memory[1])
    assert schema_of(model).slots["b"].tied_to is None


def test_views_of_the_same_memory_are_tied() -> None:
    model = nn.Module()
    model.a = nn.Parameter(torch.zeros(3))
    model.b = nn.Parameter(model.a.data)
    assert schema_of(model).slots["b"].tied_to == "a"


def test_ties_on_meta_go_by_object() -> None:
    with torch.device("meta"):
        model = nn.Module()
        model.a = model.b = nn.Parameter(torch.zeros(3))
        model.c = nn.Parameter(torch.zeros(3))
    slots = schema_of(model).slots
    assert (slots["b"].tied_to, slots["c"].tied_to) == ("a", None)
    assert slots["a"].is_meta


def test_non_persistent_buffers_are_listed_apart(small: nn.Module) -> None:
    schema = schema_of(small)
    assert "mask" not in schema.slots
    assert not schema.non_persistent["mask"].is_persistent


def test_modules_have_their_class_names(small: nn.Module) -> None:
    assert schema_of(small).modules == {
        "": "Small", "first": "Linear", "norm": "BatchNorm1d", "embed": "Embedding", "head": "Linear",
    }  # fmt: skip


def test_lazy_parameter_is_refused_by_name() -> None:
    with pytest.raises(ls.MatchError, match=r"uninitialised-parameter.*`weight`"):
        schema_of(nn.LazyLinear(3))


def test_lazy_module_that_has_seen_its_input_is_a_module_like_others() -> None:
    model = nn.LazyLinear(3)
    model(torch.zeros(2, 5))
    assert schema_of(model).slots["weight"].shape == (3, 5)


def test_extra_state_is_found_by_its_key() -> None:
    class Counting(nn.Linear):
        def get_extra_state(self) -> object:
            return 3

        def set_extra_state(self, state: object) -> None:
            pass

    model = nn.Sequential(nn.Linear(1, 1), Counting(1, 1))
    assert list(extra_state_of(walk(model))) == ["1._extra_state"]
    assert "1._extra_state" not in schema_of(model).slots


def test_time_is_linear_in_the_number_of_children() -> None:
    def seconds(children: int) -> float:
        with torch.device("meta"):
            model = nn.Sequential(*(nn.PReLU() for _ in range(children)))
        with collector.paused():  # as `plan` has it
            start = time.process_time()
            assert len(schema_of(model).slots) == children
            return time.process_time() - start

    seconds(100)
    assert seconds(10_000) < 60 * max(seconds(1_000), 0.002)  # quadratic would be 100 times


def _other_dtype(model: nn.Module) -> None:
    model.half()


def _other_shape(model: nn.Module) -> None:
    model[0].weight.data = torch.zeros(5, 3)


def _untied(model: nn.Module) -> None:
    model[2].weight = nn.Parameter(model[2].weight.detach().clone())


def _tied(model: nn.Module) -> None:
    model[0].bias = model[2].bias


def _more(model: nn.Module) -> None:
    model.append(nn.Linear(1, 1))


def _less(model: nn.Module) -> None:
    del model[3]


def _other_kind(model: nn.Module) -> None:
    bias = model[0]._parameters.pop("bias").detach()
    model[0].register_buffer("bias", bias)


def _not_persistent(model: nn.Module) -> None:
    model[1]._non_persistent_buffers_set.add("running_mean")


def _to_meta(model: nn.Module) -> None:
    model.to("meta")


CHANGES = [_other_dtype, _other_shape, _untied, _tied, _more, _less, _other_kind, _not_persistent, _to_meta]


@pytest.mark.parametrize("change", [None, *CHANGES], ids=lambda change: getattr(change, "__name__", "as it was"))
def test_a_model_is_described_exactly_as_long_as_its_schema_stays_the_same(
    change: Callable[[nn.Module], None] | None,
) -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3), nn.Linear(3, 3), nn.PReLU())
    model[2].weight = model[0].weight
    before = schema_of(model)
    if change is not None:
        change(model)
    now = schema_of(model)
    is_same = now.slots == before.slots and now.non_persistent == before.non_persistent
    assert is_same is (change is None)
    assert is_described(walk(model), before) is is_same
