"""What modules asked to be told after a load: extra state, and post hooks, in torch's order.

Both are code of the model, so both can raise; whoever calls this keeps the old values until it has returned.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn
from torch.nn.modules.module import _IncompatibleKeys

from loadstone.errors import Diagnostic, MatchError
from loadstone.matching.plan import Plan
from loadstone.model.schema import extra_state_of, walk


def can_fail(model: nn.Module, extra_state: Mapping[str, object]) -> bool:
    """Code of the model will run."""
    return bool(extra_state) or any(module._load_state_dict_post_hooks for module in model.modules())


def run(plan: Plan, model: nn.Module, extra_state: Mapping[str, object]) -> None:
    """Give modules their extra state and call their post hooks, children before parents.

    Raises MatchError (hook-failed) where one raises, or returns a value, which torch forbids too.
    """
    modules = extra_state_of(walk(model)) if extra_state else {}
    for key, value in extra_state.items():
        if key in modules:
            _call(plan, f"set_extra_state of `{key}`", modules[key].set_extra_state, value)
    incompatible = _IncompatibleKeys(
        [str(action.target) for action in plan.actions if action.status in ("missing", "kept", "mismatched")],
        [str(action.source) for action in plan.actions if action.status == "unexpected"],
    )
    _run_post_hooks(plan, model, incompatible)


def _run_post_hooks(plan: Plan, module: nn.Module, incompatible: _IncompatibleKeys) -> None:
    for child in module._modules.values():
        if child is not None:
            _run_post_hooks(plan, child, incompatible)
    for hook in module._load_state_dict_post_hooks.values():
        name = getattr(hook, "__name__", type(hook).__name__)
        if _call(plan, f"the post hook `{name}` of {type(module).__name__}", hook, module, incompatible) is not None:
            raise MatchError(
                Diagnostic("hook-failed", f"the post hook `{name}` returned a value, it may not"), plan=plan
            )


def _call(plan: Plan, what: str, function: object, *arguments: object) -> object:
    assert callable(function)
    try:
        return function(*arguments)
    except Exception as error:
        reason = next(iter(str(error).splitlines()), "")
        raise MatchError(
            Diagnostic("hook-failed", f"{what} raised {type(error).__name__}: {reason}"), plan=plan
        ) from error
