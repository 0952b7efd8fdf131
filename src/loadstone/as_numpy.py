"""Bytes as numpy arrays, for everything that reads values on a machine without torch.  numpy is imported on use."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING

from loadstone.dtypes import DTYPES
from loadstone.errors import Diagnostic, Fix, FormatError

if TYPE_CHECKING:
    import numpy


_MAX_NBYTES = 2**63 - 1  # of an array, counting an empty dimension as 1, whether it has memory of its own or not


def dtype_of(name: str) -> numpy.dtype:
    """numpy's dtype of this name, from ml_dtypes where numpy has none of its own; else FormatError."""
    import numpy

    numpy_name = DTYPES[name].numpy
    if numpy_name is None:
        raise FormatError(
            Diagnostic("unsupported-feature", f"numpy has no dtype for {name}, read it with torch instead")
        )
    if hasattr(numpy, numpy_name) or numpy_name == "bool":
        return numpy.dtype(numpy_name)
    try:
        import ml_dtypes
    except ImportError as error:
        raise FormatError(
            Diagnostic(
                "unsupported-feature",
                f"numpy has no dtype for {name} without the package ml_dtypes",
                fixes=(Fix("install it", "pip install ml_dtypes"),),
            )
        ) from error
    dtype: numpy.dtype = numpy.dtype(getattr(ml_dtypes, numpy_name))
    return dtype


def allocate(nbytes: int) -> tuple[numpy.ndarray, memoryview]:
    """Uninitialised memory as a uint8 array, and the same memory as a writable buffer of bytes."""
    import numpy

    array = numpy.empty(nbytes, dtype=numpy.uint8)
    return array, memoryview(array.data) if nbytes else memoryview(bytearray())


def strided(
    memory: numpy.ndarray,
    dtype: str,
    shape: tuple[int, ...],
    stride: tuple[int, ...],
    *,
    is_conj: bool = False,
    is_neg: bool = False,
) -> numpy.ndarray:
    """A view of uint8 memory as an array of this dtype, shape and stride (in elements); lazy bits are resolved."""
    import numpy

    element = dtype_of(dtype)
    if math.prod(size or 1 for size in shape) * element.itemsize > _MAX_NBYTES:
        raise FormatError(Diagnostic("unsupported-feature", f"numpy has no arrays of shape {list(shape)}"))
    if len(shape) > (64 if numpy.lib.NumpyVersion(numpy.__version__) >= "2.0.0" else 32):  # NPY_MAXDIMS
        raise FormatError(Diagnostic("unsupported-feature", f"numpy has no arrays of {len(shape):,} dimensions"))
    if 0 in shape:
        return numpy.empty(shape, dtype=element)
    flat = memory.view(element)
    steps = tuple(0 if size == 1 else step * element.itemsize for size, step in zip(shape, stride, strict=True))
    if is_conj:  # the memory, not the view: a view may show one element 2^40 times
        flat = numpy.conjugate(flat)
    if is_neg:
        flat = numpy.negative(flat)
    return numpy.lib.stride_tricks.as_strided(flat, shape, steps)


def assembled(
    dtype: str, shape: tuple[int, ...], chunks: Iterable[tuple[tuple[int, ...], numpy.ndarray]]
) -> numpy.ndarray:
    """A dense array from chunks, each with the place of its first element."""
    import numpy

    whole = numpy.empty(shape, dtype=dtype_of(dtype))
    for offsets, chunk in chunks:
        whole[tuple(slice(start, start + size) for start, size in zip(offsets, chunk.shape, strict=True))] = chunk
    return whole
