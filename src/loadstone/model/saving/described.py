"""What a file says about itself besides its bytes: the model's modules, and when, where and from what it came."""

from __future__ import annotations

import functools
import os
import platform
import subprocess
import time
from collections.abc import Iterable, Mapping
from contextlib import closing

import torch
from torch import nn

import loadstone
from loadstone.checks.marks import mark_of
from loadstone.errors import Diagnostic, LoadstoneError, SaveError
from loadstone.io.digests import UNKNOWN, Digest
from loadstone.io.sources import FileSource
from loadstone.manifest import RECORD, Fingerprint, Plain
from loadstone.model.saving.memory import pieces_of
from loadstone.model.saving.plain import is_dense, unsaveable
from loadstone.tree import join
from loadstone.writing.folder import own_digest

_GIT = ("git", "-c", "core.fsmonitor=false", "-c", "core.hooksPath=/dev/null")  # nothing of the repository's own is run
_GIT_SECONDS = 2.0
_DEPTH = 50  # of metadata
_MOST_REPEATED = 1 << 30  # bytes; an expanded tensor that would be larger, spelt out, gets no digest


def model_of(model: nn.Module, weights_at: Iterable[str] = ()) -> dict[str, Plain]:
    """The classes of its modules by path, and how many elements its parameters and buffers have."""
    parameters = list(model.parameters())
    described: dict[str, Plain] = {
        "class": _class_of(model),
        "modules": {path: _class_of(module) for path, module in model.named_modules()},
        "parameters": sum(parameter.numel() for parameter in parameters),
        "trainable": sum(parameter.numel() for parameter in parameters if parameter.requires_grad),
        "buffers": sum(buffer.numel() for buffer in model.buffers()),
    }
    place = ".".join(weights_at)
    return {**described, "weights": place} if place else described


def fingerprints(tensors: Mapping[str, torch.Tensor], *, are_computed: bool = True) -> dict[str, Fingerprint]:
    """What each dense tensor is, with the digest of its values, or, as long as it, the digest that is not known yet."""
    return {
        key: Fingerprint(
            str(tensor.dtype).removeprefix("torch."),
            tuple(tensor.shape),
            _digest_of(tensor) if are_computed else UNKNOWN,
        )
        for key, tensor in tensors.items()
        if _has_digest(tensor)
    }


def plain(value: object, place: str = "metadata", depth: int = 0) -> Plain:
    """The value as JSON has it, numbers of torch and numpy as numbers; raises SaveError, which names the place."""
    if depth > _DEPTH:
        raise unsaveable(f"`{place:.200}` is nested more than {_DEPTH} deep")
    if value is None or type(value) in (bool, int, float, str):
        return value  # type: ignore[return-value]
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, (str, int, float, bool)):
                raise unsaveable(f"a key of `{place}` is a {type(key).__name__}, which JSON cannot have")
        return {str(key): plain(child, join(place, str(key)), depth + 1) for key, child in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(child, join(place, str(index)), depth + 1) for index, child in enumerate(value)]
    if isinstance(value, torch.Tensor) and value.numel() == 1 and not value.is_complex() and not value.is_meta:
        return value.item()
    if type(value).__module__ == "numpy" and getattr(value, "shape", None) == ():
        return plain(value.item(), place)  # type: ignore[attr-defined]
    if isinstance(value, (str, os.PathLike)):
        return os.fsdecode(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return int(value)
    if isinstance(value, float):
        return float(value)
    raise unsaveable(f"`{place}` is a {type(value).__name__}, which cannot be written as JSON")


def plain_object(value: Mapping[str, object] | None, place: str) -> dict[str, Plain]:
    """A mapping as JSON has it; empty for None."""
    made = plain({} if value is None else value, place)
    if not isinstance(made, dict):
        raise unsaveable(f"`{place}` is a {type(value).__name__}, not a dict")
    return made


def written_now() -> dict[str, Plain]:
    """When and by what: time in UTC, versions, and the git commit of the working directory."""
    return {
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "loadstone": loadstone.__version__,
        "torch": str(torch.__version__),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "git": _git_of(os.getcwd()),
    }


def parent_of(path: str | os.PathLike[str] | None) -> dict[str, Plain] | None:
    """The name of the file or folder that this one came from, and the digest that it says it has."""
    if path is None:
        return None
    try:
        if os.path.isdir(path):
            with closing(FileSource(os.path.join(path, RECORD))) as source:
                found = own_digest(source.read(0, source.size))
            digest = found[0] if found else None
        else:
            mark = mark_of(path)
            digest = mark.digest if mark else None
    except LoadstoneError as error:
        message = f"the parent `{os.fspath(path)}` cannot be read; nothing was written"
        raise SaveError(Diagnostic("save-failed", message), *error.diagnostics) from error
    return {"name": os.path.basename(os.path.abspath(path)), "digest": digest}


def _class_of(module: nn.Module) -> str:
    kind = type(module)
    return f"{kind.__module__}.{kind.__qualname__}"


def _has_digest(tensor: torch.Tensor) -> bool:
    if not is_dense(tensor) or tensor.is_quantized:
        return False
    nbytes = tensor.numel() * tensor.element_size()
    return nbytes <= max(_MOST_REPEATED, tensor.untyped_storage().nbytes())


def _digest_of(tensor: torch.Tensor) -> str:
    running = Digest()
    for piece in pieces_of(tensor):
        running.update(piece)
    return str(running)


@functools.cache
def _git_of(folder: str) -> dict[str, Plain] | None:
    """The commit, and whether files differ from it, as it is at the first save of this process; None where unknown."""
    commit = _git(folder, "rev-parse", "HEAD")
    if not commit:
        return None
    changes = _git(folder, "status", "--porcelain", "--untracked-files=no")
    return {"commit": commit, "is_dirty": None if changes is None else bool(changes)}


def _git(folder: str, *args: str) -> str | None:
    environment = {**os.environ, "GIT_OPTIONAL_LOCKS": "0"}
    try:
        done = subprocess.run(
            (*_GIT, *args), cwd=folder, env=environment, capture_output=True, timeout=_GIT_SECONDS, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.decode("utf-8", "replace").strip()
