"""`--match structure` between two files: no torch, one paste an answer, and a recipe that replays it."""

from __future__ import annotations

import json
import re
import struct
from math import prod
from pathlib import Path

import pytest

from loadstone.cli import main


def write(path: Path, shapes: dict[str, tuple[int, ...]]) -> None:
    header, at = {}, 0
    for key, shape in shapes.items():
        size = 4 * prod(shape)
        header[key] = {"dtype": "F32", "shape": list(shape), "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + bytes(at))


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name, (stem, block, one, other) in {
        "theirs": ("embed", "layer", "foo", "bar"), "ours": ("stem", "blocks", "left", "right"),
    }.items():  # fmt: skip
        shapes: dict[str, tuple[int, ...]] = {f"{stem}.weight": (20, 8)}
        for number in range(3):
            shapes |= {f"{block}.{number}.{part}.weight": (8, 8) for part in (one, other)}
            shapes[f"{block}.{number}.wide.weight"] = (16, 8)
        write(Path(f"{name}.safetensors"), shapes)


COMMAND = ["plan", "theirs.safetensors", "--into", "ours.safetensors"]


def test_an_answer_is_pasted_from_the_screen_and_kept_in_the_recipe(files, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*COMMAND, "--match", "structure"]) == 1
    screen = capsys.readouterr()
    (paste,) = re.findall(r"--answer \S+=layer\.0\.foo\.weight", screen.out)
    assert "answer one, and plan again" in screen.err
    assert main([*COMMAND, *paste.split(), "-o", "r.toml"]) == 0
    answered = capsys.readouterr().out
    assert main([*COMMAND, "--recipe", "r.toml"]) == 0
    assert capsys.readouterr().out == answered


def test_a_plan_by_names_points_to_structure(files, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(COMMAND) == 1
    screen = capsys.readouterr()
    assert "fits-by-structure" in screen.out
    assert "--match structure" in screen.out
    assert "by structure" in screen.err


def test_json_has_the_rules(files, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*COMMAND, "--answer", "blocks.0.left.weight=layer.0.foo.weight", "--json"]) == 0
    made = json.loads(capsys.readouterr().out)
    assert made["rules"]["blocks.{a}.left.weight"] == "layer.{a}.foo.weight"


def test_an_answer_without_an_equals_sign_is_a_usage_error(files, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*COMMAND, "--answer", "blocks.0.left.weight"]) == 2
    assert "MODEL_KEY=CHECKPOINT_KEY" in capsys.readouterr().err


def test_values_that_look_odd_are_flagged_where_the_model_can_be_built(
    files, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("theirs_net.py").write_text("import torch\nlinear = lambda: torch.nn.Linear(8, 10)\n")
    write(Path("zeros.safetensors"), {"weight": (10, 8), "bias": (10,)})
    assert main(["plan", "zeros.safetensors", "--into", "theirs_net:linear", "--values"]) == 0
    assert "implausible-values" in capsys.readouterr().out
    assert main([*COMMAND, "--values"]) == 2
    assert "module:factory" in capsys.readouterr().err


def test_a_module_without_the_name_says_which_models_it_has(files, capsys: pytest.CaptureFixture[str]) -> None:
    Path("several_nets.py").write_text("from torch.nn import Linear\nclass Tall(Linear): ...\nthere = Linear(2, 2)\n")
    write(Path("any.safetensors"), {"weight": (10, 8)})
    assert main(["plan", "any.safetensors", "--into", "several_nets:model"]) == 2
    assert "it has  Tall, there, Linear\n" in capsys.readouterr().err


NETS = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, first, second):
        super().__init__()
        self.names = first, second
        for name in self.names:
            self.add_module(name, nn.Linear(4, 4))

    def forward(self, x):
        first, second = (getattr(self, name) for name in self.names)
        return second(first(x).tanh())

def ours():
    return Net("left", "right")

def theirs():
    return Net("foo", "bar")
"""


def test_a_reference_answers_and_the_recipe_keeps_it(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    Path("two_nets.py").write_text(NETS)
    header = {
        f"{name}.{part}": shape for name in ("foo", "bar") for part, shape in (("weight", (4, 4)), ("bias", (4,)))
    }
    write(Path("theirs.safetensors"), header)
    data = bytearray(Path("theirs.safetensors").read_bytes())
    data[-160:] = struct.pack("<40f", *(n % 7 - 3 for n in range(40)))  # foo and bar differ
    Path("theirs.safetensors").write_bytes(data)
    command = ["plan", "theirs.safetensors", "--into", "two_nets:ours", "--match", "structure"]
    assert main(command) == 1
    proof = ["--reference", "two_nets:theirs", "--input", "3,4", "-o", "r.toml"]
    assert main([*command, *proof]) == 0
    assert '"left.weight" = "foo.weight"' in Path("r.toml").read_text()
    assert main([*command, "--reference", "two_nets:theirs"]) == 2
    assert "--input" in capsys.readouterr().err
