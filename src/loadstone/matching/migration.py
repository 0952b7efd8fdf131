"""Migration: what the modules of a model do to a state dict by themselves, as data.

`load_state_dict` lets every module change the keys before they are compared: pre-hooks, an overridden
`_load_from_state_dict`, layers that know their own older versions.  The floor that knows modules runs them on stand-ins
without values and hands the difference down here, so that a plan can say what they did.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from loadstone.errors import Diagnostic
from loadstone.tensors import TensorInfo

Read = Callable[[str], Any]  # the tensor of a key as it was before the hook ran
Compute = Callable[[Read], Any]  # the tensor that the hook made of it


@dataclass(frozen=True, slots=True)
class Migration:
    """What the modules changed; every key is in the model's space (after `rename` and wrapper prefixes).

    Attributes:
        moved: new key → the key it had before the hook ran; the same tensor under another name.
        computed: key of a tensor that a hook made or changed → the function that gives it.
        shapes: (dtype, shape) of each computed tensor.
        removed: keys that a hook took away → why.
        failed: hook-failed, one for each hook that raised.
    """

    moved: Mapping[str, str] = field(default_factory=dict)
    computed: Mapping[str, Compute] = field(default_factory=dict)
    shapes: Mapping[str, tuple[str, tuple[int, ...]]] = field(default_factory=dict)
    removed: Mapping[str, str] = field(default_factory=dict)
    failed: tuple[Diagnostic, ...] = ()


Migrate = Callable[[Mapping[str, TensorInfo]], Migration]
