"""A bare pickle: training arguments, numpy values, or tensors that were given to `pickle.dump` and not to `torch.save`.

A tensor in one is a call of `torch.storage._load_from_bytes` on a whole file of the legacy format, which is opened in
its place.  Several pickles may follow each other: the first is the tree, and all are judged.  Where a stream of
`torch.save` follows (a program wrote a header of its own before it), both are shown.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NoReturn, final

from loadstone.errors import Diagnostic, IntegrityError, LoadstoneError
from loadstone.formats.contents import Contents, Context
from loadstone.formats.pickles.interpret import interpret
from loadstone.formats.pickles.judged import JudgedPickles
from loadstone.formats.pickles.storage_classes import STREAM_MAGIC
from loadstone.formats.pickles.values import PickleValue
from loadstone.formats.pickles.vm import execute
from loadstone.formats.trailing_bytes import check_end, is_padding
from loadstone.io.sources import ByteSource, SliceSource

FORMAT = "pickle"
_PROTO = 0x80
_HIGHEST_PROTOCOL = 5
_BROKEN = frozenset({"corrupt-pickle", "truncated-file"})


def recognises(head: bytes, source: ByteSource) -> bool:
    """Whether the file starts with PROTO, or is text that runs as a pickle of protocol 0 or 1 from start to end."""
    if head[:1] == bytes([_PROTO]):
        return len(head) > 1 and head[1] <= _HIGHEST_PROTOCOL
    position = 0
    try:
        while position == 0 or not is_padding(source, position):
            execution = execute(source, position)
            if execution.opcodes < 2:
                return False
            position = execution.stop
    except LoadstoneError:
        return False
    return True


def read(source: ByteSource, context: Context) -> Contents:
    """The value of the first pickle, tensors as places in the file.

    Raises FormatError (corrupt-pickle), IntegrityError (truncated-file, or missing-record where the pickle is the
    `data.pkl` of a zip without its zip), UnsafeError (ambiguous-archive) where a zip archive follows.
    """
    with JudgedPickles(context, source.name) as pickles:
        first = pickles.execute(source)
        tree = interpret(
            first, _Absent(source.name), where=source.name, limits=context.limits, open_bytes=pickles.open_bytes
        )
        end, others, stream = _follow(source, first.stop, context, pickles)
        notes = check_end(source, end) if stream is None else stream.diagnostics
        if stream is not None:
            tree = {"pickle": tree, "stream": stream.tree}
    if others:
        what = f"{others:,} more pickles follow in `{source.name}`, only the first is shown"
        notes = (*notes, Diagnostic("trailing-bytes", what))
    return Contents(FORMAT, tree, (*pickles.findings, *notes), {"protocol": str(first.protocol)})


@final
@dataclass(frozen=True, slots=True)
class _Absent:
    """What persistent ids stand for in a pickle that is alone."""

    name: str

    def __call__(self, persistent_id: PickleValue) -> NoReturn:
        why = "is a pickle alone: the storages that it refers to are not in it"
        raise IntegrityError(Diagnostic("missing-record", f"`{self.name}` {why}"))


def _follow(
    source: ByteSource, position: int, context: Context, pickles: JudgedPickles
) -> tuple[int, int, Contents | None]:
    """Judge the pickles behind the first: where they end, how many they are, and the stream of torch among them."""
    others = 0
    while not is_padding(source, position):
        try:
            execution = pickles.execute(source, position)
        except LoadstoneError as error:  # not a pickle any more; what it had asked for until then counts
            pickles.findings += [finding for finding in error.diagnostics if finding.code not in _BROKEN]
            break
        if execution.value == STREAM_MAGIC and type(execution.value) is int:
            rest = SliceSource(source, position, source.size - position, source.name)
            return position, others, context.open(rest)
        others += 1
        position = execution.stop
    return position, others, None
