"""JSON from a file nobody vouches for: one meaning or an error.

RFC 8259 leaves open what a name that stands twice means, and how deep or how long things may be.  Two readers that
fill these gaps differently see two different files, so here they are errors.
"""

from __future__ import annotations

import json
import re

from loadstone.errors import Diagnostic, FormatError
from loadstone.io.limits import Limits

MAX_DIGITS = 64  # of one number; sizes need 19, and Python's own int() gives up at 4,300

# possessive, and an unterminated string matches to the end: linear in the input whatever it holds
_STRINGS = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)', re.DOTALL)
_LONG_NUMBER = re.compile(rb"[0-9]{%d}" % (MAX_DIGITS + 1))
_SURROGATE_ESCAPE = re.compile(r"\\u[dD][89a-fA-F]")
_BRACES_AS_BRACKETS = bytes.maketrans(b"{}", b"[]")
_NOT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))


def parse(data: bytes, *, name: str, limits: Limits, max_depth: int = 8, allow_nan: bool = False) -> object:
    """The value of a JSON text: dict, list, str, int, float, bool or None.

    Raises FormatError ("header-invalid") for text that is not UTF-8 or not JSON, a name that stands twice in an
    object, NaN and Infinity, numbers of more than 64 digits and nesting deeper than `max_depth`; LimitError for more
    bytes than `limits.header_nbytes`.  `name` is what messages call the text.  `allow_nan` takes the words NaN and
    Infinity, which Python writes for numbers that JSON has no word for: a loss in our own manifest.
    """
    limits.check("header_nbytes", len(data), name)
    outside_strings = _STRINGS.sub(b"", data)
    if _is_deeper(outside_strings, max_depth):
        raise invalid(name, f"nested deeper than {max_depth} levels, or its brackets do not match")
    if _LONG_NUMBER.search(outside_strings):
        raise invalid(name, f"a number of more than {MAX_DIGITS} digits")
    try:
        text = data.decode("utf-8")
        constants = float if allow_nan else _refuse_constant
        value: object = json.loads(text, object_pairs_hook=_unique, parse_constant=constants)
        if _SURROGATE_ESCAPE.search(text):
            json.dumps(value, ensure_ascii=False).encode()  # half a surrogate pair is no character
    except (ValueError, RecursionError) as error:  # JSONDecodeError and UnicodeError are ValueErrors
        raise invalid(name, str(error)) from error
    return value


def invalid(name: str, why: str) -> FormatError:
    """The error for a JSON text that cannot be accepted."""
    return FormatError(Diagnostic("header-invalid", f"{name} is not valid JSON: {why}"))


def _is_deeper(outside_strings: bytes, max_depth: int) -> bool:
    """Take the innermost brackets away, a level at a time; what is left after `max_depth` times lies deeper."""
    brackets = outside_strings.translate(_BRACES_AS_BRACKETS, _NOT_BRACKETS)
    for _ in range(max_depth):
        brackets = brackets.replace(b"[]", b"")
    return bool(brackets)


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    result = dict(pairs)
    if len(result) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"the name {twice!r:.80} stands twice")
    return result


def _refuse_constant(constant: str) -> object:
    raise ValueError(f"{constant} is no JSON number")
