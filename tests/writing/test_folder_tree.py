"""A tree of plain values is the same after JSON and back."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadstone.errors import FormatError, SaveError
from loadstone.formats import strict_json
from loadstone.io.limits import DEFAULT_LIMITS
from loadstone.writing.folder_tree import JSON_DEPTH, decode, encode

SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary() | st.complex_numbers()
KEYS = st.text() | st.integers() | st.booleans() | st.none() | st.floats(allow_nan=False) | st.binary()
TREES = st.recursive(
    SCALARS | st.sets(st.integers() | st.text()),
    lambda children: (
        st.lists(children) | st.lists(children).map(tuple) | st.dictionaries(st.text(), children)
        | st.dictionaries(KEYS, children)
    ),
    max_leaves=20,
)  # fmt: skip


def there_and_back(value):
    text = json.dumps(encode(value, lambda value, place: None), allow_nan=False).encode()
    parsed = strict_json.parse(text, name="tree", limits=DEFAULT_LIMITS, max_depth=JSON_DEPTH)
    return decode(parsed, lambda tag, reference: None, dict, "tree")


def spelt(value) -> str:
    """A text that tells 1 from 1.0 and True, -0.0 from 0.0, and takes any NaN for the same."""
    if isinstance(value, set):
        return f"set{sorted(map(repr, value))}"
    if isinstance(value, dict):
        return f"dict{[(spelt(key), spelt(child)) for key, child in value.items()]}"
    if isinstance(value, (list, tuple)):
        return f"{type(value).__name__}{[spelt(child) for child in value]}"
    if isinstance(value, complex):
        return f"complex{[spelt(value.real), spelt(value.imag)]}"
    return "nan" if isinstance(value, float) and math.isnan(value) else f"{type(value).__name__}{value!r}"


@given(TREES)
def test_plain_values_come_back(value):
    try:
        expected = spelt(value)
        json.dumps(str(value)).encode()
        value_back = there_and_back(value)
    except UnicodeEncodeError:
        return  # half a surrogate pair is no character
    assert spelt(value_back) == expected


def test_what_is_no_plain_data_is_named_by_its_place():
    with pytest.raises(SaveError, match=r"`config\.hook` is a object"):
        encode({"config": {"hook": object()}}, lambda value, place: None)


def test_a_tree_that_is_too_deep_is_refused():
    deep: list = []
    for _ in range(200):
        deep = [deep]
    with pytest.raises(SaveError, match="nested more than 100 deep"):
        encode(deep, lambda value, place: None)


@pytest.mark.parametrize(
    "value", [{"$what": 1}, {"$int": "zz"}, {"$bytes": "?"}, {"$dict": [[1]]}, {"$dict": [[[], 1]]}, {"$complex": [1]}]
)
def test_a_value_that_nothing_wrote_is_refused(value):
    with pytest.raises(FormatError, match="header-invalid"):
        decode(value, lambda tag, reference: None, dict, "tree")
