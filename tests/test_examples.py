"""Every file of examples/ runs as it stands, prints what examples/README.md says, and begins with what it is about.

Importing torchvision takes longer than any example, so one process imports it and forks for each of them.
"""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
FILES = {path.name: path.read_text(encoding="utf-8") for path in sorted(EXAMPLES.glob("*.py"))}
README = (EXAMPLES / "README.md").read_text(encoding="utf-8")
ROWS = dict(re.findall(r"^\| .+ \| \[.+\]\((.+\.py)\) \| `+(.+?)`+ \|$", README, re.MULTILINE))  # file: what it prints
WARM = """
import gc, os, runpy, signal, sys
import torchvision

gc.freeze()  # a child that looks at these objects would copy their pages

for line in sys.stdin:
    example, output = line.rstrip("\\n").split("\\t")
    child = os.fork()
    if not child:
        with open(output, "w") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        signal.alarm(120)
        runpy.run_path(example, run_name="__main__")
        sys.exit()
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


@pytest.fixture(scope="module")
def warm(tmp_path_factory):
    """A process with torchvision in it that runs the example it is told of in a child; warnings are errors there."""
    temporary, here = tmp_path_factory.mktemp("temporary"), tmp_path_factory.mktemp("here")
    process = subprocess.Popen(
        [sys.executable, "-W", "error", "-c", WARM],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=here,
        env={**os.environ, "TMPDIR": str(temporary), "PYTHONUTF8": "1"},
    )
    with process:
        yield process, temporary, here
        process.stdin.close()


@pytest.mark.parametrize("name", FILES)
def test_an_example_runs_and_prints_what_the_table_says(name, warm, tmp_path):
    process, temporary, here = warm
    print(EXAMPLES / name, tmp_path / "output", sep="\t", file=process.stdin, flush=True)
    status = process.stdout.readline().strip()
    output = (tmp_path / "output").read_text(encoding="utf-8")
    assert status == "0", output
    assert ROWS[name] in output
    assert [*temporary.glob("tmp*"), *here.iterdir()] == [], "left behind"  # torch keeps a cache in the first


@pytest.mark.parametrize("name", FILES)
def test_an_example_says_what_it_is_about_and_checks_that_it_worked(name):
    tree = ast.parse(FILES[name])
    assert ast.get_docstring(tree)
    assert any(isinstance(node, ast.Assert) for node in ast.walk(tree))
    assert len(FILES[name].splitlines()) <= 60, "short enough to be read at once"


def test_the_table_lists_the_examples_that_there_are():
    assert ROWS.keys() == FILES.keys()


def test_no_example_needs_a_network_or_turns_a_check_off():
    said = {name: re.sub(r'^""".*?"""', "", text, flags=re.DOTALL) for name, text in FILES.items()}
    trap = re.compile(r"strict=False|weights_only|https?://(?!127\.0\.0\.1)|load_state_dict_from_url")
    assert [name for name, text in said.items() if trap.search(text)] == []
