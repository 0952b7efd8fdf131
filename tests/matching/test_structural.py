"""Plans by structure: what the engine finds becomes lines, rules and questions, and nothing is applied by its name."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest

import loadstone
from loadstone.matching.plan import Plan
from loadstone.matching.recipe import read_recipe

torch = pytest.importorskip("torch")
nn = torch.nn


def convnet(first: str, block: str, second: str, head: str, blocks: int = 3) -> dict[str, tuple[int, ...]]:
    """A small network of convolutions under names of one's choice; `{}` is the number of the block."""
    shapes: dict[str, tuple[int, ...]] = {f"{first}.weight": (16, 3, 7, 7), f"{first}.bias": (16,)}
    for number in range(blocks):
        shapes[f"{block.format(number)}.weight"] = (32, 16, 3, 3)
        shapes[f"{second.format(number)}.weight"] = (16, 32, 1, 1)
        shapes[f"{second.format(number)}.bias"] = (16,)
    return {**shapes, f"{head}.weight": (10, 16), f"{head}.bias": (10,)}


OURS = convnet("stem.conv", "stages.{}.wide", "stages.{}.narrow", "classifier")
THEIRS = convnet("features.0", "body.block{}.c1", "body.block{}.c2", "fc")
MAPPING = {
    "stem.conv.weight": "features.0.weight",
    "stages.2.wide.weight": "body.block2.c1.weight",
    "stages.0.narrow.bias": "body.block0.c2.bias",
    "classifier.bias": "fc.bias",
}


def by_target(plan: Plan) -> dict[str, str]:
    return {str(action.target): str(action.source) for action in plan.actions if action.status == "load"}


def every_key_once(plan: Plan) -> bool:
    targets = [action.target for action in plan.actions if action.target is not None]
    alone = [action.source for action in plan.actions if action.target is None]
    sources = {action.source for action in plan.actions if action.source is not None}
    return (
        sorted(targets) == sorted(plan.schema.slots)
        and len(alone) == len(set(alone))
        and sources == set(plan.sources)
        and not set(alone) & {action.source for action in plan.actions if action.status == "load"}
    )


def codes(plan: Plan) -> list[str]:
    return [finding.code for finding in plan.diagnostics]


# --- what fits --------------------------------------------------------------------------------------------------------


def test_another_naming_of_the_same_network_is_found(plan_of) -> None:
    plan = plan_of(OURS, THEIRS, match="structure")
    assert plan.ok
    assert not plan.diagnostics
    assert MAPPING.items() <= by_target(plan).items()
    assert {key: made.sources[0].key for key, made in plan.compositions.items()} == by_target(plan)
    assert every_key_once(plan)
    assert all(action.how.startswith("by structure") and action.why for action in plan.loaded)


def test_a_plan_by_names_says_that_structure_fits(plan_of) -> None:
    plan = plan_of(OURS, THEIRS)
    (note,) = (finding for finding in plan.diagnostics if finding.code == "fits-by-structure")
    assert "13 of 13" in note.message
    assert note.fixes[0].paste == 'match="structure"'


def test_no_note_where_names_settle_nearly_all_or_nothing_fits(plan_of) -> None:
    assert "fits-by-structure" not in codes(plan_of(OURS, {**OURS, "extra.weight": (5, 5)}))
    assert "fits-by-structure" not in codes(plan_of(OURS, {f"x{n}.weight": (n + 2, 3) for n in range(13)}))


@pytest.mark.parametrize("wrapper", ["module.", "net.inner.", ""])
@pytest.mark.parametrize("is_model", [True, False])
def test_wrappers_on_either_side_change_nothing(plan_of, prefixed, wrapper, is_model) -> None:
    ours = prefixed(wrapper, OURS) if is_model else OURS
    theirs = THEIRS if is_model else prefixed(wrapper, THEIRS)
    plan = plan_of(ours, theirs, match="structure")
    assert plan.ok
    assert every_key_once(plan)
    key, source = "stages.2.wide.weight", "body.block2.c1.weight"
    assert by_target(plan)[(wrapper if is_model else "") + key] == ("" if is_model else wrapper) + source


