"""The cache folder of torch.hub, shared with torch: a file that either has downloaded, the other does not download.

torch knows a file by its name alone.  Two addresses that end in `model.safetensors` would be one file to it; here a
note beside the file says where it came from, and a second address with that name gets a folder of its own.  No note is
needed where the name carries the file's hash.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import stat
import time
from collections.abc import Iterator
from pathlib import Path

from loadstone.errors import Diagnostic, Fix, SaveError
from loadstone.io.addresses import Address
from loadstone.io.replace import replacing

_POLL_SECONDS = 0.05
_NOTE_NBYTES = 4096  # a note that is longer is not ours


def hub_folder() -> Path:
    """Where torch.hub keeps files: $TORCH_HOME, or $XDG_CACHE_HOME/torch, or ~/.cache/torch; there hub/checkpoints.

    Source: `torch.hub.get_dir` and `load_state_dict_from_url`.
    """
    cache = os.environ.get("XDG_CACHE_HOME", "~/.cache")
    home = os.environ.get("TORCH_HOME", os.path.join(cache, "torch"))
    return Path(os.path.expanduser(home), "hub", "checkpoints")


def cached(folder: Path, address: Address) -> Path | None:
    """The file of that address in the folder, if it is there; a download that was cut off is not."""
    return next((place for place in _places(folder, address) if _is_of(place, address)), None)


def free_place(folder: Path, address: Address) -> Path:
    """Where a download of that address goes: its name, unless a file of another address has it."""
    first, second = _places(folder, address)
    return second if first.exists() else first


def identity(address: Address) -> str:
    """A digest of the whole address: it tells addresses apart and keeps what is secret in them."""
    return hashlib.sha256(address.url.encode()).hexdigest()


def note_origin(place: Path, address: Address, status: os.stat_result) -> None:
    """Write beside `place` which address the file of that size and time, which is about to stand there, is from."""
    with replacing(_note_path(place)) as file:
        note = {"address": identity(address), "nbytes": status.st_size, "mtime_ns": status.st_mtime_ns}
        file.write(json.dumps(note).encode())


def read_note(path: Path) -> dict[str, object]:
    """The JSON object in a small file; empty where there is none that can be read."""
    try:
        with path.open("rb") as file:
            note = json.loads(file.read(_NOTE_NBYTES))
    except (OSError, ValueError, RecursionError):
        return {}
    return note if isinstance(note, dict) else {}


@contextlib.contextmanager
def locked(folder: Path, name: str) -> Iterator[None]:
    """The only process that downloads `name` into the folder, until the block ends; others wait for it.

    A process that dies gives its lock back.  Raises SaveError (save-failed) where the folder cannot be written to.
    """
    path = folder / f"{name}.lock"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = _lock(path)
    except OSError as error:
        raise SaveError(
            Diagnostic(
                "save-failed",
                f"writing to the cache folder `{folder}`: {error.strerror or error}",
                fixes=(Fix("choose another folder", "export TORCH_HOME=DIRECTORY"),),
            )
        ) from error
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            path.unlink()
        os.close(descriptor)


def _lock(path: Path) -> int:
    """A descriptor that holds the lock.  The file is removed by whoever had it, so that it may have to be made anew."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
        try:
            while not _try_lock(descriptor):
                time.sleep(_POLL_SECONDS)
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(descriptor), os.stat(path)):
                    return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _places(folder: Path, address: Address) -> tuple[Path, Path]:
    """Where a file of that address may be: under its name, or in a folder of its address."""
    return folder / address.name, folder / f"from-{identity(address)[:16]}" / address.name


def _is_of(place: Path, address: Address) -> bool:
    """Whether a file is there, and no valid note says that it came from elsewhere."""
    try:
        status = place.stat()
    except OSError:
        return False
    if not stat.S_ISREG(status.st_mode):
        return False
    if address.sha256_prefix is not None:
        return True
    note = read_note(_note_path(place))
    is_valid = (note.get("nbytes"), note.get("mtime_ns")) == (status.st_size, status.st_mtime_ns)
    return not is_valid or note.get("address") == identity(address)


def _note_path(place: Path) -> Path:
    return place.with_name(f".{place.name}.origin.json")
