"""The house stays as it is drawn: floors, what may be imported where, sizes of files, the catalog, the requirements."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from importlinter.cli import lint_imports

from loadstone.catalog import CATALOG

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "src" / "loadstone"
FILES = {str(file.relative_to(PACKAGE)): file.read_text(encoding="utf-8") for file in sorted(PACKAGE.rglob("*.py"))}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))

LONGEST = 400  # lines; a file that is longer gives its reason here
LONGER: dict[str, str] = {"catalog.py": "one literal, a row a code"}
DRAWERS = {"utils", "util", "helpers", "common", "misc"}
MAY_IMPORT = {  # package: the only places that may import it, also inside a function
    "torch": ("as_torch.py", "model/", "training/", "cli/target.py"),  # the command line builds a model on meta
    "torchvision": (),
    "safetensors": ("model/",),
    "importlib": ("__init__.py", "formats/", "cli/"),  # names from a literal, or typed by a person
    "pickle": ("model/saving/pickled.py",),  # it writes; nothing is ever unpickled
    "_pickle": (),
    "marshal": (),
    "shelve": (),
    "runpy": (),
}
SLOW_TO_IMPORT = {"torch", "numpy", "rich", "safetensors", "asyncio", "multiprocessing"}


@cache
def tree(name: str) -> ast.Module:
    return ast.parse(FILES[name])


def imported(node: ast.AST) -> Iterator[str]:
    """Top-level packages that are imported at run time: not under `if TYPE_CHECKING`."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            continue
        if isinstance(child, ast.Import):
            yield from (alias.name.split(".")[0] for alias in child.names)
        elif isinstance(child, ast.ImportFrom) and child.module:
            yield child.module.split(".")[0]
        yield from imported(child)


def called(name: str) -> set[str]:
    """Names of the functions that a file calls by their bare name."""
    return {
        node.func.id for node in ast.walk(tree(name)) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    }


def texts(name: str) -> set[str]:
    """The strings in a file."""
    return {node.value for node in ast.walk(tree(name)) if isinstance(node, ast.Constant) and type(node.value) is str}


def lines(name: str) -> int:
    return len(FILES[name].splitlines())


def test_imports_go_downward_and_never_in_a_circle(monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    assert lint_imports(no_cache=True) == 0, capsys.readouterr().out


def floors() -> list[str]:
    """Names of the modules and packages in the contract, from the top."""
    layers = PROJECT["tool"]["importlinter"]["contracts"][0]["layers"]
    return [name.strip().removeprefix("loadstone.") for layer in layers for name in layer.split("|")]


def test_every_module_stands_on_a_floor():
    assert {name.split("/")[0].removesuffix(".py") for name in FILES} - {"__init__"} <= set(floors())


def test_the_picture_in_the_documentation_is_the_contract():
    page = (ROOT / "docs" / "explanation" / "architecture.md").read_text(encoding="utf-8")
    picture = page.split("## Floors")[1].split("```text\n")[1].split("```")[0]
    rows = [line[:24].split() for line in picture.splitlines()]
    assert [name.rstrip("/").removesuffix(".py") for row in rows for name in row] == floors()


@pytest.mark.parametrize(("package", "places"), MAY_IMPORT.items(), ids=MAY_IMPORT)
def test_a_package_is_imported_only_where_it_belongs(package, places):
    importers = [name for name in FILES if package in set(imported(tree(name)))]
    assert [name for name in importers if not name.startswith(places or ("-",))] == []


def test_no_text_is_run_as_code():
    assert [name for name in FILES if called(name) & {"eval", "exec", "compile", "__import__"}] == []


@pytest.mark.parametrize("module", ["loadstone", "loadstone.cli"])
def test_importing_is_cheap(module):
    program = f"import sys, {module}; print(*(set(sys.modules) & {SLOW_TO_IMPORT!r}))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_files_stay_small():
    assert [name for name in FILES if lines(name) > LONGEST and name not in LONGER] == []


def test_an_exception_that_is_not_needed_is_taken_back():
    assert [name for name in LONGER if lines(name) <= LONGEST] == []


def test_the_usual_file_is_smaller_still():
    sizes = sorted(lines(name) for name in FILES if FILES[name])
    assert sizes[len(sizes) // 2] <= 250


def test_no_file_is_a_drawer():
    assert [name for name in FILES if DRAWERS & {part.strip("_") for part in Path(name).with_suffix("").parts}] == []


def test_a_module_says_what_it_is_for():
    assert [name for name, text in FILES.items() if text and not ast.get_docstring(tree(name))] == []


def test_a_code_of_the_catalog_is_used():
    used = set().union(*(texts(name) for name in FILES if name != "catalog.py"))
    assert sorted(CATALOG.keys() - used) == []


def test_the_catalog_speaks_as_the_messages_do():
    for entry in CATALOG.values():
        assert not entry.title.endswith("."), entry.code
        assert entry.meaning.endswith("."), entry.code
        assert entry.advice.endswith("."), entry.code
        said = f"{entry.title} {entry.meaning} {entry.advice}".lower()
        assert [word for word in ("please", "failed to", "strict=false", "try again") if word in said] == [], entry.code


def test_the_environment_installs_what_the_package_declares():
    project = PROJECT["project"]
    wanted = set(project["dependencies"]) | set(project["optional-dependencies"]["torch"]) - {"torch>=2.6"}
    listed = (ROOT / "requirements" / "package.txt").read_text(encoding="utf-8").splitlines()
    assert {line for line in listed if line and not line.startswith("#")} == wanted
