"""Values arrive: every format, device, wrapper and kind of target, compared with what torch itself would have done."""

from __future__ import annotations

import copy
import os
from collections import OrderedDict
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import nn

import loadstone as ls


def assert_equal(model: nn.Module, state: dict[str, torch.Tensor]) -> None:
    found = model.state_dict()
    assert list(found) == list(state)
    for key, tensor in state.items():
        assert found[key].dtype == tensor.dtype, key
        assert torch.equal(found[key], tensor), key


@pytest.fixture(params=["zip", "legacy", "safetensors", "memory"])
def source(request: pytest.FixtureRequest, trained: nn.Module, tmp_path: Path) -> Path | dict[str, torch.Tensor]:
    """The trained model in every form."""
    state = trained.state_dict()
    if request.param == "memory":
        return state
    path = tmp_path / f"m.{request.param}"
    if request.param == "safetensors":
        safetensors.torch.save_file({key: value.clone() for key, value in state.items()}, path)
    else:
        torch.save(state, path, _use_new_zipfile_serialization=request.param == "zip")
    return path


def test_every_tensor_arrives_to_the_bit(source: Path, small: nn.Module, trained: nn.Module) -> None:
    plan = ls.load(small, source)
    assert plan.ok
    assert_equal(small, trained.state_dict())


def test_parameters_stay_the_same_objects_in_the_same_memory(source: Path, small: nn.Module) -> None:
    before = [(id(parameter), parameter.data_ptr()) for parameter in small.parameters()]
    ls.load(small, source)
    assert [(id(parameter), parameter.data_ptr()) for parameter in small.parameters()] == before


def test_autograd_notices_that_memory_changed(source: Path, small: nn.Module) -> None:
    loss = (small.first.weight**2).sum()
    ls.load(small, source)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_model_on_meta_is_materialised_with_its_ties(source: Path, trained: nn.Module) -> None:
    with torch.device("meta"):
        model = type(trained)()
    model.mask = torch.ones(2, 2)
    model.first.weight.requires_grad_(False)
    ls.load(model, source)
    assert_equal(model, trained.state_dict())
    assert model.head.weight is model.embed.weight
    assert not model.first.weight.requires_grad
    assert isinstance(model.first.bias, nn.Parameter)
    assert model.first.bias.requires_grad


def test_materialised_parameters_are_private_to_the_model(trained: nn.Module, tmp_path: Path) -> None:
    torch.save(trained.state_dict(), tmp_path / "m.pth")
    before = (tmp_path / "m.pth").read_bytes()
    with torch.device("meta"):
        model = nn.Module()
        model.first = nn.Linear(3, 4)
    ls.load(model, tmp_path / "m.pth", only=["first"])
    with torch.no_grad():
        model.first.weight.add_(1)
    assert (tmp_path / "m.pth").read_bytes() == before
    assert torch.equal(model.first.weight, trained.first.weight + 1)


def test_two_parameters_filled_from_one_tensor_of_the_file_do_not_share_memory(tmp_path: Path) -> None:
    shared = torch.arange(3.0)
    torch.save({"a": shared, "b": shared}, tmp_path / "m.pth")
    with torch.device("meta"):
        model = nn.Module()
        model.a, model.b = nn.Parameter(torch.empty(3)), nn.Parameter(torch.empty(3))
    ls.load(model, tmp_path / "m.pth")
    with torch.no_grad():
        model.a.zero_()
    assert torch.equal(model.b, shared)


def test_counter_that_an_old_file_lacks_starts_at_zero_on_meta(tmp_path: Path) -> None:
    state = nn.BatchNorm1d(2).state_dict()
    del state["num_batches_tracked"]
    torch.save(OrderedDict(state), tmp_path / "m.pth")
    with torch.device("meta"):
        model = nn.BatchNorm1d(2)
    ls.load(model, tmp_path / "m.pth")
    assert model.num_batches_tracked.item() == 0
    assert model.num_batches_tracked.dtype == torch.int64


def test_assign_makes_new_parameters_and_keeps_the_tie(small: nn.Module, trained: nn.Module, tmp_path: Path) -> None:
    torch.save(trained.half().state_dict(), tmp_path / "m.pth")
    old = small.embed.weight
    ls.load(small, tmp_path / "m.pth", assign=True)
    assert small.embed.weight is not old
    assert small.embed.weight is small.head.weight
    assert small.embed.weight.dtype == torch.float16
    assert_equal(small, trained.state_dict())


def test_assign_takes_the_very_tensors_of_a_state_dict_as_torch_does(small: nn.Module, trained: nn.Module) -> None:
    state = trained.state_dict()
    ls.load(small, state, assign=True)
    assert small.first.weight.data_ptr() == state["first.weight"].data_ptr()


def test_dtype_casts_floats_only_and_keeps_parameter_objects(small: nn.Module, trained: nn.Module) -> None:
    before = id(small.first.weight)
    ls.load(small, trained.state_dict(), dtype=torch.bfloat16)
    assert id(small.first.weight) == before
    assert small.first.weight.dtype == torch.bfloat16
    assert small.norm.num_batches_tracked.dtype == torch.int64
    assert small.mask.dtype == torch.bfloat16  # as Module.to does
    assert torch.equal(small.first.weight, trained.first.weight.bfloat16())


def test_cast_on_the_way_is_torchs_cast(source: Path, small: nn.Module, trained: nn.Module) -> None:
    ls.load(small.half(), source)
    assert_equal(small, trained.half().state_dict())


