"""What an edit did: an Edit is the name of the layer it is about, with the shapes before and after, and a way back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from torch import nn

from loadstone.errors import Diagnostic, SurgeryError
from loadstone.model.schema import joined, modules_of, walk
from loadstone.model.surgery.steps import SetAttribute, Step, do_all, undo_all
from loadstone.screens.quantities import shape

Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Change:
    """A tensor of the model before and after: `before` is None for a new one, `after` for one that is gone."""

    name: str
    before: Shape | None
    after: Shape | None

    def __str__(self) -> str:
        return f"{_shown(self.before)} → {_shown(self.after)}"


class Edit(str):
    """The dotted name of the layer that was changed, usable as one; `print` shows what was done.

    Attributes:
        names: all the names, where the edit is about several layers (auxiliary heads).
        changes: one Change a tensor whose shape changed, that came or that went.
        moved: keys of the state dict that have another name now, old to new.
        layers: (name, before, after) of the layers, as torch prints them; "" where there is none.
        notes: how it was found, how it was initialised.
    """

    names: tuple[str, ...] = ()
    changes: tuple[Change, ...] = ()
    moved: Mapping[str, str] = MappingProxyType({})
    layers: tuple[tuple[str, str, str], ...] = ()
    notes: tuple[str, ...] = ()
    _title: str
    _steps: tuple[Step, ...]

    def __new__(
        cls,
        title: str,
        names: Sequence[str],
        layers: Sequence[tuple[str, nn.Module | None, nn.Module | None]],
        steps: Sequence[Step],
        *,
        moved: Mapping[str, str] | None = None,
        notes: Sequence[str] = (),
    ) -> Edit:
        """Describe an edit; `done` does it."""
        plain = tuple(map(str.__str__, names))  # a name may be an Edit, whose str() is this very screen
        self = super().__new__(cls, plain[0])
        self.names = plain
        self.layers = tuple((name, _described(before), _described(after)) for name, before, after in layers)
        self.changes = tuple(change for name, before, after in layers for change in _changes(name, before, after))
        self.moved = dict(moved or {})
        mirrored = [step for step in steps if isinstance(step, SetAttribute)]
        self.notes = (*notes, *(f"{step.name} is {step.after} instead of {step.before}" for step in mirrored))
        self._title = title
        self._steps = tuple(steps)
        return self

    @property
    def name(self) -> str:
        """The first of the names, as a plain str."""
        return self.names[0]

    def done(self) -> Edit:
        """The same edit, after doing it; all of it or, where a step raises, nothing."""
        do_all(self._steps)
        return self

    def undo(self) -> None:
        """Put back the very modules that were there; raises SurgeryError (stale-edit) if the model changed since."""
        if not all(step.is_done for step in self._steps):
            raise SurgeryError(
                Diagnostic(
                    "stale-edit", f"the model has been changed at `{self.name}` since, or this edit is undone already"
                )
            )
        undo_all(self._steps)

    def __str__(self) -> str:
        lines = [self._title]
        for name, before, after in self.layers:
            lines.append(f"  {name}")
            lines += [f"    - {before}"] if before else []
            lines += [f"    + {after}"] if after else []
        width = max((len(change.name) for change in self.changes), default=0)
        lines += [f"    {change.name:<{width}}  {change}" for change in self.changes]
        lines += [f"  {note}" for note in self.notes]
        if self.moved:
            width = max(map(len, self.moved))
            lines.append("  keys that have another name now")
            lines += [f"    {old:<{width}} → {new}" for old, new in self.moved.items()]
        return "\n".join(lines)

    def __format__(self, spec: str) -> str:
        return format(self.name, spec)  # f"{edit}.weight" is a key

    def __repr__(self) -> str:
        return f"<Edit of {', '.join(self.names)}>"

    def __reduce__(self) -> tuple[type[str], tuple[str]]:
        return str, (self.name,)  # a copy or a pickle is the name


def keys_of(path: str, module: nn.Module | None) -> dict[str, Shape]:
    """Shapes by key of what a module at that path has in a state dict."""
    if module is None:
        return {}
    return {joined(path, place.key): tuple(place.tensor.shape) for place in walk(module).places if place.is_persistent}


def _changes(path: str, before: nn.Module | None, after: nn.Module | None) -> list[Change]:
    old, new = keys_of(path, before), keys_of(path, after)
    return [Change(key, old.get(key), new.get(key)) for key in {**old, **new} if old.get(key) != new.get(key)]


def _described(module: nn.Module | None) -> str:
    """A leaf as torch prints it; of a module with children its class, as its children would fill the screen."""
    if module is None:
        return ""
    below = sum(1 for _ in modules_of(module)) - 1
    return f"{type(module).__name__} of {below} modules" if below else repr(module)


def _shown(sizes: Shape | None) -> str:
    return "∅" if sizes is None else shape(sizes)
