"""TensorInfo: what a tensor is and where its bytes lie, without its bytes.

A TensorInfo is a view of a Storage (storage.py): dtype, shape, stride, offset.  A reader makes it once, with every
bound proved (`dense`).  Past that point nobody checks shapes again.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Literal

from loadstone import as_numpy, as_torch
from loadstone.dtypes import DTYPES, nbytes_of
from loadstone.errors import Diagnostic, FormatError
from loadstone.storage import Storage

if TYPE_CHECKING:
    import numpy
    import torch

MAX_INT64 = 2**63 - 1

Layout = Literal[
    "strided", "sparse_coo", "sparse_csr", "sparse_csc", "sparse_bsr", "sparse_bsc", "nested", "chunked", "wrapper"
]


@dataclass(frozen=True, slots=True)
class Quantization:
    """How a quantised tensor maps integers to numbers; per tensor (numbers) or per channel (tensors and axis)."""

    scheme: str  # "per_tensor_affine", "per_channel_affine", "per_channel_affine_float_qparams"
    scale: float | TensorInfo
    zero_point: int | TensorInfo
    axis: int | None = None


@dataclass(frozen=True, slots=True)
class Part:
    """One of the tensors that another is made of: "indices" of a sparse one, a chunk at `offsets` of a larger one."""

    name: str
    info: TensorInfo
    offsets: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """A tensor in a file, without its bytes.

    Attributes:
        key: its dotted key in the file.
        dtype: torch's word without the prefix, "float32".
        shape: sizes, a tuple of int.
        stride, offset: in elements, as torch counts them.
        storage: where its bytes lie; None for a meta tensor, which has none, and for one that is made of `parts`.
        requires_grad, is_parameter: as saved.
        layout: "strided", a sparse layout, "nested", "chunked" (pieces of one tensor in several places) or
            "wrapper" (a tensor subclass without memory of its own).
        parts: what a tensor of another layout than "strided" is made of.
        is_conj, is_neg: the lazy bits of torch; `read` resolves them.
        is_coalesced: of a sparse_coo tensor, where the file says so.
        quantization: of a quantised tensor.
        class_name: of a tensor subclass, "pkg.Class".
    """

    key: str
    dtype: str
    shape: tuple[int, ...]
    stride: tuple[int, ...] = ()
    offset: int = 0
    storage: Storage | None = None
    requires_grad: bool = False
    is_parameter: bool = False
    layout: Layout = "strided"
    parts: tuple[Part, ...] = ()
    is_conj: bool = False
    is_neg: bool = False
    is_coalesced: bool | None = None
    quantization: Quantization | None = None
    class_name: str | None = None

    @property
    def elements(self) -> int:
        """Number of elements of the logical tensor."""
        return prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of the dense tensor, or of the parts of a sparse, nested or wrapper one."""
        if self.parts and self.layout != "chunked":
            return sum(part.info.nbytes for part in self.parts)
        return nbytes_of(self.dtype, self.shape)

    @property
    def is_meta(self) -> bool:
        """Saved from the meta device: a shape without values."""
        return self.storage is None and not self.parts

    @property
    def is_contiguous(self) -> bool:
        """Its elements lie one behind the other in row-major order."""
        return self.layout == "strided" and _is_contiguous(self.shape, self.stride)

    @property
    def is_plain(self) -> bool:
        """Its bytes can be copied as they are: dense, contiguous, uncompressed, no lazy bits, no quantisation."""
        return (
            self.storage is not None
            and self.storage.is_raw
            and self.is_contiguous
            and not (self.is_conj or self.is_neg or self.quantization)
        )

    @property
    def repeats(self) -> int:
        """How often each of its elements in memory is shown, on average: more than 1 for an expanded tensor."""
        return self.elements // max(_span(self.shape, self.stride), 1)

    def byte_range(self) -> tuple[int, int]:
        """First byte in the storage, and how many bytes the view spans."""
        bits = DTYPES[self.dtype].bits
        first = self.offset * bits // 8
        return first, ((self.offset + _span(self.shape, self.stride)) * bits + 7) // 8 - first

    def with_key(self, key: str) -> TensorInfo:
        """The same tensor under another key."""
        if key == self.key:
            return self
        return TensorInfo(  # dataclasses.replace takes twice as long, and a file may hold 100,000 tensors
            key, self.dtype, self.shape, self.stride, self.offset, self.storage, self.requires_grad, self.is_parameter,
            self.layout, self.parts, self.is_conj, self.is_neg, self.is_coalesced, self.quantization, self.class_name,
        )  # fmt: skip

    def read_into(self, buffer: memoryview) -> None:
        """Fill `buffer` with the bytes of `byte_range`, in this machine's byte order."""
        if self.storage is None:
            raise self._has_no_bytes()
        self.storage.read_into(self.byte_range()[0], buffer, swap=DTYPES[self.dtype].swap)

    def read(self, *, device: torch.device | str | None = None, dtype: torch.dtype | str | None = None) -> torch.Tensor:
        """The tensor, in memory of its own (on the CPU unless `device` is given), cast if `dtype` is given.

        Sparse, nested and quantised tensors come as such; conj and neg bits are resolved; chunks are put together.
        Raises IntegrityError where bytes are missing or damaged, FormatError for a meta tensor.
        """
        return as_torch.placed(self._read_tensor(), device=device, dtype=dtype)

    def _read_tensor(self) -> torch.Tensor:
        if self.layout == "chunked":
            return as_torch.assembled(
                self.dtype, self.shape, ((part.offsets, part.info._read_tensor()) for part in self.parts)
            )
        if self.layout == "wrapper":
            return self._sole_part()._read_tensor()
        if self.layout != "strided":
            tensors = {part.name: part.info._read_tensor() for part in self.parts}
            if self.layout == "nested":
                return as_torch.nested(tensors)
            return as_torch.sparse(self.layout, tensors, self.shape, is_coalesced=self.is_coalesced)
        if self.storage is None:
            raise self._has_no_bytes()
        if DTYPES[self.dtype].bits % 8 and self.quantization is None:
            raise FormatError(Diagnostic("unsupported-feature", f"torch has no dtype for `{self.key}` ({self.dtype})"))
        memory, buffer = as_torch.allocate(self.byte_range()[1])
        self.read_into(buffer)
        if self.quantization is not None:
            values = self.quantization
            return as_torch.quantized(
                memory, self.dtype, self.shape, self.stride,
                scale=values.scale._read_tensor() if isinstance(values.scale, TensorInfo) else values.scale,
                zero_point=(
                    values.zero_point._read_tensor() if isinstance(values.zero_point, TensorInfo) else values.zero_point
                ),
                axis=values.axis,
            )  # fmt: skip
        return as_torch.strided(memory, self.dtype, self.shape, self.stride, is_conj=self.is_conj, is_neg=self.is_neg)

    def numpy(self) -> numpy.ndarray:
        """The tensor as a numpy array of its own memory, without torch.

        bfloat16 and float8 come as ml_dtypes' dtypes and need that package.  Raises FormatError for layouts and
        dtypes that numpy does not have.
        """
        if self.layout == "chunked":
            return as_numpy.assembled(self.dtype, self.shape, ((p.offsets, p.info.numpy()) for p in self.parts))
        if self.layout == "wrapper":
            return self._sole_part().numpy()
        if self.layout != "strided" or self.quantization is not None:
            kind = self.layout if self.layout != "strided" else "quantised"
            raise FormatError(
                Diagnostic("unsupported-feature", f"numpy has no {kind} arrays, read `{self.key}` with torch instead")
            )
        if self.storage is None:
            raise self._has_no_bytes()
        memory, buffer = as_numpy.allocate(self.byte_range()[1])
        self.read_into(buffer)
        return as_numpy.strided(memory, self.dtype, self.shape, self.stride, is_conj=self.is_conj, is_neg=self.is_neg)

    def _sole_part(self) -> TensorInfo:
        if len(self.parts) == 1:
            return self.parts[0].info
        names = ", ".join(part.name for part in self.parts) or "none"
        raise FormatError(
            Diagnostic(
                "unsupported-feature",
                f"`{self.key}` is a {self.class_name}, which computes its values from its parts ({names})",
            )
        )

    def _has_no_bytes(self) -> FormatError:
        return FormatError(
            Diagnostic("not-extracted", f"`{self.key}` was saved from the meta device: it has a shape and no values")
        )


