"""total_ops and total_params in a state_dict: a file that was saved after thop or another profiler had counted it.

RuntimeError: Error(s) in loading state_dict for ResNet:
    Unexpected key(s) in state_dict: "total_ops", "total_params", "conv1.total_ops", "conv1.total_params", ...
"""

import tempfile
from pathlib import Path

import torch
from torchvision.models import resnet18

import loadstone as ls

with tempfile.TemporaryDirectory() as folder:
    path = Path(folder) / "counted.pth"
    counted = resnet18()
    for module in counted.modules():  # what thop.profile leaves behind
        module.register_buffer("total_ops", torch.zeros(1, dtype=torch.float64))
        module.register_buffer("total_params", torch.zeros(1, dtype=torch.float64))
    torch.save(counted.state_dict(), path)

    model = resnet18()
    plan = ls.load(model, path)  # the counters are left out, and listed in the plan as dropped

dropped = [action.source for action in plan.actions if action.status == "dropped"]
assert all(key.endswith(("total_ops", "total_params")) for key in dropped)
assert torch.equal(model.fc.weight, counted.fc.weight)
print(f"{len(dropped)} counters dropped, {len(model.state_dict())} tensors loaded")
