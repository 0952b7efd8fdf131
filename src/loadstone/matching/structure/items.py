"""What goes into a match by structure and what comes out: plain data, no tensors.

An Item is one line of a state dict.  A Match says for every key of the target where its values come from, how sure
that is and why; what stays open is a Question, and what found no partner is listed on both sides.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

from loadstone.matching.structure.arithmetic import Sum
from loadstone.matching.structure.rules import Rule
from loadstone.matching.structure.steps import Step

Grade: TypeAlias = Literal["exact", "forced", "sibling", "named", "numbered", "structure", "rule", "answer", "order"]

# What a grade claims, strongest first; none but the last, for which one has to ask, rests on the order of keys.
GRADES: dict[Grade, str] = {
    "exact": "the same name, behind one prefix at most",
    "answer": "said by the person who asked",
    "forced": "the only layer with these shapes on either side",
    "sibling": "the only one left beside layers that are settled",
    "rule": "settled pairs elsewhere end in the same two names",
    "named": "the word that tells it from the others is the same on both sides",
    "numbered": "the same place in a numbered family",
    "structure": "the only branch of this size on either side",
    "order": "the order of keys, because you asked",
}


Kind: TypeAlias = Literal["pick", "order", "gates", "heads", "rotary", "flatten", "turned", "tied", "fold"]

# What a question is about, and what beside its options would answer it: `OPTION | step`, see key_rules.
KINDS: dict[Kind, str] = {
    "pick": "which layer it is; nothing else is possible",
    "order": "in which order numbered or unnamed parts are joined: the same parts in another order",
    "gates": "in which order gates are stacked: blocks(0; …) of as many as there are gates",
    "heads": "whether q, k and v are stacked head by head: regroup(0; -1, 3, SIZE; 1, 0, 2), or (0; 3, -1, SIZE; …)",
    "rotary": "whether positions turn halves or neighbours: regroup(0; -1, 2, HALF; 0, 2, 1), or the other way",
    "flatten": "which axis a flat one counts first: regroup(1; …) over channels, rows and columns",
    "turned": "whether one side stores its matrices the other way round: OPTION | t()",
    "tied": "whether one tensor fills two places",
    "fold": "what a batch norm adds to the variance before the square root",
}


@dataclass(frozen=True, slots=True)
class Item:
    """One key of a state dict.

    Attributes:
        dtype: torch's name, as in "float32".
        kind: what the model says the tensor is, where there is a model.
        module: class of the module that owns it, where there is a model.
        storage: a name shared by keys that are the same memory.
    """

    key: str
    shape: tuple[int, ...]
    dtype: str = "float32"
    kind: Literal["parameter", "buffer"] | None = None
    module: str | None = None
    storage: str | None = None

    @property
    def elements(self) -> int:
        return math.prod(self.shape)


@dataclass(frozen=True, slots=True)
class Taken:
    """A tensor of the source, and what is done to it before it is used."""

    key: str
    steps: tuple[Step, ...] = ()


@dataclass(frozen=True, slots=True)
class Assignment:
    """Where the values of one target key come from.

    Each source is taken with its own steps; several are then joined along the first axis, or made one by arithmetic;
    then follow `steps`.
    """

    target: str
    sources: tuple[Taken, ...]
    steps: tuple[Step, ...]
    grade: Grade
    evidence: str
    made_by: Sum | None = None


@dataclass(frozen=True, slots=True)
class Question:
    """What the names and shapes leave open, once for all places that look alike.

    Attributes:
        target: the key to decide first.
        options: source keys it may come from; `answers={target: option}` settles this and every place like it.
        places: how many groups of layers wait for the same answer.
        kind: what an answer decides; where none of the options is right, it says what else may be tried, see KINDS.
    """

    text: str
    target: str
    options: tuple[str, ...]
    places: int
    kind: Kind = "pick"


@dataclass(frozen=True, slots=True)
class Unmatched:
    key: str
    near: str  # what comes closest on the other side and what speaks against it; may be empty
    nearest: str = ""  # the key of what comes closest


@dataclass(frozen=True, slots=True)
class Match:
    """How a source fits a target.

    Attributes:
        assignments: by target key, in the target's order; only what may be applied without asking.
        admissible: log10 of the number of ways to pair what stays open; 0 when nothing does.
        verdict: "complete": every tensor on either side has its partner; "partial": what is there may be applied,
            the rest is listed; "refused": these are probably not the same network, nothing should be applied unread.
    """

    assignments: Mapping[str, Assignment]
    questions: tuple[Question, ...]
    unmatched_source: tuple[Unmatched, ...]
    unmatched_target: tuple[Unmatched, ...]
    admissible: float
    verdict: Literal["complete", "partial", "refused"]
    reason: str
    rules: tuple[Rule, ...]
