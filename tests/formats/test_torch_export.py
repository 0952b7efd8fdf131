"""Exported programs: their weights, compared with torch.export."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import loadstone as ls

# torch.export warns of its own internals
pytestmark = pytest.mark.filterwarnings(
    "ignore::FutureWarning", "ignore::DeprecationWarning", "ignore:No complete tensor:UserWarning"
)


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 2)
        self.tied = self.linear.weight
        self.transposed = nn.Parameter(torch.arange(6.0).reshape(2, 3).half().t())
        self.empty = nn.Parameter(torch.zeros(0))
        self.register_buffer("counts", torch.arange(3))
        self.register_buffer("transient", torch.ones(2), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        constant = torch.tensor([1.0, 2.0])
        total = self.tied.sum() + self.transposed.sum() + self.counts.sum() + self.empty.sum()
        return self.linear(x) + self.transient + constant + total


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, torch.Tensor]]:
    path = tmp_path_factory.mktemp("export") / "model.pt2"
    program = torch.export.export(Model(), (torch.ones(1, 3),))
    torch.export.save(program, path)
    return path, dict(program.state_dict)


def config(**changes: Any) -> dict[str, Any]:
    meta = {
        "dtype": 7, "sizes": [{"as_int": 2}], "requires_grad": True, "strides": [{"as_int": 1}],
        "storage_offset": {"as_int": 0}, "layout": 7,
    }  # fmt: skip
    entry = {"path_name": "weight_0", "is_param": True, "use_pickle": False, "tensor_meta": meta}
    entry.update({key: value for key, value in changes.items() if key in entry})
    meta.update({key: value for key, value in changes.items() if key in meta})
    return {"config": {"w": entry}}


def archive_with(path: Path, index: object, records: dict[str, bytes] | None = None) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/archive_format", "pt2")
        text = index if isinstance(index, str) else json.dumps(index)
        archive.writestr("archive/data/weights/model_weights_config.json", text)
        for name, data in (records or {"weight_0": torch.ones(2).numpy().tobytes()}).items():
            archive.writestr(f"archive/data/weights/{name}", data)
    return path


def saved(value: object) -> bytes:
    torch.save(value, buffer := io.BytesIO())
    return buffer.getvalue()


def test_weights_are_the_state_dict_of_the_program(exported: tuple[Path, dict[str, torch.Tensor]]) -> None:
    path, state_dict = exported
    with ls.open(path) as checkpoint:
        assert checkpoint.format == "torch-export"
        assert set(checkpoint.weights) == set(state_dict)
        for key, tensor in state_dict.items():
            info = checkpoint.weights[key]
            assert torch.equal(info.read(), tensor.detach()), key
            assert (info.stride, info.is_parameter) == (tensor.stride(), isinstance(tensor, nn.Parameter)), key


def test_constants_are_tensors_of_the_file_and_no_weights(exported: tuple[Path, dict[str, torch.Tensor]]) -> None:
    checkpoint = ls.open(exported[0])
    assert "transient" not in checkpoint.weights
    assert checkpoint.tensors["transient"].read().tolist() == [1, 1]
    assert [1.0, 2.0] in [info.read().tolist() for info in checkpoint.tensors.values() if info.shape == (2,)]


def test_tied_weights_share_their_storage(exported: tuple[Path, dict[str, torch.Tensor]]) -> None:
    weights = ls.open(exported[0]).weights
    assert weights["tied"].storage is weights["linear.weight"].storage


def test_weight_that_is_a_file_of_torch_save_is_opened(tmp_path: Path) -> None:
    path = archive_with(tmp_path / "x.pt2", config(use_pickle=True), {"weight_0": saved(torch.arange(2.0))})
    assert ls.open(path).weights["w"].read().tolist() == [0, 1]


@pytest.mark.parametrize("path_name", ["../weight_0", "/etc/passwd", "..", "", "a/b", "..\\weight_0"])
def test_path_that_leaves_the_folder_is_refused(path_name: str, tmp_path: Path) -> None:
    with pytest.raises(ls.UnsafeError) as caught:
        ls.open(archive_with(tmp_path / "x.pt2", config(path_name=path_name)))
    assert caught.value.code == "unsafe-path"


def test_weight_without_its_record_is_named(tmp_path: Path) -> None:
    with pytest.raises(ls.IntegrityError, match="weight_7") as caught:
        ls.open(archive_with(tmp_path / "x.pt2", config(path_name="weight_7")))
    assert caught.value.code == "missing-record"


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"sizes": [{"as_int": 3}]}, "tensor-out-of-bounds"),
        ({"sizes": [{"as_int": -1}]}, "tensor-out-of-bounds"),
        ({"strides": [{"as_int": 2**62}]}, "tensor-out-of-bounds"),
        ({"storage_offset": {"as_int": 1}}, "tensor-out-of-bounds"),
        ({"strides": []}, "tensor-out-of-bounds"),
        ({"sizes": [{"as_expr": "s0"}]}, "header-invalid"),
        ({"sizes": [{"as_int": True}]}, "header-invalid"),
        ({"sizes": 2}, "header-invalid"),
        ({"storage_offset": 0}, "header-invalid"),
        ({"dtype": 99}, "unsupported-feature"),
        ({"dtype": "float"}, "unsupported-feature"),
        ({"layout": 1}, "unsupported-feature"),
        ({"path_name": 3}, "header-invalid"),
        ({"tensor_meta": 3}, "header-invalid"),
        ({"use_pickle": True}, "unknown-format"),
    ],
    ids=repr,
)
def test_index_that_contradicts_its_records_is_refused(change: dict[str, Any], code: str, tmp_path: Path) -> None:
    with pytest.raises(ls.LoadstoneError) as caught:
        ls.open(archive_with(tmp_path / "x.pt2", config(**change)))
    assert caught.value.code == code


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"config": 3}', '{"config": {"w": 3}}', "[" * 100_000, '{"config": {}, "config": {}}']
)
def test_malformed_index_is_refused(text: str, tmp_path: Path) -> None:
    with pytest.raises(ls.FormatError) as caught:
        ls.open(archive_with(tmp_path / "x.pt2", text))
    assert caught.value.code == "header-invalid"


def test_object_that_is_no_tensor_is_noted(tmp_path: Path) -> None:
    checkpoint = ls.open(archive_with(tmp_path / "x.pt2", config(tensor_meta=None)))
    assert [diagnostic.code for diagnostic in checkpoint.diagnostics] == ["not-extracted"]


def test_layout_of_torch_2_8_is_read(tmp_path: Path) -> None:
    """One torch.save file of all weights and one of the constants, in the place of an index."""
    with zipfile.ZipFile(tmp_path / "x.pt2", "w") as archive:
        archive.writestr("x/archive_format", "pt2")
        archive.writestr("x/data/weights/model.pt", saved({"w": torch.ones(2)}))
        archive.writestr("x/data/constants/model.pt", saved({"c": torch.zeros(1)}))
    checkpoint = ls.open(tmp_path / "x.pt2")
    assert (list(checkpoint.weights), list(checkpoint.tensors)) == (["w"], ["w", "c"])


def test_layout_before_torch_2_8_is_read(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.pt2", "w") as archive:
        archive.writestr("version", "8.2")
        archive.writestr("serialized_exported_program.json", "{}")
        archive.writestr("serialized_state_dict.pt", saved({"w": torch.ones(2)}))
        archive.writestr("serialized_constants.pt", saved({"c": torch.zeros(1)}))
    checkpoint = ls.open(tmp_path / "x.pt2")
    assert (list(checkpoint.weights), list(checkpoint.tensors)) == (["w"], ["w", "c"])


def test_programs_side_by_side_are_several_sets_of_weights(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.pt2", "w") as archive:
        archive.writestr("x/archive_format", "pt2")
        for name in ("encoder", "decoder"):
            archive.writestr(f"x/data/weights/{name}.pt", saved({"layer.w": torch.ones(2)}))
    assert {"encoder", "decoder"} <= set(ls.open(tmp_path / "x.pt2").weight_sets)


def test_compiled_code_is_listed(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.pt2", "w") as archive:
        archive.writestr("x/archive_format", "pt2")
        archive.writestr("x/data/aotinductor/model/kernel.so", b"\x7fELF")
    checkpoint = ls.open(tmp_path / "x.pt2")
    assert checkpoint.code == ("x/data/aotinductor/model/kernel.so",)
    assert [diagnostic.code for diagnostic in checkpoint.diagnostics] == ["contains-code"]
