"""Crossing: what names say of matrices that fit the other side both ways, see orienting.

Two matrices of one container, (4d, d) and (d, 4d), are paired with two of one container.  If all of them are stored the
other way round, then the first is the second's partner.  Their own names may say that it is not so, by a word or a
number that tells the two apart on either side: `w1` and `w2` are `fc1` and `fc2`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeAlias

from loadstone.matching.structure.fusing import last
from loadstone.matching.structure.layers import Layer
from loadstone.matching.structure.orienting import Oriented
from loadstone.matching.structure.reordering import main_keys, main_part
from loadstone.matching.structure.runs import common
from loadstone.matching.structure.sharing import is_same_word
from loadstone.matching.structure.solve import State
from loadstone.matching.structure.words import Path, tokens

Couple: TypeAlias = tuple[tuple[int, int], tuple[int, int]]


ASSUMED = "; which way round it is stored, nothing shows"  # ends the evidence of a matrix taken as it is


def unsaid(state: State, stored: Oriented) -> dict[int, str]:
    """Source layers of pairs that names do not show to be stored alike, with the option that they are not, if known.

    Where all of them are square, what is paired with what does not hang on it, and they are taken as torch stores
    them; then their evidence says so.
    """
    ours, theirs = stored.unsaid
    pairs = {
        a: b
        for a, (b, _, _) in state.pairs.items()
        if ours.issuperset(main_keys(state.source[a])) or theirs.issuperset(main_keys(state.target[b]))
    }
    if not stored.is_open:
        for a, b in pairs.items():
            _, grade, evidence = state.pairs[a]
            state.pairs[a] = b, grade, evidence + ASSUMED
        return {}
    couples = list(_couples(state, pairs))
    says = {said for couple in couples if (said := _says(state, couple)) is not None}
    if says == {True}:
        return {}
    across = {a: f"{_key(state.source[other])} | t()" for (a, _), (other, _) in couples}
    return {a: across.get(a, "") if across else _turn(state.source[a]) for a in pairs}


def _couples(state: State, pairs: dict[int, int]) -> Iterator[Couple]:
    """Two pairs of one container on either side, of which one has the shape of the other turned; both ways round."""
    beside: dict[tuple[str, str], list[tuple[int, int]]] = {}
    for a, b in pairs.items():
        texts = state.source[a].text, state.target[b].text
        beside.setdefault((texts[0].rpartition(".")[0], texts[1].rpartition(".")[0]), []).append((a, b))
    for together in beside.values():
        of_shape: dict[tuple[int, ...], list[tuple[int, int]]] = {}
        for pair in together:
            of_shape.setdefault(main_part(state.source[pair[0]]).shape, []).append(pair)
        for shape, alike in of_shape.items():
            others = of_shape.get(shape[::-1], [])
            if shape[0] != shape[1] and len(alike) == len(others) == 1:
                yield alike[0], others[0]


def _says(state: State, couple: Couple) -> bool | None:
    """Whether names say that the pairs are as they are, or crosswise; None where they say neither, or both."""
    (a, b), (other, partner) = couple
    left, right = (state.source[a], state.source[other]), (state.target[b], state.target[partner])
    straight, crossed = _share(*left, *right), _share(*left, *right[::-1])
    return None if straight is crossed else straight


def _share(one: Layer, two: Layer, first: Layer, second: Layer) -> bool:
    """Names say that `one` is `first` and `two` is `second`, by what tells them apart."""
    own = [*_own(one.path, two.path), *_own(first.path, second.path)]
    numbers = [[token for token in path if isinstance(token, int)] for path in own]
    if all(len(each) == 1 for each in numbers):
        return (numbers[0] < numbers[1]) is (numbers[2] < numbers[3])
    words = [[token for token in path if isinstance(token, str)] for path in own]
    if any(is_same_word(x, y) for at in (0, 1) for x in words[at] for y in words[at + 2]):
        return True
    ours, theirs = (_plain(one), _plain(two)), (_plain(first), _plain(second))
    return all(map(str.startswith, ours, theirs)) or all(map(str.startswith, theirs, ours))


def _own(one: Path, other: Path) -> tuple[Path, Path]:
    """What each of two paths has that the other lacks, behind what both begin with."""
    depth = len(common(one, other))
    first, second = one[depth:], other[depth:]
    return tuple(token for token in first if token not in second), tuple(
        token for token in second if token not in first
    )


def _plain(layer: Layer) -> str:
    """Its own name in one word: `w_in` is win, which `wi` is short for."""
    return "".join(map(str, tokens(last(layer))))


def _turn(layer: Layer) -> str:
    """The answer which says that a square matrix is stored the other way round; "" for any other."""
    keys, shape = main_keys(layer), main_part(layer).shape
    return f"{keys[0]} | t()" if len(keys) == 1 and shape[0] == shape[1] else ""


def _key(layer: Layer) -> str:
    return main_keys(layer)[0]
