"""Observing: what the modules of a model are given and make in one run, and where two runs part.

Copies are run, in float64 and eval mode.  Modules of two models are a pair where their tensors are: those that the one
owns come, each whole, from one module of the other, and what lies below the two is the same.  So a module of three
projections in one is no pair of a module of q alone, and a block that owns a scale is no pair of the scale.

Modules without tensors, activations and pools, have no keys to be paired by.  Those that run between two pairs are
compared in the order in which they run, where both sides run as many.
"""

from __future__ import annotations

import copy
import types
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import nn
from torch.utils._pytree import tree_leaves

from loadstone.errors import Diagnostic, Fix, LoadstoneError, MatchError
from loadstone.keys import parent
from loadstone.matching.structure.items import Assignment
from loadstone.matching.structure.steps import Permute, Reshape
from loadstone.model import randomness
from loadstone.model.exporting.comparing import how_far
from loadstone.model.exporting.examples import Example
from loadstone.model.shadow import shadow_of

SINGLE_TOLERANCE = 1e-5  # of the largest magnitude, where a model computes in float32 inside


@dataclass(frozen=True, slots=True)
class Call:
    """The first call of a module: when it began and ended, its first tensor in and its first tensor out."""

    began: int
    ended: int
    given: torch.Tensor | None = None
    made: torch.Tensor | None = None


Instead: TypeAlias = Callable[[str, int, torch.Tensor], torch.Tensor | None]


