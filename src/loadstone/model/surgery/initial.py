"""A layer like another, of another size, with first values as its family draws them."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator
from typing import TypeVar

import torch
from torch import nn

from loadstone.model.surgery.checked import module_at

Layer = nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d
L = TypeVar("L", bound=Layer)


def _zero_bias(layer: Layer) -> None:
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


def _normal(std: float) -> Callable[[Layer], None]:
    def fill(layer: Layer) -> None:
        nn.init.normal_(layer.weight, std=std)
        _zero_bias(layer)

    return fill


def _truncated_normal(layer: Layer) -> None:
    nn.init.trunc_normal_(layer.weight, std=0.02)
    _zero_bias(layer)


def _wide_truncated_normal(layer: Layer) -> None:
    std = getattr(layer, "stddev", 0.1)  # Inception3 notes it on each layer
    nn.init.trunc_normal_(layer.weight, std=float(std), a=-2, b=2)


def _googlenet(layer: Layer) -> None:
    nn.init.trunc_normal_(layer.weight, std=0.01, a=-2, b=2)


def _efficientnet(layer: Layer) -> None:
    bound = 1.0 / math.sqrt(layer.weight.shape[0])
    nn.init.uniform_(layer.weight, -bound, bound)
    _zero_bias(layer)


def _mnasnet(layer: Layer) -> None:
    nn.init.kaiming_uniform_(layer.weight, mode="fan_out", nonlinearity="sigmoid")
    _zero_bias(layer)


def _zeros(layer: Layer) -> None:
    nn.init.zeros_(layer.weight)
    _zero_bias(layer)


# What the constructors of torchvision 0.29 do to their classifier, by class; the others leave it as torch makes it.
_FAMILIES: dict[str, tuple[str, Callable[[Layer], None]]] = {
    "torchvision.models.convnext.ConvNeXt": ("normal, truncated, std 0.02", _truncated_normal),
    "torchvision.models.densenet.DenseNet": ("as torch does, bias zero", _zero_bias),
    "torchvision.models.efficientnet.EfficientNet": ("uniform, ±1/√classes", _efficientnet),
    "torchvision.models.googlenet.GoogLeNet": ("normal, truncated, std 0.01", _googlenet),
    "torchvision.models.inception.Inception3": ("normal, truncated, std as noted on it", _wide_truncated_normal),
    "torchvision.models.maxvit.MaxVit": ("normal, std 0.02", _normal(0.02)),
    "torchvision.models.mnasnet.MNASNet": ("Kaiming uniform, fan out", _mnasnet),
    "torchvision.models.mobilenetv2.MobileNetV2": ("normal, std 0.01", _normal(0.01)),
    "torchvision.models.mobilenetv3.MobileNetV3": ("normal, std 0.01", _normal(0.01)),
    "torchvision.models.regnet.RegNet": ("normal, std 0.01", _normal(0.01)),
    "torchvision.models.squeezenet.SqueezeNet": ("normal, std 0.01", _normal(0.01)),
    "torchvision.models.swin_transformer.SwinTransformer": ("normal, truncated, std 0.02", _truncated_normal),
    "torchvision.models.vgg.VGG": ("normal, std 0.01", _normal(0.01)),
    "torchvision.models.vision_transformer.VisionTransformer": ("zeros", _zeros),
}


def resized(layer: L, **sizes: int) -> L:
    """A layer of the same class with the same attributes and hooks, of other sizes: `out_features=10`.

    Its parameters are new, without values yet, of the same dtype, on the same device; they want gradients.
    """
    new = object.__new__(type(layer))
    for name, value in vars(layer).items():
        vars(new)[name] = value.copy() if name.startswith("_") and isinstance(value, (dict, set)) else value
    vars(new).update(sizes)
    weight = layer.weight
    rows, columns, *kernel = weight.shape
    rows = sizes.get("out_features", sizes.get("out_channels", rows))
    if "in_channels" in sizes:
        columns = sizes["in_channels"] // vars(new)["groups"]
    new._parameters["weight"] = _empty(weight, (rows, columns, *kernel))
    if layer.bias is not None:
        new._parameters["bias"] = _empty(layer.bias, (rows,))
    return new


def initialise(layer: Layer, model: nn.Module, path: str) -> str:
    """Give a fresh head its first values, as the model that has it at `path` would; says how, in words.

    By the method `_init_weights` of the model or of a part around the layer (timm, transformers), by what is known of
    the family (torchvision), and else as torch makes such a layer.  Values are drawn in float32.
    """
    dtype = layer.weight.dtype
    if dtype in (torch.float16, torch.bfloat16):
        layer.float()
    layer.reset_parameters()
    said = f"initialised as torch makes a {type(layer).__name__}"
    for around in _around(model, path):
        own = _own_initialiser(around)
        family = next((_FAMILIES[name] for name in _class_names(around) if name in _FAMILIES), None)
        if own is not None:
            try:
                with torch.no_grad():
                    own(layer)
            except Exception:  # whatever the model's code raises: it is not made for single layers
                layer.reset_parameters()
                continue
            said = f"initialised by {type(around).__name__}._init_weights"
            break
        if family is not None:
            said = f"initialised as {type(around).__name__} does: {family[0]}"
            family[1](layer)
            break
    layer.to(dtype)
    return said


def _empty(like: torch.Tensor, sizes: tuple[int, ...]) -> nn.Parameter:
    return nn.Parameter(torch.empty(sizes, dtype=like.dtype, device=like.device))


def _around(model: nn.Module, path: str) -> Iterator[nn.Module]:
    """The modules that the named one lies in, from the inside out."""
    while path:
        path = path.rpartition(".")[0]
        yield module_at(model, path)


def _own_initialiser(module: nn.Module) -> Callable[[nn.Module], object] | None:
    """`module._init_weights`, where it takes one module."""
    method = getattr(module, "_init_weights", None)
    if not inspect.ismethod(method):
        return None
    try:
        inspect.signature(method).bind(module)
    except TypeError:
        return None
    return method


def _class_names(module: nn.Module) -> Iterator[str]:
    for base in type(module).__mro__:
        yield f"{base.__module__}.{base.__qualname__}"
