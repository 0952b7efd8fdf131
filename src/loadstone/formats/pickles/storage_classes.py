"""What the storages of a torch pickle are: the classes it names for them, and what a reader gives for one.

Source: torch/storage.py (`_dtype_to_storage_type_map`); the module is `torch`, `torch.cuda`, `torch.storage`.
"""

from __future__ import annotations

from dataclasses import dataclass

from loadstone.dtypes import BY_STORAGE
from loadstone.formats.pickles.values import Global
from loadstone.storage import Storage

STREAM_MAGIC = 0x1950A86A20F9469CFC6C  # the first pickle of the stream format (torch/serialization.py, MAGIC_NUMBER)
_UNTYPED = frozenset({"UntypedStorage", "_UntypedStorage"})  # with the underscore in torch 1.11 and 1.12


@dataclass(frozen=True, slots=True, eq=False)
class StorageRef:
    """A storage as a pickle refers to it: the memory, and the dtype of its class (None: untyped bytes)."""

    storage: Storage
    dtype: str | None


def element_of(storage_class: object) -> tuple[str | None, int] | None:
    """Dtype (None: untyped) and bytes per element of a storage class; None where there is no such class.

    Storages of less than a byte an element (QUInt4x2, QUInt2x4) are counted in bytes, as torch counts them.
    """
    if not isinstance(storage_class, Global) or storage_class.module.split(".", 1)[0] != "torch":
        return None
    if storage_class.name in _UNTYPED:
        return None, 1
    row = BY_STORAGE.get(storage_class.name.removesuffix("Storage"))
    if row is None or not storage_class.name.endswith("Storage"):
        return None
    return row.name, (row.bits + 7) // 8
