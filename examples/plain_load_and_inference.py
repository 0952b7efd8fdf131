"""How to load a .pth file into a model and predict with it.

You have weights in a file and met one of these on the way:

    TypeError: Expected state_dict to be dict-like, got <class 'str'>.
    AttributeError: 'collections.OrderedDict' object has no attribute 'eval'
"""

import tempfile
from pathlib import Path

import torch
from torchvision.models import resnet18

import loadstone as ls

with tempfile.TemporaryDirectory() as folder:
    path = Path(folder) / "resnet18.pth"  # stands for the file that you have
    trained = resnet18().eval()
    torch.save(trained.state_dict(), path)

    model = resnet18()
    ls.load(model, path)  # the path will do: no torch.load, no map_location
    model.eval()  # dropout off, running statistics instead of those of the batch

    image = torch.rand(1, 3, 64, 64)
    with torch.inference_mode():
        scores = model(image)
        assert torch.equal(scores, trained(image))

best = scores.softmax(dim=1).max(dim=1)
print(f"class {best.indices.item()} of {scores.shape[1]}, probability {best.values.item():.3f}")
