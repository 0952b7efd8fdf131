"""Freeze all layers but the last one, and train only that: requires_grad = False, and what it forgets.

    RuntimeError: element 0 of tensors does not require grad and does not have a grad_fn

is what you get with everything frozen.  With BatchNorm the worse trap has no message: running_mean and running_var of
frozen layers go on changing in `model.train()`.
"""

import tempfile
from pathlib import Path

import torch
from torch import nn
from torchvision.models import resnet18

import loadstone as ls

with tempfile.TemporaryDirectory() as folder:
    path = Path(folder) / "resnet18.pth"
    torch.save(resnet18().state_dict(), path)

    model = resnet18()
    ls.load(model, path)
    head = ls.replace_head(model, 10)
    optimizer = torch.optim.SGD(ls.freeze(model, except_=[head]), lr=0.1, momentum=0.9, weight_decay=0.01)
    print(ls.trainable(model))

    model.train()
    start = model.fc.weight.detach().clone()
    for _ in range(3):
        images, labels = torch.rand(8, 3, 32, 32), torch.randint(10, (8,))
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images), labels).backward()
        optimizer.step()

    with ls.open(path) as checkpoint:  # the rest did not move, running statistics included
        for key, info in checkpoint.weights.items():
            assert key in (f"{head}.weight", f"{head}.bias") or torch.equal(model.state_dict()[key], info.read()), key

assert not torch.equal(model.fc.weight, start)
