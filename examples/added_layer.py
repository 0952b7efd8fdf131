"""Load pretrained weights into a model with an added layer: the file does not know it.

RuntimeError: Error(s) in loading state_dict for Longer:
    Missing key(s) in state_dict: "fc2.weight", "fc2.bias".
"""

import tempfile
from pathlib import Path

import torch
from torch import nn
from torchvision.models import ResNet, resnet18
from torchvision.models.resnet import BasicBlock

import loadstone as ls


class Longer(ResNet):
    """ResNet-18 with one more layer behind it."""

    def __init__(self):
        super().__init__(BasicBlock, [2, 2, 2, 2])
        self.fc2 = nn.Linear(1000, 10)

    def forward(self, image):
        return self.fc2(super().forward(image).relu())


with tempfile.TemporaryDirectory() as folder:
    path = Path(folder) / "resnet18.pth"
    trained = resnet18()
    torch.save(trained.state_dict(), path)

    model = Longer()
    before = model.fc2.weight.clone()
    plan = ls.load(model, path, fresh=["fc2"])  # all else must still fit, so that a mistake elsewhere is noticed

assert torch.equal(model.fc.weight, trained.fc.weight)
assert torch.equal(model.fc2.weight, before)
assert model.eval()(torch.rand(1, 3, 64, 64)).shape == (1, 10)
print("fresh:", [action.target for action in plan.actions if action.status == "kept"])