@pytest.mark.parametrize("layout", ["channels_last", "transposed", "strided"])
def test_parameters_with_strides_of_their_own(layout: str, tmp_path: Path) -> None:
    values = torch.randn(4, 3, 5, 5)
    model = nn.Module()
    memory = {
        "channels_last": torch.zeros(4, 3, 5, 5).to(memory_format=torch.channels_last),
        "transposed": torch.zeros(5, 5, 3, 4).permute(3, 2, 0, 1),
        "strided": torch.zeros(4, 3, 5, 10)[..., ::2],
    }[layout]
    model.weight = nn.Parameter(memory)
    torch.save({"weight": values}, tmp_path / "m.pth")
    ls.load(model, tmp_path / "m.pth")
    assert torch.equal(model.weight, values)
    assert model.weight.stride() == memory.stride()


def test_views_and_odd_layouts_in_the_file(tmp_path: Path) -> None:
    values = torch.randn(6, 4)
    state = {
        "transposed": values.t(),
        "every_other": values[::2],
        "expanded": torch.ones(1, 3).expand(4, 3),
        "conjugated": torch.randn(3, dtype=torch.complex64).conj(),
        "number": torch.tensor(3.0),
        "empty": torch.zeros(0, 4),
    }
    torch.save(state, tmp_path / "m.pth")
    for device in ("cpu", "meta"):
        model = nn.Module()
        for key, value in state.items():
            model.register_buffer(key, torch.empty(value.shape, dtype=value.dtype, device=device))
        ls.load(model, tmp_path / "m.pth")
        assert_equal(model, state)


def test_thousands_of_tiny_tensors_arrive_each_at_its_place(tmp_path: Path) -> None:
    def model_of(fill: float | None) -> nn.Module:
        model = nn.Module()
        for number in range(2000):
            value = torch.zeros(number % 7) if fill is None else torch.full((number % 7,), fill + number)
            model.register_buffer(f"b{number}", value)
        return model

    torch.save(model_of(1.0).state_dict(), tmp_path / "m.pth")
    model = model_of(None)
    ls.load(model, tmp_path / "m.pth")
    assert_equal(model, model_of(1.0).state_dict())


def test_inference_tensors_can_be_filled(trained: nn.Module, tmp_path: Path) -> None:
    torch.save(trained.state_dict(), tmp_path / "m.pth")
    with torch.inference_mode():
        model = type(trained)()
    ls.load(model, tmp_path / "m.pth")
    assert_equal(model, trained.state_dict())


def test_state_dict_of_the_model_itself_with_two_keys_exchanged() -> None:
    model = nn.Module()
    model.a, model.b = nn.Parameter(torch.zeros(3)), nn.Parameter(torch.ones(3))
    ls.load(model, {"a": model.b.data, "b": model.a.data})
    assert torch.equal(model.a, torch.ones(3))
    assert torch.equal(model.b, torch.zeros(3))


def test_non_persistent_buffer_keeps_its_values(source: Path, small: nn.Module) -> None:
    ls.load(small, source)
    assert torch.equal(small.mask, torch.ones(2, 2))


def test_nested_state_dict_in_memory(small: nn.Module, trained: nn.Module) -> None:
    ls.load(small, {"epoch": 3, "state_dict": trained.state_dict(), "optimizer": {"state": {}, "param_groups": []}})
    assert_equal(small, trained.state_dict())


def test_data_parallel_and_compile_take_a_clean_checkpoint(source: Path, small: nn.Module, trained: nn.Module) -> None:
    for wrap in (nn.DataParallel, lambda model: torch.compile(model, backend="eager")):
        model = copy.deepcopy(small)
        ls.load(wrap(model), source)
        assert_equal(model, trained.state_dict())


def test_clean_model_takes_a_wrapped_checkpoint(small: nn.Module, trained: nn.Module, tmp_path: Path) -> None:
    torch.save(nn.DataParallel(trained).state_dict(), tmp_path / "m.pth")
    ls.load(small, tmp_path / "m.pth")
    assert_equal(small, trained.state_dict())


def test_distributed_data_parallel_in_one_process(small: nn.Module, trained: nn.Module, tmp_path: Path) -> None:
    store = f"file://{tmp_path}/store"
    torch.distributed.init_process_group("gloo", init_method=store, rank=0, world_size=1)
    try:
        wrapped = nn.parallel.DistributedDataParallel(small)
        ls.load(wrapped, trained.state_dict())
    finally:
        torch.distributed.destroy_process_group()
    assert_equal(small, trained.state_dict())


def test_unaligned_memory_computes_the_same_bits(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 17))
    images = torch.randn(5, 3, 8, 8)
    torch.save(model.state_dict(), tmp_path / "m.pth", _use_new_zipfile_serialization=False)
    with torch.device("meta"):
        loaded = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 17))
    ls.load(loaded, tmp_path / "m.pth")
    assert torch.equal(loaded(images), model(images))


def test_plan_keeps_its_file_open_and_load_closes_it(small: nn.Module, trained: nn.Module, tmp_path: Path) -> None:
    path = tmp_path / "m.pth"
    torch.save(trained.state_dict(), path)

    def is_open() -> bool:
        descriptors = Path("/proc/self/fd")
        return any(os.path.realpath(entry) == str(path.resolve()) for entry in descriptors.iterdir())

    plan = ls.plan(small, path)
    assert is_open()
    plan.apply()
    del plan
    assert not is_open()
    loaded = ls.load(small, path)
    assert not is_open()
    assert loaded.ok


def test_checkpoint_that_was_passed_in_stays_open(small: nn.Module, trained: nn.Module, tmp_path: Path) -> None:
    torch.save(trained.state_dict(), tmp_path / "m.pth")
    with ls.open(tmp_path / "m.pth") as checkpoint:
        ls.load(small, checkpoint)
        assert torch.equal(checkpoint.weights["first.weight"].read(), trained.first.weight)
