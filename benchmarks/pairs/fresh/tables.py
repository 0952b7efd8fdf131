"""Names as text: what an implementation calls each part of a network, a line a part.

    transformer.h.#.attn.c_attn.@     T|#.{q,k,v}.@

On the left the key, on the right the parts that it holds: `#` is a number, `@` the last word of a key, `{q,k,v}` a
join, `#+1` a number counted otherwise, `?part` one that may be absent (zeros), and `T|` says how it is stored (see
the folder's oracle.py).  Two such tables of one network say which tensor is which; and a hand-written network is
built from one (written.py), so that its names are said once.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from oracle import Canon  # type: ignore[import-not-found]  # the folder's own

_MARK = re.compile(r"#([+-]\d+)?|@")
_JOIN = re.compile(r"\{([^}]*)\}")


@dataclass(frozen=True, slots=True)
class Line:
    """One kind of key and the parts that it holds."""

    key: str
    ops: str  # as in the oracle, comma-separated
    parts: tuple[str, ...]


def lines(text: str) -> Iterator[Line]:
    for line in filter(None, map(str.strip, text.splitlines())):
        key, right = line.split(maxsplit=1)
        ops, _, right = right.rpartition("|")
        pieces = [each.split(",") if n % 2 else [each] for n, each in enumerate(_JOIN.split(right.strip()))]
        yield Line(key, ops.strip(), tuple(map("".join, itertools.product(*pieces))))


def table(text: str, drop: tuple[str, ...] = ()) -> Canon:
    """The same for the folder's oracle."""
    return Canon([_rule(line) for line in lines(text)], drop)


def _rule(line: Line) -> tuple[str, Callable[[re.Match[str]], str | None]]:
    marks = _MARK.findall(line.key), [mark[0][0] for mark in _MARK.finditer(line.key)]
    pattern = re.escape(line.key).replace(r"\#", r"(\d+)").replace("@", r"(\w+)")

    def parts(found: re.Match[str]) -> str | None:
        if line.parts == ("-",):
            return None
        numbers = [value for value, mark in zip(found.groups(), marks[1], strict=True) if mark == "#"]
        words = [value for value, mark in zip(found.groups(), marks[1], strict=True) if mark == "@"]
        filled = "+".join(_filled(part, numbers, words) for part in line.parts)
        return f"{line.ops}|{filled}" if line.ops else filled

    return pattern, parts


def _filled(part: str, numbers: list[str], words: list[str]) -> str:
    left = {"#": iter(numbers), "@": iter(words)}

    def fill(mark: re.Match[str]) -> str:
        value = next(left[mark[0][0]])
        return str(int(value) + int(mark[1])) if mark[1] else value

    optional = "?" * ("?" in part)
    return optional + _MARK.sub(fill, part.replace("?", ""))
