"""The stages of a model, from its input to its head: the unit of gradual unfreezing and of learning rates by depth.

A model's children are its stages where there are six or more that hold tensors: `conv1`, `layer1` … `layer4`, `fc` of
a ResNet.  Where there are fewer, the one with the most parameters is replaced by its own children until there are: the
`features` of a MobileNet become its blocks, the `encoder` of a ViT its layers.  The order is that of registration,
which is that of execution in every model that is written from top to bottom.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from loadstone.keys import parent
from loadstone.model.schema import Place, Walk
from loadstone.model.statistics import has_statistics

_FEWEST = 6  # a ResNet has conv1, bn1, four layers and fc


@dataclass(frozen=True, slots=True)
class Stage:
    """Consecutive modules that freeze and unfreeze together, and the tensors in them."""

    names: tuple[str, ...]
    places: tuple[Place, ...]

    @property
    def name(self) -> str:
        """What it is called: by its first module, "" for a model that is a single layer."""
        return self.names[0]


def stages_of(walked: Walk) -> list[Stage]:
    """The stages in the order of registration, the head last.

    A parameter that a module holds beside its children (a class token) goes with the first of them, and a stage that
    is nothing but a norm goes with the stage before it.
    """
    nodes = set(_nodes(walked))
    found: dict[str, list[Place]] = {}
    waiting: list[Place] = []
    for place in walked.places:
        waiting.append(place)
        node = parent(place.key)
        while node and node not in nodes:
            node = parent(node)
        if node in nodes:
            found.setdefault(node, []).extend(waiting)
            waiting = []
    if waiting:  # tensors of a module whose children hold none
        found.setdefault(next(reversed(found), ""), []).extend(waiting)
    stages: list[Stage] = []
    for name, places in found.items():
        if stages and all(is_norm(place.module) for place in places):
            last = stages.pop()
            stages.append(Stage((*last.names, name), (*last.places, *places)))
        else:
            stages.append(Stage((name,), tuple(places)))
    return stages


def is_norm(module: nn.Module) -> bool:
    """A normalising layer: LayerNorm, BatchNorm2d, LlamaRMSNorm, or anything with running statistics."""
    return "Norm" in type(module).__name__ or has_statistics(module)


def _nodes(walked: Walk) -> list[str]:
    """Paths of the modules that the model is cut into."""
    elements: dict[str, int] = {}
    for place in walked.places:
        size = place.tensor.numel() if place.kind == "parameter" else 0
        path = parent(place.key)
        elements[path] = elements.get(path, 0) + size
        while path:
            path = parent(path)
            elements[path] = elements.get(path, 0) + size
    children: dict[str, list[str]] = {}
    for path, _ in walked.modules:
        if path and path in elements:
            children.setdefault(parent(path), []).append(path)
    nodes = [""]
    while len(nodes) < _FEWEST:
        largest = max((node for node in nodes if node in children), key=elements.__getitem__, default=None)
        if largest is None:
            break
        at = nodes.index(largest)
        nodes[at : at + 1] = children[largest]
    return nodes
