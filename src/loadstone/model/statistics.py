"""Running statistics that stay put: `model.train()` reaches every module but these.

A norm in training mode updates its running mean and variance in every forward pass, whether its parameters train or not
(https://github.com/pytorch/pytorch/issues/86590), and calling `eval()` on it lasts until the next `model.train()`.
So a held module gets a `train` of its own, which passes the mode on to its children and stays in eval mode itself.
Its class, its parameters, its hooks and the keys of its state dict are what they were; pickle, deepcopy, DataParallel
and torch.compile see one attribute more.  (A model that is pickled whole needs Loadstone to be unpickled while held.)
"""

from __future__ import annotations

from torch import nn
from torch.nn.utils.parametrizations import _SpectralNorm
from torch.nn.utils.spectral_norm import SpectralNorm

_STATISTICS = ("running_mean", "running_var")  # torch's batch and instance norms, and whatever follows their naming


class StaysInEval:
    """Stands in for `module.train`; `mode` is the mode that the module would be in."""

    __slots__ = ("mode", "module")

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self.mode = module.training

    def __call__(self, mode: bool = True) -> nn.Module:
        type(self.module).train(self.module, mode)
        self.mode = mode
        self.module.training = False
        return self.module


def has_statistics(module: nn.Module) -> bool:
    """A forward pass in training mode changes buffers of this very module: batch, instance and spectral norms."""
    if any(module._buffers.get(name) is not None for name in _STATISTICS) or isinstance(module, _SpectralNorm):
        return True
    return any(isinstance(hook, SpectralNorm) for hook in module._forward_pre_hooks.values())


def is_held(module: nn.Module) -> bool:
    """Its statistics stay put."""
    return isinstance(vars(module).get("train"), StaysInEval)


def hold(module: nn.Module) -> None:
    """Keep the statistics of the module as they are, whatever mode the model is put in."""
    if not is_held(module):
        vars(module)["train"] = StaysInEval(module)
        module.training = False


def release(module: nn.Module) -> None:
    """Undo `hold`: the module is in the mode that it would be in without it."""
    if is_held(module):
        stays: StaysInEval = vars(module).pop("train")
        module.training = stays.mode
