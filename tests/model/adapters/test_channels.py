"""Input channels: an image that says the same in other channels gives the same output."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torchvision.models import resnet18

import loadstone as ls
from loadstone.matching.steps import Channels
from loadstone.model.adapters.channels import with_channels


@pytest.fixture(scope="module")
def original() -> nn.Module:
    """A ResNet-18 of random values, in float64."""
    torch.manual_seed(0)
    return resnet18().double().eval()


def with_inputs(channels: int) -> nn.Module:
    model = resnet18()
    model.conv1 = nn.Conv2d(channels, 64, 7, stride=2, padding=3, bias=False)
    return model.double().eval()


def test_grey_image_gives_what_it_gave_as_rgb(original):
    model = with_inputs(1)
    ls.load(model, original.state_dict(), adapt={"conv1": "channels"})
    grey = torch.rand(2, 1, 64, 64, dtype=torch.float64)
    torch.testing.assert_close(model(grey), original(grey.expand(2, 3, 64, 64)))


def test_fourth_channel_that_repeats_the_first_changes_nothing(original):
    model = with_inputs(4)
    ls.load(model, original.state_dict(), adapt={"conv1": "channels"})
    image = torch.rand(2, 3, 64, 64, dtype=torch.float64)
    torch.testing.assert_close(model(image[:, [0, 1, 2, 0]]), original(image))


def test_everything_but_the_first_convolution_is_the_file_to_the_bit(original):
    model = with_inputs(4)
    ls.load(model, original.state_dict(), adapt={"conv1": "channels"})
    differ = [key for key, value in model.state_dict().items() if not torch.equal(value, original.state_dict()[key])]
    assert differ == ["conv1.weight"]


@given(have=st.integers(1, 12), want=st.integers(1, 12), dimensions=st.integers(1, 3))
def test_sum_over_channels_stays(have, want, dimensions):
    weight = torch.randn(2, have, *[2] * dimensions, dtype=torch.float64)
    new = with_channels(weight, Channels(have, want))
    assert new.shape == (2, want, *[2] * dimensions)
    torch.testing.assert_close(new.sum(dim=1), weight.sum(dim=1))


@pytest.mark.parametrize("want", [6, 9])
def test_multiples_of_three_are_repeated_and_scaled(want):
    # timm/models/_manipulate.py adapt_input_conv
    weight = torch.randn(4, 3, 5, 5)
    expected = weight.repeat(1, want // 3, 1, 1) * (3 / want)
    torch.testing.assert_close(with_channels(weight, Channels(3, want)), expected)


def test_half_precision_is_rounded_once():
    weight = torch.randn(64, 3, 3, 3).half()
    expected = weight.double().sum(dim=1, keepdim=True).half()
    assert torch.equal(with_channels(weight, Channels(3, 1)), expected)


@pytest.mark.parametrize("layer", [nn.Conv2d(4, 8, 3, groups=2), nn.ConvTranspose2d(8, 4, 3)])
def test_live_model_tells_grouped_and_transposed(layer):
    other = {"weight": torch.zeros(8, 1, 3, 3), "bias": layer.bias.detach()}
    with pytest.raises(ls.MatchError, match="would mix up the inputs"):
        ls.load(layer, other, adapt={"weight": "channels"})
