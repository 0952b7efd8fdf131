"""Read the weights out of a TorchScript archive (torch.jit.save) and of a .pt2 (torch.export.save).

    RuntimeError: Cannot use ``weights_only=True`` with TorchScript archives passed to ``torch.load``.
    TypeError: Expected state_dict to be dict-like, got <class 'torch.jit._script.RecursiveScriptModule'>.
    RuntimeError: PytorchStreamReader failed locating file data.pkl: file not found.

The program in the archive is not run.
"""

import tempfile
import warnings
from pathlib import Path

import torch
from torch import nn

import loadstone as ls


def small():
    """Convolution, norm and linear layer."""
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(8 * 6 * 6, 2)).eval()


image = torch.rand(1, 3, 8, 8)
with tempfile.TemporaryDirectory() as folder:
    script, exported = Path(folder) / "script.pt", Path(folder) / "exported.pt2"
    trained = small()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # torch.jit is deprecated; its files are still around
        torch.jit.save(torch.jit.trace(trained, image), script)
    torch.export.save(torch.export.export(trained, (image,)), exported)

    for path in (script, exported):
        model = small()
        ls.load(model, path)
        with torch.inference_mode():
            assert torch.equal(model(image), trained(image))
        with ls.open(path) as checkpoint:
            print(f"{path.name}: {checkpoint.format}, {len(checkpoint.weights)} tensors")
