"""Load a file that was saved on a GPU on a machine without one, and files of several GPUs, in each direction.

    RuntimeError: Attempting to deserialize object on a CUDA device but torch.cuda.is_available() is False. If you are
    running on a CPU-only machine, please use torch.load with map_location=torch.device('cpu') to map your storages to
    the CPU.

A file only remarks where its tensors were.  Loadstone puts them where the parameters of your model are.
"""

import tempfile
from pathlib import Path
from unittest import mock

import torch
from torch import nn
from torchvision.models import resnet18

import loadstone as ls

with tempfile.TemporaryDirectory() as folder:
    one, several = Path(folder) / "one_gpu.pth", Path(folder) / "several_gpus.pth"
    trained = resnet18()
    with mock.patch("torch.serialization.location_tag", return_value="cuda:0"):  # as a machine with a GPU tags them
        torch.save(trained.state_dict(), one)
        torch.save(nn.DataParallel(trained).state_dict(), several)

    device = "cuda" if torch.cuda.is_available() else "cpu"
    for path in (one, several):
        plain, parallel = resnet18().to(device), nn.DataParallel(resnet18().to(device))
        ls.load(plain, path)
        ls.load(parallel, path)
        assert torch.equal(plain.fc.weight, trained.fc.weight.to(device))
        assert torch.equal(parallel.module.fc.weight, plain.fc.weight)

    ls.save(plain, Path(folder) / "for_anyone.pth")
    ls.load(resnet18(), Path(folder) / "for_anyone.pth", device="cpu")  # or device="cuda": the model moves there

    with ls.open(several) as checkpoint:
        info = checkpoint.weights["module.fc.weight"]
        print(f"saved on {info.storage.location}, loaded to {plain.fc.weight.device}")
