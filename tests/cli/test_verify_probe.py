"""`loadstone verify --probe`: the model of --into is built, filled and run, and its outputs are compared."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn

import loadstone as ls
from loadstone.cli import main

MODELS = """
from torch import nn

def network(eps=1e-5):
    return nn.Sequential(nn.Linear(4, 3), nn.LayerNorm(3, eps=eps), nn.ReLU())
"""


@pytest.fixture
def file(tmp_path, monkeypatch) -> str:
    (tmp_path / "probe_models.py").write_text(MODELS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 3), nn.LayerNorm(3), nn.ReLU())
    ls.save(model, "a.pth", probe=torch.rand(5, 4))
    return "a.pth"


def test_the_same_model_passes(file, capsys):
    assert main(["verify", file, "--probe", "--into", "probe_models:network"]) == 0
    assert "computes what the file remembers: 15 values, equal to the bit" in capsys.readouterr().out


def test_another_setting_is_a_finding(file, capsys):
    assert main(["verify", file, "--probe", "--into", "probe_models:network", "--set", "eps=0.1"]) == 1
    assert "probe-differs" in capsys.readouterr().err


def test_the_answer_is_in_the_json(file, capsys):
    assert main(["verify", file, "--probe", "--into", "probe_models:network", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["probe"]["ok"]
    assert found["probe"]["is_equal"]
    assert found["checked"] == "digest"


def test_a_file_without_a_probe_says_how_to_get_one(file, capsys):
    ls.save(nn.Sequential(nn.Linear(4, 3), nn.LayerNorm(3), nn.ReLU()), "b.pth")
    assert main(["verify", "b.pth", "--probe", "--into", "probe_models:network"]) == 2
    assert "loadstone.save(model, path, probe=example_input)" in capsys.readouterr().err


def test_damage_is_said_before_anything_is_run(file, capsys):
    data = bytearray(Path(file).read_bytes())
    with ls.open(file) as checkpoint:
        data[checkpoint.tensors["0.weight"].storage.extents[0].offset] ^= 1
    Path(file).write_bytes(data)
    assert main(["verify", file, "--probe", "--into", "probe_models:network"]) == 1
    out = capsys.readouterr().out
    assert "`0.weight` in `a.pth` is damaged" in out
    assert "remembers" not in out


@pytest.mark.parametrize("words", [["--probe"], ["--into", "probe_models:network"]])
def test_one_of_the_two_words_alone_is_a_misuse(file, words, capsys):
    assert main(["verify", file, *words]) == 2
    assert "--probe needs --into" in capsys.readouterr().err
