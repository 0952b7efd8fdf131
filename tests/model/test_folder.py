"""Checkpoints as folders: what they hold, what they share, and what a fault leaves behind."""

from __future__ import annotations

import errno
import json
import math
import os
import shutil
import subprocess
import sys
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file
from torch import nn

import loadstone as ls
from loadstone.errors import IntegrityError, SaveError
from loadstone.io.disk import Disk, using
from loadstone.model.folder import write_folder


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.Linear(16, 4))


def checkpoint_of(model: nn.Module, epoch: int = 1) -> dict:
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.randn(4, 8)).sum().backward()
    optimizer.step()
    return {
        "epoch": epoch, "loss": math.nan, "model_state_dict": model.state_dict(),
        "optimizer_state_dict": optimizer.state_dict(),
        "rng_state": {"torch": torch.get_rng_state(), "python": (3, (1, 2))},
        "dtype": torch.float16, "device": torch.device("cpu"), "size": torch.Size([1, 2]),
    }  # fmt: skip


def hugging_face_state_dict(folder: Path) -> dict[str, torch.Tensor]:
    """What a loader of the usual index makes of the folder."""
    weight_map = json.loads((folder / "model.safetensors.index.json").read_text())["weight_map"]
    shards = {shard: load_file(folder / shard) for shard in set(weight_map.values())}
    return {key: shards[shard][key] for key, shard in weight_map.items()}


def assert_same_tensors(found, expected) -> None:
    assert list(found) == list(expected)
    for key, tensor in expected.items():
        assert found[key].dtype == tensor.dtype
        assert bits(found[key]) == bits(tensor), key


def bits(tensor: torch.Tensor) -> tuple[torch.Size, bytes]:
    """The shape and the values, so that a NaN equals itself and 0.0 is not -0.0."""
    flat = tensor.detach().contiguous().view(-1)
    return tensor.shape, bytes(flat.view(torch.uint8).numpy()) if flat.numel() else b""


def read(folder: Path) -> dict[str, torch.Tensor]:
    with ls.open(folder) as checkpoint:
        return {key: info.read() for key, info in checkpoint.tensors.items()}


def leftovers(folder: Path) -> list[str]:
    return [name for name in os.listdir(folder) if name.endswith(".partial")]


# --- what is in it ------------------------------------------------------------------------------------------------


def test_a_folder_gives_the_tree_that_a_pth_gives(tmp_path):
    content = checkpoint_of(network())
    write_folder(content, tmp_path / "net")
    torch.save(content, tmp_path / "net.pth")
    with ls.open(tmp_path / "net") as folder, ls.open(tmp_path / "net.pth") as file:
        assert folder.format == "folder"
        assert folder.weight_sets == file.weight_sets == ["model_state_dict"]
        assert list(folder.tree) == list(file.tree)
        for name in ("epoch", "dtype", "device", "size"):
            assert folder.tree[name] == file.tree[name]
        assert math.isnan(folder.tree["loss"])
        assert folder.tree["rng_state"]["python"] == (3, (1, 2))
        assert folder.tree["optimizer_state_dict"]["param_groups"] == file.tree["optimizer_state_dict"]["param_groups"]
        assert folder.tree["model_state_dict"].attributes == file.tree["model_state_dict"].attributes
        assert_same_tensors(
            {key: info.read() for key, info in folder.tensors.items()},
            {key: info.read() for key, info in file.tensors.items()},
        )


def test_the_manifest_names_every_tensor_and_what_it_holds(tmp_path):
    from loadstone.checks.fingerprints import differing

    saved = write_folder(checkpoint_of(network()), tmp_path / "net", metadata={"by": "me"}, training={"epoch": 1})
    with ls.open(saved.path) as checkpoint:
        assert checkpoint.manifest.tensors.keys() == checkpoint.tensors.keys()
        assert differing(checkpoint.manifest.tensors, checkpoint.tensors.values(), "net") == ([], [])
        assert checkpoint.manifest.training == {"epoch": 1}
        assert checkpoint.metadata == {"by": "me"}


def test_the_folder_before_is_named_with_its_digest(tmp_path):
    first = write_folder({"w": torch.zeros(3)}, tmp_path / "e1")
    second = write_folder({"w": torch.zeros(3)}, tmp_path / "e2", previous=first.path)
    with ls.open(second.path) as checkpoint:
        assert checkpoint.manifest.parent == {"name": "e1", "digest": first.digest}


