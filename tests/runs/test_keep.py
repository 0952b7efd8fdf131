"""Retention: what it keeps, what it lets go, and what it never lets go whatever the history."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadstone.errors import RecipeError
from loadstone.runs.keep import Keep, best_of, retain
from loadstone.runs.listing import Entry

NAN, INF = math.nan, math.inf


def history(*losses, state="whole", **more) -> list[Entry]:
    """A checkpoint an epoch."""
    return [
        Entry(Path(f"net_epoch{epoch:04d}.pth"), "net", epoch, epoch, metrics={"loss": loss}, state=state, **more)
        for epoch, loss in enumerate(losses, start=1)
    ]


def kept(entries, keep, protect=()) -> list[int]:
    return [decision.entry.epoch for decision in retain(entries, keep, protect) if decision.is_kept]


def test_the_last_ones_are_kept():
    assert kept(history(1, 2, 3, 4, 5), Keep(last=2)) == [4, 5]


def test_the_best_is_kept_beside_the_last():
    assert kept(history(3, 1, 2, 4, 5), Keep(last=1, best=1, metric="loss")) == [2, 5]


def test_a_large_metric_can_be_the_best():
    assert kept(history(3, 9, 2, 4, 5), Keep(last=1, best=1, metric="loss", mode="max")) == [2, 5]


def test_nan_does_not_push_out_the_best():
    """Orbax' BestN(2) keeps 0.8 and 0.7 of this history and deletes 0.1."""
    assert kept(history(0.1, NAN, 0.9, 0.8, 0.7), Keep(last=1, best=2, metric="loss")) == [1, 5]


@pytest.mark.parametrize(("mode", "best"), [("min", 0.5), ("max", 0.7)])
@pytest.mark.parametrize("value", [INF, -INF])
def test_an_infinite_metric_does_not_push_out_the_best(mode, best, value):
    entries = history(value, 0.5, 0.7, NAN)
    assert best_of(entries, "loss", mode).metrics["loss"] == best


def test_of_equals_the_newer_is_the_best():
    assert best_of(history(1, 1, 2), "loss", "min").epoch == 2


def test_every_tenth_epoch_stays_for_good():
    assert kept(history(*range(25)), Keep(last=1, every=10)) == [10, 20, 25]


def test_a_checkpoint_inside_an_epoch_is_not_the_end_of_one():
    inside = Entry(Path("net_epoch0010_step000105.pth"), "net", 10, 105, batch=5, state="whole")
    assert kept([inside, *history(*[1] * 11)[-1:]], Keep(last=1, every=10)) == [11]


def test_damaged_ones_do_not_count():
    entries = [*history(1, 2, 3), *history(*[4] * 5, state="damaged")[3:]]
    assert kept(entries, Keep(last=2)) == [2, 3, 4, 5]


def test_a_damaged_one_goes_once_a_newer_one_is_whole():
    entries = [history(1, state="damaged")[0], *history(1, 2)[1:]]
    first, _ = retain(entries, Keep())
    assert not first.is_kept
    assert first.reasons == ("damaged, and a newer one is whole",)


def test_runs_of_another_name_are_counted_apart():
    other = [Entry(Path("other_epoch0001.pth"), "other", 1, 1, state="whole")]
    assert kept([*other, *history(1, 2, 3)], Keep(last=1)) == [1, 3]


@pytest.mark.parametrize(
    "options",
    [{"last": 0}, {"last": -1}, {"last": True}, {"last": 1.5}, {"best": 1}, {"best": -1, "metric": "loss"},
     {"metric": "loss"}, {"every": 0}, {"every": "5"}, {"mode": "most"}, {"best": 1, "metric": ""}],
)  # fmt: skip
def test_options_that_mean_nothing_are_refused(options):
    with pytest.raises(RecipeError, match="invalid-option"):
        Keep(**options)


NUMBERS = st.sampled_from([0.0, 1.0, 2.0, NAN, INF, -INF]) | st.floats()
ENTRIES = st.lists(
    st.builds(
        lambda name, epoch, step, number, metrics, state, pinned, resumed: Entry(
            Path(f"{name}_epoch{epoch:04d}_step{step:06d}-{number}.pth"), "" if state == "foreign" else name,
            epoch, step, number=number, metrics=metrics, state=state, is_pinned=pinned, is_resumed_from=resumed,
        ),
        st.sampled_from(["net", "other"]), st.integers(0, 12), st.integers(0, 5), st.integers(1, 3),
        st.dictionaries(st.sampled_from(["loss", "acc"]), NUMBERS),
        st.sampled_from(["whole", "whole", "whole", "damaged", "unverified", "unfinished", "foreign"]),
        st.sampled_from([False, False, False, True]), st.sampled_from([False, False, False, True]),
    ),
    max_size=20, unique_by=lambda entry: entry.path,
)  # fmt: skip
KEEPS = st.builds(Keep, st.integers(1, 4), st.just(0), st.none(), every=st.none() | st.integers(1, 5)) | st.builds(
    Keep, st.integers(1, 4), st.integers(1, 3), st.sampled_from(["loss", "acc"]), st.sampled_from(["min", "max"])
)


@given(ENTRIES, KEEPS)
def test_whatever_the_history_nothing_that_matters_goes(entries, keep):
    decisions = retain(entries, keep)
    gone = [decision.entry for decision in decisions if not decision.is_kept]
    stay = [decision.entry for decision in decisions if decision.is_kept]
    assert [decision.entry for decision in decisions] == entries
    assert all(decision.reasons for decision in decisions)
    assert not any(entry.is_pinned or entry.is_resumed_from for entry in gone)
    assert {entry.state for entry in gone} <= {"whole", "damaged"}
    for name in {entry.name for entry in entries if entry.state == "whole"}:
        whole = [entry for entry in entries if entry.name == name and entry.state == "whole"]
        newest = sorted(whole, key=lambda entry: entry.order)[-keep.last :]
        assert all(entry in stay for entry in newest)
        if keep.metric:
            assert best_of(whole, keep.metric, keep.mode) in stay
            finite = [entry for entry in whole if math.isfinite(entry.metrics.get(keep.metric, NAN))]
            values = [entry.metrics[keep.metric] for entry in finite]
            if finite:
                extreme = min(values) if keep.mode == "min" else max(values)
                assert any(entry.metrics.get(keep.metric) == extreme for entry in stay)


@given(ENTRIES, KEEPS, st.randoms())
def test_the_order_of_the_list_does_not_matter(entries, keep, random):
    shuffled = random.sample(entries, len(entries))
    before = {decision.entry.path: decision.is_kept for decision in retain(entries, keep)}
    assert {decision.entry.path: decision.is_kept for decision in retain(shuffled, keep)} == before


@given(ENTRIES, KEEPS)
def test_a_second_pass_lets_nothing_more_go(entries, keep):
    stay = [decision.entry for decision in retain(entries, keep) if decision.is_kept]
    assert all(decision.is_kept for decision in retain(stay, keep))


@given(ENTRIES, KEEPS)
def test_what_is_protected_stays(entries, keep):
    names = {entry.path.name for entry in entries}
    assert all(decision.is_kept for decision in retain(entries, keep, names))