class Watched:
    """A model that is run and remembers what its modules were given and made."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.modules = dict(model.named_modules(remove_duplicate=False))
        self.calls: dict[str, Call] = {}
        self._later: dict[str, list[torch.Tensor | None]] = {}

    @classmethod
    def copy_of(cls, model: nn.Module) -> Watched:
        """A copy in float64 and eval mode; the model is left alone.  Raises MatchError where it is on meta."""
        if any(tensor.is_meta for tensor in (*model.parameters(), *model.buffers())):
            message = "the model is on the meta device and cannot be run"
            raise MatchError(Diagnostic("function-differs", message, fixes=(Fix("load it first", "plan.apply()"),)))
        return cls(_copied(model).double().eval())

    def run(self, example: Example, name: str, instead: Instead | None = None) -> torch.Tensor:
        """The first tensor of the output.  Raises MatchError where the model raises.

        Args:
            instead: (path of a module, how often it was called before, its output) → what it gives on; None for that.
        """
        self.calls.clear()
        self._later.clear()
        self.model.train().eval()  # some keep, from the first run in eval mode, what they computed of their weights
        with randomness.kept(), self._remembering(instead):
            try:
                return first_tensor(example.given_to(self.model))
            except LoadstoneError:
                raise
            except Exception as error:
                reason = next(iter(str(error).splitlines()), "")
                message = f"{name} raised {type(error).__name__} for this input: {reason}"
                raise MatchError(Diagnostic("function-differs", message)) from error

    def keys_of(self, keys: Iterable[str]) -> dict[str, str]:
        """Keys of a checkpoint as this model has them, those that it has: it may stand in a wrapper, or they may."""
        own = dict.fromkeys(_keys_of(self), "")
        return {key: known for key in keys if (known := _known(key, own)) is not None}

    def made(self, path: str, times: int) -> torch.Tensor | None:
        """What a module made when it was called for the first time (0), the second …"""
        if times == 0:
            return self.calls[path].made if path in self.calls else None
        later = self._later.get(path, [])
        return later[times - 1] if times <= len(later) else None

    def began(self, key: str) -> int:
        """When the tensor of that key can first have been used: the call of the nearest module that was called."""
        path = parent(key)
        while path and path not in self.calls:
            path = parent(path)
        return self.calls[path].began if path in self.calls else 0

    @contextmanager
    def _remembering(self, instead: Instead | None) -> Iterator[None]:
        time = iter(range(2**62))
        begun: dict[str, tuple[int, torch.Tensor | None]] = {}
        with ExitStack() as stack:
            for path, module in self.modules.items():
                is_kept = bool(own_tensors(module)) or is_leaf(module)
                beginning, ending = self._hooks(path, begun, time, instead, is_kept=is_kept)
                stack.callback(module.register_forward_pre_hook(beginning, with_kwargs=True).remove)
                stack.callback(module.register_forward_hook(ending).remove)
            yield

    def _hooks(
        self,
        path: str,
        begun: dict[str, tuple[int, torch.Tensor | None]],
        time: Iterator[int],
        instead: Instead | None,
        *,
        is_kept: bool,
    ) -> tuple[Callable[..., None], Callable[..., object]]:
        def beginning(module: nn.Module, args: object, kwargs: object) -> None:
            if path not in begun:  # what is given is copied now: a module may write into it
                begun[path] = next(time), _first((args, kwargs)) if is_kept else None

        def ending(module: nn.Module, args: object, output: object) -> object:
            later = self._later.setdefault(path, [])
            times = len(later) + (path in self.calls)
            if path not in self.calls:
                began, given = begun[path]
                self.calls[path] = Call(began, next(time), given, _first(output) if is_kept else None)
            else:
                later.append(_first(output) if own_tensors(module) else None)
            return instead(path, times, output) if instead is not None and isinstance(output, torch.Tensor) else None

        return beginning, ending


def _copied(model: nn.Module) -> nn.Module:
    """A deep copy; a shadow with values where modules hold functions, whose closures a deep copy does not follow.

    Such a copy would run the modules of the model itself, and say nothing of what it was filled with.
    """
    values = [value for module in model.modules() for value in vars(module).values()]
    inside = (each for value in values if isinstance(value, dict) for each in value.values())
    if any(isinstance(value, types.FunctionType) and value.__closure__ for value in (*values, *inside)):
        return shadow_of(model, _cloned)
    return copy.deepcopy(model)


def _cloned(tensor: torch.Tensor) -> torch.Tensor:
    clone = tensor.detach().clone()
    return nn.Parameter(clone, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else clone


def first_tensor(output: object) -> torch.Tensor:
    """The output that is compared: the logits where there are some, else the first tensor."""
    for name in ("logits", "last_hidden_state"):
        value = output.get(name) if isinstance(output, Mapping) else getattr(output, name, None)
        if isinstance(value, torch.Tensor):
            return value.detach()
    leaves = [leaf for leaf in tree_leaves(output) if isinstance(leaf, torch.Tensor)]
    if not leaves:
        message = f"the output is a {type(output).__name__} without a tensor in it"
        raise MatchError(Diagnostic("function-differs", message))
    return leaves[0].detach()


def wide(example: Example) -> Example:
    """The example with its floats in float64."""
    return example.mapped(lambda tensor: tensor.double() if tensor.is_floating_point() else tensor)


def own_tensors(module: nn.Module) -> list[str]:
    """Names of the tensors that a module holds itself, counters and index tables left out."""
    held = [*module._parameters.items(), *module._buffers.items()]
    kept = (name for name, tensor in held if tensor is not None and (tensor.is_floating_point() or tensor.is_complex()))
    return [name for name in kept if name not in module._non_persistent_buffers_set]


def is_leaf(module: nn.Module) -> bool:
    """There is no other module inside."""
    return next(module.children(), None) is None


def alike(one: torch.Tensor, other: torch.Tensor) -> bool:
    """The same shape, but for dimensions of one."""
    return [size for size in one.shape if size != 1] == [size for size in other.shape if size != 1]


def agree(one: torch.Tensor | None, other: torch.Tensor | None) -> bool | None:
    """Whether two tensors are equal up to rounding; None where they cannot be compared."""
    if one is None or other is None or one.numel() != other.numel():
        return None
    if not alike(one, other):  # another layout of the same numbers: channels last, tokens
        one, other = one.flatten().sort().values, other.flatten().sort().values
    return how_far(one.reshape(other.shape), other)[1] <= SINGLE_TOLERANCE


def _first(value: object) -> torch.Tensor | None:
    found = next((leaf for leaf in tree_leaves(value) if isinstance(leaf, torch.Tensor)), None)
    return None if found is None else found.detach().clone()


# Pairs of modules ----------------------------------------------------------------------------------------------------


def module_pairs(ours: Watched, theirs: Watched, origins: Mapping[str, Assignment]) -> dict[str, str]:
    """Module of the model → module of the reference, where all their tensors are a pair.

    Args:
        origins: key of the model → where its values come from, with the checkpoint's keys; these may stand behind
            another prefix than the reference's.
    """
    keys = {key: parent(key) for key in _keys_of(theirs)}
    known = {taken.key: _known(taken.key, keys) for one in origins.values() for taken in one.sources}
    filled_from = {
        key: [known[taken.key] for taken in origins[key].sources] for key in _keys_of(ours) if key in origins
    }
    mine = _below(filled_from)
    other = _below({key: [key] for key in keys})
    pairs: dict[str, str] = {}
    for path, module in ours.modules.items():
        own = [origins.get(f"{path}.{name}".lstrip(".")) for name in own_tensors(module)]
        sources = [known[one.sources[0].key] if one is not None and _is_whole(one) else None for one in own]
        places = {None if key is None else keys[key] for key in sources}
        if len(places) == 1 and (place := places.pop()) is not None and mine[path] == other[place]:
            pairs[path] = place
    return pairs


def _keys_of(watched: Watched) -> list[str]:
    modules = watched.modules.items()
    return [f"{path}.{name}".lstrip(".") for path, module in modules for name in own_tensors(module)]


def _below(sources: Mapping[str, Sequence[str | None]]) -> dict[str, set[str | None]]:
    """What fills the tensors below each module, the module's own among them."""
    found: dict[str, set[str | None]] = {}
    for key, members in sources.items():
        path = key
        while path:
            path = parent(path)
            found.setdefault(path, set()).update(members)
    return found


