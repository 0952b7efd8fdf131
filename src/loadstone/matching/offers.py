"""Offers: which named adapter would take a tensor of another shape, by the evidence of its shapes and its key.

An offer is a guess unless shapes alone prove it, and none of them do; every fix made from one is marked unsafe.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from loadstone.dtypes import DTYPES
from loadstone.errors import Safety
from loadstone.keys import leaf
from loadstone.matching.candidates import shape_text
from loadstone.matching.positions import half_read, is_table, resize_text
from loadstone.matching.reshaping import Change, change_for
from loadstone.matching.schema import Slot
from loadstone.matching.steps import Resize

_MOST_IMAGE_CHANNELS = 4  # grey, grey and alpha, RGB, RGBA: one of the two sides has as few
_FEWEST_WORDS = 5_000  # rows: more classes than that are rare, fewer words as well
_PADDINGS = (64, 128, 32, 16, 8)  # vocabularies are rounded up to these for the sake of the hardware
_WORDS = re.compile(r"emb|token|wte|vocab|lm_head")
_PATCHES = re.compile(r"patch|proj")


@dataclass(frozen=True, slots=True)
class Offer:
    """An adapter for one tensor: in words, as Python, and how safe it is.

    `does` is empty for a tensor that only goes along, as an index does.  `allows_corner` leaves `slice` and `pad` on
    offer as well.
    """

    does: str
    how: str
    safety: Safety = "unsafe"
    allows_corner: bool = False


def offer_for(slot: Slot, shape: tuple[int, ...], dtype: str) -> Offer | None:
    """The adapter that fits, None where none is likely; both shapes have as many dimensions."""
    arrow = f"{shape_text(shape)} → {shape_text(slot.shape)}"
    if slot.kind == "buffer" and DTYPES[dtype].kind == "integer":
        return Offer("", '"fresh"')
    name = ".".join(slot.key.split(".")[-2:]).lower()
    is_weight = leaf(slot.key) == "weight"
    if is_weight and slot.convolution in ("", "plain") and len(shape) >= 3:
        few = min(shape[1], slot.shape[1]) <= _MOST_IMAGE_CHANNELS
        if few and _fits("channels", slot, shape, dtype):
            return Offer(f"keep the sum over input channels ({arrow})", '"channels"', allows_corner=True)
    if "pos" in name or is_table(slot.key) or (is_weight and len(shape) == 4 and _PATCHES.search(name)):
        return _grid(slot, shape, dtype)
    is_padded = rounded_up_to(shape[0], slot.shape[0]) > 0
    if _WORDS.search(name) or shape[0] >= _FEWEST_WORDS or (is_padded and len(shape) == 2):
        change = _fits("vocabulary", slot, shape, dtype)
        return Offer(change.text, '"vocabulary"') if change else None
    return None


def rounded_up_to(have: int, want: int) -> int:
    """The multiple that the larger number is the smaller one rounded up to; 0 where it is none."""
    small, large = sorted((have, want))
    return next((each for each in _PADDINGS if small > each and large % each == 0 and 0 < large - small < each), 0)


def _grid(slot: Slot, shape: tuple[int, ...], dtype: str) -> Offer | None:
    change = _fits("interpolate", slot, shape, dtype)
    if change is not None and isinstance(change.step, Resize):
        return Offer(f"interpolate: {resize_text(change.step)}", '"interpolate"')
    half = half_read(slot.key, shape, slot.shape)
    if half is None:
        return None
    how = f"ls.interpolate(prefix_tokens={half[0]}, old_grid={half[1]}, new_grid=(HEIGHT, WIDTH))"
    return Offer("interpolate, once you say the grid of the model", how, "manual")


def _fits(adapter: str, slot: Slot, shape: tuple[int, ...], dtype: str) -> Change | None:
    change = change_for(adapter, slot, shape, dtype)
    return None if isinstance(change, str) else change
