"""Whatever tensors share, in whatever layout, comes back from a file to the bit; torch, safetensors and zip agree."""

from __future__ import annotations

import subprocess
import zipfile
from collections import Counter, OrderedDict
from pathlib import Path
from typing import Any

import pytest
import safetensors
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import loadstone as ls
from loadstone.checks.fingerprints import digest_of
from loadstone.checks.marks import digest_now, mark_of

DTYPES = (
    torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2, torch.int8,
    torch.uint8, torch.int16, torch.uint16, torch.int64, torch.bool, torch.complex64, torch.complex128,
)  # fmt: skip
CAN_BE_NEGATED = (torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.complex64)
OWN_NAMES = {torch.complex128}  # safetensors has none for it

VIEWS = {
    "whole": lambda base: base,
    "transposed": lambda base: base.t(),
    "column": lambda base: base[:, 1],
    "row": lambda base: base[2],
    "corner": lambda base: base[1:2, :2],
    "steps": lambda base: base[::2],
    "number": lambda base: base[3, 3],
    "empty": lambda base: base[3:3],
    "expanded": lambda base: base[0, :1].expand(5),
    "conjugated": lambda base: base.conj(),
    "negated": lambda base: torch._neg_view(base) if base.dtype in CAN_BE_NEGATED else base,
}


def bits(tensor: torch.Tensor) -> bytes:
    dense = tensor.detach().resolve_conj().resolve_neg().contiguous().clone()
    return bytes(dense.untyped_storage())


@st.composite
def states(draw: st.DrawFn) -> dict[str, torch.Tensor]:
    """Some storages of several kinds, and views into them in any order."""
    bases = []
    for _ in range(draw(st.integers(1, 3))):
        dtype = draw(st.sampled_from(DTYPES))
        rows = draw(st.sampled_from([4, 300]))  # the larger one is worth cutting
        bases.append(torch.randint(0, 2, (rows, 4)).to(dtype))
    names = draw(st.lists(st.tuples(st.sampled_from(range(len(bases))), st.sampled_from(sorted(VIEWS))), max_size=7))
    return {f"{number}.{name}": VIEWS[name](bases[which]) for number, (which, name) in enumerate(names)}


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(states())
def test_torch_files_keep_values_strides_and_sharing(tmp_path: Path, state: dict[str, torch.Tensor]) -> None:
    saved = ls.save(state, tmp_path / "m.pth", verify=False)
    for options in ({"weights_only": True}, {"weights_only": False}, {"weights_only": True, "mmap": True}):
        loaded = torch.load(tmp_path / "m.pth", **options)
        assert list(loaded) == list(state)
        for key, tensor in state.items():
            assert (loaded[key].dtype, loaded[key].shape) == (tensor.dtype, tensor.shape)
            assert loaded[key].stride() == tensor.stride()
            assert bits(loaded[key]) == bits(tensor), key
        for one in state:
            for other in state:
                are_shared = state[one].untyped_storage()._cdata == state[other].untyped_storage()._cdata
                now = loaded[one].untyped_storage()._cdata == loaded[other].untyped_storage()._cdata
                assert now == are_shared
                if are_shared and state[one].numel() and state[other].numel():
                    overlap = state[one].data_ptr() == state[other].data_ptr()
                    assert (loaded[one].data_ptr() == loaded[other].data_ptr()) == overlap
    assert zipfile.ZipFile(tmp_path / "m.pth").testzip() is None
    _says_the_truth(tmp_path / "m.pth", saved.digest)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(states())
def test_safetensors_files_keep_values(tmp_path: Path, state: dict[str, torch.Tensor]) -> None:
    state = {key: tensor for key, tensor in state.items() if tensor.dtype not in OWN_NAMES}
    saved = ls.save(state, tmp_path / "m.safetensors", verify=False)
    with safetensors.safe_open(tmp_path / "m.safetensors", "pt") as file:
        assert set(file.keys()) == set(state)
        for key, tensor in state.items():
            loaded = file.get_tensor(key)
            assert (loaded.dtype, loaded.shape, bits(loaded)) == (tensor.dtype, tensor.shape, bits(tensor)), key
    _says_the_truth(tmp_path / "m.safetensors", saved.digest)


def _says_the_truth(path: Path, digest: str) -> None:
    """The digest of the file, and keys and digests of its tensors, as readers of the file compute them."""
    mark = mark_of(path)
    assert mark is not None
    assert mark.digest == digest == digest_now(path, mark)
    with ls.open(path) as checkpoint:
        assert checkpoint.manifest is not None
        assert set(checkpoint.manifest.tensors) == set(checkpoint.tensors)
        for key, info in checkpoint.tensors.items():
            said = checkpoint.manifest.tensors[key]
            assert (said.dtype, said.shape) == (info.dtype, info.shape)
            assert digest_of(info) in (said.digest, None), key


