"""Convolutional networks that two libraries have."""

from __future__ import annotations

from typing import Any

from core import cvi, duo, hfi, tmi, tvi  # type: ignore[import-not-found]  # the folder's own

from benchmarks.pairs.fresh.kit import BN3, BN5, LN5, ORDER, hf, images, of

IMAGE = images(64)


def lukemelas(name: str) -> Any:
    return of("enet", "efficientnet_pytorch", lambda m: m.EfficientNet.from_name(name, num_classes=10))


def geffnet(name: str) -> Any:
    return of("geffnet", "geffnet", lambda m: m.create_model(name, num_classes=10))


HF_B0 = hf(
    "EfficientNetForImageClassification",
    num_labels=10,
    width_coefficient=1.0,
    depth_coefficient=1.0,
    hidden_dim=1280,
    image_size=224,
)
duo(
    "tf_efficientnet_b0",
    "efficientnet tf",
    lukemelas("efficientnet-b0"),
    tmi("tf_efficientnet_b0"),
    IMAGE,
    ORDER,
    fix=BN3,
)
duo(
    "tf_efficientnet_b0",
    "efficientnet tf",
    geffnet("tf_efficientnet_b0"),
    lukemelas("efficientnet-b0"),
    IMAGE,
    ORDER,
    fix=BN3,
    both=False,
)
duo("tf_efficientnet_b0", "efficientnet tf", HF_B0, tmi("tf_efficientnet_b0"), IMAGE, ORDER, fix=BN3)
duo("tf_efficientnet_b0", "efficientnet tf", HF_B0, lukemelas("efficientnet-b0"), IMAGE, ORDER, fix=BN3, both=False)
duo(
    "mobilenet_v3",
    "mobilenet_v3 geffnet",
    geffnet("mobilenetv3_large_100"),
    tvi("mobilenet_v3_large"),
    IMAGE,
    ORDER,
    fix=BN3,
    both=False,
)
duo("fbnetc", "fbnet", geffnet("fbnetc_100"), tmi("fbnetc_100"), IMAGE, ORDER, fix=BN5, both=False)
duo("spnasnet", "spnasnet", geffnet("spnasnet_100"), cvi("spnasnet"), IMAGE, ORDER, fix=BN5)
duo("mnasnet_b1", "mnasnet", geffnet("mnasnet_b1"), cvi("mnasnet_b1"), IMAGE, ORDER, fix=BN5, both=False)
duo("mnasnet_a1", "mnasnet", geffnet("mnasnet_a1"), cvi("mnasnet_a1"), IMAGE, ORDER, fix=BN5)
duo("mixnet_s", "mixnet", tmi("mixnet_s"), cvi("mixnet_s"), IMAGE, ORDER, fix=BN5)
duo("resnest14", "resnest", tmi("resnest14d"), cvi("resnestabc14"), IMAGE, ORDER, fix=BN5)
duo(
    "mobilevitv2",
    "mobilevitv2",
    tmi("mobilevitv2_050"),
    hfi("MobileViTV2ForImageClassification", "MobileViTV2Config", num_labels=10, width_multiplier=0.5),
    images(256, 1),
    ORDER,
    fix=LN5,
)
duo(
    "inception_resnet_v2",
    "inception_resnet",
    cvi("inceptionresnetv2"),
    tmi("inception_resnet_v2"),
    images(160, 1),
    ORDER,
    fix=BN5,
    both=False,
)
