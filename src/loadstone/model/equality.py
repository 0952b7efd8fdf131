"""Do two models compute the same: outputs compared in float64, and where they part, the first module that parts.

Equal weights are not an equal function.  Another eps, padding or activation, a norm before the pool instead of behind
it: the state dicts fit, the outputs differ.  So where a model and a reference differ, this says which of three it is:

    in a module       its inputs agree, its output does not: the settings in which the two modules differ are named
    between modules   everything before it agrees, and what reaches it does not: an operation without weights of its own
    nothing to name   the modules cannot be told apart, or they are called another number of times

Modules are paired through the keys of their parameters: `blocks.0.conv.weight` filled from `layer1.0.conv1.weight`
makes `blocks.0.conv` and `layer1.0.conv1` a pair.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import torch
from torch import nn
from torch.utils._pytree import tree_leaves

from loadstone.errors import Diagnostic, Fix, LoadstoneError, MatchError
from loadstone.keys import parent
from loadstone.matching.probed import Probed
from loadstone.model import randomness
from loadstone.model.exporting.comparing import how_far
from loadstone.model.exporting.examples import Example, example_of
from loadstone.screens.quantities import shape

TOLERANCE = 1e-8  # of the largest magnitude; float64 leaves eight digits of room for another order of sums
SINGLE_TOLERANCE = 1e-5  # where a model computes in float32 inside, as some norms and rotary embeddings do
_PLAIN = (bool, int, float, str, type(None), torch.dtype)
_NOT_SETTINGS = frozenset(("training", "call_super_init", "dump_patches"))
_MOST_SETTINGS = 6


@dataclass(frozen=True, slots=True)
class _Call:
    """The first call of a module: its first tensor in, its first tensor out, and when it came."""

    order: int
    given: torch.Tensor | None
    made: torch.Tensor | None


def same_function(
    model: nn.Module, reference: nn.Module, example_input: object, pairs: Mapping[str, str], name: str = "the reference"
) -> Probed:
    """Prove that `model` computes what `reference` computes for an input.

    Copies of both are run in float64 and eval mode; the models are left alone.

    Args:
        example_input: a tensor, a tuple of positional arguments or a dict of named ones, that both take.
        pairs: key of a tensor in the model → the key in the reference that it was filled from.
        name: what messages call the reference.

    Raises MatchError (function-differs) with the first module that differs, and in what.
    """
    example = _wide(example_of(example_input))
    ours, theirs = _Watched(model), _Watched(reference)
    found, expected = ours.run(example, "the model"), theirs.run(example, name)
    result = _compared(expected, found, f"{name} computes")
    if result is not None:
        return result
    raise _located(ours, theirs, _module_pairs(pairs), expected, found, name)


def gives(model: nn.Module, example_input: object, outputs: object) -> Probed:
    """Prove that `model` gives `outputs` for an input, in eval mode and float64.

    `outputs` is a tensor, or anything with tensors in it, of which the first is compared.  Where it is float32, so is
    the precision of the comparison.

    Raises MatchError (function-differs).
    """
    expected = first_tensor(outputs)
    found = _Watched(model).run(_wide(example_of(example_input)), "the model")
    result = _compared(expected, found, "was given")
    if result is not None:
        return result
    raise MatchError(_apart(expected, found, "the output that was given", ()))


def first_tensor(output: object) -> torch.Tensor:
    """The output that is compared: the logits where there are some, else the first tensor."""
    for name in ("logits", "last_hidden_state"):
        value = output.get(name) if isinstance(output, Mapping) else getattr(output, name, None)
        if isinstance(value, torch.Tensor):
            return value.detach()
    leaves = [leaf for leaf in tree_leaves(output) if isinstance(leaf, torch.Tensor)]
    if not leaves:
        message = f"the output is a {type(output).__name__} without a tensor in it"
        raise MatchError(Diagnostic("function-differs", message))
    return leaves[0].detach()


class _Watched:
    """A copy of a model in float64 that remembers what its modules were given and made."""

    def __init__(self, model: nn.Module) -> None:
        if any(tensor.is_meta for tensor in (*model.parameters(), *model.buffers())):
            message = "the model is on the meta device and cannot be run"
            raise MatchError(Diagnostic("function-differs", message, fixes=(Fix("load it first", "plan.apply()"),)))
        self.model = copy.deepcopy(model).double().eval()
        self.modules = dict(self.model.named_modules())
        self.calls: dict[str, _Call] = {}

    def run(self, example: Example, name: str) -> torch.Tensor:
        """The first tensor of the output.  Raises MatchError where the model raises."""
        with randomness.kept(), self._remembering():
            try:
                return first_tensor(example.given_to(self.model))
            except LoadstoneError:
                raise
            except Exception as error:
                reason = next(iter(str(error).splitlines()), "")
                message = f"{name} raised {type(error).__name__} for this input: {reason}"
                raise MatchError(Diagnostic("function-differs", message)) from error

    @contextmanager
    def _remembering(self) -> Iterator[None]:
        with ExitStack() as stack:
            for path, module in self.modules.items():
                handle = module.register_forward_hook(self._hook(path), with_kwargs=True)
                stack.callback(handle.remove)
            yield

    def _hook(self, path: str) -> Callable[..., None]:
        def remember(module: nn.Module, args: object, kwargs: object, output: object) -> None:
            if path not in self.calls:
                self.calls[path] = _Call(len(self.calls), _first((args, kwargs)), _first(output))

        return remember


def _first(value: object) -> torch.Tensor | None:
    found = next((leaf for leaf in tree_leaves(value) if isinstance(leaf, torch.Tensor)), None)
    return None if found is None else found.detach().clone()


def _wide(example: Example) -> Example:
    return example.mapped(lambda tensor: tensor.double() if tensor.is_floating_point() else tensor)


def _compared(expected: torch.Tensor, found: torch.Tensor, beside: str) -> Probed | None:
    """How far they are apart; None where it is further than rounding.  `beside`: what is expected, as a clause."""
    if not _alike(expected, found):
        return None
    single = expected.dtype in (torch.float32, torch.complex64)
    tolerance = SINGLE_TOLERANCE if single else TOLERANCE
    difference, share = how_far(expected.reshape(found.shape), found)
    if share > SINGLE_TOLERANCE:
        return None
    if share > tolerance:  # some layers compute in float32 whatever they are given
        tolerance = SINGLE_TOLERANCE
    return Probed(difference == 0, difference, share, tolerance, found.numel(), beside)


def _alike(one: torch.Tensor, other: torch.Tensor) -> bool:
    """The same shape, but for dimensions of one."""
    return [size for size in one.shape if size != 1] == [size for size in other.shape if size != 1]


def _agree(one: torch.Tensor | None, other: torch.Tensor | None) -> bool | None:
    """Whether two tensors are equal up to rounding; None where they cannot be compared."""
    if one is None or other is None or one.numel() != other.numel():
        return None
    if not _alike(one, other):  # another layout of the same numbers: channels last, tokens
        one, other = one.flatten().sort().values, other.flatten().sort().values
    return how_far(one.reshape(other.shape), other)[1] <= SINGLE_TOLERANCE


def _parts(mine: _Call, other: _Call) -> bool:
    """What the two modules made is not the same; another size counts where they were given the same."""
    agree = _agree(mine.made, other.made)
    return agree is False or (agree is None and _agree(mine.given, other.given) is True)


def _module_pairs(pairs: Mapping[str, str]) -> dict[str, str]:
    """Module of the model → module of the reference, where all tensors agree about that."""
    found: dict[str, set[str]] = {}
    for target, source in pairs.items():
        found.setdefault(parent(target), set()).add(parent(source))
    return {module: next(iter(others)) for module, others in found.items() if len(others) == 1}


def _located(
    ours: _Watched, theirs: _Watched, modules: Mapping[str, str], expected: torch.Tensor, found: torch.Tensor, name: str
) -> MatchError:
    """The error for two models that differ: at the first pair of modules, in the order of the model, that parts."""
    called = sorted((path for path in modules if path in ours.calls), key=lambda path: ours.calls[path].order)
    before = ""
    for path in called:
        mine, other = ours.calls[path], theirs.calls.get(modules[path])
        if other is None or not _parts(mine, other):
            before = path
            continue
        return MatchError(_at(ours, theirs, path, modules[path], before, _agree(mine.given, other.given), name))
    where = (("agrees", f"all {len(called):,} modules that could be compared; what follows them differs"),)
    return MatchError(_apart(expected, found, name, where if called else ()))


def _at(
    ours: _Watched, theirs: _Watched, path: str, other: str, before: str, inputs_agree: bool | None, name: str
) -> Diagnostic:
    settings = tuple(_settings(ours.modules[path], theirs.modules[other]))
    evidence = [("model", f"{path}  {type(ours.modules[path]).__name__}")]
    evidence.append(("reference", f"{other}  {type(theirs.modules[other]).__name__}"))
    evidence += settings
    if inputs_agree is False:
        after = f"after `{before}`" if before else "before any module with weights"
        message = f"the model leaves {name} {after}: what reaches `{path}` is already another input"
    else:
        message = f"the model leaves {name} at `{path}`" + (", which is set otherwise" if settings else "")
    return Diagnostic("function-differs", message, tuple(evidence), keys=(path,))


def _settings(one: nn.Module, other: nn.Module) -> Iterator[tuple[str, str]]:
    """Attributes of plain values that both modules have and that differ: eps, padding, stride …"""
    ours, theirs = vars(one), vars(other)
    names = [name for name in ours if name in theirs and not name.startswith("_") and name not in _NOT_SETTINGS]
    shown = 0
    for name in names:
        mine, their = ours[name], theirs[name]
        if _is_plain(mine) and _is_plain(their) and mine != their and shown < _MOST_SETTINGS:
            shown += 1
            yield name, f"{mine!r:.40} in the model, {their!r:.40} in the reference"


def _is_plain(value: object) -> bool:
    return isinstance(value, _PLAIN) or (isinstance(value, tuple) and all(map(_is_plain, value)))


def _apart(expected: torch.Tensor, found: torch.Tensor, name: str, evidence: tuple[tuple[str, str], ...]) -> Diagnostic:
    if not _alike(expected, found):
        shapes = f"{shape(tuple(found.shape))}, and {name} is {shape(tuple(expected.shape))}"
        return Diagnostic("function-differs", f"the model's output is {shapes}", evidence)
    share = how_far(expected.reshape(found.shape), found)[1]
    message = f"the model's output is up to {share:.2g} of its largest value from {name}"
    return Diagnostic("function-differs", message, evidence)
