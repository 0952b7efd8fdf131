"""Findings: what a plan has to say, grouped so that a hundred keys with one cause are one diagnostic."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

from loadstone.errors import Diagnostic, Fix
from loadstone.keys import fold, parent
from loadstone.matching.aliases import may_be_absent
from loadstone.matching.candidates import Candidate, counter_origin, shape_text, tensor_text
from loadstone.matching.grouping import Owners, named
from loadstone.matching.nearmiss import NearMiss
from loadstone.matching.schema import Slot
from loadstone.matching.settle import Settled
from loadstone.matching.shapes import Shapes, explain, reshaping_fixes, shapes_of
from loadstone.tensors import TensorInfo

_MOST_DIAGNOSTICS = 20  # of one code; the last one gathers the rest
_MOST_ROWS = 4


class Findings:
    """Builds the diagnostics of one plan.

    Attributes:
        slots, sources: every tensor of either side by its own key.
        strict: whether an unsettled key is an error or a warning.
    """

    def __init__(self, slots: Mapping[str, Slot], sources: Mapping[str, TensorInfo], *, strict: bool) -> None:
        self.slots = slots
        self.sources = sources
        self.strict = strict
        self._model = Owners(key for key, slot in slots.items() if may_be_absent(slot) is None)
        self._checkpoint = Owners(key for key, info in sources.items() if counter_origin(key, info) is None)

    def unsettled(
        self, code: str, message: str, evidence: Sequence[tuple[str, str]], fixes: Sequence[Fix], keys: Sequence[str]
    ) -> Diagnostic:
        """An error under strict, a warning otherwise."""
        level = None if self.strict else "warning"
        return Diagnostic(code, message, tuple(evidence), tuple(fixes), tuple(keys), level)  # type: ignore[arg-type]

    def missing(self, missing: list[Slot], pairs: list[NearMiss], prefixes: tuple[Fix, ...]) -> Iterator[Diagnostic]:
        """Slots without a source: those with a near miss first, then the rest by pattern."""
        fixes = prefixes
        for pair in pairs:
            names, there = named(pair.keys), named(pair.keys.values())
            yield self.unsettled(
                "missing-key",
                f"no source for {names}; did you mean {there}",
                self._rows(pair.keys.items()),
                (*fixes, _rename(pair), Fix("or keep its fresh values", f"fresh={self._model.paste(pair.keys)}")),
                tuple(pair.keys),
            )
            fixes = ()
        paired = {key for pair in pairs for key in pair.keys}
        for group in self._model.groups([slot.key for slot in missing if slot.key not in paired]):
            yield self.unsettled(
                "missing-key",
                f"no source for {group.label}",
                [("model", tensor_text(key, self.slots[key])) for key in group.keys[:_MOST_ROWS]],
                (*fixes, Fix("keep the fresh values on purpose", f"fresh={self._model.paste(group.keys)}")),
                group.keys,
            )
            fixes = ()

    def unexpected(self, unexpected: list[Candidate], pairs: list[NearMiss]) -> Iterator[Diagnostic]:
        """Tensors of the checkpoint that nothing takes."""
        for pair in pairs:
            keys = tuple(pair.keys.values())
            yield self.unsettled(
                "unexpected-key",
                f"the model has no {named(keys)}; did you mean {named(pair.keys)}",
                [],
                (_rename(pair), Fix("or leave it out", f"drop={self._checkpoint.paste(keys)}")),
                keys,
            )
        paired = {key for pair in pairs for key in pair.keys.values()}
        for group in self._checkpoint.groups([one.key for one in unexpected if one.key not in paired]):
            yield self.unsettled(
                "unexpected-key",
                f"the model has no {group.label}",
                [("checkpoint", tensor_text(key, self.sources[key])) for key in group.keys[:_MOST_ROWS]],
                (Fix("leave it out on purpose", f"drop={self._checkpoint.paste(group.keys)}"),),
                group.keys,
            )

    def mismatched(self, settled: Settled) -> Iterator[Diagnostic]:
        """Shapes that differ, one diagnostic for the tensors of a module and for modules alike."""
        modules: dict[str, list[Shapes]] = {}
        for slot, candidate, fit in settled.unfit:
            if fit.problem == "shape":
                modules.setdefault(parent(slot.key), []).append(shapes_of(slot, candidate, fit.why))
        alike: dict[object, list[Shapes]] = {}
        for module, members in modules.items():
            pattern = re.sub(r"[0-9]+", "#", module)
            facts = tuple((one.target.removeprefix(module), one.have, one.want, one.why) for one in members)
            alike.setdefault((pattern, facts), []).extend(members)
        groups = list(alike.values())
        if len(groups) > _MOST_DIAGNOSTICS:
            rest = [one for group in groups[_MOST_DIAGNOSTICS - 1 :] for one in group]
            groups[_MOST_DIAGNOSTICS - 1 :] = [rest]
        for members in groups:
            keys = tuple(one.target for one in members)
            evidence = list(self._rows((one.target, one.source) for one in members))
            evidence += [("", text) for text in explain(members)]
            yield self.unsettled(
                "shape-mismatch",
                _mismatch_message(members, keys),
                evidence,
                (
                    Fix("keep the fresh layer", f"fresh={self._model.paste(keys)}"),
                    *reshaping_fixes(members, self._model.globs),
                ),
                keys,
            )

    def without_values(self, settled: Settled) -> Iterator[Diagnostic]:
        """Adapters that keep rows of the model where it is on the meta device and so has none."""
        for key, action in settled.actions.items():
            if any(op.keeps_own for op in action.ops) and self.slots[key].is_meta:
                message = f"`{key}` would keep rows of its own, and on the meta device it has none"
                fix = Fix("construct it with values", "loadstone.build(FACTORY, FILE, adapt=...)")
                yield Diagnostic("left-on-meta", message, fixes=(fix,), keys=(key,))

    def contested(self, settled: Settled) -> Iterator[Diagnostic]:
        """Several sources for one target, one diagnostic for all that collide in the same way."""
        alike: dict[tuple[str, ...], list[tuple[str, list[Candidate]]]] = {}
        for target, claims in settled.contested.items():
            alike.setdefault(tuple(claim.how for claim in claims), []).append((target, claims))
        yield from self.collisions(list(alike.values()))

    def collisions(self, groups: list[list[tuple[str, list[Candidate]]]]) -> Iterator[Diagnostic]:
        """The diagnostics of `contested`, from (target, claims) in groups."""
        if len(groups) > _MOST_DIAGNOSTICS:
            groups = [
                *groups[: _MOST_DIAGNOSTICS - 1],
                [one for group in groups[_MOST_DIAGNOSTICS - 1 :] for one in group],
            ]
        for group in groups:
            target, claims = group[0]
            names = " and ".join(f"`{claim.key}`" for claim in claims)
            more = f", and so for {len(group) - 1:,} more keys" if len(group) > 1 else ""
            columns: list[list[str]] = [[] for _ in claims]
            for _, members in group:
                for column, member in zip(columns, members, strict=False):
                    column.append(member.key)
            fixes = []
            for index, column in enumerate(columns):
                others = [key for other in (*columns[:index], *columns[index + 1 :]) for key in other]
                does = f"use {named(column)}"
                fixes.append(Fix(does, f"drop={self._checkpoint.paste(others)}", "unsafe"))
            yield self.unsettled(
                "ambiguous-match",
                f"{names} both go to `{target}`{more}",
                [("checkpoint", tensor_text(claim.key, claim.info)) for claim in claims],
                fixes,
                tuple(member.key for _, members in group for member in members),
            )

    def tied(self, settled: Settled) -> Iterator[Diagnostic]:
        """One memory in the model, two tensors in the file."""
        for leader, slot, first, second in settled.conflicts:
            yield Diagnostic(
                "tied-conflict",
                f"`{leader.key}` and `{slot.key}` are one tensor in the model, "
                f"`{first.key}` and `{second.key}` differ in the checkpoint",
                (
                    ("checkpoint", tensor_text(first.key, first.info)),
                    ("checkpoint", tensor_text(second.key, second.info)),
                    ("model", tensor_text(leader.key, leader)),
                ),
                (
                    Fix(f"use `{first.key}`", f'drop=["{second.key}"]', "unsafe"),
                    Fix(f"use `{second.key}`", f'drop=["{first.key}"]', "unsafe"),
                ),
                (first.key, second.key),
            )
        if settled.tied:
            count = "1 key follows" if len(settled.tied) == 1 else f"{len(settled.tied):,} keys follow"
            yield Diagnostic("tied-weights", f"{count} another that is the same memory", keys=tuple(settled.tied))

    def casts(self, settled: Settled) -> Iterator[Diagnostic]:
        """Casts that break values, each kind one error; casts that round, all of them one warning."""
        broken: dict[str, list[tuple[Slot, Candidate]]] = {}
        for slot, candidate, fit in settled.unfit:
            if fit.problem == "dtype":
                broken.setdefault(fit.why, []).append((slot, candidate))
        for why, members in broken.items():
            keys = tuple(slot.key for slot, _ in members)
            pairs = ", ".join(f'"{name}": "cast"' for name in fold(keys)[:_MOST_ROWS])
            yield Diagnostic(
                "dtype-breaks-values",
                f"{why}: {named(keys)}",
                tuple(self._rows((slot.key, candidate.key) for slot, candidate in members)),
                (Fix("cast it all the same", f"adapt={{{pairs}}}", "unsafe"),),
                keys,
            )
        rounding: dict[str, list[str]] = {}
        for slot, _, fit in settled.rounding:
            rounding.setdefault(fit.cast.text, []).append(slot.key)
        if rounding:
            count = sum(map(len, rounding.values()))
            yield Diagnostic(
                "dtype-mismatch",
                f"{count:,} tensor{'' if count == 1 else 's'} lose precision: the model's dtype holds less",
                tuple((text, f"{len(keys):,} × {named(keys)}") for text, keys in rounding.items()),
                keys=tuple(key for keys in rounding.values() for key in keys),
            )

    def _rows(self, pairs: Iterable[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
        rows: list[tuple[str, str]] = []
        for target, source in pairs:
            if len(rows) >= 2 * _MOST_ROWS:
                break
            if source in self.sources:
                rows.append(("checkpoint", tensor_text(source, self.sources[source])))
            rows.append(("model", tensor_text(target, self.slots[target])))
        return tuple(rows)


def _rename(pair: NearMiss) -> Fix:
    pattern = "^" + re.escape(pair.source)
    target = pair.target
    if pair.target not in pair.keys:
        pattern, target = pattern + r"\.", target + "."
    else:
        pattern += "$"
    count = "1 tensor" if len(pair.keys) == 1 else f"{len(pair.keys):,} tensors"
    return Fix(f"{count} of the same names and shapes", f'rename={{r"{pattern}": "{target}"}}', "unsafe")


def _mismatch_message(members: list[Shapes], keys: Sequence[str]) -> str:
    have, want = members[0].have, members[0].want
    if all(one.have == one.want for one in members):
        return f"{named(keys)} cannot be adapted as `adapt` says"
    if len(dict.fromkeys((one.have, one.want) for one in members)) == 1:
        return f"{named(keys)} is {shape_text(have)} in the checkpoint and {shape_text(want)} in the model"
    first = members[0].target
    shapes = f"{shape_text(have)} in the checkpoint and {shape_text(want)} in the model"
    return f"{named(keys)} differ in shape: `{first}` is {shapes}"
