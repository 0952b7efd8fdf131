"""What the demo is told with: commands and lines of Python, shown and really run, and claims that are checked."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import traceback
from pathlib import Path
from typing import Any

WITHOUT_TORCH = """
import sys
sys.modules["torch"] = None  # an import of torch is an error from here on
from loadstone.cli import main
sys.exit(main(sys.argv[1:]))
"""


class OffError(Exception):
    """Something the demo says is not so."""


def title(text: str) -> None:
    """Begin a step."""
    print(f"\n\n{text}\n{'─' * len(text)}", flush=True)


def say(text: str) -> None:
    """A sentence for the reader."""
    print(f"\n{textwrap.fill(textwrap.dedent(text).strip(), 100)}", flush=True)


def check(holds: bool, claim: str) -> None:
    """Print the claim if it holds, stop the demo if it does not."""
    if not holds:
        raise OffError(claim)
    print(f"  ✓ {claim}", flush=True)


def command(arguments: str, *, folder: Path, status: int = 0, without_torch: bool = False) -> str:
    """Show `loadstone ARGUMENTS`, run it in `folder`, show and return what it prints; the exit status must be right."""
    print(f"\n$ loadstone {arguments}\n", flush=True)
    start = ["-c", WITHOUT_TORCH] if without_torch else ["-m", "loadstone"]
    done = subprocess.run(
        [sys.executable, *start, *arguments.split()],
        cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    print(textwrap.indent(done.stdout.strip("\n"), "  ", lambda line: bool(line.strip())), flush=True)
    if done.returncode != status:
        raise OffError(f"`loadstone {arguments}` ended with exit status {done.returncode} instead of {status}")
    return done.stdout


class Console:
    """Lines of Python that are shown with >>> and then run, in one namespace."""

    def __init__(self, **names: Any) -> None:
        self.names: dict[str, Any] = dict(names)

    def run(self, source: str) -> None:
        """Show and run some statements."""
        source = self._show(source)
        exec(compile(source, "<demo>", "exec"), self.names)

    def refused(self, source: str, error: type[BaseException]) -> BaseException:
        """Show and run statements that must raise `error`; shows it as Python would, and returns it."""
        source = self._show(source)
        try:
            exec(compile(source, "<demo>", "exec"), self.names)
        except error as raised:
            text = "".join(traceback.format_exception_only(raised)).rstrip()
            print("\n" + textwrap.indent(text, "  ", lambda line: bool(line.strip())), flush=True)
            return raised
        raise OffError(f"`{source}` was not refused")

    @staticmethod
    def _show(source: str) -> str:
        source = textwrap.dedent(source).strip()
        print("\n" + textwrap.indent(source, ">>> "), flush=True)
        return source
