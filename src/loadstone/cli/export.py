"""From the words of `export` to a file: a model built and filled, examples of the sizes given, the export."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from loadstone.cli.planning import Progress, keyword_arguments, refuse_to_replace
from loadstone.cli.target import build_model, is_factory, not_found
from loadstone.errors import Diagnostic, Fix, MatchError, SaveError
from loadstone.matching.plan import Plan

if TYPE_CHECKING:
    from loadstone.model.export import Exported

_MOST_ELEMENTS = 2**31  # of one example input: 8.6 GB of float32
_FLAGS = {  # of fixes in the words of Python
    "script=True": "--script",
    "script=False": "without --script",
    "dynamic_batch=False": "without --dynamic-batch",
    'ls.export(model, "model.pt", example)': "-o model.pt",
    'ls.export(model, "model.pt", example, script=True)': "-o model.pt --script",
    'ls.export(model, "model.pt2", example)': "-o model.pt2",
}


def load_and_export(
    file: str, target: str, keywords: Sequence[str], shapes: Sequence[str], dtype: str, destination: str, *,
    loading: Mapping[str, Any], options: Mapping[str, Any], force: bool, progress: Progress,
) -> Exported | Plan:  # fmt: skip
    """What was exported; or the plan that could not be applied, and nothing written."""
    sizes = [sizes_of(text) for text in shapes]
    refuse_to_replace(destination, force=force)
    if not is_factory(target):
        fix = Fix("say how the model is built", "--into package.module:factory")
        raise not_found(target, "exporting needs a model, which `module:factory` builds", fix)
    with progress(f"building {target}"):
        model = build_model(target, keyword_arguments(keywords), on_meta=False)
    from loadstone.model.export import checked_form, export
    from loadstone.model.exporting.examples import random_example
    from loadstone.model.load import load

    checked_form(Path(destination), options["script"], options["tolerance"])
    example = random_example(sizes, dtype)
    with progress(f"loading {file}"):
        try:
            load(model, file, **{name: value for name, value in loading.items() if value is not None})
        except MatchError as error:
            if error.plan is None:
                raise
            return error.plan
    with progress(f"exporting {destination}, and running it beside the model"):
        try:
            return export(model, destination, example, **options)
        except SaveError as error:
            raise SaveError(*with_flags_of_export(error.diagnostics)) from error


def sizes_of(text: str) -> tuple[int, ...]:
    """`1,3,224,224` as (1, 3, 224, 224); raises UsageError for anything but a few whole numbers."""
    sizes, elements = [], 1
    for part in text.split(","):
        if not (part.strip().isascii() and part.strip().isdigit() and len(part.strip()) < 12):
            raise click.UsageError(f"--input takes sizes such as 1,3,224,224, not `{text}`")
        sizes.append(int(part))
        elements *= sizes[-1]
    if elements > _MOST_ELEMENTS:
        raise click.UsageError(f"--input {text} asks for {elements:,} numbers, more than {_MOST_ELEMENTS:,}")
    return tuple(sizes)


def with_flags_of_export(diagnostics: Iterable[Diagnostic]) -> tuple[Diagnostic, ...]:
    """The same findings, their fixes in the words of the command line."""
    return tuple(replace(found, fixes=tuple(map(_with_flag, found.fixes))) for found in diagnostics)


def _with_flag(fix: Fix) -> Fix:
    if fix.paste.startswith("tolerance="):
        return replace(fix, paste=fix.paste.replace("tolerance=", "--tolerance "))
    return replace(fix, paste=_FLAGS.get(fix.paste, fix.paste))
