"""One line for a plain value: `{lr: 0.1, betas: [0.9, 0.999]}`.  Looks at a few items only, however large the value."""

from __future__ import annotations

from loadstone.dtypes import DTYPES
from loadstone.screens import quantities
from loadstone.screens.text import cut_end
from loadstone.tensors import TensorInfo
from loadstone.values import Opaque, SavedModule, Value

_MOST_ITEMS = 6
_MOST_LEVELS = 3
_MOST_CHARACTERS = 120


def brief(value: Value, width: int) -> str:
    """The value in at most `width` cells, its beginning where it is longer."""
    return cut_end(_text(value, _MOST_LEVELS), width)


def name_of(key: Value) -> str:
    """A dict key as text, without walking into it."""
    if isinstance(key, str):
        return key
    if isinstance(key, bytes):
        return key.decode("utf-8", "backslashreplace")
    return str(key) if isinstance(key, (int, float, bool, type(None))) else type(key).__name__


def _text(value: Value, levels: int) -> str:
    if isinstance(value, str):
        return repr(value[:_MOST_CHARACTERS])
    if isinstance(value, float):
        return min(repr(value), f"{value:.6g}", key=len)
    if isinstance(value, int) and not isinstance(value, bool) and value.bit_length() > 256:
        return f"an integer of {value.bit_length():,} bits"
    if value is None or isinstance(value, (bool, int, complex)):
        return str(value)
    if isinstance(value, (bytes, bytearray)):
        return quantities.counted(len(value), "byte")
    if isinstance(value, TensorInfo):
        return f"tensor {quantities.shape(value.shape)} {DTYPES[value.dtype].short}"
    if isinstance(value, SavedModule):
        return f"{value.class_name}, a module of {quantities.counted(len(value.state_dict), 'tensor')}"
    if isinstance(value, Opaque):
        return _object(value, levels)
    if isinstance(value, dict):
        return "{" + _pairs(value, levels, ": ") + "}"
    if isinstance(value, (list, tuple, set, frozenset)):
        return "[" + _items(list(value)[:_MOST_ITEMS] if isinstance(value, (set, frozenset)) else value, levels) + "]"
    return type(value).__name__


def _object(value: Opaque, levels: int) -> str:
    if isinstance(value.state, dict) and value.state:
        inside = _pairs(value.state, levels, "=")
    elif value.entries:
        inside = _pairs(value.entries, levels, "=")
    else:
        inside = _items(value.args or value.items, levels)
    return f"{value.class_name}({inside})"


def _pairs(value: dict[Value, Value], levels: int, between: str) -> str:
    if levels == 0 and value:
        return "…"
    shown: list[str] = []
    for key, child in value.items():
        if len(shown) == _MOST_ITEMS:
            return ", ".join(shown) + f", … {len(value) - _MOST_ITEMS:,} more"
        shown.append(f"{name_of(key)}{between}{_text(child, levels - 1)}")
    return ", ".join(shown)


def _items(values: list[Value] | tuple[Value, ...], levels: int) -> str:
    if levels == 0 and values:
        return "…"
    shown = ", ".join(_text(child, levels - 1) for child in values[:_MOST_ITEMS])
    return shown + (f", … {len(values) - _MOST_ITEMS:,} more" if len(values) > _MOST_ITEMS else "")