def test_save_writes_a_folder(tmp_path):
    model = network()
    first = ls.save(model, tmp_path / "e1", layout="folder", metadata={"epoch": 1})
    second = ls.save(model, tmp_path / "e2", layout="folder", previous=first.path)
    assert second.linked_nbytes > 0
    assert ls.verify(second.path).ok
    with ls.open(first.path) as checkpoint:
        assert checkpoint.metadata == {"epoch": "1"}
        assert checkpoint.manifest.model["class"] == "torch.nn.modules.container.Sequential"


@pytest.mark.parametrize("options", [{"layout": "zip"}, {"previous": "e0"}])
def test_a_layout_that_is_none_is_refused(tmp_path, options):
    with pytest.raises(ls.RecipeError, match="invalid-option"):
        ls.save(network(), tmp_path / "net.pth", **options)
    assert os.listdir(tmp_path) == []


def test_the_model_is_what_any_loader_of_the_index_finds(tmp_path):
    model = network()
    write_folder(checkpoint_of(model), tmp_path / "net", model=model)
    assert_same_tensors(hugging_face_state_dict(tmp_path / "net"), model.state_dict())


def test_every_shard_opens_with_safetensors(tmp_path):
    content = checkpoint_of(network())
    write_folder(content, tmp_path / "net")
    found = {}
    for shard in tmp_path.glob("net/*.safetensors"):
        with safe_open(shard, "pt") as file:
            found |= {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    assert torch.equal(found["0.weight"], content["model_state_dict"]["0.weight"])
    exp_avg = content["optimizer_state_dict"]["state"][0]["exp_avg"]
    assert torch.equal(found["optimizer_state_dict.state.0.exp_avg"], exp_avg)


def test_a_model_loads_from_a_folder(tmp_path):
    model, other = network(), nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.Linear(16, 4))
    write_folder(checkpoint_of(model), tmp_path / "net")
    assert ls.load(other, tmp_path / "net").ok
    assert_same_tensors(other.state_dict(), model.state_dict())


def test_a_bare_state_dict_needs_no_tree(tmp_path):
    content = {"b": torch.zeros(2), "a": torch.ones(3)}
    write_folder(content, tmp_path / "net")
    assert not (tmp_path / "net" / "training.json").exists()
    assert_same_tensors(read(tmp_path / "net"), content)


@pytest.mark.parametrize(
    "tensor",
    [
        torch.arange(12.0).reshape(3, 4).t(), torch.zeros(1).expand(5), torch.zeros(0, 3), torch.tensor(3),
        torch.arange(6).to(torch.bfloat16), torch.arange(6.0).to(torch.float8_e4m3fn), torch.tensor([True, False]),
        torch.tensor([1 + 2j, 3 - 1j]).conj(), torch.randn(1, 2, 3, 4).to(memory_format=torch.channels_last),
    ],
    ids=["transposed", "expanded", "empty", "scalar", "bfloat16", "float8", "bool", "conj", "channels-last"],
)  # fmt: skip
def test_tensors_of_all_kinds_come_back(tmp_path, tensor):
    write_folder({"t": tensor, "u": torch.zeros(1)}, tmp_path / "net")
    assert_same_tensors(read(tmp_path / "net"), {"t": tensor.resolve_conj(), "u": torch.zeros(1)})


def test_tied_weights_are_written_for_each_key_and_said(tmp_path):
    weight = torch.arange(6.0)
    write_folder({"model_state_dict": {"a": weight, "b": weight, "c": torch.arange(6.0)}}, tmp_path / "net")
    assert json.loads((tmp_path / "net/loadstone.json").read_text())["aliases"] == [
        ["model_state_dict.a", "model_state_dict.b"]
    ]
    assert torch.equal(read(tmp_path / "net")["model_state_dict.b"], weight)


