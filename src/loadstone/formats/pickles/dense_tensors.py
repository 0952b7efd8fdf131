"""A view of a storage as a file claims it, proved: what every tensor builder starts from.

A storage that stands in a pickle is itself a value: one dimension of all its elements.  So a builder takes a TensorInfo
for its memory, whether that came from a persistent id or from a file inside the pickle.
"""

from __future__ import annotations

from math import prod
from typing import Final

from loadstone.dtypes import DTYPES
from loadstone.formats.pickles.call_site import CallSite
from loadstone.formats.pickles.storage_classes import StorageRef
from loadstone.tensors import MAX_INT64, TensorInfo, dense
from loadstone.values import Value

_UNTYPED_DTYPE: Final = "uint8"  # torch.load's own choice for bytes without a dtype


def bare_storage(ref: StorageRef) -> TensorInfo:
    """A storage that is a value by itself, as one dimension of all its elements."""
    dtype = ref.dtype or _UNTYPED_DTYPE
    elements = ref.storage.nbytes * 8 // DTYPES[dtype].bits
    return TensorInfo(ref.storage.name, dtype, (elements,), (1,), 0, ref.storage)


def named_dtype(site: CallSite, value: Value) -> str:
    """The dtype that a file calls "torch.float32"; raises FormatError for anything else."""
    if isinstance(value, str) and value.removeprefix("torch.") in DTYPES:
        return value.removeprefix("torch.")
    raise site.malformed()


def dense_over(
    site: CallSite, memory: Value, offset: Value, size: Value, stride: Value, *, dtype: str | None = None
) -> TensorInfo:
    """A strided tensor over the storage that `memory` stands for (see `bare_storage`)."""
    if not (isinstance(memory, TensorInfo) and memory.storage is not None):
        raise site.malformed()
    return dense(memory.storage.name, dtype or memory.dtype, size, stride, offset, memory.storage)


def is_shape(value: Value) -> bool:
    """A tuple of sizes whose product a torch tensor can have."""
    if type(value) is not tuple or any(type(size) is not int or not 0 <= size <= MAX_INT64 for size in value):
        return False
    return prod(value) <= MAX_INT64
