"""A pickle machine that turns opcodes into inert values: it imports nothing, calls nothing and hashes no container.

Where Python's machine would import a name, this one makes a Global; where it would call, a Call; where it would hash,
a list of pairs (formats/pickles/values.py).  Everything a pickle would have done is recorded, also what it throws away
again, so that formats/pickles/globals.py can judge it.  Nothing here recurses.
"""

from __future__ import annotations

import struct

from loadstone import collector
from loadstone.errors import Diagnostic, FormatError, IntegrityError, LoadstoneError
from loadstone.formats.pickles.globals import judge
from loadstone.formats.pickles.input import EndOfSourceError
from loadstone.formats.pickles.machine import HANDLERS, Machine, MalformedError
from loadstone.formats.pickles.opcodes import OPCODES
from loadstone.formats.pickles.text import BadOperandError
from loadstone.formats.pickles.values import Execution, PersistentId, PickledDict, PickleValue
from loadstone.io.limits import DEFAULT_LIMITS, Limits
from loadstone.io.sources import ByteSource

_INT32 = struct.Struct("<i").unpack_from
_UINT16 = struct.Struct("<H").unpack_from
_UINT32 = struct.Struct("<I").unpack_from
_FLOAT64 = struct.Struct(">d").unpack_from


def execute(source: ByteSource, start: int = 0, *, limits: Limits = DEFAULT_LIMITS) -> Execution:
    """Run the pickle that begins at `start`, up to its STOP; a next one begins at `stop` of the outcome.

    Reads no more of the source than the pickle and one window behind it.  Raises FormatError (corrupt-pickle) where an
    instruction is unknown or finds nothing to work on, IntegrityError (truncated-file) where the source ends before
    STOP, LimitError (resource-limit).  What the pickle had asked for up to there is in the error's diagnostics too.
    """
    with collector.paused():
        return _run(Machine(source, start, limits))


def _run(machine: Machine) -> Execution:
    """The loop.

    The opcodes that make up a state dict are carried out here, the most frequent first, on local names; all others, and
    strings that reach beyond the window, go through HANDLERS.  `at` moves only when an instruction is through, so that
    an error finds it where the instruction starts.
    """
    feed, stack, metastack, memo = machine.input, machine.stack, machine.metastack, machine.memo
    data, base, at, held, pause = feed.data, feed.base, feed.at, feed.held, feed.pause
    depth = machine.limits.depth
    code = opcodes = 0
    try:
        for opcodes in range(1, machine.limits.opcodes + 1):
            if at > pause:
                feed.at = at
                feed.attend()
                data, base, at, held, pause = feed.data, feed.base, feed.at, feed.held, feed.pause
            code = data[at]
            if code == 0x71:  # BINPUT
                memo[data[at + 1]] = stack[-1]
                at += 2
            elif code == 0x72:  # LONG_BINPUT
                memo[_UINT32(data, at + 1)[0]] = stack[-1]
                at += 5
            elif code == 0x94:  # MEMOIZE
                memo[len(memo)] = stack[-1]
                at += 1
            elif code == 0x68:  # BINGET
                stack.append(memo[data[at + 1]])
                at += 2
            elif code == 0x6A:  # LONG_BINGET
                stack.append(memo[_UINT32(data, at + 1)[0]])
                at += 5
            elif code == 0x4B:  # BININT1
                stack.append(data[at + 1])
                at += 2
            elif code == 0x4D:  # BININT2
                stack.append(_UINT16(data, at + 1)[0])
                at += 3
            elif code == 0x4A:  # BININT
                stack.append(_INT32(data, at + 1)[0])
                at += 5
            elif code == 0x28:  # MARK
                if len(metastack) >= depth:
                    machine.limits.check("depth", len(metastack) + 1, f"the pickle at {machine.start:,}, nested MARKs,")
                metastack.append(stack)
                stack = []
                at += 1
            elif code == 0x74:  # TUPLE
                items = tuple(stack)
                stack = metastack.pop()
                stack.append(items)
                at += 1
            elif code == 0x58 and (stop := at + 5 + _UINT32(data, at + 1)[0]) <= held:  # BINUNICODE
                stack.append(str(data[at + 5 : stop], "utf-8", "surrogatepass"))
                at = stop
            elif code == 0x8C and (stop := at + 2 + data[at + 1]) <= held:  # SHORT_BINUNICODE
                stack.append(str(data[at + 2 : stop], "utf-8", "surrogatepass"))
                at = stop
            elif code == 0x85:  # TUPLE1
                stack[-1] = (stack[-1],)
                at += 1
            elif code == 0x86:  # TUPLE2
                last = stack.pop()
                stack[-1] = (stack[-1], last)
                at += 1
            elif code == 0x87:  # TUPLE3
                last, middle = stack.pop(), stack.pop()
                stack[-1] = (stack[-1], middle, last)
                at += 1
            elif code == 0x29:  # EMPTY_TUPLE
                stack.append(())
                at += 1
            elif code == 0x52:  # REDUCE
                arguments = stack.pop()
                stack[-1] = machine.call(stack[-1], arguments, "reduce", base + at)
                at += 1
            elif code == 0x51:  # BINPERSID
                reference = PersistentId(stack[-1], base + at)
                machine.persistent_ids.append(reference)
                stack[-1] = reference
                at += 1
            elif code == 0x89:  # NEWFALSE
                stack.append(False)
                at += 1
            elif code == 0x88:  # NEWTRUE
                stack.append(True)
                at += 1
            elif code == 0x4E:  # NONE
                stack.append(None)
                at += 1
            elif code == 0x47:  # BINFLOAT
                stack.append(_FLOAT64(data, at + 1)[0])
                at += 9
            elif code == 0x73:  # SETITEM
                value, key = stack.pop(), stack.pop()
                machine.set_items(stack[-1], [key, value], base + at)
                at += 1
            elif code == 0x75:  # SETITEMS
                new = stack
                stack = metastack.pop()
                machine.set_items(stack[-1], new, base + at)
                at += 1
            elif code == 0x65:  # APPENDS
                new = stack
                stack = metastack.pop()
                machine.append(stack[-1], new, base + at)
                at += 1
            elif code == 0x5D:  # EMPTY_LIST
                stack.append([])
                at += 1
            elif code == 0x7D:  # EMPTY_DICT
                stack.append(PickledDict())
                at += 1
            elif code == 0x2E:  # STOP
                feed.at = at + 1
                return _finish(machine, stack, opcodes)
            elif code in HANDLERS:
                machine.stack, feed.at = stack, at + 1
                HANDLERS[code](machine, base + at)
                stack = machine.stack
                data, base, at, held, pause = feed.data, feed.base, feed.at, feed.held, feed.pause
            else:
                raise MalformedError("is no opcode")
        machine.limits.check(
            "opcodes", machine.limits.opcodes + 1, f"the pickle at {machine.start:,}, in instructions,"
        )
        raise AssertionError("the limit was not reached")
    except (
        MalformedError,
        BadOperandError,
        EndOfSourceError,
        IndexError,
        KeyError,
        UnicodeDecodeError,
        LoadstoneError,
    ) as error:
        raise _failure(machine, error, code, base + at, opcodes) from None


