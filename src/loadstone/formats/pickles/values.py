"""What the pickle machine makes of a pickle: native scalars, lists and tuples, and inert records for all the rest.

A dict is a list of pairs, because hashing a key that a file chose can crash or stall the process; a call is a record,
because nothing is called.  Records compare by identity.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

PickleValue: TypeAlias = Any  # None, bool, int, float, str, bytes, bytearray, list, tuple, or one of the classes here

CallKind = Literal["reduce", "newobj", "newobj_ex", "inst", "obj"]


class _NoState:
    """The one value that means: no BUILD was seen (None can be a state)."""

    def __repr__(self) -> str:
        return "NO_STATE"


NO_STATE = _NoState()


@dataclass(slots=True, eq=False)
class Global:
    """A name that the pickle would have imported.  `module` and `name` are text from the file, nothing more."""

    module: str
    name: str
    offset: int
    state: PickleValue = NO_STATE  # a BUILD on a global is an attack; it is kept to be reported

    @property
    def path(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass(slots=True, eq=False)
class Call:
    """A call that the pickle would have made, with all that was done to its result."""

    function: PickleValue
    args: PickleValue  # a tuple unless the pickle is malformed on purpose
    kind: CallKind
    offset: int
    kwargs: PickleValue = None
    state: PickleValue = NO_STATE
    items: list[PickleValue] = field(default_factory=list)
    entries: list[tuple[PickleValue, PickleValue]] = field(default_factory=list)


@dataclass(slots=True, eq=False)
class PickledDict:
    """A dict as pairs, in the order they were set; a key may stand more than once, the last one counts."""

    entries: list[tuple[PickleValue, PickleValue]] = field(default_factory=list)


@dataclass(slots=True, eq=False)
class PickledSet:
    """A set or frozenset as a list of members."""

    items: list[PickleValue] = field(default_factory=list)
    is_frozen: bool = False


@dataclass(slots=True, eq=False)
class PersistentId:
    """A reference to something outside the pickle, for torch files a storage: a tuple, or text from protocol 0."""

    value: PickleValue
    offset: int


@dataclass(slots=True, eq=False)
class BigInt:
    """An integer longer than the limit, kept as its little-endian two's complement bytes and never turned to text."""

    data: bytes


@dataclass(slots=True, eq=False)
class OutOfBandBuffer:
    """NEXT_BUFFER of protocol 5: data that was passed beside the pickle and is not in the file."""

    index: int


@dataclass(frozen=True, slots=True)
class Execution:
    """The outcome of one pickle.

    Attributes:
        value: what STOP left on the stack.
        start, stop: offsets of the first byte and of the byte behind STOP.
        protocol: the highest PROTO seen, 0 where there was none.
        opcodes: number of instructions.
        globals, calls, persistent_ids: every record that was made, reachable from `value` or not, in order.
        oddities: (offset, what) of constructs no pickler writes, such as a FRAME that ends inside an instruction or
            a module name computed at run time.
    """

    value: PickleValue
    start: int
    stop: int
    protocol: int
    opcodes: int
    globals: list[Global]
    calls: list[Call]
    persistent_ids: list[PersistentId]
    oddities: list[tuple[int, str]]
