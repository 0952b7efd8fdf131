"""Rules that settle a key without asking, the options that settle it on purpose, and what is said otherwise."""

import re

import pytest

from loadstone.errors import Diagnostic, RecipeError
from loadstone.matching.candidates import Candidate
from loadstone.matching.migration import Migration
from loadstone.matching.schema import Schema, Slot
from loadstone.storage import Storage


def codes(plan):
    return [one.code for one in plan.diagnostics]


def line(plan, key):
    return next(action for action in plan.actions if key in (action.target, action.source))


# --- profiler counters ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prefix", ["", "module."])
def test_profiled_checkpoint_goes_into_a_clean_model(plan_of, prefixed, net, prefix):
    counters = {"total_ops": (1,), "conv1.total_ops": (1,), "layer1.0.total_params": ()}
    plan = plan_of(net, prefixed(prefix, {**net, **counters}))
    assert plan.ok
    assert line(plan, prefix + "conv1.total_ops").how == "profiler counter"


def test_clean_checkpoint_goes_into_a_profiled_model(plan_of, net):
    plan = plan_of({**net, "total_ops": (1,), "fc.total_params": (1,)}, net)
    assert plan.ok
    assert line(plan, "fc.total_params").status == "kept"


def test_counter_on_both_sides_is_loaded(plan_of):
    assert len(plan_of({"w": (2, 2), "total_ops": (1,)}, {"w": (2, 2), "total_ops": (1,)}).loaded) == 2


def test_large_tensor_named_like_a_counter_is_no_counter(plan_of, net):
    assert plan_of(net, {**net, "total_ops": (5, 5)}).unexpected_keys == ["total_ops"]


# --- names of PyTorch's own -------------------------------------------------------------------------------------------


def test_num_batches_tracked_absent_in_the_file_is_kept(plan_of):
    plan = plan_of({"bn.weight": (4,), "bn.num_batches_tracked": ()}, {"bn.weight": (4,)})
    assert plan.ok
    assert line(plan, "bn.num_batches_tracked").status == "kept"


def test_tensor_of_a_non_persistent_buffer_is_dropped(plan_of, net):
    model = Schema("Net", {key: Slot(key, "float32", shape) for key, shape in net.items()},
                   {"mask": Slot("mask", "float32", (4, 4), "buffer", is_persistent=False)})  # fmt: skip
    plan = plan_of(model, {**net, "mask": (4, 4)})
    assert plan.ok
    assert line(plan, "mask").how == "non-persistent buffer"


def test_weight_norm_of_either_age_goes_into_the_other(plan_of):
    old = {"conv.weight_g": (8, 1), "conv.weight_v": (8, 3), "conv.bias": (8,)}
    new = {
        "conv.parametrizations.weight.original0": (8, 1),
        "conv.parametrizations.weight.original1": (8, 3),
        "conv.bias": (8,),
    }
    for model, checkpoint in ((old, new), (new, old)):
        plan = plan_of(model, checkpoint)
        assert plan.ok
        assert plan.actions[0].how == "weight_norm's other name"


def test_spectral_norm_vector_is_not_taken_for_weight_norm(plan_of):
    model = {"l.parametrizations.weight.0._v": (3,), "l.parametrizations.weight.0._u": (8,)}
    plan = plan_of(model, {"l.weight_u": (8,), "l.weight_v": (3,)})
    assert plan.ok
    assert line(plan, "l.weight_v").target == "l.parametrizations.weight.0._v"


# --- options ----------------------------------------------------------------------------------------------------------


def test_rename_applies_in_order_to_every_key(plan_of):
    plan = plan_of({"c.weight": (2,)}, {"a.weight": (2,)}, rename={r"^a\.": "b.", r"^b\.": "c."})
    assert plan.ok
    assert plan.actions[0].how == r"rename `^a\.` → `b.`, `^b\.` → `c.`"


def test_rename_onto_one_name_is_an_error_naming_both(plan_of):
    plan = plan_of({"x.weight": (2,)}, {"a.weight": (2,), "b.weight": (2,)}, rename={"^[ab]": "x"})
    assert "`a.weight` and `b.weight` both go to `x.weight`" in plan.diagnostics[1].message
    assert plan.loaded == []


def test_rename_onto_one_name_that_the_model_lacks_is_an_error_too(plan_of):
    plan = plan_of({"w": (2,)}, {"w": (2,), "a": (3,), "b": (3,)}, rename={"^[ab]$": "x"})
    assert codes(plan) == ["ambiguous-match"]


