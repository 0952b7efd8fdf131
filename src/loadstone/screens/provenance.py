"""What a file says about itself, in a few lines: who wrote it and when, from what model, how far it was trained."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from loadstone.screens import quantities
from loadstone.screens.lines import Line, line
from loadstone.screens.text import visible, wrap_words

if TYPE_CHECKING:
    from loadstone.manifest import Manifest

_LABEL = 11  # cells
_COMMIT = 9  # digits of a commit that are shown


def provenance_lines(manifest: Manifest, width: int) -> list[Line]:
    """The section of an inspection, each line with a label in front; what the manifest does not say is left out."""
    rows = (
        ("written", _written(manifest.written)),
        ("model", _model(manifest.model)),
        ("training", _training(manifest.training)),
        ("comes from", _texts(manifest.parent or {}, "name")),
        ("proof", _proof(manifest)),
    )
    lines: list[Line] = []
    for label, facts in rows:
        for number, text in enumerate(wrap_words(facts, width - _LABEL - 2, "   ") if facts else ()):
            lines.append(line("  ", (f"{'' if number else label:<{_LABEL}}", "dim"), text))
    return lines


def _written(written: Mapping[str, Any]) -> list[str]:
    time = written.get("time")
    facts = [f"{time[:16].replace('T', ' ')} UTC"] if isinstance(time, str) and len(time) >= 16 else []
    facts += [
        f"{name} {visible(written[name])}" for name in ("loadstone", "torch") if isinstance(written.get(name), str)
    ]
    git = written.get("git")
    if isinstance(git, dict) and isinstance(git.get("commit"), str):
        facts.append(f"git {visible(git['commit'][:_COMMIT])}" + (" and changes" if git.get("is_dirty") else ""))
    return facts


def _model(model: Mapping[str, Any]) -> list[str]:
    facts = _texts(model, "class")
    modules = model.get("modules")
    if isinstance(modules, dict):
        facts.append(quantities.counted(len(modules), "module"))
    parameters, trainable = model.get("parameters"), model.get("trainable")
    if type(parameters) is int and parameters >= 0:
        facts.append(f"{quantities.elements(parameters)} parameters")
        if type(trainable) is int and 0 <= trainable < parameters:
            facts.append(f"{quantities.elements(trainable)} of them trained")
    return facts


def _training(training: Mapping[str, Any]) -> list[str]:
    facts = [f"{name} {training[name]:,}" for name in ("epoch", "step") if type(training.get(name)) is int]
    metrics = training.get("metrics")
    if isinstance(metrics, dict):
        facts += [f"{visible(name)} {value:.6g}" for name, value in metrics.items() if type(value) in (int, float)]
    return facts


def _proof(manifest: Manifest) -> list[str]:
    facts = [f"digests of {quantities.counted(len(manifest.tensors), 'tensor')}"]
    if manifest.probe is not None:
        facts.append("an output to compare with: `plan.check()`")
    return facts


def _texts(values: Mapping[str, Any], name: str) -> list[str]:
    value = values.get(name)
    return [visible(value)] if isinstance(value, str) and value else []
