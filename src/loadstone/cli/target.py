"""`--into TARGET`: a `module:factory` to call, another checkpoint, or the JSON that `inspect --json` prints."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping, Sequence
from contextlib import nullcontext, redirect_stdout
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from loadstone.checkpoint import open_checkpoint
from loadstone.dtypes import DTYPES
from loadstone.errors import Diagnostic, Fix, LoadstoneError, MatchError
from loadstone.io.addresses import is_address
from loadstone.matching.schema import Schema, Slot

if TYPE_CHECKING:
    import torch

_FACTORY = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")
_MOST_OFFERS = 8
_LARGEST_SCHEMA = 256 * 1024 * 1024  # bytes of a JSON file


def is_factory(target: str) -> bool:
    """Whether the target names something to import, and not a file."""
    return not Path(target).exists() and _FACTORY.fullmatch(target) is not None


def build_model(target: str, keywords: Mapping[str, object], *, on_meta: bool) -> torch.nn.Module:
    """The module that `module:factory` gives, imported from the current directory, without memory if `on_meta`.

    The factory is a class or a function that returns a module, or a module that is there already.  What it prints
    goes to stderr.  Raises MatchError (target-not-found) where it is not there, or fails.
    """
    try:
        import torch
    except ModuleNotFoundError as error:
        raise _no_torch(target) from error
    factory = _imported(target)
    if isinstance(factory, torch.nn.Module):
        return factory
    if not callable(factory):
        raise not_found(target, f"`{target}` is a {type(factory).__name__}, which cannot be called")
    with redirect_stdout(sys.stderr), torch.device("meta") if on_meta else nullcontext():
        try:
            model = factory(**keywords)
        except LoadstoneError:
            raise
        except Exception as error:
            call = f"{target}({', '.join(f'{name}={value!r}' for name, value in keywords.items())})"
            fix = Fix("give the arguments it needs", f"--into {target} --set NAME=VALUE")
            raise not_found(target, f"`{call}` raised {_quoted(error)}", fix) from error
    if not isinstance(model, torch.nn.Module):
        raise not_found(target, f"`{target}` gave a {type(model).__name__}, not a torch.nn.Module")
    return model


def read_schema(target: str) -> Schema:
    """What a file wants: the weights of another checkpoint, or those in the JSON of `inspect --json`.  No torch."""
    path = Path(target)
    if not path.exists() and not is_address(target):
        raise not_found(target, f"`{target}` is neither a file nor of the form `module:factory`")
    if path.suffix == ".json" and path.exists() and not path.name.endswith(".index.json"):
        return _schema_of_json(target)
    with open_checkpoint(target) as checkpoint:
        slots = {key: Slot(key, info.dtype, info.shape) for key, info in checkpoint.weights.items()}
        return Schema(checkpoint.name, slots, modules=checkpoint.modules)


def _imported(target: str) -> object:
    name, _, attributes = target.partition(":")
    sys.path.insert(0, str(Path.cwd()))
    try:
        with redirect_stdout(sys.stderr):
            value: object = import_module(name)
    except ModuleNotFoundError as error:
        if error.name and (name == error.name or name.startswith(error.name + ".")):
            raise not_found(target, f"there is no module `{name}`") from error
        raise not_found(target, f"importing `{name}` raised {_quoted(error)}") from error
    except (Exception, SystemExit) as error:
        raise not_found(target, f"importing `{name}` raised {_quoted(error)}") from error
    for attribute in attributes.split("."):
        if not hasattr(value, attribute):
            from loadstone.keys import nearest

            public = [found for found in dir(value) if not found.startswith("_")]
            fixes = tuple(Fix("did you mean", f"--into {name}:{found}") for found in nearest(attribute, public))
            raise not_found(target, f"`{name}` has no `{attribute}`", *fixes, offers=_offers(value))
        value = getattr(value, attribute)
    return value


def _offers(value: object) -> tuple[str, ...]:
    """What a module makes models with: modules and classes of them, those it defines itself before those it imports."""
    from torch.nn import Module

    found = [
        (isinstance(each, type) and each.__module__ != getattr(value, "__name__", None), name)
        for name, each in getattr(value, "__dict__", {}).items()
        if isinstance(each, Module) or (isinstance(each, type) and issubclass(each, Module))
    ]
    return tuple(name for _, name in sorted(found))


def _schema_of_json(target: str) -> Schema:
    """{"tensors": [{"key", "dtype", "shape"}]}, or `weights` of that form: the chosen set without what is beside it."""
    path = Path(target)
    if path.stat().st_size > _LARGEST_SCHEMA:
        raise not_found(target, f"`{target}` has {path.stat().st_size:,} bytes, too many for a schema")
    try:
        document = json.loads(path.read_bytes())
        tensors = cast("dict[str, Any]", document.get("weights") or document)["tensors"]
        slots = {
            tensor["key"]: Slot(str(tensor["key"]), str(tensor["dtype"]), tuple(map(int, tensor["shape"])))
            for tensor in tensors
        }
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        fix = Fix("a schema file is what inspect prints", "loadstone inspect FILE --json > schema.json")
        raise not_found(target, f"`{target}` is no schema file", fix) from error
    unknown = [slot.dtype for slot in slots.values() if slot.dtype not in DTYPES]
    if unknown:
        raise not_found(target, f"`{target}` has the unknown dtype {unknown[0]!r:.40}")
    return Schema(target, slots)


def not_found(target: str, why: str, *fixes: Fix, offers: Sequence[str] = ()) -> MatchError:
    """The error for a target that gives no model, with what was tried, and what there is instead."""
    tried = [("a file", str(Path(target).absolute()))]
    if _FACTORY.fullmatch(target):
        module = target.partition(":")[0]
        tried = [("module", f"{module}, imported from {Path.cwd()} and the Python path")]
    if offers:
        more = f" and {len(offers) - _MOST_OFFERS} more" * (len(offers) > _MOST_OFFERS)
        tried.append(("it has", ", ".join(offers[:_MOST_OFFERS]) + more))
    usual = Fix("name the module as Python would import it from here", "--into package.module:factory")
    return MatchError(Diagnostic("target-not-found", why, tuple(tried), fixes or (usual,)))


def _no_torch(target: str) -> MatchError:
    fixes = (
        Fix("install it", "pip install loadstone[torch]"),
        Fix("compare with a file instead, which needs no torch", "--into OTHER_CHECKPOINT"),
    )
    return MatchError(
        Diagnostic("needs-torch", f"building `{target}` needs PyTorch, which is not installed", (), fixes)
    )


def _quoted(error: BaseException) -> str:
    return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else '(no message)'}"[:300]
