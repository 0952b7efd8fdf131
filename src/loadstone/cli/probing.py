"""`loadstone verify --probe`: does a model, built here and filled from the file, compute what the file remembers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from loadstone.cli.planning import Progress, keyword_arguments
from loadstone.cli.target import build_model

if TYPE_CHECKING:
    from loadstone.matching.probed import Probed


def probed(file: str, target: str, keywords: Sequence[str], weights: str | None, *, progress: Progress) -> Probed:
    """How far the outputs are apart.  Raises MatchError: probe-differs, no-probe, or where the file does not fit."""
    with progress(f"building {target}"):
        model = build_model(target, keyword_arguments(keywords), on_meta=False)
    from loadstone.model.load import load

    with progress(f"running {target}"):
        return load(model, file, weights=weights).check()
