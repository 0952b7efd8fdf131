"""Everything of a load that can fail for another reason than the disk, done before the first write.

Adapters and migrations are run and their results kept, compressed records are expanded once, casts that could break
values are looked at, tied tensors are compared.  What comes out is a Fill for every tensor.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch

from loadstone.errors import Diagnostic, FormatError, LoadstoneError, MatchError
from loadstone.matching.plan import Action, Op
from loadstone.model.adapters import carried_out
from loadstone.model.adapters.rows import corner
from loadstone.model.casts import check_cast
from loadstone.model.pieces import Scratch, pieces_of
from loadstone.storage import Storage
from loadstone.tensors import TensorInfo


@dataclass(frozen=True, slots=True)
class Reader:
    """Gives the tensors of a plan's sources, from the file or from memory.

    Attributes:
        infos: the plan's sources.
        memory: the tensors themselves, where the source is a state dict in memory; else None.
    """

    infos: Mapping[str, TensorInfo]
    memory: Mapping[str, torch.Tensor] | None = None

    def read(self, key: str) -> torch.Tensor:
        """The tensor, in memory that nobody else holds."""
        if self.memory is not None:
            return self.memory[key].detach().clone()
        return self.infos[key].read()

    def look(self, key: str) -> torch.Tensor:
        """The tensor, perhaps in memory of the caller: not to be changed."""
        return self.infos[key].read() if self.memory is None else self.memory[key].detach()

    def has_one_memory(self, first: str, second: str) -> bool:
        """The two keys are the same bytes in the source, so that their values need no comparison."""
        one, other = self.infos[first], self.infos[second]
        return (
            one.storage is other.storage
            and one.storage is not None
            and (one.dtype, one.shape, one.stride, one.offset) == (other.dtype, other.shape, other.stride, other.offset)
        )


def needs_staging(action: Action, info: TensorInfo) -> bool:
    """Its values have to be in memory before the first write."""
    return info.layout not in ("strided", "chunked") or any(op.name != "cast" for op in action.ops)


def staged(action: Action, reader: Reader, target: torch.Tensor) -> torch.Tensor:
    """The values of an action after all of its ops, of the target's shape; its own values, where they are kept.

    Raises MatchError: adapter-failed, hook-failed or shape-mismatch.
    """
    migrations = [op for op in action.ops if op.name in ("migrate", "compose", "compute")]
    assert action.source is not None or migrations
    if migrations:
        value = _called(action, migrations[-1], reader.read)
    else:
        value = reader.look(str(action.source))
    shape = tuple(target.shape)
    casts = any(op.name == "cast" for op in action.ops) or value.dtype == target.dtype
    for op in action.ops:
        if op.step is not None:
            value = carried_out(op.step, value, target, casts=casts)
        elif op.name in ("slice", "pad"):
            value = corner(value, shape, pads=op.name == "pad")
        elif op.name == "call":
            value = _called(action, op, reader.read(str(action.source)) if len(action.ops) == 1 else value, shape)
    if tuple(value.shape) != shape and not value.is_nested:
        code = "adapter-failed" if any(op.name == "call" for op in action.ops) else "shape-mismatch"
        found = " × ".join(map(str, value.shape)) or "a single number"
        wanted = " × ".join(map(str, shape)) or "a single number"
        raise MatchError(
            Diagnostic(code, f"`{action.target}` wants {wanted}, its adapter gave {found}", keys=_keys(action))
        )
    return value


def prove(infos: Mapping[str, TensorInfo]) -> None:
    """Expand every compressed record once, so that a damaged one is found before anything is written."""
    storages: dict[int, Storage] = {}
    stack = list(infos.values())
    while stack:
        info = stack.pop()
        stack.extend(part.info for part in info.parts)
        if info.storage is not None:
            storages[id(info.storage)] = info.storage
    for storage in storages.values():
        storage.prove()


def broken_cast(
    action: Action, sources: Iterable[str], reader: Reader, dtype: torch.dtype, scratch: Scratch
) -> Diagnostic | None:
    """What the cast of this action would break in the first of its sources that it breaks; None if nothing."""
    if not any(op.is_checked for op in action.ops):
        return None
    for source in sources:
        pieces = pieces_of(reader.infos[source], scratch) if reader.memory is None else [(0, reader.memory[source])]
        broken = check_cast(str(action.target), source, pieces, dtype)
        if broken is not None:
            return broken
    return None


def tied_conflict(first: Action, second: Action, reader: Reader) -> Diagnostic | None:
    """The two sources of one tied tensor hold different values; None where they agree to the bit."""
    one, other = str(first.source), str(second.source)
    if first.source is None or second.source is None or reader.has_one_memory(one, other):
        return None
    left, right = reader.look(one), reader.look(other)
    if left.shape == right.shape and left.dtype == right.dtype and _same_bits(left, right):
        return None
    return Diagnostic(
        "tied-conflict",
        f"`{first.target}` and `{second.target}` are one tensor in the model, "
        f"`{one}` and `{other}` differ in the checkpoint",
        keys=(str(first.target), str(second.target)),
    )


def _same_bits(left: torch.Tensor, right: torch.Tensor) -> bool:
    if left.layout != torch.strided or left.is_quantized:
        return torch.equal(_plain(left), _plain(right))
    flat = (values.contiguous().reshape(-1) for values in (left, right))
    one, other = (values.view(torch.uint8) if values.numel() else values for values in flat)
    return torch.equal(one, other)


def _plain(values: torch.Tensor) -> torch.Tensor:
    return values.dequantize() if values.is_quantized else values.to_dense()


def _called(action: Action, op: Op, *arguments: object) -> torch.Tensor:
    """The tensor that an adapter or a migration gives; its errors and its wrong results become a MatchError."""
    code, what = ("adapter-failed", "the adapter") if op.name == "call" else ("hook-failed", "the module's migration")
    assert op.function is not None  # "call" and "migrate" carry one
    try:
        value = op.function(*arguments)
    except (LoadstoneError, MemoryError):
        raise
    except Exception as error:
        message = f"{what} of `{action.target}` raised {type(error).__name__}: {_line(error)}"
        raise MatchError(Diagnostic(code, message, keys=_keys(action))) from error
    if not isinstance(value, torch.Tensor):
        message = f"{what} of `{action.target}` gave a {type(value).__name__}, no tensor"
        raise MatchError(Diagnostic(code, message, keys=_keys(action)))
    return value.detach()


def dense_for(value: torch.Tensor, target: torch.Tensor, key: str) -> torch.Tensor:
    """The value in a layout that `target.copy_` takes; raises FormatError where there is none."""
    if (
        value.layout == target.layout
        and value.is_quantized == target.is_quantized
        and value.is_nested == target.is_nested
    ):
        return value
    if target.layout == torch.strided and not target.is_quantized and not value.is_nested:
        return value.dequantize() if value.is_quantized else value.to_dense()
    raise FormatError(
        Diagnostic("unsupported-feature", f"a {value.layout} tensor cannot be written into `{key}`", keys=(key,))
    )


def _line(error: BaseException) -> str:
    return next(iter(str(error).splitlines()), "")


def _keys(action: Action) -> tuple[str, ...]:
    return tuple(key for key in (action.target,) if key is not None)
