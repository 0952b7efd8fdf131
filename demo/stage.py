"""What the demo is told with: commands and lines of Python, shown and really run, and claims that are checked."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import traceback
from typing import Any

WITHOUT_TORCH = """
import sys
sys.modules["torch"] = None  # an import of torch is an error from here on
from loadstone.cli import main
sys.exit(main(sys.argv[1:]))
"""


WIDTH = 100


class OffError(Exception):
    """Something the demo says is not so."""


def title(text: str) -> None:
    """Begin a step."""
    print(f"\n\n{text}\n{'─' * len(text)}", flush=True)


def say(text: str) -> None:
    """A sentence for the reader."""
    print(f"\n{textwrap.fill(' '.join(text.split()), WIDTH)}", flush=True)


def check(holds: bool, claim: str) -> None:
    """Print the claim if it holds, stop the demo if it does not."""
    if not holds:
        raise OffError(claim)
    print(f"✓ {claim}", flush=True)


def command(arguments: str, *, status: int = 0, without_torch: bool = False) -> str:
    """Show `loadstone ARGUMENTS`, run it, show and return what it prints; the exit status must be right."""
    print(f"\n$ loadstone {arguments}\n", flush=True)
    start = ["-c", WITHOUT_TORCH] if without_torch else ["-m", "loadstone"]
    done = subprocess.run(
        [sys.executable, *start, *arguments.split()],
        env={**os.environ, "COLUMNS": str(WIDTH)},
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    print(done.stdout.strip("\n"), flush=True)
    if done.returncode != status:
        raise OffError(f"`loadstone {arguments}` ended with exit status {done.returncode} instead of {status}")
    return done.stdout


class Console:
    """Lines of Python that are shown with >>> and then run, in one namespace."""

    def __init__(self, **names: Any) -> None:
        self.names: dict[str, Any] = dict(names)

    def run(self, *lines: str) -> None:
        """Show and run some lines."""
        self._show(lines)
        exec(compile("\n".join(lines), "<demo>", "exec"), self.names)

    def refused(self, line: str, error: type[BaseException]) -> BaseException:
        """Show and run a line that must raise `error`; shows it as Python would, and returns it."""
        self._show((line,))
        try:
            exec(compile(line, "<demo>", "exec"), self.names)
        except error as raised:
            print("".join(traceback.format_exception_only(raised)).rstrip(), flush=True)
            return raised
        raise OffError(f"`{line}` was not refused")

    @staticmethod
    def _show(lines: tuple[str, ...]) -> None:
        print("", *(f">>> {line}" for line in lines), sep="\n", flush=True)
