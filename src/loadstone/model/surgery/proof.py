"""What holds after an edit: numbers that mirror a size follow it, and the model still runs or is put back."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import nn

from loadstone.errors import Diagnostic, Fix, SurgeryError
from loadstone.keys import parent
from loadstone.model.schema import joined
from loadstone.model.surgery.checked import module_at
from loadstone.model.surgery.result import Edit
from loadstone.model.surgery.steps import SetAttribute, Step


def mirrors(model: nn.Module, names: Sequence[str], attributes: Sequence[str], old: int, new: int) -> list[Step]:
    """Steps that bring along plain numbers of the modules around the layers, and of their `config`."""
    around: dict[str, nn.Module] = {}
    for name in names:
        while name:
            name = parent(name)
            around[name] = module_at(model, name)
    steps: list[Step] = []
    seen: set[int] = set()
    for path, module in around.items():
        for owner, where in ((module, path), (vars(module).get("config"), joined(path, "config"))):
            if owner is None or isinstance(owner, (dict, list)) or id(owner) in seen:
                continue
            seen.add(id(owner))
            for attribute in attributes:
                is_plain = attribute in getattr(owner, "__dict__", {}) or owner is not module
                if is_plain and type(value := getattr(owner, attribute, None)) is int and value == old != new:
                    steps.append(SetAttribute(owner, attribute, joined(where, attribute), old, new))
    return steps


def check_still_runs(edit: Edit, look: Callable[[], str]) -> None:
    """Undo the edit and raise SurgeryError (edit-breaks-model) where `look` raises, or says what is wrong."""
    try:
        wrong = look()
    except Exception as error:  # whatever the model's code raises
        said = str(error).strip().splitlines()
        wrong = f"{type(error).__name__}: {said[0][:160] if said else ''}".rstrip(".: ")
    if wrong:
        edit.undo()
        raise SurgeryError(
            Diagnostic(
                "edit-breaks-model",
                f"with another size of `{edit.name}` the rest of the model does not run: {wrong}",
                fixes=(
                    Fix("change what depends on the size first, or build the model with the size it should have", ""),
                ),
                keys=edit.names,
            )
        )
