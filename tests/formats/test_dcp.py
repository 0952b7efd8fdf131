"""torch.distributed.checkpoint directories: as torch writes them, and with metadata that lies."""

from __future__ import annotations

import os
import pickle
import shutil
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.metadata import ChunkStorageMetadata, Metadata, MetadataIndex

import loadstone.formats.dcp as reader
from loadstone.errors import FormatError, IntegrityError, LoadstoneError, UnsafeError
from loadstone.formats.contents import Contents, Context
from loadstone.formats.registry import open_source
from loadstone.tensors import TensorInfo

Change = Callable[[Metadata], Any]


def read(path: Path) -> Contents:
    assert reader.recognises_directory(path)
    return reader.read_directory(path, Context(open_source))


def save(state: dict[str, Any], path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own, about saving without a process group
        dcp.save(state, checkpoint_id=path)


STATE = {
    "model": {"fc.weight": torch.arange(12.0).reshape(3, 4), "fc.bias": torch.ones(3, dtype=torch.bfloat16)},
    "optimizer": {"state": [{"exp_avg": torch.arange(4)}, {"exp_avg": torch.zeros(0, 2)}], "lr": 0.5},
    "epoch": 7,
    "scalar": torch.tensor(2.5),
}


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("dcp") / "checkpoint"
    save(STATE, path)
    return path


@pytest.fixture
def checkpoint(saved: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    shutil.copytree(saved, tmp_path / "checkpoint")
    return tmp_path / "checkpoint"


def test_state_dict_comes_back_nested_and_to_the_bit(saved: Path) -> None:
    contents = read(saved)
    tree = contents.tree
    assert contents.format == "dcp"
    assert list(tree) == list(STATE)
    assert tree["epoch"] == 7
    assert tree["optimizer"]["lr"] == 0.5
    for found, expected in [
        (tree["model"]["fc.weight"], STATE["model"]["fc.weight"]),
        (tree["model"]["fc.bias"], STATE["model"]["fc.bias"]),
        (tree["optimizer"]["state"]["0"]["exp_avg"], STATE["optimizer"]["state"][0]["exp_avg"]),
        (tree["optimizer"]["state"]["1"]["exp_avg"], STATE["optimizer"]["state"][1]["exp_avg"]),
        (tree["scalar"], STATE["scalar"]),
    ]:
        assert found.dtype == str(expected.dtype).removeprefix("torch.")
        assert torch.equal(found.read(), expected)


def test_values_are_those_that_torch_loads(saved: Path) -> None:
    target = {"model": {"fc.weight": torch.zeros(3, 4), "fc.bias": torch.zeros(3, dtype=torch.bfloat16)}}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dcp.load(target, checkpoint_id=saved)
    tree = read(saved).tree["model"]
    assert all(torch.equal(tree[key].read(), tensor) for key, tensor in target["model"].items())


def cut_in_two(path: Path, places: list[tuple[int, ...]]) -> None:
    """Write two chunks of 2 × 4 as two ranks do, and metadata that puts them at these places of a 4 × 4 tensor."""
    whole = torch.arange(16.0).reshape(4, 4)
    save({"w": whole}, path)
    with open(path / ".metadata", "rb") as file:
        metadata = pickle.load(file)
    index, info = next(iter(metadata.storage_data.items()))
    storage_data, chunks = {}, []
    for rank, place in enumerate(places):
        torch.save(whole[2 * rank : 2 * rank + 2].clone(), path / f"__{rank}_0.distcp")
        length = (path / f"__{rank}_0.distcp").stat().st_size
        size = torch.Size(place)
        storage_data[replace(index, offset=size)] = replace(
            info, relative_path=f"__{rank}_0.distcp", offset=0, length=length
        )
        chunks.append(ChunkStorageMetadata(size, torch.Size((2, 4))))
    metadata.storage_data = storage_data
    metadata.state_dict_metadata["w"].chunks = chunks
    with open(path / ".metadata", "wb") as file:
        pickle.dump(metadata, file)


def test_chunks_of_two_ranks_become_one_tensor(tmp_path: Path) -> None:
    cut_in_two(tmp_path / "c", [(0, 0), (2, 0)])
    info = read(tmp_path / "c").tree["w"]
    assert (info.layout, info.shape) == ("chunked", (4, 4))
    assert torch.equal(info.read(), torch.arange(16.0).reshape(4, 4))


@pytest.mark.parametrize("place", [(1, 0), (3, 0), (2, 1)])
def test_chunks_that_do_not_fill_the_tensor_are_refused(tmp_path: Path, place: tuple[int, ...]) -> None:
    cut_in_two(tmp_path / "c", [(0, 0), place])
    with pytest.raises(FormatError, match=r"header-invalid.*`w` .* do not fill its shape \[4, 4\] exactly"):
        read(tmp_path / "c")


def test_directory_without_metadata_is_an_unfinished_save(checkpoint: Path) -> None:
    (checkpoint / ".metadata").unlink()
    with pytest.raises(IntegrityError, match=r"missing-shard.*the save did not finish"):
        read(checkpoint)


def test_missing_data_file_is_named(checkpoint: Path) -> None:
    (checkpoint / "__0_0.distcp").unlink()
    with pytest.raises(IntegrityError, match=r"missing-shard.*`__0_0.distcp` is not in"):
        read(checkpoint)


def test_data_file_that_was_cut_is_truncated(checkpoint: Path) -> None:
    data = checkpoint / "__0_0.distcp"
    data.write_bytes(data.read_bytes()[:-200])
    with pytest.raises(IntegrityError, match=r"truncated-file"):
        read(checkpoint)


def changed(path: Path, change: Change) -> Path:
    with open(path / ".metadata", "rb") as file:
        metadata = pickle.load(file)
    result = change(metadata)
    with open(path / ".metadata", "wb") as file:
        pickle.dump(metadata if result is None else result, file)
    return path


def move(field: str, value: Any) -> Change:
    def change(metadata: Metadata) -> None:
        for index, info in metadata.storage_data.items():
            metadata.storage_data[index] = replace(info, **{field: value})

    return change


@pytest.mark.parametrize("name", ["../../secret", "/etc/hosts", "..", "", "a/b", 5, None])
def test_data_file_outside_the_directory_is_unsafe(checkpoint: Path, name: object) -> None:
    with pytest.raises(UnsafeError, match=r"unsafe-path"):
        read(changed(checkpoint, move("relative_path", name)))


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (move("offset", -1), "truncated-file|header-invalid"),
        (move("offset", 2**70), "truncated-file"),
        (move("length", 2**70), "truncated-file"),
        (move("length", "10"), "the place of"),
        (move("transform_descriptors", ["zstd"]), "unsupported-feature"),
        (lambda metadata: metadata.storage_data.clear(), "does not say where `model.fc.weight`"),
        (lambda metadata: setattr(metadata, "storage_data", [1]), "`storage_data` is no dict"),
        (lambda metadata: setattr(metadata, "state_dict_metadata", {1: 2}), "`state_dict_metadata` is no dict"),
        (lambda metadata: setattr(metadata.state_dict_metadata["scalar"], "size", torch.Size([2])), "do not fill"),
        (lambda metadata: setattr(metadata.state_dict_metadata["scalar"], "size", [-1]), "the size of `scalar`"),
        (lambda metadata: setattr(metadata.state_dict_metadata["scalar"], "chunks", []), "`scalar` has no chunks"),
        (lambda metadata: setattr(metadata.state_dict_metadata["scalar"], "chunks", [1]), "a ChunkStorageMetadata"),
        (lambda metadata: setattr(metadata.state_dict_metadata["scalar"], "properties", 1), "the dtype of `scalar`"),
        (lambda metadata: metadata.state_dict_metadata.update(scalar=1), "a TensorStorageMetadata is expected"),
        (lambda metadata: {"state_dict_metadata": {}}, "a Metadata is expected"),
        (lambda metadata: metadata.storage_data.update({MetadataIndex("x"): 3}), "the place of `x`"),
    ],
)
def test_metadata_that_contradicts_itself_is_refused(checkpoint: Path, change: Change, why: str) -> None:
    with pytest.raises(LoadstoneError, match=why):
        read(changed(checkpoint, change))


