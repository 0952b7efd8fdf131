"""Directories in the Hugging Face layout: whole, incomplete, contradictory and hostile."""

from __future__ import annotations

import json
import shutil
import warnings
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from loadstone.errors import FormatError, IntegrityError, LoadstoneError, UnsafeError
from loadstone.formats import sharded
from loadstone.formats.contents import Contents, Context
from loadstone.formats.members import member_path
from loadstone.formats.registry import open_source

ONE, TWO = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
INDEX = "model.safetensors.index.json"


def read(path: Path) -> Contents:
    assert sharded.recognises_directory(path)
    return sharded.read_directory(path, Context(open_source))


def write(directory: Path, shards: dict[str, dict[str, torch.Tensor]], index: dict[str, str] | None) -> Path:
    directory.mkdir(exist_ok=True)
    for name, tensors in shards.items():
        (save_file if name.endswith(".safetensors") else torch.save)(tensors, directory / name)
    if index is not None:
        (directory / INDEX).write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": index}))
    return directory


def two_shards(directory: Path, index: dict[str, str] | None) -> Path:
    shards = {ONE: {"a": torch.tensor([1.0]), "b": torch.tensor([2.0])}, TWO: {"c": torch.tensor([3.0])}}
    return write(directory, shards, index)


def codes(contents: Contents) -> list[tuple[str, str]]:
    return [(one.code, one.severity) for one in contents.diagnostics]


def test_index_gives_the_tensors_of_all_shards_in_its_order(tmp_path: Path) -> None:
    contents = read(two_shards(tmp_path, {"c": TWO, "a": ONE, "b": ONE}))
    assert {key: info.read().item() for key, info in contents.tree.items()} == {"c": 3.0, "a": 1.0, "b": 2.0}
    assert list(contents.tree) == ["c", "a", "b"]
    assert (contents.format, contents.weights, contents.diagnostics) == ("sharded", (), ())


def test_path_of_the_index_itself_is_read(tmp_path: Path) -> None:
    two_shards(tmp_path, {"c": TWO, "a": ONE, "b": ONE})
    assert list(read(tmp_path / INDEX).tree) == ["c", "a", "b"]


def test_numbered_shards_without_an_index_are_read(tmp_path: Path) -> None:
    assert sorted(read(two_shards(tmp_path, None)).tree) == ["a", "b", "c"]


def test_gap_in_the_numbering_is_a_missing_shard(tmp_path: Path) -> None:
    (two_shards(tmp_path, None) / ONE).unlink()
    with pytest.raises(IntegrityError, match=rf"missing-shard.*holds 1 of 2 shards, `{ONE}` is not there"):
        read(tmp_path)


def test_missing_shard_is_named_with_its_share_of_tensors(tmp_path: Path) -> None:
    (two_shards(tmp_path, {"a": ONE, "b": ONE, "c": TWO}) / ONE).unlink()
    with pytest.raises(IntegrityError, match=rf"missing-shard.*`{ONE}` is not in .*: 2 of 3 tensors are in it"):
        read(tmp_path)


def test_tensor_in_no_shard_is_an_error_with_its_key(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=r"index-mismatch.*1 of 4 tensors") as raised:
        read(two_shards(tmp_path, {"a": ONE, "b": ONE, "c": TWO, "lost": TWO}))
    assert raised.value.diagnostics[0].keys == ("lost",)


def test_tensor_in_another_shard_is_read_with_a_warning(tmp_path: Path) -> None:
    contents = read(two_shards(tmp_path, {"a": ONE, "b": TWO, "c": TWO}))
    assert contents.tree["b"].read().item() == 2.0
    assert codes(contents) == [("index-mismatch", "warning")]
    assert contents.diagnostics[0].evidence == (("b", f"in `{ONE}`, the index says `{TWO}`"),)


def test_tensor_that_the_index_leaves_out_is_read_with_a_note(tmp_path: Path) -> None:
    contents = read(two_shards(tmp_path, {"a": ONE, "c": TWO}))
    assert list(contents.tree) == ["a", "c", "b"]
    assert codes(contents) == [("index-mismatch", "note")]


