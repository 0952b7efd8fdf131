"""Checkpoints inside gzip: read through, bounded while they expand."""

from __future__ import annotations

import gzip
import io
import tarfile
import tracemalloc
from pathlib import Path

import pytest
import torch
from safetensors.torch import save

from loadstone.errors import FormatError, IntegrityError, LimitError, LoadstoneError
from loadstone.formats import compressed
from loadstone.formats.contents import Contents, Context
from loadstone.formats.registry import open_source
from loadstone.io.limits import Limits
from loadstone.io.sources import MemorySource

STATE = {"w": torch.arange(6.0), "b": torch.ones(2)}


def read(data: bytes, **limits: int) -> Contents:
    source = MemorySource(data, "model.pt.gz")
    assert compressed.recognises(data[:64], source)
    return compressed.read(source, Context(open_source, Limits(**limits)))


def test_torch_file_inside_gzip_is_read() -> None:
    buffer = io.BytesIO()
    torch.save(STATE, buffer)
    contents = read(gzip.compress(buffer.getvalue()))
    assert contents.format == "torch-zip"
    assert all(torch.equal(info.read(), STATE[key]) for key, info in contents.tree.items())


def test_members_one_behind_the_other_are_one_file() -> None:
    data = save(STATE)
    contents = read(gzip.compress(data[:50]) + gzip.compress(data[50:]) + bytes(100))
    assert torch.equal(contents.tree["w"].read(), STATE["w"])


def test_tar_inside_gzip_is_named_with_its_command(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("a")
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz", format=tarfile.USTAR_FORMAT) as archive:
        archive.add(tmp_path / "a", "a")
    with pytest.raises(FormatError, match=r"not-a-checkpoint.*gzip archive of a tar archive") as raised:
        read((tmp_path / "a.tar.gz").read_bytes())
    assert raised.value.diagnostics[0].fixes[0].paste == "tar xzf model.pt.gz"


def test_gzip_of_something_else_is_named_with_its_command() -> None:
    with pytest.raises(FormatError, match=r"not-a-checkpoint.*a gzip archive") as raised:
        read(gzip.compress(b"a letter to a friend"))
    assert raised.value.diagnostics[0].fixes[0].paste == "gunzip model.pt.gz"


def test_damage_inside_is_reported_as_the_damage_it_is() -> None:
    with pytest.raises(IntegrityError, match=r"truncated-file.*last tensor"):
        read(gzip.compress(save(STATE)[:-4]))


def test_expansion_stops_at_the_limit() -> None:
    with pytest.raises(LimitError, match=r"resource-limit.*more than 1,000,000 bytes"):
        read(gzip.compress(bytes(5_000_000)), expanded_nbytes=1_000_000)


def test_bomb_is_stopped_long_before_it_is_expanded() -> None:
    bomb = gzip.compress(bytes(200_000_000), 9)
    tracemalloc.start()
    with pytest.raises(LimitError, match=r"more than 200 times its size"):
        read(bomb)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100_000_000


def test_gzip_inside_gzip_ends_at_the_depth_limit() -> None:
    data = save(STATE)
    for _ in range(4):
        data = gzip.compress(data)
    with pytest.raises(LimitError, match=r"nested_files"):
        read(data, nested_files=3)


def test_damaged_stream_is_refused() -> None:
    data = bytearray(gzip.compress(save(STATE)))
    data[-6] ^= 1  # the checksum
    with pytest.raises(IntegrityError, match=r"bad-compression"):
        read(bytes(data))


@pytest.mark.parametrize("kept", [5, 30, -1])
def test_stream_that_ends_early_is_truncated(kept: int) -> None:
    with pytest.raises(LoadstoneError, match=r"truncated-file"):
        read(gzip.compress(save(STATE))[:kept])
