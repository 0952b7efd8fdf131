"""Heads and inputs of every classification model of torchvision, found and replaced.

Models are built on meta where they are large: finding never looks at values.  torchvision's own constructor with
another number of classes is the oracle for names, shapes and first values.
"""

from __future__ import annotations

import warnings

import pytest
import torch
import torchvision
from torch import nn
from torchvision.models import get_model, list_models

import loadstone as ls
from loadstone.model.surgery.initial import initialise
from loadstone.model.uninitialised import Uninitialised

NAMES = list_models(module=torchvision.models)
AUXILIARY = {"inception_v3": ["fc", "AuxLogits.fc"], "googlenet": ["fc", "aux1.fc2", "aux2.fc2"]}
SMALL = [  # one a family, the cheapest to run
    "alexnet", "convnext_tiny", "densenet121", "efficientnet_b0", "efficientnet_v2_s", "googlenet", "inception_v3",
    "maxvit_t", "mnasnet0_5", "mobilenet_v2", "mobilenet_v3_small", "regnet_x_400mf", "regnet_y_400mf", "resnet18",
    "shufflenet_v2_x0_5", "squeezenet1_1", "swin_t", "swin_v2_t", "vgg11", "vit_b_32",
]  # fmt: skip
RUN = ["resnet18", "squeezenet1_1", "mobilenet_v3_small", "shufflenet_v2_x0_5", "mnasnet0_5"]


def built(name: str, **sizes: int) -> nn.Module:
    """The model of that name, on meta."""
    where = Uninitialised() if name.startswith("regnet") else torch.device("meta")  # RegNet computes its widths
    with where, warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # GoogLeNet and Inception speak about their initialisation
        model = get_model(name, **sizes)
    return model.to("meta")


def shapes(model: nn.Module) -> dict[str, tuple[int, ...]]:
    return {key: tuple(tensor.shape) for key, tensor in model.state_dict().items()}


@pytest.mark.parametrize("name", NAMES)
def test_the_head_is_the_layer_that_the_number_of_classes_changes(name):
    model = built(name)
    edit = ls.replace_head(model, 7)
    assert shapes(model) == shapes(built(name, num_classes=7))
    assert {change.name.rpartition(".")[0] for change in edit.changes} == set(edit.names)
    assert edit in edit.names


@pytest.mark.parametrize("name", AUXILIARY)
def test_auxiliary_heads_follow_the_main_one(name):
    edit = ls.replace_head(built(name), 7)
    assert list(edit.names) == AUXILIARY[name]


@pytest.mark.parametrize("name", SMALL)
def test_the_input_layer_takes_another_number_of_channels(name):
    model = built(name)
    edit = ls.replace_input(model, 4)
    ((before, after),) = [(change.before, change.after) for change in edit.changes]
    assert (before[1], after[1]) == (3, 4)
    size = 299 if name == "inception_v3" else 224
    assert model.eval()(torch.zeros(2, 4, size, size, device="meta")).shape == (2, 1000)


@pytest.mark.parametrize("name", RUN)
def test_the_edited_model_runs_and_learns(name):
    model = get_model(name)
    ls.replace_head(model, 7)
    ls.replace_input(model, 4)
    scores = model(torch.rand(2, 4, 64, 64))
    scores.sum().backward()
    assert scores.shape == (2, 7)
    assert all(parameter.grad is not None for parameter in model.parameters())


@pytest.mark.parametrize("name", [name for name in SMALL if name != "inception_v3"])  # its constructor takes 30 s
def test_a_fresh_head_is_drawn_as_the_family_draws_its_own(name):
    model = built(name)
    edit = ls.replace_head(model, 500)
    reference = head_of_a_constructed(name, str.__str__(edit), 500)
    layer = model.get_submodule(edit).to_empty(device="cpu")
    initialise(layer, model, edit.name)
    for (key, drawn), wanted in zip(layer.named_parameters(), reference.parameters(), strict=True):
        assert drawn.std().item() == pytest.approx(wanted.std().item(), rel=0.15, abs=1e-9), key
        assert drawn.abs().max().item() == pytest.approx(wanted.abs().max().item(), rel=0.4, abs=1e-9), key


def head_of_a_constructed(name: str, head: str, classes: int) -> nn.Module:
    """The classifier of a model that torchvision constructed and initialised in full."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        options = {"init_weights": True} if name == "googlenet" else {}
        return get_model(name, num_classes=classes, **options).get_submodule(head)
