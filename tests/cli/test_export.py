"""`loadstone export` from outside: what is written, what is said, and the exit status."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from loadstone.cli import main

MODELS = """
from torch import nn

def linear(outputs=2):
    return nn.Linear(4, outputs)

def embedding():
    return nn.Embedding(2, 3)

class Gate(nn.Linear):
    def __init__(self):
        super().__init__(4, 2)

    def forward(self, x):
        return super().forward(x) if x.sum() > 0 else -super().forward(x)
"""
LINEAR = ("export", "m.pth", "--into", "models_to_export:linear", "--input", "1,4")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with a file of weights and a module of models, at 80 columns."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "models_to_export", raising=False)
    Path("models_to_export.py").write_text(MODELS)
    torch.manual_seed(0)
    torch.save(nn.Linear(4, 2).state_dict(), "m.pth")
    torch.save(nn.Embedding(2, 3).state_dict(), "e.pth")
    return tmp_path


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} - {"models_to_export.py", "m.pth", "e.pth", "__pycache__"}


def test_it_exports_the_weights_of_the_file(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*LINEAR, "-o", "m.pt2"]) == 0
    out, err = capsys.readouterr()
    assert out.startswith("m.pt2   torch-export   ")
    assert "  =  the example   equal to the model" in out
    assert err == ""
    x = torch.rand(1, 4)
    model = nn.Linear(4, 2)
    model.load_state_dict(torch.load("m.pth", weights_only=True))
    assert torch.equal(torch.export.load(here / "m.pt2").module()(x), model(x))
    assert names(here) == {"m.pt2"}


def test_torchscript_is_said_to_be_deprecated_in_the_words_of_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*LINEAR, "-o", "m.pt"]) == 0
    out = capsys.readouterr().out
    assert "warning[torchscript-deprecated]" in out
    assert "-o model.pt2" in out


def test_json_is_one_object(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*LINEAR, "--dynamic-batch", "-o", "m.pt2", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["path"] == "m.pt2"
    assert document["is_equal"] is True
    assert [each["input"] for each in document["comparisons"]] == ["the example", "other values", "a batch of 3"]


def test_inputs_of_whole_numbers(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["export", "e.pth", "--into", "models_to_export:embedding", "--input", "1,5", "--dtype", "int64"]
    assert main([*words, "-o", "e.pt2"]) == 0


def test_weights_that_do_not_fit_are_findings(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*LINEAR, "--set", "outputs=3", "-o", "m.pt2"]) == 1
    assert "shape-mismatch" in capsys.readouterr().out
    assert names(here) == set()


def test_what_cannot_be_exported_leaves_nothing(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["export", "m.pth", "--into", "models_to_export:Gate", "--input", "1,4"]
    assert main([*words, "-o", "m.pt2"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "error[export-failed]" in err
    assert "-o model.pt --script" in err
    assert all(len(line) <= 80 for line in err.splitlines())
    assert names(here) == set()


def test_a_file_is_replaced_only_by_force(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("m.pt2").write_text("old")
    assert main([*LINEAR, "-o", "m.pt2"]) == 2
    assert "destination-exists" in capsys.readouterr().err
    assert Path("m.pt2").read_text() == "old"
    assert main([*LINEAR, "-o", "m.pt2", "--force"]) == 0


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["--input", "1,x", "-o", "m.pt2"], "usage"),
        (["--input", "", "-o", "m.pt2"], "usage"),
        (["--input", "99999999999,99999999999", "-o", "m.pt2"], "usage"),
        (["--input", "1,4", "--dtype", "floaty", "-o", "m.pt2"], "invalid-option"),
        (["--input", "1,4", "-o", "m.onnx"], "invalid-option"),
        (["--input", "1,4", "--script", "-o", "m.pt2"], "invalid-option"),
        (["--input", "1,5", "-o", "m.pt2"], "example-refused"),
        (["--input", "1,4", "-o", "none/m.pt2"], "save-failed"),
    ],
)
def test_what_it_could_not_do(words: list[str], code: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", "m.pth", "--into", "models_to_export:linear", *words]) == 2
    assert f"error[{code}]" in capsys.readouterr().err
    assert names(here) == set()


def test_a_checkpoint_is_no_model_to_export(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", "m.pth", "--into", "e.pth", "--input", "1,4", "-o", "m.pt2"]) == 2
    assert "error[target-not-found]" in capsys.readouterr().err
