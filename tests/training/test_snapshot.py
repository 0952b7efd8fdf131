"""A snapshot is the state it was taken of: values, sharing, strides, kinds; in memory that is used again."""

from __future__ import annotations

import io
import os
from collections import OrderedDict

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from loadstone.training.snapshot import Snapshot


def same(a: torch.Tensor, b: torch.Tensor) -> bool:
    return (
        (a.dtype, a.shape, a.stride(), a.requires_grad, a.is_conj(), a.is_neg(), type(a))
        == (b.dtype, b.shape, b.stride(), b.requires_grad, b.is_conj(), b.is_neg(), type(b))
        and torch.equal(a.detach().resolve_conj().resolve_neg().contiguous().reshape(-1).view(torch.uint8),
                        b.detach().resolve_conj().resolve_neg().contiguous().reshape(-1).view(torch.uint8))
    )  # fmt: skip


def test_nothing_of_the_copy_changes_with_the_state():
    tensor, numbers = torch.arange(6.0), [1, 2]
    copied = Snapshot().take({"w": tensor, "numbers": numbers})
    tensor.zero_()
    numbers.append(3)
    assert copied["w"].tolist() == [0, 1, 2, 3, 4, 5]
    assert copied["numbers"] == [1, 2]


def test_the_same_memory_is_used_again():
    snapshot = Snapshot()
    first = snapshot.take({"w": torch.ones(1000)})["w"].data_ptr()
    assert snapshot.take({"w": torch.zeros(1000)})["w"].data_ptr() == first


def test_memory_grows_with_the_state():
    snapshot = Snapshot()
    small = snapshot.take([torch.ones(10)])
    large = snapshot.take([torch.ones(10), torch.arange(100_000)])
    assert torch.equal(large[1], torch.arange(100_000))
    assert small[0].tolist() == [1] * 10  # its memory lives as long as it does


def test_tied_tensors_stay_tied_and_views_stay_views():
    whole = torch.arange(24.0).reshape(4, 6)
    copied = Snapshot().take({"a": whole, "b": whole, "row": whole[1], "t": whole.t(), "every": whole[:, ::2]})
    assert copied["a"] is copied["b"]
    assert same(copied["t"], whole.t())
    assert same(copied["every"], whole[:, ::2])
    copied["row"].fill_(-1)
    assert copied["a"][1].tolist() == [-1] * 6
    assert copied["t"][:, 1].tolist() == [-1] * 6


def test_only_what_is_shown_of_a_storage_is_copied():
    large = torch.arange(1_000_000.0)
    snapshot = Snapshot()
    copied = snapshot.take([large[500:510], large[505:520], large[900_000:900_001]])
    assert snapshot.nbytes <= 256
    assert [each.tolist() for each in copied] == [
        large[500:510].tolist(), large[505:520].tolist(), [900_000.0]
    ]  # fmt: skip
    assert copied[0].untyped_storage()._cdata == copied[1].untyped_storage()._cdata


def test_a_state_takes_its_own_size():
    tensors = [torch.ones(size) for size in (10_000, 70_001, 3, 250_000)]
    snapshot = Snapshot()
    snapshot.take(tensors)
    assert snapshot.nbytes <= 1.01 * sum(tensor.nbytes for tensor in tensors)


