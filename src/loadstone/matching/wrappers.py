"""Wrapper prefixes: what DataParallel, torch.compile and training frameworks put into keys, taken off or put on.

Exact keys come first.  What is left on both sides votes: every key that would fit after taking a prefix off, or putting
one on, is a vote for it.  A prefix of known wrappers is accepted when more keys fit with it than without; any other
prefix only when it explains every key on both sides with equal shapes, and else it is offered as a fix.  Only whole
tokens count, so that `modules.0` or `mymodule.x` are never touched.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import takewhile

from loadstone.errors import Diagnostic, Fix
from loadstone.matching.candidates import Candidate, counter_origin
from loadstone.matching.schema import Schema, Slot
from loadstone.tensors import TensorInfo

# Token → what leaves it.  The first table carries no meaning at all, so that any evidence is enough; the second names a
# part, so that most of one side has to fit.
_TRANSPARENT: Mapping[str, str] = {
    "_orig_mod": "torch.compile",  # torch/_dynamo/eval_frame.py OptimizedModule
    "_fsdp_wrapped_module": "FSDP",  # torch/distributed/fsdp/_common_utils.py FSDP_WRAPPED_MODULE
    "_checkpoint_wrapped_module": "activation checkpointing",  # .../checkpoint_wrapper.py _CHECKPOINT_WRAPPED_MODULE
}
_MEANINGLESS: Mapping[str, str] = {
    **_TRANSPARENT,
    "module": "DataParallel",  # torch/nn/parallel/data_parallel.py; DDP, DeepSpeed and AveragedModel alike
    "_forward_module": "Lightning Fabric",  # lightning/fabric/wrappers.py
}
_PARTS: Mapping[str, str] = {
    "model": "a training framework",  # LightningModule.model, ultralytics, mmengine
    "net": "a training framework",
    "network": "a training framework",
    "backbone": "a detector or a trainer around the network",
    "_model": "a training framework",
}
_KNOWN = {**_MEANINGLESS, **_PARTS}
# Names that transformers gives to the body of a model (base_model_prefix), seen with and without in one file.
_BODIES = frozenset({"bert", "roberta", "distilbert", "electra", "albert", "deberta"})
_DEEPEST = 6  # tokens of a prefix; the deepest seen is 3
_ROUNDS = 4

IsSoft = Callable[[Slot], bool]


@dataclass(frozen=True, slots=True)
class Alignment:
    """Candidates under the names of the model, what was noticed, and fixes for prefixes that were not taken."""

    candidates: list[Candidate]
    notes: tuple[Diagnostic, ...] = ()
    fixes: tuple[Fix, ...] = ()


@dataclass(slots=True)
class _Votes:
    """Evidence for taking `removed` off and putting `added` on."""

    removed: str
    added: str
    fitting: int = 0  # keys that fit, with equal shapes
    named: int = 0  # keys that fit by name
    targets: set[str] = field(default_factory=set)  # only asked for membership and size

    @property
    def tokens(self) -> list[str]:
        return [token for token in (self.removed + self.added).split(".") if token]

    def apply(self, name: str) -> str | None:
        """The name after the change, None where it does not concern the name."""
        return self.added + name[len(self.removed) :] if name.startswith(self.removed) else None


def unwrapped(key: str) -> str:
    """The key without leading wrappers that carry no meaning: `module.fc.weight` is `fc.weight`."""
    head, dot, rest = key.partition(".")
    while dot and head in _MEANINGLESS:
        key = rest
        head, dot, rest = key.partition(".")
    return key


def align(candidates: list[Candidate], schema: Schema, is_soft: IsSoft) -> Alignment:
    """Take wrappers off the candidates, or put them on, where that explains the keys.

    `is_soft` says which slots may stay without a source (counters, tied tensors, layers that are to stay fresh).
    """
    state = _State(candidates, schema, is_soft)
    if not state.loose:
        return Alignment(candidates)
    if any(not _TRANSPARENT.keys().isdisjoint(name.split(".")) for name in (*state.open, *state.loose_names())):
        state.skip_tokens(_TRANSPARENT, needs_shape=False)
    fixes: tuple[Fix, ...] = ()
    for _ in range(_ROUNDS):
        fixes = ()
        votes = state.votes()
        chosen = next((vote for vote in votes if state.accepts(vote)), None)
        if chosen is None:
            fixes = state.fixes(votes)
            break
        state.apply(chosen)
    state.skip_tokens({"module": "DataParallel"}, needs_shape=True)
    state.find_doubles()
    aligned = state.aligned()
    return Alignment(aligned, tuple(_notes(candidates, aligned)), fixes)


class _State:
    """Names of the candidates and open slots while prefixes are tried.

    Attributes:
        names: where each candidate would go, as far as is known.
        bare: name without transparent tokens → the open slot that has them in its key.
        open: slots without a source, under their bare names.
        loose: which candidates have no slot.
        taken: slots that have a source → which candidate.
    """

    def __init__(self, candidates: list[Candidate], schema: Schema, is_soft: IsSoft) -> None:
        self.candidates = candidates
        self.names = [candidate.name for candidate in candidates]
        self.schema = schema
        self.is_soft = is_soft
        self.bare: dict[str, str] = {}
        self._sort()

    def _sort(self) -> None:
        slots = self.schema.slots
        hidden = {key: name for name, key in self.bare.items()}
        self.taken = {name: index for index, name in enumerate(self.names) if name in slots}
        self.open = {hidden.get(key, key): slot for key, slot in slots.items() if key not in self.taken}
        self.loose = [index for index, name in enumerate(self.names) if name not in slots]
        self.needed = sum(not self.is_soft(slot) for slot in self.open.values())

    def loose_names(self) -> list[str]:
        return [self.names[index] for index in self.loose]

    def info(self, index: int) -> TensorInfo:
        return self.candidates[index].info

    def is_counter(self, index: int) -> bool:
        return counter_origin(self.names[index], self.info(index)) is not None

    def _rename(self, index: int, name: str) -> None:
        self.names[index] = self.bare.get(name, name)

    def aligned(self) -> list[Candidate]:
        """The candidates under their new names, each with what was done to it."""
        return [
            candidate if name == candidate.name else candidate.renamed(name, relation(candidate.name, name))
            for candidate, name in zip(self.candidates, self.names, strict=True)
        ]

    # --- tokens inside the path ---------------------------------------------------------------------------------------

    def skip_tokens(self, tokens: Iterable[str], *, needs_shape: bool) -> None:
        """Match names that are equal once these tokens are left out of both; each such name must be the only one."""
        skipped = frozenset(tokens)
        places = _unique((_without(name, skipped), name) for name in self.open)
        sources = _unique((_without(self.names[index], skipped), str(index)) for index in self.loose)
        if not needs_shape:
            self.bare = {bare: key for bare, key in places.items() if bare != key and bare not in self.schema.slots}
        for bare, index in ((bare, int(index)) for bare, index in sources.items()):
            target = places.get(bare)
            if target is not None:
                if not needs_shape or self.open[target].shape == self.info(index).shape:
                    self._rename(index, target)
            elif not needs_shape and bare not in self.taken:
                self._rename(index, bare)
        self._sort()

    # --- prefixes -----------------------------------------------------------------------------------------------------

    def votes(self) -> list[_Votes]:
        """Every prefix that would make a key fit, the one with most evidence first."""
        found: dict[tuple[str, str], _Votes] = {}
        loose = {self.names[index]: self.info(index) for index in self.loose if not self.is_counter(index)}
        slots = {name: slot for name, slot in self.open.items() if not counter_origin(name, slot)}

        def vote(removed: str, added: str, info: TensorInfo, name: str) -> None:
            ballot = found.setdefault((removed, added), _Votes(removed, added))
            ballot.named += 1
            if slots[name].shape == info.shape:
                ballot.fitting += 1
                ballot.targets.add(name)

        inside: dict[str, list[tuple[str, str]]] = {}  # open name without known prefixes → the prefix, the name
        for name in slots:
            for prefix, rest in _splits(name):
                if rest in loose:
                    vote("", prefix, loose[rest], name)
            for prefix, rest in _known_splits(name):
                inside.setdefault(rest, []).append((prefix, name))
        for name, info in loose.items():
            for prefix, rest in _splits(name):
                if rest in slots:
                    vote(prefix, "", info, rest)
            for prefix, rest in _known_splits(name):
                for added, target in inside.get(rest, ()):
                    vote(prefix, added, info, target)
        return sorted(found.values(), key=lambda ballot: (-ballot.fitting, -ballot.named, len(ballot.tokens)))

    def accepts(self, ballot: _Votes) -> bool:
        """Whether the prefix may be taken without asking."""
        if any(token not in _KNOWN for token in ballot.tokens):
            return 0 < self.needed <= ballot.fitting and not self.taken and self._explains_all(ballot)
        concerned = sum(
            self.names[index].startswith(ballot.removed) for index in self.loose if not self.is_counter(index)
        )
        if all(token in _MEANINGLESS for token in ballot.tokens):
            return ballot.fitting > 0 or 2 * ballot.named >= concerned
        return ballot.fitting > 0 and 2 * ballot.fitting >= min(concerned, self.needed)

    def _explains_all(self, ballot: _Votes) -> bool:
        """Every candidate lands on a slot of its shape and every slot that needs one has a source."""
        for index in self.loose:
            if self.is_counter(index):
                continue
            name = ballot.apply(self.names[index])
            if name is None:
                return False
            if name in ballot.targets or name in self.schema.non_persistent:
                continue
            if name not in self.open or not self.is_soft(self.open[name]):
                return False
        return all(name in ballot.targets or self.is_soft(slot) for name, slot in self.open.items())

    def apply(self, ballot: _Votes) -> None:
        """Take the prefix off, or put it on, for every loose candidate it concerns."""
        for index in self.loose:
            name = ballot.apply(self.names[index])
            if name is None or (self.is_counter(index) and name not in self.open):
                continue
            if ballot.added and not ballot.removed and self.names[index].startswith(ballot.added):
                continue
            self._rename(index, name)
        self._sort()

    def fixes(self, votes: list[_Votes]) -> tuple[Fix, ...]:
        """What to paste for the prefixes that explain much but not all."""
        fixes = []
        for ballot in votes[:3] if self.needed else ():
            concerned = sum(name.startswith(ballot.removed) for name in self.loose_names())
            if not ballot.fitting or 2 * ballot.fitting < min(self.needed, concerned):
                continue
            if ballot.removed and ballot.added:
                continue
            count = f"{ballot.fitting} of {self.needed} keys of the model fit then"
            if ballot.removed and ballot.fitting >= self.needed and concerned < len(self.loose):
                place = ballot.removed[:-1]
                fixes.append(Fix(f"load only the part `{place}`, {count}", f'only=["{place}"]', "unsafe"))
            elif ballot.removed:
                pattern = "^" + re.escape(ballot.removed)
                does = f"take the prefix `{ballot.removed}` off, {count}"
                fixes.append(Fix(does, f'rename={{r"{pattern}": ""}}', "unsafe"))
            else:
                does = f"put the prefix `{ballot.added}` on, {count}"
                fixes.append(Fix(does, f'rename={{r"^": "{ballot.added}"}}', "unsafe"))
        return tuple(fixes)

    # --- the same tensor twice ----------------------------------------------------------------------------------------

    def find_doubles(self) -> None:
        """Let a key with a wrapper or a body prefix claim the slot that its bare twin has already: a conflict to show.

        BERT with and without `bert.` in one file is such a case, or `module.fc.weight` beside `fc.weight`.
        """
        twins: dict[str, list[tuple[int, str]]] = {}
        for index in self.loose:
            for prefix, rest in _splits(self.names[index]):
                twin = self.taken.get(rest)
                if twin is not None and self.info(twin).shape == self.info(index).shape:
                    twins.setdefault(prefix, []).append((index, rest))
        whole = sum(not self.is_soft(slot) for slot in self.schema.slots.values())
        for prefix, pairs in twins.items():
            is_known = all(token in _MEANINGLESS or token in _BODIES for token in prefix[:-1].split("."))
            if is_known or 0 < whole <= sum(not self.is_soft(self.schema.slots[name]) for _, name in pairs):
                for index, name in pairs:
                    self._rename(index, name)


def relation(old: str, new: str) -> str:
    """In a few words, what wrappers make `new` of `old`."""
    before, after = old.split("."), new.split(".")
    while before and after and before[-1] == after[-1]:
        before.pop()
        after.pop()
    if not after:
        return f"prefix `{'.'.join(before)}.` removed"
    if not before:
        return f"prefix `{'.'.join(after)}.` added"
    gone = [token for token in dict.fromkeys(before) if token in _KNOWN and token not in after]
    come = [token for token in dict.fromkeys(after) if token in _KNOWN and token not in before]
    if not come and [token for token in before if token not in gone] == after:
        return f"{_listed(gone)} skipped"
    if not gone and [token for token in after if token not in come] == before:
        return f"{_listed(come)} added"
    return f"prefix `{'.'.join(before)}.` replaced by `{'.'.join(after)}.`"


def _listed(tokens: list[str]) -> str:
    return ", ".join(f"`{token}`" for token in tokens)


def _notes(before: list[Candidate], after: list[Candidate]) -> Iterator[Diagnostic]:
    """One note for each way in which keys were changed."""
    changed: dict[str, list[str]] = {}
    for old, new in zip(before, after, strict=True):
        if old.name != new.name:
            changed.setdefault(relation(old.name, new.name), []).append(new.key)
    for how, keys in changed.items():
        token = next((token for token in re.findall(r"[^`.]+", how) if token in _KNOWN), None)
        origin = f", left by {_KNOWN[token]}" if token else ", it explains every key"
        count = "1 key" if len(keys) == 1 else f"{len(keys):,} keys"
        yield Diagnostic("prefix-removed", f"{how} for {count}{origin}", keys=tuple(keys))


def _splits(name: str) -> Iterator[tuple[str, str]]:
    """Every way to cut a name into a prefix with its dot and a rest, up to _DEEPEST tokens."""
    end = name.find(".") + 1
    for _ in range(_DEEPEST):
        if end <= 0 or end == len(name):
            return
        yield name[:end], name[end:]
        end = name.find(".", end) + 1


def _known_splits(name: str) -> Iterator[tuple[str, str]]:
    """The cuts behind tokens of known wrappers."""
    known = takewhile(lambda token: token in _KNOWN, name.split(".", _DEEPEST))
    length = 0
    for token in known:
        length += len(token) + 1
        if length < len(name):
            yield name[:length], name[length:]


def _without(name: str, tokens: frozenset[str]) -> str:
    return ".".join(token for token in name.split(".") if token not in tokens)


def _unique(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """The pairs whose first half occurs once."""
    found: dict[str, str] = {}
    twice: dict[str, None] = {}
    for name, value in pairs:
        if name in found:
            twice[name] = None
        found[name] = value
    return {name: value for name, value in found.items() if name not in twice}
