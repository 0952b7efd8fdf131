"""What a checkpoint says about its optimizer: the state, and the names, shapes and order of the parameters beside it.

How the file's names become the model's is decided by the plan for the weights, so that a prefix, a renamed layer, a
tied parameter or a joined one means the same for a parameter and for its momentum.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from loadstone.checkpoint import Checkpoint
from loadstone.errors import Diagnostic, Fix, MatchError
from loadstone.matching.plan import Plan
from loadstone.model.load import plan as plan_weights
from loadstone.tensors import TensorInfo
from loadstone.training.layouts import Part, find_parts
from loadstone.training.optimizer_names import model_names
from loadstone.training.optimizer_rearranging import Move, used_twice

# Formats that keep the keys of a state dict in its order; safetensors sorts them by dtype and name, DCP by name.
_IN_ORDER = frozenset({"torch-zip", "torch-legacy", "torch-tar", "torchscript"})


# What else a plan may do to weights of the right shape; moments of numbers that are computed cannot be moved along.
_COMPUTED = {"call": "an adapter computes its weights", "migrate": "the model's own hook computes its weights"}


@dataclass(frozen=True, slots=True)
class FileFacts:
    """What `plan_optimizer` wants to know of a file; its arguments of these names say more.

    Attributes:
        moves: by the model's name, how a parameter is made of others of the file.
        changed: why state is not carried over, by name on either side, where weights change on the way.
    """

    saved: Any
    file_names: tuple[str, ...] | None
    file_shapes: Mapping[str, tuple[int, ...]]
    file_dtypes: Mapping[str, str]
    is_defined_order: bool
    renames: Mapping[str, str]
    moves: Mapping[str, Move]
    changed: Mapping[str, str]


def facts_of(
    checkpoint: Checkpoint, model: nn.Module, *, part: str | None = None, weights: Plan | None = None
) -> FileFacts:
    """The optimizer's state in the checkpoint and the names beside it; tensors are not read.

    Args:
        checkpoint: open, and kept open until the plan was applied.
        model: whose names are wanted.
        part: the name or place of the optimizer, where the file has several.
        weights: the plan for the model's weights from that file, where it has other options than none.

    Raises MatchError (optimizer-invalid, ambiguous-part) where the checkpoint has no optimizer, or several.
    """
    found = _chosen(find_parts(checkpoint.tree, checkpoint.sets).all("optimizer"), part, checkpoint.name)
    if weights is None and checkpoint.sets:
        weights = plan_weights(model, checkpoint, strict=False)
    if weights is None:
        return FileFacts(found.value, None, {}, {}, checkpoint.format in _IN_ORDER, {}, {}, {})
    facts = facts_beside(found.value, model, weights)
    return replace(
        facts, file_names=_distinct(weights.sources) or None, is_defined_order=checkpoint.format in _IN_ORDER
    )


def facts_beside(saved: Any, model: nn.Module, weights: Plan) -> FileFacts:
    """What the plan for the weights says about an optimizer's state that was saved beside them."""
    names, infos = model_names(model), weights.sources
    shapes = {key: info.shape for key, info in infos.items()}
    dtypes = {key: info.dtype for key, info in infos.items()}
    renames: dict[str, str] = {}
    moves: dict[str, Move] = {}
    changed: dict[str, str] = {}
    for each in weights.actions:
        composed = next((op.text for op in each.ops if op.name == "compose"), None)
        computed = next((_COMPUTED[op.name] for op in each.ops if op.name in _COMPUTED), None)
        if each.target is not None and computed is not None:
            changed[each.target] = computed
        elif each.target is not None and composed is not None:
            moves[names.first(each.target) or each.target] = Move(weights.compositions[each.target], composed)
        if each.source is None:
            continue
        if each.target is not None and composed is None and computed is None:
            renames[each.source] = each.target
        elif each.target is not None or each.status in ("joined", "ambiguous", "unexpected"):
            renames.setdefault(each.source, "")
            if computed is not None:
                changed.setdefault(each.source, computed)
    moves = {name: move for name, move in moves.items() if name in names.parameters}
    copied = used_twice((move.assignment for move in moves.values()), shapes)
    for name, move in [*moves.items()]:
        if copied.intersection(taken.key for taken in move.assignment.sources):
            del moves[name]
            changed[name] = "its weights go to several parameters, its state to none"
    return FileFacts(saved, None, shapes, dtypes, False, renames, moves, changed)


def _distinct(infos: Mapping[str, TensorInfo]) -> tuple[str, ...]:
    """The keys, of those that are the same memory the first: of tied parameters the optimizer has one."""
    first: dict[tuple[object, ...], str] = {}
    for key, info in infos.items():
        view = (key,) if info.storage is None else (id(info.storage), info.offset, info.shape, info.stride, info.dtype)
        first.setdefault(view, key)
    return tuple(first.values())


def _chosen(found: tuple[Part, ...], part: str | None, name: str) -> Part:
    wanted = [each for each in found if part is None or part in (each.place, each.name)]
    if len(wanted) == 1:
        return wanted[0]
    if not found:
        raise MatchError(Diagnostic("optimizer-invalid", f"`{name}` holds no state of an optimizer"))
    message = f"`{name}` holds {len(found)} optimizers" + ("" if part is None else f", and {part!r} names none of them")
    raise MatchError(
        Diagnostic(
            "ambiguous-part",
            message,
            tuple(("has", each.place) for each in found),
            tuple(Fix(f"take `{each.name}`", f'part="{each.place}"') for each in found),
        )
    )