@pytest.mark.parametrize("rename", [{"(": ""}, {"a": r"\9"}, lambda key: 3, lambda key: 1 / 0])
def test_wrong_rename_is_a_recipe_error(plan_of, rename):
    with pytest.raises(RecipeError) as caught:
        plan_of({"a": (2,)}, {"a": (2,)}, rename=rename)
    assert caught.value.code == "invalid-option"


def test_unknown_adapter_is_a_recipe_error_with_the_nearest(plan_of):
    with pytest.raises(RecipeError, match="did you mean: slice"):
        plan_of({"a": (2,)}, {"a": (2,)}, adapt={"a": "slise"})


def test_fresh_keeps_the_layer_and_drops_its_source(plan_of, net):
    plan = plan_of(net, {**net, "fc.weight": (1000, 8), "fc.bias": (1000,)}, fresh=("fc",))
    assert plan.ok
    assert [one.status for one in plan.actions if "fc.weight" in (one.source, one.target)] == ["kept", "dropped"]


def test_pattern_that_matches_nothing_is_a_warning_with_the_nearest(plan_of, net):
    (finding,) = plan_of(net, net, drop=("fcc",)).diagnostics
    assert (finding.code, finding.severity) == ("unused-option", "warning")
    assert "fc" in [fix.paste for fix in finding.fixes]


# --- shapes -----------------------------------------------------------------------------------------------------------


def test_mismatch_of_a_module_is_one_finding_with_its_fixes(plan_of, net):
    checkpoint = {**net, "fc.weight": (1000, 8), "fc.bias": (1000,)}
    (finding,) = plan_of(net, checkpoint).diagnostics
    assert finding.keys == ("fc.weight", "fc.bias")
    assert [fix.paste for fix in finding.fixes] == [
        'fresh=["fc"]',
        'adapt={"fc": "slice"}',
        'adapt={"fc": ls.classes(old_labels, new_labels)}',
    ]
    assert plan_of(net, checkpoint, fresh=("fc",)).ok
    assert plan_of(net, checkpoint, adapt={"fc": "slice"}).ok


def test_mismatches_alike_in_all_blocks_are_one_finding(plan_of):
    model = {f"h.{i}.w": (4, 4) for i in range(12)}
    plan = plan_of({**model, "x": (90, 90)}, {**dict.fromkeys(model, (4, 5)), "x": (90, 90)})
    assert codes(plan) == ["shape-mismatch"]


@pytest.mark.parametrize(
    ("have", "want", "noticed"),
    [
        ((50257, 8), (50304, 8), "50304 is 50257 rounded up to a multiple of 64"),
        ((768, 768), (2304, 768), "2304 is 3 × 768"),
        ((8, 4), (4, 8), "transpose"),
        ((8, 4), (2, 16), "same number of elements"),
        ((64, 3, 7, 7), (64, 4, 7, 7), "3 input channels"),
        ((1000, 8), (10, 8), "1000 outputs in the checkpoint, 10 in the model"),
    ],
)
def test_arithmetic_between_shapes_is_noticed(plan_of, have, want, noticed):
    (finding,) = [
        one for one in plan_of({"l.weight": want}, {"l.weight": have}).diagnostics if one.code == "shape-mismatch"
    ]
    assert any(noticed in value for _, value in finding.evidence)


def test_slice_takes_the_corner_and_says_so(plan_of):
    (action,) = plan_of({"w": (2, 3)}, {"w": (4, 3)}, adapt={"w": "slice"}).actions
    assert [(op.name, op.text) for op in action.ops] == [("slice", "4 × 3 → 2 × 3, the leading corner")]


def test_pad_says_how_many_rows_of_zeros(plan_of):
    (action,) = plan_of({"w": (6, 3)}, {"w": (4, 3)}, adapt={"w": "pad"}).actions
    assert action.ops[0].text == "4 × 3 → 6 × 3, zeros added: 2 rows"


@pytest.mark.parametrize(("how", "dims"), [("slice", "dimension 1: 3 → 5"), ("pad", "dimension 0: 4 → 2")])
def test_adapter_that_cannot_do_it_names_the_dimension(plan_of, how, dims):
    (finding,) = [one for one in plan_of({"w": (2, 5)}, {"w": (4, 3)}, adapt={"w": how}).diagnostics
                  if one.code == "shape-mismatch"]  # fmt: skip
    assert any(dims in value for _, value in finding.evidence)


def test_callable_adapter_is_kept_for_the_load(plan_of):
    def halve(values, shape):
        return values

    (action,) = plan_of({"w": (2,)}, {"w": (4,)}, adapt={"w": halve}).actions
    assert (action.ops[0].name, action.ops[0].function) == ("call", halve)