def _finish(machine: Machine, stack: list[PickleValue], opcodes: int) -> Execution:
    """The outcome, at STOP."""
    if machine.metastack:
        raise MalformedError("comes while a MARK is open")
    value = stack.pop()
    stop = machine.input.finish()
    if stack:
        machine.oddities.append((stop - 1, f"STOP leaves {len(stack):,} values behind"))
    return machine.outcome(value, stop, opcodes)


def _failure(machine: Machine, error: Exception, code: int, offset: int, opcodes: int) -> LoadstoneError:
    """The error users see, with what the pickle had asked for before it."""
    name = machine.source.name
    asked_for = tuple(
        diagnostic
        for diagnostic in judge(machine.outcome(None, offset, opcodes), name)
        if diagnostic.severity == "error"
    )
    if isinstance(error, LoadstoneError):
        return type(error)(*error.diagnostics, *asked_for) if asked_for else error
    opcode, operand = OPCODES.get(code, (f"0x{code:02x}", 0))
    size = machine.source.size
    reaches = error.args[0] if isinstance(error, EndOfSourceError) else offset + 1 + operand
    if reaches > size:
        message = f"`{name}` ends inside the pickle that begins at {machine.start:,}"
        evidence = (("expected", f"at least {reaches:,} bytes"), ("found", f"{size:,} bytes"))
        return IntegrityError(Diagnostic("truncated-file", message, evidence), *asked_for)
    if isinstance(error, KeyError):
        why = f"asks for memo entry {error.args[0]:,}, which was never stored"
    elif isinstance(error, IndexError):
        why = "finds too little on the stack"
    elif isinstance(error, UnicodeDecodeError):
        why = f"has text that is not {error.encoding}"
    else:
        why = str(error)
    message = f"the pickle in `{name}` is malformed at {offset:,}: {opcode} {why}"
    return FormatError(Diagnostic("corrupt-pickle", message), *asked_for)