def test_what_lies_beside_a_small_view_is_not_written(tmp_path: Path) -> None:
    base = torch.randn(1000, 1000)
    views = {"a": base[3:5], "b": base[3, 5:9], "c": base[900:901, :3].t()}
    saved = ls.save(views, tmp_path / "m.pth")
    assert saved.nbytes < 20_000
    assert [note.code for note in saved.diagnostics] == ["oversized-storage"]
    loaded = torch.load(tmp_path / "m.pth", weights_only=True)
    assert all(torch.equal(loaded[key], views[key]) for key in views)
    loaded["a"][0, 5] = 7
    assert loaded["b"][0] == 7


def test_memory_seen_with_two_dtypes_is_written_for_each(tmp_path: Path) -> None:
    base = torch.randn(4, dtype=torch.complex64)
    ls.save({"complex": base, "real": torch.view_as_real(base), "bits": base.view(torch.int64)}, tmp_path / "m.pth")
    loaded = torch.load(tmp_path / "m.pth", weights_only=True)
    assert torch.equal(loaded["complex"], base)
    assert torch.equal(loaded["real"], torch.view_as_real(base))
    assert torch.equal(loaded["bits"], base.view(torch.int64))


@pytest.mark.filterwarnings("ignore:.*:UserWarning")  # torch on sparse, quantised and typed storages
def test_tensors_that_are_not_dense_come_back_from_torch_files(tmp_path: Path) -> None:
    state = {
        "sparse": torch.eye(3).to_sparse(),
        "csr": torch.eye(3).to_sparse_csr(),
        "quantised": torch.quantize_per_tensor(torch.tensor([0.1, 0.4]), 0.1, 0, torch.qint8),
        "parameter": torch.nn.Parameter(torch.ones(2)),
        "leaf": torch.ones(2, requires_grad=True),
    }
    ls.save(state, tmp_path / "m.pth")
    loaded = torch.load(tmp_path / "m.pth", weights_only=True)
    assert torch.equal(loaded["sparse"].to_dense(), torch.eye(3))
    assert torch.equal(loaded["csr"].to_dense(), torch.eye(3))
    assert torch.equal(loaded["quantised"].dequantize(), state["quantised"].dequantize())
    assert isinstance(loaded["parameter"], torch.nn.Parameter)
    assert loaded["leaf"].requires_grad


def test_every_kind_of_plain_value_comes_back(tmp_path: Path) -> None:
    shared = [1, 2]
    content: dict[str, Any] = {
        "ordered": OrderedDict(a=1), "counter": Counter("aab"), "set": {1, 2}, "tuple": (1, (2.5, None)),
        "bytes": b"\x00\xff", "array": bytearray(b"x"), "complex": 1 + 2j, "big": 2**80, "dtype": torch.bfloat16,
        "device": torch.device("cpu"), "size": torch.Size([2, 3]), "nan": float("inf"), "one": shared, "two": shared,
        3: "number", "deep": {"x": [torch.ones(1), {"y": torch.zeros(2)}]},
    }  # fmt: skip
    ls.save(content, tmp_path / "m.pth")
    loaded = torch.load(tmp_path / "m.pth", weights_only=True)
    assert {key: loaded[key] for key in content if key != "deep"} == {
        key: value for key, value in content.items() if key != "deep"
    }
    assert loaded["one"] is loaded["two"]
    with ls.open(tmp_path / "m.pth") as checkpoint:
        assert checkpoint.manifest is not None
        assert list(checkpoint.manifest.tensors) == list(checkpoint.tensors) == ["deep.x.0", "deep.x.1.y"]


def test_unzip_finds_no_errors(tmp_path: Path) -> None:
    ls.save({"a": torch.randn(100, 100)}, tmp_path / "m.pth")
    try:
        done = subprocess.run(["unzip", "-tq", tmp_path / "m.pth"], capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip("unzip is not installed")
    assert done.returncode == 0, done.stdout


def test_a_real_network_in_channels_last_comes_back(tmp_path: Path) -> None:
    import torchvision

    model = torchvision.models.densenet121().to(memory_format=torch.channels_last)
    state = model.state_dict()
    ls.save(model, tmp_path / "m.pth")
    loaded = torch.load(tmp_path / "m.pth", weights_only=True)
    assert all(torch.equal(state[key], loaded[key]) for key in state)
    assert all(state[key].stride() == loaded[key].stride() for key in state)
    with ls.open(tmp_path / "m.pth") as checkpoint:
        assert checkpoint.manifest is not None
        said = checkpoint.manifest.model
        assert said["class"] == "torchvision.models.densenet.DenseNet"
        assert said["parameters"] == said["trainable"] == sum(each.numel() for each in model.parameters())
