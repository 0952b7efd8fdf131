"""The verb `parameter_groups`: smaller learning rates for earlier stages, no weight decay for norms and biases.

Discriminative rates are from Howard and Ruder, https://arxiv.org/abs/1801.06146, section 3.1; the rule for weight decay
is that of BERT's and timm's training code: nothing of one dimension or none, nothing of a norm.
"""

from __future__ import annotations

import math
from typing import Any

from torch import nn

from loadstone.errors import Diagnostic, RecipeError
from loadstone.matching.selection import Patterns, unused_option
from loadstone.model.freezing import Where, checked_walk, patterns_of
from loadstone.model.stages import Stage, is_norm, stages_of


def parameter_groups(
    model: nn.Module, *, lr: float, decay: float = 1.0, weight_decay: float | None = None, no_decay: Where = ()
) -> list[dict[str, Any]]:
    """The parameters that train, as groups for any optimizer of torch.optim, from the head back to the input.

    The head learns at `lr`, the stage before it at `lr * decay`, the one before that at `lr * decay**2`, and so on;
    frozen stages count, so that a stage keeps its rate while others are unfrozen.  Each stage gives up to two groups:
    `layer4`, and `layer4 (no weight decay)` for its norms, biases and whatever `no_decay` names.

    Args:
        model: a module with some parameters that need gradients.
        lr: learning rate of the head.
        decay: factor from a stage to the one before it, in (0, 1].
        weight_decay: for the first kind of groups; None leaves it to the optimizer.
        no_decay: globs over the model's keys.

    Returns a list of dicts with "name", "params", "lr" and "weight_decay".

    Raises RecipeError (invalid-option, unused-option, nothing-to-train) and what `freeze` raises for the model.
    """
    _check("lr", lr, 0, math.inf)
    _check("decay", decay, 0, 1)
    _check("weight_decay", 0.0 if weight_decay is None else weight_decay, 0, math.inf, with_least=True)
    walked = checked_walk(model)
    keys = [place.key for place in walked.places]
    spared = Patterns(patterns_of("no_decay", no_decay), keys)
    if spared.unused:
        raise RecipeError(*(unused_option("no_decay", pattern, keys) for pattern in spared.unused))
    seen: set[int] = set()
    groups: list[dict[str, Any]] = []
    for depth, stage in enumerate(reversed(stages_of(walked))):
        name, rate = stage.name or type(model).__name__, lr * decay**depth
        decayed, others = _split(stage, spared, seen)
        if decayed:
            group: dict[str, Any] = {"name": name, "params": decayed, "lr": rate}
            groups.append(group if weight_decay is None else {**group, "weight_decay": weight_decay})
        if others:
            groups.append({"name": f"{name} (no weight decay)", "params": others, "lr": rate, "weight_decay": 0.0})
    if not groups:
        raise RecipeError(Diagnostic("nothing-to-train", "no parameter of the model needs a gradient"))
    return groups


def _split(stage: Stage, spared: Patterns, seen: set[int]) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Parameters of the stage that train: with weight decay, and without.  One seen before is left out."""
    decayed: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for place in stage.places:
        tensor = place.tensor
        if isinstance(tensor, nn.Parameter) and tensor.requires_grad and id(tensor) not in seen:
            seen.add(id(tensor))
            is_spared = tensor.ndim <= 1 or is_norm(place.module) or spared.first(place.key) is not None
            (others if is_spared else decayed).append(tensor)
    return decayed, others


def _check(option: str, value: object, least: float, most: float, *, with_least: bool = False) -> None:
    """`value` is a finite number above `least`, or at `least` where that is allowed, and at most `most`."""
    if isinstance(value, (int, float)) and math.isfinite(value):
        is_within = least <= value <= most if with_least else least < value <= most
        if is_within:
            return
    bounds = f"a number {'from' if with_least else 'above'} {least:g}" + (
        f", at most {most:g}" if most < math.inf else ""
    )
    raise RecipeError(Diagnostic("invalid-option", f"`{option}` is {value!r:.60}", (("accepted", bounds),)))
