"""Tensors that are made of other tensors: sparse and nested ones, and quantised ones with a scale for each channel.

The parts are proved to fit each other as far as their shapes say.  Whether indices point inside the tensor depends on
values, and is checked when they are read (as_torch.sparse).
"""

from __future__ import annotations

import struct
from dataclasses import replace
from typing import Final

from loadstone.dtypes import DTYPES
from loadstone.errors import Diagnostic, FormatError
from loadstone.formats.pickles.call_site import CallSite
from loadstone.formats.pickles.dense_tensors import dense_over, is_shape
from loadstone.formats.pickles.numpy_values import array
from loadstone.tensors import Layout, Part, Quantization, TensorInfo
from loadstone.values import Value

_MOST_REPEATS: Final = 64  # as many as torch allows dimensions
_INDEX_NAMES: Final[dict[str, tuple[Layout, str, str]]] = {
    "torch.sparse_csr": ("sparse_csr", "crow_indices", "col_indices"),
    "torch.sparse_bsr": ("sparse_bsr", "crow_indices", "col_indices"),
    "torch.sparse_csc": ("sparse_csc", "ccol_indices", "row_indices"),
    "torch.sparse_bsc": ("sparse_bsc", "ccol_indices", "row_indices"),
}


def sparse(site: CallSite) -> Value:
    """`_rebuild_sparse_tensor(layout, (indices…, values, size[, is_coalesced]))`."""
    match site.args:
        case ("torch.sparse_coo", (TensorInfo() as indices, TensorInfo() as values, size, *rest)):
            return _sparse_coo(site, indices, values, size, rest)
        case (str() as layout, (TensorInfo() as compressed, TensorInfo() as plain, TensorInfo() as values, size)):
            if layout in _INDEX_NAMES:
                return _sparse_compressed(site, layout, compressed, plain, values, size)
    raise site.malformed()


def _sparse_coo(site: CallSite, indices: TensorInfo, values: TensorInfo, size: Value, rest: list[Value]) -> TensorInfo:
    if not is_shape(size) or len(rest) > 1:
        raise site.malformed()
    fits = (
        indices.dtype == "int64"
        and len(indices.shape) == 2
        and len(values.shape) >= 1
        and indices.shape[1] == values.shape[0]
        and indices.shape[0] + len(values.shape) - 1 == len(size)
        and values.shape[1:] == size[indices.shape[0] :]
    )
    if not (fits and values.layout == "strided" and _is_told(indices)):
        raise _contradiction(site, f"indices of shape {list(indices.shape)}, values {list(values.shape)}", size)
    return TensorInfo(
        "", values.dtype, size, layout="sparse_coo", parts=(Part("indices", indices), Part("values", values)),
        is_coalesced=rest[0] if rest and isinstance(rest[0], bool) else None,
    )  # fmt: skip


def _sparse_compressed(
    site: CallSite, name: str, compressed: TensorInfo, plain: TensorInfo, values: TensorInfo, size: Value
) -> TensorInfo:
    layout, first, second = _INDEX_NAMES[name]
    if not is_shape(size):
        raise site.malformed()
    fits = (
        len(size) >= 2
        and compressed.dtype == plain.dtype
        and compressed.dtype in ("int32", "int64")
        and len(compressed.shape) == len(plain.shape) >= 1
        and plain.shape == values.shape[: len(plain.shape)]
    )
    if not (fits and values.layout == "strided" and _is_told(compressed, plain)):
        raise _contradiction(site, f"indices of shape {list(plain.shape)}, values {list(values.shape)}", size)
    parts = (Part(first, compressed), Part(second, plain), Part("values", values))
    return TensorInfo("", values.dtype, size, layout=layout, parts=parts)


def nested(site: CallSite) -> Value:
    """`_rebuild_nested_tensor(buffer, sizes, strides, offsets)`; its shape is the buffer's, as rows have their own."""
    match site.args:
        case (TensorInfo() as buffer, TensorInfo() as sizes, TensorInfo() as strides, TensorInfo() as offsets):
            pass
        case _:
            raise site.malformed()
    tables_fit = sizes.shape == strides.shape and sizes.shape[:1] == offsets.shape and len(sizes.shape) == 2
    is_plain = buffer.quantization is None and _is_told(buffer, sizes, strides, offsets)
    if not (tables_fit and is_plain) or {sizes.dtype, strides.dtype, offsets.dtype} != {"int64"}:
        raise _contradiction(site, f"sizes of shape {list(sizes.shape)}", strides.shape)
    parts = (Part("buffer", buffer), Part("sizes", sizes), Part("strides", strides), Part("offsets", offsets))
    return TensorInfo("", buffer.dtype, buffer.shape, requires_grad=buffer.requires_grad, layout="nested", parts=parts)


def quantized(site: CallSite) -> Value:
    """`_rebuild_qtensor(storage, offset, size, stride, (scheme, scale, zero point[, axis]), requires_grad, hooks)`."""
    match site.args:
        case (memory, offset, size, stride, tuple() as parameters, *_):
            info = dense_over(site, memory, offset, size, stride)
        case _:
            raise site.malformed()
    if DTYPES[info.dtype].kind != "quantized":
        raise site.malformed()
    return replace(info, quantization=_quantization(site, parameters, info.shape))


def _quantization(site: CallSite, parameters: tuple[Value, ...], shape: tuple[int, ...]) -> Quantization:
    match parameters:
        case ("torch.per_tensor_affine", float() as scale, int() as zero_point):
            return Quantization("per_tensor_affine", scale, zero_point)
        case ("torch.per_channel_affine" | "torch.per_channel_affine_float_qparams" as scheme, scales, zeros, axis):
            pass
        case _:
            raise site.malformed()
    if type(axis) is not int or not 0 <= axis < len(shape):
        raise _contradiction(site, f"the channel axis {axis!r:.20}", shape)
    is_float = scheme.endswith("float_qparams")
    per_channel = _numbers(site, scales, "float32" if is_float else "float64")
    zero_points = _numbers(site, zeros, "float32" if is_float else "int64")
    if per_channel.shape != (shape[axis],) or zero_points.shape != (shape[axis],):
        raise _contradiction(site, f"{list(per_channel.shape)} scales, {list(zero_points.shape)} zero points", shape)
    return Quantization(scheme.removeprefix("torch."), per_channel, zero_points, axis)


def _numbers(site: CallSite, value: Value, dtype: str) -> TensorInfo:
    """One dimension of numbers: a tensor, or the list that some versions wrote."""
    if isinstance(value, TensorInfo):
        return value
    if not isinstance(value, list) or any(type(number) not in (int, float) for number in value):
        raise site.malformed()
    code = {"float32": "f", "float64": "d", "int64": "q"}[dtype]
    try:
        data = struct.pack(f"<{len(value)}{code}", *value)
    except (struct.error, OverflowError):
        raise site.malformed() from None
    return array(data, dtype, (len(value),), name="quantization parameters")


def _is_told(*tables: TensorInfo) -> bool:
    """Whether the file holds what these tables say: one that shows an index 2^40 times would be walked for hours.

    Some repetition is normal: a diagonal keeps its indices once for both dimensions.
    """
    return all(table.layout == "strided" and table.repeats <= _MOST_REPEATS for table in tables)


def _contradiction(site: CallSite, parts: str, size: tuple[int, ...]) -> FormatError:
    return FormatError(
        Diagnostic("tensor-out-of-bounds", f"`{site.where}`: a tensor of shape {list(size)} has {parts}")
    )
