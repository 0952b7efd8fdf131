"""What a checkpoint says about its optimizer: the state, and the names, shapes and order of the parameters beside it.

How the file's names become the model's is decided by the plan for the weights, so that a prefix, a renamed layer or a
tied parameter means the same for a parameter and for its momentum.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from loadstone.checkpoint import Checkpoint
from loadstone.errors import Diagnostic, Fix, MatchError
from loadstone.matching.plan import Action, Plan
from loadstone.model.load import plan as plan_weights
from loadstone.training.layouts import Part, find_parts

# Formats that keep the keys of a state dict in its order; safetensors sorts them by dtype and name, DCP by name.
_IN_ORDER = frozenset({"torch-zip", "torch-legacy", "torch-tar", "torchscript"})


@dataclass(frozen=True, slots=True)
class FileFacts:
    """What `plan_optimizer` wants to know of a file; its arguments of these names say more."""

    saved: Any
    file_names: tuple[str, ...] | None
    file_shapes: Mapping[str, tuple[int, ...]]
    file_dtypes: Mapping[str, str]
    is_defined_order: bool
    renames: Mapping[str, str]
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
    infos = checkpoint.weights if checkpoint.sets else {}
    made = weights if weights is not None or not infos else plan_weights(model, checkpoint, strict=False)
    actions = made.actions if made is not None else ()
    renames, changed = _renamed(actions)
    return FileFacts(
        found.value,
        tuple(infos) or None,
        {key: info.shape for key, info in infos.items()},
        {key: info.dtype for key, info in infos.items()},
        checkpoint.format in _IN_ORDER,
        renames,
        changed,
    )


def _renamed(actions: Iterable[Action]) -> tuple[dict[str, str], dict[str, str]]:
    """The model's name for each name of the file, "" where it has none; and why parameters on either side have none.

    The momentum of a weight that is turned, cut or joined on its way is not that of the weight in the model, and would
    fit a square one all the same.
    """
    renames: dict[str, str] = {}
    changed: dict[str, str] = {}
    for each in actions:
        composed = next((op.text for op in each.ops if op.name == "compose"), None)
        if composed is not None and each.target is not None:
            changed[each.target] = f"its weights are changed on the way ({composed}), its state is not"
        if each.source is None:
            continue
        if each.target is not None and composed is None:
            renames[each.source] = each.target
        elif each.target is not None or each.status in ("joined", "ambiguous", "unexpected"):
            renames.setdefault(each.source, "")
            if each.status == "joined" or composed is not None:
                changed.setdefault(each.source, "its weights are changed on the way, its state is not")
    return renames, changed


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
