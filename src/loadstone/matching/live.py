"""Live: what a plan can do because it was made for a live module.  Implemented in model/bound.py, which knows torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from loadstone.errors import Diagnostic
from loadstone.matching.probed import Probed, Sensitivity

if TYPE_CHECKING:
    from loadstone.matching.plan import Plan


class Live(Protocol):
    """A module and the open source of its values; every method takes the plan that is bound to it.

    What each one gives and raises is said at the method of Plan that calls it.
    """

    def apply(self, plan: Plan) -> None: ...

    def check(self, plan: Plan, example_input: object, reference: object, outputs: object) -> Probed: ...

    def decide(self, plan: Plan, example_input: object, reference: object, outputs: object, forwards: int) -> Plan: ...

    def sensitivity(self, plan: Plan, example_input: object) -> tuple[Sensitivity, ...]: ...

    def plausibility(self, plan: Plan) -> tuple[Diagnostic, ...]: ...
