"""The names of checkpoints say what they are, read back, and are never given twice."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadstone.errors import RecipeError
from loadstone.runs.names import Named, checkpoint_name, free_path, parse

NAMES = st.text(
    st.characters(codec="utf-8", exclude_characters="/\\", exclude_categories=["Cc"]), min_size=1, max_size=40
)


def test_a_name_says_run_and_epoch():
    assert checkpoint_name("resnet18", epoch=50) == "resnet18_epoch0050.pth"


def test_inside_an_epoch_the_name_says_the_step():
    assert checkpoint_name("resnet18", epoch=3, step=450) == "resnet18_epoch0003_step000450.pth"


def test_a_folder_has_no_suffix():
    assert checkpoint_name("resnet18", epoch=50, suffix="") == "resnet18_epoch0050"


@given(
    NAMES.filter(lambda name: not name.startswith(".")),
    st.integers(0, 10**9),
    st.none() | st.integers(0, 10**12),
    st.integers(1, 999),
    st.sampled_from(["", ".pth", ".safetensors", ".pth.tar"]),
)
def test_a_name_reads_back(name, epoch, step, number, suffix):
    file_name = checkpoint_name(name, epoch=epoch, step=step, suffix=suffix, number=number)
    assert parse(file_name) == Named(name, epoch, step, number, suffix)


@pytest.mark.parametrize("name", ["", "a/b", "../a", ".hidden", "a\nb", "a\0b", "x" * 200])
def test_a_name_that_leaves_the_folder_is_refused(name):
    with pytest.raises(RecipeError, match="invalid-option"):
        checkpoint_name(name, epoch=1)


@pytest.mark.parametrize("name", ["best.pth", "epoch0001.pth", "net_epoch1.pth", "net_epoch0001_best.pth"])
def test_names_of_other_people_are_not_taken_for_ours(name):
    assert parse(name) is None


def test_a_taken_name_gets_a_number(tmp_path):
    first = free_path(tmp_path, "net", epoch=1)
    first.write_bytes(b"")
    second = free_path(tmp_path, "net", epoch=1)
    second.symlink_to("nowhere")
    assert [path.name for path in (first, second, free_path(tmp_path, "net", epoch=1))] == [
        "net_epoch0001.pth",
        "net_epoch0001-2.pth",
        "net_epoch0001-3.pth",
    ]
