"""The one sink: answers go to stdout, hints and errors to stderr; as text for people or as one JSON object."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import TextIO

import click

from loadstone.cli.flags import with_flags
from loadstone.errors import LoadstoneError
from loadstone.screens.diagnostic import render_error
from loadstone.screens.lines import EMPTY, Line, draw, line
from loadstone.screens.text import ascii_only, visible, wrap

SCHEMA_VERSION = 1
_WIDTHS = (60, 140)  # cells; a screen is not drawn narrower or wider
_USUAL_WIDTH = 100  # where nobody says
_PIECE = 32 * 1024  # characters
_NOBODY_READS = 141  # 128 + SIGPIPE, as a shell reports it


class Output:
    """Where a command says what it has to say."""

    def __init__(self, *, is_json: bool = False) -> None:
        self.is_json = is_json

    @property
    def width(self) -> int:
        """Cells of a line: the terminal's, or COLUMNS, or 100."""
        columns = shutil.get_terminal_size((_USUAL_WIDTH, 24)).columns
        return max(_WIDTHS[0], min(columns, _WIDTHS[1]))

    @property
    def color(self) -> bool:
        """Whether answers are coloured: on a terminal, unless NO_COLOR is set."""
        return _is_colored(sys.stdout)

    def answer(self, text: str) -> None:
        """A screen, for stdout."""
        _write(sys.stdout, text)

    def document(self, document: Mapping[str, object]) -> None:
        """One JSON object, for stdout.  It is ASCII, so that nothing in it can act on a terminal."""
        _write(sys.stdout, json.dumps({"schema_version": SCHEMA_VERSION, **document}, indent=2, allow_nan=False) + "\n")

    def hint(self, text: str) -> None:
        """One line of what to do next, for stderr; set off from the answer where a terminal shows both."""
        lines: list[Line] = [EMPTY] if sys.stdout.isatty() and sys.stderr.isatty() else []
        for number, part in enumerate(wrap(visible(text), self.width - 6)):
            lines.append(line("      " if number else ("hint: ", "dim"), part))
        _write(sys.stderr, draw(lines, color=_is_colored(sys.stderr)))

    def progress(self, text: str) -> AbstractContextManager[object]:
        """A spinner on stderr while something takes its time; nothing where stderr is no terminal."""
        if not sys.stderr.isatty() or self.is_json:
            return nullcontext()
        from rich.console import Console  # 40 ms, and only where somebody watches

        return Console(stderr=True).status(visible(text), spinner="dots")

    def error(self, error: LoadstoneError) -> None:
        """What is wrong, and what to do about it."""
        if self.is_json:
            self.document({"error": error_document(error)})
        else:
            _write(
                sys.stderr, render_error(with_flags(error.diagnostics), width=self.width, color=_is_colored(sys.stderr))
            )

    def misuse(self, error: click.ClickException) -> None:
        """A command line that was not understood."""
        if self.is_json:
            self.document({"error": {"code": "usage", "message": error.format_message(), "diagnostics": []}})
            return
        words = draw([line(("error[usage]", "error"), f": {error.format_message()}")], color=_is_colored(sys.stderr))
        context = getattr(error, "ctx", None)
        if context is not None:
            words += f"{context.get_usage()}\nhint: `{context.command_path} --help` shows the options and examples\n"
        _write(sys.stderr, words)

    def internal(self, error: Exception) -> None:
        """A defect of Loadstone itself, in one line."""
        text = f"{type(error).__name__}: {error}"
        if self.is_json:
            self.document({"error": {"code": "internal", "message": text, "diagnostics": []}})
        where = "this is a defect of Loadstone; report it with what LOADSTONE_DEBUG=1 shows"
        _write(sys.stderr, draw([line(("internal error", "error"), f": {text[:300]}"), line(where)]))


def error_document(error: LoadstoneError) -> dict[str, object]:
    """An error as plain values."""
    return {
        "code": error.code,
        "message": error.diagnostics[0].message,
        "diagnostics": [diagnostic.to_json() for diagnostic in error.diagnostics],
    }


def _is_colored(stream: TextIO) -> bool:
    """https://no-color.org: any value but an empty one switches colour off."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def _write(stream: TextIO, text: str) -> None:
    """Write it; in ASCII where the stream cannot carry the drawn signs.  Leaves where nobody reads any more."""
    try:
        text.encode(stream.encoding or "ascii")
    except UnicodeEncodeError:
        text = ascii_only(text)
    try:
        for start in range(0, len(text), _PIECE):  # one large write to a pipe may stop half way without an error
            stream.write(text[start : start + _PIECE])
        stream.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())  # for what the interpreter flushes on its way out
        raise SystemExit(_NOBODY_READS) from None
