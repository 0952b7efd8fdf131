"""What adapters say before anything is read: the change in words and numbers, or why they are none for two shapes."""

import pytest

from loadstone.errors import RecipeError
from loadstone.matching.adapters import Classes, classes, interpolate
from loadstone.matching.options import Options
from loadstone.matching.recipe import options_table, parse_recipe, write_recipe
from loadstone.matching.schema import Schema, Slot
from loadstone.matching.steps import Resize, Rows


@pytest.fixture
def adapted(plan_of):
    """adapted(have, want, how, key="w") → the one operation of the plan, or the reasons why there is none."""

    def of(have, want, how, key="w"):
        plan = plan_of({key: want}, {key: have}, adapt={key: how})
        if plan.ok:
            return plan.actions[0].ops[0]
        assert {one.code for one in plan.diagnostics if one.severity == "error"} >= {"shape-mismatch"}
        return plan.actions[0].why

    return of


@pytest.mark.parametrize(
    ("have", "want", "text"),
    [
        (3, 1, "3 → 1 input channels, the sum of all 3; the sum over channels stays"),
        (3, 4, "3 → 4 input channels, split into equal parts: channel 0 in 2; the sum over channels stays"),
        (4, 3, "4 → 3 input channels, added up, channel 3 onto 0; the sum over channels stays"),
    ],
)
def test_channels_say_where_each_one_goes(adapted, have, want, text):
    assert adapted((8, have, 3, 3), (8, want, 3, 3), "channels").text == text


@pytest.mark.parametrize("kind", ["grouped", "transposed"])
def test_channels_of_such_a_convolution_are_refused_with_the_reason(plan_of, kind):
    schema = Schema("Net", {"w": Slot("w", "float32", (8, 2, 3, 3), convolution=kind)})
    plan = plan_of(schema, {"w": (8, 1, 3, 3)}, adapt={"w": "channels"})
    assert f"the inputs of a {kind} convolution" in plan.actions[0].why


def test_channels_and_another_kernel_at_once_are_refused(adapted):
    assert "dimension 2: 7 → 3" in adapted((8, 3, 7, 3), (8, 4, 3, 3), "channels")


@pytest.mark.parametrize(
    ("have", "want", "resize"),
    [
        ((1, 197, 8), (1, 577, 8), Resize("tokens", (14, 14), (24, 24), 1)),
        ((1, 198, 8), (1, 578, 8), Resize("tokens", (14, 14), (24, 24), 2)),
        ((196, 8), (256, 8), Resize("tokens", (14, 14), (16, 16), 0)),
        ((197, 1, 8), (577, 1, 8), Resize("tokens", (14, 14), (24, 24), 1)),
        ((1, 8, 7, 7), (1, 8, 7, 9), Resize("planes", (7, 7), (7, 9))),
        ((1, 7, 7, 8), (1, 9, 14, 8), Resize("last", (7, 7), (9, 14))),
    ],
)
def test_grid_is_read_from_the_shapes(adapted, have, want, resize):
    assert adapted(have, want, "interpolate").step == resize


def test_table_of_relative_positions_is_read_as_windows(adapted):
    operation = adapted((169, 3), (225, 3), "interpolate", "attn.relative_position_bias_table")
    assert operation.step == Resize("table", (13, 13), (15, 15))
    assert "window 7 × 7 → 8 × 8" in operation.text


def test_table_of_beit_keeps_its_three_rows_of_class_tokens(adapted):
    operation = adapted((732, 3), (964, 3), "interpolate", "attn.relative_position_bias_table")
    assert operation.step == Resize("table", (27, 27), (31, 31), 3)
    assert operation.text.endswith("3 rows kept")


def test_patch_kernel_is_read_from_its_shape(adapted):
    operation = adapted((8, 3, 16, 16), (8, 3, 14, 14), "interpolate", "patch_embed.proj.weight")
    assert operation.step == Resize("kernel", (16, 16), (14, 14))


def test_grid_that_is_no_square_is_asked_for_with_its_readings(adapted):
    why = adapted((1, 197, 8), (1, 201, 8), "interpolate")
    assert "197 rows are 14 × 14 + 1; 201 rows may be 3 × 67, 10 × 20 + 1" in why
    assert why.endswith("say prefix_tokens, old_grid and new_grid")


def test_another_number_of_prefix_tokens_is_no_interpolation(adapted):
    assert "198 rows are 14 × 14 + 2" in adapted((1, 197, 8), (1, 198, 8), "interpolate")


