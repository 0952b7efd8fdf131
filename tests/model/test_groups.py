"""Stages, parameter groups by depth, and the summary of what trains."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torchvision import models

import loadstone as ls
from loadstone.model.schema import walk
from loadstone.model.stages import stages_of


def on_meta(name):
    with torch.device("meta"):
        return models.get_model(name)


@pytest.mark.parametrize(
    ("name", "first", "last", "count"),
    [
        ("resnet18", ("conv1", "bn1"), ("fc",), 6),
        ("mobilenet_v2", ("features.0",), ("classifier",), 20),
        ("vgg16", ("features.0",), ("classifier.6",), 16),
        ("vit_b_16", ("conv_proj",), ("heads",), 14),
        ("swin_t", ("features.0",), ("head",), 9),
        ("densenet121", ("features.conv0", "features.norm0"), ("classifier",), 9),
    ],
)
def test_stages_are_what_people_call_them(name, first, last, count):
    stages = stages_of(walk(on_meta(name)))
    assert (stages[0].names, stages[-1].names, len(stages)) == (first, last, count)


@pytest.mark.parametrize("name", ["shufflenet_v2_x1_0", "maxvit_t", "convnext_tiny", "alexnet"])
def test_every_tensor_is_in_one_stage(name):
    model = on_meta(name)
    keys = [place.key for stage in stages_of(walk(model)) for place in stage.places]
    buffers = dict(model.named_buffers())
    assert sorted(keys) == sorted([*dict(model.named_parameters()), *buffers])


def test_a_single_layer_is_one_stage():
    assert [stage.names for stage in stages_of(walk(nn.Linear(2, 2)))] == [("",)]


def test_a_parameter_beside_the_children_goes_with_the_first_of_them():
    stages = stages_of(walk(on_meta("vit_b_16")))
    assert "class_token" in {place.key for place in stages[0].places}
    assert "encoder.pos_embedding" in {place.key for place in stages[1].places}


def test_rates_decay_from_the_head_and_norms_and_biases_are_spared():
    groups = ls.parameter_groups(models.resnet18(), lr=1.0, decay=0.5, weight_decay=0.1)
    assert [(group["name"], group["lr"], group["weight_decay"]) for group in groups[:4]] == [
        ("fc", 1.0, 0.1),
        ("fc (no weight decay)", 1.0, 0.0),
        ("layer4", 0.5, 0.1),
        ("layer4 (no weight decay)", 0.5, 0.0),
    ]
    assert groups[-1]["lr"] == 0.5**5
    assert all(parameter.ndim > 1 for group in groups if group["weight_decay"] for parameter in group["params"])


def test_all_parameters_that_train_are_in_one_group_each_and_an_optimizer_takes_them():
    model = models.resnet18()
    ls.freeze(model, except_=["layer4", "fc"])
    groups = ls.parameter_groups(model, lr=1e-3, decay=0.8, weight_decay=0.01)
    given = [id(parameter) for group in groups for parameter in group["params"]]
    assert sorted(given) == sorted(id(parameter) for parameter in model.parameters() if parameter.requires_grad)
    assert {group["name"] for group in torch.optim.AdamW(groups).param_groups} == {group["name"] for group in groups}


def test_without_weight_decay_the_optimizer_has_its_own_and_norms_still_none():
    optimizer = torch.optim.AdamW(ls.parameter_groups(nn.Linear(2, 2), lr=0.1), weight_decay=0.3)
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.3, 0.0]


def test_a_tied_parameter_learns_at_the_rate_of_the_head():
    model = nn.ModuleDict({"embed": nn.Embedding(5, 3), "body": nn.Linear(3, 3), "head": nn.Linear(3, 5, bias=False)})
    model["head"].weight = model["embed"].weight
    groups = ls.parameter_groups(model, lr=1.0, decay=0.5)
    assert [group["name"] for group in groups] == ["head", "body", "body (no weight decay)"]


def test_no_decay_names_more():
    groups = ls.parameter_groups(nn.Linear(2, 2), lr=0.1, weight_decay=0.1, no_decay="weight")
    assert [group["weight_decay"] for group in groups] == [0.0]


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"lr": 0.0}, "invalid-option"),
        ({"lr": float("nan")}, "invalid-option"),
        ({"lr": 1.0, "decay": 1.5}, "invalid-option"),
        ({"lr": 1.0, "weight_decay": -1.0}, "invalid-option"),
        ({"lr": "fast"}, "invalid-option"),
        ({"lr": 1.0, "no_decay": "nothing"}, "unused-option"),
    ],
)
def test_a_wrong_option_is_an_error(options, code):
    with pytest.raises(ls.RecipeError) as error:
        ls.parameter_groups(nn.Linear(2, 2), **options)
    assert error.value.code == code


def test_groups_of_a_model_that_is_all_frozen_are_an_error():
    model = nn.Linear(2, 2)
    ls.freeze(model)
    with pytest.raises(ls.RecipeError, match="nothing-to-train"):
        ls.parameter_groups(model, lr=0.1)


def test_the_summary_counts_and_shows_what_trains():
    model = models.resnet18(num_classes=10)
    ls.freeze(model, except_=["fc"])
    summary = ls.trainable(model)
    assert (summary.trained, summary.frozen) == (5130, 11_176_512)
    assert str(summary) == (
        "ResNet   11.2 M parameters   5.1 k train (<0.1%)   11.2 M frozen (>99.9%)\n\n"
        "  {conv1,bn1,layer1,layer2,layer3,layer4}  11.2 M  frozen  20 norms with fixed statistics\n"
        "  fc                                        5.1 k  trains\n"
    )


def test_the_summary_names_frozen_norms_whose_statistics_would_move():
    model = models.resnet18()
    model.requires_grad_(False)
    summary = ls.trainable(model)
    assert "20 frozen norms would change running statistics in training mode:" in str(summary)
    assert summary.parts[0].moving == ("bn1",)
    ls.freeze(model)
    assert [part.moving for part in ls.trainable(model).parts if part.moving] == []
