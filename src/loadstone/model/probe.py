"""A probe: what a model computes for an input that anybody can make again, so that whoever loads a file can compare.

The input itself is not kept, only its description: shapes, dtypes, and the smallest and largest value of the example.
From it the same numbers come on every machine and with every version of torch: element i of tensor t is a function of
(t, i), the SplitMix64 generator at place 2^40 t + i (Steele, Lea and Flood, 2014, https://doi.org/10.1145/2660193.2660195),
spread over the range of the example.  So nothing of the example's content is in the file.

Of the output the values are kept: all of them, or evenly spaced ones where there are more than MOST_VALUES.
"""

from __future__ import annotations

import base64
import contextlib
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy
import torch
from torch import nn
from torch.utils._pytree import keystr, tree_flatten_with_path

from loadstone.dtypes import DTYPES
from loadstone.errors import Diagnostic, Fix, FormatError, LoadstoneError, MatchError, SaveError
from loadstone.manifest import Manifest, Plain
from loadstone.matching.probed import Probed
from loadstone.model import randomness
from loadstone.model.exporting.comparing import ROUNDING, how_far
from loadstone.model.exporting.examples import Example, example_of
from loadstone.screens.quantities import shape as shown_shape

MOST_VALUES = 4096  # of one output
_MOST_ELEMENTS = 2**31  # of one input: what a file may ask of this machine
_VERSION = 1
_PLAIN = (bool, int, float, str, type(None))


def record(model: nn.Module, example_input: object) -> dict[str, Plain]:
    """The probe of `model`, ready for JSON: an input's description and the output's values, in eval mode.

    Args:
        model: it is run twice, without gradients; its mode, its buffers and all random numbers stay what they are.
        example_input: a tensor, a tuple of positional arguments or a dict of named ones, for shapes, dtypes and ranges.

    Raises:
        SaveError: example-refused where the model raises, probe-unstable where two runs differ or give no tensor.
        RecipeError: invalid-option where there is no tensor in the example.
    """
    example = example_of(example_input)
    description: dict[str, Plain] = {
        "args": [_described(value, "input") for value in example.args],
        "kwargs": {name: _described(value, name) for name, value in (example.kwargs or {}).items()},
    }
    try:
        outputs, again = (_outputs(model, description) for _ in range(2))
    except LoadstoneError:
        raise
    except Exception as error:
        message = f"the model raised {type(error).__name__} for an input of this kind: {_line(error)}"
        raise SaveError(Diagnostic("example-refused", message)) from error
    kept: list[Plain] = [_kept(place, tensor) for place, tensor in outputs]
    if not kept:
        raise SaveError(Diagnostic("probe-unstable", "the model's output has no tensor that could be remembered"))
    if kept != [_kept(place, tensor) for place, tensor in again]:
        message = "two runs of the model on one input, in eval mode, give different outputs"
        raise SaveError(Diagnostic("probe-unstable", message, fixes=(Fix("save without one", "probe=None"),)))
    return {"version": _VERSION, "input": description, "output": kept, "dtype": _dtype_of(model)}


def check(model: nn.Module, manifest: Manifest | None, name: str, kept: Sequence[str] = ()) -> Probed:
    """Run `model` on the input of the probe in the file called `name` and compare.

    `kept` are the model's keys that did not come from the file: they are named where outputs differ.

    Raises:
        MatchError: probe-differs; no-probe where the file has none.
        FormatError: invalid-manifest where the probe cannot be used.
    """
    if manifest is None or manifest.probe is None:
        fixes = (Fix("save with one", "loadstone.save(model, path, probe=example_input)"),)
        raise MatchError(Diagnostic("no-probe", f"`{name}` remembers no output to compare with", fixes=fixes))
    probe = manifest.probe
    try:
        description, remembered = _read(probe, name)
        outputs = _outputs(model, description, cast_from=probe.get("dtype"))
    except LoadstoneError:
        raise
    except Exception as error:
        message = f"the model raised {type(error).__name__} for the probe of `{name}`: {_line(error)}"
        raise MatchError(Diagnostic("probe-differs", message)) from error
    if len(outputs) != len(remembered):
        raise _differs(name, f"the model gives {len(outputs)} tensors, `{name}` remembers {len(remembered)}", (), kept)
    result = Probed(True, 0.0, 0.0, 0.0, 0)
    for (place, tensor), entry in zip(outputs, remembered, strict=True):
        result = _compared(result, place, tensor, entry, name, kept)
    return result


