"""Which fresh pairs the makers of the engine see, and which are kept from them.

Whole families, drawn by their names: a rule that was made to pass the seen ones shows on the kept ones.
"""

from __future__ import annotations

import zlib

# There before the draw.
BEFORE = frozenset({
    "densenet", "mnasnet", "efficientnet", "xception", "inception", "dpn", "dla", "hrnet", "selecsls", "convnext",
    "swin", "pvt", "mobilevit", "gpt", "llama", "decoder", "negative",
})  # fmt: skip


def split(family: str) -> str:
    """Either "seen" or "kept": a third of the families."""
    return "kept" if family not in BEFORE and zlib.crc32(family.encode()) % 3 == 0 else "seen"
