"""Other numbers of channels, with what was learned kept."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torchvision.models import resnet18

import loadstone as ls


def net(**options: object) -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 6, 3, **options), nn.ReLU(), nn.Flatten(), nn.LazyLinear(4))


def built(**options: object) -> nn.Module:
    model = net(**options)
    model(torch.rand(2, 3, 32, 32))
    return model


def refusal(code: str, model: nn.Module, channels: object, **options: object) -> None:
    with pytest.raises(ls.SurgeryError) as caught:
        ls.replace_input(model, channels, **options)
    assert caught.value.code == code


@torch.no_grad()
def test_a_grey_image_gives_what_it_gave_as_rgb():
    model = resnet18().eval()
    grey = torch.rand(2, 1, 64, 64)
    before = model(grey.expand(2, 3, 64, 64))
    assert ls.replace_input(model, 1) == "conv1"
    torch.testing.assert_close(model(grey), before, rtol=1e-5, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("channels", [6, 9])
def test_the_channels_repeated_give_what_they_gave_once(channels):
    model = resnet18().eval()
    image = torch.rand(2, 3, 64, 64)
    before = model(image)
    ls.replace_input(model, channels)
    torch.testing.assert_close(model(image.repeat(1, channels // 3, 1, 1)), before, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("channels", [1, 2, 4, 6, 7])
def test_the_sum_over_channels_stays_what_it_was(channels):
    model = resnet18()
    old = model.conv1.weight.detach().clone()
    ls.replace_input(model, channels)
    assert torch.allclose(model.conv1.weight.sum(dim=1), old.sum(dim=1), atol=1e-6)


def test_of_four_channels_the_first_and_the_last_share_a_kernel():
    model = resnet18()
    old = model.conv1.weight.detach().clone()
    ls.replace_input(model, 4)
    half = torch.tensor([0.5, 1.0, 1.0, 0.5]).reshape(4, 1, 1)
    assert torch.equal(model.conv1.weight, old[:, [0, 1, 2, 0]] * half)


def test_the_same_number_of_channels_changes_no_bit():
    model = resnet18()
    old = model.conv1.weight.detach().clone()
    assert ls.replace_input(model, 3).changes == ()
    assert torch.equal(model.conv1.weight, old)


def test_everything_else_of_the_layer_is_kept():
    model = built(padding=1, padding_mode="circular", stride=2, dilation=1).to(torch.bfloat16)
    model[0].weight.requires_grad_(False)
    bias = model[0].bias
    ls.replace_input(model, 5, example_input=torch.zeros(1, 3, 32, 32, dtype=torch.bfloat16))
    conv = model[0]
    assert conv.bias is bias
    assert (conv.in_channels, conv.padding_mode, conv.stride) == (5, "circular", (2, 2))
    assert (conv.weight.dtype, conv.weight.requires_grad) == (torch.bfloat16, False)


def test_groups_are_kept():
    model = built(groups=3)
    ls.replace_input(model, 6)
    assert model[0].groups == 3
    assert model[0].weight.shape == (6, 2, 3, 3)
    assert model(torch.rand(1, 6, 32, 32)).shape == (1, 4)


def test_every_branch_that_takes_the_image_follows():
    class Branches(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.wide, self.narrow = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(3, 4, 1)

        def forward(self, image):
            return (self.wide(image) + self.narrow(image)).mean((2, 3))

    model = Branches()
    assert ls.replace_input(model, 2).names == ("wide", "narrow")
    assert model(torch.rand(1, 2, 8, 8)).shape == (1, 4)


def test_undo_puts_the_very_same_layer_back(unchanged):
    model = built()
    check = unchanged(model)
    ls.replace_input(model, 1).undo()
    check()


class Normed(nn.Module):
    """Normalises its image with numbers for three channels."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("average", torch.zeros(3, 1, 1))
        self.conv = nn.Conv2d(3, 4, 1)

    def forward(self, image):
        return self.conv(image - self.average)


BAD = {
    "no channels": ("invalid-option", built, 0),
    "a bool": ("invalid-option", built, True),
    "not a multiple of the groups": ("invalid-option", lambda: built(groups=3), 4),
    "no image": ("input-not-found", lambda: nn.Sequential(nn.Linear(4, 3)), 1),
    "nothing with weights": ("input-not-found", nn.ReLU, 1),
    "a norm before the convolution": (
        "not-editable",
        lambda: nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 4, 1)),
        1,
    ),
    "channels made of pixels": (
        "not-editable",
        lambda: nn.Sequential(nn.PixelUnshuffle(2), nn.Conv2d(12, 4, 1)),
        1,
    ),
    "numbers for three channels": ("edit-breaks-model", Normed, 4),
    "a lazy module": ("uninitialised-parameter", net, 1),
}


@pytest.mark.parametrize(("code", "make", "channels"), BAD.values(), ids=BAD)
def test_an_input_that_cannot_be_replaced_is_left_as_it_was(code, make, channels, unchanged):
    model = make()
    check = unchanged(model) if code != "uninitialised-parameter" else lambda: None
    refusal(code, model, channels)
    check()


def test_two_images_are_told_apart_by_asking():
    class Pair(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.left, self.right = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 4, 1)

        def forward(self, left, right):
            return self.left(left) + self.right(right)

    images = torch.rand(2, 3, 8, 8)
    refusal("several-candidates", Pair(), 1, example_input=(images, images))
