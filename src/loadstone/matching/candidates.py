"""Candidate: a tensor of the checkpoint on its way to a key of the model, and the words for shapes and tensors."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from loadstone.keys import leaf
from loadstone.matching.schema import Slot
from loadstone.tensors import TensorInfo


@dataclass(frozen=True, slots=True)
class Candidate:
    """One tensor of the checkpoint while a plan is made.

    Attributes:
        key: its key in the checkpoint.
        name: the model's key it goes to as far as is known; the checkpoint's own key to begin with.
        info: what it is.
        how: what made `key` into `name`.
        why: the evidence for that, one clause.
    """

    key: str
    name: str
    info: TensorInfo
    how: str = "same key"
    why: str = ""

    def renamed(self, name: str, how: str, why: str = "") -> Candidate:
        """The same tensor under another name; what was done before stays said."""
        return replace(self, name=name, how=how if self.how == "same key" else f"{self.how}, {how}", why=why)


def by_name(candidates: Iterable[Candidate]) -> dict[str, list[Candidate]]:
    """Candidates by the name they go to, in their order; more than one at a name is a conflict."""
    claims: dict[str, list[Candidate]] = {}
    for candidate in candidates:
        claims.setdefault(candidate.name, []).append(candidate)
    return claims


# Counters that tools add to a module and its children: last token of the key → who leaves it there.
_COUNTERS: Mapping[str, str] = {
    "total_ops": "left by thop",  # thop/profile.py register_buffer('total_ops', torch.zeros(1, dtype=torch.float64))
    "total_params": "left by thop",
}
_ROOT_COUNTERS: Mapping[str, str] = {
    "n_averaged": "left by torch.optim.swa_utils.AveragedModel",
}


def counter_origin(key: str, tensor: TensorInfo | Slot) -> str | None:
    """Who left this tensor behind, where it is a tool's counter of one element; None for everything else."""
    name = leaf(key)
    if name in _COUNTERS:
        origin = _COUNTERS[name]
    elif key in _ROOT_COUNTERS:
        origin = _ROOT_COUNTERS[key]
    else:
        return None
    return origin if tensor.elements == 1 else None


def shape_text(shape: tuple[int, ...]) -> str:
    """`64 × 3 × 7 × 7`; a tensor without dimensions is a `scalar`."""
    return " × ".join(map(str, shape)) if shape else "scalar"


def tensor_text(key: str, tensor: TensorInfo | Slot) -> str:
    """One row of evidence: key, shape and dtype."""
    return f"{key}   {shape_text(tensor.shape)}   {tensor.dtype}"
