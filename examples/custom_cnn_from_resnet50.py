"""A CNN of one's own on a ResNet-50 backbone: transposed convolution, second pooling and `fclass` instead of `fc`.

    RuntimeError: Error(s) in loading state_dict for CNN:
        Missing key(s) in state_dict: "convtranspose1.weight", "fclass.weight", "fclass.bias".
        Unexpected key(s) in state_dict: "fc.weight", "fc.bias".

The usual way out updates `model.state_dict()` with the keys that both have, and says nothing of the others.
"""

import tempfile
from pathlib import Path

import torch
from torch import nn
from torchvision.models import ResNet, resnet50
from torchvision.models.resnet import Bottleneck

import loadstone as ls


class CNN(ResNet):
    """ResNet-50 up to layer4, then layers of its own."""

    def __init__(self, num_classes):
        super().__init__(Bottleneck, [3, 4, 6, 3])
        del self.fc
        self.convtranspose1 = nn.ConvTranspose2d(2048, 128, kernel_size=3, padding=1, bias=False)
        self.maxpool2 = nn.MaxPool2d(kernel_size=3, stride=1, padding=1)
        self.fclass = nn.Linear(128, num_classes)

    def forward(self, image):
        features = self.maxpool(self.relu(self.bn1(self.conv1(image))))
        features = self.layer4(self.layer3(self.layer2(self.layer1(features))))
        features = self.maxpool2(self.convtranspose1(features))
        return self.fclass(self.avgpool(features).flatten(1))


with tempfile.TemporaryDirectory() as folder:
    path = Path(folder) / "resnet50.pth"
    trained = resnet50()
    torch.save(trained.state_dict(), path)

    model = CNN(num_classes=9)
    plan = ls.load(model, path, fresh=["convtranspose1", "fclass"], drop=["fc"])

backbone = {key: value for key, value in trained.state_dict().items() if not key.startswith("fc.")}
assert all(torch.equal(model.state_dict()[key], value) for key, value in backbone.items())
assert model.eval()(torch.rand(1, 3, 64, 64)).shape == (1, 9)
fresh = [action.target for action in plan.actions if action.status == "kept"]
print(f"{len(backbone)} tensors from ResNet-50, fresh:", fresh)
