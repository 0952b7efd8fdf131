"""The two forms of an exported model: how each is made from a model, written, and loaded back.

torch.export: https://docs.pytorch.org/docs/stable/export.html.  TorchScript: https://docs.pytorch.org/docs/stable/jit.html,
which every one of its functions in torch 2.14 calls deprecated.
"""

from __future__ import annotations

import contextlib
import io
import re
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal, TypeAlias

import torch
from torch import nn
from torch.jit._trace import TracerWarning
from torch.utils._pytree import tree_map

from loadstone.errors import Diagnostic, Fix, SaveError
from loadstone.model.exporting.examples import Example, batch_of, in_batches_of
from loadstone.screens.quantities import counted

Format: TypeAlias = Literal["torch-export", "torchscript"]

_THE_CALL = re.compile(r'raised this error:\n  File "(?P<file>[^"\n]+)", line (?P<line>\d+), in .*\n +(?P<code>.+)')
_UNHINTED = re.compile(r" \(unhinted: .*")  # the same expression again, in torch's words for itself
_MOST_CHOICES = 3  # of a trace that are named

DEPRECATED = Diagnostic(
    "torchscript-deprecated",
    "torch 2.14 warns that TorchScript is deprecated",
    fixes=(Fix("write what replaces it, where whoever reads the file can", 'ls.export(model, "model.pt2", example)'),),
)


@dataclass(frozen=True, slots=True)
class Program:
    """An exported model: how to write it, how to load it back, and what is to be said about it."""

    write: Callable[[Any], None]
    load: Callable[[BinaryIO], Callable[..., object]]
    said: tuple[Diagnostic, ...] = ()


def torch_export(model: nn.Module, example: Example, *, dynamic_batch: bool) -> Program:
    """`torch.export.export`, dimension 0 of every tensor of any size if `dynamic_batch`.

    Raises SaveError (export-failed), which shows the line of the model that torch could not follow.
    """
    shapes: Any = None
    if dynamic_batch:
        example = in_batches_of(max(batch_of(example), 2), example)  # torch takes a size of 1 for a constant
        batch = torch.export.Dim("batch")
        shapes = tree_map(
            lambda leaf: {0: batch} if isinstance(leaf, torch.Tensor) else None, example.kwargs or example.args
        )
    try:
        with _quiet(), torch.enable_grad():  # with gradients off, attention takes a fused path that is hard to convert
            program = torch.export.export(
                model, example.args, dict(example.kwargs or {}), dynamic_shapes=shapes, strict=False
            )
    except Exception as error:  # torch and the model's code raise what they like
        raise _not_exported(error, dynamic_batch) from error

    def write(file: Any) -> None:
        with _quiet():
            torch.export.save(program, file)

    def load(file: BinaryIO) -> nn.Module:
        with _quiet():
            return torch.export.load(file).module()

    return Program(write, load)


def torchscript(model: nn.Module, example: Example, *, script: bool) -> Program:
    """`torch.jit.trace` on the example, or `torch.jit.script`.  Raises SaveError (export-failed)."""
    try:
        with _quiet() as caught:
            if script:
                made = torch.jit.script(model)
            else:
                made = torch.jit.trace(  # type: ignore[no-untyped-call]
                    model,
                    example.args or None,
                    example_kwarg_inputs=None if example.args else dict(example.kwargs or {}),
                    strict=False,
                    check_trace=False,
                )
    except Exception as error:
        what = "torch.jit.script" if script else "torch.jit.trace"
        fix = Fix("follow the path that the example takes instead", "script=False") if script else _SCRIPT
        message = f"{what} cannot follow the model: {first_line(error)}"
        raise SaveError(Diagnostic("export-failed", message, fixes=(fix,))) from error

    def write(file: Any) -> None:
        with _quiet():
            torch.jit.save(made, file)

    def load(file: BinaryIO) -> torch.jit.ScriptModule:
        with _quiet():
            loaded: torch.jit.ScriptModule = torch.jit.load(file)  # type: ignore[no-untyped-call]
            return loaded

    choices = [each for each in caught if issubclass(each.category, TracerWarning)]
    return Program(write, load, (DEPRECATED, _fixed_choices(choices)) if choices else (DEPRECATED,))


@contextlib.contextmanager
def _quiet() -> Iterator[list[warnings.WarningMessage]]:
    """Collect warnings instead of showing them, and drop what torch logs: graphs of hundreds of lines."""
    with warnings.catch_warnings(record=True) as caught, contextlib.redirect_stderr(io.StringIO()):
        warnings.simplefilter("always")
        yield caught


_TRACE = Fix("save TorchScript, which keeps the path that the example takes", 'ls.export(model, "model.pt", example)')
_SCRIPT_INSTEAD = Fix("or compile it with its branches", 'ls.export(model, "model.pt", example, script=True)')
_SCRIPT = Fix("compile the model's code with its branches", "script=True")


def _fixed_choices(choices: list[warnings.WarningMessage]) -> Diagnostic:
    places = list(dict.fromkeys(f"{Path(each.filename).name}:{each.lineno}" for each in choices))
    more = f" and {len(places) - _MOST_CHOICES} more" if len(places) > _MOST_CHOICES else ""
    return Diagnostic(
        "trace-is-fixed",
        f"the trace keeps {counted(len(places), 'value')} that Python took from a tensor, whatever the input",
        (("taken in", ", ".join(places[:_MOST_CHOICES]) + more),),
        (_SCRIPT,),
    )


def _not_exported(error: Exception, dynamic_batch: bool) -> SaveError:
    call = _THE_CALL.search(str(error))
    evidence = (("code", f"{Path(call['file']).name}:{call['line']}   {call['code']}"),) if call else ()
    fixes = (_TRACE, _SCRIPT_INSTEAD)
    if dynamic_batch and "specialized" in str(error):
        fixes = (Fix("export for the batch size of the example", "dynamic_batch=False"), _TRACE)
    message = f"torch.export cannot follow the model: {first_line(error)}"
    return SaveError(Diagnostic("export-failed", message, evidence, fixes))


def first_line(error: Exception) -> str:
    """The first line that says something, with the class of the error where that is a builtin of Python."""
    said = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = _UNHINTED.sub("", said[0])[:300].rstrip(".") if said else "(no message)"
    return f"{type(error).__name__}: {text}" if type(error).__module__ == "builtins" or not said else text
