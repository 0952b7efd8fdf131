"""Layers: tensors that belong together become one node, in one canonical form.

A convolution and a batch norm can never exchange one tensor when the node, not the tensor, is what gets matched: a
node is a path with roles (weight, bias, mean, var ...), and its signature is what roles have which shapes.  The
canonical form makes signatures comparable across implementations:

- axes of length one are dropped: a 1×1 convolution is a linear layer; but 1×3 stays another kernel than 3×1
- weights stored (in, out) are turned: `kernel` by the convention of TensorFlow and flax, others where the length of
  the bias says so; a square matrix takes the side that all others of its block prove
- parts of a projection (q, k, v; the gates of a recurrent cell) may be joined, see fusing

Each canonical tensor keeps the pieces it was made of, so that an assignment can be written in the files' own keys.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

from loadstone.matching.structure.arithmetic import Sum
from loadstone.matching.structure.gathering import gathered
from loadstone.matching.structure.items import Item
from loadstone.matching.structure.steps import Permute, Reshape, Step
from loadstone.matching.structure.words import Path, holders


@dataclass(frozen=True, slots=True)
class Piece:
    """A stored tensor as rows of a canonical one."""

    item: Item
    rows: int
    turning: tuple[int, ...] = ()  # axes of `middle` in canonical order, where it is stored with the output axis last
    middle: tuple[int, ...] = ()  # the stored shape, with the axes of outputs in one and those of inputs
    made_by: Sum | None = None  # of the tensor and those beside it
    beside: tuple[Item, ...] = ()
    skipped: int = 0  # rows before it that are stored nowhere

    @property
    def turned(self) -> bool:
        return bool(self.turning)

    @property
    def keys(self) -> list[str]:
        return [item.key for item in (self.item, *self.beside)]

    def to_canonical(self, shape: tuple[int, ...]) -> tuple[Step, ...]:
        steps: list[Step] = []
        if self.turned:
            if self.item.shape != self.middle:
                steps.append(Reshape(self.middle))
            steps.append(Permute(self.turning))
        if steps or self.item.shape != shape:
            steps.append(Reshape(shape))
        return tuple(steps)

    def from_canonical(self) -> tuple[Step, ...]:
        """Steps from the canonical shape to the stored one."""
        steps: list[Step] = []
        if self.turned:
            steps.append(Reshape(tuple(self.middle[dim] for dim in self.turning)))
            steps.append(Permute(tuple(self.turning.index(dim) for dim in range(len(self.turning)))))
        return (*steps, Reshape(self.item.shape))


@dataclass(frozen=True, slots=True)
class Part:
    """One canonical tensor of a layer: pieces stacked along the first axis."""

    shape: tuple[int, ...]
    pieces: tuple[Piece, ...]


Signature = tuple[tuple[str, tuple[int, ...]], ...]


@dataclass(frozen=True, slots=True)
class Layer:
    path: Path
    text: str
    parts: dict[str, Part]  # role → tensor
    assumed: str = ""  # what joining its parts took for granted; to be asked

    signature: Signature = field(init=False)  # a tensor that stands alone has no role in it

    def __post_init__(self) -> None:
        shapes = sorted((role, part.shape) for role, part in self.parts.items() if role != "count")
        signature = (("", shapes[0][1]),) if len(shapes) == 1 else tuple(shapes)
        object.__setattr__(self, "signature", signature)

    @property
    def elements(self) -> int:
        return sum(math.prod(part.shape) for role, part in self.parts.items() if role != "count")


def layers(items: Iterable[Item]) -> list[Layer]:
    """The layers of a state dict, in order of first appearance."""
    found = gathered(items)
    says: dict[str, set[bool]] = {}  # block → orientations that biases prove in it
    for one in found:
        proven = orientation(one.roles)
        if proven is not None:
            for scope in holders(one.text):
                says.setdefault(scope, set()).add(proven)
    made = []
    for one in found:
        turned = orientation(one.roles)
        if turned is None:
            evidence = next((says[scope] for scope in holders(one.text) if scope in says), {False})
            turned = "bias" in one.roles and _is_square(one.roles) and evidence == {True}
        parts = {role: Part(*_canonical(role, item, one.roles, turned)) for role, item in one.roles.items()}
        made.append(Layer(one.path, one.text, parts))
    return made


def orientation(roles: dict[str, Item]) -> bool | None:
    """Whether the weight is stored with its output axis last, as far as the layer itself can say."""
    weight, bias = roles.get("weight"), roles.get("bias")
    if weight is None or len(weight.shape) < 2:
        return None
    if weight.key.endswith("kernel"):
        return True
    if bias is None or len(weight.shape) != 2 or len(bias.shape) != 1 or _is_square(roles):
        return None
    rows, columns = weight.shape
    outputs = bias.shape[0]
    return None if outputs not in (rows, columns) else outputs == columns


def _is_square(roles: dict[str, Item]) -> bool:
    weight = roles.get("weight")
    return weight is not None and len(weight.shape) == 2 and weight.shape[0] == weight.shape[1]


def _canonical(
    role: str, item: Item, roles: dict[str, Item], turned: bool
) -> tuple[tuple[int, ...], tuple[Piece, ...]]:
    shape = item.shape
    if role == "weight" and turned:
        bias = roles.get("bias")
        outputs = _trailing(shape, bias.shape) if bias else 1
        if len(shape) > 3 and outputs == 1:  # height, width, in, out
            middle: tuple[int, ...] = shape
        else:
            middle = (math.prod(shape[:-outputs]), math.prod(shape[-outputs:]))
        return outputs_last(item, middle)
    if role == "bias" and len(shape) > 1 and roles.get("weight", item).key.endswith("kernel"):
        shape = (math.prod(shape),)
    shape = without_ones(shape) if role == "weight" else squeezed(shape)
    return shape, (Piece(item, shape[0] if shape else 1),)


def _trailing(weight: tuple[int, ...], bias: tuple[int, ...]) -> int:
    """How many axes at the end of a kernel are outputs: those the bias has."""
    return len(bias) if weight[-len(bias) :] == bias else 1


def squeezed(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(size for size in shape if size != 1)


def without_ones(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of a weight without axes of length one, but that of a kernel which is a strip."""
    is_strip = len(shape) == 4 and (shape[2] == 1) is not (shape[3] == 1)
    return (*squeezed(shape[:2]), *shape[2:]) if is_strip else squeezed(shape)


def outputs_last(item: Item, middle: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[Piece, ...]]:
    """The canonical form of a weight that is stored (…, inputs, outputs), a kernel's own axes before these."""
    axes = len(middle)
    return in_order(item, middle, (axes - 1, axes - 2, *range(axes - 2)))


def in_order(
    item: Item, middle: tuple[int, ...], turning: tuple[int, ...]
) -> tuple[tuple[int, ...], tuple[Piece, ...]]:
    """The canonical form of a weight whose axes are turned so."""
    canonical = without_ones(tuple(middle[axis] for axis in turning))
    return canonical, (Piece(item, canonical[0] if canonical else 1, turning, middle),)
