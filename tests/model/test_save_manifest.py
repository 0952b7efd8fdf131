"""What a file says about itself, and what happens where that is damaged or refused."""

from __future__ import annotations

import json
import math
import os
import zipfile
from pathlib import Path

import numpy
import pytest
import safetensors.torch
import torch
from torch import nn

import loadstone as ls
from loadstone.io.disk import Disk, using
from loadstone.manifest import Manifest
from loadstone.model.save import write_checkpoint


def manifest_of(path: Path) -> Manifest:
    with ls.open(path) as checkpoint:
        assert checkpoint.manifest is not None
        return checkpoint.manifest


def test_the_parent_is_named_with_its_digest(tmp_path: Path) -> None:
    saved = ls.save({"a": torch.ones(1)}, tmp_path / "one.pth")
    ls.save({"a": torch.ones(1)}, tmp_path / "two.safetensors", parent=tmp_path / "one.pth")
    assert manifest_of(tmp_path / "two.safetensors").parent == {"name": "one.pth", "digest": saved.digest}


def test_training_and_the_place_of_the_weights_are_kept(tmp_path: Path) -> None:
    model = nn.Linear(2, 1)
    content = {"epoch": 3, "model_state_dict": model.state_dict()}
    training = {"epoch": 3, "metrics": {"loss": float("nan")}, "config": {"lr": numpy.float32(0.5)}}
    write_checkpoint(
        content, tmp_path / "m.pth", model=model, weights_at=("model_state_dict",), training=training, verify=False
    )
    manifest = manifest_of(tmp_path / "m.pth")
    assert manifest.model["weights"] == "model_state_dict"
    assert manifest.training["config"] == {"lr": 0.5}
    metrics = manifest.training["metrics"]
    assert isinstance(metrics, dict)
    assert math.isnan(metrics["loss"])  # type: ignore[arg-type]


def test_metadata_may_be_nested_and_names_what_it_cannot_hold(tmp_path: Path) -> None:
    deep: dict[str, object] = {}
    for _ in range(20):
        deep = {"inner": deep}
    ls.save({"a": torch.ones(1)}, tmp_path / "m.pth", metadata={"deep": deep, "score": torch.tensor(0.5)})
    assert manifest_of(tmp_path / "m.pth").metadata == {"deep": deep, "score": 0.5}
    with pytest.raises(ls.SaveError, match=r"unsaveable-value.*`metadata.config.model` is a Linear.*JSON"):
        ls.save({"a": torch.ones(1)}, tmp_path / "m.pth", metadata={"config": {"model": nn.Linear(1, 1)}})


@pytest.mark.parametrize("value", [numpy.float32(1.5), numpy.zeros(2)])
def test_numpy_values_are_refused_with_a_way_out(value: object, tmp_path: Path) -> None:
    with pytest.raises(ls.SaveError, match=r"`best.loss`") as caught:
        ls.save({"best": {"loss": value}}, tmp_path / "m.pth")
    assert caught.value.diagnostics[0].fixes


def test_a_probe_needs_a_model(tmp_path: Path) -> None:
    with pytest.raises(ls.RecipeError, match="a probe needs a model"):
        ls.save({"a": torch.ones(1)}, tmp_path / "m.pth", probe=torch.ones(1))


def test_a_probe_goes_into_the_file(tmp_path: Path) -> None:
    model = nn.Linear(2, 1)
    ls.save(model, tmp_path / "m.pth", probe=torch.ones(1, 2))
    assert manifest_of(tmp_path / "m.pth").probe is not None
    ls.load(model, tmp_path / "m.pth").check()


def damaged(path: Path, found: bytes, instead: bytes) -> None:
    data = path.read_bytes()
    assert len(found) == len(instead)
    assert found in data
    path.write_bytes(data.replace(found, instead))


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize(
    ("found", "instead"), [(b"version", b"versiox"), (b"float32", b"float16")], ids=["unreadable", "other dtype"]
)
def test_weights_are_read_past_a_damaged_manifest(suffix: str, found: bytes, instead: bytes, tmp_path: Path) -> None:
    path = tmp_path / f"m{suffix}"
    ls.save({"a": torch.arange(3.0)}, path)
    quote = b'\\"' if suffix == ".safetensors" else b'"'
    damaged(path, quote + found + quote, quote + instead + quote)
    with ls.open(path) as checkpoint:
        assert [(each.code, each.severity) for each in checkpoint.diagnostics] == [("invalid-manifest", "warning")]
        assert torch.equal(checkpoint.weights["a"].read(), torch.arange(3.0))


def test_a_flip_between_memory_and_disk_is_seen_before_the_name_is_given(tmp_path: Path) -> None:
    class Flipping(Disk):
        def write(self, descriptor: int, data: memoryview | bytes) -> int:
            wrong = bytearray(data)
            wrong[len(wrong) // 2] ^= 1
            return super().write(descriptor, bytes(wrong))

    path = tmp_path / "m.pth"
    ls.save({"a": torch.zeros(3)}, path)
    before = path.read_bytes()
    with using(Flipping()), pytest.raises(ls.SaveError, match="verification-failed"):
        ls.save({"a": torch.ones(1000)}, path)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["m.pth"]


def test_room_is_asked_for_before_anything_is_created(tmp_path: Path) -> None:
    class Full(Disk):
        def free_nbytes(self, folder: Path) -> int:
            return 1000

        def create(self, path: Path, mode: int = 0o666) -> int:
            raise AssertionError("nothing may be created")

    with using(Full()), pytest.raises(ls.SaveError, match=r"no-space.*the disk has 1,000") as caught:
        ls.save({"a": torch.ones(1000)}, tmp_path / "m.pth")
    assert [label for label, _ in caught.value.diagnostics[0].evidence] == ["needed", "free"]


def test_other_readers_find_the_manifest(tmp_path: Path) -> None:
    ls.save({"a": torch.ones(2)}, tmp_path / "m.pth")
    ls.save({"a": torch.ones(2)}, tmp_path / "m.safetensors")
    with zipfile.ZipFile(tmp_path / "m.pth") as archive:
        in_zip = json.loads(archive.read("m/loadstone.json"))
        assert archive.comment.startswith(b"loadstone xxh3-128:")
    with safetensors.safe_open(tmp_path / "m.safetensors", "pt") as file:
        in_header = json.loads(file.metadata()["loadstone"])
    assert in_zip["tensors"] == in_header["tensors"]
