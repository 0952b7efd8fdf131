"""Three photos that ship with scikit-image, and what ImageNet calls what is on them."""

from __future__ import annotations

from pathlib import Path

import skimage
import torch
from torchvision import transforms
from torchvision.io import ImageReadMode, decode_image
from torchvision.models._meta import _IMAGENET_CATEGORIES

PHOTOS = {"chelsea.png": "Egyptian cat", "coffee.png": "espresso", "motorcycle_left.png": "moped"}

AS_IMAGENET = transforms.Compose(
    [
        transforms.Resize(256, antialias=True),
        transforms.CenterCrop(224),
        transforms.ConvertImageDtype(torch.float32),
        transforms.Normalize(mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225]),
    ]
)


def batch() -> torch.Tensor:
    """The photos as one float32 batch of 3 × 3 × 224 × 224, prepared as for ImageNet."""
    folder = Path(skimage.__file__).parent / "data"
    return torch.stack([AS_IMAGENET(decode_image(str(folder / name), ImageReadMode.RGB)) for name in PHOTOS])


def answers(logits: torch.Tensor) -> list[tuple[str, str, float]]:
    """(photo, the class thought most likely, its probability), a row a photo."""
    best = logits.softmax(dim=1).max(dim=1)
    labels = [_IMAGENET_CATEGORIES[index] for index in best.indices.tolist()]
    return list(zip(PHOTOS, labels, best.values.tolist(), strict=True))
