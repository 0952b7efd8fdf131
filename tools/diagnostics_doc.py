"""Write docs/reference/diagnostics.md from the catalog; `--check` only says whether it is up to date."""

from __future__ import annotations

import sys
from pathlib import Path

from loadstone.catalog import CATALOG

PAGE = Path(__file__).resolve().parent.parent / "docs" / "reference" / "diagnostics.md"

HEAD = """# Diagnostics

Every finding has a code. The same page, one code at a time: `loadstone explain CODE`.
An *error* stops a load before anything is written; a *warning* and a *note* do not.

<!-- Written by `make docs` from src/loadstone/catalog.py. -->
"""


def text() -> str:
    """The page: an index, then a section a code."""
    index = ["| code | | |", "| --- | --- | --- |"]
    index += [f"| [`{each.code}`](#{each.code}) | {each.severity} | {each.title} |" for each in CATALOG.values()]
    sections = [
        f"## {each.code}\n\n*{each.severity}*: {each.title}.\n\n{each.meaning}\n\n{each.advice}"
        for each in CATALOG.values()
    ]
    return "\n".join([HEAD, *index, "", "\n\n".join(sections), ""])


def main(arguments: list[str]) -> int:
    """Write, or compare."""
    if arguments == ["--check"]:
        return 0 if PAGE.read_text(encoding="utf-8") == text() else 1
    PAGE.write_text(text(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
