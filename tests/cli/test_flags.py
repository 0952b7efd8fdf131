"""Fixes as flags: what is pasted behind the command means what it means in Python."""

from __future__ import annotations

import shlex

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadstone.cli.flags import with_flags
from loadstone.cli.planning import python_options
from loadstone.errors import Diagnostic, Fix

NOTHING = {"only": (), "drop": (), "fresh": (), "rename": (), "adapt": (), "answers": ()}
WORDS = {**NOTHING, "weights": None, "dtype": None, "match": None, "recipe": None, "no_strict": False}


def spoken(paste: str) -> str:
    (found,) = with_flags([Diagnostic("missing-key", "x", fixes=(Fix("do", paste),))])
    return found.fixes[0].paste


@pytest.mark.parametrize(
    ("paste", "flags"),
    [
        ('fresh=["fc"]', "--fresh fc"),
        ('drop=["a b", "c.*"]', "--drop 'a b' --drop 'c.*'"),
        ('rename={r"^classifier\\.": "fc."}', r"--rename '^classifier\.=fc.'"),
        ('adapt={"fc": "slice"}', "--adapt fc=slice"),
        ('weights="ema"', "--weights ema"),
        ('match="structure"', "--match structure"),
        ('answers={"fc.weight": "head.weight"}', "--answer fc.weight=head.weight"),
        ('answers={"qkv.weight": "q.weight + k.weight"}', "--answer 'qkv.weight=q.weight + k.weight'"),
        ("git lfs pull", "git lfs pull"),
        ('adapt={"fc": lambda t, s: t}', 'adapt={"fc": lambda t, s: t}'),
        ('fresh=["fc"', 'fresh=["fc"'),
        ("", ""),
    ],
)
def test_python_becomes_flags_where_flags_can_say_it(paste: str, flags: str) -> None:
    assert spoken(paste) == flags


texts = st.text(st.characters(blacklist_categories=("Cs",)), min_size=1, max_size=12)


@given(st.lists(texts, min_size=1, max_size=3), st.dictionaries(texts, texts, min_size=1, max_size=3))
def test_flags_give_back_the_options_they_were_made_of(names: list[str], table: dict[str, str]) -> None:
    def parsed(paste: str) -> dict[str, object]:
        words = shlex.split(spoken(paste))
        pairs = list(zip(words[::2], words[1::2], strict=True))
        given = {name: tuple(value for flag, value in pairs if flag == f"--{name}") for name in NOTHING}
        return python_options({**WORDS, **given})

    assert parsed(f"fresh={names!r}") == {"fresh": names}
    if not any("=" in text for text in table.values()):
        assert parsed(f"rename={table!r}") == {"rename": table}
