"""The verb `replace_input`: the convolutions that take the image, for another number of channels.

What they have learned stays: kernels of channels that go are added to one that is left, kernels that are used for
several channels are shared out among them, so that the sum over channels stays what it was.  It is the adapter
"channels" of a plan (model/adapters/channels.py).  A grey image through the one-channel model gives what the same image
as RGB gave.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from loadstone.errors import Diagnostic, Fix, SurgeryError
from loadstone.keys import parent
from loadstone.matching.steps import Channels
from loadstone.model.adapters.channels import with_channels
from loadstone.model.schema import modules_of
from loadstone.model.surgery.checked import check_editable, check_number, module_at
from loadstone.model.surgery.examples import ExampleInput
from loadstone.model.surgery.head import is_plain
from loadstone.model.surgery.initial import resized
from loadstone.model.surgery.proof import check_still_runs, mirrors
from loadstone.model.surgery.rehearsal import Pass, rehearse
from loadstone.model.surgery.result import Edit
from loadstone.model.surgery.steps import replacing

Convolution = nn.Conv1d | nn.Conv2d | nn.Conv3d

_CHANNEL_COUNTS = ("in_channels", "in_chans", "num_channels", "in_chan")


def replace_input(model: nn.Module, channels: int, *, example_input: ExampleInput | None = None) -> Edit:
    """Let the model take images of another number of channels, keeping what it learned; returns the layer's name.

    All convolutions that take the image are changed, seen in a forward pass on a shadow of the model.  Bias, stride,
    groups, padding mode, dtype, device and requires_grad stay as they are.

    Args:
        model: any module; it is changed in place.
        channels: at least 1, and a multiple of the groups of the convolution.
        example_input: a batch that the model takes now, where none can be made from its first layer.

    Raises SurgeryError (input-not-found, several-candidates, forward-failed, not-editable, edit-breaks-model,
    invalid-option, uninitialised-parameter); the model is then as it was.
    """
    check_editable(model)
    check_number(channels, "channels")
    if next(model.parameters(), None) is None:
        raise _no_image(model, "any input")
    seen = rehearse(model, example_input)[-1]
    number, names = _image_layers(model, seen)
    olds = {name: module_at(model, name) for name in names}
    before = int(seen.example.tensors[number].shape[1])
    swaps: list[tuple[Convolution, Convolution]] = []
    for name, old in olds.items():
        if not is_plain(old) or isinstance(old, nn.Linear) or old.in_channels != before:
            raise _not_a_convolution(name, old, before)
        if channels % old.groups:
            said = f"channels={channels} cannot be divided by the {old.groups} groups of `{name}`"
            raise SurgeryError(Diagnostic("invalid-option", said, keys=(name,)))
        if not any(old is other for other, _ in swaps):
            swaps.append((old, _adapted(old, channels)))
    layers = [(name, old, next(new for module, new in swaps if module is old)) for name, old in olds.items()]
    steps = [*replacing(model, swaps), *mirrors(model, names, _CHANNEL_COUNTS, before, channels)]
    notes = [f"found in a forward pass of {seen.example}", _how(before, channels)]
    edit = Edit(f"replaced the input of {type(model).__name__}", names, layers, steps, notes=notes).done()
    example = seen.example.with_channels(number, channels)
    check_still_runs(edit, lambda: _difference(seen, seen.again(model, example)))
    return edit


def _adapted(layer: Convolution, channels: int) -> Convolution:
    new = resized(layer, in_channels=channels)
    step = Channels(layer.weight.shape[1], channels // layer.groups)
    weight = with_channels(layer.weight.detach(), step) if step.have != step.want else layer.weight.detach().clone()
    new._parameters["weight"] = nn.Parameter(weight, requires_grad=layer.weight.requires_grad)
    new._parameters["bias"] = layer._parameters["bias"]  # the very same: nothing of it changes
    return new


def _image_layers(model: nn.Module, seen: Pass) -> tuple[int, list[str]]:
    """The number of the input that is the image, and the layers that take it; exactly one input has such layers."""
    tensors = seen.example.tensors
    takers: dict[int, dict[str, None]] = {}
    for taken in seen.taken:
        if tensors[taken.input].dim() >= 3 and tensors[taken.input].is_floating_point():
            names = {parent(key): None for key in (*taken.after, *taken.weights)}
            takers.setdefault(taken.input, {}).update(names)
    if not takers:
        raise _no_image(model, f"an image of {seen.example}")
    if len(takers) > 1:
        first = [next(iter(names)) for names in takers.values()]
        raise SurgeryError(
            Diagnostic(
                "several-candidates",
                f"{type(model).__name__} takes {len(takers)} images: {' and '.join(f'`{name}`' for name in first)}",
                fixes=tuple(Fix(f"for `{name}`", f'ls.replace(model, "{name}", nn.Conv2d(...))') for name in first),
                keys=tuple(first),
            )
        )
    number, names = next(iter(takers.items()))
    order = [path for path, _ in modules_of(model)]
    return number, sorted(names, key=order.index)


def _no_image(model: nn.Module, image: str) -> SurgeryError:
    said = f"no layer of {type(model).__name__} takes {image}"
    fix = Fix("give a batch of images", "example_input=images")
    return SurgeryError(Diagnostic("input-not-found", said, fixes=(fix,)))


def _not_a_convolution(name: str, module: nn.Module, channels: int) -> SurgeryError:
    kind = type(module).__name__
    takes = getattr(module, "in_channels", None)
    if is_plain(module) and not isinstance(module, nn.Linear):
        said = f"`{name}` takes {takes} channels, which the model makes of the {channels} of the image"
    else:
        said = (
            f"the image goes into `{name}`, a {kind}, which is no plain convolution"
            if name
            else (f"the image meets a weight of {kind} itself, which is no convolution")
        )
    fixes = (Fix("put a layer of yours there", f'ls.replace(model, "{name}", layer)'),) if name else ()
    return SurgeryError(Diagnostic("not-editable", said, fixes=fixes, keys=(name,)))


def _how(before: int, channels: int) -> str:
    if channels == before:
        return "kernels as they were"
    how = "summed" if channels < before else "shared out"
    return f"kernels of {before} channels {how}, their sum over channels is the same"


def _difference(before: Pass, after: Pass) -> str:
    """ "" where the outputs have the shapes they had."""
    old: Sequence[tuple[int, ...]] = [each.shape for each in before.outputs]
    new = [each.shape for each in after.outputs]
    return "" if old == new else f"it gives {new} instead of {old}"
