"""Pretrained ResNet with 4 input channels (RGB and depth, infrared, a mask) and 21 classes.

RuntimeError: Error(s) in loading state_dict for ResNet:
    size mismatch for conv1.weight: copying a param with shape torch.Size([64, 3, 7, 7]) from checkpoint, the shape
    in current model is torch.Size([64, 4, 7, 7]).
    size mismatch for fc.weight: copying a param with shape torch.Size([1000, 512]) from checkpoint, the shape in
    current model is torch.Size([21, 512]).

RuntimeError: Given groups=1, weight of size [64, 3, 7, 7], expected input[1, 4, 64, 64] to have 3 channels, but got 4
channels instead
"""

import tempfile
from pathlib import Path

import torch
from torch import nn
from torchvision.models import resnet18

import loadstone as ls

with tempfile.TemporaryDirectory() as folder:
    path = Path(folder) / "resnet18.pth"
    trained = resnet18()
    torch.save(trained.state_dict(), path)

    # Load first, and change the model: no name of a layer needed, and conv1 keeps what it learned.
    model = resnet18()
    ls.load(model, path)
    first = ls.replace_input(model, 4)
    last = ls.replace_head(model, 21)

    # Or make the model first, and say how the file's tensors become those of the model.
    made = resnet18(num_classes=21)
    made.conv1 = nn.Conv2d(4, 64, kernel_size=7, stride=2, padding=3, bias=False)
    ls.load(made, path, adapt={"conv1": "channels"}, fresh=["fc"])

image = torch.rand(1, 4, 64, 64)
with torch.inference_mode():
    assert model.eval()(image).shape == made.eval()(image).shape == (1, 21)
assert torch.equal(model.conv1.weight, made.conv1.weight)
torch.testing.assert_close(model.conv1.weight.sum(dim=1), trained.conv1.weight.sum(dim=1))  # shared out, none lost
assert torch.equal(model.layer4[1].conv2.weight, trained.layer4[1].conv2.weight)
for change in (*first.changes, *last.changes):
    print(change.name, change)
