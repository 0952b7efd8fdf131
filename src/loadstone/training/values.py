"""What a script says in plain words, parsed at the edge: a config as JSON has it, metrics as numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from loadstone.errors import Diagnostic, Fix, RecipeError


def plain_config(config: object) -> dict[str, Any]:
    """The config as plain values: dicts, lists, strings, numbers.  An argparse.Namespace is its attributes.

    Raises RecipeError (invalid-option), which names the place of a value that is none of these.
    """
    if config is None:
        return {}
    content = vars(config) if not isinstance(config, Mapping) and hasattr(config, "__dict__") else config
    if not isinstance(content, Mapping):
        raise RecipeError(Diagnostic("invalid-option", f"`config` is a {type(config).__name__}, not a dict"))
    return {str(key): _plain(value, f"config.{key}") for key, value in content.items()}


def _plain(value: Any, place: str) -> Any:
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, Mapping):
        return {str(key): _plain(each, f"{place}.{key}") for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(each, f"{place}.{at}") for at, each in enumerate(value)]
    fixes = (Fix("give it as text", f"str({place.rpartition('.')[2]})"),)
    message = f"`{place}` is a {type(value).__name__}; a config holds numbers, strings, lists and dicts"
    raise RecipeError(Diagnostic("invalid-option", message, fixes=fixes))


def plain_metrics(metrics: Mapping[str, Any]) -> dict[str, float]:
    """Every metric as a float; a tensor or array with one element is one.  NaN and infinities are allowed."""
    return {name: _number(name, value) for name, value in metrics.items()}


def _number(name: str, value: Any) -> float:
    try:
        if not isinstance(value, (str, bytes)):
            return float(value.item() if callable(getattr(value, "item", None)) else value)
    except (TypeError, ValueError, RuntimeError, OverflowError):
        pass
    raise RecipeError(Diagnostic("invalid-option", f"the metric `{name}` is a {type(value).__name__}, not a number"))