def test_the_order_of_keys_means_nothing(plan_of) -> None:
    plan = plan_of(OURS, dict(reversed(THEIRS.items())), match="structure")
    assert by_target(plan) == by_target(plan_of(OURS, THEIRS, match="structure"))


# --- options beside structure -----------------------------------------------------------------------------------------


def test_a_fresh_head_is_left_to_the_person(plan_of) -> None:
    other = {**THEIRS, "fc.weight": (7, 16), "fc.bias": (7,)}
    plan = plan_of(OURS, other, match="structure", fresh=("classifier",), drop=("fc",))
    assert plan.ok, str(plan)
    assert {action.status for action in plan.actions if str(action.target).startswith("classifier")} == {"kept"}
    assert every_key_once(plan)


def test_what_has_no_place_is_unexpected_and_not_silent(plan_of) -> None:
    plan = plan_of(OURS, {**THEIRS, "aux.weight": (5, 7)}, match="structure")
    assert not plan.ok
    assert plan.unexpected_keys == ["aux.weight"]
    assert "unexpected-key" in codes(plan)
    assert every_key_once(plan)


def test_a_head_of_the_same_name_and_another_shape_can_still_be_adapted(plan_of) -> None:
    other = {key.replace("fc", "classifier"): shape for key, shape in THEIRS.items()}
    other |= {"classifier.weight": (7, 16), "classifier.bias": (7,)}
    plan = plan_of(OURS, other, match="structure")
    assert plan.mismatched_keys == ["classifier.weight", "classifier.bias"]
    sliced = plan_of(OURS, other, match="structure", adapt={"classifier": "fresh"})
    assert sliced.ok, str(sliced)


def test_casts_come_after_what_structure_does(plan_of, schema) -> None:
    plan = plan_of(schema(OURS, "float16"), THEIRS, match="structure")
    assert all(action.ops[-1].name == "cast" for action in plan.loaded)


def test_another_network_is_refused_and_nothing_goes_by_name(plan_of) -> None:
    wrong = {f"t.{n}.weight": (n + 2, 3) for n in range(12)} | {"classifier.bias": (10,)}
    for strict in (True, False):
        plan = plan_of(OURS, wrong, match="structure", strict=strict)
        assert not plan.ok
        assert "no-structural-match" in codes(plan)
        assert not plan.loaded
        assert every_key_once(plan)


# --- questions --------------------------------------------------------------------------------------------------------


def twins(one: str, other: str, blocks: int = 3) -> dict[str, tuple[int, ...]]:
    """Blocks with two layers of the same shape, told apart by nothing but their names."""
    shapes: dict[str, tuple[int, ...]] = {"stem.weight": (8, 3, 3, 3)}
    for number in range(blocks):
        shapes |= {f"blocks.{number}.{name}.weight": (8, 8) for name in (one, other)}
        shapes[f"blocks.{number}.mix.weight"] = (16, 8)
    return {**shapes, "head.weight": (10, 8)}


def test_what_nothing_decides_is_asked_once_and_the_answer_propagates(plan_of) -> None:
    model, checkpoint = twins("left", "right"), twins("foo", "bar")
    plan = plan_of(model, checkpoint, match="structure")
    (question,) = (finding for finding in plan.diagnostics if finding.code == "open-question")
    assert not plan.ok
    assert len(plan.ambiguous_keys) == 6
    assert not plan.missing_keys + plan.unexpected_keys
    assert every_key_once(plan)
    paste = next(fix.paste for fix in question.fixes if "foo" in fix.paste)
    answers = eval(paste.removeprefix("answers="))  # what a person would paste
    answered = plan_of(model, checkpoint, match="structure", answers=answers)
    assert answered.ok, str(answered)
    (target,) = answers
    side = "left" if "left" in target else "right"
    assert {source.split(".")[2] for key, source in by_target(answered).items() if f".{side}." in key} == {"foo"}


