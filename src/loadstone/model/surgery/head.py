"""The verb `replace_head`: the layers that give the class scores, found by where the scores come from.

A layer is a head if the scores come straight from it, through nothing that has a weight for each of them, and are as
many as it has outputs.  Heads that answer in training only are auxiliary heads if they give as many scores.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeGuard

import torch
from torch import nn

from loadstone.errors import Diagnostic, Fix, SurgeryError
from loadstone.keys import leaf, parent
from loadstone.model.schema import modules_of
from loadstone.model.surgery.checked import check_editable, check_number, module_at
from loadstone.model.surgery.examples import ExampleInput
from loadstone.model.surgery.initial import Layer, initialise, resized
from loadstone.model.surgery.proof import check_still_runs, mirrors
from loadstone.model.surgery.rehearsal import Output, Pass, rehearse
from loadstone.model.surgery.result import Edit
from loadstone.model.surgery.steps import replacing

_CLASS_COUNTS = ("num_classes", "num_labels", "n_classes", "nb_classes")
_SCORES = ("logits", "out")  # what transformers and torchvision call the scores among several outputs


@dataclass(frozen=True, slots=True)
class Heads:
    """The layers that give the class scores: their names, how many classes they tell apart, how they were found."""

    names: tuple[str, ...]
    classes: int
    found: str
    passes: tuple[Pass, ...] = ()


def replace_head(model: nn.Module, num_classes: int, *, example_input: ExampleInput | None = None) -> Edit:
    """Put a fresh layer for `num_classes` classes in the place of the model's classifier; returns its name.

    The classifier is what the class scores come from, seen in a forward pass on a shadow of the model (no weight,
    running statistic or random state changes); auxiliary heads that give as many scores are replaced with it.  The new
    layer has the class, dtype, device and attributes of the old one, is initialised as its family does it, and wants
    gradients.  Attributes that mirror the number (`num_classes`) follow.  Afterwards the pass is made once more.

    Args:
        model: any module; it is changed in place.
        num_classes: at least 1.
        example_input: a batch that the model takes (a tensor, a tuple of arguments, or a dict of named ones), where
            none can be made from its first layer.

    Raises SurgeryError (head-not-found, several-candidates, forward-failed, not-editable, edit-breaks-model,
    invalid-option, uninitialised-parameter); the model is then as it was.
    """
    check_editable(model)
    check_number(num_classes, "num_classes")
    heads = find_heads(model, example_input)
    swaps: list[tuple[Layer, Layer]] = []
    notes = [heads.found]
    for name in heads.names:
        old = module_at(model, name)
        if not is_plain(old):
            raise _not_plain(name, old)
        _check_untied(model, name, old)
        if any(old is other for other, _ in swaps):
            continue
        new = resized(old, **{_outputs_name(old): _checked_count(old, name, num_classes)})
        notes.append(f"`{name}` {initialise(new, model, name)}")
        swaps.append((old, new))
    layers = [(name, module_at(model, name), _new_of(module_at(model, name), swaps)) for name in heads.names]
    steps = [*replacing(model, swaps), *mirrors(model, heads.names, _CLASS_COUNTS, heads.classes, num_classes)]
    edit = Edit(f"replaced the head of {type(model).__name__}", heads.names, layers, steps, notes=notes).done()
    check_still_runs(edit, lambda: _difference(model, heads, num_classes))
    return edit


def find_heads(model: nn.Module, example_input: ExampleInput | None = None) -> Heads:
    """The heads of a model; raises what `replace_head` raises for them."""
    if next(model.parameters(), None) is None:
        raise _none_found(model, ())
    try:
        passes = rehearse(model, example_input)
    except SurgeryError as error:
        if example_input is not None:
            raise
        found = _in_the_graph(model, error)
        if found is None:
            raise
        return found
    judged = passes[-1]  # evaluation, where there are several outputs in training
    main = _main_heads(model, judged)
    classes = _count_of(module_at(model, main[0]))
    auxiliary: set[str] = set()
    for each in passes:
        for output in each.outputs:
            aside = each is not judged or "aux" in output.name
            others = _heads_of(model, output) if aside else ()
            if others and _count_of(module_at(model, others[0])) == classes:
                auxiliary.update(others)
    how = (
        "in training and in evaluation" if len(passes) > 1 else "in training" if judged.is_training else "in evaluation"
    )
    names = (*main, *sorted(auxiliary.difference(main), key=_order(model)))
    return Heads(names, classes, f"found in a forward pass of {judged.example}, {how}", tuple(passes))


def _heads_of(model: nn.Module, output: Output) -> tuple[str, ...]:
    """The layers whose outputs are the numbers of this tensor; none where it is no tensor of scores."""
    names = sorted({parent(key) for key in output.origin.mixed_by}, key=_order(model))
    for name in names:
        module = module_at(model, name)
        if is_plain(module) and not _gives(module, output.shape):
            return ()
    counts = {_count_of(module_at(model, name)) for name in names}
    behind = [key for key in output.origin.after if parent(key) not in names]
    if any(counts.intersection(_weight(model, key).shape) for key in behind):
        return ()  # a norm with a weight a class; a temperature, or weights that average heads, would not depend on it
    return tuple(names)


def is_plain(module: nn.Module) -> TypeGuard[Layer]:
    """A linear layer or convolution whose only tensors are `weight` and `bias`, as torch made it."""
    return (
        isinstance(module, (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d))
        and set(module._parameters) == {"weight", "bias"}
        and module._parameters["weight"] is not None
        and not module._buffers
        and not module._modules
    )


def _count_of(module: nn.Module) -> int:
    """How many numbers a linear layer or convolution gives; 0 for any other module."""
    return int(getattr(module, _outputs_name(module), 0) or 0)


def _weight(model: nn.Module, key: str) -> torch.Tensor:
    weight = module_at(model, parent(key))._parameters[leaf(key)]
    assert weight is not None  # it took part in the pass
    return weight


def _outputs_name(module: nn.Module) -> str:
    return "out_features" if isinstance(module, nn.Linear) else "out_channels"


def _gives(module: nn.Module, shape: Sequence[int]) -> bool:
    """The tensor has one number a class: last for a linear layer, second for a convolution, left out for one class."""
    count = _count_of(module)
    if count == 1 and 1 not in shape[1:]:
        return True
    place = -1 if isinstance(module, nn.Linear) and len(shape) > 1 else 1
    return len(shape) > 1 and shape[place] == count


def _main_heads(model: nn.Module, judged: Pass) -> tuple[str, ...]:
    """The heads of the scores, among all that the model returns."""
    found: dict[tuple[str, ...], list[Output]] = {}
    for output in judged.outputs:
        names = _heads_of(model, output)
        if names:
            found.setdefault(names, []).append(output)
    if not found:
        raise _none_found(model, judged.outputs)
    if len(found) > 1:
        called = {names for names, outputs in found.items() if any(leaf(each.name) in _SCORES for each in outputs)}
        if len(called) == 1:
            return called.pop()
        raise _several(model, found)
    return next(iter(found))


def _none_found(model: nn.Module, outputs: Sequence[Output]) -> SurgeryError:
    """head-not-found, with what each output comes from instead."""
    evidence = []
    for output in outputs[:4]:
        last = sorted({parent(key) for key in output.origin.after or output.origin.mixed_by})
        kinds = ", ".join(f"`{name}` ({type(module_at(model, name)).__name__})" for name in last[:3])
        evidence.append((f"output {output.name}".strip(), f"{list(output.shape)} comes from {kinds or 'no weight'}"))
    return SurgeryError(
        Diagnostic(
            "head-not-found",
            f"no linear layer or convolution of {type(model).__name__} gives its outputs one number a class",
            evidence=tuple(evidence),
            fixes=(Fix("name the layer", 'ls.replace(model, "NAME", nn.Linear(...))'),),
        )
    )


def _several(model: nn.Module, found: Mapping[tuple[str, ...], Sequence[Output]]) -> SurgeryError:
    """several-candidates: which layers give which output, and a line to paste for each."""
    names = [each[0] for each in found]
    evidence = tuple(
        (f"`{group[0]}`", f"gives output {outputs[0].name}, {list(outputs[0].shape)}" if outputs else "")
        for group, outputs in found.items()
    )
    return SurgeryError(
        Diagnostic(
            "several-candidates",
            f"{type(model).__name__} has {len(names)} heads: {' and '.join(f'`{name}`' for name in names[:4])}",
            evidence=evidence,
            fixes=tuple(
                Fix(f"for `{name}`", f'ls.replace(model, "{name}", {_pasted(module_at(model, name))})')
                for name in names[:4]
            ),
            keys=tuple(names),
        )
    )


def _pasted(module: nn.Module) -> str:
    if isinstance(module, nn.Linear):
        return f"nn.Linear({module.in_features}, num_classes)"
    return f"nn.{type(module).__name__}(...)"


def _in_the_graph(model: nn.Module, failed: SurgeryError) -> Heads | None:
    """Without a forward pass: the layers that give as many numbers as the model says it has classes."""
    plain = [(path, module) for path, module in modules_of(model) if is_plain(module)]
    counts = {value for name in _CLASS_COUNTS if type(value := getattr(model, name, None)) is int}
    found = [(path, module) for path, module in plain if _count_of(module) in counts]
    said = "as many outputs as the model says it has classes"
    if not found:
        found = [(path, module) for path, module in plain if isinstance(module, nn.Linear)]
        said = "it is the only linear layer"
        if len(found) != 1:
            return None
    if len({id(module) for _, module in found}) > 1:
        raise _several(model, {(path,): () for path, _ in found})
    why = failed.diagnostics[0].message
    return Heads(tuple(path for path, _ in found), _count_of(found[0][1]), f"found in the module graph: {said} ({why})")


def _difference(model: nn.Module, heads: Heads, num_classes: int) -> str:
    """Make the passes once more; what is wrong with the outputs, "" where they are as many scores as they should be."""
    for before in heads.passes:
        after = before.again(model)
        for old, new in zip(before.outputs, after.outputs, strict=True):
            is_scores = not {parent(key) for key in old.origin.mixed_by}.isdisjoint(heads.names)
            if is_scores and 1 in (heads.classes, num_classes):
                continue  # a single score may come without its dimension
            # the first dimension is the batch, which may be as large as there are classes
            wanted = old.shape[:1] + tuple(
                num_classes if is_scores and size == heads.classes else size for size in old.shape[1:]
            )
            if new.shape != wanted and not (is_scores and new.shape[:1] == wanted[:1] and num_classes in new.shape):
                return f"output {new.name} has the shape {list(new.shape)} instead of {list(wanted)}"
    return ""


def _checked_count(layer: Layer, name: str, num_classes: int) -> int:
    groups = getattr(layer, "groups", 1)
    if num_classes % groups:
        said = f"num_classes={num_classes} cannot be divided by the {groups} groups of `{name}`"
        raise SurgeryError(Diagnostic("invalid-option", said, keys=(name,)))
    return num_classes


def _check_untied(model: nn.Module, name: str, layer: Layer) -> None:
    """A weight that another layer uses too is no head of its own: exchanging it would cut the two apart."""
    for path, module in modules_of(model):
        if module is not layer and any(each is layer.weight for each in module._parameters.values()):
            raise SurgeryError(
                Diagnostic(
                    "not-editable",
                    f"`{name}` shares its weight with `{path}`",
                    fixes=(Fix("to cut them apart on purpose", f'ls.replace(model, "{name}", {_pasted(layer)})'),),
                    keys=(name, path),
                )
            )


def _not_plain(name: str, module: nn.Module) -> SurgeryError:
    where = f"`{name}`" if name else "the model itself"
    return SurgeryError(
        Diagnostic(
            "not-editable",
            f"the scores come from {where}, a {type(module).__name__}, "
            "which is no plain linear layer or convolution that can be made anew",
            fixes=(Fix("put a layer of yours there", f'ls.replace(model, "{name}", layer)'),) if name else (),
            keys=(name,),
        )
    )


def _new_of(old: nn.Module, swaps: Sequence[tuple[Layer, Layer]]) -> nn.Module:
    return next(new for module, new in swaps if module is old)


def _order(model: nn.Module) -> Callable[[str], int]:
    return {path: place for place, (path, _) in enumerate(modules_of(model))}.__getitem__
