"""What modules do to a state dict by themselves is part of the plan, and runs on a shadow, never on the model."""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import pytest
import safetensors.torch
import torch
import torchvision
from torch import nn
from torch.nn.utils import spectral_norm
from torch.nn.utils.parametrizations import weight_norm

import loadstone as ls

Unchanged = Callable[[nn.Module], Callable[[], None]]
pytestmark = pytest.mark.filterwarnings("ignore:.*weight_norm:FutureWarning")


def as_torch_does(model: nn.Module, state: dict[str, Any]) -> dict[str, torch.Tensor]:
    """The values after torch's own load, the oracle."""
    reference = copy.deepcopy(model)
    reference.load_state_dict(copy.deepcopy(state))
    return reference.state_dict()


def assert_loads_as_torch(model: nn.Module, state: dict[str, Any]) -> ls.Plan:
    expected = as_torch_does(model, state)
    plan = ls.load(model, state)
    for key, tensor in model.state_dict().items():
        torch.testing.assert_close(tensor, expected[key], rtol=0, atol=0)
    return plan


def hooked(hook: Callable[..., None]) -> nn.Module:
    model = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 2))
    model[0].register_load_state_dict_pre_hook(hook)
    return model


def other() -> dict[str, torch.Tensor]:
    return nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 2)).state_dict()


def test_models_without_hooks_need_no_shadow() -> None:
    from loadstone.model.migration import migration_for

    assert migration_for(torchvision.models.resnet18(), {}, lambda key: torch.zeros(0)) is None


def test_hook_that_renames(unchanged: Unchanged) -> None:
    def hook(module: nn.Module, state: dict[str, Any], prefix: str, *rest: object) -> None:
        state[prefix + "weight"] = state.pop(prefix + "kernel")

    state = other()
    state["0.kernel"] = state.pop("0.weight")
    plan = assert_loads_as_torch(hooked(hook), state)
    assert any(action.source == "0.kernel" and action.target == "0.weight" for action in plan.actions)


def test_hook_that_reshapes_values() -> None:
    def hook(module: nn.Module, state: dict[str, Any], prefix: str, *rest: object) -> None:
        state[prefix + "weight"] = state[prefix + "weight"].reshape(3, 2) * 2

    state = other()
    state["0.weight"] = state["0.weight"].flatten()
    assert_loads_as_torch(hooked(hook), state)


def test_hook_that_changes_values_in_place_leaves_the_state_dict_alone() -> None:
    def hook(module: nn.Module, state: dict[str, Any], prefix: str, *rest: object) -> None:
        state[prefix + "weight"].mul_(2)

    state = other()
    before = {key: value.clone() for key, value in state.items()}
    assert_loads_as_torch(hooked(hook), state)
    assert all(torch.equal(value, before[key]) for key, value in state.items())


def test_hook_that_deletes_keys() -> None:
    def hook(module: nn.Module, state: dict[str, Any], prefix: str, *rest: object) -> None:
        state.pop(prefix + "total_flops", None)

    state = other()
    state["0.total_flops"] = torch.zeros(1)
    plan = assert_loads_as_torch(hooked(hook), state)
    assert plan.unexpected_keys == []


def test_hook_that_adds_a_tensor() -> None:
    def hook(module: nn.Module, state: dict[str, Any], prefix: str, *rest: object) -> None:
        state.setdefault(prefix + "bias", torch.full((3,), 7.0))

    state = other()
    del state["0.bias"]
    assert_loads_as_torch(hooked(hook), state)


def test_hook_that_uses_the_models_own_values() -> None:
    def hook(module: Any, state: dict[str, Any], prefix: str, *rest: object) -> None:
        state[prefix + "weight"] = torch.cat([state[prefix + "weight"], module.weight[2:]])

    state = other()
    state["0.weight"] = state["0.weight"][:2].clone()
    assert_loads_as_torch(hooked(hook), state)


def test_hook_that_looks_at_values() -> None:
    def hook(module: nn.Module, state: dict[str, Any], prefix: str, *rest: object) -> None:
        if state[prefix + "weight"].sum().item() > 0:
            state[prefix + "weight"] = -state[prefix + "weight"]

    state = other()
    state["0.weight"] = state["0.weight"].abs()
    assert_loads_as_torch(hooked(hook), state)


@pytest.mark.parametrize("way", ["argument", "closure", "method", "parameter"])
def test_hook_that_writes_into_its_module_writes_into_the_shadow(way: str, unchanged: Unchanged) -> None:
    class Marked(nn.Linear):
        mark = 0

        def hook(self, *rest: object) -> None:
            self.mark = 3
            self.seen.append(1)

    model = Marked(2, 2)
    model.seen = []
    if way == "argument":
        model.register_load_state_dict_pre_hook(lambda module, *rest: setattr(module, "mark", 3))
    elif way == "closure":
        model._register_load_state_dict_pre_hook(lambda *rest: setattr(model, "mark", 3))
    elif way == "method":
        model._register_load_state_dict_pre_hook(model.hook)
    else:
        model._register_load_state_dict_pre_hook(lambda *rest: model.weight.data.zero_())
    check = unchanged(model)
    assert ls.plan(model, nn.Linear(2, 2).state_dict()).ok
    check()


def test_hook_that_reaches_the_model_through_a_global_is_stopped(unchanged: Unchanged) -> None:
    model = nn.Linear(2, 2)
    holder = type("Holder", (), {"model": model})
    model._register_load_state_dict_pre_hook(lambda *rest: holder.model.weight.data.zero_())
    check = unchanged(model)
    with pytest.raises(ls.MatchError, match=r"hook-failed.*writes into the model"):
        ls.load(model, nn.Linear(2, 2).state_dict())
    check()