def test_what_is_open_is_data_and_so_is_in_how_many_ways(plan_of) -> None:
    plan = plan_of(twins("left", "right"), twins("foo", "bar"), match="structure")
    (question,) = plan.questions
    assert set(question.options) == {"blocks.0.foo.weight", "blocks.0.bar.weight"}
    assert question.places == 3
    assert round(10**plan.admissible) == 2**3
    answered = plan_of(
        twins("left", "right"), twins("foo", "bar"), match="structure", answers={question.target: question.options[0]}
    )
    assert not answered.questions
    assert answered.admissible == 0.0
    document = json.loads(plan.to_json())
    assert document["questions"][0]["target"] == question.target
    assert document["admissible"] == plan.admissible


def test_options_are_keys_as_the_checkpoint_has_them(plan_of, prefixed) -> None:
    plan = plan_of(twins("left", "right"), prefixed("module.", twins("foo", "bar")), match="structure")
    (question,) = plan.questions
    assert set(question.options) == {"module.blocks.0.foo.weight", "module.blocks.0.bar.weight"}


def test_a_question_without_strict_is_a_warning_and_is_never_applied(plan_of) -> None:
    plan = plan_of(twins("left", "right"), twins("foo", "bar"), match="structure", strict=False)
    assert plan.ok
    assert not any("foo" in source or "bar" in source for source in by_target(plan).values())


@pytest.mark.parametrize(
    ("answers", "said"),
    [
        ({"nowhere.weight": "blocks.0.foo.weight"}, "no key of the model"),
        ({"blocks.0.left.weight": "blocks.0.fo.weight"}, "no key of the checkpoint"),
        ({"blocks.0.left.weight": "head.weight"}, "fits neither shapes"),
        ({"head.weight": "blocks.0.foo.weight"}, "was not taken"),
    ],
)
def test_an_answer_that_comes_to_nothing_is_an_error(plan_of, answers, said) -> None:
    plan = plan_of(twins("left", "right"), twins("foo", "bar"), match="structure", answers=answers)
    (finding,) = (finding for finding in plan.diagnostics if finding.code == "answer-unfit")
    assert said in finding.message


# --- recipes ----------------------------------------------------------------------------------------------------------


