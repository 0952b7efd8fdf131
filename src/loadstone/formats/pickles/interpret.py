"""From what a pickle says to what it means: records become plain values, tensors and Opaque objects.

Only names in the tables (plain_objects.py, numpy_values.py, tensor_builders.py) mean anything; every other object stays
an Opaque record with its class name and its data, or becomes a SavedModule where it has the attributes of an
`nn.Module`.  Nothing is imported or called, and no key is hashed before it is known to be harmless.

What is shared in the pickle is shared in the result: one record gives one value, so that tied weights keep one storage.
Two passes, neither of which recurses: the first puts all records into an order in which children come before parents,
and makes the empty containers; the second fills them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final, TypeAlias

from loadstone.errors import Diagnostic, FormatError
from loadstone.formats.pickles.call_site import CallSite, OpenBytes, Table
from loadstone.formats.pickles.dense_tensors import bare_storage
from loadstone.formats.pickles.globals import canonical
from loadstone.formats.pickles.modules import Budget, complete, has_module_state
from loadstone.formats.pickles.numpy_values import ARRAYS
from loadstone.formats.pickles.plain_objects import NAMES, PLAIN, SCALARS, as_set, is_hash_attack, is_key
from loadstone.formats.pickles.storage_classes import StorageRef
from loadstone.formats.pickles.tensor_builders import PARAMETER, TENSOR, TENSORS
from loadstone.formats.pickles.values import (
    NO_STATE,
    BigInt,
    Call,
    Execution,
    Global,
    OutOfBandBuffer,
    PersistentId,
    PickledDict,
    PickledSet,
    PickleValue,
)
from loadstone.io.limits import DEFAULT_LIMITS, Limits
from loadstone.tensors import TensorInfo
from loadstone.values import AnnotatedDict, Opaque, SavedModule, Value

__all__ = ["StorageOf", "StorageRef", "interpret"]

StorageOf: TypeAlias = Callable[[PickleValue], StorageRef | TensorInfo | Global]

_BUILDERS: Final[Table] = {**PLAIN, **ARRAYS, **TENSORS}
_DICTS: Final = frozenset(
    {"collections.OrderedDict", "collections.defaultdict", "collections.Counter", "builtins.dict"}
)
_MAKERS: Final = frozenset({"copyreg._reconstructor", "copyreg.__newobj__", "copyreg.__newobj_ex__"})
_COMPUTED: Final = "<computed>"  # the class name of what a call of another call's result gives
_PENDING: Final = object()  # the value of a record that is not finished yet
_LEAVE: Final = object()  # on the stack of the first pass: all children of the innermost open record are done

_LEAVES: Final = frozenset({Global, PersistentId, BigInt, bytearray, OutOfBandBuffer})

_Pair: TypeAlias = tuple[PickleValue, PickleValue]


def interpret(
    execution: Execution,
    storage_of: StorageOf,
    *,
    where: str,
    limits: Limits = DEFAULT_LIMITS,
    open_bytes: OpenBytes | None = None,
) -> Value:
    """The value of a pickle as plain data, TensorInfo, Opaque and SavedModule.

    `storage_of` says what a persistent id stands for: a storage, a tensor, or a class (legacy files keep the classes of
    modules outside the pickle).  `open_bytes` opens files that are kept as bytes inside the pickle; without it they
    stay records.  `where` names the pickle in messages.

    Raises FormatError (corrupt-pickle, tensor-out-of-bounds) where a known call has arguments it cannot take or a
    tensor leaves its storage, LimitError where records are nested deeper than `limits.depth` or are more than
    `limits.nodes`, and whatever `storage_of` raises.
    """
    return _Interpreter(storage_of, where, limits, open_bytes).value_of(execution.value)


class _Interpreter:
    """The values made so far, by the identity of their records (which the Execution keeps alive)."""

    __slots__ = ("budget", "labels", "limits", "open_bytes", "paths", "storage_of", "values", "where")

    def __init__(self, storage_of: StorageOf, where: str, limits: Limits, open_bytes: OpenBytes | None) -> None:
        self.storage_of = storage_of
        self.where = where
        self.limits = limits
        self.open_bytes = open_bytes
        self.values: dict[int, Value] = {}
        self.paths: dict[int, str] = {}
        self.labels: dict[int, str] = {}
        self.budget = Budget(limits, where)

    def value_of(self, root: PickleValue) -> Value:
        for record in self._children_first(root):
            self._finish(record)
        return self._value(root)

    # --- first pass ---------------------------------------------------------------------------------------------

    def _children_first(self, root: PickleValue) -> list[PickleValue]:
        """Every record that has children, each after all of them; where records form a circle it is cut open."""
        values = self.values
        ordered: list[PickleValue] = []
        opened: list[PickleValue] = []
        stack: list[PickleValue] = [root]
        while stack:
            record = stack.pop()
            kind = type(record)
            if kind in SCALARS:
                continue
            if record is _LEAVE:
                ordered.append(opened.pop())
                continue
            if id(record) in values:
                continue
            if kind is tuple and SCALARS.issuperset(map(type, record)):
                values[id(record)] = record  # most tuples are shapes and strides
                continue
            if kind in _LEAVES:
                values[id(record)] = self._leaf(record)
                continue
            values[id(record)] = shell = self._shell(record)
            if type(shell) is dict and not _children(record):
                continue  # every tensor has an empty dict of hooks
            opened.append(record)
            if len(opened) > self.limits.depth:
                self.limits.check("depth", len(opened), f"a value in `{self.where}`, by its nesting,")
            stack.append(_LEAVE)
            stack.extend(_children(record))
            if len(values) > self.limits.nodes:
                self.limits.check("nodes", len(values), f"`{self.where}`")
        return ordered

    def _leaf(self, record: PickleValue) -> Value:
        """The value of a record without children."""
        if type(record) is Global:
            path = self._path(record)
            return path if path in NAMES else Opaque(path)
        if type(record) is PersistentId:
            found = self.storage_of(record.value)
            if isinstance(found, StorageRef):
                return bare_storage(found)
            return Opaque(self._path(record)) if isinstance(found, Global) else found
        if type(record) is BigInt:
            return Opaque("builtins.int", (record.data,))
        if type(record) is bytearray:
            return bytes(record)
        return Opaque("pickle.PickleBuffer")

    def _shell(self, record: PickleValue) -> Value:
        """The empty container that a record will fill, so that what is inside it can refer to it."""
        kind = type(record)
        if kind is list:
            return []
        if kind is PickledDict:
            return {}
        if kind is not Call:
            return _PENDING
        path = self._class_path(record)
        if path in _BUILDERS:
            return _PENDING
        if path in _DICTS:
            return {} if record.state is NO_STATE else AnnotatedDict()
        return SavedModule(path) if has_module_state(record) else Opaque(path)

    def _path(self, function: PickleValue) -> str:
        """The present name of what would have been called."""
        known = self.paths.get(id(function))
        if known is not None:
            return known
        meant = self.storage_of(function.value) if type(function) is PersistentId else function
        path = ".".join(canonical(meant.module, meant.name)) if type(meant) is Global else _COMPUTED
        self.paths[id(function)] = path
        return path

    def _class_path(self, call: Call) -> str:
        """The class of an object: what was called, or for copyreg's makers what they were told to make."""
        path = self.paths.get(id(call.function)) or self._path(call.function)
        if path in _MAKERS and type(call.args) is tuple and call.args:
            return self._path(call.args[0])
        return path

    # --- second pass --------------------------------------------------------------------------------------------

    def _value(self, record: PickleValue) -> Value:
        if type(record) in SCALARS:
            return record
        value = self.values[id(record)]
        return Opaque("<cycle>") if value is _PENDING else value

    def _finish(self, record: PickleValue) -> None:
        """Fill a container, or build what only its children make."""
        kind = type(record)
        if kind is list:
            self.values[id(record)].extend(map(self._value, record))
        elif kind is PickledDict:
            self._set_entries(self.values[id(record)], record.entries)
        elif kind is tuple:
            self.values[id(record)] = tuple(map(self._value, record))
        elif kind is PickledSet:
            self.values[id(record)] = as_set(map(self._value, record.items))
        elif kind is Call:
            self._finish_call(record)
        else:
            raise FormatError(Diagnostic("corrupt-pickle", f"`{self.where}` holds a {kind.__name__} out of place"))

    def _finish_call(self, call: Call) -> None:
        shell = self.values[id(call)]
        if shell is _PENDING:
            path = self._class_path(call)
            state = None if call.state is NO_STATE else self._value(call.state)
            items = list(map(self._value, call.items)) if call.items else []
            site = CallSite(path, self._arguments(call), state, items, [], self.where, self.open_bytes)
            self.values[id(call)] = _BUILDERS[path](site)
        elif isinstance(shell, Opaque):
            self._fill_object(shell, call)
        else:
            self._set_entries(shell, [*self._initial_entries(call), *call.entries])
            if isinstance(shell, AnnotatedDict):
                state = _merged(self._value(call.state))
                shell.attributes.update(state if isinstance(state, dict) else {})

    def _fill_object(self, shell: Opaque, call: Call) -> None:
        shell.args = self._arguments(call)
        if self._path(call.function) == _COMPUTED and type(call.function) is Call:
            shell.args = (self._value(call.function), *shell.args)
        if call.state is not NO_STATE:
            shell.state = _merged(self._value(call.state))
        shell.items.extend(map(self._value, call.items))
        self._set_entries(shell.entries, call.entries)
        if isinstance(shell, SavedModule):
            complete(shell, self.budget)

    def _arguments(self, call: Call) -> tuple[Value, ...]:
        """Positional arguments, without the class that copyreg's makers are told; keyword arguments as a dict last."""
        args: Value = () if call.args == () else self._value(call.args)
        if type(args) is not tuple:
            args = (args,)
        path = self._path(call.function)
        if path in _MAKERS:
            # copyreg._reconstructor takes (class, base, state of the base), the others the class first
            is_reconstructor = path == "copyreg._reconstructor" and len(args) == 3
            args = args[1:] if not is_reconstructor else args[2:] if args[2] is not None else ()
        kwargs = None if call.kwargs is None else self._value(call.kwargs)
        return (*args, kwargs) if kwargs else tuple(args)

    def _initial_entries(self, call: Call) -> Iterable[_Pair]:
        """What a dict was constructed from: a dict, or a list of pairs; a defaultdict's factory stands before."""
        args = call.args if type(call.args) is tuple else ()
        if self._path(call.function) in _MAKERS:
            args = args[1:]
        if self._class_path(call) == "collections.defaultdict":
            args = args[1:]
        if not args:
            return ()
        first = args[0]
        if type(first) is PickledDict:
            return first.entries
        if type(first) is list and all(type(pair) in (list, tuple) and len(pair) == 2 for pair in first):
            return [(pair[0], pair[1]) for pair in first]
        raise FormatError(Diagnostic("corrupt-pickle", f"`{self.where}` makes a dict of something that is none"))

    # --- keys ---------------------------------------------------------------------------------------------------

    def _set_entries(self, target: dict[Value, Value], entries: list[_Pair]) -> None:
        """Set the pairs in order; of equal keys the last value counts, as in a dict."""
        keys = [key if type(key) is str else self._key(key) for key, _ in entries]
        if is_hash_attack(keys):
            keys = [key if type(key) in (str, bytes) else repr(key) for key in keys]
        value = self._value
        target.update(zip(keys, (value(child) for _, child in entries), strict=True))

    def _key(self, record: PickleValue) -> Value:
        """A key that is safe to hash; an object becomes text that tells it from the others, "<pkg.Class #3>"."""
        value = self._value(record)
        if is_key(value):
            return value
        label = self.labels.get(id(record))
        if label is None:
            label = self.labels[id(record)] = f"<{_class_of(value)} #{len(self.labels) + 1}>"
        return label


def _children(record: PickleValue) -> Iterable[PickleValue]:
    kind = type(record)
    if kind is list or kind is tuple:
        return record  # type: ignore[no-any-return]
    if kind is PickledDict:
        return [part for entry in record.entries for part in entry]
    if kind is PickledSet:
        return record.items  # type: ignore[no-any-return]
    if kind is not Call:
        return ()
    children = [record.args] if record.args != () else []
    if record.kwargs is not None:
        children.append(record.kwargs)
    if type(record.function) is Call:
        children.append(record.function)
    if record.state is not NO_STATE:
        children.append(record.state)
    children += record.items
    for entry in record.entries:
        children += entry
    return children


def _merged(state: Value) -> Value:
    """The attributes of an object whose class has slots are saved as (dict, slots); they are one dict here."""
    match state:
        case (dict() | None as attributes, dict() as slots) if not (attributes and attributes.keys() & slots.keys()):
            return {**(attributes or {}), **slots}
    return state


def _class_of(value: Value) -> str:
    if isinstance(value, TensorInfo):
        return value.class_name or (PARAMETER if value.is_parameter else TENSOR)
    return value.class_name if isinstance(value, Opaque) else type(value).__name__
