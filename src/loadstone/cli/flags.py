"""Fixes in the words of the command line: what is `fresh=["fc"]` in Python is `--fresh fc` here."""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterable, Iterator
from dataclasses import replace

from loadstone.errors import Diagnostic, Fix

_OPTION = re.compile(r"(?P<name>fresh|drop|only|rename|adapt|weights|dtype|match|answers)=(?P<value>.+)", re.DOTALL)
_LONGEST = 2000  # characters of a fix; the longest written by a plan has a few hundred


def with_flags(diagnostics: Iterable[Diagnostic]) -> tuple[Diagnostic, ...]:
    """The same findings, their fixes ready to be pasted behind the command."""
    return tuple(replace(found, fixes=tuple(map(_with_flags, found.fixes))) for found in diagnostics)


def _with_flags(fix: Fix) -> Fix:
    match = _OPTION.fullmatch(fix.paste)
    if match is None or len(fix.paste) > _LONGEST:
        return fix
    try:
        words = list(_words(match["name"], ast.literal_eval(match["value"])))
    except (ValueError, SyntaxError):
        return fix  # a callable: only Python can say that
    return replace(fix, paste=shlex.join(words))


def _words(name: str, value: object) -> Iterator[str]:
    """`--fresh fc --fresh aux`, `--rename '^a\\.=b.'`; ValueError for what the command line cannot say."""
    name = "answer" if name == "answers" else name
    match value:
        case str():
            yield from (f"--{name}", value)
        case list() if all(isinstance(item, str) for item in value):
            for item in value:
                yield from (f"--{name}", item)
        case dict() if all(isinstance(text, str) and "=" not in text for text in value.values()):
            for left, right in value.items():
                yield from (f"--{name}", f"{left}={right}")
        case _:
            raise ValueError(name)