def test_tensor_in_two_shards_is_taken_where_the_index_says(tmp_path: Path) -> None:
    shards = {ONE: {"a": torch.tensor([1.0]), "b": torch.ones(1)}, TWO: {"a": torch.tensor([2.0])}}
    contents = read(write(tmp_path, shards, {"a": TWO, "b": ONE}))
    assert contents.tree["a"].read().item() == 2.0
    assert codes(contents) == [("index-mismatch", "warning")]
    assert contents.diagnostics[0].keys == ("a",)


@pytest.mark.parametrize(
    "name", ["../secret.safetensors", "/etc/hosts", "sub/x.safetensors", "..", "", "a\\b", "c:x", "a\0b", 3, None]
)
def test_name_that_is_no_plain_file_name_is_unsafe(tmp_path: Path, name: object) -> None:
    save_file({"a": torch.ones(1)}, tmp_path / "secret.safetensors")
    directory = write(tmp_path / "model", {}, {"a": name})  # type: ignore[dict-item]
    with pytest.raises(UnsafeError, match=r"unsafe-path"):
        read(directory)


def test_half_a_character_in_a_name_is_unsafe(tmp_path: Path) -> None:
    with pytest.raises(UnsafeError, match=r"unsafe-path"):
        member_path(tmp_path, "\ud800")  # JSON with it is refused before, a pickle can hold it


def test_name_that_is_too_long_for_a_file_is_a_missing_shard(tmp_path: Path) -> None:
    directory = write(tmp_path / "model", {}, {"a": "x" * 5000})
    with pytest.raises(IntegrityError, match=r"missing-shard"):
        read(directory)


def test_link_out_of_the_directory_is_unsafe(tmp_path: Path) -> None:
    save_file({"a": torch.ones(1)}, tmp_path / "secret.safetensors")
    directory = write(tmp_path / "model", {}, {"a": ONE})
    (directory / ONE).symlink_to(tmp_path / "secret.safetensors")
    with pytest.raises(UnsafeError, match=r"unsafe-path.*a link that leads to"):
        read(directory)


def test_links_of_a_hub_cache_into_its_blobs_are_followed(tmp_path: Path) -> None:
    directory = two_shards(tmp_path / "whole", {"a": ONE, "b": ONE, "c": TWO})
    snapshot, blobs = tmp_path / "models--x--y" / "snapshots" / "0123", tmp_path / "models--x--y" / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    for file in directory.iterdir():
        shutil.copy(file, blobs / f"hash-of-{file.name}")
        (snapshot / file.name).symlink_to(Path("../../blobs") / f"hash-of-{file.name}")
    assert sorted(read(snapshot).tree) == ["a", "b", "c"]


@pytest.mark.parametrize("text", ['{"weight_map": {}}', '{"weight_map": []}', "{}", "[]", '{"weight_map": 1', ""])
def test_index_without_a_map_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / INDEX).write_text(text)
    with pytest.raises(FormatError, match=r"header-invalid"):
        read(tmp_path)


def test_key_twice_in_the_index_is_refused(tmp_path: Path) -> None:
    two_shards(tmp_path, None)
    (tmp_path / INDEX).write_text(f'{{"weight_map": {{"a": "{ONE}", "a": "{TWO}"}}}}')
    with pytest.raises(FormatError, match=r"the name 'a' stands twice"):
        read(tmp_path)


def test_single_file_is_read_as_what_it_is(tmp_path: Path) -> None:
    contents = read(write(tmp_path, {"model.safetensors": {"a": torch.ones(1)}}, None))
    assert (contents.format, list(contents.tree)) == ("safetensors", ["a"])


