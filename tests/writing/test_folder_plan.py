"""Which shards are linked, which are written, and what each holds."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from loadstone.writing import folder_plan
from loadstone.writing.folder_plan import ALONE_NBYTES, Piece, planned


def piece(key: str, nbytes: int = 8, group: str = "", section: str = "model", alignment: int = 4) -> Piece:
    return Piece((section, key), nbytes, alignment, group)


def names(*keys: str, section: str = "model") -> list[tuple[str, str]]:
    return [(section, key) for key in keys]


def keys_of(layout) -> list[list[str]]:
    return [[each.name[1] for each in members] for members in layout.written.values()]


def test_a_first_save_keeps_groups_apart():
    layout = planned([piece("a", group="frozen"), piece("b", group="trained"), piece("c", group="frozen")], {})
    assert keys_of(layout) == [["a", "c"], ["b"]]
    assert list(layout.written) == ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]


def test_a_shard_of_unchanged_tensors_is_linked():
    layout = planned([piece("a"), piece("b")], {"old": names("a", "b")}, set(names("a", "b")))
    assert layout.linked == {"model-00001-of-00001.safetensors": "old"}
    assert layout.written == {}


def test_a_shard_with_both_falls_in_two():
    layout = planned([piece("a"), piece("b"), piece("c")], {"old": names("a", "b", "c")}, set(names("a", "c")))
    assert layout.linked == {}
    assert sorted(keys_of(layout)) == [["a", "c"], ["b"]]


def test_a_shard_with_a_tensor_that_is_gone_is_not_linked():
    layout = planned([piece("a")], {"old": names("a", "b")}, set(names("a")))
    assert (layout.linked, keys_of(layout)) == ({}, [["a"]])


def test_a_large_tensor_has_a_shard_of_its_own():
    assert keys_of(planned([piece("a"), piece("b", ALONE_NBYTES), piece("c")], {})) == [["a", "c"], ["b"]]


def test_a_shard_does_not_grow_beyond_its_size(monkeypatch):
    monkeypatch.setattr(folder_plan, "SHARD_NBYTES", 20)
    assert keys_of(planned([piece(key) for key in "abcde"], {})) == [["a", "b"], ["c", "d"], ["e"]]


def test_wide_elements_come_first():
    assert keys_of(planned([piece("a", alignment=1), piece("b", alignment=8)], {})) == [["b", "a"]]


KEYS = st.sampled_from("abcdefgh")


@given(st.sets(KEYS), st.lists(st.sets(KEYS, min_size=1), max_size=4), st.sets(KEYS))
def test_every_tensor_stands_in_one_shard_and_links_hold_what_is_unchanged(wanted, shards, unchanged):
    seen: set[str] = set()
    old = {}
    for number, keys in enumerate(shards):
        old[f"old{number}"] = names(*sorted(keys - seen))
        seen |= keys
    layout = planned([piece(key) for key in sorted(wanted)], old, set(names(*unchanged)))
    linked = [key for shard in layout.linked.values() for _, key in old[shard]]
    assert sorted(linked + [key for keys in keys_of(layout) for key in keys]) == sorted(wanted)
    assert set(linked) <= unchanged & wanted
    for keys in keys_of(layout):
        assert len({key in unchanged for key in keys}) == 1
