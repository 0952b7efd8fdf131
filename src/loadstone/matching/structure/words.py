"""Words: a key as a path of words and numbers, and the few words that mean the same in every code base.

`encoder.layer1.LayerNorm.weight` is ("encoder", "layer", 1, "layer", "norm") with the role "weight".  Numbers stand
apart from the words before them, so that `layer1` and `layers.1` can be compared.  A component that looks like a hash
stays one word: its digits number nothing.

The roles below are facts of the field (torch, TensorFlow and flax spell them so).  They are not to grow with models:
what a word means in one architecture is found from shapes and neighbours, or asked.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import TypeAlias

Token: TypeAlias = str | int
Path: TypeAlias = tuple[Token, ...]

_PIECES = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
_HASH = re.compile(r"(?=.*\d)[0-9a-f]{6,}|\d{6,}|0\d+|\d+[a-z]\w*|[a-f]+\d+[a-f]+\d*", re.IGNORECASE)

ROLES = {  # word in a leaf name → the role of the tensor in its layer
    "weight": "weight", "kernel": "weight", "gamma": "weight", "scale": "weight", "w": "weight",
    "bias": "bias", "beta": "bias", "shift": "bias", "b": "bias",
    "running_mean": "mean", "moving_mean": "mean",
    "running_var": "var", "moving_variance": "var", "moving_var": "var",
    "num_batches_tracked": "count",
    "weight_g": "magnitude", "weight_v": "direction",
    "parametrizations.weight.original0": "magnitude", "parametrizations.weight.original1": "direction",
    "weight_orig": "undivided", "weight_u": "left",  # spectral_norm's, beside weight_v
    "parametrizations.weight.original": "undivided",
    "parametrizations.weight.0._u": "left", "parametrizations.weight.0._v": "direction",
}  # fmt: skip
_PREFIXES = ("weight", "bias", "w", "b")  # begin a longer leaf as well: weight_ih_l0
_SUFFIXES = (*_PREFIXES, "kernel")  # and end one: in_proj_weight, depthwise_kernel

# Parts of one projection in the order in which every implementation that fuses them stacks them.
FUSED = {"qkv": ("q", "k", "v"), "kv": ("k", "v"), "ifgo": ("i", "f", "g", "o"), "rzn": ("r", "z", "n")}
PART_WORDS = {
    "query": "q", "key": "k", "value": "v", "queries": "q", "keys": "k", "values": "v", "wq": "q", "wk": "k", "wv": "v",
}  # fmt: skip

# Words that count: the first and the second of two.
ORDINALS = {
    "before": 1, "after": 2, "pre": 1, "post": 2, "first": 1, "second": 2, "third": 3, "a": 1, "b": 2, "c": 3,
}  # fmt: skip


# Words that say where a thing lies from another: `post_attention` is behind the attention, and may be the next one's.
_BESIDE = ("before", "after", "pre", "post")


@lru_cache(maxsize=100_000)
def telling(path: Path) -> tuple[str, ...]:
    """The words of a path that may tell it from others; a word of place takes the next word in."""
    found: list[str] = []
    for token in path:
        if isinstance(token, str):
            if found and found[-1] in _BESIDE:
                found[-1] += f" {token}"
            else:
                found.append(token)
    return tuple(dict.fromkeys(found))


def by_word(paths: Iterable[Path], members: Iterable[int]) -> dict[str, list[int]]:
    """Members by the words of their paths that may tell them from others."""
    found: dict[str, list[int]] = {}
    for path, index in zip(paths, members, strict=True):
        for word in telling(path):
            found.setdefault(word, []).append(index)
    return found


def holders(text: str) -> list[str]:
    """The containers of a layer or a tensor by its dotted name, nearest first, up to "" for the whole model."""
    found = []
    while text:
        text = text.rpartition(".")[0]
        found.append(text)
    return found


def blank(path: Path) -> tuple[str, ...]:
    """The path without its numbers: what all members of a family share."""
    return tuple("#" if isinstance(token, int) else token for token in path)


@lru_cache(maxsize=100_000)
def tokens(text: str) -> Path:
    """Words in lower case and numbers, in order of appearance."""
    found: list[Token] = []
    for component in re.split(r"[^0-9A-Za-z]+", text):
        if _HASH.fullmatch(component):
            found.append(component.lower())
            continue
        for piece in _PIECES.findall(component):
            found.append(int(piece) if piece.isdigit() else _word(piece.lower()))
    return tuple(found)


@lru_cache(maxsize=100_000)
def containers(text: str) -> tuple[int, ...]:
    """Where in the path of a layer its containers and numbered families end, nearest first.

    `layers.0.conv` is in (layers, 0) and (layers); `layer_norm` beside it is not in (layer), though both begin so.
    """
    ends: list[int] = []
    length = 0
    for component in text.split("."):
        inside = tokens(component)
        ends += [length + depth for depth, token in enumerate(inside) if isinstance(token, int) and length + depth]
        length += len(inside)
        ends.append(length)
    return tuple(sorted({end for end in ends if end < length}, reverse=True))


@lru_cache(maxsize=10_000)
def _word(piece: str) -> str:
    """A word in its first form: layers is layer, embeddings is embed."""
    if piece in PART_WORDS:
        return PART_WORDS[piece]
    if len(piece) > 3 and piece.endswith("s") and not piece.endswith(("ss", "us", "is", "as")):
        piece = piece[:-1]
    stem = piece.removesuffix("ing")
    if stem != piece and len(stem) > 2 and any(vowel in stem for vowel in "aeiou"):
        piece = stem[:-1] if stem[-1] == stem[-2] and stem[-1] not in "lsz" else stem
    return piece


@lru_cache(maxsize=100_000)
def place(key: str) -> tuple[Path, str, str]:
    """Path of the layer, its text, and the role of the tensor in it ("" for a tensor that stands alone)."""
    dotted = key.replace("/", ".")
    owner, dot, way = f".{dotted}".rpartition(".parametrizations.")
    if dot and (role := ROLES.get(f"parametrizations.{way}")):
        return tokens(owner[1:]), owner[1:], role
    parent, _, leaf = dotted.rpartition(".")
    if role := ROLES.get(leaf.lower()):
        return tokens(parent), parent, role
    words = leaf.split("_")
    for end, rest, affixes in ((0, words[1:], _PREFIXES), (-1, words[:-1], _SUFFIXES)):
        if len(words) > 1 and words[end] in affixes:
            text = "_".join(rest)
            return tokens(f"{parent}.{text}"), f"{parent}.{text}" if parent else text, ROLES[words[end]]
    return tokens(dotted), dotted, ""


def part_of(path: Path, text: str) -> tuple[str, str] | None:
    """(text with the part's word taken out, part) where the last component names a part of a projection: `to_q`."""
    parent, dot, last = text.rpartition(".")
    words = last.split("_")
    for index, word in enumerate(words):
        part = PART_WORDS.get(word.lower(), word.lower())
        if part in PARTS:
            rest = "_".join((*words[:index], "*", *words[index + 1 :]))
            return parent + dot + rest, part
    return None


PARTS = frozenset(part for parts in FUSED.values() for part in parts) | {"kv"}


def stacking(path: Path) -> str:
    """What a layer's name says about how its rows are stacked; "" where it says nothing.

    Megatron's `query_key_value` stacks head by head, `qkv` and torch's `in_proj` part by part; the gates of torch's
    recurrent layers (`ih`, `hh`) are i, f, g, o and r, z, n.
    """
    words = [token for token in path if isinstance(token, str)]
    if "q" in words and "k" in words and "v" in words:
        return "q, k, v, perhaps head by head"
    if any(word.endswith("qkv") for word in words[-3:]) or words[-2:] == ["in", "proj"]:
        return "q, k, v"
    if "ih" in words or "hh" in words:
        return "gates as torch stacks them"
    return ""
