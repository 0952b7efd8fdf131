"""Replace classifier[6] of VGG16 by nn.Linear(4096, 10), or put a layer of one's own in any place.

    RuntimeError: Error(s) in loading state_dict for VGG:
        size mismatch for classifier.6.weight: copying a param with shape torch.Size([1000, 4096]) from checkpoint, the
        shape in current model is torch.Size([10, 4096]).

comes from doing it before the weights are loaded.  Load first, then replace; or load with `fresh=["classifier.6"]`.
"""

import torch
from torch import nn
from torchvision.models import vgg16

import loadstone as ls

model = vgg16(init_weights=False).eval()  # in your code: weights="DEFAULT", or ls.load(model, path)
kept = model.classifier[3].weight

edit = ls.replace(model, "classifier.6", nn.Linear(4096, 10))
print(edit)

with torch.inference_mode():
    assert model(torch.rand(1, 3, 32, 32)).shape == (1, 10)
assert model.classifier[3].weight is kept

edit.undo()
assert model.classifier[6].out_features == 1000
assert ls.replace_head(model, 10) == "classifier.6"  # the same without knowing its name
