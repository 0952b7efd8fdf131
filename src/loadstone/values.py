"""What a file holds besides tensors, as inert values: plain Python data, and objects kept as records.

Nothing here was imported or called on behalf of a file.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, TypeAlias

from loadstone.tensors import TensorInfo

Value: TypeAlias = Any  # None, bool, int, float, complex, str, bytes, list, tuple, set, dict, TensorInfo, Opaque


class AnnotatedDict(dict):  # type: ignore[type-arg]
    """A dict that was saved with attributes of its own, as a state dict is with `_metadata` (layer versions)."""

    __slots__ = ("attributes",)

    def __init__(self, *args: Any, attributes: dict[str, Value] | None = None) -> None:
        super().__init__(*args)
        self.attributes: dict[str, Value] = attributes or {}


@dataclass(slots=True, eq=False)
class Opaque:
    """An object the file names but Loadstone does not build: its class name and its data.

    Attributes:
        class_name: "package.module.Class", or of a function that would have been called.
        args: the arguments of that call.
        state: what would have been given to __setstate__, usually a dict of attributes; None if nothing.
        items, entries: what would have been appended to it (a list subclass) or set in it (a dict subclass).
    """

    class_name: str
    args: tuple[Value, ...] = ()
    state: Value = None
    items: list[Value] = field(default_factory=list)
    entries: dict[Any, Value] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"Opaque({self.class_name!r})"


@dataclass(slots=True, eq=False, repr=False)
class SavedModule(Opaque):
    """A whole `nn.Module` as a pickle keeps it, its class known by name only.

    Attributes:
        state_dict: the keys, in order, and tensors that `module.state_dict()` would have given.
        modules: class names by dotted path, "" for the module itself, in the order of `named_modules()`.
        metadata: layer versions by dotted path, as `state_dict()._metadata` has them: {"layer1.0.bn1": {"version": 2}}.
        skipped: keys that state_dict() would have had but that are no tensors (extra state, packed parameters).
        non_persistent: buffers that state_dict() leaves out.
    """

    state_dict: dict[str, TensorInfo] = field(default_factory=dict)
    modules: dict[str, str] = field(default_factory=dict)
    metadata: dict[str, dict[str, Value]] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    non_persistent: dict[str, TensorInfo] = field(default_factory=dict)
