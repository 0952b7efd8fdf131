"""Replay: which module of the reference each module of the model is, told by what reaches them.

The model is run once.  A module that is given what one module of the reference was given, and whose tensors have the
same sizes, is that one; it then gives on what that one gave, whatever it is filled with.  So what follows it is given
the right thing as well, and one run tells of all questions at once: nothing has to be answered before.

Where several were given the same (q, k and v are), the one is taken that the plan has settled, else the first in the
order of calls that is free.  Where none was, what is settled is gone by, else that order alone.  What was taken so is
no evidence; that the next module is given the right thing is.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field

import torch

from loadstone.errors import MatchError
from loadstone.keys import parent
from loadstone.matching.plan import Plan
from loadstone.matching.structure.expressions import sources_of
from loadstone.model.exporting.examples import Example
from loadstone.model.observing import Watched, agree, alike, own_tensors
from loadstone.model.origins import origins_of

_NEAR = 1e-6  # of the length of what was given; it is the same in any layout


@dataclass(frozen=True, slots=True)
class Seen:
    """What one run tells.

    Attributes:
        same: module of the model → modules of the reference that were given the same, with tensors of the same sizes.
        taken: module of the model → the one that it was taken for.
    """

    same: dict[str, tuple[str, ...]] = field(default_factory=dict)
    taken: dict[str, str] = field(default_factory=dict)


def replayed(trial: Watched, theirs: Watched, settled: Mapping[str, str], example: Example) -> Seen:
    """Run the model as a replay of the reference, which has been run for the same input.

    Args:
        settled: module of the model → module of the reference, as far as the plan says so.
    """
    replay = _Replay(trial, theirs, settled)
    with suppress(MatchError):  # what a module is given may make no sense to it; what came before is told all the same
        trial.run(example, "the model", replay.instead)
    return replay.seen


class _Replay:
    def __init__(self, trial: Watched, theirs: Watched, settled: Mapping[str, str]) -> None:
        self.seen = Seen()
        self._trial, self._theirs, self._settled = trial, theirs, settled
        self._used = set(settled.values())
        self._known: dict[int, str | None] = {}  # by identity of a module, which may have several paths
        self._by_sizes: dict[tuple[int, ...], list[str]] = {}
        called = sorted(theirs.calls, key=lambda path: theirs.calls[path].began)
        for path in {id(theirs.modules[path]): path for path in reversed(called)}.values():
            self._by_sizes.setdefault(_sizes(theirs, path), []).insert(0, path)
        self._lengths = {path: _length(theirs.calls[path].given) for path in called}

    def instead(self, path: str, times: int, output: torch.Tensor) -> torch.Tensor | None:
        """What a module shall give in place of its output; None for that.  `times`: how often it was called before."""
        module = self._trial.modules[path]
        if id(module) not in self._known:
            self._known[id(module)] = self._partner(path)
        other = self._known[id(module)]
        made = None if other is None else self._theirs.made(other, times)
        if made is None or not alike(made, output):
            return None
        return made.reshape(output.shape).to(output.dtype, copy=True)

    def _partner(self, path: str) -> str | None:
        sizes = _sizes(self._trial, path)
        if not sizes:
            return None
        given, among = self._trial.calls[path].given, self._by_sizes.get(sizes, [])
        length = _length(given)
        near = (other for other in among if abs(self._lengths[other] - length) <= _NEAR * length)
        same = [other for other in near if agree(given, self._theirs.calls[other].given) is True]
        if same:
            self.seen.same[path] = tuple(same)
        settled = self._settled.get(path)
        if settled is not None and (settled in same or not same):
            partner: str | None = settled
        else:
            free = (other for group in (same, among) for other in group if other not in self._used)
            partner = next(free, next(iter(same), None))
        if partner is not None:
            self._used.add(partner)
            self.seen.taken[path] = partner
        return partner


class Evidence:
    """What a replay says of answers and of plans, in the keys of the checkpoint."""

    def __init__(self, seen: Seen, theirs: Watched, sources: Iterable[str]) -> None:
        self._seen = seen
        self._places = theirs.keys_of(sources)
        self._keys = {own: key for key, own in self._places.items()}

    def rank(self, target: str, option: str) -> int:
        """How well an answer fits, 0 the best: by what reaches the module; where that says nothing, by the order."""
        path = parent(target)
        modules = {parent(self._places.get(key, "")) for key in sources_of(option)}
        if modules == {self._seen.taken.get(path)}:
            return 0
        same = self._seen.same.get(path)
        return 2 if same is None else 1 if modules <= set(same) else 3

    def told(self, plan: Plan, answers: Mapping[str, str]) -> dict[str, str]:
        """Answers to what is open, where one module alone was given the same; options or not.

        With nothing open, to what was not asked: where the plan fills a module from another, one for places alike.
        """
        answers = {**_said(plan), **answers}
        asked = [question for question in plan.questions if question.target not in answers]
        if asked:
            options = {question.target: question.options[0] for question in asked if question.kind == "pick"}
        else:
            whole = {key: one.sources[0].key for key, one in origins_of(plan).items() if len(one.sources) == 1}
            options = {key: source for key, source in whole.items() if key not in answers}
        found: dict[str, str] = {}
        templates: set[str] = set()
        for target, option in options.items():
            same, own = self._seen.same.get(parent(target), ()), self._places.get(option)
            if len(same) != 1 or own is None or (parent(own) in same and not asked):
                continue
            key = self._keys.get(f"{same[0]}.{own.rpartition('.')[2]}".lstrip("."))
            template = re.sub(r"\d+", "#", target)
            if key is not None and template not in templates:
                templates.add(template)
                found[target] = key
        return found


def _said(plan: Plan) -> Mapping[str, str]:
    """What a person has answered, which is not called in question."""
    answers = plan.recipe_options.get("answers")
    return answers if isinstance(answers, Mapping) else {}


def _sizes(watched: Watched, path: str) -> tuple[int, ...]:
    module = watched.modules[path]
    return tuple(sorted(getattr(module, name).numel() for name in own_tensors(module)))


def _length(tensor: torch.Tensor | None) -> float:
    return -1.0 if tensor is None or tensor.is_complex() else float(tensor.double().norm())
