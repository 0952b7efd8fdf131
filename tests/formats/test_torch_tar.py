import contextlib
import io
import pickle
import struct
import tarfile
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from loadstone.errors import FormatError, IntegrityError, LoadstoneError, UnsafeError
from loadstone.formats import torch_tar
from loadstone.formats.contents import Contents, Context
from loadstone.formats.registry import open_source
from loadstone.io.sources import MemorySource

CONTEXT = Context(open_source)
STORAGE = b"(K\x03X\x03\x00\x00\x00cpuctorch\nFloatStorage\nt."  # (3, "cpu", torch.FloatStorage)
TENSOR = b"(K\x07K%cctorch\nFloatTensor\nt."  # (7, key of the storage, torch.FloatTensor)
VALUES = struct.pack("<6f", 0, 1, 2, 3, 4, 5)
MAIN = b"}X\x01\x00\x00\x00wX\x01\x00\x00\x007Qs."  # {"w": persistent id "7"}
SYSTEM = pickle.dumps({"protocol_version": 1000, "little_endian": True}, 2)


def tensor_entry(
    shape: tuple[int, ...], stride: tuple[int, ...], offset: int = 0, dimensions: int | None = None
) -> bytes:
    """The description of tensor 7 over storage 3."""
    numbers = struct.pack(f"<{len(shape) + len(stride) + 1}q", *shape, *stride, 0)
    count = len(shape) if dimensions is None else dimensions
    return TENSOR % 3 + struct.pack("<ii", count, 0) + numbers


def storages(elements: int = 6, views: bytes = b"].") -> bytes:
    return b"K\x01." + STORAGE + struct.pack("<q", elements) + VALUES + views


def archive(members: dict[str, bytes], *more: tuple[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as writer:
        for name, data in [*members.items(), *more]:
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            entry.mtime = 1.5  # makes a pax header, as `tar.add` does  # type: ignore[assignment]
            writer.addfile(entry, io.BytesIO(data))
    return stream.getvalue()


def torch_archive(tensors: bytes, stored: bytes | None = None, main: bytes = MAIN) -> bytes:
    members = {"sys_info": SYSTEM, "pickle": main, "tensors": b"K\x01." + tensors, "storages": stored or storages()}
    return archive(members)


def read(data: bytes) -> Contents:
    source = MemorySource(data, "old.tar")
    assert torch_tar.recognises(data[:4096], source)
    return torch_tar.read(source, CONTEXT)


def test_hand_built_archive_agrees_with_torch(tmp_path: Path) -> None:
    path = tmp_path / "old.pt"
    path.write_bytes(torch_archive(tensor_entry((2, 3), (3, 1))))
    theirs = torch.load(path, weights_only=False)
    ours = read(path.read_bytes())
    assert ours.format == "torch-tar"
    assert torch.equal(ours.tree["w"].read(), theirs["w"])


def test_transposed_tensor_keeps_its_stride() -> None:
    tree = read(torch_archive(tensor_entry((3, 2), (1, 3)))).tree
    assert torch.equal(tree["w"].read(), torch.arange(6.0).reshape(2, 3).t())


def test_view_of_a_storage_is_read_at_its_place() -> None:
    views = b"](K\x09K\x03K\x02K\x03ta."  # [(9, 3, 2, 3)]
    tensor = TENSOR % 9 + struct.pack("<ii", 1, 0) + struct.pack("<3q", 3, 1, 0)
    tree = read(torch_archive(tensor, storages(views=views))).tree
    assert tree["w"].read().tolist() == [2.0, 3.0, 4.0]


def test_tensor_beyond_its_storage_is_out_of_bounds() -> None:
    with pytest.raises(FormatError) as caught:
        read(torch_archive(tensor_entry((2, 4), (4, 1))))
    assert caught.value.code == "tensor-out-of-bounds"


def test_number_of_dimensions_is_checked_before_sizes_are_read() -> None:
    with pytest.raises(FormatError, match="dimensions"):
        read(torch_archive(tensor_entry((2,), (1,), dimensions=2**30)))


def test_storage_larger_than_its_member_is_truncated() -> None:
    with pytest.raises(IntegrityError) as caught:
        read(torch_archive(tensor_entry((1,), (1,)), storages(elements=2**50)))
    assert caught.value.code == "truncated-file"


def test_persistent_id_without_tensor_is_a_missing_record() -> None:
    with pytest.raises(IntegrityError) as caught:
        read(torch_archive(tensor_entry((1,), (1,)), main=MAIN.replace(b"7", b"8")))
    assert caught.value.code == "missing-record"


def test_payload_before_a_defect_is_reported_with_it() -> None:
    stored = b"cposix\nsystem\n(X\x04\x00\x00\x00truetR."
    with pytest.raises(FormatError) as caught:
        read(torch_archive(b"", stored))
    assert {finding.code for finding in caught.value.diagnostics} >= {"corrupt-pickle", "dangerous-global"}


@pytest.mark.parametrize("name", ["../up", "/absolute", "a/../../b", "C:\\x"])
def test_name_that_leaves_the_archive_is_refused(name: str) -> None:
    with pytest.raises(UnsafeError) as caught:
        read(archive({"storages": storages(), "pickle": MAIN, name: b""}))
    assert caught.value.code == "unsafe-path"


def test_name_that_stands_twice_is_ambiguous() -> None:
    with pytest.raises(UnsafeError) as caught:
        read(archive({"pickle": MAIN, "storages": storages()}, ("./pickle", b"}.")))
    assert caught.value.code == "ambiguous-archive"


def test_zeros_are_no_archive() -> None:
    assert not torch_tar.recognises(bytes(4096), MemorySource(bytes(4096), "zeros"))


def test_nemo_archive_gives_the_checkpoint_inside() -> None:
    inner = io.BytesIO()
    torch.save({"encoder.weight": torch.arange(4.0)}, inner)
    contents = read(archive({"./model_config.yaml": b"a: 1\n", "./model_weights.ckpt": inner.getvalue()}))
    assert contents.format == "nemo"
    assert contents.tree["encoder.weight"].read().tolist() == [0.0, 1.0, 2.0, 3.0]


def test_archive_without_a_checkpoint_says_so() -> None:
    with pytest.raises(FormatError) as caught:
        read(archive({"notes.txt": b"hello"}))
    assert caught.value.code == "not-a-checkpoint"


@settings(max_examples=60, deadline=None)
@given(cut=st.integers(512, 8000))
def test_an_archive_cut_anywhere_never_escapes_as_another_error(cut: int) -> None:
    data = torch_archive(tensor_entry((2, 3), (3, 1)))
    with contextlib.suppress(LoadstoneError):
        tree = read(data[: min(cut, len(data))]).tree
        assert tree["w"].shape == (2, 3)  # only the padding at the end was lost
