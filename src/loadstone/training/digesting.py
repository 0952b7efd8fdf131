"""Digests of whatever a data loader gives or an optimizer keeps: equal values give equal digests, in any process.

Tensors and arrays count by dtype, shape and bytes, whatever their device or strides; containers by their items, in
order; other objects by their class and attributes, and never by their address.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Set

import torch

from loadstone import as_torch
from loadstone.io.digests import Digest

_DEPTH = 16  # of attributes inside attributes; what lies deeper counts by its class


def feed(digest: Digest, value: object, depth: int = 0) -> None:
    """Go on with this value."""
    if isinstance(value, torch.Tensor):
        feed_tensor(digest, value)
        return
    if type(value).__module__ == "numpy" and hasattr(value, "tobytes"):  # an array, or a scalar of numpy
        _feed_array(digest, value)
        return
    if value is None or isinstance(value, (bool, int, float, complex, str)):
        digest.update(f"{type(value).__name__} {value!r};".encode("utf-8", "backslashreplace"))
        return
    if isinstance(value, (bytes, bytearray, memoryview)):
        digest.update(b"bytes %d;" % len(value))
        digest.update(value)
        return
    digest.update(f"{type(value).__qualname__}(".encode())
    if depth < _DEPTH:
        for item in _items(value):
            feed(digest, item, depth + 1)
    digest.update(b")")


def feed_tensor(digest: Digest, tensor: torch.Tensor) -> None:
    """Go on with the dtype, shape and bytes of a tensor."""
    digest.update(f"tensor {tensor.dtype} {tuple(tensor.shape)};".encode())
    dense = _dense(tensor.detach()).cpu().resolve_conj().resolve_neg().contiguous()
    if dense.numel():
        digest.update(as_torch.memory_of(dense))


def _dense(tensor: torch.Tensor) -> torch.Tensor:
    if tensor.is_nested:
        return tensor.values()
    if tensor.is_quantized:
        return tensor.dequantize()
    return tensor if tensor.layout == torch.strided else tensor.to_dense()


def _feed_array(digest: Digest, array: object) -> None:
    digest.update(f"{type(array).__name__} {getattr(array, 'dtype', '')} {getattr(array, 'shape', '')};".encode())
    if getattr(getattr(array, "dtype", None), "hasobject", False):
        digest.update(b"objects")  # their bytes are addresses
        return
    assert hasattr(array, "tobytes")  # the caller looked
    digest.update(array.tobytes())


def _items(value: object) -> Iterator[object]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield key
            yield item
    elif isinstance(value, Sequence):
        yield from value
    elif isinstance(value, Set):
        yield from sorted(map(repr, value))
    else:
        for name, item in getattr(value, "__dict__", {}).items():
            yield name
            yield item