def _described(value: object, place: str, depth: int = 0) -> Plain:
    """A value of the example as JSON: a tensor as what is needed to make one like it."""
    if isinstance(value, torch.Tensor):
        if value.layout != torch.strided or value.is_quantized or value.is_complex() or value.is_meta:
            raise _unusable(f"`{place}` is no dense tensor of real numbers")
        numbers = value.detach().to("cpu", torch.float64 if value.is_floating_point() else torch.int64).flatten()
        finite = numbers[numbers.isfinite()] if value.is_floating_point() else numbers
        low, high = (finite.min().item(), finite.max().item()) if finite.numel() else (0, 0)
        return {"shape": list(value.shape), "dtype": str(value.dtype).removeprefix("torch."), "low": low, "high": high}
    if depth > 8:
        raise _unusable(f"`{place}` is nested more than 8 deep")
    if isinstance(value, (list, tuple)):
        kind = "list" if isinstance(value, list) else "tuple"
        return {kind: [_described(each, f"{place}[{index}]", depth + 1) for index, each in enumerate(value)]}
    if isinstance(value, Mapping):
        return {"dict": {str(key): _described(each, f"{place}.{key}", depth + 1) for key, each in value.items()}}
    if type(value) in _PLAIN:
        return {"value": value}  # type: ignore[dict-item]
    raise _unusable(f"`{place}` is a {type(value).__name__}")


def _unusable(message: str) -> SaveError:
    return SaveError(Diagnostic("example-refused", f"a probe cannot be made from the example: {message}"))


def _made(entry: Any, number: Iterator[int]) -> object:
    """The value that a description stands for."""
    match entry:
        case {"shape": list(shape), "dtype": str(dtype), "low": low, "high": high} if dtype in DTYPES:
            return _tensor(tuple(shape), dtype, low, high, next(number))
        case {"list": list(each)}:
            return [_made(inner, number) for inner in each]
        case {"tuple": list(each)}:
            return tuple(_made(inner, number) for inner in each)
        case {"dict": dict(each)}:
            return {key: _made(inner, number) for key, inner in each.items()}
        case {"value": value} if type(value) in _PLAIN:
            return value
    raise ValueError(f"an input is described as {entry!r:.60}")


def _tensor(shape: tuple[int, ...], dtype: str, low: float, high: float, number: int) -> torch.Tensor:
    """The tensor with this number: the same on every machine."""
    if not all(type(size) is int and size >= 0 for size in shape) or math.prod(shape) > _MOST_ELEMENTS:
        raise ValueError(f"an input has shape {shape!r:.60}")
    found = getattr(torch, dtype)
    uniform = _uniform(math.prod(shape), number)
    if found.is_floating_point:
        values = torch.from_numpy(float(low) + (float(high) - float(low)) * uniform)
    else:
        values = torch.from_numpy(numpy.floor(uniform * (int(high) - int(low) + 1)).astype(numpy.int64) + int(low))
    return values.reshape(shape).to(found)


def _uniform(elements: int, number: int) -> numpy.ndarray:
    """`elements` float64 in [0, 1), by SplitMix64."""
    with numpy.errstate(over="ignore"):
        places = numpy.arange(1, elements + 1, dtype=numpy.uint64) + numpy.uint64(number << 40)
        mixed = places * numpy.uint64(0x9E3779B97F4A7C15)
        mixed = (mixed ^ (mixed >> numpy.uint64(30))) * numpy.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> numpy.uint64(27))) * numpy.uint64(0x94D049BB133111EB)
        mixed ^= mixed >> numpy.uint64(31)
    return (mixed >> numpy.uint64(11)).astype(numpy.float64) * 2.0**-53


def _outputs(
    model: nn.Module, description: Mapping[str, Any], *, cast_from: object = None
) -> list[tuple[str, torch.Tensor]]:
    """The tensors that the model gives for the described input, with their places; the model is left as it was."""
    numbers = iter(range(2**20))
    args = tuple(_made(entry, numbers) for entry in description["args"])
    kwargs = {name: _made(entry, numbers) for name, entry in description["kwargs"].items()}
    own = next((each for each in model.parameters() if each.is_floating_point()), None)

    def placed(tensor: torch.Tensor) -> torch.Tensor:
        if own is None:
            return tensor
        follows = str(tensor.dtype).removeprefix("torch.") == cast_from  # a float input of a model that was cast since
        return tensor.to(own.device, own.dtype if follows else tensor.dtype)

    with as_it_was(model), randomness.kept():
        model.eval()
        output = Example(args, kwargs).mapped(placed).given_to(model)
    leaves = tree_flatten_with_path(output)[0]
    return [(keystr(path), leaf.detach().cpu()) for path, leaf in leaves if isinstance(leaf, torch.Tensor)]


