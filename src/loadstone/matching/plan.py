"""Plan: what a load will do, one Action for every key on both sides, before a byte is copied.

A plan is data, computed from headers alone.  The same inputs give the same plan, to the byte.  `apply` belongs to the
floor that knows modules; it is bound to the plan by whoever made it for a live module.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Literal

from loadstone.errors import Diagnostic, MatchError
from loadstone.matching.coverage import elements_filled
from loadstone.matching.live import Live
from loadstone.matching.probed import Probed, Sensitivity
from loadstone.matching.recipe import write_recipe
from loadstone.matching.schema import Schema
from loadstone.matching.steps import Rows, Step
from loadstone.matching.structure.items import Assignment, Question
from loadstone.tensors import TensorInfo

Status = Literal[
    "load",  # the source goes to the target
    "tied",  # its memory is filled by another action
    "kept",  # the target keeps the values it has, on purpose or by a rule that is named
    "dropped",  # the source is left out, on purpose or by a rule that is named
    "missing",  # a target without a source
    "joined",  # the source goes into a target beside another one, whose line names the target
    "unexpected",  # a source without a target
    "mismatched",  # source and target differ in shape, and nobody said what to do
    "ambiguous",  # more than one source for the target
]
UNSETTLED: tuple[Status, ...] = ("missing", "unexpected", "mismatched", "ambiguous")


@dataclass(frozen=True, slots=True)
class Op:
    """One change on the way from file to model.

    Attributes:
        name: "cast", "slice", "pad", "channels", "interpolate", "vocabulary", "classes", "call" (an adapter given by
            the caller), "migrate" (a module's own hook), "compose" (reshaped, turned, cut or joined), "compute" (made
            by arithmetic), "compare" (of a tied key: nothing is written, the values must equal those of `other`).
        text: in words and numbers, "float32 → float16, rounds".
        is_checked: values must be read before the first write, because the cast could break them.
        function: the callable of "call", (tensor, target_shape) -> tensor, and of "migrate", "compose" and "compute",
            (read) -> tensor, where read takes keys of the checkpoint.
        other: the checkpoint key that "compare" compares with.
        step: the exact change of "channels", "interpolate", "vocabulary" and "classes".
    """

    name: str
    text: str
    is_checked: bool = False
    function: Callable[..., object] | None = None
    other: str | None = None
    step: Step | None = None

    @property
    def keeps_own(self) -> bool:
        """Part of the target keeps the values that the model has, so that these have to be there."""
        return isinstance(self.step, Rows) and self.step.own > 0


@dataclass(frozen=True, slots=True)
class Action:
    """One line of a plan.

    Attributes:
        status: see Status.
        source: key in the checkpoint, as the file has it; None where the line is about the model alone.
        target: key in the model; None where the line is about the checkpoint alone.
        how: in a few words, what relates the two: "same key", "prefix `module.` removed", "num_batches_tracked".
        why: the reason or evidence, one clause.
        ops: what happens to the values; empty for a plain copy.
    """

    status: Status
    source: str | None
    target: str | None
    how: str
    why: str = ""
    ops: tuple[Op, ...] = ()

    def to_json(self) -> dict[str, object]:
        """Plain values, ready for json.dumps."""
        return {
            "status": self.status,
            "source": self.source,
            "target": self.target,
            "how": self.how,
            "why": self.why,
            "ops": [{"name": op.name, "text": op.text} for op in self.ops],
        }


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """How a checkpoint fits a model.

    Attributes:
        source_name, target_name: what screens call the two sides.
        actions: every key on both sides, model keys first and in the model's order, then what is left of the file.
        diagnostics: worst first.
        sources: the tensors that took part, by key in the checkpoint.
        schema: the model's side.
        weights: the name of the weight set that was used.
        recipe_options: the options the plan was made with, in the form a recipe file has them.
        rules: what a match by structure found, in few lines: {template of model keys: where their values come from}.
        compositions: the same key by key, with every step: {model key: what it is made of, in the checkpoint's keys}.
            What is computed is not among them.
        questions: what a match by structure leaves open: a key of the model and the checkpoint keys it may come from.
        admissible: log10 of the number of ways left to pair what is open; 0.0: no other pairing holds to the evidence.
    """

    source_name: str
    target_name: str
    actions: tuple[Action, ...]
    diagnostics: tuple[Diagnostic, ...]
    sources: Mapping[str, TensorInfo]
    schema: Schema
    weights: str = ""
    recipe_options: Mapping[str, object] = field(default_factory=dict)
    rules: Mapping[str, str] = field(default_factory=dict)
    compositions: Mapping[str, Assignment] = field(default_factory=dict)
    questions: tuple[Question, ...] = ()
    admissible: float = 0.0
    live: Live | None = field(default=None, repr=False)

    @property
    def ok(self) -> bool:
        """Every key is settled: `apply` will load."""
        return not any(diagnostic.severity == "error" for diagnostic in self.diagnostics)

    @property
    def missing_keys(self) -> list[str]:
        """Model keys without a source."""
        return [str(action.target) for action in self.actions if action.status == "missing"]

    @property
    def unexpected_keys(self) -> list[str]:
        """Checkpoint keys without a target."""
        return [str(action.source) for action in self.actions if action.status == "unexpected"]

    @property
    def mismatched_keys(self) -> list[str]:
        """Model keys whose source has another shape."""
        return [str(action.target) for action in self.actions if action.status == "mismatched"]

    @property
    def ambiguous_keys(self) -> list[str]:
        """Model keys with more than one source."""
        targets = (action.target for action in self.actions if action.status == "ambiguous")
        return list(dict.fromkeys(target for target in targets if target is not None))

    @property
    def loaded(self) -> list[Action]:
        """The lines that move values into the model."""
        return [action for action in self.actions if action.status == "load"]

    @property
    def filled(self) -> list[Action]:
        """The lines of model keys that get values: of their own, or with the memory they share."""
        owner = {slot.key: slot.tied_to or slot.key for slot in self.schema.slots.values()}
        written = {owner[str(action.target)] for action in self.loaded if action.target in owner}
        return [
            action
            for action in self.actions
            if action.status == "load" or (action.status == "tied" and owner[str(action.target)] in written)
        ]

    @property
    def loaded_elements(self) -> int:
        """Elements of the model that get values."""
        return sum(self.schema.slots[str(action.target)].elements for action in self.loaded)

    @property
    def loaded_nbytes(self) -> int:
        """Bytes of the checkpoint that are read for it; what is shared counts once for each key that reads it."""
        read = [action.source for action in self.actions if action.status in ("load", "joined")]
        return sum(self.sources[key].nbytes for key in read if key is not None)

    @property
    def coverage(self) -> float:
        """Share of the model's parameters, by elements, that get values; what is kept on purpose is left out."""
        by_target = {action.target: action for action in self.actions if action.target is not None}
        got, wanted = elements_filled(self.schema, by_target)
        return got / wanted if wanted else 1.0

    @property
    def groups(self) -> dict[tuple[Status, str], list[Action]]:
        """The lines by status and by how, both in the order they first come."""
        groups: dict[tuple[Status, str], list[Action]] = {}
        for action in self.actions:
            groups.setdefault((action.status, action.how), []).append(action)
        return groups

    def apply(self) -> None:
        """Load: every value into the model, or an error and the model as it was.

        Raises MatchError, with this plan, where a key is unsettled or the plan belongs to no live model; and what
        reading the file and looking at its values can raise.
        """
        if not self.ok:
            errors = [diagnostic for diagnostic in self.diagnostics if diagnostic.severity == "error"]
            codes = ", ".join(dict.fromkeys(diagnostic.code for diagnostic in errors))
            raise MatchError(
                *errors, summary=f"{self.source_name} does not fit {self.target_name} ({codes})", plan=self
            )
        self._bound().apply(self)

    def check(self, example_input: object = None, *, reference: object = None, outputs: object = None) -> Probed:
        """Prove that the model, filled by this plan, computes what another one computes; gives how far they are apart.

        Args:
            example_input: a tensor, a tuple of positional arguments or a dict of named ones; None for the input that
                the file describes, where it was written by `save(model, path, probe=…)`.
            reference: the model that the weights come from, another implementation for example.  Both are run in
                float64 (copies of them); where they part, the first module that parts is named.
            outputs: what the model should give for the input.

        Raises MatchError: probe-differs, function-differs, or no-probe where there is nothing to compare with.
        """
        if self.live is None:
            raise MatchError(Diagnostic("no-probe", f"{self.source_name} is no file with a probe in it"), plan=self)
        return self.live.check(self, example_input, reference, outputs)

    def decide(
        self, example_input: object, *, reference: object = None, outputs: object = None, forwards: int = 32
    ) -> Plan:
        """Answer what is open by running the model; gives the plan with the answers, which `recipe()` keeps.

        Copies are run in float64.  With a reference, what reaches the modules of both tells which is which; what is
        open then is tried.  Answers are taken where the output is what it should be.  Orders that no state dict shows
        are found as well: of gates, of heads, of the channels that reach a layer.

        Tensors without partner are left as they are, and the plan goes on to say so.  Where they keep the outputs
        apart, as another head does, answers are taken where all modules that both have are given the same and make
        the same.

        Args:
            example_input, reference, outputs: as for `check`; the reference holds the weights of the checkpoint.
            forwards: how often the copy may be filled and run.

        Raises MatchError: undecided where no answer is right, function-differs where nothing was open, and what `apply`
        raises where the plan cannot be applied whatever is answered.
        """
        return self._bound().decide(self, example_input, reference, outputs, forwards)

    def sensitivity(self, example_input: object) -> tuple[Sensitivity, ...]:
        """How much each open question matters for an input: how far other answers move the output.

        No other model is needed.  A copy is filled with one answer after the other, the first option for all other
        questions, and run in float64.  Where nothing moves, the question is moot for this input.

        Raises MatchError where the plan cannot be applied even with answers.
        """
        return self._bound().sensitivity(self, example_input)

    def plausibility(self) -> tuple[Diagnostic, ...]:
        """Signs in the values that tensors have changed places or were never trained; a warning for each kind.

        Every tensor that the plan loads is read once.  It proves nothing and decides nothing: most wrong matches look
        plausible, and what has no sign is no proof.
        """
        return self._bound().plausibility(self)

    def _bound(self) -> Live:
        if self.live is None:
            name = self.target_name
            raise MatchError(Diagnostic("stale-plan", f"this plan was made for {name} without a live model"), plan=self)
        return self.live

    def recipe(self) -> str:
        """The options of this plan as TOML, for `recipe=`.  Raises RecipeError where one of them is a callable."""
        return write_recipe(self.recipe_options)

    def to_json(self) -> str:
        """The whole plan as one JSON object, the same text for the same inputs."""
        return json.dumps(
            {
                "schema_version": 1,
                "source": self.source_name,
                "target": self.target_name,
                "weights": self.weights,
                "ok": self.ok,
                "missing_keys": self.missing_keys,
                "unexpected_keys": self.unexpected_keys,
                "mismatched_keys": self.mismatched_keys,
                "ambiguous_keys": self.ambiguous_keys,
                "rules": dict(self.rules),
                "questions": [asdict(question) for question in self.questions],
                "admissible": self.admissible,
                "actions": [action.to_json() for action in self.actions],
                "diagnostics": [diagnostic.to_json() for diagnostic in self.diagnostics],
            },
            indent=2,
            ensure_ascii=False,
        )

    def __repr__(self) -> str:
        unsettled = sum(action.status in UNSETTLED for action in self.actions)
        settled = len(self.actions) - unsettled
        return f"<Plan {self.source_name} into {self.target_name}: {settled} settled, {unsettled} undecided>"

    def __str__(self) -> str:
        from loadstone.screens.plan import render_plan  # loaded only where a screen is drawn

        return render_plan(self)
