"""Files whose kernels are stored height, width, inputs, outputs: the model computes what they were written from."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import loadstone as ls

torch = pytest.importorskip("torch")
nn = torch.nn


class Net(nn.Module):
    """A stem, blocks that widen, filter each channel alone and narrow, and a head."""

    def __init__(self, outputs_each: int = 1, depth: int = 2, *, has_bias: bool = False) -> None:
        super().__init__()
        wide = 24 * outputs_each
        self.stem = nn.Conv2d(3, 8, 3, bias=has_bias)
        self.blocks = nn.ModuleList(
            nn.ModuleDict(
                {
                    "expand": nn.Conv2d(8, 24, 1, bias=has_bias),
                    "depthwise": nn.Conv2d(24, wide, 3, padding=1, groups=24, bias=has_bias),
                    "norm": nn.BatchNorm2d(wide),
                    "strip": nn.Conv2d(wide, 12, (1, 5), padding=(0, 2), bias=has_bias),
                    "project": nn.Conv2d(12, 8, 1, bias=has_bias),
                }
            )
            for _ in range(depth)
        )
        self.head = nn.Linear(8, 5)

    def forward(self, x: Any) -> Any:
        x = self.stem(x)
        for block in self.blocks:
            x = x + block["project"](block["strip"](block["norm"](block["depthwise"](block["expand"](x))).relu()))
        return self.head(x.mean((2, 3)))


class Lines(nn.Module):
    """Convolutions along one axis."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv1d(4, 6, 3, bias=False)
        self.second = nn.Conv1d(6, 10, 5, bias=False)
        self.last = nn.Linear(10, 3)

    def forward(self, x: Any) -> Any:
        return self.last(self.second(self.first(x).relu()).mean(-1))


def random(model: Any, seed: int = 0) -> Any:
    torch.manual_seed(seed)
    for tensor in model.state_dict().values():
        if tensor.is_floating_point():
            tensor.copy_(torch.rand_like(tensor) + 0.5)
    return model.double().eval()


def channels_last(key: str, value: Any, leaf: str = "weight") -> tuple[str, Any]:
    """As flax stores it, under the leaf name `kernel` or another."""
    if value.ndim < 2:
        names = {"weight": "scale", "running_mean": "mean", "running_var": "var"}
        name, _, last = key.rpartition(".")
        return f"{name}.{names.get(last, last)}" if last == "weight" else key, value
    axes = range(2, value.ndim)
    return key.replace("weight", leaf), value.permute(*axes, 1, 0).contiguous()


def as_tensorflow(key: str, value: Any) -> tuple[str, Any]:
    """Depthwise kernels as height, width, channel, outputs of each."""
    if "depthwise" in key and value.ndim == 4:
        each = value.shape[0] // 24
        return key.replace("weight", "depthwise_kernel"), value.view(24, each, 3, 3).permute(2, 3, 0, 1).contiguous()
    return channels_last(key, value, "kernel")


def renamed(key: str) -> str:
    for word, other in (("blocks", "units"), ("stem", "entry"), ("head", "logits"), ("project", "narrow")):
        key = key.replace(word, other)
    return key


def written(model: Any, how: Callable[[str, Any], tuple[str, Any]]) -> dict[str, Any]:
    kept = {key: value for key, value in model.state_dict().items() if not key.endswith("num_batches_tracked")}
    return dict(how(renamed(key), value) for key, value in kept.items())


@pytest.mark.parametrize("has_bias", [False, True])
@pytest.mark.parametrize("how", [channels_last, as_tensorflow])
def test_kernels_with_outputs_last_compute_the_same(how: Any, has_bias: bool, tmp_path: Any) -> None:
    reference, model = random(Net(has_bias=has_bias), 1), random(Net(has_bias=has_bias), 2)
    torch.save(written(reference, how), tmp_path / "theirs.pth")
    plan = ls.load(model, tmp_path / "theirs.pth", match="structure")
    x = torch.rand(2, 3, 9, 9, dtype=torch.float64)
    assert not plan.questions
    assert torch.equal(model(x), reference(x))


def test_a_depthwise_kernel_with_several_outputs_of_each_channel_computes_the_same(tmp_path: Any) -> None:
    reference, model = random(Net(2), 1), random(Net(2), 2)
    torch.save(written(reference, as_tensorflow), tmp_path / "theirs.pth")
    ls.load(model, tmp_path / "theirs.pth", match="structure")
    x = torch.rand(2, 3, 9, 9, dtype=torch.float64)
    assert torch.equal(model(x), reference(x))


@pytest.mark.parametrize("leaf", ["kernel", "weight", "w"])
def test_kernels_along_one_axis_compute_the_same(leaf: str, tmp_path: Any) -> None:
    reference, model = random(Lines(), 1), random(Lines(), 2)
    stored = dict(channels_last(key, value, leaf) for key, value in reference.state_dict().items())
    torch.save({f"net.{key}": value for key, value in stored.items()}, tmp_path / "theirs.pth")
    ls.load(model, tmp_path / "theirs.pth", match="structure")
    x = torch.rand(2, 4, 9, dtype=torch.float64)
    assert torch.equal(model(x), reference(x))


def test_a_model_of_torch_fills_one_with_outputs_last(tmp_path: Any) -> None:
    class Kept(nn.Module):
        def __init__(self, tensors: dict[str, Any]) -> None:
            super().__init__()
            for key, value in tensors.items():
                *path, leaf = key.split(".")
                at = self
                for name in path:
                    if not hasattr(at, name):
                        at.add_module(name, nn.Module())
                    at = getattr(at, name)
                at.register_parameter(leaf, nn.Parameter(torch.zeros_like(value)))

    reference = random(Net())
    torch.save(reference.state_dict(), tmp_path / "ours.pth")
    expected = written(reference, channels_last)
    model = Kept(expected)
    ls.load(model, tmp_path / "ours.pth", match="structure")
    assert all(torch.equal(model.state_dict()[key], value) for key, value in expected.items())