def test_a_forked_process_shares_none_of_it():
    copied = Snapshot().take([torch.ones(1000)])[0]
    pid = os.fork()
    if pid == 0:
        os._exit(0 if copied.sum() == 0 else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert copied.sum() == 1000


def test_an_expanded_tensor_stays_expanded():
    tensor = torch.tensor([3.0]).expand(1000, 1000)
    snapshot = Snapshot()
    copied = snapshot.take([tensor])[0]
    assert copied.stride() == (0, 0)
    assert copied[999, 999] == 3
    assert snapshot.nbytes <= 64


def test_a_large_storage_is_copied_whole():
    tensor = torch.arange(20_000_000, dtype=torch.int32)
    assert torch.equal(Snapshot().take([tensor])[0], tensor)


@pytest.mark.parametrize(
    "tensor",
    [
        torch.empty(0, 3), torch.tensor(5), torch.ones(2, dtype=torch.bfloat16), torch.ones(3, dtype=torch.bool),
        torch.tensor([1 + 2j, 3 - 4j]).conj(), torch.tensor([1 + 2j, 3 - 4j]).conj().imag,
        torch.ones(2, requires_grad=True),
        nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2), requires_grad=False),
        torch.ones(3).to(torch.float8_e4m3fn), torch.ones(2, 3, 4, 5).to(memory_format=torch.channels_last),
    ],
    ids=lambda tensor: f"{tensor.dtype}{list(tensor.shape)}",
)  # fmt: skip
def test_a_tensor_is_copied_as_it_is(tensor):
    assert same(Snapshot().take({"x": tensor})["x"], tensor)


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor", "ignore:.*is deprecated")
@pytest.mark.parametrize(
    "make",
    [
        lambda: torch.eye(3).to_sparse(),
        lambda: torch.quantize_per_tensor(torch.ones(3), 0.5, 0, torch.qint8),
        lambda: torch.ones(3, device="meta"),
    ],
    ids=["sparse", "quantised", "meta"],
)
def test_what_is_not_plain_memory_is_copied_by_itself(make):
    tensor = make()
    copied = Snapshot().take({"x": tensor})["x"]
    assert copied is not tensor
    assert (copied.layout, copied.dtype, copied.device, copied.shape) == (
        tensor.layout, tensor.dtype, tensor.device, tensor.shape,
    )  # fmt: skip
    if not tensor.is_meta:
        assert torch.equal(copied.dequantize() if copied.is_quantized else copied.to_dense(),
                           tensor.dequantize() if tensor.is_quantized else tensor.to_dense())  # fmt: skip


def test_a_state_dict_keeps_its_metadata():
    state = nn.BatchNorm1d(3).state_dict()
    copied = Snapshot().take({"model": state})["model"]
    assert type(copied) is OrderedDict
    assert copied._metadata == state._metadata
    assert copied._metadata is not state._metadata


@pytest.mark.parametrize("context", [torch.inference_mode, torch.no_grad, lambda: torch.device("meta")])
def test_it_works_in_any_context(context):
    tensor = torch.arange(5.0)
    with context():
        copied = Snapshot().take([tensor])[0]
    assert copied.tolist() == [0, 1, 2, 3, 4]


VIEWS = st.lists(
    st.tuples(st.integers(0, 3), st.integers(0, 40), st.integers(0, 9), st.integers(0, 3)), max_size=8
)  # of (storage, place, rows, stride)
DTYPES = (torch.float32, torch.uint8, torch.complex64, torch.int16)  # of a storage: torch.save wants one


@settings(max_examples=60, deadline=None)
@given(VIEWS)
def test_torch_saves_the_same_values_of_a_snapshot(views):
    storages = [torch.arange(4096 * 4, dtype=torch.uint8) + number for number in range(4)]
    content = {}
    for number, (storage, start, length, step) in enumerate(views):
        whole = storages[storage].view(DTYPES[storage])
        content[f"{number}"] = {"t": torch.as_strided(whole, (length, 2), (step, 1), start * 10)}
    saved = io.BytesIO()
    torch.save(Snapshot().take(content), saved)
    saved.seek(0)
    loaded = torch.load(saved, weights_only=True)
    assert all(same(loaded[key]["t"], content[key]["t"]) for key in content)


def test_a_state_that_lies_as_before_is_copied_again_and_one_that_moved_is_laid_out_anew():
    snapshot = Snapshot()
    state = {"a": torch.arange(6.0).reshape(2, 3), "b": [torch.ones(4, dtype=torch.int32)], "epoch": 1}
    first = snapshot.take(state)
    state["a"] += 10
    state["epoch"] = 2
    second = snapshot.take(state)
    assert second["a"].data_ptr() == first["a"].data_ptr()
    assert torch.equal(second["a"], state["a"])
    assert second["epoch"] == 2
    for changed in (
        {**state, "a": state["a"].t()},
        {**state, "a": state["a"].clone()},
        {**state, "a": state["a"][:1]},
        {**state, "c": torch.zeros(100)},
        {"a": state["a"].view(torch.int32)},
        {"a": torch.nn.Parameter(state["a"])},
    ):
        copied = snapshot.take(changed)
        assert list(copied) == list(changed)
        assert type(copied["a"]) is type(changed["a"])
        assert copied["a"].dtype == changed["a"].dtype
        assert copied["a"].stride() == changed["a"].stride()
        assert torch.equal(copied["a"], changed["a"])
        assert copied["a"].data_ptr() != changed["a"].data_ptr()
    assert torch.equal(snapshot.take(state)["b"][0], state["b"][0])
