"""Recipes: the options of a plan as a TOML file that can be read, reviewed, committed and used again.

[options]
strict = true
drop = ["head"]

[options.rename]
'^backbone\\.' = ""

A match by structure is written as what it found (see key_rules), with digests of the two lists of keys it was found
for.  The rules are what is applied when the recipe is used again.

[options.rules]
"stages.{a}.layers.{b}.*" = "layer{a+1}.{b}.*"
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from loadstone.errors import Diagnostic, Fix, RecipeError
from loadstone.io.digests import digest
from loadstone.keys import nearest
from loadstone.matching.adapters import Classes, Interpolate, adapter_of, adapter_table, check_adapters
from loadstone.matching.key_rules import check_rules
from loadstone.matching.options import Options
from loadstone.matching.schema import Slot
from loadstone.tensors import TensorInfo

_LISTS = ("only", "drop", "fresh")
_TABLES = ("rename", "adapt", "answers", "rules", "hashes")
_NAMES = ("strict", "match", *_LISTS, *_TABLES)
_LARGEST = 16 * 1024 * 1024  # bytes of a recipe file


def options_table(options: Options) -> dict[str, object]:
    """The options as a recipe has them: only those that differ from their defaults; callables as they are."""
    table: dict[str, object] = {}
    if not options.strict:
        table["strict"] = False
    for name in _LISTS:
        if getattr(options, name):
            table[name] = list(getattr(options, name))
    if options.rename is not None:
        table["rename"] = options.rename if callable(options.rename) else dict(options.rename)
    if options.adapt:
        table["adapt"] = dict(options.adapt)
    if options.match != "names":
        table = {"match": options.match, **table}
    for name in ("answers", "rules", "hashes"):
        if getattr(options, name):
            table[name] = dict(getattr(options, name))
    return table


def hashes_of(sources: Mapping[str, TensorInfo], slots: Mapping[str, Slot]) -> dict[str, str]:
    """Digests of both lists of keys, each with shape and dtype; the order of keys does not matter."""

    def hashed(tensors: Mapping[str, TensorInfo] | Mapping[str, Slot]) -> str:
        lines = sorted(f"{key} {'x'.join(map(str, one.shape))} {one.dtype}" for key, one in tensors.items())
        return digest("\n".join(lines).encode("utf-8", "surrogatepass"))

    return {"checkpoint": hashed(sources), "model": hashed(slots)}


def changed_since(options: Options, hashes: Mapping[str, str]) -> Iterator[Diagnostic]:
    """recipe-changed for each side that is not the one the rules were made for."""
    for side, was in options.hashes.items():
        if hashes.get(side) != was:
            message = f"the recipe was made for another {side}: keys, shapes or dtypes differ"
            yield Diagnostic("recipe-changed", message, (("then", was), ("now", hashes.get(side, "unknown"))))


def write_recipe(table: Mapping[str, object]) -> str:
    """The TOML text of `options_table`.  Raises RecipeError where an option is a callable."""
    lines = ["[options]"]
    tables = []
    for name, value in table.items():
        if isinstance(value, Mapping):
            tables += ["", f"[options.{name}]"]
            tables += [f"{_string(key)} = {_scalar(name, key, one)}" for key, one in value.items()]
        elif isinstance(value, list):
            lines.append(f"{name} = [" + ", ".join(_string(one) for one in value) + "]")
        else:
            lines.append(f"{name} = {_scalar(name, name, value)}")
    return "\n".join([*lines, *tables]) + "\n"


def read_recipe(path: str | os.PathLike[str]) -> Options:
    """The options of a recipe file.  Raises RecipeError where it cannot be read or used."""
    place = Path(path)
    try:
        if place.stat().st_size > _LARGEST:
            raise _wrong(f"`{place}` is larger than a recipe can be ({_LARGEST:,} bytes)")
        text = place.read_text("utf-8")
    except OSError as error:
        raise _wrong(f"`{place}` cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise _wrong(f"`{place}` is no text: {error.reason} at byte {error.start}") from error
    return parse_recipe(text, name=str(place))


def parse_recipe(text: str, *, name: str = "the recipe") -> Options:
    """The options of a recipe's text.  Raises RecipeError that names the line or the key that is wrong."""
    try:
        document = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise _wrong(f"`{name}` is no TOML: {error}") from error
    for key in document:
        if key != "options":
            raise _unknown(key, ("options",), name)
    table = document.get("options", {})
    if not isinstance(table, dict):
        raise _wrong(f"`options` in `{name}` is no table")
    for key, value in table.items():
        if key not in _NAMES:
            raise _unknown(key, _NAMES, name)
        _check(key, value, name)
    adapt = {glob: adapter_of(how) if isinstance(how, dict) else how for glob, how in table.get("adapt", {}).items()}
    check_adapters(adapt)
    check_rules(table.get("rules", {}), name)
    for pattern in table.get("rename", {}):
        try:
            re.compile(pattern)
        except re.error as error:
            raise _wrong(f"`{pattern}` in `rename` of `{name}` is no regular expression: {error}") from error
    return Options(
        strict=table.get("strict", True),
        rename=table.get("rename"),
        only=tuple(table.get("only", ())),
        drop=tuple(table.get("drop", ())),
        fresh=tuple(table.get("fresh", ())),
        adapt=adapt,
        match=table.get("match", "names"),
        answers=table.get("answers", {}),
        rules=table.get("rules", {}),
        hashes=table.get("hashes", {}),
    )


def _check(key: str, value: Any, name: str) -> None:
    if key == "strict":
        fits, wanted = isinstance(value, bool), "true or false"
    elif key == "match":
        fits, wanted = value in ("names", "structure"), '"names" or "structure"'
    elif key in _LISTS:
        fits, wanted = isinstance(value, list) and all(isinstance(one, str) for one in value), "a list of globs"
    else:
        kinds = (str, dict) if key == "adapt" else str
        fits = isinstance(value, dict) and all(isinstance(one, kinds) for one in value.values())
        wanted = "a table of strings" if key != "adapt" else "a table of adapters"
    if not fits:
        raise _wrong(f"`{key}` in `{name}` is {type(value).__name__}, it takes {wanted}")


def _scalar(option: str, key: str, value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return _string(value)
    if isinstance(value, (Classes, Interpolate)):
        return _inline(adapter_table(value))
    place = f"`{option}`" if option == key else f"`{option}` for `{key}`"
    raise _wrong(f"{place} is a callable, which a recipe cannot hold")


def _inline(value: object) -> str:
    """A table, a list, a text or a whole number of TOML, on one line."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key} = {_inline(one)}" for key, one in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_inline, value)) + "]"
    return _string(value) if isinstance(value, str) else str(value)


def _string(text: str) -> str:
    """A TOML string: literal where that reads better (regular expressions), else with escapes."""
    if "\\" in text and not re.search(r"['\x00-\x1f\x7f\ud800-\udfff]", text):
        return f"'{text}'"
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + re.sub(r"[\x00-\x1f\x7f]", lambda match: f"\\u{ord(match[0]):04x}", escaped) + '"'


def _unknown(key: str, known: tuple[str, ...], name: str) -> RecipeError:
    fixes = tuple(Fix("did you mean", near) for near in nearest(key, known, 1))
    return RecipeError(
        Diagnostic("recipe-invalid", f"`{key}` in `{name}` is no option; it takes {', '.join(known)}", fixes=fixes)
    )


def _wrong(message: str) -> RecipeError:
    return RecipeError(Diagnostic("recipe-invalid", message))