def _is_whole(origin: Assignment) -> bool:
    """It is one tensor, all of it: in another layout perhaps."""
    if len(origin.sources) != 1:
        return False
    return all(isinstance(step, (Reshape, Permute)) for step in (*origin.sources[0].steps, *origin.steps))


def _known(key: str, keys: Mapping[str, str]) -> str | None:
    """The key as the reference has it: behind no prefix, or behind that of a wrapper."""
    rest = key
    while rest:
        if rest in keys:
            return rest
        rest = rest.partition(".")[2]
    return next((each for each in (f"module.{key}", f"_orig_mod.{key}") if each in keys), None)


# Where two runs part -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Parting:
    """The first place, in the order of the model, where two runs differ.

    Attributes:
        path, other: the module of the model, and that of the reference.
        before: the last pair that agrees, as a module of the model.
        inputs_agree: the two were given the same, as far as that can be compared.
        position: what began later is not to blame: the end of the first pair after which none agrees.
    """

    path: str
    other: str
    before: str | None
    inputs_agree: bool
    position: int


def parting(ours: Watched, theirs: Watched, pairs: Mapping[str, str]) -> Parting | None:
    """The first pair of modules whose outputs differ; None where all that could be compared agree.

    A module that does more than the other, as a norm with an activation in it, makes something else although nothing is
    wrong: two of different classes do not part where a pair that begins later agrees.
    """
    shared = [path for path in pairs if path in ours.calls and pairs[path] in theirs.calls]
    called = sorted(shared, key=lambda path: ours.calls[path].ended)
    agreed = {path: agree(ours.calls[path].made, theirs.calls[pairs[path]].made) is True for path in called}
    last = max((ours.calls[path].ended for path in called if agreed[path]), default=-1)
    resumed = max((ours.calls[path].began for path in called if agreed[path]), default=-1)
    position = next((ours.calls[path].ended for path in called if ours.calls[path].ended > last), 2**62)
    before: str | None = None
    resized: str | None = None  # since then, the first that was given another size
    for path in called:
        mine, other = ours.calls[path], theirs.calls[pairs[path]]
        is_more = type(ours.modules[path]) is not type(theirs.modules[pairs[path]]) and mine.ended < resumed
        if is_more or not _part(mine, other):
            if agreed[path]:
                before, resized = path, None
            elif resized is None and mine.given is not None and other.given is not None:
                resized = path
            continue
        if agree(mine.given, other.given) is not False:
            return Parting(path, pairs[path], before, True, position)
        at = resized or path
        silent = _silent_parting(ours, theirs, pairs, before, at)
        return silent or Parting(at, pairs[at], before, False, position)
    return _silent_parting(ours, theirs, pairs, before, None)