def test_an_ordered_dict_and_number_keys_survive(tmp_path):
    write_folder({"state": OrderedDict([(2, torch.ones(1)), (1, "x")]), "$odd": [1]}, tmp_path / "net")
    with ls.open(tmp_path / "net") as checkpoint:
        assert list(checkpoint.tree["state"]) == [2, 1]
        assert checkpoint.tree["$odd"] == [1]


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (torch.zeros(2, device="meta"), "meta"), (torch.eye(2).to_sparse(), "sparse_coo"),
        (torch.zeros(1, dtype=torch.complex128), "complex128"), (object(), "no plain data"), ({(1, 2): 3}, "a key of"),
    ],
    ids=["meta", "sparse", "complex128", "object", "tuple-key"],
)  # fmt: skip
def test_what_a_folder_cannot_hold_is_refused_before_anything_is_made(tmp_path, value, said):
    with pytest.raises(SaveError, match=said) as caught:
        write_folder({"state_dict": {"w": torch.zeros(1)}, "extra": value}, tmp_path / "net")
    assert "`extra`" in str(caught.value)
    assert os.listdir(tmp_path) == []


def test_metadata_that_is_no_json_is_refused_before_anything_is_made(tmp_path):
    with pytest.raises(SaveError, match="unsaveable-value"):
        write_folder({"w": torch.zeros(1)}, tmp_path / "net", metadata={"x": object()})
    assert os.listdir(tmp_path) == []


def test_shards_are_read_only_and_json_is_not(tmp_path):
    write_folder(checkpoint_of(network()), tmp_path / "net")
    for file in (tmp_path / "net").iterdir():
        assert bool(file.stat().st_mode & 0o222) == (file.suffix == ".json")


# --- what is shared -----------------------------------------------------------------------------------------------


def test_a_frozen_backbone_costs_its_bytes_once(tmp_path):
    model = nn.Sequential(nn.Linear(300, 300), nn.Linear(300, 2))
    ls.freeze(model, except_=["1"])
    first = write_folder({"epoch": 1, "model_state_dict": model.state_dict()}, tmp_path / "e1", model=model)
    with torch.no_grad():
        model[1].weight.add_(1)
    second = write_folder(
        {"epoch": 2, "model_state_dict": model.state_dict()}, tmp_path / "e2", model=model, previous=first.path
    )
    assert second.linked_nbytes > 300 * 300 * 4
    assert second.written_nbytes < 10_000
    assert_same_tensors(hugging_face_state_dict(tmp_path / "e2"), model.state_dict())


def test_a_linked_shard_is_read_back_once_and_a_written_one_once(tmp_path):
    class Counting(Disk):
        forgotten = 0

        def forget(self, descriptor: int) -> None:
            self.forgotten += 1
            super().forget(descriptor)

    content = {"a": torch.randn(100)}
    first = write_folder(content, tmp_path / "e1")
    counting = Counting()
    with using(counting):
        second = write_folder(content, tmp_path / "e2", previous=first.path)
    assert counting.forgotten == len(os.listdir(second.path))


def test_deleting_the_folder_before_harms_nothing(tmp_path):
    content = {"a": torch.randn(9), "b": torch.randn(9)}
    first = write_folder(content, tmp_path / "e1")
    second = write_folder(content, tmp_path / "e2", previous=first.path)
    shutil.rmtree(first.path)
    assert second.linked_nbytes > 0
    assert_same_tensors(read(second.path), content)


@pytest.mark.parametrize("harm", ["flip", "truncate", "remove", "symlink"])
def test_a_damaged_shard_is_never_linked_but_written_anew_and_said(tmp_path, harm):
    content = {"a": torch.randn(100)}
    first = write_folder(content, tmp_path / "e1")
    shard = next(first.path.glob("*.safetensors"))
    data = bytearray(shard.read_bytes())
    shard.unlink()
    if harm == "flip":
        data[-3] ^= 1
        shard.write_bytes(data)
    elif harm == "truncate":
        shard.write_bytes(data[:-8])
    elif harm == "symlink":
        (tmp_path / "aside").write_bytes(data)
        shard.symlink_to(tmp_path / "aside")
    second = write_folder(content, tmp_path / "e2", previous=first.path)
    assert (second.linked_nbytes, [each.code for each in second.diagnostics]) == (0, ["not-linked"])
    assert second.diagnostics[0].severity == "warning"
    assert_same_tensors(read(second.path), content)


def test_a_changed_value_behind_an_equal_shape_is_not_taken_for_the_same(tmp_path):
    first = write_folder({"a": torch.zeros(4), "b": torch.zeros(4)}, tmp_path / "e1")
    content = {"a": torch.zeros(4), "b": torch.tensor([0.0, 0.0, 0.0, -0.0])}
    second = write_folder(content, tmp_path / "e2", previous=first.path)
    assert_same_tensors(read(second.path), content)


