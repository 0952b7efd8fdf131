"""Reading tensors from their places: strides, byte order, compression, several extents, and every bound."""

from __future__ import annotations

import itertools
import zlib

import numpy
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from loadstone.errors import FormatError, IntegrityError
from loadstone.io.sources import MemorySource
from loadstone.storage import Extent, Storage
from loadstone.tensors import Part, TensorInfo, contiguous_stride, dense


def stored(array: numpy.ndarray, **options: object) -> Storage:
    data = array.tobytes()
    return Storage("s", len(data), (Extent.stored(MemorySource(data, "memory"), 0, len(data)),), **options)  # type: ignore[arg-type]


def deflated(data: bytes, claimed: int | None = None) -> Storage:
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    packed = packer.compress(data) + packer.flush()
    size = len(data) if claimed is None else claimed
    return Storage("s", size, (Extent(MemorySource(packed, "memory"), 0, len(packed), size, is_deflated=True),))


@st.composite
def views(draw: st.DrawFn) -> tuple[tuple[int, ...], tuple[int, ...], int]:
    shape = tuple(draw(st.lists(st.integers(0, 4), max_size=4)))
    stride = tuple(draw(st.integers(0, 6)) for _ in shape)
    return shape, stride, draw(st.integers(0, 5))


@given(views())
def test_any_view_reads_as_torch_reads_it(view: tuple[tuple[int, ...], tuple[int, ...], int]) -> None:
    shape, stride, offset = view
    base = numpy.arange(200, dtype=numpy.float32)
    info = dense("k", "float32", shape, stride, offset, stored(base))
    expected = torch.from_numpy(base).as_strided(shape, stride, offset)
    assert torch.equal(info.read(), expected)
    assert numpy.array_equal(info.numpy(), expected.numpy())


@given(views())
def test_a_view_is_accepted_exactly_when_it_fits(view: tuple[tuple[int, ...], tuple[int, ...], int]) -> None:
    shape, stride, offset = view
    storage = Storage("s", 20 * 4, ())
    # the place of the last element, by brute force
    last = max((sum(i * s for i, s in zip(index, stride, strict=True)) for index in numpy.ndindex(*shape)), default=-1)
    if offset + last < 20:
        assert dense("k", "float32", shape, stride, offset, storage).shape == shape
    else:
        with pytest.raises(FormatError, match="tensor-out-of-bounds"):
            dense("k", "float32", shape, stride, offset, storage)


@pytest.mark.parametrize(
    ("shape", "stride", "offset"),
    [
        ((2, -1), (1, 1), 0),
        ((2,), (-1,), 0),
        ((2,), (1,), -1),
        ((True,), (1,), 0),
        ((2.0,), (1,), 0),
        ([2], [1], 0),
        ((2,), (1, 1), 0),
        ((2**32, 2**32), (0, 0), 0),
        ((2**63,), (0,), 0),
        ("2", (1,), 0),
        ((2,), (2**62,), 0),
        (None, None, None),
    ],
)
def test_what_is_no_shape_is_refused(shape: object, stride: object, offset: object) -> None:
    with pytest.raises(FormatError, match="tensor-out-of-bounds"):
        dense("k", "float32", shape, stride, offset, Storage("s", 1 << 20, ()))


@pytest.mark.parametrize(
    "dtype", ["float64", "float32", "float16", "int64", "int16", "uint8", "complex64", "complex128"]
)
def test_big_endian_values_are_swapped(dtype: str) -> None:
    values = numpy.arange(6).astype(dtype)
    info = dense(
        "k", dtype, (2, 3), (3, 1), 0, stored(values.astype(numpy.dtype(dtype).newbyteorder(">")), is_big_endian=True)
    )
    assert numpy.array_equal(info.numpy(), values.reshape(2, 3))
    assert torch.equal(info.read(), torch.from_numpy(values.reshape(2, 3)))


