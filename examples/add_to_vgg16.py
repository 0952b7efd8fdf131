"""Add a layer to VGG16: after the model, or inside its classifier.

`vgg16.add_module("add_linear", nn.Linear(1000, 10))` prints the layer as part of the model, and nothing runs it: the
output is still torch.Size([1, 1000]), and no error says so.  `ls.append` adds a layer and has it run.
"""

import torch
from torch import nn
from torchvision.models import vgg16

import loadstone as ls

model = vgg16(init_weights=False).eval()  # in your code: weights="DEFAULT"
image = torch.rand(1, 3, 32, 32)

with torch.inference_mode():
    before = model(image)

    after = ls.append(model, "", "add_linear", nn.Linear(1000, 10))  # "" is the model itself
    assert torch.equal(model(image), model.add_linear(before))
    after.undo()

    inside = ls.append(model, "classifier", "add_linear", nn.Linear(1000, 10))
    assert torch.equal(model(image), model.classifier.add_linear(before))

assert "classifier.add_linear.weight" in model.state_dict()
print(f"after: {after}, inside: {inside}")
