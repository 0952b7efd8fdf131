"""torchvision → timm → transformers → torchvision gives back every bit.

Part of `make bench-pairs`, whose environment has all three.
"""

from __future__ import annotations

import pytest
import timm
import torch
import transformers
from torchvision import models

import loadstone


def filled(model: torch.nn.Module) -> torch.nn.Module:
    """Random values in every tensor, so that no two are equal by their initialisation."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for tensor in model.state_dict().values():
            if tensor.is_floating_point():
                tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.1)
    return model


CHAINS = {
    "resnet50": lambda: (
        models.resnet50(),
        timm.create_model("resnet50"),
        transformers.ResNetForImageClassification(transformers.ResNetConfig(num_labels=1000)),
    ),
    "vit_b_16": lambda: (
        models.vit_b_16(),
        timm.create_model("vit_base_patch16_224"),
        transformers.ViTForImageClassification(transformers.ViTConfig(num_labels=1000)),
    ),
}


@pytest.mark.parametrize("name", CHAINS)
def test_around_three_libraries_and_back_to_the_bit(name: str) -> None:
    first, second, third = CHAINS[name]()
    before = {key: tensor.clone() for key, tensor in filled(first).state_dict().items()}
    loadstone.load(second, first.state_dict(), match="structure")
    loadstone.load(third, second.state_dict(), match="structure")
    filled(first).load_state_dict({key: torch.zeros_like(tensor) for key, tensor in before.items()})
    loadstone.load(first, third.state_dict(), match="structure")
    after = first.state_dict()
    assert [key for key, tensor in before.items() if not torch.equal(after[key], tensor)] == []