def test_scalar_and_one_element_are_a_mismatch_with_a_safe_reshape(plan_of):
    (finding,) = [one for one in plan_of({"s": (1,)}, {"s": ()}).diagnostics if one.code == "shape-mismatch"]
    assert finding.fixes[1].safety == "safe"


# --- dtypes -----------------------------------------------------------------------------------------------------------


def test_exact_cast_is_said_and_no_finding(plan_of, tensor):
    plan = plan_of({"w": (2,)}, {"w": tensor("w", (2,), "float16")})
    assert plan.diagnostics == ()
    assert plan.actions[0].ops[0].text == "float16 → float32, exact"


def test_casts_that_round_are_one_warning_that_counts_them(plan_of, schema):
    plan = plan_of(schema({"a": (2,), "b": (2,)}, "float16"), {"a": (2,), "b": (2,)})
    assert plan.ok
    assert codes(plan) == ["dtype-mismatch"]
    assert plan.diagnostics[0].message.startswith("2 tensors")


@pytest.mark.parametrize(
    ("source", "target", "is_checked"),
    [
        ("float32", "float16", True),
        ("bfloat16", "float16", True),
        ("float16", "bfloat16", False),
        ("float64", "float32", True),
    ],
)
def test_only_casts_that_can_overflow_are_to_be_looked_at(plan_of, schema, tensor, source, target, is_checked):
    plan = plan_of(schema({"w": (2,)}, target), {"w": tensor("w", (2,), source)})
    assert plan.actions[0].ops[0].is_checked is is_checked


@pytest.mark.parametrize(
    ("source", "target"),
    [
        ("float32", "int64"),
        ("complex64", "float32"),
        ("int64", "int32"),
        ("float32", "bool"),
        ("quint8", "float32"),
        ("int8", "uint8"),
    ],
)
def test_cast_that_breaks_values_is_an_error_until_asked_for(plan_of, schema, tensor, source, target):
    model, checkpoint = schema({"w": (2,)}, target), {"w": tensor("w", (2,), source)}
    plan = plan_of(model, checkpoint, strict=False)
    assert "dtype-breaks-values" in codes(plan)
    assert not plan.ok
    asked = plan_of(model, checkpoint, adapt={"w": "cast"})
    assert asked.ok
    assert "cast as `adapt` says" in asked.actions[0].why


def test_dtype_option_replaces_the_models(plan_of):
    (action,) = plan_of({"w": (2,)}, {"w": (2,)}, dtype="bfloat16").actions
    assert action.ops[0].text == "float32 → bfloat16, rounds"


def test_assign_casts_nothing(plan_of, schema):
    assert plan_of(schema({"w": (2,)}, "float16"), {"w": (2,)}, assign=True).actions[0].ops == ()


# --- tied memory ------------------------------------------------------------------------------------------------------


@pytest.fixture
def tied():
    """A model whose head is its embedding."""
    return Schema(
        "Net", {"emb": Slot("emb", "float32", (5, 2)), "head": Slot("head", "float32", (5, 2), tied_to="emb")}
    )


@pytest.mark.parametrize("key", ["emb", "head"])
def test_one_name_of_tied_memory_is_enough(plan_of, tied, key):
    plan = plan_of(tied, {key: (5, 2)})
    assert plan.ok
    assert [action.target for action in plan.loaded] == [key]


def test_one_storage_under_both_names_is_read_once(plan_of, tied, tensor):
    storage = Storage("0", 40, ())
    plan = plan_of(tied, {key: tensor(key, (5, 2), storage=storage) for key in ("emb", "head")})
    assert [(action.status, action.ops) for action in plan.actions] == [("load", ()), ("tied", ())]


def test_two_storages_under_both_names_are_to_be_compared(plan_of, tied):
    (_, second) = plan_of(tied, {"emb": (5, 2), "head": (5, 2)}).actions
    assert (second.status, second.ops[0].name, second.ops[0].other) == ("tied", "compare", "emb")


def test_two_shapes_for_one_memory_are_a_conflict_at_once(plan_of, tied):
    plan = plan_of(tied, {"emb": (5, 2), "head": (7, 2)})
    assert "tied-conflict" in codes(plan)
    assert not plan.ok


def test_tied_memory_without_any_source_is_missing_once(plan_of, tied):
    plan = plan_of(tied, {"x": (1,)})
    assert plan.missing_keys == ["emb"]
    assert plan.filled == []


@pytest.mark.parametrize("key", ["emb", "head"])
def test_tied_memory_is_filled_under_both_names_by_either(plan_of, tied, key):
    assert [action.target for action in plan_of(tied, {key: (5, 2)}).filled] == ["emb", "head"]


# --- near misses ------------------------------------------------------------------------------------------------------


