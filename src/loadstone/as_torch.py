"""Bytes as torch tensors: the one room below floor 7 that imports torch, inside its functions.

Everything arrives as plain values (memory, dtype name, shape, stride), so that whoever holds a TensorInfo can stay
free of torch until the moment a tensor is asked for.
"""

from __future__ import annotations

import ctypes
import math
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from types import ModuleType
from typing import TYPE_CHECKING

from loadstone.errors import Diagnostic, FormatError, LoadstoneError

if TYPE_CHECKING:
    import torch


_BETA = ("complex32", "bcomplex32")  # dtypes that torch warns about


class NeedsTorchError(LoadstoneError, ImportError):
    """torch is not installed, and what was asked for is a torch tensor."""


def import_torch() -> ModuleType:
    """The torch module, or an error that says how to install it."""
    try:
        import torch
    except ImportError as error:
        raise NeedsTorchError(
            Diagnostic("needs-torch", f"this needs PyTorch, which is not installed: {error}")
        ) from error
    return torch


def dtype_of(name: str) -> torch.dtype:
    """torch's dtype of this name; raises FormatError where this torch is too old to have it."""
    dtype = getattr(import_torch(), name, None)
    if dtype is None:
        raise FormatError(Diagnostic("unsupported-feature", f"this version of torch has no dtype {name}"))
    return dtype  # type: ignore[no-any-return]


