"""A probe proves that a model computes what the saved one computed, and tells when it does not."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

import loadstone as ls
from loadstone.manifest import Manifest
from loadstone.model.probe import MOST_VALUES, _uniform, check, record


def network(eps: float = 1e-5) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8, eps=eps), nn.ReLU(), nn.Dropout(0.5), nn.Flatten())


EXAMPLE = torch.linspace(-2, 3, 2 * 3 * 8 * 8).reshape(2, 3, 8, 8)


def manifest(model: nn.Module, example: object = EXAMPLE) -> Manifest:
    return Manifest({}, probe=record(model, example))


def test_the_same_model_is_equal_to_the_bit():
    model = network()
    result = check(copy.deepcopy(model), manifest(model), "a.pth")
    assert result.is_equal
    assert result.values == 2 * 8 * 6 * 6


def test_the_probe_holds_nothing_of_the_example():
    torch.manual_seed(3)
    example = torch.rand(2, 3, 8, 8)
    low, high = example.min(), example.max()
    other = torch.rand(2, 3, 8, 8).clamp(low, high)
    other[0, 0, 0, :2] = torch.stack((low, high))
    assert record(network(), example) == record(network(), other)


@pytest.mark.parametrize("change", ["weight", "activation", "eps"])
def test_a_model_that_computes_something_else_is_told(change):
    saved = manifest(network())
    model = network(eps=1e-2 if change == "eps" else 1e-5)
    if change == "weight":
        model[0].weight.data[0] *= 1.5
    if change == "activation":
        model[2] = nn.GELU()
    with pytest.raises(ls.MatchError, match=r"probe-differs.*`a.pth` remembers"):
        check(model, saved, "a.pth", kept=["1.weight"])


def test_rounding_is_let_pass_and_reported():
    saved = manifest(network())
    model = network()
    model[0].weight.data *= 1 + 1e-6
    result = check(model, saved, "a.pth")
    assert not result.is_equal
    assert 0 < result.max_relative < result.tolerance == 1e-4


def test_the_model_is_as_it_was():
    model = network()
    model[1].eval()
    model[1].register_forward_hook(lambda module, given, out: module.num_batches_tracked.add_(1) and None)
    before = copy.deepcopy(model.state_dict())
    modes = [module.training for module in model.modules()]
    state = torch.get_rng_state()
    record(model, EXAMPLE)
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)


class Tokens(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embedding = nn.Embedding(11, 4)

    def forward(self, ids, *, mask, scale=1.0):
        return {"hidden": self.embedding(ids) * mask.unsqueeze(-1) * scale, "count": mask.sum(), "name": "tokens"}


def test_named_inputs_integers_masks_and_plain_values():
    example = {
        "ids": torch.tensor([[0, 10, 3]]),
        "mask": torch.ones(1, 3, dtype=torch.bool),
        "scale": 2.0,
    }
    assert check(Tokens(), manifest(Tokens(), example), "a.pth").is_equal


def test_large_outputs_are_sampled():
    model = nn.Linear(4, 2 * MOST_VALUES)
    probe = record(model, torch.rand(1, 4))
    assert check(model, Manifest({}, probe=probe), "a.pth").values == MOST_VALUES
    with torch.no_grad():
        model.bias[2] += 1  # an even place is kept
    with pytest.raises(ls.MatchError, match="probe-differs"):
        check(model, Manifest({}, probe=probe), "a.pth")


def test_a_model_cast_since_is_compared_at_its_own_precision():
    saved = manifest(network())
    result = check(network().to(torch.bfloat16), saved, "a.pth")
    assert result.tolerance == 5e-2
    assert not result.is_equal


def test_what_cannot_be_remembered_is_refused():
    class Draws(nn.Module):
        calls = 0

        def forward(self, x):
            self.calls += 1
            return x + self.calls

    with pytest.raises(ls.SaveError, match="probe-unstable"):
        record(Draws(), torch.ones(2))
    with pytest.raises(ls.SaveError, match=r"example-refused.*RuntimeError"):
        record(network(), torch.ones(2))
    with pytest.raises(ls.MatchError, match="no-probe"):
        check(network(), Manifest({}), "a.pth")


@pytest.mark.parametrize(
    "damage",
    [
        {"version": 2},
        {"output": [{"shape": [2], "dtype": "float32", "values": "AAAA"}]},
        {"input": {"args": 3, "kwargs": {}}},
        {"output": 5},
    ],
)
def test_a_damaged_probe_is_an_error_that_says_so(damage):
    probe = {**record(network(), EXAMPLE), **damage}
    with pytest.raises(ls.FormatError, match=r"invalid-manifest.*`a.pth`"):
        check(network(), Manifest({}, probe=probe), "a.pth")


def test_the_numbers_are_those_of_splitmix64():
    # the generator's reference outputs for seed 0: https://prng.di.unimi.it/splitmix64.c
    reference = [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]
    assert _uniform(3, 0).tolist() == [(value >> 11) * 2.0**-53 for value in reference]
