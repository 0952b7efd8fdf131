"""How long a cut off zip of torch.save should have been.

The directory at its end is gone, but `data.pkl` is the first record, and it names every storage with its size.
"""

from __future__ import annotations

import struct

from loadstone.errors import LoadstoneError
from loadstone.formats.pickles.storage_classes import element_of
from loadstone.formats.pickles.vm import execute
from loadstone.io.limits import Limits
from loadstone.io.sources import ByteSource

_LOCAL = struct.Struct("<4s5H3I2H")


def least_nbytes(source: ByteSource, limits: Limits) -> int | None:
    """Bytes that the pickle and the storages it names take together; None where the pickle is not there to say."""
    if source.size < _LOCAL.size:
        return None
    _, _, _, method, _, _, _, _, _, name_nbytes, extra_nbytes = _LOCAL.unpack(source.read(0, _LOCAL.size))
    start = _LOCAL.size + name_nbytes + extra_nbytes
    try:
        if method != 0 or not source.read(_LOCAL.size, name_nbytes).endswith(b"/data.pkl"):
            return None
        execution = execute(source, start, limits=limits)
    except LoadstoneError:
        return None
    storages: dict[str | int, int] = {}
    for persistent_id in execution.persistent_ids:
        match persistent_id.value:
            case ("storage", storage_class, (str() | int()) as key, _, int() as numel):
                element = element_of(storage_class)
                if element is not None:
                    storages[key] = numel * element[1]
    return execution.stop + sum(storages.values())
