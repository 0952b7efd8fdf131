"""The command line from outside: exit status, what goes where, and what never happens."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest

from loadstone.catalog import CATALOG
from loadstone.cli import main

BLOCK_TORCH = """
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "numpy", "rich"):
            raise AssertionError(f"{name} was imported")
sys.meta_path.insert(0, Block())
from loadstone.cli import main
sys.exit(main())
"""
CSI = re.compile(r"\x1b\[")


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty directory to work in, with a file of two tensors in it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("COLUMNS", raising=False)
    monkeypatch.setattr(sys, "path", [*sys.path])  # `--into` adds the current directory
    write_safetensors(tmp_path / "two.safetensors", {"fc.weight": (3, 4), "fc.bias": (3,)})
    return tmp_path


def write_safetensors(path: Path, shapes: dict[str, tuple[int, ...]]) -> None:
    header: dict[str, object] = {}
    position = 0
    for key, shape in shapes.items():
        nbytes = 4
        for size in shape:
            nbytes *= size
        header[key] = {"dtype": "F32", "shape": list(shape), "data_offsets": [position, position + nbytes]}
        position += nbytes
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + bytes(position))


def run(*words: str, **settings: object) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONIOENCODING": "utf-8", **settings.pop("env", {})}
    command = [sys.executable, "-m", "loadstone", *words]
    return subprocess.run(command, capture_output=True, text=True, encoding="utf-8", env=environment, **settings)


# --- inspect ----------------------------------------------------------------------------------------------------------


def test_inspect_answers_on_stdout_and_hints_on_stderr(here, capsys):
    assert main(["inspect", "two.safetensors"]) == 0
    out, err = capsys.readouterr()
    assert "fc.weight" in out
    assert "hint" not in out
    assert err.startswith("hint: ")


def test_inspect_imports_neither_torch_nor_numpy_nor_rich(here):
    done = subprocess.run(
        [sys.executable, "-c", BLOCK_TORCH, "inspect", "two.safetensors"],
        capture_output=True,
        text=True,
        encoding="utf-8",
    )
    assert done.returncode == 0, done.stderr
    assert "fc.weight" in done.stdout


def test_inspect_shows_what_a_file_asks_to_be_run(here, capsys, dangerous_file):
    assert main(["inspect", str(dangerous_file)]) == 0
    assert "error[dangerous-global]" in capsys.readouterr().out
    assert not (here / "must_not_appear").exists()


def test_inspect_what_is_not_there(here, capsys):
    assert main(["inspect", "tow.safetensors"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "error[file-not-found]" in err
    assert "two.safetensors" in err


def test_inspect_several_files_goes_on_after_an_error(here, capsys):
    assert main(["inspect", "missing.pt", "two.safetensors"]) == 2
    assert "fc.weight" in capsys.readouterr().out


def test_inspect_json_is_one_complete_object(here, capsys):
    assert main(["inspect", "--json", "two.safetensors"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["schema_version"] == 1
    assert document["format"] == "safetensors"
    assert document["files"] == ["two.safetensors"]
    assert document["nbytes"] == (here / "two.safetensors").stat().st_size
    assert [(row["key"], row["dtype"], row["shape"], row["nbytes"]) for row in document["tensors"]] == [
        ("fc.weight", "float32", [3, 4], 48),
        ("fc.bias", "float32", [3], 12),
    ]
    assert [row["key"] for row in document["weights"]["tensors"]] == ["fc.weight", "fc.bias"]
    assert document["diagnostics"] == []


def test_json_of_several_files_holds_one_object_each(here, capsys):
    assert main(["inspect", "--json", "two.safetensors", "missing.pt"]) == 2
    first, second = json.loads(capsys.readouterr().out)["checkpoints"]
    assert first["path"] == "two.safetensors"
    assert second["error"]["code"] == "file-not-found"


def test_json_errors_are_json_too(here, capsys):
    assert main(["inspect", "--json", "missing.pt"]) == 2
    document = json.loads(capsys.readouterr().out)
    assert document["error"]["code"] == "file-not-found"
    assert main(["plan", "--json", "two.safetensors"]) == 2
    assert json.loads(capsys.readouterr().out)["error"]["code"] == "usage"


# --- plan and load ----------------------------------------------------------------------------------------------------


def test_plan_between_two_files_needs_no_torch(here):
    write_safetensors(here / "other.safetensors", {"module.fc.weight": (3, 4), "module.fc.bias": (3,)})
    command = [sys.executable, "-c", BLOCK_TORCH, "plan", "other.safetensors", "--into", "two.safetensors"]
    done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8")
    assert done.returncode == 0, done.stderr
    assert "ready   2 of 2 model tensors" in done.stdout


def test_plan_into_the_json_of_inspect(here, capsys):
    main(["inspect", "--json", "two.safetensors"])
    (here / "schema.json").write_text(capsys.readouterr().out)
    assert main(["plan", "two.safetensors", "--into", "schema.json"]) == 0


def test_plan_with_something_to_decide_is_a_finding(here, capsys):
    write_safetensors(here / "old.safetensors", {"fc.weight": (5, 4), "fc.bias": (5,)})
    assert main(["plan", "old.safetensors", "--into", "two.safetensors"]) == 1
    assert "error[shape-mismatch]" in capsys.readouterr().out


def test_options_reach_the_plan(here, capsys):
    write_safetensors(here / "old.safetensors", {"head.weight": (3, 4), "head.bias": (3,), "junk": (1,)})
    words = ["plan", "old.safetensors", "--into", "two.safetensors", "--rename", "^head=fc", "--drop", "junk"]
    assert main(words) == 0
    assert main([*words, "-o", "recipe.toml"]) == 0
    assert main(["plan", "old.safetensors", "--into", "two.safetensors", "--recipe", "recipe.toml"]) == 0
    assert main([*words, "-o", "recipe.toml"]) == 2
    assert "destination-exists" in capsys.readouterr().err


def write_factory(here: Path, name: str) -> str:
    """A module with a factory of `fc`, importable once under that name in this process."""
    text = (
        "import torch\nprint('noise')\ndef build(out=3): return torch.nn.ModuleDict({'fc': torch.nn.Linear(4, out)})\n"
    )
    (here / f"{name}.py").write_text(text)
    return f"{name}:build"


def test_plan_for_a_factory_of_this_directory(here, capsys):
    target = write_factory(here, "factory_planned")
    assert main(["plan", "two.safetensors", "--into", target]) == 0
    out, err = capsys.readouterr()
    assert out.startswith("two.safetensors into ModuleDict")  # what the module prints stays out of the answer
    assert "noise" in err
    assert main(["plan", "two.safetensors", "--into", target, "--set", "out=7"]) == 1
    assert "error[shape-mismatch]" in capsys.readouterr().out


def test_a_factory_that_fails_is_quoted(here, capsys):
    target = write_factory(here, "factory_failing")
    assert main(["plan", "two.safetensors", "--into", target, "--set", "outs=7"]) == 2
    assert "got an unexpected keyword argument 'outs'" in " ".join(capsys.readouterr().err.split())


def test_load_saves_the_model_and_replaces_nothing(here, capsys):
    target = write_factory(here, "factory_loaded")
    words = ["load", "two.safetensors", "--into", target, "-o", "out.safetensors"]
    assert main(words) == 0
    assert main(["inspect", "out.safetensors"]) == 0
    before = (here / "out.safetensors").read_bytes()
    assert main(words) == 2
    assert "error[destination-exists]" in capsys.readouterr().err
    assert (here / "out.safetensors").read_bytes() == before
    assert main([*words, "--force"]) == 0


def test_load_that_does_not_fit_writes_nothing(here, capsys):
    target = write_factory(here, "factory_unfit")
    assert main(["load", "two.safetensors", "--into", target, "--set", "out=9", "-o", "out.pth"]) == 1
    assert "error[shape-mismatch]" in capsys.readouterr().out
    assert not (here / "out.pth").exists()


# --- explain, completion, help ----------------------------------------------------------------------------------------


def test_explain_knows_every_code(capsys):
    for code, entry in CATALOG.items():
        assert main(["explain", code]) == 0
        assert entry.title in capsys.readouterr().out


def test_explain_an_unknown_code_names_the_near_ones(capsys):
    assert main(["explain", "shape-mismach"]) == 2
    assert "shape-mismatch" in capsys.readouterr().err


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_a_script(capsys, shell):
    assert main(["completion", shell]) == 0
    assert "_LOADSTONE_COMPLETE" in capsys.readouterr().out


def test_completion_completes_commands():
    done = run(env={"_LOADSTONE_COMPLETE": "bash_complete", "COMP_WORDS": "loadstone in", "COMP_CWORD": "1"})
    assert done.stdout.split() == ["plain,inspect"]


@pytest.mark.parametrize("command", [[], ["inspect"], ["plan"], ["load"], ["explain"], ["completion"]])
def test_help_fits_and_is_an_answer(capsys, command):
    assert main([*command, "--help"]) == 0
    out, err = capsys.readouterr()
    assert out.startswith("Usage: loadstone")
    assert err == ""


def test_misuse_is_status_2_and_names_the_help(capsys):
    assert main(["inspect", "--colour"]) == 2
    assert "--help" in capsys.readouterr().err


# --- terminals, pipes, signals ----------------------------------------------------------------------------------------


def in_a_terminal(*words: str, **environment: str) -> str:
    """What a command writes to a terminal, stdout and stderr together."""
    master, slave = pty.openpty()
    settings = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "COLUMNS")}
    settings |= {"TERM": "xterm", "PYTHONIOENCODING": "utf-8", **environment}
    process = subprocess.Popen([sys.executable, "-m", "loadstone", *words], stdout=slave, stderr=slave, env=settings)
    os.close(slave)
    text = b""
    try:
        while chunk := os.read(master, 65536):
            text += chunk
    except OSError:
        pass  # the other end is closed
    os.close(master)
    process.wait()
    return text.decode()


def test_a_terminal_gets_colour_unless_told_otherwise(here):
    assert CSI.search(in_a_terminal("inspect", "two.safetensors"))
    assert not CSI.search(in_a_terminal("inspect", "two.safetensors", NO_COLOR="1"))
    assert not CSI.search(in_a_terminal("inspect", "two.safetensors", TERM="dumb"))


def test_a_pipe_gets_no_colour(here):
    done = run("inspect", "two.safetensors", cwd=here)
    assert not CSI.search(done.stdout + done.stderr)


def test_names_in_a_file_cannot_act_on_a_terminal(here):
    write_safetensors(here / "evil.safetensors", {"\x1b[2Jgone": (1,), "a\nready": (1,), "b\u202egpj": (1,)})
    done = run("inspect", "evil.safetensors", cwd=here)
    assert "\x1b" not in done.stdout
    assert "\u202e" not in done.stdout
    assert "\\x1b[2Jgone" in done.stdout


def test_an_output_without_unicode_gets_ascii(here):
    done = run("inspect", "two.safetensors", cwd=here, env={"PYTHONIOENCODING": "latin-1", "LC_ALL": "C"})
    assert done.returncode == 0
    assert "3 x 4" in done.stdout
    assert done.stdout.isascii()


def test_a_reader_that_stops_early_is_no_error(here):
    write_safetensors(here / "many.safetensors", {f"p{n * 7919 % 100_003:x}q": (n,) for n in range(4_000)})
    command = f"{sys.executable} -m loadstone inspect --all many.safetensors | head -1"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, cwd=here, timeout=60)
    assert done.stdout.startswith("many.safetensors")
    assert done.stderr == ""


def test_interrupt_is_status_130_and_no_traceback(here):
    (here / "slow.py").write_text("import sys, time\nprint('started', flush=True)\ntime.sleep(60)\n")
    process = subprocess.Popen(
        [sys.executable, "-m", "loadstone", "plan", "two.safetensors", "--into", "slow:build"],
        stderr=subprocess.PIPE, text=True, cwd=here,
    )  # fmt: skip
    assert process.stderr is not None
    assert process.stderr.readline() == "started\n"  # what a factory prints never mixes with the answer
    time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "Traceback" not in err


def test_a_defect_is_one_line_and_status_2(here, capsys, monkeypatch):
    def broken(*_: object, **__: object) -> str:
        raise RuntimeError("all wrong\nand more")

    monkeypatch.setattr("loadstone.screens.inspection.render_inspection", broken)
    assert main(["inspect", "two.safetensors"]) == 2
    err = capsys.readouterr().err
    assert err.startswith("internal error: RuntimeError: all wrong\\nand more\n")
    assert "Traceback" not in err
