"""Run what the documentation shows, and write down what it prints.

    python tools/doc_pages.py            run every page and rewrite the outputs in it

A page is Markdown with up to three kinds of blocks that are run, in order, in an empty folder, in one namespace:

- an HTML comment that begins with `setup`: Python that makes the files a page needs, not shown to the reader;
- a fence "python run", and what it prints in the fence "text" right after it, if it prints anything;
- a fence "console run": lines `$ loadstone …`, each followed by its output at 100 columns.

The tests run the pages too, and compare (tests/test_docs.py).
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
import sys
import tempfile
from pathlib import Path
from typing import Any

from loadstone.cli import main

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]

BLOCK = re.compile(
    r"^<!-- setup\n(?P<setup>.*?)^-->\n"
    r"|^```python run\n(?P<python>.*?)^```\n(?:\n```text\n.*?^```\n)?"
    r"|^```console run\n(?P<console>.*?)^```\n",
    re.DOTALL | re.MULTILINE,
)


def rendered(page: str, folder: Path) -> str:
    """The page with the outputs that its blocks have now; they are run in `folder`."""
    names: dict[str, Any] = {"__name__": "page"}

    def run(block: re.Match[str]) -> str:
        if block["setup"] is not None:
            printed(block["setup"], names)
            return block[0]
        if block["python"] is not None:
            output = printed(block["python"], names)
            shown = f"```python run\n{block['python']}```\n"
            return f"{shown}\n```text\n{output}```\n" if output else shown
        commands = [line for line in block["console"].splitlines() if line.startswith("$ ")]
        return "```console run\n" + "\n".join(f"{each}\n{answered(each)}" for each in commands) + "```\n"

    with contextlib.chdir(folder):
        return BLOCK.sub(run, page)


def printed(source: str, names: dict[str, Any]) -> str:
    """Run Python and return what it prints."""
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        exec(compile(source, "<documentation>", "exec"), names)
    return tidy(output.getvalue())


def answered(line: str) -> str:
    """Run `$ loadstone …` in this process and return what it prints, answer and hints."""
    program, *arguments = shlex.split(line.removeprefix("$ "))
    assert program == "loadstone", line
    os.environ |= {"COLUMNS": "100", "NO_COLOR": "1"}
    output = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True)  # screens ask for its encoding
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
        main(arguments)
    output.seek(0)
    return tidy(output.read())


def tidy(output: str) -> str:
    """No trailing spaces, no empty lines at the end."""
    text = "\n".join(line.rstrip() for line in output.strip("\n").splitlines())
    return f"{text}\n" if text else ""


def write() -> int:
    """Rewrite the pages; names those that changed."""
    for path in PAGES:
        before = path.read_text(encoding="utf-8")
        with tempfile.TemporaryDirectory() as folder:
            after = rendered(before, Path(folder))
        if after != before:
            path.write_text(after, encoding="utf-8")
            print(f"written: {path.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(write())
