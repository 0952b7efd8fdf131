"""A model as it is to the bit, to compare with what it is after a load that was refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn


def picture(model: nn.Module) -> dict[str, Any]:
    """Everything that a refused load must leave alone: objects, bits, versions, requires_grad, structure."""
    tensors = [*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False)]
    return {
        "tensors": {
            key: (
                id(tensor),
                tensor._version,
                tensor.requires_grad,
                str(tensor.device),
                None if tensor.is_meta else tensor.detach().contiguous().reshape(-1).view(torch.uint8).tolist(),
            )
            for key, tensor in tensors
        },
        "modules": [(path, id(module), module.training) for path, module in model.named_modules()],
        "attributes": {
            path: {name: repr(value) for name, value in vars(module).items() if not name.startswith("_")}
            for path, module in model.named_modules()
        },
    }


@pytest.fixture
def unchanged() -> Callable[[nn.Module], Callable[[], None]]:
    """`check = unchanged(model)` before, `check()` after."""

    def before(model: nn.Module) -> Callable[[], None]:
        expected = picture(model)

        def after() -> None:
            assert picture(model) == expected

        return after

    return before


class Small(nn.Module):
    """Parameters, buffers, a non-persistent buffer and a tie in a few numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(3, 4)
        self.norm = nn.BatchNorm1d(4)
        self.embed = nn.Embedding(5, 4)
        self.head = nn.Linear(4, 5, bias=False)
        self.head.weight = self.embed.weight
        self.register_buffer("mask", torch.ones(2, 2), persistent=False)


@pytest.fixture
def small() -> nn.Module:
    """A Small of its own random values."""
    return Small()


@pytest.fixture
def trained() -> nn.Module:
    """Another Small of other values."""
    model = Small()
    with torch.no_grad():
        for tensor in model.state_dict().values():
            tensor.copy_(torch.rand(tensor.shape) * 10)
    return model
