"""The bytes of an address into a file beside its final place, going on where an earlier attempt was cut off.

Going on is safe only if the server proves that the file is the same one: the first attempt keeps the strong ETag, later
ones ask with `If-Range`, and the server sends the rest, or all of it if it has changed (RFC 9110, 13.1.5 and 14.2).
"""

from __future__ import annotations

import errno
import json
import re
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, final

from loadstone.errors import Diagnostic, Fix, LoadstoneError, SaveError
from loadstone.io.addresses import Address
from loadstone.io.http import PassingError, Patience, failed, named, request
from loadstone.io.hub_cache import identity, read_note
from loadstone.io.progress import Report

if TYPE_CHECKING:
    from http.client import HTTPResponse

_PIECE = 1 << 20  # bytes
_PROGRESS = 1 << 20  # bytes that an attempt must bring for the count of failures to start again
_STRONG = re.compile(r'"[\x21\x23-\x7e]{1,1000}"')
_CONTENT_RANGE = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18}|\*)")


@final
@dataclass(frozen=True, slots=True)
class Partial:
    """A download that is not complete: its bytes, and a note of what they are the start of."""

    path: Path
    note: Path
    address: Address

    def nbytes(self) -> int:
        """Bytes that are there and may be gone on from; 0 where nothing proves what they belong to."""
        return self.path.stat().st_size if self.etag() and self.path.is_file() else 0

    def etag(self) -> str | None:
        """The ETag of the file that the bytes are the start of."""
        note = read_note(self.note)
        etag = note.get("etag") if note.get("address") == identity(self.address) else None
        return etag if isinstance(etag, str) and _is_strong(etag) else None

    def begin(self, etag: str | None) -> None:
        """Write down, before the first byte, that what comes is of a file with that ETag."""
        if etag is not None and _is_strong(etag):
            self.note.write_text(json.dumps({"address": identity(self.address), "etag": etag}), encoding="utf-8")

    def discard(self) -> None:
        """Remove what is there; the note first, so that bytes without one are never gone on from."""
        for path in (self.note, self.path):
            path.unlink(missing_ok=True)


def partial_beside(place: Path, address: Address) -> Partial:
    """The partial download for a final place: `<name>.partial` and its note."""
    return Partial(place.with_name(f"{place.name}.partial"), place.with_name(f"{place.name}.partial.json"), address)


def _is_strong(etag: str) -> bool:
    """Whether equal ETags mean equal bytes (RFC 9110, 8.8.3); a weak one starts with `W/`."""
    return _STRONG.fullmatch(etag) is not None


def receive(partial: Partial, patience: Patience, report: Report) -> None:
    """Fill the partial file with all bytes of its address.

    Raises IntegrityError (download-failed) where the server does not give them, FormatError (address-refused) where it
    redirects to a place that is not opened, and SaveError (no-space, save-failed) where they cannot be kept.
    """
    failures = 0
    while True:
        before = partial.nbytes()
        try:
            _attempt(partial, patience, report)
            return
        except PassingError as failure:
            failures = 1 if partial.nbytes() - before >= _PROGRESS else failures + 1
            if failures >= patience.attempts:
                offer = Fix("what has come is kept, and the next download goes on from it", "")
                fixes = (offer,) if partial.nbytes() else ()
                raise failed(partial.address, f"{failure.why}, {failures} times in a row", *fixes) from failure
            time.sleep(max(failure.pause_seconds, patience.pause_seconds * 2 ** (failures - 1)))
        except OSError as error:
            if isinstance(error, LoadstoneError):
                raise
            raise _not_written(partial, error) from error


def _attempt(partial: Partial, patience: Patience, report: Report) -> None:
    """One request, and all that it brings."""
    have, etag = partial.nbytes(), partial.etag()
    headers = {"Range": f"bytes={have}-", "If-Range": etag} if have and etag else {}
    with request(partial.address, headers, patience) as response:
        if response.headers.get("Content-Encoding", "identity").lower() != "identity":
            raise failed(partial.address, "the server sends the file compressed, although asked not to")
        if response.status == 416 and have and response.headers.get("Content-Range") == f"bytes */{have}":
            return  # nothing is missing but the final name
        extent = _extent(response)
        if extent is None or extent[0] not in (0, have) or (extent[0] and response.headers.get("ETag", etag) != etag):
            partial.discard()
            raise PassingError("the server sends another part of the file than it was asked for")
        start, total = extent
        if start == 0:
            partial.discard()
        _check_length(partial, response, start, total)
        if start == 0:
            partial.begin(response.headers.get("ETag"))
        _write(partial, response, start, total, patience, report)


def _extent(response: HTTPResponse) -> tuple[int, int | None] | None:
    """Where the answer starts in the file, and the bytes of the whole file; None for an answer that is no part."""
    if response.status == 200:
        return 0, response.length
    match = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
    if response.status != 206 or match is None:
        return None
    return int(match[1]), int(match[2]) + 1 if match[3] == "*" else int(match[3])


def _check_length(partial: Partial, response: HTTPResponse, start: int, total: int | None) -> None:
    """Refuse, before a byte is written, what does not fit on the disk or does not say where it ends."""
    address, folder = partial.address, partial.path.parent
    if total is None:
        if not response.chunked and address.sha256_prefix is None:
            raise failed(address, "the server does not say how long the file is, so that a cut would not be noticed")
        return
    free = shutil.disk_usage(folder).free
    if total - start > free:
        rows = (("needed", f"{total - start:,} bytes"), ("free", f"{free:,} bytes"))
        fixes = (Fix("choose a folder on another disk", "export TORCH_HOME=DIRECTORY"),)
        raise SaveError(Diagnostic("no-space", f"`{address.shown}` does not fit in `{folder}`", rows, fixes))


def _write(
    partial: Partial, response: HTTPResponse, start: int, total: int | None, patience: Patience, report: Report
) -> None:
    """Append what the response brings; all of it, or PassingError."""
    from http.client import HTTPException

    done = marked = start
    since = time.monotonic()
    with partial.path.open("ab" if start else "wb") as file:
        while True:
            try:
                piece = response.read1(_PIECE)
            except (OSError, HTTPException) as error:
                raise PassingError(named(error)) from error
            if not piece:
                break
            file.write(piece)
            done += len(piece)
            report(done, total)
            seconds = time.monotonic() - since
            if seconds >= patience.timeout_seconds:
                if done - marked < patience.slowest * seconds:
                    raise PassingError(f"the server sends less than {patience.slowest} bytes a second")
                marked, since = done, time.monotonic()
    if total is not None and done != total:
        if done > total:
            partial.discard()
        raise PassingError(f"the connection was closed after {done:,} of {total:,} bytes")


def _not_written(partial: Partial, error: OSError) -> SaveError:
    is_full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    if is_full:
        partial.discard()
    message = f"writing `{partial.path}`: {error.strerror or error}"
    return SaveError(Diagnostic("no-space" if is_full else "save-failed", message))