def test_wrong_shape_of_a_chunk_is_refused(checkpoint: Path) -> None:
    def change(metadata: Metadata) -> None:
        entry: Any = metadata.state_dict_metadata["model.fc.weight"]
        entry.chunks[0].sizes = torch.Size((4, 3))

    with pytest.raises(FormatError, match=r"is a tensor of shape \[3, 4\], not of shape \[4, 3\]"):
        read(changed(checkpoint, change))


def test_without_planner_data_the_tree_is_flat(checkpoint: Path) -> None:
    tree = read(changed(checkpoint, lambda metadata: setattr(metadata, "planner_data", None))).tree
    assert isinstance(tree["model.fc.weight"], TensorInfo)


def test_paths_that_collide_keep_both_values(checkpoint: Path) -> None:
    def change(metadata: Metadata) -> None:
        metadata.planner_data["scalar"] = ("model", "fc.weight")
        metadata.planner_data["epoch"] = ("model", "fc.bias", "x")

    tree = read(changed(checkpoint, change)).tree
    assert tree["model"]["fc.weight"].shape == (3, 4)
    assert tree["scalar"].shape == ()
    assert tree["epoch"] == 7


class Payload:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.marker}",)


def test_payload_in_the_metadata_is_reported_and_not_run(checkpoint: Path, tmp_path: Path) -> None:
    contents = read(changed(checkpoint, lambda m: setattr(m, "planner_data", Payload(tmp_path / "marker"))))
    assert [one.code for one in contents.diagnostics if one.severity == "error"] == ["dangerous-global"]
    assert not (tmp_path / "marker").exists()


def test_payload_in_a_saved_object_is_reported_and_not_run(tmp_path: Path) -> None:
    save({"w": torch.ones(1), "config": Payload(tmp_path / "marker")}, tmp_path / "c")
    contents = read(tmp_path / "c")
    assert [one.code for one in contents.diagnostics if one.severity == "error"] == ["dangerous-global"]
    assert not (tmp_path / "marker").exists()