@pytest.mark.parametrize(
    ("arguments", "resize"),
    [
        ({"new_grid": (10, 20)}, Resize("tokens", (14, 14), (10, 20), 1)),
        ({"old_grid": (14, 14), "new_grid": (20, 10)}, Resize("tokens", (14, 14), (20, 10), 1)),
        ({"prefix_tokens": 1, "new_grid": [8, 25]}, Resize("tokens", (14, 14), (8, 25), 1)),
    ],
)
def test_grid_is_what_was_said(adapted, arguments, resize):
    assert adapted((1, 197, 8), (1, 201, 8), interpolate(**arguments)).step == resize


def test_said_grids_that_do_not_add_up_are_refused(adapted):
    why = adapted((1, 197, 8), (1, 201, 8), interpolate(old_grid=(14, 14), new_grid=(10, 10)))
    assert "196 and 100 positions" in why


def test_planes_that_can_be_read_in_two_ways_are_asked_for(adapted):
    assert "cannot tell the grid" in adapted((1, 7, 7, 7), (1, 7, 9, 7), "interpolate")
    assert adapted((1, 7, 7, 7), (1, 7, 9, 7), interpolate(new_grid=(9, 7))).step.layout == "planes"


def test_a_said_grid_counts_between_equal_shapes_too(adapted):
    how = interpolate(old_grid=(14, 14), new_grid=(7, 28))
    assert adapted((1, 197, 8), (1, 197, 8), how).step == Resize("tokens", (14, 14), (7, 28), 1)


def test_tensor_without_elements_is_not_interpolated(adapted):
    assert "without elements" in adapted((1, 196, 0), (1, 256, 0), "interpolate")


def test_an_index_is_not_interpolated(plan_of, tensor):
    schema = Schema("Net", {"i": Slot("i", "int64", (256, 1))})
    plan = plan_of(schema, {"i": tensor("i", (196, 1), "int64")}, adapt={"i": "interpolate"})
    assert "int64 does not allow" in plan.actions[0].why


def test_vocabulary_says_how_many_rows_are_whose(adapted):
    operation = adapted((50257, 8), (50304, 8), "vocabulary")
    assert operation.text == "50257 of 50304 rows from the file, 47 keep the model's own"


def test_vocabulary_takes_no_rows_away(adapted):
    assert "`slice` keeps the first ones" in adapted((50304, 8), (50257, 8), "vocabulary")


def test_classes_say_how_many_are_kept(adapted):
    operation = adapted((4, 8), (3, 8), classes(["a", "b", "c", "d"], ["d", "x", "b"]))
    assert operation.text == "2 of 3 classes kept, 1 keeps the model's own, 2 of the file's left out"
    assert operation.step == Rows(((3, 0, 1), (1, 2, 1)), 1)


def test_classes_in_another_order_count_between_equal_shapes_too(adapted):
    assert adapted((2, 8), (2, 8), classes([0, 1], [1, 0])).step == Rows(((1, 0, 1), (0, 1, 1)), 0)


def test_classes_in_the_same_order_are_a_plain_copy(plan_of):
    (action,) = plan_of({"w": (2, 8)}, {"w": (2, 8)}, adapt={"w": classes([0, 1], [0, 1])}).actions
    assert (action.status, action.ops) == ("load", ())


def test_labels_the_wrong_way_round_are_noticed(adapted):
    assert "wrong way round" in adapted((3, 8), (2, 8), classes(["a", "b"], ["a", "b", "c"]))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (["a", "b", "a"], ["a"], "`old_labels` has 'a' twice, in rows 0 and 2"),
        (["a"], ["b", "b"], "`new_labels` has 'b' twice"),
        (["a"], [], "`new_labels` is empty"),
        (["a"], [None], "a label is text or a whole number"),
        ("abc", ["a"], "a list of labels"),
        (["a"], ["b"], "none of the 1 new labels"),
    ],
)
def test_labels_that_cannot_be_are_refused(old, new, message):
    with pytest.raises(RecipeError, match=message) as caught:
        classes(old, new)
    assert caught.value.code == "invalid-option"


@pytest.mark.parametrize(
    "arguments", [{"prefix_tokens": -1}, {"old_grid": 14}, {"new_grid": (0, 3)}, {"new_grid": (1, 2, 3)}]
)
def test_numbers_that_cannot_be_are_refused(arguments):
    with pytest.raises(RecipeError, match=f"`{next(iter(arguments))}`"):
        interpolate(**arguments)


