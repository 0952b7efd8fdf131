"""Load a .safetensors file into a model, save one, and turn a .pth into a .safetensors.

    RuntimeError:
        Some tensors share memory, this will lead to duplicate memory on disk and potential differences when loading
        them again: [{'decoder.weight', 'encoder.weight'}].

is what safetensors says of a model with tied weights.  `ls.save` writes every key, so that any program can read them.
"""

import tempfile
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import nn

import loadstone as ls


class Tied(nn.Module):
    """A language model in small: words in and words out have the same weights."""

    def __init__(self):
        super().__init__()
        self.encoder = nn.Embedding(20, 4)
        self.decoder = nn.Linear(4, 20, bias=False)
        self.decoder.weight = self.encoder.weight


with tempfile.TemporaryDirectory() as folder:
    pth, path = Path(folder) / "tied.pth", Path(folder) / "tied.safetensors"
    trained = Tied()
    torch.save(trained.state_dict(), pth)

    with ls.open(pth) as checkpoint:
        ls.save({key: info.read() for key, info in checkpoint.weights.items()}, path, metadata={"format": "pt"})

    model = Tied()
    ls.load(model, path)
    with ls.open(path) as checkpoint:
        print(checkpoint.format, list(checkpoint.weights), dict(checkpoint.metadata))
    assert load_file(path).keys() == {"encoder.weight", "decoder.weight"}

assert torch.equal(model.encoder.weight, trained.encoder.weight)
assert model.decoder.weight is model.encoder.weight