class Ours(nn.Module):
    """q, k and v in one projection, transposed matrices, and a block list."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(40, 16)
        self.blocks = nn.ModuleList()
        for _ in range(2):
            block = nn.Module()
            block.norm = nn.LayerNorm(16)
            block.attn = nn.Module()
            block.attn.qkv = nn.Linear(16, 48)
            block.attn.proj = nn.Linear(16, 16)
            block.up = nn.Linear(16, 64)
            block.down = nn.Linear(64, 16)
            self.blocks.append(block)
        self.out = nn.Linear(16, 7)


def their_weights() -> dict[str, torch.Tensor]:
    """The same with q, k and v apart, under other names, and the values they must have."""
    torch.manual_seed(0)
    state = {"wte.weight": torch.randn(40, 16)}
    for number in range(2):
        at = f"layer.{number}"
        for name, shape in (("ln", (16,)), ("attention.query", (16, 16)), ("attention.key", (16, 16)),
                            ("attention.value", (16, 16)), ("attention.dense", (16, 16)),
                            ("fc_in", (64, 16)), ("fc_out", (16, 64))):  # fmt: skip
            state[f"{at}.{name}.weight"] = torch.randn(shape)
            state[f"{at}.{name}.bias"] = torch.randn(shape[0])
    return {**state, "score.weight": torch.randn(7, 16), "score.bias": torch.randn(7)}


def test_a_recipe_gives_back_the_same_plan_to_the_byte(tmp_path: Path) -> None:
    model, weights = Ours(), their_weights()
    plan = loadstone.plan(model, weights, match="structure")
    assert plan.ok, str(plan)
    recipe = tmp_path / "r.toml"
    recipe.write_text(plan.recipe())
    again = loadstone.plan(model, weights, recipe=recipe)
    assert again.to_json() == plan.to_json()
    assert again.recipe() == plan.recipe()
    table = tomllib.loads(plan.recipe())["options"]
    assert table["rules"]["blocks.{a}.up.*"] == "layer.{a}.fc_in.*"
    assert table["rules"]["blocks.{a}.attn.qkv.*"] == (
        "layer.{a}.attention.query.* + layer.{a}.attention.key.* + layer.{a}.attention.value.*"
    )
    again.apply()
    joined = [weights[f"layer.1.attention.{name}.weight"] for name in ("query", "key", "value")]
    assert torch.equal(model.blocks[1].attn.qkv.weight, torch.cat(joined))
    assert torch.equal(model.out.bias, weights["score.bias"])


def test_splitting_takes_the_parts_back_out_to_the_bit() -> None:
    weights = their_weights()
    ours = Ours()
    loadstone.load(ours, weights, match="structure")
    theirs = {key: torch.zeros_like(value) for key, value in weights.items()}

    class Theirs(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            for key, value in theirs.items():
                place: nn.Module = self
                *path, name = key.split(".")
                for part in path:
                    if part not in place._modules:
                        place.add_module(part, nn.Module())
                    place = place._modules[part]
                place.register_parameter(name, nn.Parameter(value))

    back = Theirs()
    plan = loadstone.plan(back, ours.state_dict(), match="structure")
    assert plan.rules["layer.{a}.attention.key.*"] == "blocks.{a}.attn.qkv.* | chunk(1, 3)"
    plan.apply()
    assert all(torch.equal(value, weights[key]) for key, value in back.state_dict().items())


def test_an_edited_rule_is_what_is_applied(tmp_path: Path) -> None:
    model, weights = Ours(), their_weights()
    text = loadstone.plan(model, weights, match="structure").recipe()
    swapped = text.replace("query.*", "QUERY").replace("key.*", "query.*").replace("QUERY", "key.*")
    recipe = tmp_path / "r.toml"
    recipe.write_text(swapped)
    plan = loadstone.load(model, weights, recipe=recipe)
    line = next(action for action in plan.actions if action.target == "blocks.0.attn.qkv.weight")
    assert line.how == "by a rule of the recipe"
    joined = [weights[f"layer.0.attention.{name}.weight"] for name in ("key", "query", "value")]
    assert torch.equal(model.blocks[0].attn.qkv.weight, torch.cat(joined))


def test_a_rule_that_fits_nothing_is_an_error_that_names_it(tmp_path: Path) -> None:
    model, weights = Ours(), their_weights()
    text = loadstone.plan(model, weights, match="structure").recipe()
    recipe = tmp_path / "r.toml"
    recipe.write_text(text.replace('"layer.{a}.fc_in.*"', '"layer.{a}.fc_inn.*"').replace('"out.*"', '"outt.*"'))
    plan = loadstone.plan(model, weights, recipe=recipe)
    found = [finding for finding in plan.diagnostics if finding.code == "rule-unfit"]
    assert not plan.ok
    assert any("layer.0.fc_inn.weight" in finding.message for finding in found)
    assert any("`outt.*`" in finding.message for finding in found)


def test_a_recipe_says_which_side_has_changed(tmp_path: Path) -> None:
    model, weights = Ours(), their_weights()
    recipe = tmp_path / "r.toml"
    recipe.write_text(loadstone.plan(model, weights, match="structure").recipe())
    plan = loadstone.plan(model, {**weights, "more.bias": torch.zeros(3)}, recipe=recipe)
    changed = [finding for finding in plan.diagnostics if finding.code == "recipe-changed"]
    assert [("checkpoint" in finding.message, finding.severity) for finding in changed] == [(True, "warning")]
    assert plan.unexpected_keys == ["more.bias"]


@pytest.mark.parametrize(
    ("left", "right", "said"),
    [
        ("a.{a}", "b.{b}", "`{b}`"),
        ("a.x", "b.*", "`*`"),
        ("a.{a+1}", "b.{a}", "left side"),
        ("a.{a}.{a}", "b.{a}", "twice"),
        ("a", "b | turn(1, 0)", "is no step"),
        ("a", "b + ", "no key"),
    ],
)
def test_a_rule_that_cannot_be_read_is_refused(tmp_path: Path, left, right, said) -> None:
    recipe = tmp_path / "r.toml"
    recipe.write_text(f"[options.rules]\n{json.dumps(left)} = {json.dumps(right)}\n")
    with pytest.raises(loadstone.RecipeError, match="recipe-invalid") as caught:
        read_recipe(recipe)
    assert said in str(caught.value)


def test_every_byte_that_is_read_is_counted() -> None:
    weights = their_weights()
    plan = loadstone.plan(Ours(), weights, match="structure")
    assert plan.loaded_nbytes == sum(tensor.nbytes for tensor in weights.values())


# --- shared memory and parts ------------------------------------------------------------------------------------------


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.tokens = nn.Embedding(30, 8)
        self.norm = nn.LayerNorm(8)
        self.logits = nn.Linear(8, 30, bias=False)
        self.logits.weight = self.tokens.weight


@pytest.mark.parametrize("has_both", [True, False])
def test_a_tied_pair_is_filled_from_one_tensor_or_two_equal_ones(has_both: bool) -> None:
    state = {"wte.weight": torch.randn(30, 8), "ln_f.weight": torch.randn(8), "ln_f.bias": torch.randn(8)}
    if has_both:
        state["lm_head.weight"] = state["wte.weight"]
    model = Tied()
    loadstone.load(model, state, match="structure")
    assert torch.equal(model.logits.weight, state["wte.weight"])
    assert model.logits.weight is model.tokens.weight


def test_parts_of_different_dtypes_are_joined_in_the_widest() -> None:
    weights = their_weights()
    weights["layer.0.attention.query.weight"] = weights["layer.0.attention.query.weight"].half()
    model = Ours()
    loadstone.load(model, weights, match="structure")
    assert torch.equal(model.blocks[0].attn.qkv.weight[16:32], weights["layer.0.attention.key.weight"])
    assert torch.equal(model.blocks[0].attn.qkv.weight[:16], weights["layer.0.attention.query.weight"].float())


def test_what_was_saved_from_meta_is_missing_and_never_made_up() -> None:
    empty = {key: tensor.to("meta") for key, tensor in their_weights().items()}
    plan = loadstone.plan(Ours(), empty, match="structure")
    assert not plan.ok
    assert "blocks.0.attn.qkv.weight" in plan.missing_keys
    assert not plan.loaded


def test_parts_of_dtypes_that_no_dtype_holds_both_are_not_joined() -> None:
    weights = their_weights()
    weights["layer.0.attention.query.weight"] = weights["layer.0.attention.query.weight"].half()
    weights["layer.0.attention.key.weight"] = weights["layer.0.attention.key.weight"].bfloat16()
    weights["layer.0.attention.value.weight"] = weights["layer.0.attention.value.weight"].half()
    plan = loadstone.plan(Ours(), weights, match="structure")
    assert plan.mismatched_keys == ["blocks.0.attn.qkv.weight"]


def test_a_wrapped_model_and_a_chosen_set_of_weights() -> None:
    wrapped = {f"module.{key}": tensor for key, tensor in their_weights().items()}
    model = nn.DataParallel(Ours())
    plan = loadstone.load(model, {"model": wrapped, "epoch": 3}, match="structure", weights="model")
    assert plan.rules["module.blocks.{a}.up.*"] == "module.layer.{a}.fc_in.*"
    assert torch.equal(model.module.out.bias, wrapped["module.score.bias"])
