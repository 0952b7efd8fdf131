"""Values that no training leaves behind are flagged, and nothing else is."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import loadstone as ls


class Net(nn.Module):
    """What real networks are made of: a norm of either kind, a table of positions, a normed weight."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16)
        self.deep, self.deeper = nn.BatchNorm2d(16), nn.BatchNorm2d(16)
        self.ln, self.fc = nn.LayerNorm(16), nn.Linear(16, 16)
        self.positions = nn.Embedding(32, 16)
        self.wide = nn.utils.parametrizations.weight_norm(nn.Linear(16, 8))
        self.tokens, self.head = nn.Embedding(20, 16), nn.Linear(16, 20, bias=False)
        self.head.weight = self.tokens.weight


def trained() -> dict[str, torch.Tensor]:
    """Weights as training leaves them: norms near 1 and 0, neighbouring positions alike."""
    generator = torch.Generator().manual_seed(0)

    def noise(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator)

    state = {key: tensor.clone() for key, tensor in Net().state_dict().items()}
    for key, tensor in state.items():
        if key.endswith("num_batches_tracked"):
            tensor.fill_(1000)
        elif key.endswith("running_var"):
            tensor.copy_(noise(16).exp())
        elif tensor.dim() == 1 and key.endswith("weight"):
            tensor.copy_(1 + 0.2 * noise(*tensor.shape))
        elif key.startswith("positions"):
            tensor.copy_(torch.cumsum(noise(32, 16), 0))
        elif "original0" not in key:
            tensor.copy_(0.1 * noise(*tensor.shape))
    state["head.weight"] = state["tokens.weight"].clone()
    state["wide.parametrizations.weight.original0"] = state["wide.parametrizations.weight.original1"].norm(dim=1)[
        :, None
    ]
    return state


def flags(state: dict[str, torch.Tensor]) -> dict[str, tuple[str, ...]]:
    found = ls.plan(Net(), state).plausibility()
    assert {finding.code for finding in found} <= {"implausible-values"}
    assert all(finding.severity == "warning" for finding in found)
    return {finding.message: finding.keys for finding in found}


def test_trained_weights_and_new_ones_raise_no_flag():
    assert flags(trained()) == {}
    assert flags(Net().state_dict()) == {}


def exchanged(state: dict[str, torch.Tensor], one: str, other: str) -> None:
    state[one], state[other] = state[other], state[one]


@pytest.mark.parametrize(
    ("damage", "message", "key"),
    [
        (lambda s: exchanged(s, "bn.running_var", "bn.bias"), "a running variance is negative", "bn.running_var"),
        (lambda s: s["bn.running_var"][3:4].fill_(torch.nan), "a running variance is negative", "bn.running_var"),
        (lambda s: exchanged(s, "ln.weight", "ln.bias"), "weight and bias of a norm look exchanged", "ln.weight"),
        (
            lambda s: s["wide.parametrizations.weight.original1"].mul_(1e4),
            "magnitude and direction of a normed weight",
            "wide.parametrizations.weight.original0",
        ),
        (lambda s: s["fc.weight"].zero_(), "a matrix has one value everywhere", "fc.weight"),
        (lambda s: s["deep.num_batches_tracked"].fill_(1300), "different numbers of batches", "bn.num_batches_tracked"),
        (lambda s: s["head.weight"].add_(1), "one tensor in the model is two different ones", "head.weight"),
        (
            lambda s: s["positions.weight"].copy_(
                s["positions.weight"].view(2, 16, 16).transpose(0, 1).reshape(32, 16)
            ),
            "neighbours in a table of positions",
            "positions.weight",
        ),
    ],
    ids=["moved", "nan", "norm", "magnitude", "zeros", "counters", "tied", "positions"],
)
def test_what_training_does_not_leave_behind_is_flagged(damage, message, key):
    state = trained()
    damage(state)
    (found,) = flags(state).items()
    assert message in found[0]
    assert key in found[1]


def test_a_layer_that_is_called_twice_in_a_batch_counts_twice():
    state = trained()
    state["deep.num_batches_tracked"].fill_(2000)
    assert flags(state) == {}


def test_what_is_joined_is_looked_at_as_it_will_be():
    class Apart(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.query, self.key, self.value = (nn.Linear(16, 16) for _ in range(3))

    class Joined(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.qkv = nn.Linear(16, 48)

    theirs = Apart()
    for layer in theirs.children():
        nn.init.zeros_(layer.weight)
    (found,) = ls.plan(Joined(), theirs.state_dict(), match="structure").plausibility()
    assert found.keys == ("qkv.weight",)
