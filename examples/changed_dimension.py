"""size mismatch for fc.weight: a layer of the model has another size than in the file.

    RuntimeError: Error(s) in loading state_dict for ResNet:
        size mismatch for fc.weight: copying a param with shape torch.Size([1000, 512]) from checkpoint, the shape in
        current model is torch.Size([10, 512]).

torch raises this with `strict=False` too, and has then already overwritten the other layers.  Two usual ways out:
keep the layer that the model was made with, or cut the tensor of the file (and fill it up) to the new size.
"""

import tempfile
from pathlib import Path

import torch
from torchvision.models import resnet18

import loadstone as ls

with tempfile.TemporaryDirectory() as folder:
    path = Path(folder) / "resnet18.pth"
    trained = resnet18()
    torch.save(trained.state_dict(), path)

    # 1. All from the file, except for the layer that differs.
    fresh = resnet18(num_classes=10)
    before = fresh.fc.weight.clone()
    ls.load(fresh, path, fresh=["fc"])

    # 2. As much as fits of that layer too: its first rows, or all its rows and zeros behind them.
    narrow, wide = resnet18(num_classes=10), resnet18(num_classes=1003)
    ls.load(narrow, path, adapt={"fc": "slice"})
    ls.load(wide, path, adapt={"fc": "pad"})

assert torch.equal(fresh.fc.weight, before)
assert torch.equal(fresh.conv1.weight, trained.conv1.weight)
assert torch.equal(narrow.fc.weight, trained.fc.weight[:10])
assert torch.equal(wide.fc.weight[:1000], trained.fc.weight)
assert not wide.fc.weight[1000:].any()
print("fresh, slice, pad:", [list(model.fc.weight.shape) for model in (fresh, narrow, wide)])
