"""Which part of a file is found to be the weights, over the ways in which people wrap a state dict."""

from __future__ import annotations

from typing import Any

import pytest

from loadstone.errors import FormatError
from loadstone.storage import Storage
from loadstone.tensors import TensorInfo, contiguous_stride
from loadstone.values import AnnotatedDict, Opaque, SavedModule
from loadstone.weights import choose, find_weight_sets


def tensor(*shape: int) -> TensorInfo:
    return TensorInfo("", "float32", shape, contiguous_stride(shape), 0, Storage("memory", 4096, ()))


def state_dict() -> dict[str, Any]:
    return {"conv.weight": tensor(4, 3), "conv.bias": tensor(4), "fc.weight": tensor(2, 4), "fc.bias": tensor(2)}


def optimizer() -> dict[str, Any]:
    return {
        "state": {0: {"step": 3, "exp_avg": tensor(4, 3), "exp_avg_sq": tensor(4, 3)}},
        "param_groups": [{"lr": 0.1, "params": [0]}],
    }


KEYS = ["conv.weight", "conv.bias", "fc.weight", "fc.bias"]

WRAPPED = {
    "flat": ("", state_dict()),
    "state_dict": ("state_dict", {"state_dict": state_dict(), "epoch": 3}),
    "model": ("model", {"model": state_dict(), "optimizer": optimizer(), "epoch": 3, "loss": tensor()}),
    "model_state_dict": (
        "model_state_dict",
        {"epoch": 3, "model_state_dict": state_dict(), "optimizer_state_dict": optimizer(), "loss": 0.3},
    ),
    "net": ("net", {"net": state_dict(), "acc": 93.1, "epoch": 7}),
    "params_ema alone": ("params_ema", {"params_ema": state_dict()}),
    "an unknown word": ("resnet", {"resnet": state_dict(), "note": "x"}),
    "two levels": ("state_dict.model", {"state_dict": {"model": state_dict(), "ema_decay": 0.9}}),
    "model.state_dict": ("model.state_dict", {"model": {"state_dict": state_dict(), "model_args": {"a": 1}}}),
    "module": ("", SavedModule("my.Net", state_dict=state_dict())),
    "module under model": ("model", {"epoch": 1, "model": SavedModule("my.Net", state_dict=state_dict())}),
    "module in an object": (
        "ema.module",
        {
            "ema": Opaque(
                "timm.ModelEma", state={"decay": 0.9, "module": SavedModule("my.Net", state_dict=state_dict())}
            )
        },
    ),
    "pairs": ("", list(state_dict().items())),
    "in a list": ("1", [7, state_dict(), optimizer(), 0.3]),
    "in a tuple under a name": ("checkpoint.0", {"checkpoint": (state_dict(), optimizer()), "epoch": 3}),
    "nested dicts": (
        "",
        {"conv": {"weight": tensor(4, 3), "bias": tensor(4)}, "fc": {"weight": tensor(2, 4), "bias": tensor(2)}},
    ),
    "extra state": ("", AnnotatedDict({**state_dict(), "_extra_state": {"a": 1}}, attributes={"_metadata": {}})),
}


@pytest.mark.parametrize("case", WRAPPED)
def test_weights_are_found_wherever_they_are_wrapped(case: str) -> None:
    name, tree = WRAPPED[case]
    chosen, notes = choose(find_weight_sets(tree, None), None, "f.pth")
    assert (chosen.name, list(chosen.tensors), notes) == (name, KEYS, ())
    assert [info.key for info in chosen.tensors.values()] == KEYS


@pytest.mark.parametrize(
    ("raw", "averaged"), [("params", "params_ema"), ("state_dict", "state_dict_ema"), ("model", "ema")]
)
def test_raw_and_averaged_weights_are_both_named(raw: str, averaged: str) -> None:
    sets = find_weight_sets({averaged: state_dict(), raw: state_dict()}, None)
    chosen, notes = choose(sets, None, "f.pth")
    assert chosen.name == raw
    assert [note.code for note in notes] == ["several-models"]
    assert averaged in str(notes[0])
    assert raw in str(notes[0])
    assert choose(sets, averaged, "f.pth") == (next(one for one in sets if one.name == averaged), ())


def test_two_networks_side_by_side_are_offered_singly_and_together() -> None:
    sets = find_weight_sets({"netG": state_dict(), "netD": state_dict(), "step": 3}, None)
    assert [one.name for one in sets] == ["", "netG", "netD"]
    chosen, notes = choose(sets, None, "f.pth")
    assert list(chosen.tensors) == [f"{net}.{key}" for net in ("netG", "netD") for key in KEYS]
    assert notes[0].code == "several-models"


def test_thousands_of_networks_are_found_in_a_moment() -> None:
    """Every tensor against every network would be 250 million comparisons."""
    tree = {f"net{number}": state_dict() for number in range(8_000)}
    sets = find_weight_sets(tree, None)
    assert len(sets) == 8_001
    assert len(sets[0].tensors) == 32_000
    assert choose(sets, None, "f.pth") == (sets[0], ())


def test_a_key_of_nothing_but_dots_is_found_in_a_moment() -> None:
    """Every place it could be under would be 10^12 characters."""
    dots = {"w" + "." * 1_000_000: tensor(2)}
    assert [one.name for one in find_weight_sets({"a": dots, "b": dots}, None)] == ["", "a", "b"]


def test_the_optimizer_is_no_model() -> None:
    assert find_weight_sets({"optimizer": optimizer(), "epoch": 1}, None) == []
    assert find_weight_sets({"adam": optimizer()}, None) == []
    assert find_weight_sets(optimizer(), None) == []
    assert find_weight_sets(Opaque("torch.optim.adam.Adam", state=optimizer()), None) == []


def test_models_of_an_ensemble_are_offered_one_by_one() -> None:
    sets = find_weight_sets({"models": [state_dict(), state_dict()], "scores": [{"loss": tensor()}]}, None)
    assert [one.name for one in sets if one.name] == ["models.0", "models.1"]


def test_unknown_set_names_the_ones_there_are() -> None:
    sets = find_weight_sets({"model": state_dict()}, None)
    with pytest.raises(FormatError, match="unknown-weights") as raised:
        choose(sets, "ema", "f.pth")
    assert "model   4 tensors, 26 elements" in str(raised.value)


def test_no_weights_says_how_to_look() -> None:
    with pytest.raises(FormatError, match=r"loadstone inspect f\.pth"):
        choose([], None, "f.pth")
