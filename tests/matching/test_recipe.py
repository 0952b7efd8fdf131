"""Recipes: options that survive being written and read, and errors that name what is wrong."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadstone.errors import RecipeError
from loadstone.matching.adapters import ADAPTERS
from loadstone.matching.options import Options
from loadstone.matching.recipe import options_table, parse_recipe, read_recipe, write_recipe

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
globs = st.lists(text, max_size=4).map(tuple)
every_option = st.builds(
    Options,
    strict=st.booleans(),
    rename=st.none()
    | st.dictionaries(st.sampled_from([r"^a\.", "'\"", "\x7f\n", "é", "", r"(b)\1"]), text, min_size=1),
    only=globs,
    drop=globs,
    fresh=globs,
    adapt=st.dictionaries(text, st.sampled_from(ADAPTERS), max_size=4),
)


@given(every_option)
def test_written_options_read_back_equal(options):
    again = parse_recipe(write_recipe(options_table(options)))
    assert again == options
    assert list(again.rename or ()) == list(options.rename or ())  # the order of rules counts


def test_recipe_of_a_plan_replays_to_the_same_plan(plan_of, net):
    options = {"drop": ("extra",), "fresh": ("fc",), "rename": {r"^head\.": "fc."}, "adapt": {"conv1": "slice"}}
    checkpoint = {**{key.replace("fc.", "head."): shape for key, shape in net.items()}, "extra": (1,)}
    plan = plan_of(net, checkpoint, **options)
    again = parse_recipe(plan.recipe())
    replayed = plan_of(net, checkpoint, **{name: getattr(again, name) for name in ("drop", "fresh", "rename", "adapt")})
    assert replayed.to_json() == plan.to_json()


@pytest.mark.parametrize("options", [{"rename": str.lower}, {"adapt": {"w": min}}])
def test_callable_cannot_be_written(plan_of, options):
    with pytest.raises(RecipeError, match="a callable, which a recipe cannot hold"):
        plan_of({"w": (2,)}, {"w": (2,)}, **options).recipe()


def test_unknown_option_is_named_with_the_nearest():
    with pytest.raises(RecipeError, match=r"`frehs`[\s\S]*did you mean: fresh"):
        parse_recipe("[options]\nfrehs = []\n")


@pytest.mark.parametrize(
    ("line", "names"),
    [("only = 'fc'", "only"), ("strict = 1", "strict"), ("rename = ['a']", "rename"), ("adapt = {a = 'x'}", "adapt"),
     ("drop = [1]", "drop"), ("match = 'magic'", "match"), ("rename = {'(' = ''}", "rename")],
)  # fmt: skip
def test_wrong_value_names_its_option(line, names):
    with pytest.raises(RecipeError, match=f"`{names}`"):
        parse_recipe(f"[options]\n{line}\n")


@pytest.mark.parametrize("broken", ["[options", "options = 3", "[other]\n", "a = " + "[" * 5000])
def test_what_is_no_recipe_is_a_recipe_error(broken):
    with pytest.raises(RecipeError) as caught:
        parse_recipe(broken)
    assert caught.value.code == "recipe-invalid"


def test_missing_file_is_a_recipe_error(tmp_path):
    with pytest.raises(RecipeError, match="cannot be read"):
        read_recipe(tmp_path / "none.toml")


def test_given_options_come_on_top_of_the_recipe():
    recipe = Options(strict=False, drop=("a",), rename={"x": "y"}, adapt={"fc": "pad"})
    merged = Options(drop=("b",), rename={"z": "w"}, adapt={"fc": "slice"}).merged(recipe)
    assert (merged.strict, merged.drop, merged.adapt) == (False, ("a", "b"), {"fc": "slice"})
    assert list(merged.rename.items()) == [("x", "y"), ("z", "w")]