def test_renamed_head_is_offered_as_one_rename_that_works(plan_of, net):
    checkpoint = {key.replace("fc.", "classifier."): shape for key, shape in net.items()}
    plan = plan_of(net, checkpoint)
    assert codes(plan) == ["missing-key", "unexpected-key"]
    assert plan.diagnostics[0].fixes[0].paste == r'rename={r"^classifier\.": "fc."}'
    assert plan_of(net, checkpoint, rename={r"^classifier\.": "fc."}).ok


def test_rename_is_offered_in_the_files_own_keys(plan_of, prefixed, net):
    checkpoint = prefixed("module.", {key.replace("fc.", "out."): shape for key, shape in net.items()})
    paste = plan_of(net, checkpoint).diagnostics[0].fixes[0].paste
    pattern, replacement = re.fullmatch(r'rename=\{r"(.*)": "(.*)"\}', paste).groups()
    assert plan_of(net, checkpoint, rename={pattern: replacement}).ok


def test_renamed_block_is_one_pair_and_not_one_for_each_layer(plan_of):
    model = {f"stem.{i}.{leaf}": (i + 1, 4) for i in range(8) for leaf in ("weight", "bias")}
    checkpoint = {key.replace("stem", "features"): shape for key, shape in model.items()}
    plan = plan_of({**model, "fc": (900, 9)}, {**checkpoint, "fc": (900, 9)})
    assert codes(plan) == ["missing-key", "unexpected-key"]


def test_tensor_of_another_shape_is_no_near_miss(plan_of, net):
    checkpoint = {key.replace("fc.", "classifier."): (3,) if "fc" in key else shape for key, shape in net.items()}
    assert not any("did you mean" in one.message for one in plan_of(net, checkpoint).diagnostics)


def test_missing_block_is_one_finding_for_its_module(plan_of, net):
    new = {f"neck.{i}.{leaf}": (4, i + 2) for i in range(9) for leaf in ("weight", "bias")}
    (finding,) = plan_of({**net, **new}, net).diagnostics
    assert finding.keys == tuple(new)
    assert finding.fixes[-1].paste == 'fresh=["neck"]'


def test_many_unlike_findings_are_capped_and_keep_all_keys(plan_of, net):
    extra = {f"{'abcdefghij'[i % 10] * (i + 1)}.w{i}": (i + 1,) for i in range(60)}
    found = [one for one in plan_of(net, {**net, **extra}).diagnostics if one.code == "unexpected-key"]
    assert len(found) <= 20
    assert {key for one in found for key in one.keys} == set(extra)


# --- the model's own hooks --------------------------------------------------------------------------------------------


def test_hook_that_renames_is_a_line_and_a_note(plan_of):
    def migrate(infos):
        return Migration(moved={"new.weight": "old.weight"})

    plan = plan_of({"new.weight": (2,)}, {"module.old.weight": (2,)}, migrate=migrate, rename={r"^module\.": ""})
    assert plan.ok
    assert (plan.actions[0].source, plan.actions[0].target) == ("module.old.weight", "new.weight")
    assert codes(plan) == ["old-name"]


def test_hook_that_makes_a_tensor_reads_by_the_files_keys(plan_of):
    def migrate(infos):
        return Migration(
            computed={"qkv": lambda read: [read("q"), read("k")]},
            shapes={"qkv": ("float32", (4,))},
            removed={"q": "joined", "k": "joined"},
        )

    plan = plan_of({"qkv": (4,), "w": (2,)}, {"module.q": (2,), "module.k": (2,), "module.w": (2,)}, migrate=migrate)
    assert plan.ok
    assert plan.actions[0].ops[0].function(str.upper) == ["MODULE.Q", "MODULE.K"]
    assert [action.status for action in plan.actions] == ["load", "load", "dropped", "dropped"]


def test_hook_that_raised_stops_the_plan(plan_of):
    failed = Diagnostic("hook-failed", "the hook of `a` raised")
    assert not plan_of({"a": (2,)}, {"a": (2,)}, migrate=lambda infos: Migration(failed=(failed,))).ok


def test_candidate_remembers_each_step(tensor):
    candidate = Candidate("a", "a", tensor("a", (1,))).renamed("b", "one").renamed("c", "two")
    assert candidate.how == "one, two"


def test_the_wrong_model_gets_no_advice_to_leave_most_of_it_out(plan_of):
    plan = plan_of({f"h.{i}.weight": (4, 4) for i in range(9)}, {f"layer{i}.weight": (5, 5) for i in range(9)})
    assert "nothing-to-load" in {one.code for one in plan.diagnostics}
    assert [fix.paste for one in plan.diagnostics for fix in one.fixes if fix.paste.startswith(("fresh", "drop"))] == []
