"""The header of a .npy array: what it claims, parsed without evaluating it.

The header is the text of a Python dict.  numpy hands it to `ast.literal_eval`, which takes memory and stack for
whatever stands there; here it is read by a grammar of its own, with a limit on length and depth.

Format: https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from math import prod

from loadstone.errors import Diagnostic, FormatError
from loadstone.tensors import MAX_INT64
from loadstone.values import Value

MAGIC = b"\x93NUMPY"
_LENGTH_NBYTES = {1: 2, 2: 4, 3: 4}  # of the header's length, by major version
_MAX_HEADER_NBYTES = 65_535
_MAX_DEPTH = 16
_SCALAR = re.compile(r"[<>=|][a-zA-Z?]\d{0,9}(\[[^\]]{0,20}\])?")

_TOKEN = re.compile(
    r"""\s*(?:(?P<text>[bu]?(?:'[^'\\]*(?:\\.[^'\\]*)*'|"[^"\\]*(?:\\.[^"\\]*)*"))"""
    r"""|(?P<number>\d{1,20})L?|(?P<word>True|False|None)|(?P<sign>[\[\](){}:,]))"""
)
_WORDS = {"True": True, "False": False, "None": None}
_CLOSING = {"(": ")", "[": "]", "{": "}"}


@dataclass(frozen=True, slots=True)
class NpyHeader:
    """What the header says.  `descr` is numpy's text for a plain dtype ("<f4"), a list for one with fields."""

    descr: str | list[Value]
    is_fortran_order: bool
    shape: tuple[int, ...]
    nbytes: int  # of magic, version, length and text: where the data starts

    @property
    def has_objects(self) -> bool:
        """The data is a pickle: numpy writes arrays of Python objects like that."""
        return _has_objects(self.descr)


def read_header(first: Callable[[int], bytes], name: str) -> NpyHeader:
    """The header of the array `name`; `first(n)` gives its first n bytes, or raises where there are fewer.

    Raises FormatError ("header-invalid") for anything but the three keys that numpy writes, with values of their kind,
    ("unsupported-feature") for an unknown version.
    """
    start = first(12)
    if not start.startswith(MAGIC):
        raise _invalid(name, "it does not start with numpy's magic number")
    length_nbytes = _LENGTH_NBYTES.get(start[6])
    if length_nbytes is None:
        raise FormatError(Diagnostic("unsupported-feature", f"`{name}` is npy version {start[6]}, not 1, 2 or 3"))
    text_nbytes = int.from_bytes(start[8 : 8 + length_nbytes], "little")
    if text_nbytes > _MAX_HEADER_NBYTES:
        raise _invalid(name, f"it claims {text_nbytes:,} bytes, the limit is {_MAX_HEADER_NBYTES:,}")
    nbytes = 8 + length_nbytes + text_nbytes
    try:
        text = first(nbytes)[8 + length_nbytes :].decode("utf-8" if start[6] == 3 else "latin-1")
    except UnicodeDecodeError as error:
        raise _invalid(name, "it is not UTF-8") from error
    claims = _Literal(text, name).whole()
    if not isinstance(claims, dict) or sorted(claims) != ["descr", "fortran_order", "shape"]:
        raise _invalid(name, "it is no dict of `descr`, `fortran_order` and `shape`")
    descr, order, shape = claims["descr"], claims["fortran_order"], claims["shape"]
    if type(order) is not bool or not (isinstance(descr, list) or _is_scalar(descr)):
        raise _invalid(name, f"dtype {descr!r:.60}, fortran order {order!r:.20}")
    if not isinstance(shape, tuple) or not all(type(size) is int and size <= MAX_INT64 for size in shape):
        raise _invalid(name, f"the shape is {shape!r:.80}")
    if prod(size or 1 for size in shape) > MAX_INT64:  # strides count an empty dimension as 1
        raise _invalid(name, f"the shape {shape!r:.80} has more than 2^63 elements")
    return NpyHeader(descr, order, shape, nbytes)


def _is_scalar(descr: Value) -> bool:
    return isinstance(descr, str) and _SCALAR.fullmatch(descr) is not None


def _has_objects(descr: Value) -> bool:
    if isinstance(descr, str):
        return descr.lstrip("<>=|").startswith("O")
    return isinstance(descr, list | tuple) and any(_has_objects(item) for item in descr)


class _Literal:
    """A text of str, int, bool, None, tuple, list and dict, by recursive descent."""

    def __init__(self, text: str, name: str) -> None:
        self._text = text.rstrip()
        self._name = name
        self._position = 0

    def whole(self) -> Value:
        """The one value that the text consists of."""
        value = self._value(self._token(), _MAX_DEPTH)
        if self._position != len(self._text):
            raise _invalid(self._name, "text follows the dict")
        return value

    def _token(self) -> re.Match[str]:
        match = _TOKEN.match(self._text, self._position)
        if match is None:
            raise _invalid(self._name, f"{self._text[self._position : self._position + 30]!r} is no literal")
        self._position = match.end()
        return match

    def _value(self, token: re.Match[str], depth: int) -> Value:
        if token["text"] is not None:
            return token["text"].lstrip("bu")[1:-1]
        if token["number"] is not None:
            return int(token["number"])
        if token["word"] is not None:
            return _WORDS[token["word"]]
        if token["sign"] not in _CLOSING or depth == 0:
            raise _invalid(self._name, f"an unexpected {token['sign']!r}")
        return self._items(token["sign"], depth - 1)

    def _items(self, opening: str, depth: int) -> Value:
        """What stands up to the closing bracket: a list, a tuple (or the one value in parentheses) or a dict."""
        items: list[Value] = []
        has_comma = False
        while (token := self._token())["sign"] != _CLOSING[opening]:
            item = self._value(token, depth)
            if opening == "{":
                self._expect(self._token(), ":")
                item = (item, self._value(self._token(), depth))
            items.append(item)
            token = self._token()
            if token["sign"] == _CLOSING[opening]:
                break
            self._expect(token, ",")
            has_comma = True
        if opening == "[":
            return items
        if opening == "(":
            return tuple(items) if has_comma or not items else items[0]
        if not all(isinstance(key, str) for key, _ in items) or len(dict(items)) != len(items):
            raise _invalid(self._name, "a key stands twice, or is no text")
        return dict(items)

    def _expect(self, token: re.Match[str], sign: str) -> None:
        if token["sign"] != sign:
            raise _invalid(self._name, f"{token[0].strip()!r:.30} stands where {sign!r} should be")


def _invalid(name: str, why: str) -> FormatError:
    return FormatError(Diagnostic("header-invalid", f"the npy header of `{name}` is invalid: {why}"))
