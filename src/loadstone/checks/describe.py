"""A model file as stable text, for `git diff`: a line a tensor and a line a value, so that a change is a changed line.

Nothing in the file is run, torch is not needed, and there is always some text: what cannot be read is described by its
diagnostic.  The same bytes give the same text, whatever their path.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

from loadstone.checkpoint import Checkpoint, open_checkpoint
from loadstone.checks.values import summary
from loadstone.errors import LoadstoneError
from loadstone.io.digests import PREFIX, digest
from loadstone.keys import natural
from loadstone.screens import quantities
from loadstone.screens.text import visible
from loadstone.tensors import TensorInfo
from loadstone.tree import children, join
from loadstone.values import Opaque, Value

MOST_NBYTES = 2_000_000_000  # of values that are read; a diff is to come in seconds
_MOST_VALUES = 5_000  # lines of plain values
_LONGEST = 160  # characters of one value
_TECHNICAL = frozenset(  # records of a torch zip; its serialization_id is a hash that changes with every value
    ("byteorder", "checksums", "format_version", "protocol", "serialization_id", "storage_alignment", "version")
)
_SHORT = 12  # digits of a digest: enough to see that something changed
_POINTER_NBYTES = 1024  # https://github.com/git-lfs/git-lfs/blob/main/docs/spec.md: a pointer is shorter
_POINTER = re.compile(
    rb"version https://git-lfs\.github\.com/spec/\S+\n(?:[a-z0-9.-]+ \S+\n)*oid (?P<oid>\S+)\nsize (?P<size>\d+)\n"
)


def describe(path: str | Path, *, most_nbytes: int = MOST_NBYTES) -> str:
    """The text; norms and digests are left out, and it says so, where the values are more than `most_nbytes` bytes."""
    path = Path(path)
    try:
        pointer = _lfs_pointer(path)
        if pointer:
            return _text(pointer)
        with open_checkpoint(path) as checkpoint:
            return _text(_lines(checkpoint, most_nbytes))
    except LoadstoneError as error:
        said = (f"# {line}" for found in error.diagnostics for line in str(found).splitlines())
        return _text(line.replace(str(path), path.name) for line in said)
    except OSError as error:
        return _text([f"# {path.name}: {error.strerror or error}"])


def _text(lines: object) -> str:
    return "".join(visible(line) + "\n" for line in lines)  # type: ignore[attr-defined]


def _lfs_pointer(path: Path) -> list[str]:
    """What a Git LFS pointer stands for; nothing where the file is something else."""
    with path.open("rb") as file:
        match = _POINTER.fullmatch(file.read(_POINTER_NBYTES))
    if match is None:
        return []
    size = int(match["size"])
    return [f"# a Git LFS pointer to {quantities.nbytes(size)}", f"oid {match['oid'].decode()}", f"size {size}"]


def _lines(checkpoint: Checkpoint, most_nbytes: int) -> Iterator[str]:
    tensors = checkpoint.tensors
    nbytes = sum(info.nbytes for info in tensors.values())
    yield f"# {checkpoint.format}, {quantities.counted(len(tensors), 'tensor')}, {quantities.nbytes(nbytes)}"
    for code in checkpoint.diagnostics:
        if code.severity != "note":
            yield f"# {code.severity}[{code.code}]: {code.message.replace(checkpoint.name, Path(checkpoint.name).name)}"
    for key, text in sorted(checkpoint.metadata.items()):
        if key not in _TECHNICAL and not key.startswith("loadstone"):  # our digests say the same in another way
            yield f"metadata {key} = {_said(text)}"
    yield from _values(checkpoint.tree)
    has_values = nbytes <= most_nbytes
    if not has_values:
        known = "digests are those of its manifest" if checkpoint.manifest else "norms and digests are left out"
        yield f"# more than {quantities.nbytes(most_nbytes)} of values: {known}"
    for key in sorted(tensors, key=natural):
        yield _tensor(key, tensors[key], checkpoint, has_values)


def _tensor(key: str, info: TensorInfo, checkpoint: Checkpoint, has_values: bool) -> str:
    words = [key, info.dtype, f"[{', '.join(map(str, info.shape))}]"]
    if not has_values:
        mark = checkpoint.manifest.tensors.get(key) if checkpoint.manifest else None
        crc = info.storage.crc32 if info.storage is not None else None
        if mark is not None:
            words.append(f"digest {_shortened(mark.digest)}")
        elif crc is not None:
            words.append(f"crc {crc:08x}")
        return "  ".join(words)
    try:
        found = summary(info)
    except LoadstoneError as error:
        return "  ".join([*words, error.code])
    if found is None:
        return "  ".join([*words, info.layout])
    if found.norm is not None and found.low is not None and found.high is not None:
        words += (
            [f"value {found.low:.6g}"]
            if info.elements == 1 and found.low == found.high
            else [f"norm {found.norm:.6g}", f"min {found.low:.6g}", f"max {found.high:.6g}"]
        )
    if found.not_finite:
        words.append(f"not finite {found.not_finite:,}")
    return "  ".join([*words, f"digest {_shortened(found.digest)}"])


def _values(tree: Value) -> Iterator[str]:
    """Plain values by dotted place, in the order of the file; an object is its class, and what is in it follows."""
    stack: list[tuple[str, Value]] = [("", tree)]
    objects: set[int] = set()
    lines = 0
    while stack:
        place, value = stack.pop()
        if isinstance(value, TensorInfo):
            continue
        is_object = isinstance(value, Opaque)
        inside = children(value) if not is_object or id(value) not in objects else []
        text = value.class_name if is_object else None if _is_walked(value, inside) else _said(value)
        if text is not None and place:
            if lines == _MOST_VALUES:
                yield f"# more than {_MOST_VALUES:,} values: the rest is left out"
                return
            lines += 1
            yield f"{place} = {text}"
        if is_object or text is None:
            objects.add(id(value))
            stack.extend((join(place, name), child) for name, child in reversed(inside))


def _is_walked(value: Value, inside: list[tuple[str, Value]]) -> bool:
    """A container that gets a line for each thing in it: dicts, and lists of more than numbers and words."""
    if isinstance(value, dict):
        return bool(inside)
    return isinstance(value, (list, tuple)) and any(isinstance(child, _CONTAINERS) for _, child in inside)


_CONTAINERS = (dict, list, tuple, set, frozenset, TensorInfo, Opaque)


def _said(value: Value) -> str:
    """A value in at most a line: short ones as they are, long ones by their size and digest."""
    if isinstance(value, (bytes, bytearray)):
        return f"{quantities.nbytes(len(value))}, digest {_shortened(digest(bytes(value)))}"
    if isinstance(value, (set, frozenset)):
        value = sorted(value, key=repr)
    text = json.dumps(value, ensure_ascii=False) if isinstance(value, str) else repr(value)
    if len(text) <= _LONGEST:
        return text
    mark = _shortened(digest(text.encode("utf-8", "surrogatepass")))
    kind = f"{len(value):,} values" if isinstance(value, (list, tuple)) else f"{text[: _LONGEST // 2]}…"
    return f"{kind}, digest {mark}"


def _shortened(text: str) -> str:
    return text.removeprefix(PREFIX)[:_SHORT]
