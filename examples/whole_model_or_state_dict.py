"""Load a model that was saved whole, torch.save(model, path), when its class is gone, moved or renamed.

    AttributeError: Can't get attribute 'Sorter' on <module '__main__' from 'train.py'>
    ModuleNotFoundError: No module named 'models'
    UnpicklingError: Weights only load failed. This file can still be loaded, to do so you have two options, ...

The weights are in the file all the same.  They are read with no class imported and nothing in the file run, so you need
no `weights_only=False`.
"""

import tempfile
from pathlib import Path

import torch
from torch import nn
from torchvision.models import resnet18

import loadstone as ls


class Sorter(nn.Module):
    """A model as its author wrote it."""

    def __init__(self):
        super().__init__()
        self.net = resnet18()


with tempfile.TemporaryDirectory() as folder:
    whole, weights = Path(folder) / "whole_model.pt", Path(folder) / "state_dict.pth"
    sorter = Sorter()
    torch.save(sorter, whole)
    del Sorter  # the class is gone

    with ls.open(whole) as checkpoint:
        print("a whole", checkpoint.modules[""], "with", len(checkpoint.weights), "tensors")

    model = resnet18()
    ls.load(model, whole)  # as a state dict is loaded; `net.` explains every key and is taken off
    ls.save(model, weights)  # keep this one: a state dict outlives its class
    again = resnet18()
    ls.load(again, weights)

assert torch.equal(model.fc.weight, sorter.net.fc.weight)
assert torch.equal(again.fc.weight, model.fc.weight)
