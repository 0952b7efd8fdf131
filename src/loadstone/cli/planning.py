"""From the words of `plan` and `load` to a Plan: options as Python has them, a model built, or a schema read."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from loadstone.checkpoint import open_checkpoint
from loadstone.cli.target import build_model, is_factory, not_found, read_schema
from loadstone.dtypes import DTYPES
from loadstone.errors import Diagnostic, Fix, MatchError, RecipeError, SaveError, worst_first
from loadstone.io.addresses import shown
from loadstone.matching.plan import Plan

_PAIRS = (  # option, flag and form of what is given as LEFT=RIGHT
    ("rename", "--rename", "REGEX=REPL"),
    ("adapt", "--adapt", "GLOB=HOW"),
    ("answers", "--answer", "MODEL_KEY=CHECKPOINT_KEY"),
)
Progress = Callable[[str], AbstractContextManager[object]]


def plan_for(file: str, target: str, keywords: Sequence[str], words: Mapping[str, Any]) -> Plan:
    """The plan of a file for a target; a factory is built on the meta device, without memory."""
    options = python_options(words)
    if not is_factory(target):
        return _plan_for_schema(file, target, options)
    model = build_model(target, keyword_arguments(keywords), on_meta=True)
    from loadstone.model.load import plan

    made = plan(model, file, **options)
    # that the model has no memory is our doing: `load` builds it with memory
    return replace(made, diagnostics=tuple(found for found in made.diagnostics if found.code != "left-on-meta"))


def with_values(plan: Plan, target: str) -> Plan:
    """The plan, and what is odd about the values it would load."""
    if plan.live is None:
        fix = Fix("say how the model is built", "--into package.module:factory")
        raise not_found(target, "looking at values needs a model, which `module:factory` builds", fix)
    return replace(plan, diagnostics=worst_first((*plan.diagnostics, *plan.plausibility())))


def load_and_save(
    file: str, target: str, keywords: Sequence[str], words: Mapping[str, Any], destination: str, *, force: bool,
    progress: Progress,
) -> Plan:  # fmt: skip
    """The plan that was applied, its model saved; or the plan that could not be, and nothing written."""
    refuse_to_replace(destination, force=force)
    if not is_factory(target):
        fix = Fix("say how the model is built", "--into package.module:factory")
        raise not_found(target, "loading needs a model, which `module:factory` builds", fix)
    options = python_options(words)
    with progress(f"building {target}"):
        model = build_model(target, keyword_arguments(keywords), on_meta=False)
    from loadstone.model.load import load
    from loadstone.model.save import save

    with progress(f"loading {shown(file)}"):
        try:
            plan = load(model, file, **options)
        except MatchError as error:
            if error.plan is None:
                raise
            return error.plan
    with progress(f"saving {destination}"):
        save(model, destination)
    return plan


def python_options(words: Mapping[str, Any]) -> dict[str, Any]:
    """Options of the command line as `loadstone.plan` takes them; what was not given is left out."""
    options: dict[str, Any] = {name: list(words[name]) for name in ("only", "drop", "fresh") if words[name]}
    for name, flag, form in _PAIRS:
        if words[name]:
            options[name] = dict(_split_last(text, flag, form) for text in words[name])
    options |= {name: words[name] for name in ("weights", "dtype", "match", "recipe") if words[name] is not None}
    if "answers" in options:
        options["match"] = "structure"  # only a match by structure asks
    if words["no_strict"]:
        options["strict"] = False
    return options


def keyword_arguments(texts: Sequence[str]) -> dict[str, object]:
    """`num_classes=10` as {"num_classes": 10}: JSON where it is JSON, else text."""
    arguments: dict[str, object] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name.isidentifier():
            raise click.UsageError(f"--set takes NAME=VALUE, not `{text}`")
        try:
            arguments[name] = json.loads(value)
        except (ValueError, RecursionError):
            arguments[name] = value
    return arguments


def refuse_to_replace(path: str, *, force: bool) -> None:
    """Raise SaveError (destination-exists) where a file is in the way and nobody said `--force`."""
    if Path(path).exists() and not force:
        raise SaveError(
            Diagnostic("destination-exists", f"`{path}` is already there", fixes=(Fix("replace it", "--force"),))
        )


def write_recipe(plan: Plan, path: str, *, force: bool) -> None:
    """The options of a plan as a recipe file."""
    refuse_to_replace(path, force=force)
    Path(path).write_text(plan.recipe(), encoding="utf-8")


def _split_last(text: str, option: str, form: str) -> tuple[str, str]:
    """At the last `=`: a regular expression may contain one, as in `(?=...)`; a replacement has none."""
    left, equals, right = text.rpartition("=")
    if not equals:
        raise click.UsageError(f"{option} takes {form}, not `{text}`")
    return left, right


def _plan_for_schema(file: str, target: str, given: Mapping[str, Any]) -> Plan:
    """A plan between two files, without torch."""
    from loadstone.matching.names import make_plan
    from loadstone.matching.options import Options
    from loadstone.matching.recipe import read_recipe

    schema = read_schema(target)
    options = Options(
        strict=given.get("strict", True),
        rename=given.get("rename"),
        only=tuple(given.get("only", ())),
        drop=tuple(given.get("drop", ())),
        fresh=tuple(given.get("fresh", ())),
        adapt=given.get("adapt", {}),
        match=given.get("match", "names"),
        answers=given.get("answers", {}),
        dtype=_float_dtype(given["dtype"]) if "dtype" in given else None,
    )
    if "recipe" in given:
        options = options.merged(read_recipe(given["recipe"]))
    with open_checkpoint(file, weights=given.get("weights")) as checkpoint:
        chosen = checkpoint.chosen
        prefix = f"{chosen.name}." if chosen.name else ""
        return make_plan(
            schema,
            chosen.tensors,
            options,
            source_name=checkpoint.name,
            target_name=schema.name,
            weights=chosen.name,
            not_for_model={
                key: info
                for key, info in checkpoint.tensors.items()
                if not (key.startswith(prefix) and key.removeprefix(prefix) in chosen.tensors)
            },
            notes=checkpoint.diagnostics,
            metadata=chosen.metadata,
        )


def _float_dtype(name: str) -> str:
    row = DTYPES.get(name.removeprefix("torch."))
    if row is not None and row.kind == "float":
        return row.name
    accepted = ", ".join(row.name for row in DTYPES.values() if row.kind == "float" and row.scalar_type is not None)
    raise RecipeError(Diagnostic("invalid-option", f"`dtype` is {name!r:.60}", (("accepted", accepted),)))
