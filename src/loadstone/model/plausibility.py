"""Plausibility: values that no training leaves behind, a sign that tensors have changed places or were never trained.

Flags only, which decide nothing.  Each look takes the tensors of one module and says what is odd about them; what it is
based on stands with it.  Every tensor is read once, and one module is in memory at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TypeAlias

import torch

from loadstone.errors import Diagnostic
from loadstone.keys import leaf, parent
from loadstone.matching.plan import Action
from loadstone.model.staging import Reader

Tensors: TypeAlias = Mapping[str, torch.Tensor]  # of one module, by the last name of the key
Look: TypeAlias = Callable[[str, Tensors], str]

_LEAST_MATRIX = 64  # elements; a smaller one may well be constant
_LEAST_ROWS = 16  # of a table of positions
_MOST_ROWS = 4096
_MOST_KEYS = 5  # named in a finding
_POSITION_WORDS = ("pos_", "_pos", "position")


def implausible(tensors: Iterable[tuple[str, torch.Tensor]]) -> Iterator[Diagnostic]:
    """implausible-values for each kind of oddity, with the tensors it is about.

    Args:
        tensors: by key of the model, those of one module in a row.
    """
    found: dict[str, list[tuple[str, str]]] = {}
    counters: dict[int, list[str]] = {}
    for module, members in _modules(tensors):
        for what, look in _LOOKS.items():
            odd = look(module, members)
            if odd:
                found.setdefault(what, []).append((f"{module}.{odd}".lstrip("."), _described(members[odd])))
        count = members.get("num_batches_tracked")
        if count is not None and count.numel() == 1:
            counters.setdefault(int(count), []).append(f"{module}.num_batches_tracked")
    for what, places in found.items():
        yield _finding(what, places)
    trained = {count: keys for count, keys in counters.items() if count}
    if trained and any(count % min(trained) for count in trained):  # a layer that is called twice counts twice
        places = [(keys[0], f"{count:,}") for count, keys in sorted(trained.items())]
        yield _finding("batch norms of one model have counted different numbers of batches", places)


def read(actions: Iterable[Action], reader: Reader) -> Iterator[tuple[str, torch.Tensor]]:
    """What a plan puts into each key of the model, before it is cast."""
    for action in actions:
        made = next((op.function for op in action.ops if op.name in ("migrate", "compose", "compute")), None)
        if action.target is None or (made is None and action.source is None):
            continue
        value = reader.look(str(action.source)) if made is None else made(reader.read)
        if isinstance(value, torch.Tensor) and value.layout == torch.strided and not value.is_quantized:
            yield action.target, value.detach()


def conflicting(actions: Iterable[Action], reader: Reader) -> Iterator[Diagnostic]:
    """implausible-values for tensors that are one in the model and differ in the checkpoint."""
    compared = ((str(action.source), op.other) for action in actions for op in action.ops if op.other is not None)
    places = [pair for pair in compared if not torch.equal(*(reader.look(key) for key in pair))]
    if places:
        yield _finding("one tensor in the model is two different ones in the checkpoint", places)


def _modules(tensors: Iterable[tuple[str, torch.Tensor]]) -> Iterator[tuple[str, dict[str, torch.Tensor]]]:
    module: str | None = None
    members: dict[str, torch.Tensor] = {}
    for key, tensor in tensors:
        if parent(key) != module:
            if module is not None:
                yield module, members
            module, members = parent(key), {}
        members[leaf(key)] = tensor
    if module is not None:
        yield module, members


# Looks: (module, its tensors) → the last name of the odd one, or "" --------------------------------------------------


def _bad_variance(module: str, members: Tensors) -> str:
    """A variance is no negative number."""
    variance = members.get("running_var")
    if variance is None or not variance.numel():
        return ""
    values = variance.double()
    return "running_var" if not bool(values.isfinite().all()) or bool((values < 0).any()) else ""


def _exchanged(module: str, members: Tensors) -> str:
    """Norms begin with weight 1 and bias 0: weights stay positive, nearly all, and biases of both signs around 0."""
    weight, bias = members.get("weight"), members.get("bias")
    if weight is None or bias is None or weight.dim() != 1 or weight.shape != bias.shape or weight.numel() < 2:
        return ""
    is_like_bias = float(weight.min()) < 0 < float(weight.max()) and float(weight.double().abs().mean()) < 0.2
    is_like_weight = float(bias.min()) > 0 and float((bias.double() - 1).abs().mean()) < 0.3
    return "weight" if is_like_bias and is_like_weight else ""


def _magnitudes(module: str, members: Tensors) -> str:
    """weight_norm begins with g = ‖v‖, and both are trained with one learning rate."""
    names = next((pair for pair in _WEIGHT_NORM if all(name in members for name in pair)), None)
    if names is None:
        return ""
    magnitude, direction = (members[name].double() for name in names)
    axes = [axis for axis, size in enumerate(magnitude.shape) if size == 1]
    if magnitude.dim() != direction.dim() or len(axes) == magnitude.dim():
        return ""
    norms = torch.linalg.vector_norm(direction, dim=axes, keepdim=True)
    if norms.shape != magnitude.shape:
        return ""
    ratio = float((magnitude.abs() / norms.clamp_min(1e-30)).median())
    return names[0] if not 0.01 <= ratio <= 100 else ""


_WEIGHT_NORM = (("weight_g", "weight_v"), ("original0", "original1"))


def _constant(module: str, members: Tensors) -> str:
    """A trained matrix has no two hundred equal elements."""
    for name, tensor in members.items():
        if tensor.dim() < 2 or tensor.numel() < _LEAST_MATRIX or not tensor.is_floating_point():
            continue
        if sum(size > 1 for size in tensor.shape) >= 2 and bool((tensor == tensor.flatten()[0]).all()):
            return name
    return ""


def _shuffled(module: str, members: Tensors) -> str:
    """Learned positions are more like their neighbours than like others; tables of words are not looked at."""
    for name, tensor in members.items():
        if not any(word in f"{module}.{name}".lower() for word in _POSITION_WORDS):
            continue
        table = tensor.squeeze(0) if tensor.dim() == 3 and tensor.shape[0] == 1 else tensor
        if table.dim() == 2 and table.is_floating_point() and len(table) >= _LEAST_ROWS and table.shape[1] > 1:
            rows = table[:_MOST_ROWS].double()
            rows = torch.nn.functional.normalize(rows - rows.mean(0), dim=1)
            half = len(rows) // 2
            near, far = (float((rows[step:] * rows[:-step]).sum(1).mean()) for step in (1, half))
            if near < far - 6 / (half * rows.shape[1]) ** 0.5:  # six times what chance makes of random rows
                return name
    return ""


_LOOKS: Mapping[str, Look] = {
    "a running variance is negative or no number": _bad_variance,
    "weight and bias of a norm look exchanged": _exchanged,
    "magnitude and direction of a normed weight do not belong together": _magnitudes,
    "a matrix has one value everywhere": _constant,
    "neighbours in a table of positions are less alike than strangers": _shuffled,
}


def _described(tensor: torch.Tensor) -> str:
    values = tensor.double()
    if not values.numel():
        return "empty"
    return f"from {float(values.min()):.3g} to {float(values.max()):.3g}, on average {float(values.mean()):.3g}"


def _finding(what: str, places: list[tuple[str, str]]) -> Diagnostic:
    more = f" ({len(places):,} places)" if len(places) > 1 else ""
    return Diagnostic(
        "implausible-values", what + more, tuple(places[:_MOST_KEYS]), keys=tuple(key for key, _ in places)
    )
