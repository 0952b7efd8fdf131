"""TorchScript archives: the state dict that torch.jit.load gives, without running their code."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest
import torch
from torch import nn

import loadstone as ls

# torch 2.14 says at every use that torch.jit is deprecated; the files are there all the same
pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning", "ignore:Lite Interpreter")


class Inner(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.plain = torch.ones(3)
        self.register_buffer("running", torch.zeros(2))
        self.register_buffer("transient", torch.full((2,), 5.0), persistent=False)
        self.p = nn.Parameter(torch.arange(4.0))
        self.listed = [torch.ones(1)]
        self.number = 3

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        total = self.plain.sum() + self.running.sum() + self.transient.sum() + self.p.sum() + self.listed[0]
        return x + total * self.number


class Outer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = Inner()
        self.layers = nn.ModuleList([nn.Linear(2, 2), nn.BatchNorm1d(2), nn.Linear(2, 2, bias=False)])
        self.again = self.a
        self.w = nn.Parameter(torch.ones(1))
        self.tied = self.layers[0].weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x = layer(x)
        return self.a(x) + self.w + self.tied.sum()


@pytest.fixture(scope="module")
def scripted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("script") / "scripted.pt"
    torch.jit.script(Outer()).save(path)
    return path


def assert_state_dict_of_torch(path: Path) -> None:
    state_dict = torch.jit.load(path).state_dict()
    with ls.open(path) as checkpoint:
        assert checkpoint.format == "torchscript"
        assert list(checkpoint.weights) == list(state_dict)
        for key, tensor in state_dict.items():
            assert torch.equal(checkpoint.weights[key].read(), tensor), key


def test_scripted_module_gives_its_state_dict(scripted: Path) -> None:
    assert_state_dict_of_torch(scripted)


def test_traced_module_gives_its_state_dict(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU()).eval()
    torch.jit.trace(model, torch.ones(1, 1, 5, 5)).save(tmp_path / "traced.pt")
    assert_state_dict_of_torch(tmp_path / "traced.pt")


def test_attributes_that_state_dict_leaves_out_are_tensors_of_the_file_all_the_same(scripted: Path) -> None:
    checkpoint = ls.open(scripted)
    assert "a.plain" not in checkpoint.weights
    assert torch.equal(checkpoint.tensors["a.plain"].read(), torch.ones(3))


def test_tied_parameters_share_their_storage(scripted: Path) -> None:
    weights = ls.open(scripted).weights
    assert weights["tied"].storage is weights["layers.0.weight"].storage


def test_modules_have_the_class_names_people_know(scripted: Path) -> None:
    modules = ls.open(scripted).modules
    assert modules[""].endswith("Outer")
    assert modules["layers.1"] == "torch.nn.modules.batchnorm.BatchNorm1d"


def test_frozen_module_has_its_weights_among_the_constants(tmp_path: Path) -> None:
    model = nn.Linear(3, 2).eval()
    torch.jit.freeze(torch.jit.script(model)).save(tmp_path / "frozen.pt")
    tensors = ls.open(tmp_path / "frozen.pt").tensors
    assert set(tensors) == {"constants.0", "constants.1"}
    shapes = {info.shape: info.read() for info in tensors.values()}
    assert torch.equal(shapes[(2, 3)], model.weight)
    assert torch.equal(shapes[(2,)], model.bias)


def test_code_is_listed_and_noted(scripted: Path) -> None:
    checkpoint = ls.open(scripted)
    # a class that was scripted before in this process is in linear/___torch_mangle_0.py
    assert any(member.startswith("scripted/code/__torch__/torch/nn/modules/linear") for member in checkpoint.code)
    assert [diagnostic.code for diagnostic in checkpoint.diagnostics] == ["contains-code"]


def test_archive_of_the_lite_interpreter_is_read(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
    torch.jit.script(model)._save_for_lite_interpreter(str(tmp_path / "lite.ptl"))
    weights = ls.open(tmp_path / "lite.ptl").weights
    assert {key: info.read().tolist() for key, info in weights.items()} == {
        key: tensor.tolist() for key, tensor in model.state_dict().items()
    }


def test_archive_without_the_text_of_its_classes_still_gives_its_tensors(scripted: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(scripted) as old, zipfile.ZipFile(tmp_path / "bare.pt", "w") as new:
        for name in old.namelist():
            if not name.endswith(".py"):
                new.writestr(name, old.read(name))
    assert set(torch.jit.load(scripted).state_dict()) <= set(ls.open(tmp_path / "bare.pt").weights)


def test_code_that_reaches_outside_the_model_is_an_error(scripted: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(scripted) as old, zipfile.ZipFile(tmp_path / "evil.pt", "w") as new:
        chosen = next(name for name in old.namelist() if "/modules/linear" in name and name.endswith(".py"))
        for name in old.namelist():
            addition = b'\n  x = torch.from_file("/etc/passwd")\n' if name == chosen else b""
            new.writestr(name, old.read(name) + addition)
    errors = [one for one in ls.open(tmp_path / "evil.pt").diagnostics if one.severity == "error"]
    assert [(error.code, "torch.from_file" in error.message) for error in errors] == [("dangerous-global", True)]


def test_format_of_torch_1_0_is_named(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "old.pt", "w") as archive:
        archive.writestr("old/model.json", "{}")
        archive.writestr("old/tensors/0", bytes(4))
    with pytest.raises(ls.FormatError, match=r"1\.0 to 1\.3") as caught:
        ls.open(tmp_path / "old.pt")
    assert caught.value.code == "unsupported-feature"
