"""Where a run that was killed and started again first does something else than the run in one go."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from loadstone.errors import Diagnostic, Fix
from loadstone.training.witnessed import Life, Seen

_FIELDS = {  # of a Seen: in words; in the order in which one makes the next
    "data": "the batch",
    "rates": "the learning rates",
    "optimizer": "the states of the optimizer",
    "weights": "the weights",
}
_SEED = Fix("seed what the script draws from, at its top", "random.seed(0); numpy.random.seed(0); torch.manual_seed(0)")
_STATE = Fix("have the run save and restore it", 'ls.Run(..., state={"name": object_with_state_dict})')
_BATCHES = Fix("let the loader draw the order, inside the run", "for batch in run.batches(loader): ...")
_PARTS = Fix("give the run everything that training changes", "ls.Run(..., optimizer=, scheduler=, scaler=)")


@dataclass(frozen=True, slots=True)
class Difference:
    """The first thing that is not the same.

    Attributes:
        what: "batch", "learning rates", "optimizer", "weights", "steps" or "end".
        step: the step at which it shows, counted from 1; epoch and batch too.  0 where it is about the end.
        life: how many times the script had been killed before.
        diagnostic: what is not the same on both sides, and what the reason may be.
    """

    what: str
    epoch: int
    batch: int
    step: int
    life: int
    diagnostic: Diagnostic


def first_difference(whole: Sequence[Life], lives: Sequence[Sequence[Life]]) -> Difference | None:
    """Compare a run in one go with the lives of one that was killed; both by their witnesses, in order."""
    for run, expected in _by_run(whole).items():
        steps = {seen.step: seen for seen in expected.seen}
        drawn = _drawn(expected.seen)
        reached = 0
        for number, life in enumerate(lives):
            mine = _by_run(life).get(run)
            if mine is None:
                continue
            if found := _in_life(steps, drawn, mine.seen, number, reached):
                return found
            reached = mine.seen[-1].step if mine.seen else reached
        last = max(steps, default=0)
        if reached != last:
            return _ends_elsewhere(reached, last, len(lives) - 1)
        ended = _by_run(lives[-1]).get(run)
        if found := _in_end(expected.ended_with or {}, (ended and ended.ended_with) or {}, last, len(lives) - 1):
            return found
    return None


def _by_run(lives: Sequence[Life]) -> dict[str, Life]:
    """One Life a run: a script may open the same run again."""
    merged: dict[str, Life] = {}
    for life in lives:
        before = merged.get(life.run)
        merged[life.run] = replace(life, seen=before.seen + life.seen) if before else life
    return merged


def _drawn(seen: Sequence[Seen]) -> list[str]:
    """The generators that training draws from; the state of another may be anything."""
    names = seen[0].random if seen else ()
    return [name for name in names if len({each.random.get(name) for each in seen}) > 1]


def _in_life(
    steps: Mapping[int, Seen], drawn: Sequence[str], seen: Sequence[Seen], life: int, reached: int
) -> Difference | None:
    for number, mine in enumerate(seen):
        follows = seen[number - 1].step + 1 if number else None
        expected = steps.get(mine.step)
        if expected is None or (expected.epoch, expected.batch) != (mine.epoch, mine.batch):
            return _elsewhere(mine, expected, life)
        if (follows is not None and mine.step != follows) or (follows is None and mine.step > reached + (life == 0)):
            return _skipped(mine, follows or reached, life)
        differing = [field for field in _FIELDS if getattr(mine, field) != getattr(expected, field)]
        if differing:
            before = seen[number - 1] if number else None
            earlier, there = (before, steps[before.step]) if before else (mine, expected)
            others = [name for name in drawn if earlier.random.get(name) != there.random.get(name)]
            return _differs(mine, expected, differing, others, life, is_first=before is None)
    return None


def _differs(
    mine: Seen, expected: Seen, differing: list[str], others: list[str], life: int, *, is_first: bool
) -> Difference:
    what = differing[0] if differing[0] in ("data", "rates") else "weights" if "weights" in differing else "optimizer"
    same = ", ".join(words for field, words in _FIELDS.items() if field not in differing)
    evidence: tuple[tuple[str, str], ...] = (
        ("uninterrupted", _shown(expected, what)),
        ("killed and resumed" if life else "run again", _shown(mine, what)),
        ("the same there", same or "nothing"),
    )
    if others or life:  # numbers drawn before the first batch leave no trace here
        evidence += (("random numbers", f"others of {', '.join(others)}" if others else "the same"),)
    place = f"step {mine.step} (epoch {mine.epoch}, batch {mine.batch})"
    if life == 0:
        message = f"run twice without a kill, the script differs at {place}: {_WHAT[what]}"
        found = Diagnostic("not-repeatable", message, evidence, (_SEED,))
    else:
        message, fixes = _reason(what, place, is_first=is_first, has_same_random=not others)
        found = Diagnostic("resume-not-exact", message, evidence, fixes)
    return Difference(_WHAT[what], mine.epoch, mine.batch, mine.step, life, found)


_WHAT = {"data": "batch", "rates": "learning rates", "optimizer": "optimizer", "weights": "weights"}


def _reason(what: str, place: str, *, is_first: bool, has_same_random: bool) -> tuple[str, tuple[Fix, ...]]:
    """What went differently, in words, and what mends it."""
    if what == "data":
        return f"the loader gives another batch at {place}", (_BATCHES, _SEED)
    if what == "rates":
        return f"the learning rates are others at {place}", (_PARTS, _STATE)
    if is_first:
        return f"the run did not come back with {_FIELDS[what]} it had at {place}", (_PARTS,)
    if has_same_random:
        message = f"the step before {place} made something else of the same batch: a value of the script is not saved"
        return message, (_STATE, _PARTS)
    return f"the step before {place} drew other random numbers", (_SEED, _STATE)


def _shown(seen: Seen, what: str) -> str:
    value = getattr(seen, what)
    return ", ".join(f"{rate:g}" for rate in value) if what == "rates" else value


def _elsewhere(mine: Seen, expected: Seen | None, life: int) -> Difference:
    there = f"epoch {expected.epoch}, batch {expected.batch}" if expected else "no such step"
    evidence = (("uninterrupted", there), ("killed and resumed", f"epoch {mine.epoch}, batch {mine.batch}"))
    return _about_steps(mine, life, f"step {mine.step} is another batch of another epoch", evidence)


def _skipped(mine: Seen, before: int, life: int) -> Difference:
    evidence = (("went on at", f"step {mine.step}"), ("expected", f"step {before} or one before it"))
    return _about_steps(mine, life, f"steps are left out before step {mine.step}", evidence)


def _about_steps(mine: Seen, life: int, message: str, evidence: tuple[tuple[str, str], ...]) -> Difference:
    code = "resume-not-exact" if life else "not-repeatable"
    found = Diagnostic(code, message, evidence, (_BATCHES,) if life else (_SEED,))
    return Difference("steps", mine.epoch, mine.batch, mine.step, life, found)


def _ends_elsewhere(reached: int, last: int, life: int) -> Difference:
    evidence = (("uninterrupted", f"ends after step {last}"), ("killed and resumed", f"ends after step {reached}"))
    code = "resume-not-exact" if life else "not-repeatable"
    found = Diagnostic(code, f"the run ends after step {reached} instead of {last}", evidence)
    return Difference("end", 0, 0, reached, life, found)


def _in_end(expected: Mapping[str, str], mine: Mapping[str, str], last: int, life: int) -> Difference | None:
    names = [name for name in {**expected, **mine} if expected.get(name) != mine.get(name)]
    if not names:
        return None
    evidence = tuple((name, f"{expected.get(name, 'absent')} and {mine.get(name, 'absent')}") for name in names[:5])
    message = f"after the last step {len(names)} of {len(expected)} values differ, {names[0]} among them"
    found = Diagnostic("resume-not-exact", message, evidence, (_STATE,), tuple(names))
    is_weights = any(name.startswith("model.") for name in names)
    return Difference("weights" if is_weights else "optimizer", 0, 0, last, life, found)