def dense(
    key: str,
    dtype: str,
    shape: object,
    stride: object,
    offset: object,
    storage: Storage,
    *,
    requires_grad: bool = False,
) -> TensorInfo:
    """A strided tensor whose every element is proved to lie inside its storage.

    `shape`, `stride` and `offset` may be anything a file can claim; what is not a tuple of non-negative ints of equal
    length inside the bounds raises FormatError.
    """
    if type(shape) is not tuple or type(stride) is not tuple or len(shape) != len(stride) or not _is_count(offset):
        raise _out_of_bounds(key, storage, f"offset {offset!r:.40}, shape {shape!r:.80}, stride {stride!r:.80}")
    assert isinstance(offset, int)  # as just checked; for the type checker
    elements, last = 1, 0
    for size, step in zip(shape, stride, strict=True):
        if not (_is_count(size) and _is_count(step)):
            raise _out_of_bounds(key, storage, f"shape {shape!r:.80}, stride {stride!r:.80}")
        elements *= size
        last += (size - 1) * step
    end = offset + last + 1 if elements else offset
    needed = (end * DTYPES[dtype].bits + 7) // 8
    if needed > storage.nbytes or elements > MAX_INT64:
        raise _out_of_bounds(key, storage, f"it needs {needed:,} bytes")
    return TensorInfo(key, dtype, shape, stride, offset, storage, requires_grad)


def contiguous_stride(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Strides, in elements, of a row-major tensor of this shape."""
    stride = []
    step = 1
    for size in reversed(shape):
        stride.append(step)
        step *= max(size, 1)
    return tuple(reversed(stride))


def _span(shape: tuple[int, ...], stride: tuple[int, ...]) -> int:
    """Elements from the first to the last one, inclusive; 0 for an empty tensor."""
    last = 0
    for size, step in zip(shape, stride, strict=True):
        if size == 0:
            return 0
        last += (size - 1) * step
    return last + 1


def _is_contiguous(shape: tuple[int, ...], stride: tuple[int, ...]) -> bool:
    expected = 1
    for size, step in zip(reversed(shape), reversed(stride), strict=True):
        if size == 0:
            return True
        if size != 1:
            if step != expected:
                return False
            expected *= size
    return True


def _is_count(value: object) -> bool:
    return type(value) is int and 0 <= value <= MAX_INT64  # bool is no count


def _out_of_bounds(key: str, storage: Storage, claim: str) -> FormatError:
    return FormatError(
        Diagnostic(
            "tensor-out-of-bounds",
            f"tensor `{key}` does not fit into its storage",
            evidence=(("tensor", claim), ("storage", f"`{storage.name}` holds {storage.nbytes:,} bytes")),
            keys=(key,),
        )
    )
