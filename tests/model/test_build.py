"""`build` gives what constructing and loading gives, in every tensor, without the work of initialising."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from torch import nn
from torchvision import models

import loadstone as ls
from loadstone.model.uninitialised import Uninitialised

FAMILIES: dict[str, Callable[[], nn.Module]] = {
    "alexnet": lambda: models.alexnet(num_classes=3),
    "densenet": lambda: models.DenseNet(8, (2, 2, 2, 2), 16),
    "efficientnet": lambda: models.efficientnet_b0(num_classes=3),
    "googlenet": lambda: models.googlenet(init_weights=False, aux_logits=False),
    "mnasnet": lambda: models.mnasnet0_5(),
    "mobilenet_v2": lambda: models.mobilenet_v2(),
    "mobilenet_v3": lambda: models.mobilenet_v3_small(),
    "regnet": lambda: models.regnet_y_400mf(),
    "resnet": lambda: models.resnet18(),
    "shufflenet": lambda: models.shufflenet_v2_x0_5(),
    "squeezenet": lambda: models.squeezenet1_1(),
    "swin": lambda: models.SwinTransformer([4, 4], 24, [2, 2], [2, 4], [7, 7]),
    "swin_v2": lambda: models.SwinTransformer(
        [4, 4], 24, [2, 2], [2, 4], [7, 7],
        block=models.swin_transformer.SwinTransformerBlockV2,
        downsample_layer=models.swin_transformer.PatchMergingV2,
    ),
    "vit": lambda: models.VisionTransformer(32, 8, 2, 2, 16, 32),
}  # fmt: skip


def every_tensor(model: nn.Module) -> dict[str, torch.Tensor]:
    return dict([*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False)])


def assert_same(built: nn.Module, loaded: nn.Module) -> None:
    ours, expected = every_tensor(built), every_tensor(loaded)
    assert list(ours) == list(expected)
    for key, tensor in expected.items():
        assert torch.equal(ours[key], tensor), key
        assert ours[key].requires_grad == tensor.requires_grad, key
        assert type(ours[key]) is type(tensor), key
    assert [module.training for module in built.modules()] == [module.training for module in loaded.modules()]


def both(factory: Callable[[], nn.Module], source: Any, **options: Any) -> tuple[nn.Module, nn.Module]:
    results = []
    for make in (lambda: ls.build(factory, source, **options), lambda: loaded_after(factory, source, options)):
        torch.manual_seed(3)
        random.seed(3)
        numpy.random.seed(3)
        results.append(make())
    return results[0], results[1]


def loaded_after(factory: Callable[[], nn.Module], source: Any, options: dict[str, Any]) -> nn.Module:
    model = factory()
    ls.load(model, source, **options)
    return model


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_comes_out_as_constructed_and_loaded(family: str, tmp_path: Path) -> None:
    factory = FAMILIES[family]
    torch.save(factory().state_dict(), tmp_path / "m.pth")
    assert_same(*both(factory, tmp_path / "m.pth"))


@pytest.mark.parametrize("family", ["alexnet", "swin", "vit"])
def test_initialisation_is_left_out_where_a_file_fills_everything(family: str) -> None:
    mode = Uninitialised()
    with mode:
        model = FAMILIES[family]()
    assert mode.is_certain
    weights = [parameter for parameter in model.parameters() if parameter.dim() > 1]
    assert sum(mode.is_empty(weight) for weight in weights) > len(weights) / 2


def test_fresh_head_is_initialised_as_ever(tmp_path: Path) -> None:
    torch.save(models.resnet18().state_dict(), tmp_path / "m.pth")
    built, loaded = both(lambda: models.resnet18(num_classes=7), tmp_path / "m.pth", drop=["fc"], fresh=["fc"])
    assert_same(built, loaded)
    assert built.fc.weight.std() > 0


class Derived(nn.Module):
    """Buffers and attributes that follow from initial values in every way we know."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, 4))
        if way == "buffer":
            self.register_buffer("average", self.weight.detach().clone(), persistent=False)
        elif way == "scalar":
            self.register_buffer("scale", torch.ones(1) * self.weight.abs().max().item(), persistent=False)
        elif way == "numpy":
            self.register_buffer("scale", torch.tensor(self.weight.detach().numpy().max()), persistent=False)
        elif way == "noise":
            self.register_buffer("noise", torch.rand(3), persistent=False)
        elif way == "attribute":
            self.first_row = self.weight.detach()[0] * 2
        elif way == "permutation":
            self.register_buffer("order", torch.randperm(9), persistent=False)
        elif way == "numpy random":
            self.register_buffer("noise", torch.from_numpy(numpy.random.rand(3)), persistent=False)
            self.register_buffer("drawn", torch.rand(1), persistent=False)


@pytest.mark.parametrize("way", ["buffer", "scalar", "numpy", "noise", "attribute", "permutation", "numpy random"])
def test_what_follows_from_initial_values_is_right(way: str, tmp_path: Path) -> None:
    torch.save({"weight": torch.ones(4, 4)}, tmp_path / "m.pth")
    built, loaded = both(lambda: Derived(way), tmp_path / "m.pth")
    assert_same(built, loaded)
    if way == "attribute":
        assert torch.equal(built.first_row, loaded.first_row)


def test_options_reach_the_load(tmp_path: Path) -> None:
    torch.save(nn.DataParallel(nn.Linear(2, 3)).state_dict(), tmp_path / "m.pth")
    model = ls.build(lambda: nn.Linear(2, 3), tmp_path / "m.pth", dtype=torch.float16)
    assert model.weight.dtype == torch.float16


def test_source_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    torch.save(nn.Linear(2, 3).state_dict(), tmp_path / "m.pth")
    with pytest.raises(ls.MatchError, match="shape-mismatch"):
        ls.build(lambda: nn.Linear(2, 4), tmp_path / "m.pth")


def test_ties_stay_ties(small: nn.Module, tmp_path: Path) -> None:
    torch.save(small.state_dict(), tmp_path / "m.pth")
    model = ls.build(type(small), tmp_path / "m.pth")
    assert model.head.weight is model.embed.weight
