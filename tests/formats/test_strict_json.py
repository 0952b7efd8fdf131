"""JSON with one meaning: what json accepts and this parser refuses, and that neither is slow nor deep."""

from __future__ import annotations

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadstone.errors import FormatError, LimitError
from loadstone.formats.strict_json import parse
from loadstone.io.limits import DEFAULT_LIMITS, Limits

TEXT = st.text(st.characters(codec="utf-8"))
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda children: st.lists(children) | st.dictionaries(TEXT, children),
    max_leaves=20,
)


def parsed(text: str | bytes, **options: int) -> object:
    data = text if isinstance(text, bytes) else text.encode()
    return parse(data, name="the header", limits=DEFAULT_LIMITS, **options)


@given(VALUES)
def test_what_json_writes_comes_back(value: object) -> None:
    assert parsed(json.dumps(value), max_depth=1000) == value
    assert parsed(json.dumps(value, ensure_ascii=False), max_depth=1000) == value


@pytest.mark.parametrize(
    "text",
    [
        '{"a": 1, "a": 2}',
        '[{"a": {"b": 1, "b": 1}}]',
        '{"a": NaN}',
        '{"a": -Infinity}',
        '{"a": ' + "9" * 65 + "}",
        '{"a": 1',
        '{"a": 1}}',
        '"unterminated',
        '"half a pair \\ud800"',
        b'"\xff"',
        b"\xff\xfe{\x00}\x00",
        "",
        "{}{}",
    ],
)
def test_text_with_no_or_two_meanings_is_refused(text: str | bytes) -> None:
    with pytest.raises(FormatError, match=r"header-invalid.*the header is not valid JSON"):
        parsed(text)


def test_the_name_that_stands_twice_is_told() -> None:
    with pytest.raises(FormatError, match=r"the name 'conv1.weight' stands twice"):
        parsed('{"x": 0, "conv1.weight": 1, "conv1.weight": 2}')


def test_depth_counts_brackets_of_both_kinds() -> None:
    assert parsed('{"a": [[1], {}]}', max_depth=3) == {"a": [[1], {}]}
    with pytest.raises(FormatError, match=r"nested deeper than 2 levels"):
        parsed('{"a": [[1], {}]}', max_depth=2)


def test_brackets_in_text_do_not_count() -> None:
    value = {"a": "[[[[{{{{", 'b "quoted" [[[[ \\': "]}"}
    assert parsed(json.dumps(value), max_depth=1) == value


@pytest.mark.parametrize(
    "text",
    ["[" * 1_000_000, "[" * 500_000 + "]" * 500_000, '{"a":' * 200_000, '"' + '\\"' * 500_000, '"' * 500_001],
    ids=["opening", "nested", "objects", "escapes", "quotes"],
)
def test_a_megabyte_of_brackets_or_quotes_is_refused_at_once(text: str) -> None:
    start = time.perf_counter()
    with pytest.raises(FormatError):
        parsed(text)
    assert time.perf_counter() - start < 2  # seconds; quadratic would take minutes


def test_text_longer_than_the_limit_is_not_parsed() -> None:
    with pytest.raises(LimitError, match=r"the header would need 11, the limit `header_nbytes` is 10"):
        parse(b"[1,2,3,4,5]", name="the header", limits=Limits(header_nbytes=10))
