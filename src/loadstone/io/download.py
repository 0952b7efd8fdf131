"""A file from the web: from torch.hub's cache folder, or downloaded into it and checked before it takes its name.

The steps are in modules of their own: what an address is (addresses.py), where files lie (hub_cache.py), one request
(http.py), all the bytes (transfer.py).  Here is their order, which is what keeps a wrong file from ever standing under
the right name.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from loadstone.errors import Diagnostic, IntegrityError, SaveError
from loadstone.io.addresses import Address, parse_address
from loadstone.io.http import Patience
from loadstone.io.hub_cache import cached, free_place, hub_folder, locked, note_origin
from loadstone.io.progress import progress
from loadstone.io.replace import flush_directory
from loadstone.io.transfer import Partial, partial_beside, receive

Accept = Callable[[Path, str], None]
"""Takes a file that was downloaded, and what messages call it; raises where it is not what was wanted."""

PATIENCE = Patience()


def download(text: str, *, accept: Accept, patience: Patience = PATIENCE) -> Path:
    """The path of the file at an http or https address, downloaded unless it is in the cache.

    A file in the cache is used as it is, without asking the server.  A new one takes its name only when all of its
    bytes are on the disk, `accept` has taken it, and its SHA-256 starts as its name says, where the name says so.
    Two processes that want one file at once download it once.

    Raises:
        FormatError: the address, or one that it redirects to, is not opened (address-refused); what `accept` raises.
        IntegrityError: the server does not give the file (download-failed), or gives another one (hash-mismatch).
        SaveError: it cannot be kept (no-space, save-failed).
    """
    address = parse_address(text)
    folder = hub_folder()
    found = cached(folder, address)
    if found is not None:
        return found
    with locked(folder, address.name):
        found = cached(folder, address)  # another process may have been faster
        return _download(free_place(folder, address), address, accept, patience) if found is None else found


def _download(place: Path, address: Address, accept: Accept, patience: Patience) -> Path:
    partial = partial_beside(place, address)
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with progress(address.name) as report:
            receive(partial, patience, report)
        try:
            accept(partial.path, address.shown)  # first: "it is a web page" says more than a wrong hash
            _check_hash(partial.path, address)
        except BaseException:
            partial.discard()
            raise
        _publish(partial, place)
    except OSError as error:
        if error.errno is None:  # an error of ours
            raise
        message = f"writing `{place}`: {error.strerror or error}"
        raise SaveError(Diagnostic("save-failed", message)) from error
    return place


def _check_hash(path: Path, address: Address) -> None:
    """Hold the file against the start of the SHA-256 that its name carries."""
    expected = address.sha256_prefix
    if expected is None:
        return
    import hashlib

    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if not found.startswith(expected):
        rows = (("named", expected), ("found", found))
        message = f"`{address.shown}` is not the file that its name says; nothing was kept"
        raise IntegrityError(Diagnostic("hash-mismatch", message, rows))


def _publish(partial: Partial, place: Path) -> None:
    """Give a whole file its name, in one step, once its bytes are on the disk."""
    with partial.path.open("rb") as file:
        os.fsync(file.fileno())
        status = os.fstat(file.fileno())
    if partial.address.sha256_prefix is None:
        note_origin(place, partial.address, status)
    os.replace(partial.path, place)
    partial.discard()
    flush_directory(place.parent)
