"""Text from a file never acts on a terminal, and is measured and cut in cells."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadstone.screens.lines import draw, line
from loadstone.screens.text import ascii_only, cells, cut_end, cut_middle, visible, wrap

ATTACKS = [
    "\x1b[31mred\x1b[0m",  # colour
    "\x1b]0;title\x07",  # the terminal's title
    "\x1b[2J\x1b[H",  # clear the screen
    "\x9b31m",  # the one-byte form of the same
    "layer\nready  all keys match",  # a forged line
    "layer\rready",  # overwrites the line
    "a\x08\x08\x08safe",  # backspaces
    "weight\u202egnp.exe",  # right-to-left override
    "\u2066isolate\u2069",
    "a\u200bb",  # zero width
    "\ufeffbom",
    "tag\U000e0041",
    "lone \ud800 surrogate",
    "a\u2028b\u2029c",  # other line ends
    "no\u00a0break",
    "\x00",
]


@pytest.mark.parametrize("attack", ATTACKS)
def test_attacks_become_escapes_that_can_be_seen(attack):
    shown = visible(attack)
    assert shown != attack
    assert shown.isprintable()
    assert "\\" in shown


@pytest.mark.parametrize("attack", ATTACKS)
def test_nothing_drawn_acts_on_a_terminal(attack):
    text = draw([line((attack, "strong"), attack)])
    assert text.endswith("\n")
    assert text[:-1].isprintable()


def test_newline_is_shown_as_two_characters():
    assert visible("a\nb") == "a\\nb"


@given(st.text())
def test_visible_text_is_printable_and_stays_as_it_is(text):
    shown = visible(text)
    assert shown.isprintable()
    assert visible(shown) == shown


@given(st.text(alphabet=st.characters(whitelist_categories=("L", "N", "P", "S"))))
def test_what_can_be_seen_is_left_alone(text):
    assert visible(text) == "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def test_a_key_of_megabytes_is_shown_by_its_ends():
    shown = visible("a" * 5_000_000 + "z")
    assert len(shown) < 10_000
    assert shown.startswith("aaa")
    assert shown.endswith("az")


def test_wide_characters_take_two_cells():
    assert cells("重み") == 4
    assert cells("é") == 1
    assert cells(unicodedata.normalize("NFD", "é")) == 1


@given(st.text(alphabet="ab.重é"), st.integers(1, 40))
def test_cuts_fit(text, width):
    assert cells(cut_middle(text, width)) <= width
    assert cells(cut_end(text, width)) <= width


def test_the_middle_is_cut_and_both_ends_stay():
    assert cut_middle("transformer.h.0.attn.c_attn.weight", 20) == "transfo…_attn.weight"


def test_wrapping_keeps_every_word_and_no_shape_apart():
    text = "the model wants 64 × 3 × 7 × 7 and the file has 64 × 1 × 7 × 7"
    lines = wrap(text, 24)
    assert " ".join(lines) == text
    assert all(cells(part) <= 24 for part in lines)
    assert not any(part.endswith("×") or part.startswith("×") for part in lines)


def test_ascii_output_replaces_the_drawn_signs():
    assert ascii_only("├─ 64 × 3 → … │ █ 重") == "|- 64 x 3 -> ... | # \\u91cd"
