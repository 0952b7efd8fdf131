"""Gates: which matrices stack the rows of several things, as far as shapes and neighbours can tell.

    halved    a linear layer whose outputs are halved, the one half gating the other: what leads back beside it takes
              half as many, and nothing takes all of them
    cells     the two matrices of a recurrent cell: as many outputs, three or four times as many as the one of them
              takes, which is the state; and nothing beside them takes all of them

In which order the rows are stacked no shape shows.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TypeAlias

from loadstone.matching.structure.layers import Layer
from loadstone.matching.structure.words import holders

_NEAR = 2  # containers around a layer in which the way back may lie: `net.0.proj` and `net.2`
_GATES = (3, 4)  # of a GRU, of an LSTM
_Matrices: TypeAlias = Mapping[str, Mapping[int, tuple[int, int]]]  # container → layer → outputs, inputs


def halved(layers: Sequence[Layer]) -> frozenset[int]:
    matrices = _matrices(layers, _NEAR)
    return frozenset(
        index for beside in matrices.values() for index, shape in beside.items() if _is_halved(shape, beside.values())
    )


def _is_halved(shape: tuple[int, int], beside: Collection[tuple[int, int]]) -> bool:
    outputs, inputs = shape
    return (
        outputs % 2 == 0
        and outputs // 2 != inputs  # k and v in one, beside the matrix behind them
        and (inputs, outputs // 2) in beside
        and all(outputs != other for _, other in beside)
    )


def cells(layers: Sequence[Layer]) -> frozenset[int]:
    found: set[int] = set()
    for beside in _matrices(layers, 1).values():
        taken = {inputs for _, inputs in beside.values()}
        by_outputs: dict[int, dict[int, int]] = {}
        for index, (outputs, inputs) in beside.items():
            by_outputs.setdefault(outputs, {})[index] = inputs
        for outputs, members in by_outputs.items():
            if len(members) == 2 and outputs not in taken and {outputs / n for n in _GATES} & {*members.values()}:
                found.update(members)
    return frozenset(found)


def _matrices(layers: Sequence[Layer], near: int) -> _Matrices:
    """Matrices that are stored as they are, by the containers around them."""
    found: dict[str, dict[int, tuple[int, int]]] = {}
    for index, layer in enumerate(layers):
        pieces = layer.parts["weight"].pieces if "weight" in layer.parts else ()
        if len(pieces) == 1 and len(pieces[0].item.shape) == len(layer.parts["weight"].shape) == 2:
            outputs, inputs = layer.parts["weight"].shape
            for container in holders(layer.text)[:near]:
                found.setdefault(container, {})[index] = (outputs, inputs)
    return found
