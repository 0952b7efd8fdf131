"""Keys that begin with `module.`: a file saved from nn.DataParallel or DistributedDataParallel, on several GPUs.

    RuntimeError: Error(s) in loading state_dict for ResNet:
        Missing key(s) in state_dict: "conv1.weight", "bn1.weight", "bn1.bias", ...
        Unexpected key(s) in state_dict: "module.conv1.weight", "module.bn1.weight", "module.bn1.bias", ...

`key.replace("module.", "")` breaks names like `submodule.0`, and `strict=False` loads nothing at all.
"""

import tempfile
from pathlib import Path

import torch
from torch import nn
from torchvision.models import resnet18

import loadstone as ls

with tempfile.TemporaryDirectory() as folder:
    path = Path(folder) / "parallel.pth"
    trained = nn.DataParallel(resnet18())
    torch.save(trained.state_dict(), path)

    model = resnet18()
    plan = ls.load(model, path)  # a prefix that explains every key is taken off

    wrapped = nn.DataParallel(resnet18())
    torch.save(model.state_dict(), path)
    ls.load(wrapped, path)  # and put on where it is the model that is wrapped

assert torch.equal(model.fc.weight, trained.module.fc.weight)
assert torch.equal(wrapped.module.fc.weight, trained.module.fc.weight)
print(plan.diagnostics[0].message)
