"""A checkpoint's tree as JSON and back: plain values as they are, tensors as references, a `$` where JSON has no word.

    3, "text", None, True, [..], {"lr": 0.1}        as in JSON
    {"$tuple": [..]}  {"$set": [..]}                other containers
    {"$dict": [[key, value], ..]}                   keys that are no text, or begin with `$`; an optimizer's numbers
    {"$float": "nan"}  {"$int": "0x.."}             what JSON cannot hold, or readers need not
    {"$complex": [re, im]}  {"$bytes": "base64"}
    {"$weight": key}  {"$tensor": key}              a tensor of the model's shards, or of the others; maybe with
                                                    "requires_grad": true

No torch: whoever holds tensors says how one is referred to.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from loadstone.errors import Diagnostic, FormatError, SaveError

Json: TypeAlias = Any

WEIGHT = "$weight"
TENSOR = "$tensor"
DEPTH = 100  # of containers; each takes up to three levels of JSON
JSON_DEPTH = 3 * DEPTH + 8
_PLAIN_BITS = 63  # integers of more bits are written in hexadecimal: not every parser of JSON can hold them
_ATTRIBUTES = "attributes"


def encode(value: object, leaf: Callable[[object, str], Json | None], place: str = "", depth: int = 0) -> Json:
    """The value as JSON.  `leaf` is asked first about everything: its JSON, or None for what it does not know.

    Raises SaveError (unsaveable-value), which names the place of a value that is no plain data.
    """
    known = leaf(value, place)
    if known is not None:
        return known
    kind = type(value)
    if value is None or kind in (bool, str):
        return value
    if kind is int and isinstance(value, int):
        return value if value.bit_length() <= _PLAIN_BITS else {"$int": hex(value)}
    if kind is float and isinstance(value, float):
        return value if math.isfinite(value) else {"$float": repr(value)}
    if kind is complex and isinstance(value, complex):
        return {"$complex": [encode(part, leaf) for part in (value.real, value.imag)]}
    if isinstance(value, (bytes, bytearray)):
        return {"$bytes": base64.b64encode(value).decode()}
    if depth == DEPTH:
        raise unsaveable(f"`{place:.200}` is nested more than {DEPTH} deep")
    if isinstance(value, Mapping):
        return _encoded_dict(value, leaf, place, depth)
    if isinstance(value, (list, tuple, set, frozenset)):
        children = [encode(child, leaf, _under(place, index), depth + 1) for index, child in enumerate(value)]
        if kind is list:
            return children
        return {"$tuple" if isinstance(value, tuple) else "$set": children}
    raise unsaveable(f"`{place or 'the object'}` is a {kind.__name__}, which is no plain data")


def decode(
    value: Json, tensor: Callable[[str, Mapping[str, Json]], Any], annotated: Callable[..., Any], name: str
) -> Any:
    """The value again.

    `tensor` is called with "$weight" or "$tensor" and the reference; `annotated` makes a dict that has attributes.
    Raises FormatError (header-invalid), which calls the file `name`.
    """

    def back(value: Json) -> Any:
        if isinstance(value, list):
            return [back(item) for item in value]
        if not isinstance(value, dict):
            return value
        tag = next((key for key in value if key.startswith("$")), None)
        if tag is None:
            return {key: back(child) for key, child in value.items()}
        try:
            return special(tag, value[tag], value)
        except (ValueError, TypeError, LookupError) as error:
            if isinstance(error, FormatError):
                raise
            raise _invalid(name, tag, value[tag]) from error

    def special(tag: str, content: Json, whole: Mapping[str, Json]) -> Any:
        if tag in (WEIGHT, TENSOR):
            return tensor(tag, whole)
        if tag == "$dict":
            entries = {back(key): back(child) for key, child in content}
            if _ATTRIBUTES in whole:
                return annotated(entries, attributes=back(whole[_ATTRIBUTES]))
            return entries
        if tag in _SIMPLE:
            return _SIMPLE[tag](content)
        if tag in _SEQUENCES:
            return _SEQUENCES[tag](back(item) for item in content)
        if tag == "$complex":
            real, imaginary = map(back, content)
            return complex(real, imaginary)
        raise _invalid(name, tag, content)

    try:
        return back(value)
    except RecursionError as error:
        raise FormatError(Diagnostic("header-invalid", f"{name} is nested too deep")) from error


_SIMPLE: Mapping[str, Callable[[Json], Any]] = {
    "$float": float,
    "$int": lambda text: int(text, 16),
    "$bytes": lambda text: base64.b64decode(text, validate=True),
}
_SEQUENCES: Mapping[str, Callable[..., Any]] = {"$tuple": tuple, "$set": set}


def _encoded_dict(value: Mapping[Any, Any], leaf: Callable[..., Json | None], place: str, depth: int) -> Json:
    for key in value:
        if type(key) not in (str, int, float, bool, bytes, type(None)):
            raise unsaveable(f"a key of `{place or 'the object'}` is a {type(key).__name__}")
    attributes = getattr(value, "_metadata", None)  # of a module's state dict: the version of each layer
    children = [(key, encode(child, leaf, _under(place, key), depth + 1)) for key, child in value.items()]
    if attributes is None and all(type(key) is str and not key.startswith("$") for key in value):
        return dict(children)
    encoded: dict[str, Json] = {"$dict": [[encode(key, leaf, place), child] for key, child in children]}
    if attributes is not None:
        encoded[_ATTRIBUTES] = {"_metadata": encode(attributes, leaf, f"{place}._metadata", depth + 1)}
    return encoded


def _under(place: str, name: object) -> str:
    text = name.decode("utf-8", "backslashreplace") if isinstance(name, bytes) else str(name)
    return f"{place}.{text}" if place else text


def unsaveable(message: str) -> SaveError:
    """The error for a value that has no place in a file."""
    return SaveError(Diagnostic("unsaveable-value", message))


def _invalid(name: str, tag: str, content: Json) -> FormatError:
    return FormatError(Diagnostic("header-invalid", f"{name} has a value that nothing wrote: {tag} {content!r:.80}"))
