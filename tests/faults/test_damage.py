"""Damage to every layout is noticed, and named."""

from __future__ import annotations

import pytest
from reliability.contenders import FOLK
from reliability.damage import loaded_by, resumed, verified

_LAYOUTS = (".pth", ".safetensors", "")


@pytest.mark.parametrize("suffix", _LAYOUTS)
def test_damage_is_noticed_and_named(suffix: str) -> None:
    found = verified(suffix, 340, suffix)
    assert (found.unnoticed, found.unnamed) == (0, 0), found.example


@pytest.mark.long
@pytest.mark.parametrize("suffix", _LAYOUTS)
def test_much_damage_is_noticed_and_named(suffix: str) -> None:
    found = verified(suffix, 3400, suffix)
    assert (found.unnoticed, found.unnamed) == (0, 0), found.example


def test_a_run_goes_on_from_the_newest_whole_checkpoint() -> None:
    found = resumed(20)
    assert (found.unnoticed, found.not_survived) == (0, 0), found.example


@pytest.mark.filterwarnings("ignore")
def test_plain_torch_loads_damage_without_a_word() -> None:
    """So the damage is real, and the count can be other than 0."""
    assert loaded_by("torch", 40, FOLK[0].save, FOLK[0].load).unnoticed > 10
