"""Prove before a load that the bytes in the file are those that were written, by the digests that the file carries.

Every tensor that will be used is read once and thrown away, which brings it into memory for the load that follows.
So damage is found before the first parameter changes, and named by tensor.  Hashing takes a fifth of the time that
reading takes; what a verified load costs on top of a plain one is a second pass over bytes that are in memory by then.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass

from loadstone.checkpoint import Checkpoint
from loadstone.checks.fingerprints import bad_digest, digest_of
from loadstone.errors import Diagnostic, Fix, IntegrityError
from loadstone.model.threads import share
from loadstone.storage import Storage
from loadstone.tensors import TensorInfo
from loadstone.weights import WeightSet

_PIECE_NBYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Proof:
    """What is known of the bytes of a source.

    Attributes:
        name: of the file.
        digests: by key of the weight set that is used.
        is_asked: the caller wants a proof, and no load without one.
    """

    name: str
    digests: Mapping[str, str]
    is_asked: bool

    def check(self, used: Mapping[str, TensorInfo]) -> None:
        """Raise IntegrityError (bad-digest, bad-checksum) where a tensor of `used` is not what was written.

        Raises IntegrityError (no-digest) where a proof is asked for and a tensor has nothing to be proved by.
        """
        infos = {key: info for key, info in used.items() if key in self.digests}
        others = {key: info for key, info in used.items() if key not in self.digests} if self.is_asked else {}
        found: list[Diagnostic] = []
        unproved: list[str] = []

        def compare(item: tuple[str, TensorInfo]) -> None:
            key, info = item
            actual = digest_of(info)
            if actual is not None and actual != self.digests[key]:
                found.append(bad_digest(info.with_key(key), self.digests[key], actual, self.name))
            elif actual is None and self.is_asked:
                unproved.append(key)

        share(infos.items(), compare)
        checksums = _Checksums(self.name)
        for key, info in others.items():
            if not checksums.prove(info):
                unproved.append(key)
        found += checksums.damaged
        if found:
            found.sort(key=lambda diagnostic: list(used).index(diagnostic.keys[0]) if diagnostic.keys else 0)
            raise IntegrityError(*found, summary="nothing was loaded, the model is as it was")
        if unproved:
            raise _no_digest(self.name, unproved, len(used))


class _Checksums:
    """The checksums that a zip has for its records: each storage is proved once, whoever shows it."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._is_right: dict[int, bool] = {}
        self.damaged: list[Diagnostic] = []

    def prove(self, info: TensorInfo) -> bool:
        """Whether there was anything to prove it by; damage is kept in `damaged`."""
        storage = info.storage
        if storage is None or storage.crc32 is None:
            return False
        if id(storage) not in self._is_right:
            actual = _crc32(storage)
            self._is_right[id(storage)] = actual == storage.crc32
            if actual != storage.crc32:
                message = f"`{info.key}` in `{self._name}` is damaged: record `{storage.name}` has another checksum"
                evidence = (("written", f"{storage.crc32:08x}"), ("found", f"{actual:08x}"))
                self.damaged.append(Diagnostic("bad-checksum", message, evidence, keys=(info.key,)))
        return True


def _crc32(storage: Storage) -> int:
    value = 0
    buffer = memoryview(bytearray(min(storage.nbytes, _PIECE_NBYTES)))
    for start in range(0, storage.nbytes, _PIECE_NBYTES):
        part = buffer[: min(_PIECE_NBYTES, storage.nbytes - start)]
        storage.read_into(start, part)
        value = zlib.crc32(part, value)
    return value


def proof_for(checkpoint: Checkpoint, weights: WeightSet, verify: bool | None) -> Proof | None:
    """How the tensors of a weight set can be proved; None where nothing is to be proved.

    `verify` is the option of `load`: None means that a file's own digests are compared where it has any.
    """
    manifest = checkpoint.manifest
    if verify is False or (manifest is None and not verify):
        return None
    prefix = f"{weights.name}." if weights.name else ""
    marks = {} if manifest is None else manifest.tensors
    digests = {key: marks[prefix + key].digest for key in weights.tensors if prefix + key in marks}
    return Proof(checkpoint.name, digests, bool(verify))


def _no_digest(name: str, keys: list[str], total: int) -> IntegrityError:
    message = f"`{name}` has no digest for {len(keys):,} of {total:,} tensors, so that they cannot be verified"
    fixes = (
        Fix("load without that proof", "verify=None"),
        Fix("write it again with digests", "loadstone.save(state_dict, path)"),
    )
    evidence = tuple(("without", key) for key in keys[:5])
    return IntegrityError(Diagnostic("no-digest", message, evidence, fixes, keys=tuple(keys), level="error"))