def test_safetensors_are_preferred_to_bin_and_that_is_said(tmp_path: Path) -> None:
    shards = {"model.safetensors": {"a": torch.ones(1)}, "pytorch_model.bin": {"b": torch.ones(1)}}
    contents = read(write(tmp_path, shards, None))
    assert list(contents.tree) == ["a"]
    assert codes(contents) == [("several-copies", "note")]
    assert "`model.safetensors`, not from `pytorch_model.bin`" in contents.diagnostics[0].message


def test_shards_of_bin_files_are_read(tmp_path: Path) -> None:
    names = ("pytorch_model-00001-of-00002.bin", "pytorch_model-00002-of-00002.bin")
    write(tmp_path, {names[0]: {"a": torch.ones(1)}, names[1]: {"b": torch.ones(2)}}, None)
    (tmp_path / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": {"a": names[0], "b": names[1]}}))
    contents = read(tmp_path)
    assert {key: info.shape for key, info in contents.tree.items()} == {"a": (1,), "b": (2,)}


def test_training_arguments_are_not_taken_for_weights(tmp_path: Path) -> None:
    write(tmp_path, {"training_args.bin": {"a": torch.ones(1)}}, None)
    assert not sharded.recognises_directory(tmp_path)


def test_damaged_shard_is_reported_by_its_own_reader(tmp_path: Path) -> None:
    file = two_shards(tmp_path, {"a": ONE, "b": ONE, "c": TWO}) / TWO
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(LoadstoneError, match=rf"truncated-file.*{TWO}"):
        read(tmp_path)


def sharded_by_rank(directory: Path, offsets: dict[str, list[int]]) -> Path:
    """Files as two ranks write them with HuggingFaceStorageWriter(save_distributed=True)."""
    directory.mkdir(exist_ok=True)
    for rank, (name, place) in enumerate(offsets.items()):
        info = json.dumps({"w": {"saved_offsets": place}})
        values = torch.arange(6.0).reshape(2, 3) + 6 * rank
        save_file({"w": values}, directory / name, {"DCP_SHARDING_INFO": info, "DCP_VERSION": "1.0"})
    return directory


SHARDS = ("shard-00001-model-00001-of-00001.safetensors", "shard-00002-model-00001-of-00001.safetensors")


def test_chunks_of_several_ranks_become_one_tensor(tmp_path: Path) -> None:
    info = read(sharded_by_rank(tmp_path, {SHARDS[0]: [0, 0], SHARDS[1]: [2, 0]})).tree["w"]
    assert (info.layout, info.shape) == ("chunked", (4, 3))
    assert torch.equal(info.read(), torch.arange(12.0).reshape(4, 3))


@pytest.mark.parametrize("place", [[3, 0], [1, 0], [2, 1]])
def test_chunks_with_a_hole_or_an_overlap_are_refused(tmp_path: Path, place: list[int]) -> None:
    with pytest.raises(FormatError, match=r"do not fill its shape"):
        read(sharded_by_rank(tmp_path, {SHARDS[0]: [0, 0], SHARDS[1]: place}))


@pytest.mark.parametrize("place", [[-1, 0], [0], [True, 0], "00", None])
def test_chunk_without_a_place_is_refused(tmp_path: Path, place: object) -> None:
    with pytest.raises(FormatError, match=r"header-invalid"):
        read(sharded_by_rank(tmp_path, {SHARDS[0]: [0, 0], SHARDS[1]: place}))  # type: ignore[dict-item]


@pytest.mark.parametrize("by_rank", [True, False])
def test_what_torchs_writer_makes_is_read(tmp_path: Path, by_rank: bool) -> None:
    import torch.distributed.checkpoint as dcp

    state = {"w": torch.arange(12.0).reshape(3, 4), "b": torch.ones(3, dtype=torch.bfloat16)}
    writer = dcp.HuggingFaceStorageWriter(
        str(tmp_path), fqn_to_index_mapping={"w": 1, "b": 2}, save_distributed=by_rank
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own, about saving without a process group
        dcp.save(state, storage_writer=writer)
    tree = read(tmp_path).tree
    assert tree.keys() == state.keys()
    assert all(torch.equal(info.read(), state[key]) for key, info in tree.items())
