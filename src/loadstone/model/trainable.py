"""The verb `trainable`: what of a model trains and what is frozen, stage by stage."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from loadstone.model.freezing import checked_walk
from loadstone.model.schema import Place
from loadstone.model.stages import stages_of
from loadstone.model.statistics import has_statistics, is_held


@dataclass(frozen=True, slots=True)
class Part:
    """One stage of a model.

    Attributes:
        names: its modules.
        trained, frozen: elements of its parameters that need gradients, and that need none.
        held: norms that keep their running statistics.
        moving: frozen norms whose statistics a forward pass in training mode would change all the same.
    """

    names: tuple[str, ...]
    trained: int
    frozen: int
    held: tuple[str, ...]
    moving: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Trainable:
    """A model by stages, from its input to its head; `print` shows it."""

    model: str
    parts: tuple[Part, ...]

    @property
    def trained(self) -> int:
        """Elements of all parameters that need gradients."""
        return sum(part.trained for part in self.parts)

    @property
    def frozen(self) -> int:
        """Elements of all parameters that need none."""
        return sum(part.frozen for part in self.parts)

    def __str__(self) -> str:
        from loadstone.screens.trainable import render_trainable

        return render_trainable(self)


def trainable(model: nn.Module) -> Trainable:
    """What trains and what is frozen in each stage of `model`, and which norms keep their statistics.

    Shared memory counts once, where it comes first.  Raises what `freeze` raises for the model.
    """
    walked = checked_walk(model)
    path_of = {id(module): path for path, module in reversed(walked.modules)}
    counted: dict[object, str] = {}
    for place, identity in zip(walked.places, walked.identities, strict=True):
        counted.setdefault(identity, place.key)
    firsts = set(counted.values())
    parts = []
    for stage in stages_of(walked):
        own = [place for place in stage.places if place.kind == "parameter" and place.key in firsts]
        norms = {id(place.module): place.module for place in stage.places if has_statistics(place.module)}
        parts.append(
            Part(
                stage.names,
                _elements(own, needs_gradient=True),
                _elements(own, needs_gradient=False),
                tuple(path_of[each] for each, norm in norms.items() if is_held(norm)),
                tuple(path_of[each] for each, norm in norms.items() if not is_held(norm) and _is_frozen(norm)),
            )
        )
    return Trainable(type(model).__name__, tuple(parts))


def _elements(places: list[Place], *, needs_gradient: bool) -> int:
    return sum(place.tensor.numel() for place in places if place.tensor.requires_grad is needs_gradient)


def _is_frozen(norm: nn.Module) -> bool:
    """It has parameters, and none of them needs a gradient."""
    own = [parameter for parameter in norm._parameters.values() if parameter is not None]
    return bool(own) and not any(parameter.requires_grad for parameter in own)
