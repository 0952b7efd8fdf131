"""A tensor that an answer or a rule cuts is used once, or it is said that it is not."""

from __future__ import annotations

import pytest

import loadstone as ls
from loadstone.matching.structure.expressions import parse
from loadstone.matching.wholeness import not_once

torch = pytest.importorskip("torch")
nn = torch.nn


class Attention(nn.Module):
    def __init__(self, *, joined: bool, width: int = 8) -> None:
        super().__init__()
        names = ("in_proj",) if joined else ("query", "key", "value")
        for name in names:
            self.add_module(name, nn.Linear(8, width * 3 // len(names)))
        self.mix, self.score = nn.Linear(8, 12), nn.Linear(12, 5)


def findings(rules: dict[str, str], shapes: dict[str, tuple[int, ...]]):
    return list(not_once([parse(text, target, shapes) for target, text in rules.items()], shapes))


QKV = {"qkv": (24, 8)}
TURNED = "qkv | regroup(0; 2, 3, 4; 1, 0, 2)"


@pytest.mark.parametrize(
    "rules",
    [
        {"q": "qkv | chunk(0, 3)", "k": "qkv | chunk(2, 3)", "v": "qkv | chunk(1, 3)"},
        {
            "q": "qkv | regroup(0; 2, 3, 4; 1, 0, 2) | chunk(0, 3)",
            "k": "qkv | regroup(0; 2, 3, 4; 1, 0, 2) | rows(8, 16)",
        },
        {"q": "qkv + qkv2 | rows(0, 20)", "k": "qkv + qkv2 | rows(20, 28)"},
        {"q": "turned | t() | chunk(0, 3)", "k": "turned | t() | rows(8, 16)"},
        {"q": "turned | reshape(8, 3, 8) | permute(1, 0, 2) | reshape(24, 8)"},
        {"q": "(qkv | chunk(1, 3)) + (qkv | chunk(0, 3)) + (qkv | chunk(2, 3))"},
        {"q": "qkv | blocks(0; 2, 1, 0) | rows(0, 8)", "k": "qkv | rows(0, 16)"},
        {"q": "qkv", "k": "qkv"},
    ],
)
def test_what_is_used_once_or_shared_whole_is_silent(rules):
    assert findings(rules, QKV | {"qkv2": (24, 8), "turned": (8, 24)}) == []


@pytest.mark.parametrize(
    ("rules", "said", "severity"),
    [
        (
            {"q": "qkv | chunk(0, 3)", "k": "qkv | chunk(0, 3)", "v": "qkv | chunk(2, 3)"},
            "twice and 8 to 15 go",
            "error",
        ),
        ({"q": "(qkv | chunk(0, 3)) + (qkv | rows(4, 16))"}, "4 to 7 are used twice and 20 to 23 go nowhere", "error"),
        ({"q": "turned | t() | chunk(0, 3)", "k": "turned | t() | rows(4, 20)"}, "4 to 7 are used twice", "warning"),
        ({"q": "turned | t() | chunk(0, 3)"}, "of the places along axis 1 of `turned`, 8 to 23 go nowhere", "warning"),
        ({"q": "qkv | blocks(0; 1, 0) | rows(0, 8)"}, "0 to 11, 20 to 23 go nowhere", "warning"),
        ({"q": "qkv + qkv"}, "0 to 23 are used twice", "warning"),
    ],
)
def test_rows_that_are_not_used_once_are_named(rules, said, severity):
    found = findings(rules, QKV | {"turned": (8, 24)})
    assert [(each.severity, said in each.message) for each in found] == ([(severity, True)] if said else [])


NAMES = ("query", "key", "value")


def recipe(path, parts: tuple[int, int, int]):
    rules = {f"{name}.*": f"in_proj.* | chunk({part}, 3)" for name, part in zip(NAMES, parts, strict=True)}
    lines = "\n".join(f'"{target}" = "{text}"' for target, text in rules.items())
    path.write_text(f'[options]\nmatch = "structure"\n[options.rules]\n{lines}\n')
    return path


def test_a_rule_that_takes_rows_twice_and_leaves_others_is_an_error(tmp_path):
    weights = Attention(joined=True).state_dict()
    plan = ls.plan(Attention(joined=False), weights, recipe=recipe(tmp_path / "r.toml", (0, 0, 2)))
    found = [each for each in plan.diagnostics if each.code == "rows-not-once"]
    assert not plan.ok
    assert [each.message for each in found] == [
        f"of the rows of `in_proj.{end}`, 0 to 7 are used twice and 8 to 15 go nowhere" for end in ("weight", "bias")
    ]
    assert ls.plan(Attention(joined=False), weights, recipe=recipe(tmp_path / "r.toml", (0, 2, 1))).ok


def test_a_smaller_model_takes_a_part_and_a_warning_says_what_is_left(tmp_path):
    (tmp_path / "r.toml").write_text('[options.rules]\n"score.*" = "score.* | rows(1, 4)"\n')
    model, larger = Attention(joined=True), Attention(joined=True)
    model.score = nn.Linear(12, 4)
    plan = ls.load(model, larger.state_dict(), match="structure", recipe=tmp_path / "r.toml")
    assert torch.equal(model.score.weight, larger.score.weight[1:])
    found = [(each.severity, each.message) for each in plan.diagnostics if each.code == "rows-not-once"]
    assert found == [("warning", f"of the rows of `score.{end}`, 0 go nowhere") for end in ("weight", "bias")]
