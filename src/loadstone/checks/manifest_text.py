"""A file's tensors as text, a line each, to be committed where the weights are not.

    # loadstone manifest 1
    conv1.weight float32 [64,3,7,7] xxh3-128:5d3a…
    fc.bias float32 [1000] xxh3-128:90c1…

Sorted, and a line says nothing of its neighbours, so that git merges and shows changes line by line.  The digest is of
the values (manifest.py), the same in every format.  A tensor without dense bytes has `-` in its place.  A key with
spaces or other signs that a line cannot hold is written as a JSON string.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass

from loadstone.checkpoint import Checkpoint, open_checkpoint
from loadstone.checks.fingerprints import digest_of
from loadstone.errors import Diagnostic, FormatError
from loadstone.io.digests import is_digest
from loadstone.manifest import Fingerprint

HEAD = "# loadstone manifest 1"
NO_DIGEST = "-"

_PLAIN_KEY = re.compile(r"[!$-~][!-~]*")  # printable ASCII that begins neither as a comment nor as a JSON string
_LINE = re.compile(r'(?P<key>"(?:[^"\\]|\\.)*"|\S+) (?P<dtype>\S+) \[(?P<shape>[\d,]*)\] (?P<digest>\S+)')
_MARKERS = ("<<<<<<<", "=======", ">>>>>>>")


@dataclass(frozen=True, slots=True)
class Difference:
    """One tensor that is not what the manifest says; a side is None where it has no such tensor."""

    key: str
    written: Fingerprint | None
    found: Fingerprint | None

    @property
    def what(self) -> str:
        """In one word: "missing", "new", "values", "shape" or "dtype"."""
        if self.found is None:
            return "missing"
        if self.written is None:
            return "new"
        if self.written.shape != self.found.shape:
            return "shape"
        return "dtype" if self.written.dtype != self.found.dtype else "values"


@dataclass(frozen=True, slots=True)
class Comparison:
    """A file held against a manifest.

    Attributes:
        path, manifest: what was compared, as messages call it.
        same: how many tensors are what the manifest says.
        differences: the others, by key.
        unproven: keys of tensors that agree in dtype and shape and have no digest.
    """

    path: str
    manifest: str
    same: int
    differences: tuple[Difference, ...]
    unproven: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether every tensor on both sides is what the other says."""
        return not self.differences

    def to_json(self) -> dict[str, object]:
        """Plain values, ready for json.dumps."""
        return {
            "path": self.path,
            "manifest": self.manifest,
            "ok": self.ok,
            "same": self.same,
            "differences": [
                {"key": each.key, "what": each.what, "written": _plain(each.written), "found": _plain(each.found)}
                for each in self.differences
            ],
            "unproven": list(self.unproven),
        }


def text_of(checkpoint: Checkpoint) -> str:
    """The manifest of all tensors in the file, computed from their values.

    Raises IntegrityError where bytes are missing.
    """
    marks = _marks(checkpoint)
    return "".join(f"{line}\n" for line in (HEAD, *(_line(key, marks[key]) for key in sorted(marks))))


def parse(text: str, name: str) -> dict[str, Fingerprint]:
    """The tensors of a manifest; raises FormatError (invalid-manifest), which calls it `name` and gives the line."""
    lines = text.splitlines()
    if not lines or lines[0].strip() != HEAD:
        raise _invalid(name, 1, f"it does not begin with `{HEAD}`")
    marks: dict[str, Fingerprint] = {}
    for number, line in enumerate(lines[1:], 2):
        if not line.strip() or line.startswith("#"):
            continue
        if line.startswith(_MARKERS):
            raise _invalid(name, number, "it has the mark of a merge that is not finished")
        key, mark = _parsed(line, name, number)
        if key in marks:
            raise _invalid(name, number, f"`{key:.200}` stands there a second time")
        marks[key] = mark
    return marks


def compare(path: str | os.PathLike[str], text: str, name: str = "the manifest") -> Comparison:
    """Which tensors of the file at `path` are not what the manifest `text` says; `name` is what messages call that.

    Raises FormatError (invalid-manifest) and what opening the file raises.
    """
    written = parse(text, name)
    with open_checkpoint(path) as checkpoint:
        found = _marks(checkpoint)
    differing = {key for key in written.keys() | found.keys() if written.get(key) != found.get(key)}
    unproven = {key for key in written.keys() & found.keys() if NO_DIGEST in (written[key].digest, found[key].digest)}
    unproven = {key for key in unproven if _form(written[key]) == _form(found[key])}
    differing -= unproven
    return Comparison(
        os.fspath(path),
        name,
        len(written.keys() & found.keys()) - len(differing & written.keys() & found.keys()) - len(unproven),
        tuple(Difference(key, written.get(key), found.get(key)) for key in sorted(differing)),
        tuple(sorted(unproven)),
    )


def _marks(checkpoint: Checkpoint) -> Mapping[str, Fingerprint]:
    return {
        key: Fingerprint(info.dtype, info.shape, digest_of(info) or NO_DIGEST)
        for key, info in checkpoint.tensors.items()
    }


def _line(key: str, mark: Fingerprint) -> str:
    written = key if _PLAIN_KEY.fullmatch(key) and not key.startswith(_MARKERS) else json.dumps(key)
    return f"{written} {mark.dtype} [{','.join(map(str, mark.shape))}] {mark.digest}"


def _parsed(line: str, name: str, number: int) -> tuple[str, Fingerprint]:
    match = _LINE.fullmatch(line.rstrip())
    if match is None or not (match["digest"] == NO_DIGEST or is_digest(match["digest"])):
        raise _invalid(name, number, f"`{line[:80]}` is no `key dtype [shape] digest`")
    try:
        key = json.loads(match["key"]) if match["key"].startswith('"') else match["key"]
        shape = tuple(int(size) for size in match["shape"].split(",") if match["shape"])
    except ValueError as error:
        raise _invalid(name, number, f"`{line[:80]}`: {error}") from error
    return key, Fingerprint(match["dtype"], shape, match["digest"])


def _form(mark: Fingerprint) -> tuple[str, tuple[int, ...]]:
    return mark.dtype, mark.shape


def _plain(mark: Fingerprint | None) -> object:
    return None if mark is None else {"dtype": mark.dtype, "shape": list(mark.shape), "digest": mark.digest}


def _invalid(name: str, number: int, why: str) -> FormatError:
    return FormatError(Diagnostic("invalid-manifest", f"line {number} of `{name}` cannot be used: {why}"))
