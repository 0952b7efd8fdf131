"""Verification: every flipped bit is found, the damage is named, and no more is claimed than can be proved."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

import loadstone
from loadstone.checks.marks import digest_now, mark_of
from loadstone.model.folder import write_folder
from loadstone.model.save import write_checkpoint

torch.manual_seed(0)
WEIGHTS = {"conv1.weight": torch.randn(40, 51), "fc.weight": torch.randn(30, 31), "fc.bias": torch.randn(30)}


def flip(path: Path, at: int, bit: int = 2) -> None:
    path.chmod(0o644)
    data = bytearray(path.read_bytes())
    data[at] ^= 1 << bit
    path.write_bytes(data)


def place_of(path: Path, tensor: torch.Tensor) -> int:
    """Where the bytes of a tensor start in a file."""
    return path.read_bytes().index(tensor.numpy().tobytes())


@pytest.fixture(scope="module", params=["net.pth", "net.safetensors"])
def ours(request, tmp_path_factory):
    path = tmp_path_factory.mktemp("ours") / request.param
    write_checkpoint(WEIGHTS, path, metadata={"note": '"loadstone.file":"xxh3-128:'})
    return path


def test_what_was_written_is_whole(ours):
    report = loadstone.verify(ours)
    assert (report.ok, report.checked, report.tensors, report.diagnostics) == (True, "digest", 3, ())


def test_the_digest_stands_where_it_is_looked_for(ours):
    mark = mark_of(ours)
    data = ours.read_bytes()
    assert data[mark.offset : mark.offset + 32].decode() == mark.digest[-32:]
    assert digest_now(ours, mark) == mark.digest


def test_a_flipped_bit_in_a_tensor_is_named_with_both_digests(ours, tmp_path):
    copy = tmp_path / ours.name
    copy.write_bytes(ours.read_bytes())
    flip(copy, place_of(copy, WEIGHTS["fc.weight"]) + 700)
    report = loadstone.verify(copy)
    assert not report.ok
    assert [(found.code, found.keys) for found in report.errors] == [("bad-digest", ("fc.weight",))]
    assert {"written", "found", "where"} <= dict(report.errors[0].evidence).keys()
    assert str(copy) in report.errors[0].message


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(share=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7), is_edge=st.booleans())
def test_no_flipped_bit_goes_unnoticed(ours, tmp_path, share, bit, is_edge):
    data = ours.read_bytes()
    copy = tmp_path / ours.name
    copy.write_bytes(data)
    flip(copy, -1 - int(share * 1500) if is_edge else int(share * len(data)), bit)
    assert not loadstone.verify(copy).ok


@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
def test_a_file_that_is_cut_off_is_damaged(ours, tmp_path, share):
    copy = tmp_path / ours.name
    copy.write_bytes(ours.read_bytes()[: int(ours.stat().st_size * share)])
    assert not loadstone.verify(copy).ok


def test_a_hole_of_zeros_is_found(ours, tmp_path):
    copy = tmp_path / ours.name
    data = bytearray(ours.read_bytes())
    at = place_of(ours, WEIGHTS["conv1.weight"]) + 100
    data[at : at + 512] = bytes(512)
    copy.write_bytes(data)
    assert loadstone.verify(copy).errors[0].keys == ("conv1.weight",)


def test_every_record_of_a_torch_file_is_compared_with_its_checksum(tmp_path):
    path = tmp_path / "theirs.pth"
    torch.save(WEIGHTS, path)
    whole = loadstone.verify(path)
    assert (whole.ok, whole.checked) == (True, "checksums")
    flip(path, place_of(path, WEIGHTS["fc.bias"]) + 5)
    found = loadstone.verify(path).errors
    assert [(each.code, each.keys) for each in found] == [("bad-checksum", ("fc.bias",))]
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() in found[0].message


def test_a_torch_file_without_checksums_proves_nothing(tmp_path):
    path = tmp_path / "theirs.pth"
    before = torch.serialization.get_crc32_options()
    torch.serialization.set_crc32_options(False)
    try:
        torch.save({"w": torch.zeros(5)}, path)
    finally:
        torch.serialization.set_crc32_options(before)
    report = loadstone.verify(path)
    assert (report.ok, report.checked) == (True, "structure")


@pytest.mark.parametrize("kind", ["safetensors", "legacy"])
def test_a_file_without_digests_is_said_to_prove_nothing(tmp_path, kind):
    path = tmp_path / f"theirs.{kind}"
    if kind == "safetensors":
        save_file(WEIGHTS, path)
    else:
        torch.save(WEIGHTS, path, _use_new_zipfile_serialization=False)
    report = loadstone.verify(path)
    assert (report.ok, report.checked) == (True, "structure")
    assert [found.code for found in report.diagnostics] == ["no-digest"]


def with_zeros(path: Path, tensor: torch.Tensor, start: int, stop: int) -> Path:
    save_file({"before": torch.ones(3), "w": tensor}, path)
    data = bytearray(path.read_bytes())
    data[start:stop] = bytes(stop - start)
    path.write_bytes(data)
    return path


def codes(path: Path) -> list[str]:
    return [found.code for found in loadstone.verify(path).diagnostics]


@pytest.mark.parametrize("nbytes", [4096, 8192, 65536])
def test_zeros_that_are_blocks_of_the_disk_look_like_a_hole(tmp_path, nbytes):
    path = with_zeros(tmp_path / "a.safetensors", torch.randn(300, 301), 40960, 40960 + nbytes)
    assert codes(path) == ["zero-hole", "no-digest"]


@pytest.mark.parametrize(("start", "stop"), [(40960, 40960 + 2048), (40960 + 64, 40960 + 8192), (40960, 40960 + 8000)])
def test_other_zeros_do_not(tmp_path, start, stop):
    assert codes(with_zeros(tmp_path / "a.safetensors", torch.randn(300, 301), start, stop)) == ["no-digest"]


def test_zero_rows_padding_and_sparse_weights_are_no_holes(tmp_path):
    path = tmp_path / "a.safetensors"
    rows, padded, pruned, blocks = (torch.randn(512, 1024) for _ in range(4))
    rows[7] = 0
    padded[500:] = 0
    pruned[torch.rand(512, 1024) < 0.9] = 0
    blocks.view(64, 8192)[::3] = 0
    save_file(
        {"rows": rows, "padded": padded, "pruned": pruned, "blocks": blocks, "zeros": torch.zeros(100, 1000)}, path
    )
    assert codes(path) == ["no-digest"]


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "net_epoch0001"
    write_folder({"epoch": 1, "model_state_dict": WEIGHTS, "optimizer_state_dict": {"m": torch.randn(50)}}, path)
    return path


def test_a_folder_is_whole_file_by_file(folder):
    report = loadstone.verify(folder)
    assert (report.ok, report.checked, report.tensors) == (True, "digest", 4)
    assert {file.name for file in report.files} == {file.name for file in folder.iterdir()}


def test_damage_in_a_shard_is_named_by_tensor(folder):
    shard = next(folder.glob("model-*.safetensors"))
    flip(shard, place_of(shard, WEIGHTS["fc.bias"]) + 3)
    report = loadstone.verify(folder)
    assert [found.keys for found in report.errors] == [("model_state_dict.fc.bias",)]
    assert [file.name for file in report.files if not file.ok] == [shard.name]


@pytest.mark.parametrize("name", ["loadstone.json", "training.json", "model.safetensors.index.json"])
def test_a_flipped_bit_in_what_holds_a_folder_together_is_found(folder, name):
    for at in range(0, (folder / name).stat().st_size, 97):
        before = (folder / name).read_bytes()
        flip(folder / name, at)
        report = loadstone.verify(folder)
        assert name in [file.name for file in report.files if not file.ok], at
        (folder / name).write_bytes(before)


def test_missing_short_and_foreign_files_of_a_folder_are_named(folder):
    shard, other = next(folder.glob("model-*.safetensors")), next(folder.glob("training-*.safetensors"))
    shard.unlink()
    data = other.read_bytes()
    other.unlink()
    other.write_bytes(data[:-4])
    (folder / "notes.txt").write_text("x")
    found = {each.code: each for each in loadstone.verify(folder).diagnostics}
    assert shard.name in found["missing-shard"].message
    assert found["truncated-file"].evidence[0][0] == "written"
    assert found["index-mismatch"].evidence == (("not listed", "notes.txt"),)


def test_an_index_and_its_shards_are_verified_file_by_file(tmp_path):
    for number, (key, tensor) in enumerate(WEIGHTS.items()):
        write_checkpoint({key: tensor}, tmp_path / f"model-{number}.safetensors")
    index = {"weight_map": {key: f"model-{number}.safetensors" for number, key in enumerate(WEIGHTS)}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    shard = tmp_path / "model-1.safetensors"
    assert loadstone.verify(tmp_path).ok
    flip(shard, place_of(shard, WEIGHTS["fc.weight"]) + 3)
    report = loadstone.verify(tmp_path)
    assert [file.name for file in report.files if not file.ok] == [str(shard)]
    assert [found.keys for found in report.errors] == [("fc.weight",)]


def test_what_is_no_checkpoint_cannot_be_verified(tmp_path):
    (tmp_path / "page.pth").write_text("<!DOCTYPE html><html></html>")
    with pytest.raises(loadstone.FormatError, match="not-a-checkpoint"):
        loadstone.verify(tmp_path / "page.pth")
    with pytest.raises(loadstone.MissingFileError):
        loadstone.verify(tmp_path / "nowhere.pth")
