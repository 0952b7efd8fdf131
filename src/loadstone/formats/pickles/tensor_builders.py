"""The calls that make a tensor, as a table from their names to what they mean.

torch writes a tensor as a call of a `_rebuild_…` function on a storage.  Each builder here checks its arguments as a
file could have forged them, and proves every bound (`tensors.dense`), so that nobody has to later.

Source: torch/_utils.py (`_rebuild_*`), torch/_tensor.py (`_reduce_ex_internal`, `_rebuild_from_type_v2`,
`__setstate__`), torch/nested/_internal/nested_tensor.py.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from loadstone.dtypes import DTYPES
from loadstone.formats.pickles.call_site import Builder, CallSite
from loadstone.formats.pickles.composed_tensors import nested, quantized, sparse
from loadstone.formats.pickles.dense_tensors import dense_over, is_shape, named_dtype
from loadstone.storage import Storage
from loadstone.tensors import Part, TensorInfo
from loadstone.values import Opaque, Value

TENSOR: Final = "torch.Tensor"
PARAMETER: Final = "torch.nn.parameter.Parameter"


def _tensor_v1(site: CallSite) -> Value:
    match site.args:
        case (memory, offset, size, stride):
            return dense_over(site, memory, offset, size, stride)
    raise site.malformed()


def _tensor_v2(site: CallSite) -> Value:
    match site.args:
        case (memory, offset, size, stride, requires_grad, _, *rest) if len(rest) <= 1:
            info = dense_over(site, memory, offset, size, stride)
            return _marked(site, info, requires_grad, rest[0] if rest else None)
    raise site.malformed()


def _tensor_v3(site: CallSite) -> Value:
    match site.args:
        case (memory, offset, size, stride, requires_grad, _, dtype, *rest) if len(rest) <= 1:
            info = dense_over(site, memory, offset, size, stride, dtype=named_dtype(site, dtype))
            return _marked(site, info, requires_grad, rest[0] if rest else None)
    raise site.malformed()


def _marked(site: CallSite, info: TensorInfo, requires_grad: Value, bits: Value) -> TensorInfo:
    """With requires_grad and the lazy bits {"conj": True, "neg": True} of the metadata."""
    if not bits:
        return replace(info, requires_grad=True) if requires_grad is True else info
    if not isinstance(bits, dict) or (bits.get("conj") and DTYPES[info.dtype].kind != "complex"):
        raise site.malformed()
    return replace(
        info, requires_grad=requires_grad is True, is_conj=bits.get("conj") is True, is_neg=bits.get("neg") is True
    )


def _parameter(site: CallSite) -> Value:
    """`_rebuild_parameter(data, requires_grad, hooks[, state])`."""
    match site.args:
        case (TensorInfo() as data, requires_grad, *_):
            return replace(data, requires_grad=requires_grad is True, is_parameter=True)
        case (Opaque(), *_):
            return site.unbuilt()  # a parameter of a subclass that is not understood
    raise site.malformed()


def _class_call(site: CallSite) -> Value:
    """A tensor class called as such and given its state: the forms before torch 0.4.

    `FloatTensor()` and (storage, offset, size, stride); `Variable(data)` and (requires_grad, volatile, hooks);
    `Parameter()` and (data, grad, hooks, requires_grad, volatile).
    """
    is_parameter = site.path.endswith("Parameter")
    match site.args, site.state:
        case (), (memory, offset, tuple() as size, stride):
            return dense_over(site, memory, offset, size, stride)
        case (), (TensorInfo() as data, _, _, requires_grad, _):
            return replace(data, requires_grad=requires_grad is True, is_parameter=is_parameter)
        case (TensorInfo() as data, *_), (requires_grad, _, _):
            return replace(data, requires_grad=requires_grad is True, is_parameter=is_parameter)
        case (TensorInfo() as data, *rest), _:
            return replace(data, requires_grad=rest[:1] == [True], is_parameter=is_parameter)
        case (), None:
            dtype = _CLASS_DTYPES.get(site.path.rpartition(".")[2], "float32")
            return TensorInfo("", dtype, (0,), (1,), 0, Storage("empty", 0, ()))
    return site.unbuilt()


def _from_type_v2(site: CallSite) -> Value:
    """`_rebuild_from_type_v2(function, class, args, state)`: a tensor with a class or with attributes of its own."""
    match site.args:
        case (Opaque(class_name=function), Opaque(class_name=subclass), tuple() as args, state):
            pass
        case _:
            raise site.malformed()
    builder = TENSORS.get(function)
    if builder is None or builder is _from_type_v2:
        return Opaque(subclass, (function, *args), state)
    info = builder(CallSite(function, args, None, [], [], site.where, site.open_bytes))
    if not isinstance(info, TensorInfo):
        return Opaque(subclass, (function, *args), state)
    if info.layout == "wrapper" and not info.parts:
        info = replace(info, parts=tuple(Part(name, part) for name, part in _tensors_of(state)))
    if subclass in (TENSOR, PARAMETER):
        return replace(info, is_parameter=info.is_parameter or subclass == PARAMETER)
    return replace(info, class_name=subclass)


def _tensors_of(state: Value) -> list[tuple[str, TensorInfo]]:
    """The attributes that are tensors: of a dict, or of the pair (dict, slots)."""
    mappings = [each for each in (state if isinstance(state, tuple) else (state,)) if isinstance(each, dict)]
    return [
        (name, value)
        for attributes in mappings
        for name, value in attributes.items()
        if isinstance(name, str) and isinstance(value, TensorInfo)
    ]


def _wrapper(site: CallSite) -> Value:
    """`_rebuild_wrapper_subclass(class, dtype, size, stride, offset, layout, device, requires_grad)`: no memory."""
    match site.args:
        case (Opaque(class_name=subclass), dtype, size, _, _, _, _, requires_grad) if is_shape(size):
            return TensorInfo(
                "", named_dtype(site, dtype), size,
                requires_grad=requires_grad is True, layout="wrapper", class_name=subclass,
            )  # fmt: skip
    raise site.malformed()


def _njt(site: CallSite) -> Value:
    """`_rebuild_njt({"values", "offsets", "lengths", …})`: a jagged nested tensor, kept as its parts."""
    match site.args:
        case ({"values": TensorInfo() as values, "offsets": TensorInfo() as offsets, **rest},):
            pass
        case _:
            raise site.malformed()
    parts = [Part("values", values), Part("offsets", offsets)]
    lengths = rest.get("lengths")
    if isinstance(lengths, TensorInfo):
        parts.append(Part("lengths", lengths))
    return TensorInfo(
        "", values.dtype, values.shape,
        requires_grad=rest.get("requires_grad") is True, layout="wrapper", parts=tuple(parts),
        class_name="torch.nested._internal.nested_tensor.NestedTensor",
    )  # fmt: skip


def _meta(site: CallSite) -> Value:
    match site.args:
        case (dtype, size, stride, requires_grad) if is_shape(size) and is_shape(stride) and len(size) == len(stride):
            return TensorInfo("", named_dtype(site, dtype), size, stride, requires_grad=requires_grad is True)
    raise site.malformed()


def _on_device(site: CallSite) -> Value:
    """A tensor that was moved to the CPU, or to numpy, to be saved: (data, dtype, device, requires_grad)."""
    match site.args:
        case (TensorInfo() as data, _, _, requires_grad):
            return replace(data, requires_grad=requires_grad is True)
        case (Opaque(), _, _, _):
            return site.unbuilt()
    raise site.malformed()


def _nested_file(site: CallSite) -> Value:
    """`_load_from_bytes(data)`: a whole file of the legacy format, kept as bytes (a tensor given to plain pickle)."""
    match site.args:
        case (bytes() as data,) if site.open_bytes is not None:
            return site.open_bytes(data)
        case (bytes(),):
            return site.unbuilt()
    raise site.malformed()


_CLASS_DTYPES: Final = {f"{row.storage}Tensor": row.name for row in DTYPES.values() if row.storage}

TENSORS: Final[dict[str, Builder]] = {
    "torch._utils._rebuild_tensor": _tensor_v1,
    "torch._utils._rebuild_tensor_v2": _tensor_v2,
    "torch._utils._rebuild_tensor_v3": _tensor_v3,
    "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_parameter_with_state": _parameter,
    "torch._utils._rebuild_sparse_tensor": sparse,
    "torch._utils._rebuild_qtensor": quantized,
    "torch._utils._rebuild_nested_tensor": nested,
    "torch._utils._rebuild_meta_tensor_no_storage": _meta,
    "torch._utils._rebuild_wrapper_subclass": _wrapper,
    "torch._utils._rebuild_device_tensor_from_numpy": _on_device,
    "torch._utils._rebuild_device_tensor_from_cpu_tensor": _on_device,
    "torch._utils._rebuild_xla_tensor": _on_device,
    "torch._tensor._rebuild_from_type_v2": _from_type_v2,
    "torch._tensor._rebuild_from_type": _from_type_v2,
    "torch.tensor._rebuild_from_type_v2": _from_type_v2,  # the module's name before torch 1.8
    "torch.tensor._rebuild_from_type": _from_type_v2,
    "torch.nested._internal.nested_tensor._rebuild_njt": _njt,
    "torch.storage._load_from_bytes": _nested_file,
    TENSOR: _class_call,
    PARAMETER: _class_call,
    "torch.autograd.variable.Variable": _class_call,
    **{f"torch.{name}": _class_call for name in _CLASS_DTYPES},
    **{f"torch.cuda.{name}": _class_call for name in _CLASS_DTYPES},
}
