"""A shadow of a model: the same modules by class and attributes, without its memory, for its hooks to run on.

Hooks of `load_state_dict` are code of the model, and may write wherever they like: into the dict they are given, into
their module, into its parameters.  On a shadow they cannot reach the model: modules are copies made without `__init__`,
parameters and buffers are stand-ins on meta, and whatever a hook holds of its module (a bound method, a closure, the
arguments of a partial) is replaced by its shadow.
"""

from __future__ import annotations

import copy
import functools
import types
import weakref
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn.modules.module import _WrappedHook

from loadstone.model.schema import modules_of

StandIn = Callable[[torch.Tensor], torch.Tensor]
_DEPTH = 6  # of containers in attributes of a module


def shadow_of(model: nn.Module, stand_in: StandIn) -> nn.Module:
    """A copy of the module tree in which every tensor is `stand_in(tensor)`; nothing of the model is shared by it.

    Post hooks are left out.  Objects other than modules, tensors and built-in containers are shared, not copied.
    """
    shadowing = _Shadowing(stand_in)
    for _, module in reversed(list(modules_of(model))):  # children first, so that deep models need no deep recursion
        shadowing.module(module)
    return shadowing.module(model)


class _Shadowing:
    def __init__(self, stand_in: StandIn) -> None:
        self._stand_in = stand_in
        self._made: dict[int, Any] = {}
        self._originals: list[object] = []  # alive as long as their ids are keys

    def module(self, module: nn.Module) -> nn.Module:
        if id(module) in self._made:
            return self._made[id(module)]  # type: ignore[no-any-return]
        shadow: nn.Module = object.__new__(type(module))
        self._remember(module, shadow)
        for name, value in vars(module).items():
            vars(shadow)[name] = self.value(value, _DEPTH)
        vars(shadow)["_load_state_dict_post_hooks"] = OrderedDict()
        return shadow

    def value(self, value: Any, depth: int = 1) -> Any:
        """The value with everything of the model in it replaced by its shadow."""
        if id(value) in self._made:
            return self._made[id(value)]
        if isinstance(value, nn.Module):
            return self.module(value)
        if isinstance(value, torch.Tensor):
            return self._remember(value, self._stand_in(value))
        if isinstance(value, _WrappedHook):
            return self._wrapped_hook(value)
        if isinstance(value, types.MethodType):
            return types.MethodType(value.__func__, self.value(value.__self__, depth))
        if isinstance(value, weakref.ref) and isinstance(value(), nn.Module):
            return weakref.ref(self.value(value()))
        if depth == 0:
            return value
        if isinstance(value, functools.partial):
            arguments = self.value(value.args, depth - 1), self.value(value.keywords, depth - 1)
            return functools.partial(self.value(value.func, depth - 1), *arguments[0], **arguments[1])
        if isinstance(value, types.FunctionType):
            return self._function(value, depth - 1)
        return self._container(value, depth - 1)

    def _container(self, value: Any, depth: int) -> Any:
        if type(value) in (dict, OrderedDict):
            shadow = self._remember(value, type(value)())
            for key, child in value.items():
                shadow[key] = self.value(child, depth)
            return shadow
        if type(value) is list:
            shadow = self._remember(value, [])
            shadow.extend(self.value(child, depth) for child in value)
            return shadow
        if type(value) is tuple:
            return tuple(self.value(child, depth) for child in value)
        return copy.copy(value) if type(value) is set else value

    def _wrapped_hook(self, wrapped: _WrappedHook) -> _WrappedHook:
        module = wrapped.module() if wrapped.with_module else None
        return _WrappedHook(self.value(wrapped.hook, _DEPTH), None if module is None else self.module(module))

    def _function(self, function: types.FunctionType, depth: int) -> types.FunctionType:
        """The function over cells of its own, where its closure holds anything of the model."""
        if not function.__closure__:
            return function
        try:
            contents = [cell.cell_contents for cell in function.__closure__]
        except ValueError:  # a cell that is still empty
            return function
        shadows = [self.value(content, depth) for content in contents]
        if all(shadow is content for shadow, content in zip(shadows, contents, strict=True)):
            return function
        cells = tuple(types.CellType(shadow) for shadow in shadows)
        made = types.FunctionType(
            function.__code__, function.__globals__, function.__name__, function.__defaults__, cells
        )
        made.__kwdefaults__ = function.__kwdefaults__
        return made

    def _remember(self, original: object, shadow: Any) -> Any:
        self._made[id(original)] = shadow
        self._originals.append(original)
        return shadow
