"""Schema: what a model wants, as data.  Made from a live module, from another checkpoint, or from a file; no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod
from typing import Literal

from loadstone.dtypes import nbytes_of


@dataclass(frozen=True, slots=True)
class Slot:
    """One tensor of a model.

    Attributes:
        key: its key in `model.state_dict()`.
        dtype, shape: as in TensorInfo.
        kind: "parameter" or "buffer".
        tied_to: the first key that is the very same memory (same storage, offset, shape and stride); None for that
            first key itself and for everything that is not shared.
        is_meta: on the meta device, without memory.
        is_persistent: False for buffers that state_dict() leaves out.
        convolution: what kind of convolution it is the weight of; "" where it is none, or nobody knows.
    """

    key: str
    dtype: str
    shape: tuple[int, ...]
    kind: Literal["parameter", "buffer"] = "parameter"
    tied_to: str | None = None
    is_meta: bool = False
    is_persistent: bool = True
    convolution: Literal["", "plain", "grouped", "transposed"] = ""

    @property
    def elements(self) -> int:
        """Number of elements."""
        return prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of memory it takes."""
        return nbytes_of(self.dtype, self.shape)


@dataclass(frozen=True, slots=True)
class Schema:
    """All tensors of a model.

    Attributes:
        name: what messages call it, usually the class name.
        slots: the keys of `state_dict()`, in its order.
        non_persistent: buffers that `state_dict()` leaves out; a checkpoint may still carry them.
        modules: class names by dotted path, "" for the model itself.
    """

    name: str
    slots: Mapping[str, Slot]
    non_persistent: Mapping[str, Slot] = field(default_factory=dict)
    modules: Mapping[str, str] = field(default_factory=dict)
