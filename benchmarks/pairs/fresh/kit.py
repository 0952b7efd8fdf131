"""Short words for pairs: builders for more libraries, inputs, and how hand-written networks are paired."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import torch
from core import STORAGE, Impl, call, hfi, set_eps  # type: ignore[import-not-found]  # the folder's own
from oracle import IDENT, Canon, ExecOrder, Order  # type: ignore[import-not-found]
from torch import nn

from benchmarks.pairs.fresh.tables import table

ORDER, RUN = Order(), ExecOrder()
BN5, BN3, LN5, LN6 = set_eps(bn=1e-5), set_eps(bn=1e-3), set_eps(ln=1e-5), set_eps(ln=1e-6)


def images(size: int, batch: int = 2, channels: int = 3) -> Callable[[], torch.Tensor]:
    def make() -> torch.Tensor:
        dice = torch.Generator().manual_seed(11)
        return torch.randn(batch, channels, size, size, generator=dice, dtype=torch.float64)

    return make


def tokens(words: int = 100, length: int = 12) -> Callable[[], torch.Tensor]:
    return lambda: torch.randint(3, words, (2, length), generator=torch.Generator().manual_seed(11))


def numbers(*shape: int) -> Callable[[], torch.Tensor]:
    return lambda: torch.randn(*shape, generator=torch.Generator().manual_seed(11), dtype=torch.float64)


def of(library: str, module: str, make: Callable[[Any], nn.Module], names: str = "", run: Any = call) -> Any:
    """An implementation from a package: `make` gets the imported module."""
    STORAGE.setdefault(library, "pth")
    return Impl(library, lambda: make(importlib.import_module(module)), table(names) if names else IDENT, run)


def hf(architecture: str, names: str = "", run: Any = call, drop: tuple[str, ...] = (), **config: Any) -> Any:
    """A model of transformers; without names its own keys are the parts."""
    canon = table(names, drop) if names else Canon([(".*", r"\g<0>")], drop)
    kind = next((architecture.removesuffix(end) for end in _ENDS if architecture.endswith(end)), architecture)
    return hfi(architecture, f"{kind}Config", canon, run, **config)


_ENDS = (
    "ForImageClassificationWithTeacher",
    "ForImageClassification",
    "ForConditionalGeneration",
    "ForCausalLM",
    "LMHeadModel",
    "ForMaskedLM",
    "ForCTC",
    "ForSequenceClassification",
    "ModelWithProjection",
    "Model",
)


def own(network: Callable[..., nn.Module], names: str, run: Any = call, **options: Any) -> Any:
    """A hand-written network under the names of a table."""
    return Impl("own", lambda: network(names, **options), table(names), run, label="hand-written")


def last(model: nn.Module, x: Any) -> torch.Tensor:
    found: torch.Tensor = model(x).last_hidden_state
    return found
