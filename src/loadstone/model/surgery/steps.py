"""Reversible steps: an edit is a list of them, worked out before the first one is done."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from torch import nn
from torch.utils.hooks import RemovableHandle

from loadstone.model.schema import modules_of

Child = tuple[str, nn.Module | None]


class Step(Protocol):
    """One change of a model that can be taken back."""

    @property
    def is_done(self) -> bool:
        """The model is as `do` left it."""

    def do(self) -> None:
        """Change the model."""

    def undo(self) -> None:
        """Put back what was there."""


@dataclass(frozen=True, slots=True, eq=False)
class SetChildren(Step):
    """The children of a module, with their names and their order."""

    module: nn.Module
    before: tuple[Child, ...]
    after: tuple[Child, ...]

    @property
    def is_done(self) -> bool:
        """The children are those of `after`, the very same objects."""
        now = tuple(self.module._modules.items())
        return len(now) == len(self.after) and all(
            name == wanted and child is module for (name, child), (wanted, module) in zip(now, self.after, strict=True)
        )

    def do(self) -> None:
        """Let `after` be the children."""
        self._put(self.after)

    def undo(self) -> None:
        """Let `before` be the children."""
        self._put(self.before)

    def _put(self, children: tuple[Child, ...]) -> None:
        self.module._modules.clear()
        self.module._modules.update(children)


@dataclass(frozen=True, slots=True, eq=False)
class SetAttribute(Step):
    """A plain attribute, such as `num_classes`, that mirrors a size of a layer; `name` says where it stands."""

    owner: object
    attribute: str
    name: str
    before: object
    after: object

    @property
    def is_done(self) -> bool:
        """The attribute has its new value."""
        return bool(getattr(self.owner, self.attribute, None) == self.after)

    def do(self) -> None:
        """Give it the new value."""
        setattr(self.owner, self.attribute, self.after)

    def undo(self) -> None:
        """Give it the old value."""
        setattr(self.owner, self.attribute, self.before)


@dataclass(frozen=True, slots=True)
class RunChildAfter:
    """A forward hook: what a module returns goes through one of its children, which its own forward does not know."""

    child: str

    def __call__(self, module: nn.Module, inputs: Any, output: Any) -> Any:
        return module._modules[self.child](output)  # type: ignore[misc]  # the child is there as long as the hook is


@dataclass(slots=True, eq=False)
class AddHook(Step):
    """A forward hook on a module."""

    module: nn.Module
    hook: Callable[..., Any]
    _handle: RemovableHandle | None = field(default=None, init=False)

    @property
    def is_done(self) -> bool:
        """The hook is on the module."""
        return self._handle is not None and self._handle.id in self.module._forward_hooks

    def do(self) -> None:
        """Put it there."""
        self._handle = self.module.register_forward_hook(self.hook)

    def undo(self) -> None:
        """Take it off."""
        if self._handle is not None:
            self._handle.remove()


@dataclass(slots=True, eq=False)
class DropHook(Step):
    """A forward hook taken off a module; what else is on it stays where it is."""

    module: nn.Module
    key: int
    hook: Callable[..., Any]

    @property
    def is_done(self) -> bool:
        """The hook is gone."""
        return self.key not in self.module._forward_hooks

    def do(self) -> None:
        """Take it off."""
        del self.module._forward_hooks[self.key]

    def undo(self) -> None:
        """Put it back, behind what else is there."""
        self.module._forward_hooks[self.key] = self.hook


def replacing(model: nn.Module, swaps: Sequence[tuple[nn.Module, nn.Module]]) -> list[Step]:
    """Steps that put a new module for an old one, at every place of the model where the old one stands."""
    new = {id(old): module for old, module in swaps}
    steps: list[Step] = []
    seen: set[int] = set()
    for _, parent in modules_of(model):
        if id(parent) in seen:
            continue
        seen.add(id(parent))
        before = tuple(parent._modules.items())
        after = tuple((name, child if child is None else new.get(id(child), child)) for name, child in before)
        if any(child is not module for (_, child), (_, module) in zip(before, after, strict=True)):
            steps.append(SetChildren(parent, before, after))
    return steps


def do_all(steps: Iterable[Step]) -> None:
    """Do every step; where one raises, those before it are taken back."""
    done: list[Step] = []
    try:
        for step in steps:
            step.do()
            done.append(step)
    except BaseException:
        undo_all(done)
        raise


def undo_all(steps: Sequence[Step]) -> None:
    """Take every step back, the last one first."""
    for step in reversed(steps):
        step.undo()
