"""Options are checked before anything is read, and a wrong one is named with what would be right."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import loadstone as ls


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"match": "magic"}, "`match` is 'magic'"),
        ({"only": 3}, "`only` is 3"),
        ({"drop": [1]}, r"`drop` is \[1\]"),
        ({"rename": {"a": 1}}, "`rename` is"),
        ({"adapt": {"a": "stretch"}}, "`adapt` for `a` is 'stretch'"),
        ({"dtype": "int8"}, "`dtype` is"),
        ({"device": "nonsense"}, "`device` is 'nonsense'"),
        ({"device": "meta"}, "meta"),
        ({"strict": "yes"}, "`strict` is 'yes'"),
        ({"weights": 3}, "`weights` is a int"),
        ({"colour": "red"}, "no option `colour`"),
    ],
)
def test_wrong_option_is_named(options: dict[str, Any], says: str) -> None:
    with pytest.raises(ls.RecipeError, match=f"invalid-option.*{says}|invalid-option.*\n?.*{says}"):
        ls.load(nn.Linear(1, 1), {"weight": torch.zeros(1, 1), "bias": torch.zeros(1)}, **options)


def test_one_glob_may_be_a_string() -> None:
    model = nn.Linear(2, 2)
    before = model.bias.clone()
    ls.load(model, {"weight": torch.zeros(2, 2)}, fresh="bias")
    assert torch.equal(model.bias, before)


def test_source_that_is_a_model_is_told_how_to_pass_it() -> None:
    with pytest.raises(ls.RecipeError, match=r"model\.state_dict\(\)"):
        ls.load(nn.Linear(1, 1), nn.Linear(1, 1))  # type: ignore[arg-type]


def test_model_that_is_none_is_named() -> None:
    with pytest.raises(ls.RecipeError, match="the model is a dict"):
        ls.load({}, {})  # type: ignore[arg-type]


def test_recipe_gives_options_and_arguments_win(tmp_path: Path) -> None:
    (tmp_path / "r.toml").write_text('[options]\nfresh = ["weight", "bias"]\n')
    state = {"weight": torch.zeros(2, 2)}
    model = nn.Linear(2, 2)
    assert ls.plan(model, state, recipe=tmp_path / "r.toml", drop=["weight"]).ok is False  # nothing left to load
    assert ls.plan(model, state, recipe=tmp_path / "r.toml", fresh=["bias"]).ok


def test_loading_works_whatever_the_default_device_is(tmp_path: Path) -> None:
    torch.save(nn.Linear(2, 2).half().state_dict(), tmp_path / "m.pth")
    model = nn.Linear(2, 2)
    with torch.device("meta"):
        ls.load(model, tmp_path / "m.pth")
    assert torch.equal(model.weight, torch.load(tmp_path / "m.pth")["weight"].float())


def test_memory_that_does_not_suffice_is_a_limit_error() -> None:
    model = nn.Module()
    model.weight = nn.Parameter(torch.empty(1 << 40, device="meta"))
    with pytest.raises(ls.LimitError, match=r"resource-limit.*more memory"):
        ls.load(model, {"weight": torch.zeros(1).expand(1 << 40)}, dtype=torch.float64)
    assert model.weight.is_meta


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:FutureWarning")
def test_scripted_module_is_filled_in_place() -> None:
    model = torch.jit.script(nn.Linear(2, 2))
    ls.load(model, {"weight": torch.ones(2, 2), "bias": torch.zeros(2)})
    assert torch.equal(model(torch.eye(2)), torch.ones(2, 2))


@pytest.mark.filterwarnings("ignore:torch.ao.quantization:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor:UserWarning")
def test_packed_quantised_layer_is_refused_by_name() -> None:
    model = nn.Sequential(torch.ao.nn.quantized.Linear(2, 2))
    with pytest.raises(ls.FormatError, match=r"unsupported-feature.*`0._packed_params`"):
        ls.load(model, {"0.weight": torch.zeros(2, 2)})