def _part(mine: Call, other: Call) -> bool:
    """What the two modules made is not the same; another size counts where they were given the same."""
    made_same = agree(mine.made, other.made)
    return made_same is False or (made_same is None and agree(mine.given, other.given) is True)


def _silent_parting(
    ours: Watched, theirs: Watched, pairs: Mapping[str, str], before: str | None, path: str | None
) -> Parting | None:
    """The first of the modules without tensors, between two pairs, that makes something else of the same input."""
    mine = silent_between(ours, before, path)
    other = silent_between(theirs, *(None if each is None else pairs[each] for each in (before, path)))
    if len(mine) != len(other):
        return None
    for one, another in zip(mine, other, strict=True):
        call, their = ours.calls[one], theirs.calls[another]
        if agree(call.given, their.given) is True and agree(call.made, their.made) is not True:
            return Parting(one, another, before, True, 2**62)
    return None


def silent_between(watched: Watched, before: str | None, after: str | None) -> list[str]:
    """Modules without tensors that changed something between two others, in the order in which they ran."""
    start = -1 if before is None else watched.calls[before].ended
    end = 2**62 if after is None else watched.calls[after].began
    return [
        path
        for path, call in sorted(watched.calls.items(), key=lambda item: item[1].began)
        if start < call.began < end and _is_silent(watched.modules[path]) and not _passes_on(call)
    ]


def _is_silent(module: nn.Module) -> bool:
    return is_leaf(module) and not own_tensors(module)


def _passes_on(call: Call) -> bool:
    """It made what it was given: dropout in eval mode, an identity."""
    return call.given is not None and call.made is not None and torch.equal(call.given, call.made)


def settings(one: nn.Module, other: nn.Module, most: int = 6) -> Iterator[tuple[str, str]]:
    """Attributes that both modules have and that differ: eps, padding, stride, an activation …"""
    ours, theirs = _settings_of(one), _settings_of(other)
    differing = (name for name in ours if name in theirs and ours[name] != theirs[name])
    for _, name in zip(range(most), differing, strict=False):
        yield name, f"{ours[name]:.40} in the model, {theirs[name]:.40} in the reference"


_PLAIN = (bool, int, float, str, type(None), torch.dtype)
_NOT_SETTINGS = frozenset(("training", "call_super_init", "dump_patches", "momentum"))  # the last is for training


def _settings_of(module: nn.Module) -> dict[str, str]:
    """Plain values as they are written, functions by their names, modules without tensors by their classes."""
    found = {name: text for name, value in vars(module).items() if (text := _setting(name, value)) is not None}
    inside = {name: repr(child) for name, child in module.named_children() if _is_silent(child)}
    return {**found, **inside}


def _setting(name: str, value: object) -> str | None:
    if name.startswith("_") or name in _NOT_SETTINGS:
        return None
    if _is_plain(value):
        return repr(value)
    return getattr(value, "__name__", None) if callable(value) and not isinstance(value, type) else None


def _is_plain(value: object) -> bool:
    return isinstance(value, _PLAIN) or (isinstance(value, tuple) and all(map(_is_plain, value)))
