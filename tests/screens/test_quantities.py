"""Numbers as people read them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadstone.screens import quantities


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (999_949, "999.9 kB"), (999_950, "1.0 MB"),
     (548_105_171, "548.1 MB"), (5_000_000_000, "5.0 GB")],
)  # fmt: skip
def test_bytes_are_decimal(number, text):
    assert quantities.nbytes(number) == text


@pytest.mark.parametrize(
    ("number", "text"), [(512, "512"), (786_432, "786.4 k"), (38_597_376, "38.6 M"), (7_241_732_096, "7.2 B")]
)
def test_elements_have_one_decimal(number, text):
    assert quantities.elements(number) == text


def test_shapes():
    assert quantities.shape((64, 3, 7, 7)) == "64 × 3 × 7 × 7"
    assert quantities.shape(()) == "scalar"
    assert quantities.shape((1,) * 64) == "1 × 1 × 1 × 1 × 1 × 1 × 1 × 1 × … 64 dimensions"


def test_nouns_agree():
    assert quantities.counted(1, "tensor") == "1 tensor"
    assert quantities.counted(28_800, "tensor") == "28,800 tensors"


@given(st.integers(0, 10**15), st.integers(1, 10**15), st.integers(1, 40))
def test_a_bar_never_overflows(part, whole, width):
    assert len(quantities.bar(min(part, whole), whole, width)) <= width


def test_a_full_bar_is_full():
    assert quantities.bar(7, 7, 10) == "█" * 10
