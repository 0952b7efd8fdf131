"""Globs, natural order, folding and near names."""

from hypothesis import given
from hypothesis import strategies as st

from loadstone.keys import Globs, fold, fold_groups, natural, nearest, unfold

tokens = st.one_of(
    st.sampled_from(["layer1", "layer2", "layer10", "conv", "0", "1", "2", "10", "007", "weight", "bias"]),
    st.text(alphabet="a1{},\\.x٣", max_size=4),
)
keys = st.lists(st.lists(tokens, min_size=1, max_size=4).map(".".join), max_size=40)


@given(keys)
def test_unfold_gives_back_exactly_the_folded_keys(names):
    assert sorted(unfold(fold(names))) == sorted(set(names))


@given(keys)
def test_every_group_stands_for_its_own_keys(names):
    for group in fold_groups(names):
        assert sorted(unfold([group.text])) == sorted(group.keys)


@given(keys)
def test_order_of_keys_changes_no_fold_of_the_same_set_of_numbers(names):
    assert sorted(unfold(fold(reversed(names)))) == sorted(unfold(fold(names)))


def test_fold_writes_a_product_as_one_text():
    names = [f"layer{i}.{j}.conv1.{leaf}" for i in (1, 2, 3, 4) for j in (0, 1) for leaf in ("weight", "bias")]
    assert fold(names) == ["layer{1..4}.{0,1}.conv1.{weight,bias}"]


def test_fold_never_claims_a_key_that_is_not_there():
    assert fold(["a.0", "a.1", "b.0"]) == ["a.{0,1}", "b.0"]


def test_fold_of_thirty_thousand_expert_keys_is_one_text():
    names = [
        f"layers.{i}.experts.{j}.{p}.weight" for i in range(60) for j in range(167) for p in ("up", "gate", "down")
    ]
    assert fold(names) == ["layers.{0..59}.experts.{0..166}.{up,gate,down}.weight"]


def test_natural_order_counts():
    assert sorted(["l.10.w", "l.2.w", "l.1.w"], key=natural) == ["l.1.w", "l.2.w", "l.10.w"]


def test_natural_order_survives_numbers_too_long_for_int():
    assert sorted(["a" + "9" * 5000, "a1"], key=natural)[0] == "a1"


def test_star_stops_at_a_dot_and_two_do_not():
    assert Globs(["layer*.weight"]).first("layer1.weight")
    assert not Globs(["layer*.weight"]).first("layer1.0.weight")
    assert Globs(["layer**.weight"]).first("layer1.0.weight")


def test_bare_name_means_itself_and_everything_under_it():
    globs = Globs(["layer4.1"])
    assert globs.first("layer4.1") == globs.first("layer4.1.conv.weight") == "layer4.1"
    assert globs.first("layer4.10.weight") is None


def test_folded_text_from_a_screen_is_a_glob():
    globs = Globs(["h.{0..11}.{ln_1,ln_2}"])
    assert globs.first("h.11.ln_2.weight")
    assert not globs.first("h.12.ln_2.weight")


def test_dot_in_a_glob_is_a_dot():
    assert not Globs(["a.*"]).first("ab")


def test_first_pattern_in_the_order_given_wins():
    assert Globs(["**.weight", "fc"]).first("fc.weight") == "**.weight"
    assert Globs(["fc", "**.weight"]).first("fc.weight") == "fc"


def test_unused_lists_patterns_that_match_nothing():
    assert Globs(["fc", "fcc", "**.bias"]).unused(["fc.weight"]) == ["fcc", "**.bias"]


def test_shadowed_pattern_counts_as_used():
    assert Globs(["fc", "fc.weight"]).unused(["fc.weight"]) == []


def test_nearest_finds_a_typo_in_a_large_pool():
    pool = [f"block{i}.conv.weight" for i in range(20_000)] + ["classifier.weight"]
    assert nearest("clasifier.weight", pool)[0] == "classifier.weight"