def test_a_storage_of_several_extents_reads_as_one() -> None:
    data = numpy.arange(100, dtype=numpy.int32).tobytes()
    cuts = [0, 7, 7, 100, 399, 400]
    extents = tuple(
        Extent.stored(MemorySource(data, "memory"), start, stop - start) for start, stop in itertools.pairwise(cuts)
    )
    info = dense("k", "int32", (10, 9), (10, 1), 1, Storage("s", 400, extents))
    assert numpy.array_equal(info.numpy(), numpy.arange(100).reshape(10, 10)[:, 1:])


def test_a_deflated_storage_reads_the_part_that_is_asked_for() -> None:
    data = numpy.arange(3_000_000, dtype=numpy.float32)
    info = dense("k", "float32", (5,), (1,), 2_999_990, deflated(data.tobytes()))
    assert info.read().tolist() == data[2_999_990:2_999_995].tolist()


@pytest.mark.parametrize("claimed", [399, 401, 10_000_000_000])
def test_a_deflated_storage_of_another_length_is_refused(claimed: int) -> None:
    with pytest.raises(IntegrityError, match="bad-compression"):
        deflated(bytes(400), claimed).prove()


def test_a_damaged_deflate_stream_is_refused() -> None:
    storage = Storage("s", 400, (Extent(MemorySource(b"\xff" * 90, "memory"), 0, 90, 400, is_deflated=True),))
    with pytest.raises(IntegrityError, match="bad-compression"):
        storage.prove()


def test_lazy_bits_are_resolved() -> None:
    values = numpy.array([1 + 2j, 3 - 4j], dtype=numpy.complex64)
    info = TensorInfo("k", "complex64", (2,), (1,), 0, stored(values), is_conj=True, is_neg=True)
    assert info.read().tolist() == (-values.conj()).tolist()
    assert not info.read().is_conj()
    assert info.numpy().tolist() == (-values.conj()).tolist()


def test_chunks_are_put_together() -> None:
    whole = numpy.arange(12, dtype=numpy.float32).reshape(3, 4)
    parts = tuple(
        Part(
            str(column),
            dense("c", "float32", (3, 2), (2, 1), 0, stored(whole[:, column : column + 2].copy())),
            (0, column),
        )
        for column in (0, 2)
    )
    info = TensorInfo("k", "float32", (3, 4), contiguous_stride((3, 4)), layout="chunked", parts=parts)
    assert torch.equal(info.read(), torch.from_numpy(whole))
    assert numpy.array_equal(info.numpy(), whole)


def test_a_meta_tensor_has_no_values() -> None:
    with pytest.raises(FormatError, match="not-extracted"):
        TensorInfo("k", "float32", (3,), (1,)).read()


def test_read_places_and_casts() -> None:
    info = dense("k", "float32", (2,), (1,), 0, stored(numpy.array([1.5, 2.5], dtype=numpy.float32)))
    assert info.read(dtype="float64").dtype == torch.float64
    assert info.read(dtype=torch.float16).dtype == torch.float16
    assert info.read(device="meta").is_meta


def test_sparse_indices_outside_the_shape_are_refused() -> None:
    indices = dense("i", "int64", (1, 2), (2, 1), 0, stored(numpy.array([0, 9])))
    values = dense("v", "float32", (2,), (1,), 0, stored(numpy.ones(2, dtype=numpy.float32)))
    info = TensorInfo(
        "k", "float32", (3,), (1,), layout="sparse_coo", parts=(Part("indices", indices), Part("values", values))
    )
    with pytest.raises(FormatError, match="contradicts itself"):
        info.read()


def test_a_file_that_shrinks_is_an_integrity_error() -> None:
    storage = Storage("s", 400, (Extent.stored(MemorySource(bytes(100), "memory"), 0, 400),))
    with pytest.raises(IntegrityError, match="truncated-file"):
        dense("k", "float32", (100,), (1,), 0, storage).read()


def test_tensors_are_read_to_the_cpu_whatever_the_default_device() -> None:
    info = dense("k", "float32", (2,), (1,), 0, stored(numpy.array([1.5, 2.5], dtype=numpy.float32)))
    with torch.device("meta"):
        assert info.read().tolist() == [1.5, 2.5]
