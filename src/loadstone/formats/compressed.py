"""A checkpoint inside gzip, as `gzip model.pt` makes it: expanded into memory, within the limits, and read there."""

from __future__ import annotations

import zlib

from loadstone.errors import Diagnostic, Fix, FormatError, IntegrityError, LimitError, LoadstoneError
from loadstone.formats.contents import Contents, Context
from loadstone.io.limits import Limits
from loadstone.io.sources import ByteSource, MemorySource

FORMAT = "gzip"

_MAGIC = b"\x1f\x8b\x08"  # RFC 1952; the third byte is deflate, the only method there is
_CHUNK_NBYTES = 1024 * 1024
_MAX_RATIO = 200  # trained weights compress to 90 %, fresh ones with their optimizer's zeros to 30 %; bombs reach 1,000
_RATIO_FREE_NBYTES = 16 * 1024 * 1024
_TAR_MAGIC = b"ustar"
_TAR_MAGIC_OFFSET = 257
_NOT_READABLE = frozenset({"not-a-checkpoint", "unknown-format", "corrupt-pickle"})


def recognises(head: bytes, source: ByteSource) -> bool:
    """Whether the file is a gzip stream."""
    return head.startswith(_MAGIC)


def read(source: ByteSource, context: Context) -> Contents:
    """The contents of the checkpoint that the stream expands to.

    Raises FormatError ("not-a-checkpoint") where it expands to a tar archive or to no checkpoint, LimitError where it
    expands to more than `limits.expanded_nbytes`, IntegrityError where the stream is damaged or ends early.
    """
    expanded = _expand(source, context.limits)
    if expanded[_TAR_MAGIC_OFFSET : _TAR_MAGIC_OFFSET + len(_TAR_MAGIC)] == _TAR_MAGIC:
        raise _not_a_checkpoint(source, "a gzip archive of a tar archive", f"tar xzf {source.name}")
    try:
        return context.open(MemorySource(expanded, source.name))
    except LoadstoneError as error:
        if error.code not in _NOT_READABLE:
            raise
        raise _not_a_checkpoint(source, "a gzip archive of something else", f"gunzip {source.name}") from error


def _expand(source: ByteSource, limits: Limits) -> bytearray:
    """All members of the stream, one behind the other; never more than the limit is held."""
    expanded = bytearray()
    inflater = zlib.decompressobj(zlib.MAX_WBITS | 16)
    position = 0
    pending = b""
    while pending or position < source.size:
        if not pending:
            pending = source.read(position, min(_CHUNK_NBYTES, source.size - position))
            position += len(pending)
        if inflater.eof:  # another member, or zeros that pad to a block
            if not pending.strip(b"\0"):
                pending = b""
                continue
            inflater = zlib.decompressobj(zlib.MAX_WBITS | 16)
        try:
            piece = inflater.decompress(pending, _CHUNK_NBYTES)
        except zlib.error as error:
            raise IntegrityError(
                Diagnostic("bad-compression", f"the gzip archive `{source.name}` cannot be expanded: {error}")
            ) from error
        pending = inflater.unused_data if inflater.eof else inflater.unconsumed_tail
        if len(expanded) + len(piece) > limits.expanded_nbytes:
            raise _too_large(source, f"more than {limits.expanded_nbytes:,} bytes")
        expanded += piece
        if len(expanded) > _RATIO_FREE_NBYTES and len(expanded) > _MAX_RATIO * (position - len(pending)):
            raise _too_large(source, f"more than {_MAX_RATIO} times its size, as no weights do")
    if not inflater.eof:
        raise IntegrityError(Diagnostic("truncated-file", f"the gzip archive `{source.name}` ends inside its data"))
    return expanded


def _too_large(source: ByteSource, how_far: str) -> LimitError:
    return LimitError(
        Diagnostic(
            "resource-limit",
            f"the gzip archive `{source.name}` expands to {how_far}",
            fixes=(Fix("expand it on disk, if there is room", f"gunzip {source.name}"),),
        )
    )


def _not_a_checkpoint(source: ByteSource, kind: str, paste: str) -> FormatError:
    return FormatError(
        Diagnostic(
            "not-a-checkpoint", f"`{source.name}` is {kind}, not a checkpoint", fixes=(Fix("unpack it first", paste),)
        )
    )
