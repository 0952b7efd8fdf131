"""Plan by names: which tensor of the file goes to which key of the model, and why."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from loadstone.errors import Diagnostic, worst_first
from loadstone.matching.migration import Migrate
from loadstone.matching.options import Options
from loadstone.matching.plan import Action, Plan
from loadstone.matching.schema import Schema
from loadstone.tensors import TensorInfo

_NONE: Mapping[str, TensorInfo] = {}
_NO_METADATA: Mapping[str, Mapping[str, object]] = {}


def make_plan(
    schema: Schema,
    sources: Mapping[str, TensorInfo],
    options: Options,
    *,
    source_name: str,
    target_name: str,
    weights: str = "",
    not_for_model: Mapping[str, TensorInfo] = _NONE,
    notes: Iterable[Diagnostic] = (),
    metadata: Mapping[str, Mapping[str, object]] = _NO_METADATA,
    migrate: Migrate | None = None,
) -> Plan:
    """How `sources` fit `schema`; computed from headers, deterministic, linear in the number of keys."""
    found = list(notes)
    actions: list[Action] = []
    for key, slot in schema.slots.items():
        info = sources.get(key)
        if info is None and slot.tied_to is not None:
            actions.append(Action("tied", None, key, f"tied to `{slot.tied_to}`"))
        elif info is None:
            actions.append(Action("missing", None, key, "no source"))
            found.append(Diagnostic("missing-key", f"no source for `{key}`", keys=(key,)))
        elif info.shape != slot.shape:
            actions.append(Action("mismatched", key, key, "same key"))
            found.append(Diagnostic("shape-mismatch", f"`{key}` has two shapes", keys=(key,)))
        else:
            actions.append(Action("load", key, key, "same key"))
    for key in sources:
        if key not in schema.slots:
            actions.append(Action("unexpected", key, None, "no such key in the model"))
            found.append(Diagnostic("unexpected-key", f"the model has no `{key}`", keys=(key,)))
    actions += [Action("dropped", key, None, "not for a model") for key in not_for_model]
    return Plan(source_name, target_name, tuple(actions), worst_first(found), sources, schema, weights)
