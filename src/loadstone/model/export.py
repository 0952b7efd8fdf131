"""The verb `export`: a model as a program of its own, run and compared with the model before the file is kept.

The model is copied, and the copy is exported.  The file is written beside its place, loaded back, run on the example
and on other inputs of its kind, and takes its name when its outputs are those of the model.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO, TypeAlias

import torch
from torch import nn

from loadstone.errors import Diagnostic, RecipeError, SaveError
from loadstone.io.replace import replacing
from loadstone.model import randomness
from loadstone.model.exporting.comparing import Comparison, compare
from loadstone.model.exporting.examples import Example, batch_of, example_of, in_batches_of, negated, varied
from loadstone.model.exporting.exportable import Twin, check_exportable
from loadstone.model.exporting.forms import Format, Program, first_line, torch_export, torchscript
from loadstone.model.saving.watched import Watched
from loadstone.screens.quantities import shape

_FORMS: dict[str, Format] = {".pt2": "torch-export", ".pt": "torchscript"}
Input: TypeAlias = tuple[str, Example]  # in words, and the arguments
Run: TypeAlias = tuple[str, Example, object]  # and what the model gave


@dataclass(frozen=True, slots=True)
class Exported:
    """A file that `export` wrote.

    Attributes:
        path: where it is.
        format: "torch-export" or "torchscript".
        nbytes: its size.
        comparisons: one Comparison for each input that both the file and the model were run on.
        diagnostics: what is to be said about it.
    """

    path: str
    format: Format
    nbytes: int
    comparisons: tuple[Comparison, ...]
    diagnostics: tuple[Diagnostic, ...]

    @property
    def is_equal(self) -> bool:
        """Every output was that of the model to the bit."""
        return all(each.is_equal for each in self.comparisons)

    @property
    def max_difference(self) -> float:
        """The largest difference between an output of the file and of the model; 0.0 where they are equal."""
        return max(each.max_difference for each in self.comparisons)

    def __str__(self) -> str:
        from loadstone.screens.export import one_line

        return one_line(self)

    def to_json(self) -> dict[str, object]:
        """Plain values, ready for json.dumps."""
        return {
            "path": self.path,
            "format": self.format,
            "nbytes": self.nbytes,
            "is_equal": self.is_equal,
            "max_difference": self.max_difference,
            "comparisons": [asdict(each) for each in self.comparisons],
            "diagnostics": [each.to_json() for each in self.diagnostics],
        }


def export(
    model: nn.Module,
    path: str | os.PathLike[str],
    example_input: object,
    *,
    dynamic_batch: bool = False,
    script: bool = False,
    tolerance: float | None = None,
) -> Exported:
    """Write `model`, in eval mode, as a program that runs without its Python code; whole and right, or not at all.

    The file is loaded back and run on the example, on other values of the same shapes and, with `dynamic_batch`, on
    other batch sizes, before it takes its name.  The model itself is never run: its mode, parameters, buffers and the
    state of the random numbers are what they were.  It takes the memory of a second copy of the weights.

    Args:
        model: a float model with values, not wrapped.
        path: its suffix says the format: .pt2 (torch.export), or .pt (TorchScript, which torch 2.14 calls deprecated).
        example_input: a tensor, a tuple of positional arguments, or a dict of named ones.
        dynamic_batch: let dimension 0 of every input have any size.
        script: for .pt, compile the model's code with its branches instead of tracing the example's path through it.
        tolerance: the largest difference of an output that is let pass, as a share of the output's largest magnitude.
            None: what rounding explains, 1e-4 for float32.  0: equal to the bit, or at least in value.

    Raises:
        SaveError: export-failed, export-differs, example-refused; unsaveable-value, unsupported-feature and
            uninitialised-parameter for models that cannot be exported; no-space, save-failed.  What stood at `path` is
            as it was.
        RecipeError: invalid-option.
    """
    target = Path(path)
    form = checked_form(target, script, tolerance)
    example = example_of(example_input)
    with torch.inference_mode(False):  # tensors made in inference mode cannot be traced; their copies can
        example = example.mapped(lambda tensor: tensor.detach().clone())
    inputs = _inputs(example, dynamic_batch, is_trace=form == "torchscript" and not script)
    check_exportable(model)
    with randomness.kept(), torch.inference_mode(False):
        twin = Twin(model)
        runs = _runs(twin, inputs)
        twin.set_back()
        if form == "torch-export":
            program = torch_export(twin.module, example, dynamic_batch=dynamic_batch)
        else:
            program = torchscript(twin.module, example, script=script)
        twin.set_back()
        comparisons: list[Comparison] = []

        def check(written: Path) -> None:
            try:
                with written.open("rb") as file:
                    loaded = program.load(file)
            except Exception as error:  # torch writes some programs that it cannot read
                message = f"torch cannot read the exported program back: {first_line(error)}"
                raise SaveError(Diagnostic("export-failed", message)) from error
            try:
                comparisons.extend(_compared(loaded, runs, tolerance))
            except SaveError as error:
                why = [each for each in program.said if each.code == "trace-is-fixed"]
                raise SaveError(*error.diagnostics, *why) from error

        with replacing(target, check=check) as file:
            _write(program, file)
    return Exported(str(target), form, target.stat().st_size, tuple(comparisons), program.said)


def checked_form(target: Path, script: bool, tolerance: float | None) -> Format:
    """The format that the suffix names; raises RecipeError (invalid-option) for what does not go with it."""
    form = _FORMS.get(target.suffix)
    if form is None:
        accepted = ".pt2 for torch.export, .pt for TorchScript"
        raise _invalid(f"`{target.name}` has no suffix that names an exported form", accepted)
    if script and form != "torchscript":
        raise _invalid(f"`script=True` makes TorchScript, `{target.name}` is to be a torch.export file", "a .pt file")
    if tolerance is not None and not (isinstance(tolerance, (int, float)) and 0 <= tolerance < math.inf):
        raise _invalid(f"`tolerance` is {tolerance!r:.40}", "a number from 0, such as 1e-4")
    return form


def _inputs(example: Example, dynamic_batch: bool, *, is_trace: bool) -> list[Input]:
    """What to run: the example, other values, and other batch sizes where they may change.

    A trace keeps the branches that the example took without a word, so it is also run on what would most often take
    the other ones.
    """
    inputs = [("the example", example), ("other values", varied(example))]
    if is_trace:
        inputs.append(("the example negated", negated(example)))
    if dynamic_batch:
        size = batch_of(example)
        inputs += [
            (f"a batch of {other}", in_batches_of(other, inputs[1][1]))
            for other in (1, max(size, 2) + 1)
            if other != size
        ]
    return inputs


def _runs(twin: Twin, inputs: Sequence[Input]) -> list[Run]:
    """What the model gives for each input.  What it does not take itself, but for the example, is left out.

    Raises SaveError (example-refused) where it does not take the example.
    """
    runs: list[Run] = []
    for name, example in inputs:
        try:
            runs.append((name, example, example.given_to(twin.module)))
        except Exception as error:  # whatever the model's code raises
            if not runs:
                shapes = ", ".join(shape(tuple(tensor.shape)) for tensor in example.tensors)
                raise SaveError(
                    Diagnostic(
                        "example-refused",
                        f"the model does not run on the example input: {first_line(error)}",
                        (("example", shapes),),
                    )
                ) from error
    return runs


def _write(program: Program, file: BinaryIO) -> None:
    """Write it; torch's own errors about the file hide the OSError they came from.

    Raises SaveError (export-failed) for a program that torch can make and not write.
    """
    watched = Watched(file)
    try:
        program.write(watched)
    except Exception as error:
        if watched.error is not None:
            raise watched.error from error
        message = f"torch cannot write the exported program: {first_line(error)}"
        raise SaveError(Diagnostic("export-failed", message)) from error


def _compared(loaded: Callable[..., object], runs: Sequence[Run], tolerance: float | None) -> Iterator[Comparison]:
    for name, example, expected in runs:
        try:
            found = example.given_to(loaded)
        except Exception as error:
            message = f"the file does not run on an input that the model takes: {first_line(error)}"
            raise SaveError(Diagnostic("export-differs", message, (("input", name),))) from error
        yield compare(expected, found, name, tolerance)


def _invalid(message: str, accepted: str) -> RecipeError:
    return RecipeError(Diagnostic("invalid-option", message, (("accepted", accepted),)))
