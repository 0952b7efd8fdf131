"""The whole of planning by names: conservation of keys, determinism, growth, and the refusals that others lack."""

import json
import os
import subprocess
import sys
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadstone.errors import MatchError

names = st.lists(
    st.sampled_from(["module", "model", "_orig_mod", "fc", "layer1", "0", "bn", "weight", "bias", "total_ops", "head"]),
    min_size=1, max_size=4,
).map(".".join)  # fmt: skip
sides = st.dictionaries(names, st.sampled_from([(), (1,), (2,), (2, 3)]), max_size=12)
options = st.fixed_dictionaries(
    {},
    optional={
        "strict": st.booleans(),
        "drop": st.sampled_from([("fc",), ("**.bias",)]),
        "only": st.sampled_from([("module",), ("layer1", "fc")]),
        "fresh": st.sampled_from([("head",), ("*.weight",)]),
        "rename": st.sampled_from([{r"^module\.": ""}, {"fc": "head"}, {"weight": "bias"}]),
        "adapt": st.sampled_from([{"fc": "slice"}, {"**": "pad"}]),
    },
)


@given(sides, sides, options)
def test_every_key_of_both_sides_has_exactly_one_line(plan_of, model, checkpoint, given_options):
    plan = plan_of(model, checkpoint, **given_options)
    assert Counter(one.target for one in plan.actions if one.target is not None) == Counter(dict.fromkeys(model, 1))
    assert Counter(one.source for one in plan.actions if one.source is not None) == Counter(
        dict.fromkeys(checkpoint, 1)
    )


@given(sides, sides, options)
def test_strict_is_ok_only_where_every_key_is_settled(plan_of, model, checkpoint, given_options):
    plan = plan_of(model, checkpoint, **{**given_options, "strict": True})
    unsettled = plan.missing_keys + plan.unexpected_keys + plan.mismatched_keys + plan.ambiguous_keys
    assert not (plan.ok and unsettled)


@given(sides)
def test_equal_keys_and_shapes_load_under_the_same_key(plan_of, model):
    plan = plan_of(model, model)
    assert all(action.source == action.target for action in plan.actions)


def test_actions_follow_the_models_order_then_the_files(plan_of, net):
    checkpoint = {"z": (1,), **dict(reversed(net.items())), "a": (1,)}
    keys = [action.target or action.source for action in plan_of(net, checkpoint).actions]
    assert keys == [*net, "z", "a"]


def test_one_of_four_keys_fails_under_strict(plan_of):
    model = dict.fromkeys("abcd", (4, 4))
    plan = plan_of(model, {"a": (4, 4)})
    assert not plan.ok
    assert plan.missing_keys == ["b", "c", "d"]


def test_not_strict_loads_what_is_certain_and_warns_of_the_rest(plan_of, net):
    plan = plan_of(net, {**net, "fc.weight": (1000, 8), "extra": (1,)}, strict=False)
    assert plan.ok
    assert plan.mismatched_keys == ["fc.weight"]
    assert {one.severity for one in plan.diagnostics} == {"warning"}


def test_nothing_to_load_is_an_error_even_when_not_strict(plan_of, net):
    plan = plan_of(net, {"other.weight": (3, 3)}, strict=False)
    assert [one.code for one in plan.diagnostics if one.severity == "error"] == ["nothing-to-load"]


def test_little_coverage_says_probably_another_architecture(plan_of):
    plan = plan_of({"big": (100, 100), "small": (2,)}, {"small": (2,), "other": (100, 101)})
    assert any(one.code == "low-coverage" and "another architecture" in one.message for one in plan.diagnostics)


def test_file_of_same_shapes_under_other_names_is_never_loaded(plan_of):
    model = {f"blocks.{i}.weight": (8, 8) for i in range(6)}
    checkpoint = {f"stages.{chr(97 + i)}.kernel": (8, 8) for i in range(6)}
    assert plan_of(model, checkpoint, strict=False).loaded == []


def test_optimizer_tensors_get_a_line_and_no_finding(plan_of, net, tensor):
    state = {"optimizer.state.0.exp_avg": tensor("optimizer.state.0.exp_avg", (8, 8))}
    plan = plan_of(net, net, not_for_model=state)
    assert plan.ok
    assert plan.diagnostics == ()
    assert plan.actions[-1].to_json()["how"] == "not for a model"


def test_apply_of_a_plan_that_is_not_ok_raises_with_the_plan(plan_of, net):
    plan = plan_of(net, {})
    with pytest.raises(MatchError, match="nothing-to-load") as caught:
        plan.apply()
    assert caught.value.plan is plan


def test_apply_of_a_plan_without_a_live_model_is_refused(plan_of, net):
    with pytest.raises(MatchError, match="without a live model"):
        plan_of(net, net).apply()


_SCRIPT = """
from loadstone.matching.names import make_plan
from loadstone.matching.options import Options
from loadstone.matching.schema import Schema, Slot
from loadstone.storage import Storage
from loadstone.tensors import TensorInfo, contiguous_stride

def tensor(key, shape):
    return TensorInfo(key, "float32", shape, contiguous_stride(shape), 0, Storage(key, 10_000, ()))

shapes = {f"layer{i}.{j}.{leaf}": (8, i + 1) for i in range(4) for j in range(3) for leaf in ("weight", "bias")}
model = {**shapes, "fc.weight": (10, 8), "fc.bias": (10,), "a.x.weight": (3,), "b.x.weight": (3,)}
file = {"module." + key: shape for key, shape in shapes.items()}
file |= {"classifier.weight": (10, 8), "classifier.bias": (10,), "layer0.0.weight": (8, 1), "c.x.weight": (3,)}
file |= {"d.x.weight": (3,), "module.layer3.1.bias": (8, 9), "q.total_ops": (1,)}
plan = make_plan(
    Schema("Net", {key: Slot(key, "float16", shape) for key, shape in model.items()}),
    {key: tensor(key, shape) for key, shape in file.items()},
    Options(drop=("nothing",)), source_name="f", target_name="Net",
)
print(plan.to_json())
"""


def test_json_is_the_same_to_the_byte_under_any_hash_seed():
    outputs = [
        subprocess.run(
            [sys.executable, "-c", _SCRIPT], env={**os.environ, "PYTHONHASHSEED": seed}, capture_output=True, check=True
        ).stdout
        for seed in ("0", "1")
    ]
    assert outputs[0] == outputs[1]
    assert json.loads(outputs[0])["ok"] is False


def _work(plan_of, children: int) -> int:
    """How many Python functions a plan with this many children calls."""
    model = {f"{i}.{leaf}": (4, 4) for i in range(children) for leaf in ("weight", "bias")}
    checkpoint = {f"module.{key}": shape for key, shape in model.items()}
    calls = 0

    def count(frame, event, argument):
        nonlocal calls
        calls += event in ("call", "c_call")

    sys.setprofile(count)
    try:
        plan_of(model, checkpoint)
    finally:
        sys.setprofile(None)
    return calls


def test_work_grows_linearly_to_ten_thousand_children(plan_of):
    assert _work(plan_of, 10_000) < 11 * _work(plan_of, 1_000)
