"""Load only some layers of a pretrained model, by an explicit list of keys, into layers that are called otherwise.

The loop that tutorials write for it skips what it does not find, without a word:

    pretrained = {k: v for k, v in pretrained.items() if k in model_dict}
    model_dict.update(pretrained)
    model.load_state_dict(model_dict)

and without the loop torch says:

    RuntimeError: Error(s) in loading state_dict for Small:
        Missing key(s) in state_dict: "first.weight", "first.bias", "second.weight", "second.bias", ...
"""

import tempfile
from pathlib import Path

import torch
from torch import nn
from torchvision.models import squeezenet1_1

import loadstone as ls


class Small(nn.Module):
    """Two layers that are in SqueezeNet as well, and one that is not."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 64, kernel_size=3, stride=2)
        self.second = nn.Conv2d(64, 16, kernel_size=1)
        self.out = nn.Linear(16, 2)


SAME = {"features.0": "first", "features.3.squeeze": "second"}  # in the file: in the model

with tempfile.TemporaryDirectory() as folder:
    path = Path(folder) / "squeezenet.pth"
    trained = squeezenet1_1()
    torch.save(trained.state_dict(), path)

    model = Small()
    rename = {rf"^{theirs}\.": f"{ours}." for theirs, ours in SAME.items()}
    plan = ls.load(model, path, only=list(SAME), rename=rename, fresh=["out"])

assert torch.equal(model.first.weight, trained.features[0].weight)
assert torch.equal(model.second.bias, trained.features[3].squeeze.bias)
print("loaded", [action.target for action in plan.actions if action.status == "load"])
