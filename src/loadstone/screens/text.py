"""Text from a file before it meets a terminal: made harmless, measured in cells, cut to fit.

A key can hold escape sequences that recolour, move or rename the terminal, newlines that forge a line of output, and
direction marks that show `gpj.exe` as `exe.jpg`.  `visible` turns each into the escape that Python would print.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

ELLIPSIS = "…"
_BREAKS = re.compile(r"(?<!×) (?!×)")
_LONGEST = 4000  # characters of one text that are looked at; a key can be megabytes long


def visible(text: str) -> str:
    r"""The text with everything that is not a visible character (or a plain space) as an escape, `\x1b` or `\u202e`.

    Controls, newlines, direction marks, zero-width and unassigned characters and lone surrogates are escaped.
    Applying it twice changes nothing.
    """
    if len(text) > _LONGEST:
        text = text[: _LONGEST // 2] + ELLIPSIS + text[-_LONGEST // 2 :]
    if text.isprintable():
        return text
    return "".join(character if character.isprintable() else _escape(character) for character in text)


def _escape(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


def cells(text: str) -> int:
    """Columns of a terminal that a visible text takes: two for a wide character, none for a combining one."""
    if text.isascii():
        return len(text)
    return sum(_cells_of(character) for character in text)


def _cells_of(character: str) -> int:
    if unicodedata.combining(character) or unicodedata.category(character) in ("Mn", "Me"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def cut_middle(text: str, width: int) -> str:
    """At most `width` cells, with `…` for a missing middle: the end of a key tells more than its middle."""
    if cells(text) <= width:
        return text
    room = max(width - 1, 0)
    head = room * 2 // 5
    return _first(text, head) + ELLIPSIS + _last(text, room - head)


def cut_key(text: str, width: int) -> str:
    """A folded key in at most `width` cells: its last names give way first, `{weight,bias,…}`, then its middle."""
    start = text.rfind("{")
    if cells(text) <= width or start < 0 or not text.endswith("}"):
        return cut_middle(text, width)
    names = text[start + 1 : -1].split(",")
    while len(names) > 1:
        names.pop()
        shorter = f"{text[:start]}{{{','.join(names)},…}}"
        if cells(shorter) <= width:
            return shorter
    return cut_middle(text, width)


def cut_end(text: str, width: int) -> str:
    """At most `width` cells, with `…` for a missing end."""
    return text if cells(text) <= width else _first(text, max(width - 1, 0)) + ELLIPSIS


def _first(text: str, width: int) -> str:
    for place, character in enumerate(text):
        width -= _cells_of(character)
        if width < 0:
            return text[:place]
    return text


def _last(text: str, width: int) -> str:
    for place in range(len(text) - 1, -1, -1):
        width -= _cells_of(text[place])
        if width < 0:
            return text[place + 1 :]
    return text


def wrap(text: str, width: int) -> list[str]:
    """Lines of at most `width` cells, broken at spaces but never inside a shape; a longer word keeps its own line."""
    return wrap_words(_BREAKS.split(text), width, " ")


def wrap_words(words: Sequence[str], width: int, between: str) -> list[str]:
    """Words, or facts that stay whole, on as few lines of at most `width` cells as they need."""
    lines: list[str] = []
    line = None
    for word in words:
        if line is not None and cells(line) + cells(between) + cells(word) > width:
            lines.append(line)
            line = None
        line = word if line is None else line + between + word
    return lines if line is None else [*lines, line]


# What each drawn sign becomes where the output cannot carry it.
_ASCII = str.maketrans(
    {
        "×": "x", "·": ".", "…": "...", "→": "->", "⤨": "~", "∅": "-", "│": "|", "├": "|", "└": "`", "─": "-",
        "█": "#", "▉": "#", "▊": "#", "▋": "#", "▌": "#", "▍": "#", "▎": "#", "▏": "|", "✓": "ok", "✗": "no",
        "–": "-", "−": "-", "’": "'",
    }
)  # fmt: skip


def ascii_only(text: str) -> str:
    """The same text for an output without Unicode: drawn signs as ASCII, anything else as an escape."""
    return text.translate(_ASCII).encode("ascii", "backslashreplace").decode("ascii")