@pytest.mark.parametrize("number", [errno.EXDEV, errno.EPERM, errno.EMLINK, errno.EOPNOTSUPP])
def test_where_links_are_refused_all_is_written_and_said(tmp_path, number):
    class NoLinks(Disk):
        def link(self, source: Path, target: Path) -> None:
            raise OSError(number, os.strerror(number))

    content = {"a": torch.randn(10)}
    first = write_folder(content, tmp_path / "e1")
    with using(NoLinks()):
        second = write_folder(content, tmp_path / "e2", previous=first.path)
    assert second.linked_nbytes == 0
    assert [(each.code, each.severity) for each in second.diagnostics] == [("not-linked", "note")]
    assert_same_tensors(read(second.path), content)


def test_what_is_no_folder_of_ours_is_not_linked_and_said(tmp_path):
    second = write_folder({"a": torch.zeros(1)}, tmp_path / "e2", previous=tmp_path / "gone")
    assert [each.code for each in second.diagnostics] == ["not-linked"]


SUBSETS = st.sets(st.sampled_from("abcdef"))


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(SUBSETS, SUBSETS), min_size=1, max_size=5), st.sets(st.integers(0, 5)))
def test_any_sequence_of_saves_reads_back_whole_whatever_is_deleted(tmp_path_factory, saves, deleted):
    """Each save changes some tensors and leaves some out; what has to be written is written, all else is linked."""
    home = tmp_path_factory.mktemp("run")
    values = {key: torch.randn(64) for key in "abcdef"}
    kept: list[tuple[Path, dict[str, torch.Tensor]]] = []
    for number, (changed, absent) in enumerate(saves):
        values |= {key: torch.randn(64) for key in sorted(changed)}
        content = {key: value.clone() for key, value in values.items() if key not in absent}
        if content:
            previous = kept[-1][0] if kept else None
            saved = write_folder({"n": number, "model_state_dict": content}, home / f"e{number}", previous=previous)
            if kept:
                assert linked_keys(saved.path, kept[-1][0]) == linkable_keys(content, *kept[-1])
            kept.append((saved.path, content))
    for number, (path, _) in enumerate(kept):
        if number in deleted:
            shutil.rmtree(path)
    for path, content in kept:
        if path.exists():
            assert_same_tensors(hugging_face_state_dict(path), content)
            assert_same_tensors(read(path), {f"model_state_dict.{key}": value for key, value in content.items()})


def shards_of(folder: Path) -> dict[str, set[str]]:
    """The model's keys by shard."""
    keys: dict[str, set[str]] = {}
    for key, shard in json.loads((folder / "model.safetensors.index.json").read_text())["weight_map"].items():
        keys.setdefault(shard, set()).add(key)
    return keys


def linked_keys(folder: Path, before: Path) -> set[str]:
    """Keys whose shard is one file with a shard of the folder before."""
    old = {(before / shard).stat().st_ino for shard in shards_of(before)}
    return {key for shard, keys in shards_of(folder).items() if (folder / shard).stat().st_ino in old for key in keys}


def linkable_keys(content: dict[str, torch.Tensor], before: Path, old: dict[str, torch.Tensor]) -> set[str]:
    """Keys in shards of the folder before of which every tensor is in `content` as it was."""
    same = {key for key in content.keys() & old.keys() if torch.equal(content[key], old[key])}
    return set().union(*(keys for keys in shards_of(before).values() if keys <= same))


def test_what_is_written_is_what_changed_and_what_falls_apart(tmp_path):
    content = {key: torch.randn(1000) for key in "abc"}
    first = write_folder(content, tmp_path / "e1")
    content["a"] = torch.randn(1000)
    second = write_folder(content, tmp_path / "e2", previous=first.path)  # the one shard falls in two
    assert second.linked_nbytes == 0
    content["a"] = torch.randn(1000)
    third = write_folder(content, tmp_path / "e3", previous=second.path)
    assert third.linked_nbytes > 8000
    assert 4000 < third.written_nbytes < 4000 + 2000


# --- whole or nothing ---------------------------------------------------------------------------------------------


