"""What Loadstone writes opens with plain torch and safetensors, and is whole or not there."""

from __future__ import annotations

import json
import os
import resource
import signal
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import loadstone as ls


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".bin", ".ckpt", ".tar", ".pth.tar"])
def test_torch_loads_the_state_dict_with_weights_only(suffix: str, small: nn.Module, tmp_path: Path) -> None:
    path = tmp_path / f"m{suffix}"
    ls.save(small, path)
    loaded = torch.load(path, weights_only=True)
    assert type(loaded) is OrderedDict
    assert list(loaded) == list(small.state_dict())
    assert loaded._metadata["norm"]["version"] == 2
    assert all(torch.equal(value, loaded[key]) for key, value in small.state_dict().items())
    assert loaded["embed.weight"].data_ptr() == loaded["head.weight"].data_ptr()


def test_safetensors_opens_with_every_key_of_a_tie(small: nn.Module, tmp_path: Path) -> None:
    ls.save(small, tmp_path / "m.safetensors", metadata={"epoch": 3, "note": "α"})
    loaded = safetensors.torch.load_file(tmp_path / "m.safetensors")
    assert set(loaded) == set(small.state_dict())
    assert all(torch.equal(value, loaded[key]) for key, value in small.state_dict().items())
    with safetensors.safe_open(tmp_path / "m.safetensors", "pt") as file:
        assert {"format": "pt", "epoch": "3", "note": "α"}.items() <= file.metadata().items()


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_round_trip_through_load(suffix: str, small: nn.Module, trained: nn.Module, tmp_path: Path) -> None:
    ls.save(trained, tmp_path / f"m{suffix}")
    ls.load(small, tmp_path / f"m{suffix}")
    assert all(torch.equal(value, small.state_dict()[key]) for key, value in trained.state_dict().items())


def test_views_strides_and_lazy_bits_are_written_as_values(tmp_path: Path) -> None:
    base = torch.arange(24.0).reshape(4, 6)
    state = {
        "transposed": base.t(),
        "column": base[:, 2],
        "expanded": torch.ones(1).expand(3),
        "number": torch.tensor(2, dtype=torch.int16),
        "empty": torch.zeros(0, 3),
        "conjugated": torch.randn(2, dtype=torch.complex64).conj(),
        "small": torch.tensor([1.0, 2.0]).to(torch.float8_e4m3fn),
    }
    ls.save(state, tmp_path / "m.safetensors")
    loaded = safetensors.torch.load_file(tmp_path / "m.safetensors")
    for key, value in state.items():
        assert loaded[key].dtype == value.dtype
        assert torch.equal(loaded[key].to(torch.complex64), value.to(torch.complex64)), key


plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**40), 2**40) | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=25, deadline=None)
@given(st.dictionaries(st.text(max_size=4), plain, max_size=3))
def test_nested_plain_data_comes_back_equal(tmp_path_factory: pytest.TempPathFactory, content: dict[str, Any]) -> None:
    path = tmp_path_factory.mktemp("plain") / "m.pth"
    ls.save(content, path)
    assert torch.load(path, weights_only=True) == content


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (object(), "`a.b` is a object"),
        (nn.Linear(1, 1), "`a.b` is a Linear"),
        (torch.zeros(2, device="meta"), "`a.b` is on the meta device"),
        (lambda: None, "`a.b` is a function"),
    ],
)
def test_values_that_are_no_plain_data_are_refused_by_name(value: object, says: str, tmp_path: Path) -> None:
    with pytest.raises(ls.SaveError, match=f"unsaveable-value.*{says}"):
        ls.save({"a": {"b": value}}, tmp_path / "m.pth")
    assert os.listdir(tmp_path) == []


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor:UserWarning")
@pytest.mark.parametrize(
    "make",
    [
        lambda: torch.zeros(2, device="meta"),
        lambda: torch.zeros(2, 2).to_sparse(),
        lambda: torch.quantize_per_tensor(torch.zeros(2), 0.1, 0, torch.qint8),
        lambda: torch.zeros(2, dtype=torch.complex128),
        lambda: 3,
    ],
    ids=["meta", "sparse", "quantised", "complex128", "number"],
)
def test_safetensors_refuses_by_name_what_it_cannot_hold(make: Callable[[], object], tmp_path: Path) -> None:
    with pytest.raises(ls.SaveError, match=r"unsaveable-value.*`layer.weight`"):
        ls.save({"layer.weight": make()}, tmp_path / "m.safetensors")
    assert os.listdir(tmp_path) == []


def test_unknown_suffix_names_the_known_ones(small: nn.Module, tmp_path: Path) -> None:
    with pytest.raises(ls.SaveError, match=r"\.pth \.pt \.bin \.ckpt \.tar \.safetensors"):
        ls.save(small, tmp_path / "m.xyz")


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_metadata_comes_back_in_both_formats(suffix: str, small: nn.Module, tmp_path: Path) -> None:
    ls.save(small, tmp_path / f"m{suffix}", metadata={"epoch": 3, "note": "α"})
    with ls.open(tmp_path / f"m{suffix}") as checkpoint:
        assert checkpoint.manifest is not None
        assert checkpoint.manifest.metadata == {"epoch": 3, "note": "α"}
        assert {"epoch": "3", "note": "α"}.items() <= checkpoint.metadata.items()


def test_metadata_that_is_no_json_is_refused(small: nn.Module, tmp_path: Path) -> None:
    with pytest.raises(ls.SaveError, match="JSON"):
        ls.save(small, tmp_path / "m.safetensors", metadata={"model": small})


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_full_disk_leaves_the_old_file_and_no_litter(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"m{suffix}"
    ls.save({"a": torch.zeros(3)}, path)
    before = path.read_bytes()
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, old[1]))  # the kernel refuses more, as a full disk does
    try:
        with pytest.raises(ls.SaveError, match="no-space"):
            ls.save({"a": torch.zeros(1_000_000)}, path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
        signal.signal(signal.SIGXFSZ, handler)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == [path.name]


def test_header_is_aligned_for_other_readers(tmp_path: Path) -> None:
    ls.save({"b": torch.zeros(3, dtype=torch.int8), "a": torch.zeros(2)}, tmp_path / "m.safetensors")
    data = (tmp_path / "m.safetensors").read_bytes()
    length = int.from_bytes(data[:8], "little")
    assert length % 8 == 0
    assert json.loads(data[8 : 8 + length])["a"]["data_offsets"] == [0, 8]
