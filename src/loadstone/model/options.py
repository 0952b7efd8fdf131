"""The options of `plan`, `load` and `build`, checked once and split: what matching needs, and what the copy needs."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TypeAlias, TypedDict

import torch

from loadstone.errors import Diagnostic, RecipeError
from loadstone.matching.adapters import Adapter, check_adapters
from loadstone.matching.options import Options, Rename
from loadstone.matching.recipe import read_recipe
from loadstone.model.targets import Placement

Globs: TypeAlias = str | Iterable[str]


class PlanOptions(TypedDict, total=False):
    """The keyword arguments of `plan`, which says what each one means."""

    strict: bool
    rename: Mapping[str, str] | Rename | None
    only: Globs
    drop: Globs
    fresh: Globs
    adapt: Mapping[str, Adapter] | None
    match: str
    answers: Mapping[str, str] | None
    weights: str | None
    device: torch.device | str | None
    dtype: torch.dtype | str | None
    assign: bool
    backup: bool
    verify: bool | None
    recipe: str | os.PathLike[str] | None


@dataclass(frozen=True, slots=True)
class Checked:
    """Options of which every one has a value that can be used."""

    matching: Options
    placement: Placement
    weights: str | None
    backup: bool
    verify: bool | None = None


def checked(given: PlanOptions) -> Checked:
    """The options as values that can be used; raises RecipeError (invalid-option) for the first that cannot."""
    unknown = [name for name in given if name not in PlanOptions.__annotations__]
    if unknown:
        raise _invalid(f"there is no option `{unknown[0]}`", tuple(PlanOptions.__annotations__))
    for name in ("strict", "assign", "backup"):
        if not isinstance(given.get(name, False), bool):
            raise _invalid(f"`{name}` is {given.get(name)!r:.60}", ("True", "False"))
    verify = given.get("verify")
    if verify is not None and not isinstance(verify, bool):
        raise _invalid(f"`verify` is {verify!r:.60}", ("None", "True", "False"))
    match = given.get("match", "names")
    if match not in ("names", "structure"):
        raise _invalid(f"`match` is {match!r:.60}", ('"names"', '"structure"'))
    weights = given.get("weights")
    if weights is not None and not isinstance(weights, str):
        raise _invalid(f"`weights` is a {type(weights).__name__}", ("the name of a weight set",))
    is_assigned = given.get("assign", False)
    dtype = _dtype(given.get("dtype"))
    recipe = given.get("recipe")
    base = Options() if recipe is None else read_recipe(recipe)
    rename = _rename(given.get("rename"))
    return Checked(
        Options(
            strict=given.get("strict", True) and base.strict,
            rename=base.rename if rename is None else rename,
            only=_globs("only", given.get("only", ())) or base.only,
            drop=_globs("drop", given.get("drop", ())) or base.drop,
            fresh=_globs("fresh", given.get("fresh", ())) or base.fresh,
            adapt={**base.adapt, **_adapters(given.get("adapt"))},
            match="structure" if "structure" in (match, base.match) else "names",
            answers={**base.answers, **_answers(given.get("answers"))},
            rules=base.rules,
            hashes=base.hashes,
            dtype=None if dtype is None else str(dtype).removeprefix("torch."),
            assign=is_assigned,
        ),
        Placement(_device(given.get("device")), dtype, is_assigned),
        weights,
        given.get("backup", False),
        verify,
    )


def _globs(name: str, value: object) -> tuple[str, ...]:
    if isinstance(value, str):
        return (value,)
    if isinstance(value, Iterable):
        globs = tuple(value)
        if all(isinstance(glob, str) for glob in globs):
            return globs
    raise _invalid(f"`{name}` is {value!r:.60}", ('a list of globs, ["fc.*", "head"]',))


def _rename(value: object) -> Mapping[str, str] | Rename | None:
    if value is None or callable(value):
        return value
    if isinstance(value, Mapping) and all(isinstance(text, str) for pair in value.items() for text in pair):
        return value
    raise _invalid(f"`rename` is {value!r:.60}", ("{regex: replacement}", "a callable from key to key"))


def _adapters(value: object) -> Mapping[str, Adapter]:
    if value is None:
        return {}
    if not isinstance(value, Mapping) or not all(isinstance(glob, str) for glob in value):
        raise _invalid(f"`adapt` is {value!r:.60}", ("{glob: how}",))
    check_adapters(value)
    return value


def _answers(value: object) -> Mapping[str, str]:
    if value is None:
        return {}
    if isinstance(value, Mapping) and all(isinstance(text, str) for pair in value.items() for text in pair):
        return value
    raise _invalid(f"`answers` is {value!r:.60}", ("{key of the model: key of the checkpoint}",))


def _dtype(value: object) -> torch.dtype | None:
    if isinstance(value, str):
        value = getattr(torch, value.removeprefix("torch."), value)
    if value is None or (isinstance(value, torch.dtype) and value.is_floating_point):
        return value
    raise _invalid(f"`dtype` is {value!r:.60}", ("a floating point dtype, torch.float16",))


def _device(value: object) -> torch.device | None:
    if value is None:
        return None
    try:
        device = torch.device(value)  # type: ignore[call-overload]  # torch itself refuses anything else
    except (RuntimeError, TypeError) as error:
        raise _invalid(f"`device` is {value!r:.60}", ('a device of torch, "cpu"',)) from error
    if device.type == "meta":
        raise _invalid("`device` is meta, which holds no values", ('"cpu"', '"cuda"'))
    assert isinstance(device, torch.device)
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:  # no driver, no such card, no such backend
        reason = next(iter(str(error).splitlines()), "")
        raise _invalid(f"`device` is {device}, which cannot be used here: {reason:.100}", ('"cpu"',)) from error
    return device


def _invalid(message: str, accepted: tuple[str, ...]) -> RecipeError:
    return RecipeError(Diagnostic("invalid-option", message, tuple(("accepted", text) for text in accepted)))
