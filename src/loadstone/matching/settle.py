"""Settle: one line for every slot of the model, from the candidates that claim it.

A slot has no claim, one, or several.  Slots that are the same memory are settled together: one of them is written, and
where the file has values for more than one they must agree.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from loadstone.matching.aliases import may_be_absent
from loadstone.matching.candidates import Candidate
from loadstone.matching.fitting import Fit, Fitter
from loadstone.matching.migration import Compute
from loadstone.matching.plan import Action, Op
from loadstone.matching.schema import Schema, Slot
from loadstone.tensors import TensorInfo


@dataclass(frozen=True, slots=True)
class Computed:
    """A tensor that is made on the way: its function over checkpoint keys, its dtype and shape.

    `op`, `text` and `why` are what a plan says about it.
    """

    function: Compute
    dtype: str
    shape: tuple[int, ...]
    op: str = "migrate"
    text: str = "the model's own hook"
    why: str = ""


@dataclass(slots=True)
class Settled:
    """Lines and findings, slot by slot.

    Attributes:
        actions: by model key, in the model's order.
        spare: lines for candidates that lost their slot: to `fresh`, or to a conflict.
        missing: slots without a source.
        unfit: (slot, candidate, fit) where shape or dtype cannot be brought together.
        rounding: (slot, candidate, fit) where a cast loses precision.
        contested: slot → the candidates that claim it.
        conflicts: (slot, slot, candidate, candidate) of one memory, that differ in shape or dtype.
        tied: slots that follow another.
    """

    actions: dict[str, Action] = field(default_factory=dict)
    spare: list[Action] = field(default_factory=list)
    missing: list[Slot] = field(default_factory=list)
    unfit: list[tuple[Slot, Candidate, Fit]] = field(default_factory=list)
    rounding: list[tuple[Slot, Candidate, Fit]] = field(default_factory=list)
    contested: dict[str, list[Candidate]] = field(default_factory=dict)
    conflicts: list[tuple[Slot, Slot, Candidate, Candidate]] = field(default_factory=list)
    tied: list[str] = field(default_factory=list)

    def wait(self, reasons: Mapping[str, str]) -> None:
        """Slots without a source that wait for an answer are open, and not missing."""
        self.missing = [slot for slot in self.missing if slot.key not in reasons]
        for key, why in reasons.items():
            if self.actions[key].status == "missing":
                self.actions[key] = Action("ambiguous", None, key, "open question", why)

    def keep(self, reasons: Mapping[str, tuple[str, str]]) -> None:
        """Slots without a source that may keep the values they have; how and why, by key."""
        self.missing = [slot for slot in self.missing if slot.key not in reasons]
        for key, reason in reasons.items():
            if self.actions[key].status == "missing":
                self.actions[key] = Action("kept", None, key, *reason)

    def explain(self, reasons: Mapping[str, str]) -> None:
        """Say of slots without a source what comes nearest to them."""
        for key, why in reasons.items():
            if self.actions[key].status == "missing":
                self.actions[key] = Action("missing", None, key, "no source", why)


def settle(
    schema: Schema, claims: Mapping[str, list[Candidate]], computed: Mapping[str, Computed], fitter: Fitter
) -> Settled:
    """A line for each slot of the schema; candidates under other names are not looked at."""
    settled = Settled()
    followers: dict[str, list[Slot]] = {}
    for slot in schema.slots.values():
        if slot.tied_to is not None:
            followers.setdefault(slot.tied_to, []).append(slot)
    for key, slot in schema.slots.items():
        if key in settled.actions:
            continue
        group = [slot, *followers.get(key, ())]
        if len(group) == 1 or slot.tied_to is not None:
            _settle_one(settled, slot, claims.get(key, []), computed.get(key), fitter)
        else:
            _settle_group(settled, group, claims, computed, fitter)
    settled.actions = {key: settled.actions[key] for key in schema.slots}
    return settled


def _settle_one(
    settled: Settled, slot: Slot, claims: list[Candidate], computed: Computed | None, fitter: Fitter
) -> None:
    pattern = fitter.fresh_pattern(slot.key)
    if pattern is not None:
        _keep(settled, slot, claims, "`fresh`", f"matches `{pattern}`")
    elif len(claims) > 1:
        _contest(settled, slot, claims)
    elif computed is not None and (claims or may_be_absent(slot) is None):
        _compute(settled, slot, claims[0] if claims else None, computed, fitter)
    elif claims:
        _load(settled, slot, claims[0], fitter)
    else:
        absent = may_be_absent(slot)
        if absent is not None:
            settled.actions[slot.key] = Action("kept", None, slot.key, *absent)
        else:
            settled.missing.append(slot)
            settled.actions[slot.key] = Action("missing", None, slot.key, "no source")


def _keep(settled: Settled, slot: Slot, claims: Iterable[Candidate], how: str, why: str) -> None:
    settled.actions[slot.key] = Action("kept", None, slot.key, how, why)
    settled.spare += [Action("dropped", one.key, None, how, f"`{slot.key}` keeps the values it has") for one in claims]


def _contest(settled: Settled, slot: Slot, claims: list[Candidate]) -> None:
    names = " and ".join(f"`{one.key}`" for one in claims)
    first, *others = claims
    settled.contested[slot.key] = claims
    settled.actions[slot.key] = Action("ambiguous", first.key, slot.key, first.how, f"{names} both go here")
    settled.spare += [
        Action("ambiguous", other.key, None, other.how, f"goes to `{slot.key}` like `{first.key}`") for other in others
    ]


def _load(settled: Settled, slot: Slot, candidate: Candidate, fitter: Fitter) -> None:
    if candidate.info.is_meta and candidate.info.elements:
        why = "the checkpoint has its shape and no values: it was saved from the meta device"
        settled.missing.append(slot)
        settled.actions[slot.key] = Action("missing", candidate.key, slot.key, candidate.how, why)
        return
    _write(settled, slot, candidate, fitter.fit(slot, candidate), ())


def _compute(settled: Settled, slot: Slot, candidate: Candidate | None, computed: Computed, fitter: Fitter) -> None:
    source = candidate or Candidate(slot.key, slot.key, _stand_in(slot.key, computed), "made by the model's own hook")
    op = Op(computed.op, computed.text, function=computed.function)
    fit = fitter.fit(slot, source, computed.dtype, computed.shape)
    _write(settled, slot, source, fit, (op,), has_source=candidate is not None)


def _stand_in(key: str, computed: Computed) -> TensorInfo:
    return TensorInfo(key, computed.dtype, computed.shape, (0,) * len(computed.shape), 0, None)


def _write(
    settled: Settled, slot: Slot, candidate: Candidate, fit: Fit, first: tuple[Op, ...], *, has_source: bool = True
) -> None:
    source = candidate.key if has_source else None
    if fit.problem == "fresh":
        _keep(settled, slot, [candidate] if has_source else [], "`adapt` fresh", fit.why)
    elif fit.problem:
        settled.unfit.append((slot, candidate, fit))
        settled.actions[slot.key] = Action("mismatched", source, slot.key, candidate.how, fit.why or "shapes differ")
    else:
        if fit.cast.effect == "rounds":
            settled.rounding.append((slot, candidate, fit))
        why = fit.why or candidate.why
        settled.actions[slot.key] = Action("load", source, slot.key, candidate.how, why, (*first, *fit.ops))


def _settle_group(
    settled: Settled,
    group: list[Slot],
    claims: Mapping[str, list[Candidate]],
    computed: Mapping[str, Computed],
    fitter: Fitter,
) -> None:
    """Slots that are one memory: write one, let the others follow."""
    wanted = [slot for slot in group if fitter.fresh_pattern(slot.key) is None]
    claimed = [slot for slot in wanted if claims.get(slot.key)]
    leader = next(iter(claimed), group[0])
    _settle_one(settled, leader, claims.get(leader.key, []), computed.get(leader.key), fitter)
    for slot in group:
        if slot is leader:
            continue
        own = claims.get(slot.key, [])
        if len(own) > 1:
            _contest(settled, slot, own)
        elif not own or slot not in wanted:
            _follow(settled, slot, leader)
            settled.spare += [Action("dropped", one.key, None, "`fresh`", f"tied to `{leader.key}`") for one in own]
        elif settled.actions[leader.key].status in ("load", "mismatched"):
            _agree(settled, leader, slot, claims[leader.key][0], own[0])
        else:
            _follow(settled, slot, leader, own[0])


def _follow(
    settled: Settled, slot: Slot, leader: Slot, candidate: Candidate | None = None, ops: tuple[Op, ...] = ()
) -> None:
    settled.tied.append(slot.key)
    source = candidate.key if candidate else None
    settled.actions[slot.key] = Action(
        "tied", source, slot.key, f"tied to `{leader.key}`", "one memory in the model", ops
    )


def _agree(settled: Settled, leader: Slot, slot: Slot, first: Candidate, second: Candidate) -> None:
    """Two candidates for one memory: the same view, equal as far as headers tell, or in conflict."""
    if is_same_view(first.info, second.info):
        _follow(settled, slot, leader, second)
    elif (first.info.shape, first.info.dtype) != (second.info.shape, second.info.dtype):
        settled.conflicts.append((leader, slot, first, second))
        why = f"`{first.key}` and `{second.key}` differ, and the model has one memory for both"
        settled.actions[slot.key] = Action("ambiguous", second.key, slot.key, second.how, why)
    else:
        text = f"values must equal those of `{first.key}`"
        _follow(settled, slot, leader, second, (Op("compare", text, is_checked=True, other=first.key),))


def is_same_view(one: TensorInfo, other: TensorInfo) -> bool:
    """The very same bytes of the file, seen in the same way."""
    return (
        one.storage is not None
        and one.storage is other.storage
        and (one.offset, one.shape, one.stride, one.dtype) == (other.offset, other.shape, other.stride, other.dtype)
    )
