"""Missing key(s) in state_dict, Unexpected key(s) in state_dict: the names in the file are not those of the model.

    RuntimeError: Error(s) in loading state_dict for ResNet:
        Missing key(s) in state_dict: "fc.weight", "fc.bias".
        Unexpected key(s) in state_dict: "margin", "last_linear.weight", "last_linear.bias".

`strict=False` makes that go away, and leaves `fc` untrained without a word.  Say what the names mean instead.
"""

import tempfile
from pathlib import Path

import torch
from torchvision.models import resnet18

import loadstone as ls

with tempfile.TemporaryDirectory() as folder:
    path = Path(folder) / "other_names.pth"  # its last layer is called otherwise, and it has a tensor of the loss
    trained = resnet18()
    state = {key.replace("fc.", "last_linear."): value for key, value in trained.state_dict().items()}
    torch.save({"margin": torch.tensor(0.5), **state}, path)

    model = resnet18()
    try:
        ls.load(model, path)
    except ls.MatchError as error:  # nothing has been written: the model is as it was
        print("missing", error.plan.missing_keys)
        print("unexpected", error.plan.unexpected_keys)

    plan = ls.load(model, path, rename={r"^last_linear\.": "fc."}, drop=["margin"])

assert plan.ok
assert all(torch.equal(value, trained.state_dict()[key]) for key, value in model.state_dict().items())
print(f"{sum(action.status == 'load' for action in plan.actions)} tensors loaded")