def test_overridden_load_state_dict_is_respected() -> None:
    class Renaming(nn.Linear):
        def load_state_dict(self, state_dict: Any, strict: bool = True, assign: bool = False) -> Any:
            return super().load_state_dict({key.removeprefix("old_"): value for key, value in state_dict.items()})

    model = Renaming(2, 2)
    source = nn.Linear(2, 2).state_dict()
    ls.load(model, {f"old_{key}": value for key, value in source.items()})
    assert torch.equal(model.weight, source["weight"])


def test_extra_state_of_a_state_dict_is_set_and_taken_back_when_it_fails(unchanged: Unchanged) -> None:
    class Counting(nn.Linear):
        count = 0

        def get_extra_state(self) -> object:
            return self.count

        def set_extra_state(self, state: Any) -> None:
            if state < 0:
                raise ValueError("negative")
            self.count = state

    source = Counting(2, 2)
    source.count = 5
    model = Counting(2, 2)
    ls.load(model, source.state_dict())
    assert model.count == 5
    before = model.weight.clone()
    state = Counting(2, 2).state_dict() | {"_extra_state": -1}
    with pytest.raises(ls.MatchError, match=r"hook-failed.*negative"):
        ls.load(model, state)
    assert torch.equal(model.weight, before)


def test_post_hook_gets_the_module_and_the_keys() -> None:
    model = nn.Linear(2, 2)
    seen = []
    model.register_load_state_dict_post_hook(lambda module, keys: seen.append((module, keys)))
    ls.load(model, {"weight": torch.zeros(2, 2)}, fresh=["bias"])
    assert seen[0][0] is model
    assert seen[0][1].missing_keys == ["bias"]


def test_mlp_of_an_old_vision_transformer() -> None:
    model = torchvision.models.vision_transformer.MLPBlock(4, 8, 0.0)
    names = {"0": "linear_1", "3": "linear_2"}
    state = {f"{names[key[0]]}{key[1:]}": torch.rand_like(value) for key, value in model.state_dict().items()}
    assert_loads_as_torch(model, state)


def test_old_weight_norm_into_the_parametrization() -> None:
    old = nn.utils.weight_norm(nn.Linear(3, 4))
    assert_loads_as_torch(weight_norm(nn.Linear(3, 4)), old.state_dict())


def test_old_weight_norm_into_old_weight_norm() -> None:
    old, model = (nn.utils.weight_norm(nn.Linear(3, 4)) for _ in range(2))
    ls.load(model, old.state_dict())
    inputs = torch.randn(2, 3)
    assert torch.equal(model(inputs), old(inputs))


def test_spectral_norm_of_before_version_one() -> None:
    model = spectral_norm(nn.Linear(3, 4))
    model(torch.randn(2, 3))
    state = dict(model.state_dict())
    state["weight"] = model.weight.detach().clone()
    del state["weight_v"]
    plan = assert_loads_as_torch(spectral_norm(nn.Linear(3, 4)), state)
    assert any(op.name == "migrate" for action in plan.actions for op in action.ops)


def test_batch_norm_of_version_one_has_no_counter() -> None:
    state = OrderedDict(nn.BatchNorm2d(3).state_dict())
    del state["num_batches_tracked"]
    state._metadata = {"": {"version": 1}}  # type: ignore[attr-defined]
    assert_loads_as_torch(nn.BatchNorm2d(3), state)


def test_frozen_batch_norm_ignores_the_counter() -> None:
    state = {f"0.{key}": torch.rand(3) for key in ("weight", "bias", "running_mean", "running_var")}
    state["0.num_batches_tracked"] = torch.tensor(7)
    assert_loads_as_torch(nn.Sequential(torchvision.ops.FrozenBatchNorm2d(3)), state)


@pytest.mark.parametrize("has_metadata", [True, False])
def test_mnasnet_asks_for_a_version_that_not_every_file_has(has_metadata: bool, tmp_path: Any) -> None:
    source = torchvision.models.mnasnet0_5()
    model = torchvision.models.mnasnet0_5()
    if has_metadata:
        torch.save(source.state_dict(), tmp_path / "m.pth")
        ls.load(model, tmp_path / "m.pth")
    else:
        safetensors.torch.save_file(source.state_dict(), tmp_path / "m.safetensors")
        ls.load(model, tmp_path / "m.safetensors")
    assert all(torch.equal(value, model.state_dict()[key]) for key, value in source.state_dict().items())


def test_model_that_would_rebuild_itself_is_refused_untouched(unchanged: Unchanged) -> None:
    model = torchvision.models.mnasnet0_5()
    state = model.state_dict()
    state._metadata[""]["version"] = 1
    modules = [id(module) for module in model.modules()]
    with pytest.raises(ls.MatchError, match=r"hook-failed.*replaces some of its own modules"):
        ls.load(model, state)
    assert [id(module) for module in model.modules()] == modules


def test_quantization_aware_layers() -> None:
    def prepared() -> nn.Module:
        torch.manual_seed(0)
        return torch.ao.quantization.FakeQuantize.with_args(
            observer=torch.ao.quantization.MovingAverageMinMaxObserver, quant_min=0, quant_max=255
        )()

    source = prepared()
    source(torch.randn(8))
    assert_loads_as_torch(prepared(), source.state_dict())


def test_versions_are_found_under_a_wrappers_prefix() -> None:
    model = torchvision.models.mnasnet0_5()
    state = nn.DataParallel(torchvision.models.mnasnet0_5()).state_dict()
    assert state._metadata["module"]["version"] == 2
    ls.load(model, state)
    assert torch.equal(model.classifier[1].weight, state["module.classifier.1.weight"])
