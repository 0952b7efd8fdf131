"""A disk that fails in the middle of the copy: what changed is named, and with `backup=True` nothing has changed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import loadstone as ls
from loadstone.io.sources import MemorySource
from loadstone.matching.names import make_plan
from loadstone.matching.options import Options
from loadstone.matching.plan import Plan
from loadstone.model.apply import Loading, apply
from loadstone.model.schema import schema_of
from loadstone.storage import Extent, Storage
from loadstone.tensors import TensorInfo, contiguous_stride, dense

LARGE = 40_000  # elements: too large to be read together with its neighbours


class FailingSource:
    """A source whose n-th read fails, as a disk does."""

    def __init__(self, data: bytes, failing_read: int, error: BaseException) -> None:
        self._data = MemorySource(data, "failing.bin")
        self.name, self.size = "failing.bin", len(data)
        self._left = failing_read
        self._error = error

    def read_into(self, offset: int, buffer: memoryview) -> None:
        self._left -= 1
        if self._left == 0:
            raise self._error
        self._data.read_into(offset, buffer)

    def read(self, offset: int, nbytes: int) -> bytes:
        return self._data.read(offset, nbytes)

    def view(self, offset: int, nbytes: int) -> memoryview:
        return self._data.view(offset, nbytes)

    def close(self) -> None:
        pass


def disk_error() -> ls.IntegrityError:
    return ls.IntegrityError(ls.Diagnostic("io-error", "reading at 9 of `failing.bin`: Input/output error"))


def three() -> nn.Module:
    model = nn.Module()
    for name in ("a", "b", "c"):
        model.register_parameter(name, nn.Parameter(torch.rand(LARGE)))
    model.tied = model.a
    return model


def plan_of(model: nn.Module, failing_read: int, error: BaseException, **options: Any) -> Plan:
    data = torch.rand(3 * LARGE).numpy().tobytes()
    source = FailingSource(data, failing_read, error)
    infos: dict[str, TensorInfo] = {}
    for number, key in enumerate(("a", "b", "c")):
        storage = Storage(key, LARGE * 4, (Extent.stored(source, number * LARGE * 4, LARGE * 4),))
        infos[key] = dense(key, "float32", (LARGE,), contiguous_stride((LARGE,)), 0, storage)
    return make_plan(schema_of(model), infos, Options(), source_name="failing.bin", target_name="Three")


def values(model: nn.Module) -> dict[str, torch.Tensor]:
    return {key: tensor.clone() for key, tensor in model.state_dict().items()}


def test_every_parameter_that_has_changed_is_named() -> None:
    model = three()
    before = values(model)
    with pytest.raises(ls.IntegrityError, match="partial-load") as caught:
        apply(plan_of(model, 2, disk_error()), Loading(model))
    assert set(caught.value.diagnostics[0].keys) == {"a", "tied", "b"}  # b may be half written
    assert "Input/output error" in str(caught.value)
    assert torch.equal(model.c, before["c"])
    assert not torch.equal(model.a, before["a"])


@pytest.mark.parametrize("failing_read", [1, 2, 3])
def test_backup_puts_the_old_values_back(failing_read: int) -> None:
    model = three()
    before = values(model)
    with pytest.raises(ls.IntegrityError, match="io-error") as caught:
        apply(plan_of(model, failing_read, disk_error()), Loading(model, backup=True))
    assert "the model is as it was" in str(caught.value)
    assert all(torch.equal(tensor, before[key]) for key, tensor in model.state_dict().items())


def test_interrupt_is_an_interrupt_and_says_what_changed() -> None:
    model = three()
    with pytest.raises(KeyboardInterrupt) as caught:
        apply(plan_of(model, 2, KeyboardInterrupt()), Loading(model))
    assert "partial-load" in caught.value.__notes__[0]


def test_interrupt_with_backup_leaves_the_model_as_it_was() -> None:
    model = three()
    before = values(model)
    with pytest.raises(KeyboardInterrupt) as caught:
        apply(plan_of(model, 3, KeyboardInterrupt()), Loading(model, backup=True))
    assert "as it was" in caught.value.__notes__[0]
    assert all(torch.equal(tensor, before[key]) for key, tensor in model.state_dict().items())


def test_new_tensors_that_cannot_be_filled_change_nothing(
    unchanged: Callable[[nn.Module], Callable[[], None]],
) -> None:
    model = three().to("meta").half()  # a cast, so that nothing is mapped
    model.tied = model.a
    check = unchanged(model)
    with pytest.raises(ls.IntegrityError, match="io-error"):
        apply(plan_of(model, 4, disk_error()), Loading(model))  # the first three look whether the cast overflows
    check()
