"""What the pairs look like without their values, for tests that have no timm and no transformers.

    python -m benchmarks.pairs --record        writes tests/data/pairs.json.xz and fresh.json.xz

Of the fresh pairs only those that are "seen" (draw.py): the others are for the benchmark alone.

For each pair: the items of both sides as the engine gets them, and where certain elements of each target tensor come
from in a certified transfer.  That is found by carrying out the transfer on numbers that say where they are: the
element `i` of a source tensor is its place, and what arrives in the target says where it was.  So a join, a cut or a
turned tensor is checked element by element, whatever the words an engine has for it.
"""

from __future__ import annotations

import bisect
import json
import lzma
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from common import ignorable  # type: ignore[import-not-found]  # these are the folder's own
from oracle import transfer  # type: ignore[import-not-found]
from pairs import PAIRS  # type: ignore[import-not-found]

import loadstone as ls
from benchmarks.pairs import draw
from loadstone.keys import parent

MOST_PLACES = 6


def places(elements: int) -> list[int]:
    """The elements that are looked at: both ends, and some between; tests use the same."""
    return sorted({*(elements * k // (MOST_PLACES - 1) for k in range(MOST_PLACES - 1)), max(elements - 1, 0)})


def main(folder: Path) -> None:
    certified = {each["name"] for each in json.loads(Path("verify.json").read_text()) if each["ok"]}
    pairs = [pair for pair in PAIRS if pair.name in certified]
    folder.mkdir(exist_ok=True)
    _write(folder / "pairs.json.xz", [pair for pair in pairs if pair.split == "dev"])
    seen = [pair for pair in pairs if pair.split == "heldout" and draw.split(pair.family) == "seen"]
    _write(folder / "fresh.json.xz", seen)


def _write(path: Path, pairs: Sequence[Any]) -> None:
    recorded = []
    for pair in pairs:
        try:
            recorded.append(_recorded(pair))
        except Exception as error:
            raise RuntimeError(f"{pair.name}: {error}") from error
        print(pair.name, flush=True)
    text = json.dumps(recorded, separators=(",", ":"))
    path.write_bytes(lzma.compress(text.encode(), preset=9 | lzma.PRESET_EXTREME))
    print(f"{path}: {path.stat().st_size:,} bytes, {len(recorded)} pairs")


def _recorded(pair: Any) -> dict[str, object]:
    built = pair.make()
    given = _state_dict(built.given)
    plan = ls.plan(built.tgt, {}, strict=False)
    modules = plan.schema.modules
    return {
        "name": pair.name,
        "kind": pair.kind,
        "decidable": pair.tier == "sd",
        "source": [[key, list(value.shape), str(value.dtype).removeprefix("torch.")] for key, value in given.items()],
        "target": [
            [slot.key, list(slot.shape), slot.dtype, slot.kind, modules.get(parent(slot.key)), slot.tied_to or slot.key]
            for slot in plan.schema.slots.values()
        ],
        "same": _same(given),
        "places": _places(built, given),
    }


def _same(given: Mapping[str, torch.Tensor]) -> dict[str, str]:
    """Keys that hold the memory of an earlier key: tied tensors, which a pth file stores under each of their names."""
    first: dict[object, str] = {}
    found = {}
    for key, value in given.items():
        memory = (value.untyped_storage().data_ptr(), value.storage_offset(), tuple(value.shape))
        if value.numel() and first.setdefault(memory, key) != key:
            found[key] = first[memory]
    return found


def _state_dict(given: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """The tensors, out of the wrapper that some of the pairs have."""
    found = next((value for value in given.values() if isinstance(value, Mapping)), given)
    return {key: value for key, value in found.items() if isinstance(value, torch.Tensor)}


def _places(built: Any, given: Mapping[str, torch.Tensor]) -> dict[str, object] | None:
    """For each target key: the source key where it is a plain copy, else [source key, element] for each place."""
    pair, own = built.pair, built.tgt.state_dict()
    if pair.kind == "negative" or hasattr(pair.oracle, "state"):
        return None
    marked: dict[str, torch.Tensor] = {}
    starts: dict[int, str] = {}
    at = 1
    seen: dict[object, torch.Tensor] = {}
    for key, value in built.native.items():
        memory = (value.untyped_storage().data_ptr(), value.storage_offset(), tuple(value.shape))
        if not value.numel() or memory not in seen:
            seen[memory] = torch.arange(at, at + value.numel(), dtype=torch.float64).reshape(value.shape)
            at += value.numel()
        marked[key] = seen[memory]
    stored = {key: marked[key] for key in built.stored}
    wrapped = _state_dict(pair.wrap(stored) if pair.wrap else stored)
    ours = {id(value) for value in marked.values()}
    for key, value in wrapped.items():
        if id(value) in ours and value.numel():
            starts.setdefault(int(value.flatten()[0]), key)
    if pair.kind == "partial":
        import verify  # type: ignore[import-not-found]

        built.native = marked
        state = {key: value for key, value in verify.expected(built).items() if isinstance(value, torch.Tensor)}
    else:
        source, target = built.specs()
        state = transfer(marked, own, source, target)
    order = sorted(starts)
    found: dict[str, object] = {}
    for key, value in state.items():
        if not ignorable(key, own[key]):
            found[key] = _origin(value.flatten(), order, starts, given)
    return found


def _origin(values: torch.Tensor, order: list[int], starts: Mapping[int, str], given: Mapping[str, Any]) -> object:
    where = []
    for place in places(len(values)):
        number = int(values[place])
        start = order[bisect.bisect(order, number) - 1]
        where.append((starts[start], number - start))
    plain = len({key for key, _ in where}) == 1 and [element for _, element in where] == places(len(values))
    if plain and given[where[0][0]].numel() == len(values):
        return where[0][0]
    return [[key, element] for key, element in where]


if __name__ == "__main__":
    main(Path(sys.argv[1]))