# --- offers -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "have", "want", "paste"),
    [
        ("conv1.weight", (64, 3, 7, 7), (64, 4, 7, 7), 'adapt={"conv1": "channels"}'),
        ("encoder.pos_embedding", (1, 197, 8), (1, 577, 8), 'adapt={"encoder": "interpolate"}'),
        ("patch_embed.proj.weight", (8, 3, 16, 16), (8, 3, 14, 14), 'adapt={"patch_embed": "interpolate"}'),
        ("tok_embeddings.weight", (50257, 8), (50304, 8), 'adapt={"tok_embeddings": "vocabulary"}'),
        ("0.weight", (1000, 8), (1024, 8), 'adapt={"0": "vocabulary"}'),
    ],
)
def test_mismatch_offers_the_adapter_as_a_guess(plan_of, key, have, want, paste):
    (finding,) = [one for one in plan_of({key: want}, {key: have}).diagnostics if one.code == "shape-mismatch"]
    assert [fix.safety for fix in finding.fixes if fix.paste == paste] == ["unsafe"]


def test_grid_that_is_no_square_is_offered_with_the_half_that_is_known(plan_of):
    plan = plan_of({"pos_embed": (1, 201, 8)}, {"pos_embed": (1, 197, 8)})
    (finding,) = [one for one in plan.diagnostics if one.code == "shape-mismatch"]
    how = "ls.interpolate(prefix_tokens=1, old_grid=(14, 14), new_grid=(HEIGHT, WIDTH))"
    assert [fix.paste for fix in finding.fixes if fix.safety == "manual"][1] == f'adapt={{"pos_embed": {how}}}'


def test_grouped_convolution_is_not_offered_channels(plan_of):
    schema = Schema("Net", {"c.weight": Slot("c.weight", "float32", (8, 2, 3, 3), convolution="grouped")})
    (finding,) = [
        one for one in plan_of(schema, {"c.weight": (8, 1, 3, 3)}).diagnostics if one.code == "shape-mismatch"
    ]
    assert not any("channels" in fix.paste for fix in finding.fixes)


def test_table_and_its_index_are_offered_together(plan_of, tensor):
    table, index = "attn.relative_position_bias_table", "attn.relative_position_index"
    schema = Schema("Net", {
        table: Slot(table, "float32", (225, 3)), index: Slot(index, "int64", (4096,), "buffer"),
        "x": Slot("x", "float32", (100, 100)),
    })  # fmt: skip
    file = {table: (169, 3), index: tensor(index, (2401,), "int64"), "x": (100, 100)}
    (finding,) = [one for one in plan_of(schema, file).diagnostics if one.code == "shape-mismatch"]
    adapt = {table: "interpolate", index: "fresh"}
    assert finding.fixes[1].paste == "adapt={" + ", ".join(f'"{glob}": "{how}"' for glob, how in adapt.items()) + "}"
    assert plan_of(schema, file, adapt=adapt).ok


# --- the meta device --------------------------------------------------------------------------------------------------


def test_rows_of_its_own_are_an_error_on_meta(plan_of):
    schema = Schema("Net", {"w": Slot("w", "float32", (6, 8), is_meta=True)})
    plan = plan_of(schema, {"w": (4, 8)}, adapt={"w": "vocabulary"})
    assert [one.code for one in plan.diagnostics] == ["left-on-meta"]


def test_classes_that_are_all_in_the_file_need_no_values_of_the_model(plan_of):
    schema = Schema("Net", {"w": Slot("w", "float32", (1, 8), is_meta=True)})
    assert plan_of(schema, {"w": (2, 8)}, adapt={"w": classes(["a", "b"], ["b"])}).ok


# --- recipes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "adapter",
    [classes(["cat", 'a "dog"', 3], [3, "é"]), interpolate(prefix_tokens=1, old_grid=(14, 14), new_grid=(16, 16)),
     interpolate(), interpolate(prefix_tokens=0)],
)  # fmt: skip
def test_adapter_with_arguments_survives_a_recipe(adapter):
    options = Options(adapt={"a.*": adapter, "b": "channels"})
    assert parse_recipe(write_recipe(options_table(options))) == options


@pytest.mark.parametrize(
    "value",
    ["{}", "{classes = {old = ['a']}}", "{interpolate = {size = 3}}", "{classes = 1}", "{fresh = {}}",
     "{classes = {old = 'a', new = 'b'}}", "{interpolate = {old_grid = [1, 2, 3]}}"],
)  # fmt: skip
def test_adapter_that_is_none_is_a_recipe_error(value):
    with pytest.raises(RecipeError):
        parse_recipe(f"[options.adapt]\nw = {value}\n")


def test_plan_with_classes_replays_from_its_recipe(plan_of):
    shapes = ({"w": (2, 8)}, {"w": (3, 8)})
    plan = plan_of(*shapes, adapt={"w": classes(["a", "b", "c"], ["c", "a"])})
    again = plan_of(*shapes, adapt=parse_recipe(plan.recipe()).adapt)
    assert again.actions == plan.actions
    assert isinstance(parse_recipe(plan.recipe()).adapt["w"], Classes)
