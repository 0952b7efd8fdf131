"""The documentation says what is so: its examples run, its links lead somewhere, and it names what there is."""

from __future__ import annotations

import difflib
import importlib.util
import inspect
import re
from pathlib import Path

import click
import pytest

import loadstone
from loadstone.catalog import CATALOG

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"


def tool(name: str):
    """A script of tools/ as a module."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "tools" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


doc_pages = tool("doc_pages")
PAGES = {str(path.relative_to(ROOT)): path.read_text(encoding="utf-8") for path in doc_pages.PAGES}


def anchors(page: str) -> set[str]:
    """The anchors that the headings of a page get."""
    titles = re.findall(r"^#+ (.+)$", page, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}


@pytest.mark.parametrize("name", [name for name, page in PAGES.items() if doc_pages.BLOCK.search(page)])
def test_what_a_page_shows_is_what_happens(name, tmp_path):
    now = doc_pages.rendered(PAGES[name], tmp_path)
    changes = difflib.unified_diff(PAGES[name].splitlines(), now.splitlines(), name, "now", lineterm="")
    assert now == PAGES[name], "\n".join([*changes, "", "if that is meant: make docs"])


@pytest.mark.parametrize("name", PAGES)
def test_links_lead_somewhere(name):
    for target in re.findall(r"\]\(([^)\s]+)\)", PAGES[name]):
        if target.startswith(("http://", "https://")):
            continue
        path, _, anchor = target.partition("#")
        file = (ROOT / name).parent / path if path else ROOT / name
        assert file.exists(), target
        if anchor:
            assert anchor in anchors(file.read_text(encoding="utf-8")), target


def test_every_page_can_be_reached_from_the_readme():
    reached, new = set(), {ROOT / "README.md"}
    while new:
        page = new.pop()
        reached.add(page)
        targets = re.findall(r"\]\(([^)#\s]+\.md)", page.read_text(encoding="utf-8"))
        new |= {(page.parent / target).resolve() for target in targets if "://" not in target} - reached
    assert {path.resolve() for path in doc_pages.PAGES} - reached == set()


def test_diagnostics_page_is_the_catalog():
    page = PAGES["docs/reference/diagnostics.md"]
    assert page == tool("diagnostics_doc").text(), "make docs"
    assert set(re.findall(r"^## (\S+)$", page, re.MULTILINE)) == CATALOG.keys()


def test_every_public_name_is_in_the_reference():
    page = PAGES["docs/reference/python.md"]
    assert [name for name in loadstone.__all__ if f"`{name}`" not in page] == []


def test_every_heading_of_the_reference_is_a_public_name():
    named = set(re.findall(r"^### (.+)$", PAGES["docs/reference/python.md"], re.MULTILINE))
    names = {name for heading in named for name in re.findall(r"`(\w+)`", heading)}
    assert names - set(loadstone.__all__) == set()


def test_the_options_of_the_reference_are_those_of_plan():
    section = PAGES["docs/reference/python.md"].split("## Options")[1].split("\n## ")[0]
    first_cells = re.findall(r"^\| (`.+?) \|", section, re.MULTILINE)
    named = {name for cell in first_cells for name in re.findall(r"`(\w+)=", cell)}
    assert named == set(inspect.signature(loadstone.plan).parameters) - {"model", "source"}


def test_every_attribute_of_the_reference_exists():
    sections = re.findall(r"^### `([A-Z]\w+)`(.*?)(?=^##)", PAGES["docs/reference/python.md"], re.MULTILINE | re.DOTALL)
    named = {(cls, name) for cls, text in sections for name in re.findall(r"`\.(\w+)", text)}
    assert ("Plan", "apply") in named
    assert [(cls, name) for cls, name in sorted(named) if not hasattr(getattr(loadstone, cls), name)] == []


def test_every_error_of_the_reference_exists():
    rows = re.findall(r"^\| `(\w+Error)` \|", PAGES["docs/reference/python.md"], re.MULTILINE)
    assert rows
    assert [name for name in rows if not issubclass(getattr(loadstone, name), loadstone.LoadstoneError)] == []


def every_command() -> dict[str, click.Command]:
    """Every command by the words that call it: "plan", "git setup"."""
    from loadstone.cli.commands import commands

    found = dict(commands.commands)
    for name, group in commands.commands.items():
        if isinstance(group, click.Group):
            found |= {f"{name} {inner}": command for inner, command in group.commands.items()}
            del found[name]
    return found


def test_every_command_and_option_is_in_the_reference():
    page = PAGES["docs/reference/command-line.md"]
    for name, command in every_command().items():
        assert f"## {name}" in page
        section = page.split(f"## {name}\n")[1].split("\n## ")[0]
        options = {text for each in command.params for text in each.opts if text.startswith("--")}
        assert [each for each in sorted(options) if f"`{each}" not in section] == [], name


def test_the_reference_has_no_option_that_is_not_there():
    page = PAGES["docs/reference/command-line.md"]
    there = {text for each in every_command().values() for option in each.params for text in option.opts}
    assert set(re.findall(r"`(--[\w-]+)", page)) - there <= {"--help", "--version"}
