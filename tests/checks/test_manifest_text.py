"""Text manifests: the same tensors give the same text, and a difference is said for what it is."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

import loadstone as ls
from loadstone.checks.manifest_text import HEAD, _line, compare, parse, text_of
from loadstone.errors import FormatError
from loadstone.manifest import Fingerprint

DIGEST = "xxh3-128:" + "0123456789abcdef" * 2


def text(path) -> str:
    with ls.open(path) as checkpoint:
        return text_of(checkpoint)


def test_the_same_tensors_give_the_same_text_in_every_format(tmp_path):
    tensors = {"b": torch.arange(6.0).reshape(2, 3), "a": torch.tensor(3), "c": torch.zeros(0, 4)}
    save_file(tensors, tmp_path / "a.safetensors")
    torch.save({**tensors, "b": tensors["b"].t().contiguous().t()}, tmp_path / "a.pth")
    torch.save(tensors, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    assert text(tmp_path / "a.safetensors") == text(tmp_path / "a.pth") == text(tmp_path / "old.pth")
    assert text(tmp_path / "a.pth").splitlines()[0] == HEAD
    assert [line.rpartition(" ")[0] for line in text(tmp_path / "a.pth").splitlines()[1:]] == [
        "a int64 []", "b float32 [2,3]", "c float32 [0,4]",
    ]  # fmt: skip


def test_every_kind_of_difference_is_named(tmp_path):
    old = {"same": torch.zeros(2), "values": torch.zeros(2), "shape": torch.zeros(2), "dtype": torch.zeros(2)}
    torch.save({**old, "missing": torch.zeros(1)}, tmp_path / "old.pth")
    torch.save(
        {
            **old,
            "values": torch.ones(2),
            "shape": torch.zeros(3),
            "dtype": torch.zeros(2).half(),
            "new": torch.zeros(1),
        },
        tmp_path / "new.pth",
    )
    compared = compare(tmp_path / "new.pth", text(tmp_path / "old.pth"))
    assert {each.key: each.what for each in compared.differences} == {
        name: name for name in ("values", "shape", "dtype", "missing", "new")
    }
    assert (compared.same, compared.ok) == (1, False)


def test_a_tensor_without_dense_bytes_is_unproven_not_equal(tmp_path):
    torch.save({"s": torch.eye(2).to_sparse(), "w": torch.zeros(1)}, tmp_path / "a.pth")
    compared = compare(tmp_path / "a.pth", text(tmp_path / "a.pth"))
    assert (compared.ok, compared.same, compared.unproven) == (True, 1, ("s",))


@given(st.dictionaries(st.text(st.characters(exclude_categories=["Cs"]), min_size=1), st.lists(st.integers(0, 2**40))))
def test_any_key_survives_the_text(shapes):
    marks = {key: Fingerprint("float32", tuple(shape), DIGEST) for key, shape in shapes.items()}
    lines = [HEAD, *(_line(key, mark) for key, mark in marks.items())]
    assert all(line.isascii() and line.isprintable() for line in lines)
    assert parse("\n".join(lines), "made") == marks


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (["# something else"], "line 1"), ([HEAD, "a float32 [2]"], "line 2"),
        ([HEAD, f"a float32 [2] {DIGEST}", f"a float32 [2] {DIGEST}"], "line 3.*second time"),
        ([HEAD, "", "<<<<<<< HEAD"], "line 3.*merge"), ([HEAD, f"a float32 [2,,3] {DIGEST[:-1]}"], "line 2"),
        ([], "line 1"),
    ],
)  # fmt: skip
def test_a_manifest_that_is_none_is_refused_by_its_line(lines, said):
    with pytest.raises(FormatError, match=f"invalid-manifest.*{said}"):
        parse("\n".join(lines), "m")
