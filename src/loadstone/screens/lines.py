"""Lines of spans, and how they become text: plain, or with ANSI colour.

A span is (text, style).  `draw` is the only way out, and it makes every span visible first, so that nothing from a
file can reach a terminal as a command.  Colour adds nothing that the words and signs do not say.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, TypeAlias

from loadstone.screens.text import visible

Style = Literal["", "strong", "dim", "error", "warning", "note", "good", "key", "code"]
Span: TypeAlias = tuple[str, Style]
Line: TypeAlias = tuple[Span, ...]

# SGR codes: the eight basic colours, which every theme keeps readable
_CODES: dict[Style, str] = {
    "strong": "1",
    "dim": "2",
    "error": "1;31",
    "warning": "1;33",
    "note": "1;36",
    "good": "1;32",
    "key": "36",
    "code": "32",
}

EMPTY: Line = ()


def line(*parts: Span | str) -> Line:
    """A line from spans; a bare string is a span without style."""
    return tuple((part, "") if isinstance(part, str) else part for part in parts)


def indented(by: int, content: Line) -> Line:
    """The line, moved to the right."""
    return ((" " * by, ""), *content) if content else content


def draw(lines: Iterable[Line], *, color: bool = False) -> str:
    """The lines as text; each ends with a newline and has no trailing spaces."""
    return "".join(_draw_line(spans, color) + "\n" for spans in lines)


def _draw_line(spans: Line, color: bool) -> str:
    texts = [visible(text) for text, _ in spans]
    while texts and not texts[-1].strip(" "):
        texts.pop()
    if texts:
        texts[-1] = texts[-1].rstrip(" ")
    if not color:
        return "".join(texts)
    return "".join(_painted(text, style) for text, (_, style) in zip(texts, spans, strict=False))


def _painted(text: str, style: Style) -> str:
    code = _CODES.get(style)
    return f"\x1b[{code}m{text}\x1b[0m" if code and text else text
