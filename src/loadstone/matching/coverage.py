"""Coverage: how much of the model a plan fills, by elements, and what to say where it is little or nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from loadstone.errors import Diagnostic, Fix
from loadstone.matching.schema import Schema
from loadstone.tensors import TensorInfo

if TYPE_CHECKING:
    from loadstone.matching.plan import Action

_LEAST_SHARE = 0.30  # of the parameters' elements; a wrong architecture gives 0 to 5 %, a body without its head > 50 %


def elements_filled(schema: Schema, actions: Mapping[str, Action]) -> tuple[int, int]:
    """Elements of parameters that get values, and of all that want some: those kept on purpose are left out.

    A model without parameters is measured by its buffers.
    """
    slots = [slot for slot in schema.slots.values() if slot.kind == "parameter"] or list(schema.slots.values())
    wanted = got = 0
    for slot in slots:
        action = actions[slot.key]
        if slot.tied_to is not None or action.status == "kept":
            continue
        wanted += slot.elements
        if action.status in ("load", "tied"):
            got += slot.elements
    return got, wanted


def coverage(
    schema: Schema,
    sources: Mapping[str, TensorInfo],
    actions: Mapping[str, Action],
    fixes: tuple[Fix, ...],
    *,
    strict: bool,
) -> Iterator[Diagnostic]:
    """nothing-to-load where no tensor would be written, low-coverage where only few would."""
    got, wanted = elements_filled(schema, actions)
    evidence = (("checkpoint", f"{len(sources):,} tensors"), ("model", f"{len(actions):,} tensors"))
    if not any(action.status == "load" for action in actions.values()):
        if actions or sources:
            yield Diagnostic(
                "nothing-to-load",
                "nothing would be loaded: no tensor of the checkpoint goes to a tensor of the model",
                evidence,
                fixes,
            )
    elif got < _LEAST_SHARE * wanted:
        yield Diagnostic(
            "low-coverage",
            f"only {100 * got / wanted:.1f} % of the model's parameters have a source: probably another architecture",
            (*evidence, ("fitting", f"{got:,} of {wanted:,} elements")),
            fixes,
            level=None if strict else "warning",
        )