def test_a_name_that_is_taken_is_refused_and_left_alone(tmp_path):
    for name in ("file", "folder"):
        (tmp_path / name).mkdir() if name == "folder" else (tmp_path / name).write_text("x")
        with pytest.raises(SaveError, match="destination-exists"):
            write_folder({"a": torch.zeros(1)}, tmp_path / name)
    assert leftovers(tmp_path) == []


def test_space_is_checked_before_a_shard_is_written(tmp_path):
    class Full(Disk):
        def free_nbytes(self, folder: Path) -> int:
            return 100

    with using(Full()), pytest.raises(SaveError, match="no-space") as caught:
        write_folder({"a": torch.zeros(1000)}, tmp_path / "net")
    assert ("free", "100 bytes") in caught.value.diagnostics[0].evidence
    assert os.listdir(tmp_path) == []


def test_links_need_no_space(tmp_path):
    class Nearly(Disk):
        def free_nbytes(self, folder: Path) -> int:
            return 1000

    content = {"a": torch.zeros(10_000)}
    first = write_folder(content, tmp_path / "e1")
    with using(Nearly()):
        assert write_folder(content, tmp_path / "e2", previous=first.path).linked_nbytes > 40_000


CALLS = ("create", "reserve", "write", "sync", "close", "make_folder", "sync_folder", "rename", "link")


class Failing(Disk):
    """Fails at the n-th of all its calls; n = 0 never."""

    def __init__(self, n: int, number: int) -> None:
        self.calls, self.n, self.number = 0, n, number


def _failing(name: str):
    def call(self: Failing, *arguments: object) -> object:
        self.calls += 1
        if self.calls == self.n:
            if name == "close":
                getattr(Disk, name)(self, *arguments)
            raise OSError(self.number, os.strerror(self.number))
        return getattr(Disk, name)(self, *arguments)

    return call


for _name in CALLS:
    setattr(Failing, _name, _failing(_name))


def outcome(content: dict, path: Path, previous: Path) -> str:
    """The code of the error, or "saved"."""
    try:
        write_folder(content, path, previous=previous)
    except SaveError as error:
        return error.code
    return "saved"


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EROFS, errno.EACCES])
def test_whichever_call_fails_nothing_is_left_and_the_folder_before_is_whole(tmp_path, number):
    content = {"epoch": 1, "model_state_dict": {"a": torch.randn(8), "b": torch.randn(8)}}
    first = write_folder(content, tmp_path / "e1")
    content["model_state_dict"]["b"] = torch.randn(8)
    second = write_folder(content, tmp_path / "e2", previous=first.path)
    before = read(second.path)
    content["model_state_dict"]["b"] = torch.randn(8)
    counting = Failing(0, number)
    with using(counting):
        write_folder(content, tmp_path / "e3", previous=second.path)
    for n in range(1, counting.calls + 1):
        path = tmp_path / f"f{n}"
        with using(Failing(n, number)):
            code = outcome(content, path, second.path)
        assert code in ("no-space", "save-failed", "saved")
        is_there = code == "saved" or n == counting.calls  # the last call is the flush of the parent
        assert path.exists() == is_there
        if is_there:
            assert_same_tensors(hugging_face_state_dict(path), content["model_state_dict"])
        assert leftovers(tmp_path) == []
    assert_same_tensors(read(second.path), before)


def test_bytes_that_read_back_otherwise_are_not_kept(tmp_path):
    class Flipping(Disk):
        def write(self, descriptor: int, data) -> int:
            damaged = bytearray(data)
            damaged[-1] ^= 1
            return super().write(descriptor, bytes(damaged))

    with using(Flipping()), pytest.raises(SaveError, match="verification-failed"):
        write_folder({"a": torch.zeros(10)}, tmp_path / "net")
    assert os.listdir(tmp_path) == []


def test_short_writes_are_carried_on(tmp_path):
    class Short(Disk):
        def write(self, descriptor: int, data) -> int:
            return super().write(descriptor, bytes(data[:7]))

    with using(Short()):
        write_folder({"a": torch.arange(10.0)}, tmp_path / "net")
    assert torch.equal(read(tmp_path / "net")["a"], torch.arange(10.0))


KILLED = """
import os, signal, sys, torch
from pathlib import Path
from loadstone.io.disk import Disk, using
from loadstone.model.folder import write_folder

class Killing(Disk):
    def sync_folder(self, path):
        os.kill(os.getpid(), signal.SIGKILL)

with using(Killing()):
    write_folder({"a": torch.zeros(10)}, Path(sys.argv[1]) / "net")
"""


