"""Archives of torch.package: the objects in them as data, their source code listed."""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.package import PackageExporter

import loadstone as ls

# PackageExporter still uses typed storages, and torch warns of them
pytestmark = pytest.mark.filterwarnings("ignore:TypedStorage is deprecated:UserWarning")


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, nn.Module]:
    path = tmp_path_factory.mktemp("package") / "package.pt"
    model = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    with PackageExporter(path) as exporter:
        exporter.extern("**")
        exporter.save_pickle("model", "model.pkl", model)
        exporter.save_pickle("model", "settings.pkl", {"classes": 2, "mean": torch.tensor([0.5])})
        exporter.save_source_string("mine.layers", "class Layer: pass\n")
    return path, model


def test_module_in_a_package_gives_its_state_dict(package: tuple[Path, nn.Module]) -> None:
    path, model = package
    with ls.open(path, weights="model/model.pkl") as checkpoint:
        assert checkpoint.format == "torch-package"
        assert list(checkpoint.weights) == list(model.state_dict())
        for key, tensor in model.state_dict().items():
            assert torch.equal(checkpoint.weights[key].read(), tensor), key


def test_every_object_of_a_package_is_in_the_tree(package: tuple[Path, nn.Module]) -> None:
    tree = ls.open(package[0]).tree
    assert set(tree) == {"model/model.pkl", "model/settings.pkl"}
    assert tree["model/settings.pkl"]["classes"] == 2
    assert tree["model/settings.pkl"]["mean"].read().tolist() == [0.5]


def test_source_of_a_package_is_listed_and_noted(package: tuple[Path, nn.Module]) -> None:
    checkpoint = ls.open(package[0])
    assert "package/mine/layers.py" in checkpoint.code
    assert "contains-code" in [diagnostic.code for diagnostic in checkpoint.diagnostics]


def test_payload_in_any_object_of_a_package_is_found(package: tuple[Path, nn.Module], tmp_path: Path) -> None:
    class Payload:
        def __reduce__(self) -> Any:
            import os

            return os.system, ("touch loadstone-was-here",)

    with zipfile.ZipFile(package[0]) as old, zipfile.ZipFile(tmp_path / "evil.pt", "w") as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
        new.writestr("package/other/extra.pkl", pickle.dumps(Payload(), 3))
    assert "dangerous-global" in [diagnostic.code for diagnostic in ls.open(tmp_path / "evil.pt").diagnostics]


def test_package_without_a_storage_of_its_own_is_refused(package: tuple[Path, nn.Module], tmp_path: Path) -> None:
    with zipfile.ZipFile(package[0]) as old, zipfile.ZipFile(tmp_path / "cut.pt", "w") as new:
        for name in old.namelist():
            if not name.endswith("/0.storage"):
                new.writestr(name, old.read(name))
    with pytest.raises(ls.IntegrityError, match=r"0\.storage") as caught:
        ls.open(tmp_path / "cut.pt")
    assert caught.value.code == "missing-record"
