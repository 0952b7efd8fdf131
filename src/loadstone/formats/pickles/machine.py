"""What each pickle opcode does to the machine's state, without importing, calling or hashing anything.

The stack is kept as CPython's Lib/pickle.py keeps it: MARK puts the stack aside and starts a new one, so that no
instruction can reach below the last MARK.  The opcodes that make up most of a state dict are carried out by the loop in
formats/pickles/vm.py; all others are methods here, found through `HANDLERS`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, final

from loadstone.formats.pickles.input import PickleInput
from loadstone.formats.pickles.opcodes import HIGHEST_PROTOCOL
from loadstone.formats.pickles.text import (
    parse_float,
    parse_index,
    parse_int_or_bool,
    parse_integer,
    parse_quoted,
    python2_string,
)
from loadstone.formats.pickles.values import (
    NO_STATE,
    BigInt,
    Call,
    CallKind,
    Execution,
    Global,
    OutOfBandBuffer,
    PersistentId,
    PickledDict,
    PickledSet,
    PickleValue,
)
from loadstone.io.limits import Limits
from loadstone.io.sources import ByteSource

COMPUTED: Final = "<computed>"  # stands for a module or a name that only a call would have given

# What may be called: a name, the result of a call, or what stands outside the pickle (legacy files keep classes there).
_CALLABLE: Final = frozenset({Global, Call, PersistentId})


class MalformedError(Exception):
    """An instruction that cannot be carried out; the text says why, in the words of an error message."""


@final
class Machine:
    """The state of one execution, and what instructions do to it.  `offset` is where an instruction starts."""

    __slots__ = (
        "buffers", "calls", "globals", "input", "limits", "memo", "metastack", "oddities", "persistent_ids",
        "protocol", "source", "stack", "start",
    )  # fmt: skip

    def __init__(self, source: ByteSource, start: int, limits: Limits) -> None:
        self.source = source
        self.start = start
        self.limits = limits
        self.oddities: list[tuple[int, str]] = []
        self.input = PickleInput(source, start, limits, self.oddities)
        self.stack: list[PickleValue] = []
        self.metastack: list[list[PickleValue]] = []
        self.memo: dict[int, PickleValue] = {}
        self.globals: list[Global] = []
        self.calls: list[Call] = []
        self.persistent_ids: list[PersistentId] = []
        self.protocol = 0
        self.buffers = 0

    def outcome(self, value: PickleValue, stop: int, opcodes: int) -> Execution:
        """All that was recorded."""
        return Execution(
            value=value,
            start=self.start,
            stop=stop,
            protocol=self.protocol,
            opcodes=opcodes,
            globals=self.globals,
            calls=self.calls,
            persistent_ids=self.persistent_ids,
            oddities=self.oddities,
        )

    def call(
        self, function: PickleValue, arguments: PickleValue, kind: CallKind, offset: int, kwargs: PickleValue = None
    ) -> Call:
        """The record of a call."""
        if type(function) not in _CALLABLE:
            raise MalformedError(f"calls {_kind(function)}")
        if type(arguments) is not tuple:
            if type(arguments) is not Call:
                raise MalformedError(f"passes {_kind(arguments)} for a tuple of arguments")
            self.oddities.append((offset, "the arguments of a call are the result of another call"))
        call = Call(function, arguments, kind, offset, kwargs)
        self.calls.append(call)
        return call

    def set_items(self, target: PickleValue, new: list[PickleValue], offset: int) -> None:
        """Put keys and values, which alternate in `new`, into a dict or the result of a call."""
        if len(new) % 2:
            raise MalformedError("finds a key without a value")
        if type(target) is PickledDict or type(target) is Call:
            target.entries.extend(zip(new[::2], new[1::2], strict=True))
        else:
            self.change_of_global(target, "a dict", offset)

    def append(self, target: PickleValue, new: list[PickleValue], offset: int) -> None:
        """Put values at the end of a list or of the result of a call."""
        if type(target) is list:
            target.extend(new)
        elif type(target) is Call:
            target.items.extend(new)
        else:
            self.change_of_global(target, "a list", offset)

    def change_of_global(self, target: PickleValue, wanted: str, offset: int) -> None:
        """Items put into a name, such as sys.modules: an attack, which is recorded."""
        if type(target) is not Global:
            raise MalformedError(f"finds {_kind(target)} instead of {wanted}")
        self.oddities.append((offset, f"items are put into {target.path[:200]!a}"))

    def push_global(self, module: PickleValue, name: PickleValue, offset: int) -> None:
        record = Global(module, name, offset)
        self.globals.append(record)
        self.stack.append(record)

    def pop_mark(self) -> list[PickleValue]:
        """What was put on the stack since the last MARK, which is taken away."""
        items = self.stack
        self.stack = self.metastack.pop()
        return items

    # --- the opcodes that the loop does not carry out itself, in the order of the table below -----------------------

    def proto(self, offset: int) -> None:
        version = self.input.unsigned(1)
        if version > HIGHEST_PROTOCOL:
            raise MalformedError(f"says {version}, the highest protocol is {HIGHEST_PROTOCOL}")
        self.protocol = max(self.protocol, version)

    def frame(self, offset: int) -> None:
        self.input.enter_frame(self.input.unsigned(8))

    def pop(self, offset: int) -> None:
        if self.stack:
            del self.stack[-1]
        else:
            self.pop_mark()

    def drop_mark(self, offset: int) -> None:
        self.pop_mark()

    def dup(self, offset: int) -> None:
        self.stack.append(self.stack[-1])

    def put(self, offset: int) -> None:
        self.memo[parse_index(self.input.line(), self.limits)] = self.stack[-1]

    def get(self, offset: int) -> None:
        self.stack.append(self.memo[parse_index(self.input.line(), self.limits)])

    def integer(self, offset: int) -> None:
        self.stack.append(parse_int_or_bool(self.input.line(), self.limits))

    def long(self, offset: int) -> None:
        line = self.input.line()
        self.stack.append(parse_integer(line.removesuffix(b"L"), self.limits))

    def float(self, offset: int) -> None:
        self.stack.append(parse_float(self.input.line()))

    def long1(self, offset: int) -> None:
        self.push_long(self.input.unsigned(1))

    def long4(self, offset: int) -> None:
        self.push_long(self.signed_length())

    def push_long(self, nbytes: int) -> None:
        data = self.input.take(nbytes)
        is_big = nbytes > self.limits.big_int_nbytes
        self.stack.append(BigInt(data) if is_big else int.from_bytes(data, "little", signed=True))

    def signed_length(self) -> int:
        """The length of LONG4 and BINSTRING, the two whose type has a sign."""
        nbytes = self.input.unsigned(4)
        if nbytes >= 2**31:
            raise MalformedError(f"has the negative length {nbytes - 2**32:,}")
        return nbytes

    def string(self, offset: int) -> None:
        self.stack.append(python2_string(parse_quoted(self.input.line())))

    def binstring(self, offset: int) -> None:
        self.stack.append(python2_string(self.input.take(self.signed_length())))

    def short_binstring(self, offset: int) -> None:
        self.stack.append(python2_string(self.input.take(self.input.unsigned(1))))

    def text_line(self, offset: int) -> None:
        self.stack.append(str(self.input.line(), "raw-unicode-escape"))

    def text1(self, offset: int) -> None:
        self.stack.append(str(self.input.take(self.input.unsigned(1)), "utf-8", "surrogatepass"))

    def text4(self, offset: int) -> None:
        self.stack.append(str(self.input.take(self.input.unsigned(4)), "utf-8", "surrogatepass"))

    def text8(self, offset: int) -> None:
        self.stack.append(str(self.input.take(self.input.unsigned(8)), "utf-8", "surrogatepass"))

    def bytes1(self, offset: int) -> None:
        self.stack.append(self.input.take(self.input.unsigned(1)))

    def bytes4(self, offset: int) -> None:
        self.stack.append(self.input.take(self.input.unsigned(4)))

    def bytes8(self, offset: int) -> None:
        self.stack.append(self.input.take(self.input.unsigned(8)))

    def bytearray8(self, offset: int) -> None:
        self.stack.append(bytearray(self.input.take(self.input.unsigned(8))))

    def next_buffer(self, offset: int) -> None:
        self.stack.append(OutOfBandBuffer(self.buffers))
        self.buffers += 1

    def readonly_buffer(self, offset: int) -> None:
        if type(self.stack[-1]) is not OutOfBandBuffer:
            raise MalformedError(f"finds {_kind(self.stack[-1])} instead of a buffer")

    def list(self, offset: int) -> None:
        items = self.pop_mark()
        self.stack.append(items)

    def dict(self, offset: int) -> None:
        items = self.pop_mark()
        record = PickledDict()
        self.set_items(record, items, offset)
        self.stack.append(record)

    def append_one(self, offset: int) -> None:
        value = self.stack.pop()
        self.append(self.stack[-1], [value], offset)

    def empty_set(self, offset: int) -> None:
        self.stack.append(PickledSet())

    def frozenset(self, offset: int) -> None:
        items = self.pop_mark()
        self.stack.append(PickledSet(items, is_frozen=True))

    def add_items(self, offset: int) -> None:
        items = self.pop_mark()
        target = self.stack[-1]
        if type(target) is Call or (type(target) is PickledSet and not target.is_frozen):
            target.items.extend(items)
        else:
            self.change_of_global(target, "a set", offset)

    def global_(self, offset: int) -> None:
        module, name = str(self.input.line(), "utf-8"), str(self.input.line(), "utf-8")
        self.push_global(module, name, offset)

    def stack_global(self, offset: int) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        if Call in (type(module), type(name)):
            self.oddities.append((offset, "a name is the result of a call"))
            module = COMPUTED if type(module) is Call else module
            name = COMPUTED if type(name) is Call else name
        if type(module) is not str or type(name) is not str:
            raise MalformedError(f"takes two texts, not {_kind(module)} and {_kind(name)}")
        self.push_global(module, name, offset)

    def extension1(self, offset: int) -> None:
        self.push_extension(self.input.unsigned(1), offset)

    def extension2(self, offset: int) -> None:
        self.push_extension(self.input.unsigned(2), offset)

    def extension4(self, offset: int) -> None:
        self.push_extension(self.input.unsigned(4), offset)

    def push_extension(self, number: int, offset: int) -> None:
        """A name by its number in the registry of copyreg, which is different on every machine."""
        self.oddities.append((offset, f"a name is given by its extension code {number}"))
        self.push_global("copyreg.extension", str(number), offset)

    def persistent_id(self, offset: int) -> None:
        reference = PersistentId(str(self.input.line(), "ascii"), offset)
        self.persistent_ids.append(reference)
        self.stack.append(reference)

    def inst(self, offset: int) -> None:
        module, name = str(self.input.line(), "utf-8"), str(self.input.line(), "utf-8")
        arguments = tuple(self.pop_mark())
        self.push_global(module, name, offset)
        self.stack[-1] = self.call(self.stack[-1], arguments, "inst", offset)

    def obj(self, offset: int) -> None:
        items = self.pop_mark()
        self.stack.append(self.call(items[0], tuple(items[1:]), "obj", offset))

    def new_object(self, offset: int) -> None:
        arguments = self.stack.pop()
        self.stack[-1] = self.call(self.stack[-1], arguments, "newobj", offset)

    def new_object_ex(self, offset: int) -> None:
        kwargs, arguments = self.stack.pop(), self.stack.pop()
        if type(kwargs) not in (PickledDict, Call):
            raise MalformedError(f"passes {_kind(kwargs)} for a dict of arguments")
        self.stack[-1] = self.call(self.stack[-1], arguments, "newobj_ex", offset, kwargs)

    def build(self, offset: int) -> None:
        state = self.stack.pop()
        target = self.stack[-1]
        if type(target) is not Call and type(target) is not Global:
            raise MalformedError(f"gives a state to {_kind(target)}")
        if target.state is not NO_STATE:
            self.oddities.append((offset, "an object is given a state twice"))
        target.state = state


def _kind(value: PickleValue) -> str:
    """What a value is, for a message; never the value itself."""
    return _KINDS.get(type(value)) or f"a value of type {type(value).__name__}"


_KINDS: Final[dict[type, str]] = {
    type(None): "None",
    PickledDict: "a dict",
    PickledSet: "a set",
    list: "a list",
    tuple: "a tuple",
    str: "a text",
    bytes: "bytes",
    int: "an integer",
    BigInt: "an integer",
    Global: "a name",
    Call: "the result of a call",
    PersistentId: "a persistent id",
    OutOfBandBuffer: "a buffer",
}

HANDLERS: Final[dict[int, Callable[[Machine, int], None]]] = {
    0x80: Machine.proto,
    0x95: Machine.frame,
    0x30: Machine.pop,
    0x31: Machine.drop_mark,
    0x32: Machine.dup,
    0x70: Machine.put,
    0x67: Machine.get,
    0x49: Machine.integer,
    0x4C: Machine.long,
    0x46: Machine.float,
    0x8A: Machine.long1,
    0x8B: Machine.long4,
    0x53: Machine.string,
    0x54: Machine.binstring,
    0x55: Machine.short_binstring,
    0x56: Machine.text_line,
    0x8C: Machine.text1,
    0x58: Machine.text4,
    0x8D: Machine.text8,
    0x43: Machine.bytes1,
    0x42: Machine.bytes4,
    0x8E: Machine.bytes8,
    0x96: Machine.bytearray8,
    0x97: Machine.next_buffer,
    0x98: Machine.readonly_buffer,
    0x6C: Machine.list,
    0x64: Machine.dict,
    0x61: Machine.append_one,
    0x8F: Machine.empty_set,
    0x91: Machine.frozenset,
    0x90: Machine.add_items,
    0x63: Machine.global_,
    0x93: Machine.stack_global,
    0x82: Machine.extension1,
    0x83: Machine.extension2,
    0x84: Machine.extension4,
    0x50: Machine.persistent_id,
    0x69: Machine.inst,
    0x6F: Machine.obj,
    0x81: Machine.new_object,
    0x92: Machine.new_object_ex,
    0x62: Machine.build,
}
