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
from loadstone.matching.plan import Action, Plan
from loadstone.matching.structure import Assignment
from loadstone.matching.structure.items import Taken
from loadstone.model.load import plan as plan_weights
from loadstone.tensors import TensorInfo
from loadstone.training.layouts import Part, find_parts
from loadstone.training.optimizer_names import model_names
from loadstone.training.optimizer_rearranging import Move, used_twice

# Formats that keep the keys of a state dict in its order; safetensors sorts them by dtype and name, DCP by name.
_IN_ORDER = frozenset({"torch-zip", "torch-legacy", "torch-tar", "torchscript"})


# What a plan may do to weights that leaves the numbers themselves; moments are not moved along with anything else.
_AS_THEY_ARE = frozenset({"cast", "compare", "compose"})


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
        facts,
        file_names=tuple(dict.fromkeys(_firsts(weights.sources).values())) or None,
        is_defined_order=checkpoint.format in _IN_ORDER,
    )


def facts_beside(saved: Any, model: nn.Module, weights: Plan) -> FileFacts:
    """What the plan for the weights says about an optimizer's state that was saved beside them."""
    names, infos = model_names(model), weights.sources
    shapes = {key: info.shape for key, info in infos.items()}
    made = {
        str(each.target): _made(each, weights)
        for each in weights.loaded
        if each.source is not None and names.first(str(each.target)) is not None
    }
    copied = used_twice(made.values(), shapes, _firsts(infos))
    renames: dict[str, str] = {}
    moves: dict[str, Move] = {}
    changed: dict[str, str] = {}
    for each in weights.actions:
        target, assignment = each.target, made.get(each.target or "")
        composed = next((op.text for op in each.ops if op.name == "compose"), None)
        computed = _computed(each, weights)
        if assignment is not None and copied.intersection(taken.key for taken in assignment.sources):
            computed = "its weights go to several parameters, its state to none"
        if target is not None and computed is not None:
            changed[names.first(target) or target] = computed
        elif assignment is not None and composed is not None:
            moves[names.first(assignment.target) or assignment.target] = Move(assignment, composed)
        if each.source is None:
            continue
        if target is not None and composed is None and computed is None:
            renames[each.source] = target
        elif target is not None or each.status in ("joined", "ambiguous", "unexpected"):
            renames.setdefault(each.source, "")
            if computed is not None:
                changed.setdefault(each.source, computed)
    dtypes = {key: info.dtype for key, info in infos.items()}
    return FileFacts(saved, None, shapes, dtypes, False, renames, moves, changed)


def _made(action: Action, weights: Plan) -> Assignment:
    """What a parameter is made of."""
    plain = Assignment(str(action.target), (Taken(str(action.source)),), (), "exact", action.how)
    return weights.compositions.get(plain.target, plain)


def _computed(action: Action, weights: Plan) -> str | None:
    """Why state cannot follow, where other numbers are made; where another shape says so better, that is left to it."""
    is_told = action.target in weights.compositions  # by which steps
    known = _AS_THEY_ARE if is_told else _AS_THEY_ARE - {"compose"}
    found = next((op.text for op in action.ops if op.name not in known), None)
    if found is None or action.source is None or action.target is None:
        return None
    is_reshaped = weights.sources[action.source].shape != weights.schema.slots[action.target].shape
    if is_reshaped and not is_told:
        return None
    return f"its weights are computed ({found}), its state is not"


def _firsts(infos: Mapping[str, TensorInfo]) -> dict[str, str]:
    """By key, the first key of the same memory: of tied parameters the optimizer has one."""
    first: dict[tuple[object, ...], str] = {}
    found = {}
    for key, info in infos.items():
        view = (key,) if info.storage is None else (id(info.storage), info.offset, info.shape, info.stride, info.dtype)
        found[key] = first.setdefault(view, key)
    return found


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
