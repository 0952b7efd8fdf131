"""The text operands of protocol 0 and the strings of Python 2, parsed without `eval`, and with every length bounded."""

from __future__ import annotations

import re

from loadstone.io.limits import Limits

_INTEGER = re.compile(rb"[+-]?[0-9]+")
_FLOAT = re.compile(rb"[+-]?(?:(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?|inf|nan)")
_ESCAPE = re.compile(rb"\\(x[0-9a-fA-F]{2}|[0-7]{1,3}|.|$)", re.DOTALL)
_MAX_FLOAT_CHARS = 1100  # the longest exact decimal of a double has 1,074 digits behind the point
_SINGLE_ESCAPES = {
    b"\n": b"",
    b"a": b"\a",
    b"b": b"\b",
    b"f": b"\f",
    b"n": b"\n",
    b"r": b"\r",
    b"t": b"\t",
    b"v": b"\v",
}


class BadOperandError(Exception):
    """An operand that is not what its opcode takes; the text says how, in the words of an error message."""


def shown(text: bytes) -> str:
    """Bytes of a file as they may stand in a message: short, ASCII, without control characters."""
    return ascii(text[:40].decode("latin-1")) + ("…" if len(text) > 40 else "")


def parse_integer(line: bytes, limits: Limits) -> int:
    """A decimal integer; other bases, blanks and underscores are refused, and so is one of too many digits."""
    if not _INTEGER.fullmatch(line):
        raise BadOperandError(f"has {shown(line)} for an integer")
    # a decimal digit takes log2(10)/8 = 0.415 bytes; counted before int(), whose time grows with the square
    limits.check("big_int_nbytes", len(line) * 5 // 12, f"an integer of {len(line):,} digits")
    try:
        return int(line)
    except ValueError:  # Python's own limit of 4,300 digits, where ours was raised
        raise BadOperandError(f"has an integer of {len(line):,} digits") from None


def parse_int_or_bool(line: bytes, limits: Limits) -> int | bool:
    """The operand of INT: `00` and `01` are False and True, as protocols 0 and 1 write them."""
    if line in (b"00", b"01"):
        return line == b"01"
    return parse_integer(line, limits)


def parse_index(line: bytes, limits: Limits) -> int:
    """The operand of GET and PUT: a place in the memo."""
    index = parse_integer(line, limits)
    if index < 0:
        raise BadOperandError(f"has the negative memo index {shown(line)}")
    return index


def parse_float(line: bytes) -> float:
    """The operand of FLOAT, as `repr` writes it."""
    if len(line) > _MAX_FLOAT_CHARS or not _FLOAT.fullmatch(line):
        raise BadOperandError(f"has {shown(line)} for a number")
    return float(line)


def parse_quoted(line: bytes) -> bytes:
    """The operand of STRING: quotes, and the escapes of a Python 2 string literal."""
    line = line.rstrip()
    if len(line) < 2 or line[:1] not in (b"'", b'"') or line[:1] != line[-1:]:
        raise BadOperandError(f"has {shown(line)} for a quoted string")
    return _ESCAPE.sub(_unescape, line[1:-1])


def _unescape(match: re.Match[bytes]) -> bytes:
    body = match[1]
    if body[:1] == b"x" and len(body) == 3:
        return bytes([int(body[1:], 16)])
    if body[:1].isdigit() and body[0] < 0x38:
        return bytes([int(body, 8) & 0xFF])
    if body in (b"", b"x"):
        raise BadOperandError("has a string that ends inside an escape")
    if body in (b"\\", b"'", b'"'):
        return body
    return _SINGLE_ESCAPES.get(body, match[0])


def python2_string(data: bytes) -> str | bytes:
    """A `str` of Python 2, which may be text or data: text where it is UTF-8, as `torch.load` takes it, else bytes."""
    try:
        return str(data, "utf-8")
    except UnicodeDecodeError:
        return data
