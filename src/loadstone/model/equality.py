"""Do two models compute the same: outputs compared in float64, and where they part, the first module that parts.

Equal weights are not an equal function.  Another eps, padding or activation, a norm before the pool instead of behind
it: the state dicts fit, the outputs differ.  So where a model and a reference differ, this says which of three it is:

    in a module       its inputs agree, its output does not: the settings in which the two modules differ are named
    between modules   everything before it agrees, and what reaches it does not: an operation without weights of its own
    nothing to name   the modules cannot be told apart, or they are called another number of times

Modules are paired through their tensors, and those without tensors by order, see observing.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from loadstone.errors import Diagnostic, MatchError
from loadstone.keys import parent
from loadstone.matching.probed import Probed
from loadstone.matching.structure.items import Assignment
from loadstone.model.exporting.comparing import how_far
from loadstone.model.exporting.examples import example_of
from loadstone.model.observing import (
    SINGLE_TOLERANCE,
    Parting,
    Watched,
    alike,
    first_tensor,
    module_pairs,
    parting,
    settings,
    silent_between,
    wide,
)
from loadstone.screens.quantities import shape

TOLERANCE = 1e-8  # of the largest magnitude; float64 leaves eight digits of room for another order of sums


def same_function(
    model: nn.Module,
    reference: nn.Module,
    example_input: object,
    origins: Mapping[str, Assignment],
    name: str = "the reference",
) -> Probed:
    """Prove that `model` computes what `reference` computes for an input.

    Copies of both are run in float64 and eval mode; the models are left alone.

    Args:
        example_input: a tensor, a tuple of positional arguments or a dict of named ones, that both take.
        origins: key of a tensor in the model → what it was filled from, with the checkpoint's keys.
        name: what messages call the reference.

    Raises MatchError (function-differs) with the first module that differs, and in what.
    """
    example = wide(example_of(example_input))
    ours, theirs = Watched.copy_of(model), Watched.copy_of(reference)
    found, expected = ours.run(example, "the model"), theirs.run(example, name)
    result = compared(expected, found, f"{name} computes")
    if result is not None:
        return result
    pairs = module_pairs(ours, theirs, origins)
    raise MatchError(where(ours, theirs, pairs, parting(ours, theirs, pairs), expected, found, name))


def gives(model: nn.Module, example_input: object, outputs: object) -> Probed:
    """Prove that `model` gives `outputs` for an input, in eval mode and float64.

    `outputs` is a tensor, or anything with tensors in it, of which the first is compared.  Where it is float32, so is
    the precision of the comparison.

    Raises MatchError (function-differs).
    """
    expected = first_tensor(outputs)
    found = Watched.copy_of(model).run(wide(example_of(example_input)), "the model")
    result = compared(expected, found, "was given")
    if result is not None:
        return result
    raise MatchError(apart(expected, found, "the output that was given", ()))


def compared(expected: torch.Tensor, found: torch.Tensor, beside: str) -> Probed | None:
    """How far they are apart; None where it is further than rounding.  `beside`: what is expected, as a clause."""
    if not alike(expected, found):
        return None
    single = expected.dtype in (torch.float32, torch.complex64)
    tolerance = SINGLE_TOLERANCE if single else TOLERANCE
    difference, share = how_far(expected.reshape(found.shape), found)
    if share > SINGLE_TOLERANCE:
        return None
    if share > tolerance:  # some layers compute in float32 whatever they are given
        tolerance = SINGLE_TOLERANCE
    return Probed(difference == 0, difference, share, tolerance, found.numel(), beside)


def where(
    ours: Watched,
    theirs: Watched,
    pairs: Mapping[str, str],
    place: Parting | None,
    expected: torch.Tensor,
    found: torch.Tensor,
    name: str,
) -> Diagnostic:
    """function-differs for two models that differ, with the place where they part."""
    if place is not None:
        return _at(ours, theirs, pairs, place, name)
    called = [path for path in pairs if path in ours.calls]
    agrees = (("agrees", f"all {len(called):,} modules that could be compared; what follows them differs"),)
    return apart(expected, found, name, agrees if called else ())


def _at(ours: Watched, theirs: Watched, pairs: Mapping[str, str], place: Parting, name: str) -> Diagnostic:
    path, other = place.path, place.other
    differing = tuple(settings(ours.modules[path], theirs.modules[other]))
    evidence = [
        ("model", f"{path}  {type(ours.modules[path]).__name__}"),
        ("reference", f"{other}  {type(theirs.modules[other]).__name__}"),
        *differing,
    ]
    if place.inputs_agree:
        message = f"the model leaves {name} at `{path}`" + (", which is set otherwise" if differing else "")
        return Diagnostic("function-differs", message, tuple(evidence), keys=(path,))
    after = "before any module with weights" if place.before is None else f"after `{place.before}`"
    message = f"the model leaves {name} {after}: what reaches `{path}` is already another input"
    for side, watched, (start, end) in (
        ("between", ours, (place.before, path)),
        ("there", theirs, (None if place.before is None else pairs[place.before], other)),
    ):
        silent = silent_between(watched, start, end)
        words = ", ".join(repr(watched.modules[each]) for each in silent[:3])
        evidence += [(side, f"{words:.100}")] if silent else []
    above = settings(ours.modules[parent(path)], theirs.modules[parent(other)])
    return Diagnostic("function-differs", message, (*evidence, *above), keys=(path,))


def apart(expected: torch.Tensor, found: torch.Tensor, name: str, evidence: tuple[tuple[str, str], ...]) -> Diagnostic:
    """function-differs for two outputs."""
    if not alike(expected, found):
        shapes = f"{shape(tuple(found.shape))}, and {name} is {shape(tuple(expected.shape))}"
        return Diagnostic("function-differs", f"the model's output is {shapes}", evidence)
    share = how_far(expected.reshape(found.shape), found)[1]
    message = f"the model's output is up to {share:.2g} of its largest value from {name}"
    return Diagnostic("function-differs", message, evidence)