@contextmanager
def _without_beta_warnings() -> Iterator[None]:
    """torch warns once that sparse, quantised and complex-half tensors are in beta; that is the file's choice."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        yield


def allocate(nbytes: int) -> tuple[torch.Tensor, memoryview]:
    """Uninitialised CPU memory as a uint8 tensor, and the same memory as a writable buffer of bytes."""
    tensor = import_torch().empty(nbytes, dtype=dtype_of("uint8"), device="cpu")
    return tensor, memory_of(tensor)


def memory_of(tensor: torch.Tensor) -> memoryview:
    """The memory of a contiguous CPU tensor as a writable buffer of bytes; valid while the tensor lives."""
    nbytes = tensor.numel() * tensor.element_size()
    if nbytes == 0:
        return memoryview(bytearray())
    return memoryview((ctypes.c_ubyte * nbytes).from_address(tensor.data_ptr())).cast("B")


def mapped(buffer: memoryview) -> torch.Tensor:
    """A uint8 tensor over a buffer that it keeps alive; nothing is copied."""
    torch = import_torch()
    if buffer.nbytes == 0:
        return torch.empty(0, dtype=torch.uint8, device="cpu")  # type: ignore[no-any-return]
    return torch.frombuffer(buffer, dtype=torch.uint8)  # type: ignore[no-any-return]


def strided(
    memory: torch.Tensor,
    dtype: str,
    shape: tuple[int, ...],
    stride: tuple[int, ...],
    *,
    is_conj: bool = False,
    is_neg: bool = False,
) -> torch.Tensor:
    """A view of uint8 memory as a tensor of this dtype, shape and stride (in elements); lazy bits are resolved."""
    torch = import_torch()
    with _without_beta_warnings() if dtype in _BETA else nullcontext():
        tensor = torch.empty(0, dtype=dtype_of(dtype), device="cpu").set_(memory.untyped_storage(), 0, shape, stride)
    if not (is_conj or is_neg):
        return tensor  # type: ignore[no-any-return]
    if tensor.numel() <= memory.numel() // tensor.element_size():
        return _resolved(tensor, is_conj=is_conj, is_neg=is_neg)
    # an expanded view may show one element 2^40 times: its memory is resolved instead
    memory = _resolved(memory.view(tensor.dtype), is_conj=is_conj, is_neg=is_neg)
    return tensor.set_(memory.untyped_storage(), 0, shape, stride)  # type: ignore[no-any-return]


def _resolved(tensor: torch.Tensor, *, is_conj: bool, is_neg: bool) -> torch.Tensor:
    """A copy without the lazy bits."""
    tensor = import_torch().conj(tensor).resolve_conj() if is_conj else tensor
    return tensor.neg() if is_neg else tensor


def assembled(
    dtype: str, shape: tuple[int, ...], chunks: Iterable[tuple[tuple[int, ...], torch.Tensor]]
) -> torch.Tensor:
    """A dense tensor from chunks, each with the place of its first element."""
    whole = import_torch().empty(shape, dtype=dtype_of(dtype), device="cpu")
    for offsets, chunk in chunks:
        place = tuple(slice(start, start + size) for start, size in zip(offsets, chunk.shape, strict=True))
        whole[place].copy_(chunk)
    return whole  # type: ignore[no-any-return]


def sparse(
    layout: str, parts: dict[str, torch.Tensor], shape: tuple[int, ...], *, is_coalesced: bool | None
) -> torch.Tensor:
    """A sparse tensor from its parts ("indices" and "values", or the two index tensors of a compressed layout).

    Raises FormatError where the indices point outside the shape, so that no kernel can be led out of bounds.
    """
    torch = import_torch()
    values = parts["values"]
    try:
        with _without_beta_warnings():
            if layout == "sparse_coo":
                return torch.sparse_coo_tensor(  # type: ignore[no-any-return]
                    parts["indices"], values, shape, check_invariants=True, is_coalesced=is_coalesced
                )
            first, second = (tensor for name, tensor in parts.items() if name != "values")
            return torch.sparse_compressed_tensor(  # type: ignore[no-any-return]
                first, second, values, shape, layout=getattr(torch, layout), check_invariants=True
            )
    except RuntimeError as error:
        message = str(error).splitlines()[0]
        raise FormatError(
            Diagnostic("tensor-out-of-bounds", f"a {layout} tensor contradicts itself: {message}")
        ) from error


def nested(parts: dict[str, torch.Tensor]) -> torch.Tensor:
    """A strided nested tensor from "buffer", "sizes", "strides" and "offsets", every row proved to be inside."""
    torch = import_torch()
    buffer, sizes, strides, offsets = (parts[name] for name in ("buffer", "sizes", "strides", "offsets"))
    rows = []
    needed = sum(math.prod(size) for size in sizes.tolist())
    if needed > buffer.numel():  # before rows are copied
        message = f"the rows of a nested tensor have {needed:,} elements, its buffer has {buffer.numel():,}"
        raise FormatError(Diagnostic("tensor-out-of-bounds", message))
    for size, stride, offset in zip(sizes.tolist(), strides.tolist(), offsets.tolist(), strict=True):
        try:
            rows.append(torch.as_strided(buffer, size, stride, offset))
        except RuntimeError as error:
            message = f"a row of a nested tensor lies outside its buffer: {str(error).splitlines()[0]}"
            raise FormatError(Diagnostic("tensor-out-of-bounds", message)) from error
    return torch.nested.nested_tensor(rows, dtype=buffer.dtype)  # type: ignore[no-any-return]


def quantized(
    memory: torch.Tensor,
    dtype: str,
    shape: tuple[int, ...],
    stride: tuple[int, ...],
    *,
    scale: float | torch.Tensor,
    zero_point: int | torch.Tensor,
    axis: int | None,
) -> torch.Tensor:
    """A quantised tensor over uint8 memory, per tensor or (with tensors and `axis`) per channel."""
    torch = import_torch()
    empty = tuple(size if place == axis else 0 for place, size in enumerate(shape))  # its memory is there already
    with _without_beta_warnings():
        if axis is None:
            tensor = torch._empty_affine_quantized(
                empty, scale=scale, zero_point=zero_point, dtype=dtype_of(dtype), device="cpu"
            )
        else:
            tensor = torch._empty_per_channel_affine_quantized(
                empty, scales=scale, zero_points=zero_point, axis=axis, dtype=dtype_of(dtype), device="cpu"
            )
    return tensor.set_(memory.untyped_storage(), 0, shape, stride)  # type: ignore[no-any-return]


def placed(tensor: torch.Tensor, *, device: torch.device | str | None, dtype: torch.dtype | str | None) -> torch.Tensor:
    """The tensor on the device and in the dtype asked for; itself where neither is given."""
    if isinstance(dtype, str):
        dtype = dtype_of(dtype.removeprefix("torch."))
    return tensor if device is None and dtype is None else tensor.to(device=device, dtype=dtype)
