"""The state of an optimizer, carried over by the names of its parameters: planned as data, then put in all or nothing.

torch's `Optimizer.load_state_dict` goes by position, even where both sides carry names: after a layer was moved, added
or frozen it gives one layer the momentum of another, without a word.  `plan_optimizer` pairs parameters by name, says
for each what becomes of its state, and which hyperparameters each group gets; `OptimizerPlan.apply` then gives torch a
state in which position and name agree.

    with loadstone.open("epoch12.pth") as checkpoint:
        plan = plan_optimizer(optimizer, checkpoint, model=model, strict="transfer")
        print(plan.report())
        plan.apply()
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import torch
from torch import nn
from torch.optim import Optimizer

from loadstone.checkpoint import Checkpoint
from loadstone.errors import Diagnostic, Fix, MatchError, worst_first
from loadstone.matching.plan import Plan
from loadstone.screens.optimizer import render_optimizer
from loadstone.training.optimizer_apply import put_state
from loadstone.training.optimizer_files import facts_beside, facts_of
from loadstone.training.optimizer_groups import GroupPlan
from loadstone.training.optimizer_kinds import foreign_state, is_torchs, misfits
from loadstone.training.optimizer_matching import FileSide, Matching, OptimizerLine, Status, match
from loadstone.training.optimizer_names import ModelNames, model_names, named_state, names_of
from loadstone.training.optimizer_positions import Named, Shapes, by_position, candidates
from loadstone.training.optimizer_rearranging import Move, Rearranged
from loadstone.training.optimizer_reasons import exact_differences, hyperparameter_notes, nothing_kept
from loadstone.training.optimizer_saved import SavedOptimizer, copied, read_saved

__all__ = ["OptimizerLine", "OptimizerPlan", "Strict", "named_state", "names_of", "plan_optimizer"]

Strict = Literal["exact", "transfer"]


@dataclass(frozen=True, slots=True, eq=False)
class OptimizerPlan:
    """What becomes of an optimizer's state.

    Attributes:
        kind: the class of the optimizer.
        strict: "exact" or "transfer".
        names_from: what gives the saved parameters their names, "by name"; "" where nothing does.
        lines: one for every parameter on either side.
        groups: the hyperparameters of every group.
        diagnostics: what is to be said, worst first.
    """

    kind: str
    strict: Strict
    names_from: str
    lines: tuple[OptimizerLine, ...]
    groups: tuple[GroupPlan, ...]
    diagnostics: tuple[Diagnostic, ...]
    _optimizer: Optimizer = field(repr=False)
    _saved: SavedOptimizer = field(repr=False)
    _matching: Matching | None = field(repr=False)
    _names: tuple[str, ...] = field(repr=False)
    _parameters: list[torch.Tensor] = field(repr=False)

    @property
    def ok(self) -> bool:
        """Nothing stands against applying it."""
        return all(diagnostic.severity != "error" for diagnostic in self.diagnostics)

    def named(self, status: str) -> list[str]:
        """Names of the parameters with that status: "kept", "rearranged", "reshaped", "new" or "dropped"."""
        return [line.name for line in self.lines if line.status == status]

    def apply(self) -> None:
        """Give the optimizer its state; on any error it is as it was, to the bit.

        The tensors are copies.  Parameters that are new keep the state that the optimizer has for them.

        Raises MatchError with the plan's errors where it is not ok, and where the optimizer has other parameters than
        when the plan was made; what reading the file raises.
        """
        if not self.ok:
            raise MatchError(*(each for each in self.diagnostics if each.severity == "error"))
        parameters = _parameters(self._optimizer)
        if list(map(id, parameters)) != list(map(id, self._parameters)):
            message = "the optimizer has other parameters than when the plan was made"
            raise MatchError(Diagnostic("optimizer-invalid", message))
        if self._matching is None:
            return
        states: list[Mapping[str, Any]] = []
        for parameter, source in zip(parameters, self._matching.sources, strict=True):
            if source is None:
                states.append(dict(self._optimizer.state.get(parameter, {})))
            elif isinstance(source, Rearranged):
                states.append(source.state())
            else:
                states.append(copied(self._saved.entries[source].state))
        put_state(
            self._optimizer,
            states,
            [group.options for group in self.groups],
            self._names,
            keep_dtype=[
                is_kept or source is None
                for is_kept, source in zip(self._matching.keeps_dtype, self._matching.sources, strict=True)
            ],
            rest=copied(self._saved.extras),
            others=copied(self._saved.others),
        )

    def report(self, *, width: int = 100, color: bool = False) -> str:
        """The plan as a screen: what is kept, new and dropped, and the hyperparameters of the groups."""
        return render_optimizer(self, width=width, color=color)

    def __str__(self) -> str:
        return self.report()

    def __repr__(self) -> str:
        counts = ", ".join(f"{len(self.named(status))} {status}" for status in get_args(Status))
        return f"<OptimizerPlan {self.kind}: {counts}>"


def plan_optimizer(
    optimizer: Optimizer,
    saved: Mapping[str, Any] | Checkpoint,
    *,
    model: nn.Module,
    strict: Strict = "exact",
    part: str | None = None,
    weights: Plan | None = None,
    file_names: Sequence[str] | None = None,
    file_shapes: Mapping[str, tuple[int, ...]] | None = None,
    file_dtypes: Mapping[str, str] | None = None,
    is_defined_order: bool = True,
    renames: Mapping[str, str] | None = None,
    saved_names: Sequence[Sequence[str]] | None = None,
) -> OptimizerPlan:
    """What becomes of the optimizer's state; nothing is changed, and of a file nothing is read but headers.

    Args:
        optimizer: the live one.
        saved: an open Checkpoint, or a saved optimizer: its state dict, or that part of a Checkpoint's tree.
        model: whose parameters it optimizes.
        strict: "exact" refuses every difference, with a list; "transfer" carries over by name what fits.
        part: which optimizer of a Checkpoint, where it has several: its name or place.
        weights: the plan by which the model got its weights from that file, where it has other options than none: state
            goes where they go.  Of weights that are joined, the step counts of the parts are read and compared.
        file_names: the keys of the model's state dict in the file, in its order; needed where `saved` has no names.
        file_shapes, file_dtypes: of these, as far as they are known.
        is_defined_order: that order is the one in which the model defined them; False for safetensors, which sorts.
        renames: the model's name for a name of the file, where they differ.
        saved_names: the names in every saved group, from somebody who knows them.

    The arguments from `file_names` to `renames` are what a Checkpoint says by itself; given as well, they win.

    Raises MatchError (optimizer-invalid) where `saved` is or has no optimizer's state, (ambiguous-part) where it has
    several.
    """
    moves: Mapping[str, Move] = {}
    changed: Mapping[str, str] = {}
    if isinstance(saved, Checkpoint) or weights is not None:
        if isinstance(saved, Checkpoint):
            facts = facts_of(saved, model, part=part, weights=weights)
            is_defined_order = is_defined_order and facts.is_defined_order
        else:
            assert weights is not None
            facts = facts_beside(saved, model, weights)
        saved, moves, changed = facts.saved, facts.moves, facts.changed
        file_names = facts.file_names if file_names is None else file_names
        file_shapes = facts.file_shapes if file_shapes is None else file_shapes
        file_dtypes = facts.file_dtypes if file_dtypes is None else file_dtypes
        renames = facts.renames if renames is None else renames
    read = read_saved(saved)
    names = model_names(model)
    own_names = names_of(optimizer, model)
    shapes: Shapes = file_shapes or {}

    def target(name: str) -> str | None:
        renamed = (renames or {}).get(name, name)
        return names.first(renamed) or renamed or None

    def planned(
        matching: Matching | None, diagnostics: Sequence[Diagnostic], lines: tuple[OptimizerLine, ...] = ()
    ) -> OptimizerPlan:
        own = tuple(name for group in own_names for name in group)
        groups = tuple(
            GroupPlan(number, (), {key: value for key, value in group.items() if key not in ("params", "param_names")})
            for number, group in enumerate(optimizer.param_groups)
        )
        return OptimizerPlan(
            type(optimizer).__name__,
            strict,
            found.how if found.names is not None else "",
            matching.lines if matching else lines,
            matching.groups if matching else groups,
            worst_first(diagnostics),
            optimizer,
            read,
            matching,
            own,
            _parameters(optimizer),
        )

    found = _named(read, optimizer, names, target, file_names, shapes, is_defined_order, saved_names)
    foreign = foreign_state(optimizer, read)
    if foreign:
        lines = _unused(own_names, read, found, target, "the file's optimizer was of another kind")
        return planned(None, [_other_kind(optimizer, own_names, read, foreign, strict)], lines)
    if found.names is None:
        lines = _unused(own_names, read, found, target, "nothing says which state is its own")
        return planned(None, [_unnamed(optimizer, own_names, read, found)], lines)
    file = FileSide(
        read, found.names, found.how, shapes, file_dtypes or {}, tuple(map(target, found.names)), moves, changed
    )
    matching = match(optimizer, own_names, file, names)
    if strict == "exact":
        return planned(matching, exact_differences(optimizer, own_names, file, matching))
    return planned(matching, [*nothing_kept(matching), *hyperparameter_notes(matching)])


def _parameters(optimizer: Optimizer) -> list[torch.Tensor]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def _named(
    read: SavedOptimizer,
    optimizer: Optimizer,
    model: ModelNames,
    target: Callable[[str], str | None],
    file_names: Sequence[str] | None,
    shapes: Shapes,
    is_defined_order: bool,
    saved_names: Sequence[Sequence[str]] | None,
) -> Named:
    """The names of the saved parameters, from the surest source that there is."""
    if saved_names is not None:
        if tuple(map(len, saved_names)) != read.lengths():
            return Named(None, f"the names given are for groups of {[*map(len, saved_names)]}, not {[*read.lengths()]}")
        return Named(tuple(name for group in saved_names for name in group), "by the names given", 1)
    if read.names is not None:
        return Named(read.names, "by name", 1)
    if not read.entries:
        return Named((), "by name", 1)
    if file_names is None:
        return Named(None, "the state has positions only, and the file no names of parameters beside it")
    if not is_defined_order:
        return Named(None, "the state has positions only, and the names of the file are sorted")
    of_model: dict[str, str] = {}
    for name in candidates(
        file_names, lambda name: target(name) in model.parameters, lambda name: target(name) in model.buffers
    ):
        of_model.setdefault(target(name) or name, name)  # of tied parameters the optimizer has the first
    names = [name for name in of_model.values() if name in shapes]
    return by_position(read, names, shapes, is_known=is_torchs(optimizer))


def _unused(
    own_names: Sequence[Sequence[str]],
    read: SavedOptimizer,
    found: Named,
    target: Callable[[str], str | None],
    why: str,
) -> tuple[OptimizerLine, ...]:
    """Lines for a saved optimizer of which nothing is used."""
    lines = [
        OptimizerLine("new", name, None, None, number, why) for number, group in enumerate(own_names) for name in group
    ]
    live = {name for group in own_names for name in group}
    for position, entry in enumerate(read.entries):
        name = found.names[position] if found.names is not None else f"position {position}"
        if target(name) not in live:
            lines.append(OptimizerLine("dropped", name, name, entry.group, None, why))
    return tuple(lines)


def _other_kind(
    optimizer: Optimizer, own_names: Sequence[Sequence[str]], read: SavedOptimizer, foreign: Sequence[str], strict: str
) -> Diagnostic:
    wanted = ", ".join(sorted(optimizer.defaults.keys() - {"foreach", "fused", "capturable", "differentiable"}))
    fresh = tuple(
        (f"group {number}", f"{len(group):,} parameters start afresh") for number, group in enumerate(own_names)
    )
    return Diagnostic(
        "optimizer-other-kind",
        f"the file's optimizer has {', '.join(foreign)}, which means nothing to {type(optimizer).__name__}",
        evidence=(
            ("file", ", ".join(sorted(read.keys | {key for group in read.groups for key in group}))),
            ("optimizer", wanted),
            *fresh,
        ),
        level="error" if strict == "exact" else None,
    )


def _unnamed(
    optimizer: Optimizer, own_names: Sequence[Sequence[str]], read: SavedOptimizer, found: Named
) -> Diagnostic:
    """Why there are no names, and the guess that a person may make: that the optimizer was made as this one is."""
    lengths = " + ".join(map(str, read.lengths()))
    evidence = [
        ("file", f"{lengths} parameters by position"),
        ("optimizer", " + ".join(str(len(g)) for g in own_names)),
    ]
    fixes: tuple[Fix, ...] = ()
    if read.lengths() == tuple(map(len, own_names)):
        parameters = _parameters(optimizer)
        agree = sum(
            not misfits(entry.state, tuple(parameter.shape), is_exact_shape=False, known=is_torchs(optimizer))
            for entry, parameter in zip(read.entries, parameters, strict=True)
        )
        evidence.append(("in its order", f"{agree} of {len(parameters)} shapes agree"))
        if agree == len(parameters):
            fix = "if nothing was moved, frozen or regrouped since, its names are those of this optimizer"
            fixes = (Fix(fix, "saved_names=loadstone.names_of(optimizer, model)", "unsafe"),)
    message = f"the saved parameters cannot be given names: {found.how}"
    return Diagnostic("optimizer-unnamed", message, tuple(evidence), fixes)
