"""The verbs `plan` and `load`: a source and a live module in, a Plan bound to both out."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Unpack

import torch
from torch import nn

from loadstone import collector
from loadstone.errors import Diagnostic, RecipeError
from loadstone.matching.adapters import Adapter
from loadstone.matching.options import Rename
from loadstone.matching.plan import Plan
from loadstone.model.bound import bound
from loadstone.model.opening import Opened, Source, opened
from loadstone.model.options import Checked, Globs, PlanOptions, checked


def plan(
    model: nn.Module,
    source: Source,
    *,
    strict: bool = True,
    rename: Mapping[str, str] | Rename | None = None,
    only: Globs = (),
    drop: Globs = (),
    fresh: Globs = (),
    adapt: Mapping[str, Adapter] | None = None,
    match: str = "names",
    answers: Mapping[str, str] | None = None,
    weights: str | None = None,
    device: torch.device | str | None = None,
    dtype: torch.dtype | str | None = None,
    assign: bool = False,
    backup: bool = False,
    verify: bool | None = None,
    recipe: str | os.PathLike[str] | None = None,
) -> Plan:
    """How `source` fits `model`, key by key, from headers alone; `plan.apply()` then loads it.

    Args:
        model: any module: on the CPU, on a GPU, on meta, wrapped by DataParallel, DDP or torch.compile.
        source: a path, an open Checkpoint, or a state dict in memory (in other dicts or not).
        strict: every key on both sides must be settled.  False: what fits is loaded, the rest is reported.
        rename: {regex: replacement}, applied in order to the checkpoint's keys, or a callable from key to key.
        only, drop: globs over checkpoint keys: which ones take part, which are left out on purpose.
        fresh: globs over model keys that keep the values they have.
        adapt: {glob: how} where shapes differ: "fresh", "slice", "pad", "channels", "interpolate", "vocabulary",
            `classes(old, new)`, `interpolate(...)`, or (tensor, target_shape) -> tensor; "cast" where dtypes do.
        match: "names", or "structure": what names leave open is matched by layers, shapes and families, and used
            only where it is proven unique.
        answers: {key of the model: key of the checkpoint} for the questions of a match by structure.
        weights: which of the checkpoint's weight sets.
        device, dtype: where parameters end up; the model's own where not given.  `dtype` is for floating point tensors.
        assign: parameters become the file's tensors, as in torch; make optimizers afterwards.
        backup: keep the old values until the load is through, so that not even a failing disk changes anything.
        verify: compare every tensor with the digest that the file has of it, before the first write.  None: where the
            file has digests, as those that `save` writes.  True: or raise; a plain torch zip is proved by the checksums
            of its records.  False: never.
        recipe: a TOML file with the same options; what is given here as well wins.

    Raises:
        FormatError, IntegrityError, UnsafeError, LimitError: the file cannot be read.
        MatchError: the model has parameters without a shape (uninitialised-parameter).
        RecipeError: an option has a wrong value.
    """
    given = PlanOptions(
        strict=strict, rename=rename, only=only, drop=drop, fresh=fresh, adapt=adapt, match=match, answers=answers,
        weights=weights,
        device=device, dtype=dtype, assign=assign, backup=backup, verify=verify, recipe=recipe,
    )  # fmt: skip
    return _bound(model, source, checked(given))[0]


def load(model: nn.Module, source: Source, **options: Unpack[PlanOptions]) -> Plan:
    """Fill `model` from `source`: all of it, or an error and the model as it was.

    Takes what `plan` takes, and returns the plan that was applied.

    Raises:
        MatchError: a key is unsettled or a value cannot be used; carries `.plan`, and the model is as it was.
        IntegrityError: the file is damaged; or the disk failed in the middle of the copy, and the message names every
            parameter that has changed.
        and what `plan` raises.
    """
    made, found = _bound(model, source, checked(options))
    try:
        with collector.paused():
            made.apply()
    finally:
        found.close()
    return made


def _bound(model: object, source: object, options: Checked) -> tuple[Plan, Opened]:
    """A plan that can be applied; a file that was opened for it stays open until the plan is gone."""
    if not isinstance(model, nn.Module):
        message = f"the model is a {type(model).__name__}; it has to be a torch.nn.Module"
        raise RecipeError(Diagnostic("invalid-option", message))
    source_of_values = opened(source, options.weights)
    try:
        with collector.paused():
            return bound(model, source_of_values, options), source_of_values
    except BaseException:
        source_of_values.close()
        raise
