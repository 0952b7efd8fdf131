"""Arithmetic: what makes one tensor of several where they are not joined.

    scaled(v, g)                          weight_norm's: v with rows as long as g says
    spectral(w, u, v)                     spectral_norm's: w / uᵀwv, with w as a matrix of as many rows as u is long
    lengths(w)                            the g of a plain weight, whose v is the weight itself
    fold(w, γ, var; eps)                  a weight with the batch norm behind it: w·γ/√(var + eps)
    fold_bias(β, mean, γ, var, b; eps)    its bias, β + (b - mean)·γ/√(var + eps); b only where there is one
    around(q, v)                          q, as many zeros, and v: biases of q, k and v in one, where k has none

All of it is computed in float64 and rounded once.  None of it can be undone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, Literal, TypeAlias

from loadstone.matching.structure.steps import Shape

Name: TypeAlias = Literal["scaled", "spectral", "lengths", "fold", "fold_bias", "around"]

COUNTS: dict[Name, tuple[int, ...]] = {  # of tensors
    "scaled": (2,), "spectral": (3,), "lengths": (1,), "fold": (3,), "fold_bias": (4, 5), "around": (2,),
}  # fmt: skip
WORDS: dict[Name, str] = {
    "scaled": "computed, rows scaled to their lengths",
    "spectral": "computed, divided by its spectral norm",
    "lengths": "computed, the lengths of the rows",
    "fold": "computed, batch norm folded in",
    "fold_bias": "computed, batch norm folded in",
    "around": "computed, with zeros between",
}


@dataclass(frozen=True, slots=True)
class Sum:
    """One row of the table above, with its eps where it has one."""

    name: Name
    eps: float | None = None

    def after(self, shapes: Sequence[Shape]) -> Shape:
        """The shape it gives; ValueError, in words, for tensors that do not fit each other."""
        rows = shapes[0][:1]
        if self.name == "spectral":
            if shapes[1][:1] not in (shapes[0][:1], shapes[0][1:2]) or prod(shapes[0]) != prod(shapes[1] + shapes[2]):
                raise ValueError("`spectral` takes a weight and then two vectors that are as long as its matrix")
            return shapes[0]
        if not rows or any(shape[:1] != rows or max(shape[1:], default=1) != 1 for shape in shapes[1:]):
            raise ValueError(f"`{self.name}` takes a tensor and then one number for each of its rows")
        if self.name == "around":
            return (3 * rows[0],)
        return rows if self.name == "lengths" else shapes[0]

    def __call__(self, tensors: Sequence[Any]) -> Any:
        """The values, in float64."""
        first, *others = (tensor.double() for tensor in tensors)
        if self.name == "around":
            made = first.new_zeros((3, len(first)))
            made[0], made[2] = first, others[0]
            return made.reshape(-1)
        rows = (len(first), *(1 for _ in first.shape[1:]))
        if self.name == "spectral":
            left, right = others
            outputs_first = first if len(left) == len(first) else first.transpose(0, 1)  # a transposed convolution
            return first / (left * (outputs_first.reshape(len(left), -1) @ right)).sum()
        if self.name in ("scaled", "lengths"):
            lengths = (first * first).reshape((len(first), -1)).sum(1) ** 0.5
            return lengths if self.name == "lengths" else first * (others[0].reshape(-1) / lengths).reshape(rows)
        if self.name == "fold":
            gamma, variance = others
            return first * (gamma / (variance + self.eps) ** 0.5).reshape(rows)
        mean, gamma, variance, *bias = others
        return first + ((bias[0] if bias else 0) - mean) * gamma / (variance + self.eps) ** 0.5