@contextlib.contextmanager
def as_it_was(model: nn.Module) -> Iterator[None]:
    """Whatever the block does to modes and buffers of the model is undone."""
    modes = [(module, module.training) for module in model.modules()]
    buffers = [(buffer, buffer.detach().clone()) for buffer in model.buffers()]
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode
        with torch.no_grad():
            for buffer, values in buffers:
                if buffer.shape == values.shape:
                    buffer.copy_(values)


def _dtype_of(model: nn.Module) -> str | None:
    own = next((each for each in model.parameters() if each.is_floating_point()), None)
    return None if own is None else str(own.dtype).removeprefix("torch.")


def _kept(place: str, tensor: torch.Tensor) -> dict[str, Plain]:
    values = _sample(tensor)
    data = base64.b64encode(values.view(torch.uint8).numpy().tobytes() if values.numel() else b"").decode()
    dtype = str(tensor.dtype).removeprefix("torch.")
    return {"place": place, "shape": list(tensor.shape), "dtype": dtype, "values": data}


def _sample(tensor: torch.Tensor) -> torch.Tensor:
    """At most MOST_VALUES of its values, evenly spaced, in a row."""
    dense = tensor.resolve_conj().resolve_neg()
    flat = (dense if dense.layout == torch.strided else dense.to_dense()).contiguous().reshape(-1)
    if flat.numel() <= MOST_VALUES:
        return flat
    return flat[torch.arange(MOST_VALUES) * flat.numel() // MOST_VALUES]


def _read(probe: Mapping[str, Any], name: str) -> tuple[Mapping[str, Any], list[tuple[torch.Tensor, tuple[int, ...]]]]:
    """The description of the input, and the values of each output with the output's shape."""
    try:
        if probe["version"] != _VERSION:
            raise ValueError(f"its version is {probe['version']!r:.20}")
        remembered = []
        for entry in probe["output"]:
            shape, dtype = tuple(map(int, entry["shape"])), getattr(torch, entry["dtype"])
            data = bytearray(base64.b64decode(entry["values"], validate=True))
            values = torch.frombuffer(data, dtype=dtype) if data else torch.empty(0, dtype=dtype)
            if values.numel() != min(math.prod(shape), MOST_VALUES):
                raise ValueError(f"it keeps {values.numel():,} values of {shape}")
            remembered.append((values, shape))
        description = {"args": list(probe["input"]["args"]), "kwargs": dict(probe["input"]["kwargs"])}
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        message = f"the probe in `{name}` cannot be used: {_line(error)}"
        raise FormatError(Diagnostic("invalid-manifest", message)) from error
    return description, remembered


def _compared(
    so_far: Probed,
    place: str,
    tensor: torch.Tensor,
    remembered: tuple[torch.Tensor, tuple[int, ...]],
    name: str,
    kept: Sequence[str],
) -> Probed:
    expected, shape = remembered
    if tuple(tensor.shape) != shape:
        message = f"`output{place}` is {shown_shape(tuple(tensor.shape))}, `{name}` remembers {shown_shape(shape)}"
        raise _differs(name, message, (), kept)
    found = _sample(tensor)
    tolerance = max(ROUNDING.get(dtype, 0.0) for dtype in (expected.dtype, found.dtype))
    is_equal = expected.dtype == found.dtype and torch.equal(expected.view(torch.uint8), found.view(torch.uint8))
    apart, share = (0.0, 0.0) if is_equal else how_far(expected, found)
    if share > tolerance:
        message = f"`output{place}` is up to {apart:.2g} from what `{name}` remembers, {share:.2g} of its largest value"
        raise _differs(name, message, (("rounding", f"{tolerance:.0e} of its largest value"),), kept)
    return Probed(
        so_far.is_equal and is_equal,
        max(so_far.max_difference, apart),
        max(so_far.max_relative, share),
        max(so_far.tolerance, tolerance),
        so_far.values + found.numel(),
    )


def _differs(name: str, message: str, evidence: tuple[tuple[str, str], ...], kept: Sequence[str]) -> MatchError:
    if kept:
        more = f" and {len(kept) - 1:,} more" if len(kept) > 1 else ""
        evidence += (("not from the file", f"{kept[0]}{more}"),)
    return MatchError(Diagnostic("probe-differs", message, evidence))


def _line(error: BaseException) -> str:
    return next(iter(str(error).splitlines()), "") or type(error).__name__
