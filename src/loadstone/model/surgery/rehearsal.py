"""One forward pass that costs nothing and touches nothing: on a shadow of the model, on the meta device.

The shadow has the modules' code and attributes, and no memory: no weight, running statistic or random state of the
model can change.  Where code needs values to go on, the pass is made once more on a shadow whose buffers are copies and
whose weights are the model's own, guarded against writing.
"""

from __future__ import annotations

import contextlib
import random
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass

import torch
from torch import nn

from loadstone.errors import Diagnostic, Fix, SurgeryError
from loadstone.model.schema import modules_of, walk
from loadstone.model.shadow import shadow_of
from loadstone.model.surgery.examples import Example, ExampleInput, example_of, made_up
from loadstone.model.surgery.trace import Origin, Taken, Trace

_META = torch.device("meta")


@dataclass(frozen=True, slots=True)
class Output:
    """A tensor that the model returned: its name ("" where it is all there is), its shape, where it came from."""

    name: str
    shape: tuple[int, ...]
    origin: Origin


@dataclass(frozen=True, slots=True)
class Pass:
    """One forward pass: how it was made, and what came of it."""

    example: Example
    device: torch.device
    is_training: bool
    outputs: tuple[Output, ...]
    taken: tuple[Taken, ...]

    def again(self, model: nn.Module, example: Example | None = None) -> Pass:
        """The same pass through the model as it is now; raises what its forward raises."""
        return _Shadow(model, self.device).run(example or self.example, self.is_training)


def rehearse(model: nn.Module, given: ExampleInput | None) -> list[Pass]:
    """Passes that show what the model returns: in training, where auxiliary heads answer too, and else in evaluation.

    The first is in training where that runs.  The second, in evaluation, is made where the first does not tell.

    Raises SurgeryError (forward-failed) where no input got through, with the reason of the likeliest.
    """
    examples = list(made_up(model)) if given is None else example_of(given)
    reason = "it has no layer to make an input for"
    devices = [_META] if _is_on_meta(model) else [_META, _device_of(model)]
    for device in devices:
        shadow = _Shadow(model, device)
        for is_training in (True, False):
            for number, example in enumerate(examples):
                try:
                    first = shadow.run(example, is_training)
                except Exception as error:  # whatever the model's code raises
                    if number == 0:
                        reason = _reason(error)
                    continue
                if not is_training or len(first.outputs) == 1:
                    return [first]
                with contextlib.suppress(Exception):
                    return [first, shadow.run(example, is_training=False)]
                return [first]
    tried = "example_input" if given is not None else "inputs made for its first layer"
    raise SurgeryError(
        Diagnostic(
            "forward-failed",
            f"{type(model).__name__} does not run on {tried}: {reason}",
            fixes=(Fix("give an input that it takes", "example_input=batch"),),
        )
    )


class _Shadow:
    """A shadow of a model on a device, to run again and again."""

    def __init__(self, model: nn.Module, device: torch.device) -> None:
        self._device = device
        self._model = shadow_of(model, _on_meta if device == _META else _borrowed)
        for _, module in modules_of(self._model):
            _keep_own_hooks(module)
        places = walk(self._model).places
        self._weights = {place.key: place.tensor for place in places if place.kind == "parameter"}
        self._protected = [] if device == _META else list(self._weights.values())

    def run(self, example: Example, is_training: bool) -> Pass:
        """One forward pass; raises what the model's forward raises."""
        real = example.on(self._device)
        trace = Trace(self._weights, real.tensors, self._protected)
        self._model.train(is_training)
        with _random_state_kept(), warnings.catch_warnings(), torch.no_grad(), trace:
            warnings.simplefilter("ignore")
            result = self._model(*real.args, **real.kwargs)
        outputs = tuple(
            Output(name, tuple(tensor.shape), trace.origin_of(tensor)) for name, tensor in _tensors_in(result)
        )
        return Pass(example, self._device, is_training, outputs, tuple(trace.taken))


def _tensors_in(result: object, name: str = "") -> Iterator[tuple[str, torch.Tensor]]:
    """Tensors that a forward returned, by the names of fields and keys or their position."""
    if isinstance(result, torch.Tensor):
        yield name, result
        return
    below: Mapping[object, object] = {}
    if isinstance(result, Mapping):
        below = result
    elif isinstance(result, (tuple, list)):
        below = dict(zip(getattr(result, "_fields", range(len(result))), result, strict=True))
    elif is_dataclass(result) and not isinstance(result, type):
        below = {each.name: getattr(result, each.name) for each in fields(result)}
    for key, value in below.items():
        yield from _tensors_in(value, f"{name}.{key}" if name else str(key))


def _on_meta(tensor: torch.Tensor) -> torch.Tensor:
    made = torch.empty_like(tensor.detach(), device="meta")
    return nn.Parameter(made, requires_grad=False) if isinstance(tensor, nn.Parameter) else made


def _borrowed(tensor: torch.Tensor) -> torch.Tensor:
    """The weights themselves, which are only read, and copies of everything else."""
    if isinstance(tensor, nn.Parameter):
        return nn.Parameter(tensor.detach(), requires_grad=False)
    return tensor.detach().clone()


def _keep_own_hooks(module: nn.Module) -> None:
    """Forward hooks of torch (weight_norm) and of `append` belong to the model; a person's hooks only watch it."""
    for hooks in (module._forward_hooks, module._forward_pre_hooks):
        for key, hook in list(hooks.items()):
            if not _home(hook).startswith(("torch.", "loadstone.")):
                del hooks[key]


def _home(hook: Callable[..., object]) -> str:
    """The module in which the hook, or its class, is defined."""
    return str(getattr(hook, "__module__", "") or type(hook).__module__)


@contextlib.contextmanager
def _random_state_kept() -> Iterator[None]:
    """Python's, numpy's and torch's random states are afterwards what they were."""
    python, numpy = random.getstate(), sys.modules.get("numpy")
    numpy_state = None if numpy is None else numpy.random.get_state()
    devices = range(torch.cuda.device_count()) if torch.cuda.is_available() else ()
    with torch.random.fork_rng(devices):
        try:
            yield
        finally:
            random.setstate(python)
            if numpy is not None:
                numpy.random.set_state(numpy_state)


def _device_of(model: nn.Module) -> torch.device:
    return next((tensor.device for tensor in model.parameters()), torch.device("cpu"))


def _is_on_meta(model: nn.Module) -> bool:
    return any(tensor.is_meta for tensor in model.parameters())


def _reason(error: Exception) -> str:
    """The first line of what was raised, short enough for a message of one line."""
    said = str(error).strip().splitlines()
    text = said[0].rstrip(".") if said else ""
    return f"{type(error).__name__}: {text[:160]}" if text else type(error).__name__
