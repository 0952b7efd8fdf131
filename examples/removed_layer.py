"""Load pretrained weights into a model with a layer removed: a backbone without its last layer, for features.

RuntimeError: Error(s) in loading state_dict for ResNet:
    Unexpected key(s) in state_dict: "fc.weight", "fc.bias".
"""

import tempfile
from pathlib import Path

import torch
from torch import nn
from torchvision.models import resnet18

import loadstone as ls

with tempfile.TemporaryDirectory() as folder:
    path = Path(folder) / "resnet18.pth"
    trained = resnet18().eval()
    torch.save(trained.state_dict(), path)

    model = resnet18().eval()
    model.fc = nn.Identity()
    ls.load(model, path, drop=["fc"])

    # The same from the other side: load first, and take the layer out of a model that is whole.
    other = resnet18().eval()
    ls.load(other, path)
    ls.remove(other, "fc")

image = torch.rand(1, 3, 64, 64)
with torch.inference_mode():
    features = model(image)
    assert torch.equal(trained.fc(features), trained(image))
    assert torch.equal(other(image), features)
print("features of", list(features.shape))
