"""Near misses: which leftover of the checkpoint was probably meant for which gap of the model.

Two subtrees are a pair where they hold the same names with the same shapes below their roots and no other subtree does;
where several do, the closest name decides, and only if it is clearly closest.  A pair is a suggestion, never a match.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from difflib import SequenceMatcher

from loadstone.keys import leaf, parent
from loadstone.matching.candidates import Candidate
from loadstone.matching.schema import Slot

_MOST_RIVALS = 24  # subtrees of one kind on a side that are still compared by name
_CLOSE = 0.6
_DEEPEST = 12


@dataclass(frozen=True, slots=True)
class NearMiss:
    """A gap and a leftover that look alike.

    Attributes:
        target: root of the gap, a module or a key of the model.
        source: root of the leftover, as the checkpoint has it.
        keys: model key → checkpoint key, one for each tensor.
    """

    target: str
    source: str
    keys: Mapping[str, str]


Subtree = dict[str, tuple[int, ...]]  # name below the root → shape


def near_misses(missing: list[Slot], unexpected: list[Candidate]) -> list[NearMiss]:
    """Pairs of subtrees, the largest first; each key stands in one pair at most."""
    gaps = {slot.key: slot.shape for slot in missing}
    spares = {candidate.name: candidate for candidate in unexpected}
    shapes = {name: candidate.info.shape for name, candidate in spares.items()}
    pairs = []
    for depth in range(1, _DEEPEST):
        if not gaps or not shapes:
            break
        wanted, offered = _by_likeness(gaps, depth), _by_likeness(shapes, depth)
        for likeness, targets in wanted.items():
            for target, source in _matched(targets, offered.get(likeness, []), gaps):
                pair = _pair(target, source, gaps, spares)
                if pair is not None:
                    pairs.append(pair)
        for pair in pairs:
            for key in pair.keys:
                gaps.pop(key, None)
        used = {key for pair in pairs for key in pair.keys.values()}
        shapes = {name: shape for name, shape in shapes.items() if spares[name].key not in used}
    return pairs


def _by_likeness(tensors: Mapping[str, tuple[int, ...]], depth: int) -> dict[tuple[int, int], list[str]]:
    """Roots at this depth by what they hold.  Hashes only compare within this process; they decide no order."""
    content: dict[str, tuple[int, int]] = {}
    for key, shape in tensors.items():
        tokens = key.split(".", depth)
        if len(tokens) < depth:
            continue
        below = tokens[depth] if len(tokens) > depth else ""
        root = key[: len(key) - len(below) - 1] if below else key
        count, total = content.get(root, (0, 0))
        content[root] = count + 1, (total + hash((below, shape))) & 0xFFFF_FFFF_FFFF_FFFF
    roots: dict[tuple[int, int], list[str]] = {}
    for root, likeness in content.items():
        roots.setdefault(likeness, []).append(root)
    return roots


def _matched(targets: list[str], sources: list[str], gaps: Mapping[str, tuple[int, ...]]) -> list[tuple[str, str]]:
    if len(targets) > _MOST_RIVALS or len(sources) > _MOST_RIVALS or not sources:
        return []
    if len(targets) == len(sources) == 1 and (targets[0] not in gaps or _is_close_leaf(targets[0], sources[0])):
        return [(targets[0], sources[0])]
    chosen = []
    for target in targets:
        source = _clearly_closest(target, sources)
        if source is not None and _clearly_closest(source, targets) == target:
            chosen.append((target, source))
    return chosen


def _is_close_leaf(target: str, source: str) -> bool:
    """One tensor alone is little evidence: the same module, the same leaf or a close name is needed as well."""
    return parent(target) == parent(source) or leaf(target) == leaf(source) or _closeness(target, source) >= _CLOSE


def _clearly_closest(name: str, pool: list[str]) -> str | None:
    scored = sorted(((_closeness(name, other), other) for other in pool), reverse=True)
    if scored[0][0] < _CLOSE or (len(scored) > 1 and scored[0][0] - scored[1][0] < 0.02):
        return None
    return scored[0][1]


def _closeness(one: str, other: str) -> float:
    return SequenceMatcher(None, one[:200], other[:200], autojunk=False).ratio()


def _pair(
    target: str, source: str, gaps: Mapping[str, tuple[int, ...]], spares: Mapping[str, Candidate]
) -> NearMiss | None:
    """The pair key by key, None where the hashes lied or an option has changed the root's own name."""
    if target in gaps:
        return NearMiss(target, spares[source].key, {target: spares[source].key}) if source in spares else None
    keys = {}
    root = None
    for key in gaps:
        if key.startswith(target + "."):
            below = key[len(target) :]
            candidate = spares.get(source + below)
            if candidate is None or not candidate.key.endswith(below):
                return None
            if root is None:
                root = candidate.key.removesuffix(below)
            if candidate.key != root + below or candidate.info.shape != gaps[key]:
                return None
            keys[key] = candidate.key
    return NearMiss(target, root, keys) if root else None