def test_a_killed_save_leaves_a_partial_that_no_reader_takes_and_the_next_save_sweeps(tmp_path):
    done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], check=False)
    assert done.returncode == -9
    assert len(leftovers(tmp_path)) == 1
    assert not (tmp_path / "net").exists()
    write_folder({"a": torch.ones(10)}, tmp_path / "net")
    assert os.listdir(tmp_path) == ["net"]


def test_a_partial_that_is_being_written_is_not_swept(tmp_path):
    from loadstone.writing.folder import new_folder

    def overtaken() -> None:
        with new_folder(tmp_path / "net") as folder:
            write_folder({"a": torch.ones(10)}, tmp_path / "net")  # another save to the same name, which is quicker
            assert folder.path.is_dir()

    with pytest.raises(SaveError, match="destination-exists"):
        overtaken()
    assert os.listdir(tmp_path) == ["net"]


# --- what reading refuses -----------------------------------------------------------------------------------------


@pytest.fixture
def saved(tmp_path) -> Path:
    return write_folder(checkpoint_of(network()), tmp_path / "net").path


def test_a_missing_shard_is_named(saved):
    next(saved.glob("model-*")).unlink()
    with pytest.raises(IntegrityError, match=r"missing-shard.*`model-00001-of-00001\.safetensors` is not in"):
        ls.open(saved)


def test_a_shard_of_another_size_is_named(saved):
    shard = next(saved.glob("training-*"))
    shard.chmod(0o644)
    shard.write_bytes(shard.read_bytes()[:-1])
    with pytest.raises(IntegrityError, match=r"truncated-file.*`training-00001-of-"):
        ls.open(saved)


@pytest.mark.parametrize("name", ["training.json", "model.safetensors.index.json"])
def test_a_flipped_bit_in_the_json_is_found(saved, name):
    data = bytearray((saved / name).read_bytes())
    data[len(data) // 2] ^= 1
    (saved / name).write_bytes(data)
    with pytest.raises(IntegrityError, match="bad-digest"):
        ls.open(saved)


def test_a_damaged_manifest_is_a_warning_and_the_weights_are_read(saved):
    data = bytearray((saved / "loadstone.json").read_bytes())
    data[len(data) // 2] ^= 1
    (saved / "loadstone.json").write_bytes(data)
    with ls.open(saved) as checkpoint:
        assert checkpoint.manifest is None
        assert [each.code for each in checkpoint.diagnostics if each.severity == "warning"] == ["invalid-manifest"]
        assert checkpoint.weights["0.weight"].read().shape == (16, 8)


def test_a_shard_that_is_not_listed_is_said_and_not_read(saved):
    shutil.copy(next(saved.glob("model-*")), saved / "model-00009-of-00009.safetensors")
    with ls.open(saved) as checkpoint:
        assert "index-mismatch" in [each.code for each in checkpoint.diagnostics]


@pytest.mark.parametrize(
    "change",
    [
        {"weight_map": {"a": ["x"]}}, {"weight_map": []}, {"tree": {"$weight": []}}, {"tree": {"$tensor": "gone"}},
        {"tree": {"$dict": [[[], 1]]}}, {"weight_map": {"a": "../x"}}, {"weight_map": {"a": "training.json"}},
    ],
    ids=str,
)  # fmt: skip
def test_a_tree_that_nothing_wrote_is_an_error_of_ours(saved, change):
    document = json.loads((saved / "training.json").read_text()) | change
    (saved / "training.json").write_text(json.dumps(document))
    (saved / "loadstone.json").write_text("{}")  # so that no digest stands in the way
    with pytest.raises(ls.LoadstoneError), ls.open(saved) as checkpoint:
        checkpoint.tensors  # noqa: B018


def test_a_name_that_leads_out_of_the_folder_is_refused(saved):
    from loadstone.writing.folder import sealed

    document = json.loads((saved / "loadstone.json").read_text())
    document["files"]["../../etc/passwd"] = [1, document["file"]]
    del document["file"]
    (saved / "loadstone.json").write_bytes(sealed(json.dumps(document))[0])
    with pytest.raises(ls.UnsafeError, match="unsafe-path"):
        ls.open(saved)
