"""Which fresh pairs the makers of the engine see, and which are kept from them.

Whole families, drawn by their names, and all that came last: what was made to pass the seen ones shows on the others.
"""

from __future__ import annotations

import zlib

# There before the draw.
BEFORE = frozenset({
    "densenet", "mnasnet", "efficientnet", "xception", "inception", "dpn", "dla", "hrnet", "selecsls", "convnext",
    "swin", "pvt", "mobilevit", "gpt", "llama", "decoder", "negative",
})  # fmt: skip
# Came when the rules were done.
LATE = frozenset({
    "electra", "phi", "starcoder2", "ijepa", "convnextv2", "darknet", "dcgan",
})  # fmt: skip


def split(family: str) -> str:
    """Either "seen" or "kept": a third of the families, and the last ones."""
    if family in LATE:
        return "kept"
    return "kept" if family not in BEFORE and zlib.crc32(family.encode()) % 3 == 0 else "seen"
