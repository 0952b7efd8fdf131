"""Lore: what the pairs found so far say about names.

Two things are learned from every pair, and used on groups that nothing else splits:

    endings   paths that end in `conv.3` here end in `layer.2.convolution` there, and in nothing else
    words     a path has `reverse` here exactly where it has `bwd` there

An ending first counts without its numbers, which mostly number repetitions: `x` and `h` then cannot be taken for
layer 0 and layer 1.  Only if words tell nothing apart do numbers count, each with the size of its family, because the
second of two is not the second of three; and then one pair is not enough to learn from, unless a person said it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from loadstone.matching.structure.layers import Layer, Signature
from loadstone.matching.structure.tries import Split
from loadstone.matching.structure.words import PARTS, Path, blank, by_word, telling

_LENGTH = 6  # tokens of an ending at most
_ENOUGH = 2  # pairs that make a rule where numbers count
_START = "^"  # of a path: all of `norm` is another ending than that of `downsample.norm`


@dataclass(slots=True)
class Lore:
    endings: dict[Path, dict[Path, int]] = field(default_factory=dict)
    backward: dict[Path, dict[Path, None]] = field(default_factory=dict)
    templates: dict[tuple[Path, Path], dict[Signature, None]] = field(default_factory=dict)  # pairs without numbers
    left: dict[str, int] = field(default_factory=dict)  # word → pairs whose source has it
    right: dict[str, int] = field(default_factory=dict)
    both: dict[tuple[str, str], int] = field(default_factory=dict)
    with_word: dict[str, dict[Signature, int]] = field(default_factory=dict)
    of_signature: dict[Signature, int] = field(default_factory=dict)

    def learn(self, source: Layer, target: Layer, marked: tuple[Path, Path], *, said: bool) -> None:
        """Take a pair in, also with its numbers marked by the size of their families; one that was said counts more."""
        self._learn_endings(*marked, said=said)
        bare = blank(source.path), blank(target.path)
        if bare not in self.templates:  # once is as good as often
            self._learn_endings(*bare)
        self.templates.setdefault(bare, {})[source.signature] = None
        ours, theirs, signature = telling(source.path), telling(target.path), source.signature
        for word in theirs:
            self.right[word] = self.right.get(word, 0) + 1
        for word in ours:
            self.left[word] = self.left.get(word, 0) + 1
            signatures = self.with_word.setdefault(word, {})
            signatures[signature] = signatures.get(signature, 0) + 1
            for other in theirs:
                self.both[word, other] = self.both.get((word, other), 0) + 1
        self.of_signature[signature] = self.of_signature.get(signature, 0) + 1

    def _learn_endings(self, left: Path, right: Path, *, said: bool = False) -> None:
        left, right = (_START, *left), (_START, *right)
        for i in range(1, min(_LENGTH, len(left)) + 1):
            x = left[-i:]
            known = self.endings.setdefault(x, {})
            for j in range(1, min(_LENGTH, len(right)) + 1):
                y = right[-j:]
                known[y] = known.get(y, 0) + (_ENOUGH if said and _count_the_same(x, y) else 1)
                self.backward.setdefault(y, {})[x] = None

    def splits(
        self,
        source: Sequence[Layer],
        target: Sequence[Layer],
        left: Sequence[int],
        right: Sequence[int],
        marked: tuple[Sequence[Path], Sequence[Path]],
    ) -> list[Split]:
        """How a group falls apart by what was learned; nothing where it says nothing, or contradicts itself."""
        if len(left) != len(right):
            return []
        ours, theirs = [source[a].path for a in left], [target[b].path for b in right]
        alike = source[left[0]].signature
        sides = (ours, left), (theirs, right)
        parts = _by_part(*sides[0]), _by_part(*sides[1])
        for is_bare in (True, False):
            x = _classes([blank(path) for path in ours] if is_bare else [marked[0][a] for a in left], left)
            y = _classes([blank(path) for path in theirs] if is_bare else [marked[1][b] for b in right], right)
            found = self._by_endings(x, y, 1 if is_bare else _ENOUGH) if len(x) == len(y) else {}
            splits = [
                split
                for ends, split in found.items()
                if _parts_agree(split, parts)
                and self._says_one_thing(ends, split, sides)
                and not self._says_otherwise(*ends, alike)
            ]
            if splits:
                return splits
        return self._by_words(source, ours, theirs, left, right)

    def _by_endings(
        self, left: dict[Path, list[int]], right: dict[Path, list[int]], enough: int
    ) -> dict[tuple[Path, Path], Split]:
        splits = {}
        for x, members in left.items():
            found = _both(self.endings.get(x, {}), right)
            if not found:
                continue
            y = found[0]
            alone = len(found) == 1 and _both(self.backward[y], left) == [x]
            if not alone or len(members) != len(right[y]):
                return {}
            if x != y and (y in left or x in right):
                return {}  # an ending that both sides have means itself
            if self.endings[x][y] >= enough:
                words = f"`{_shown(x)}` is `{_shown(y)}` elsewhere"
                splits[x, y] = Split(members, right[y], "rule", words)
        return splits

    def _says_otherwise(self, x: Path, y: Path, signature: Signature) -> bool:
        """A layer of these shapes ends in the one, not by number, and has a partner that ends not in the other."""
        return not any("/" in str(token) for token in x) and any(
            signature in signatures and _ends(source, x) and not _ends(target, y)
            for (source, target), signatures in self.templates.items()
        )

    def _says_one_thing(
        self, ends: tuple[Path, Path], split: Split, sides: Sequence[tuple[Sequence[Path], Sequence[int]]]
    ) -> bool:
        """Learned elsewhere, or from several pairs; or nothing else tells as many from the rest as that one pair was.

        That `fwd.U` is `hh` says of `bwd.U` and `fwd.W` not which of them is `hh_reverse`.
        """
        pairs = [pair for pair in self.templates if all(map(_ends, pair, ends))]
        if len(pairs) != 1:
            return True
        for path, (paths, members), chosen in zip(pairs[0], sides, (split.left, split.right), strict=True):
            words = telling(path)
            if not set(words).issuperset(set[str].intersection(*(set(telling(each)) for each in paths))):
                return True  # it lay elsewhere, in a place that has other words
            for word, having in _having(paths, members).items():
                alike = set(having) if word in words else set(members).difference(having)
                if len(alike) == len(chosen) and alike != set(chosen):
                    return False
        return True

    def _by_words(
        self,
        source: Sequence[Layer],
        ours: Sequence[Path],
        theirs: Sequence[Path],
        left: Sequence[int],
        right: Sequence[int],
    ) -> list[Split]:
        x, y = _having(ours, left), _having(theirs, right)
        found: list[Split] = []
        for word, members in x.items():
            if not self._contrasted(word):
                continue
            for other, partners in y.items():
                together = self.both.get((word, other), 0)
                if not (together and together == self.left[word] == self.right[other]):
                    continue
                if word != other and (word in y or other in x or self.both.keys() & {(word, word), (other, other)}):
                    continue  # a word that both sides use means itself
                if len(members) != len(partners):
                    return []
                found.append(Split(members, partners, "rule", f"`{word}` is `{other}` elsewhere"))
        if not found or any((s.left, s.right) != (found[0].left, found[0].right) for s in found):
            return []
        return found[:1]

    def _contrasted(self, word: str) -> bool:
        """Of layers with one signature, some pairs have the word and some have not."""
        signatures = self.with_word.get(word, {})
        return any(count < self.of_signature[signature] for signature, count in signatures.items())


def _by_part(paths: Sequence[Path], members: Sequence[int]) -> dict[str, set[int]]:
    """Members by the names of parts, as q, k and v, in their paths."""
    found: dict[str, set[int]] = {}
    for path, index in zip(paths, members, strict=True):
        for part in PARTS.intersection(path):
            found.setdefault(part, set()).add(index)
    return found


def _parts_agree(split: Split, parts: tuple[Mapping[str, set[int]], Mapping[str, set[int]]]) -> bool:
    """No layer with the name of a part gets one without it, where another has it."""
    ours, theirs = parts
    return all(
        ours[part].isdisjoint(split.left) is theirs[part].isdisjoint(split.right)
        for part in ours.keys() & theirs.keys()
    )


def _ends(path: Path, ending: Path) -> bool:
    """A path without numbers ends so, whatever numbers the ending has."""
    bare = tuple("#" if "/" in str(token) else token for token in ending)
    return (_START, *path)[-len(bare) :] == bare


def _both(one: Mapping[Path, object], other: Mapping[Path, object]) -> list[Path]:
    """What is in both; of endings as many may be known as there are blocks, or in a group."""
    return [path for path in one if path in other] if len(one) < len(other) else [p for p in other if p in one]


def _classes(paths: Sequence[Path], members: Sequence[int]) -> dict[Path, list[int]]:
    """Members by the shortest ending that tells at least two kinds apart and holds a word."""
    for length in range(1, _LENGTH + 1):
        classes: dict[Path, list[int]] = {}
        for path, index in zip(paths, members, strict=True):
            classes.setdefault((_START, *path)[-length:], []).append(index)
        if len(classes) > 1 and all(any(_is_word(token) for token in ending) for ending in classes):
            return classes
    return {}


def _count_the_same(one: Path, other: Path) -> bool:
    """One of the endings has no numbers, or both have the same: else the one may count blocks and the other parts."""
    numbers = [[token for token in path if "/" in str(token)] for path in (one, other)]
    return not all(numbers) or numbers[0] == numbers[1]


def _is_word(token: object) -> bool:
    return isinstance(token, str) and token not in ("#", _START) and "/" not in token


def _having(paths: Sequence[Path], members: Sequence[int]) -> dict[str, list[int]]:
    """Members by word, for words that some have and some have not."""
    return {word: having for word, having in by_word(paths, members).items() if len(having) < len(members)}


def _shown(path: Path) -> str:
    return ".".join(map(str, path[1:])) if path[0] == _START else "…" + ".".join(map(str, path))
