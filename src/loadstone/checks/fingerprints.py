"""The digest of a tensor in a file, computed from its bytes there, and compared with what a manifest says.

The digest is of the values in row-major order (see manifest.py), so that it does not depend on the format or on
strides.  Contiguous tensors are read in pieces through one small buffer; others are gathered in memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from loadstone import as_numpy
from loadstone.dtypes import DTYPES
from loadstone.errors import Diagnostic
from loadstone.io.digests import Digest
from loadstone.manifest import Fingerprint
from loadstone.storage import Storage
from loadstone.tensors import TensorInfo

_PIECE_NBYTES = 1024 * 1024  # small enough to stay in a core's cache between the read and the digest
_UNSIGNED = {8: "uint8", 16: "uint16", 32: "uint32", 64: "uint64"}  # by bits; to move values that numpy has no name for
_WIDE = {128: 2}  # elements of 128 bits are moved as two of 64


def digest_of(info: TensorInfo) -> str | None:
    """The digest of the tensor's values as they are in the file; None for a tensor that has no dense bytes.

    Raises IntegrityError where bytes are missing.
    """
    pieces = pieces_of(info)
    if pieces is None:
        return None
    running = Digest()
    for piece in pieces:
        running.update(piece)
    return str(running)


def pieces_of(info: TensorInfo) -> Iterator[memoryview] | None:
    """The tensor's values in row-major order, in pieces that are good until the next is asked for; of whole elements.

    None for a tensor that has no dense bytes.  Raises IntegrityError where bytes are missing.
    """
    dtype = DTYPES[info.dtype]
    storage = info.storage
    if info.layout != "strided" or storage is None or info.quantization is not None or info.is_conj or info.is_neg:
        return None
    if info.is_contiguous:
        first, nbytes = info.byte_range()
        return _in_pieces(storage, first, nbytes, dtype.swap)
    if dtype.bits not in _UNSIGNED and dtype.bits not in _WIDE:
        return None
    return _gathered(info, dtype.bits)


def differing(
    marks: Mapping[str, Fingerprint], infos: Iterable[TensorInfo], name: str
) -> tuple[list[Diagnostic], list[str]]:
    """A bad-digest for every tensor that is not what `marks` say, and the keys of those that nothing is said about.

    `marks` and the `key` of each info are of one kind, dotted keys in the whole file or keys of a weight set.
    """
    found: list[Diagnostic] = []
    unknown: list[str] = []
    for info in infos:
        mark = marks.get(info.key)
        actual = None if mark is None else digest_of(info)
        if mark is None or actual is None:
            unknown.append(info.key)
        elif actual != mark.digest:
            found.append(bad_digest(info, mark.digest, actual, name))
    return found, unknown


def bad_digest(info: TensorInfo, expected: str, actual: str, name: str) -> Diagnostic:
    """Damage in a tensor: both digests, and where its bytes lie."""
    evidence = [("written", expected), ("found", actual)]
    if info.storage is not None and info.storage.extents:
        extent = info.storage.extents[0]
        evidence.append(("where", f"{info.nbytes:,} bytes at {extent.offset + info.byte_range()[0]:,}"))
    return Diagnostic(
        "bad-digest",
        f"`{info.key}` in `{name}` is damaged: its bytes are not those that were written",
        evidence=tuple(evidence),
        keys=(info.key,),
    )


def _in_pieces(storage: Storage, first: int, nbytes: int, swap: int) -> Iterator[memoryview]:
    is_deflated = any(extent.is_deflated for extent in storage.extents)
    step = nbytes if is_deflated else _PIECE_NBYTES  # a deflated record can only be read from its start
    buffer = memoryview(bytearray(min(nbytes, step)))
    for start in range(0, nbytes, max(step, 1)):
        part = buffer[: min(step, nbytes - start)]
        storage.read_into(first + start, part, swap=swap)
        yield part


def _gathered(info: TensorInfo, bits: int) -> Iterator[memoryview]:
    """Values that do not lie in order, moved as unsigned numbers of their size."""
    memory, buffer = as_numpy.allocate(info.byte_range()[1])
    info.read_into(buffer)
    units = _WIDE.get(bits, 1)
    shape, stride = info.shape, tuple(step * units for step in info.stride)
    if units > 1:
        shape, stride = (*shape, units), (*stride, 1)
    yield memoryview(as_numpy.strided(memory, _UNSIGNED[bits // units], shape, stride).tobytes())
