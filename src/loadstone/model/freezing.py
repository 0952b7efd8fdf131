"""The verbs `freeze`, `unfreeze` and `unfreeze_next`: what is frozen does not move, whatever would move it.

What `freeze` takes is written down on the modules it was taken from, so that it survives pickle, deepcopy and surgery
elsewhere in the model, and `unfreeze` gives back exactly that: a parameter that needed no gradient before needs none
after.  Each call of `freeze` begins with the model as it was before the first.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol, TypeAlias, runtime_checkable

import torch
from torch import nn

from loadstone.errors import Diagnostic, Fix, FormatError, MatchError, RecipeError
from loadstone.keys import nearest, parent
from loadstone.matching.selection import Patterns
from loadstone.model.schema import Walk, walk
from loadstone.model.stages import stages_of
from loadstone.model.statistics import has_statistics, hold, is_held, release

_TAKEN = "_frozen_by_loadstone"  # in vars(module): names of the parameters that `freeze` has frozen, a tuple of str
_MOST_NAMED = 3  # keys in a message


@runtime_checkable
class Named(Protocol):
    """Anything that says which modules it is about, such as what `replace_head` returns."""

    @property
    def names(self) -> Iterable[str]:
        """Names of modules or parameters."""


Where: TypeAlias = str | Named | Iterable[str | Named]


def freeze(model: nn.Module, except_: Where | None = None) -> list[nn.Parameter]:
    """Freeze everything but `except_`; returns the parameters left to train, each once, ready for an optimizer.

    Frozen parameters need no gradient and have none (an optimizer that was given them passes them over, weight decay
    and momentum included).  Norms whose parameters are all frozen keep their running statistics, also after
    `model.train()`.  Dropout in frozen parts follows the mode of the model.  Parameters that share memory with one of
    `except_` stay with it.

    Args:
        model: a module, or a part of one.
        except_: globs over the model's keys, or what `replace_head` returned.  `*` stops at a dot, `**` does not, and
            a bare module name means everything under it.  Without it all is frozen and the list is empty.

    Raises, with the model as it was, RecipeError (freeze-matches-nothing, nothing-to-train, invalid-option), MatchError
    (uninitialised-parameter) for lazy modules and FormatError (unsupported-feature) for scripted ones.
    """
    walked = checked_walk(model)
    patterns = () if except_ is None else patterns_of("except_", except_)
    kept = _with_its_memory(walked, _matching(walked, patterns))
    trains = [place.tensor.requires_grad or place.name in _taken(place.module) for place in walked.places]
    left = _once(walked, [is_kept and does for is_kept, does in zip(kept, trains, strict=True)])
    if except_ is not None and not left:
        raise _nothing_to_train(patterns, [place.key for place, is_kept in zip(walked.places, kept, strict=True)
                                           if is_kept and place.kind == "parameter"])  # fmt: skip
    _give_back(walked, [True] * len(kept))
    taken: dict[int, list[str]] = {}
    for place, is_kept in zip(walked.places, kept, strict=True):
        if place.kind == "parameter" and not is_kept and place.tensor.requires_grad:
            taken.setdefault(id(place.module), []).append(place.name)
    for place, is_kept in zip(walked.places, kept, strict=True):
        if place.kind == "parameter" and not is_kept:
            place.tensor.requires_grad_(False)
            place.tensor.grad = None
            if id(place.module) in taken:
                vars(place.module)[_TAKEN] = tuple(dict.fromkeys(taken[id(place.module)]))
    for _, module in _with_statistics(walked, kept, wanted=False):
        hold(module)
    return left


def unfreeze(model: nn.Module, names: Where | None = None) -> list[nn.Parameter]:
    """Undo `freeze` for some modules or parameters, or for all; returns the parameters that train again, each once.

    Norms among them update their statistics again, in the mode the model is in.  `names` is as in `freeze`.

    Raises RecipeError (freeze-matches-nothing; nothing-to-train where the names match only parameters that needed no
    gradient before `freeze` either), with the model as it was.
    """
    walked = checked_walk(model)
    if names is None:
        return _give_back(walked, [True] * len(walked.places))
    patterns = patterns_of("names", names)
    chosen = _with_its_memory(walked, _matching(walked, patterns))
    parameters = [place for place, is_chosen in zip(walked.places, chosen, strict=True)
                  if is_chosen and place.kind == "parameter"]  # fmt: skip
    if parameters and not any(place.tensor.requires_grad or place.name in _taken(place.module) for place in parameters):
        raise _nothing_to_train(patterns, [place.key for place in parameters])
    return _give_back(walked, chosen)


def unfreeze_next(model: nn.Module) -> list[nn.Parameter]:
    """Unfreeze the stage nearest to the head that is not yet free; returns its parameters, [] when all are.

    Stages are the children of the model, or their blocks where there are few (see `trainable`), from the last
    registered to the first.
    """
    walked = checked_walk(model)
    for stage in reversed(stages_of(walked)):
        if any(place.name in _taken(place.module) or is_held(place.module) for place in stage.places):
            keys = {place.key for place in stage.places}
            freed = _give_back(walked, _with_its_memory(walked, [place.key in keys for place in walked.places]))
            if freed:
                return freed
    return []


def checked_walk(model: nn.Module) -> Walk:
    """The model, walked; raises where its parameters are not there yet or not in reach of Python."""
    walked = walk(model)
    for path, module in walked.modules:
        if isinstance(module, torch.jit.ScriptModule):
            name = f"`{path}`" if path else "the model"
            raise FormatError(
                Diagnostic("unsupported-feature", f"{name} is scripted, it must be frozen before torch.jit.script")
            )
    for place in walked.places:
        if torch.nn.parameter.is_lazy(place.tensor):
            message = f"`{place.key}` has no shape yet, its lazy module has seen no input"
            raise MatchError(Diagnostic("uninitialised-parameter", message, keys=(place.key,)))
    return walked


def patterns_of(option: str, value: object) -> tuple[str, ...]:
    """Globs from a str, from something with `.names`, or from an iterable of these."""
    if isinstance(value, Named):  # before str: the Edit of a surgery is both, and may have several names
        return patterns_of(option, value.names)
    if isinstance(value, str):
        return (value,)
    if isinstance(value, Iterable) and not isinstance(value, (nn.Module, torch.Tensor, bytes)):
        return tuple(pattern for item in value for pattern in patterns_of(option, item))
    accepted = (("accepted", 'a list of globs, ["fc", "layer4.*.weight"]'),)
    raise RecipeError(Diagnostic("invalid-option", f"`{option}` holds {value!r:.40}, which is no name", accepted))


def _matching(walked: Walk, patterns: Sequence[str]) -> list[bool]:
    """For every place of the model whether a pattern matches it.  Each pattern must match one."""
    keys = [place.key for place in walked.places]
    globs = Patterns(patterns, keys)
    if globs.unused:
        names = dict.fromkeys([path for path, _ in walked.modules if path] + keys)
        raise RecipeError(*(_matches_nothing(pattern, names) for pattern in globs.unused))
    return [globs.first(key) is not None for key in keys]


def _matches_nothing(pattern: str, names: Iterable[str]) -> Diagnostic:
    names = list(names)
    near = nearest(pattern, names) or nearest(pattern, [name for name in names if "." not in name and name != pattern])
    return Diagnostic(
        "freeze-matches-nothing",
        f"`{pattern}` matches no parameter and no buffer of the model",
        evidence=() if near else (("model", ", ".join(dict.fromkeys(name.split(".")[0] for name in names))),),
        fixes=tuple(Fix("did you mean", name) for name in near),
    )


def _nothing_to_train(patterns: Sequence[str], keys: Sequence[str]) -> RecipeError:
    named = ", ".join(f"`{pattern}`" for pattern in patterns) or "an empty `except_`"
    if not keys:
        return RecipeError(Diagnostic("nothing-to-train", f"{named} leaves no parameter to train"))
    shown = ", ".join(keys[:_MOST_NAMED]) + (", …" if len(keys) > _MOST_NAMED else "")
    module = parent(keys[0])
    return RecipeError(
        Diagnostic(
            "nothing-to-train",
            f"the parameters of {named} needed no gradient before `freeze` was called",
            (("requires_grad is False", shown),),
            (Fix("let them train", f'model.get_submodule("{module}").requires_grad_()'),),
            tuple(keys),
        )
    )


def _give_back(walked: Walk, chosen: Sequence[bool]) -> list[nn.Parameter]:
    """Undo `freeze` for the chosen places; the parameters that need gradients again."""
    freed = [is_chosen and place.name in _taken(place.module)
             for place, is_chosen in zip(walked.places, chosen, strict=True)]  # fmt: skip
    for place, is_freed in zip(walked.places, freed, strict=True):
        if is_freed:
            place.tensor.requires_grad_(True)
            rest = tuple(name for name in _taken(place.module) if name != place.name)
            if rest:
                vars(place.module)[_TAKEN] = rest
            else:
                vars(place.module).pop(_TAKEN, None)
    for _, module in _with_statistics(walked, chosen, wanted=True):
        release(module)
    return _once(walked, freed)


def _taken(module: nn.Module) -> tuple[str, ...]:
    taken: tuple[str, ...] = vars(module).get(_TAKEN, ())
    return taken


def _with_its_memory(walked: Walk, chosen: Sequence[bool]) -> list[bool]:
    """The same choice, and every place that shares memory with it."""
    memory = {identity for identity, is_chosen in zip(walked.identities, chosen, strict=True) if is_chosen}
    return [identity in memory for identity in walked.identities]


def _with_statistics(walked: Walk, chosen: Sequence[bool], *, wanted: bool) -> list[tuple[str, nn.Module]]:
    """Modules with running statistics of which some tensor is chosen (`wanted`), or none."""
    touched = {id(place.module) for place, is_chosen in zip(walked.places, chosen, strict=True) if is_chosen}
    return [
        (path, module)
        for path, module in walked.modules
        if has_statistics(module) and (id(module) in touched) is wanted
    ]


def _once(walked: Walk, chosen: Sequence[bool]) -> list[nn.Parameter]:
    """The chosen parameters, each once, in the order of the model."""
    found: dict[int, nn.Parameter] = {}
    for place, is_chosen in zip(walked.places, chosen, strict=True):
        if is_chosen and isinstance(place.tensor, nn.Parameter):
            found.setdefault(id(place.tensor), place.tensor)
    return list(found.values())
