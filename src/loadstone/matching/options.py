"""Options of a plan, checked once: what a person decided about keys."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Rename = Callable[[str], str]
Adapter = str | Callable[..., Any]  # "fresh", "slice", "pad", "cast", or (tensor, target_shape) -> tensor


@dataclass(frozen=True, slots=True)
class Options:
    """What plan and load were told about keys; see design: "Options of plan and load".

    Attributes:
        strict: an unsettled key on either side is an error.
        rename: {regex: replacement}, applied in order with re.sub to every checkpoint key, or one callable.
        only, drop: globs over checkpoint keys.  In a glob `*` stops at a dot, `**` does not, and a bare module name
            means everything under it.
        fresh: globs over model keys that keep the values they have.
        adapt: {glob over model keys: adapter}.
        match: "names" or "structure".
        dtype: the dtype parameters end up in, where one was asked for; None keeps the model's.
        assign: parameters become the file's tensors, in the file's dtype unless `dtype` is given.
    """

    strict: bool = True
    rename: Mapping[str, str] | Rename | None = None
    only: tuple[str, ...] = ()
    drop: tuple[str, ...] = ()
    fresh: tuple[str, ...] = ()
    adapt: Mapping[str, Adapter] = field(default_factory=dict)
    match: Literal["names"] = "names"
    dtype: str | None = None
    assign: bool = False
