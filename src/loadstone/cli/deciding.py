"""`loadstone plan --reference`: open questions answered by running the model beside the one the weights come from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import click

from loadstone.cli.export import sizes_of
from loadstone.cli.planning import Progress, keyword_arguments, python_options
from loadstone.cli.target import build_model
from loadstone.matching.plan import Plan


def decided_plan(
    file: str, target: str, keywords: Sequence[str], words: Mapping[str, Any], reference: str, shapes: Sequence[str],
    dtype: str, *, progress: Progress,
) -> Plan:  # fmt: skip
    """The plan with what is open answered; both models are built with memory, and the reference filled by names.

    Raises MatchError: where the file does not fit the reference, where no answer is right (undecided), and where
    nothing is open and the two compute different things (function-differs).
    """
    if not shapes:
        raise click.UsageError("--reference needs --input SIZES, such as 1,3,224,224, once for each argument")
    sizes = [sizes_of(text) for text in shapes]
    with progress(f"building {target} and {reference}"):
        model = build_model(target, keyword_arguments(keywords), on_meta=False)
        other = build_model(reference, {}, on_meta=False)
    from loadstone.model.exporting.examples import random_example
    from loadstone.model.load import load, plan

    example = random_example(sizes, dtype)
    with progress(f"running {target} beside {reference}"):
        load(other, file, weights=words["weights"])
        return plan(model, file, **python_options(words)).decide(example, reference=other)
