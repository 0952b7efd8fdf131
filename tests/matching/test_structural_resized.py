"""Plans by structure where one tensor has another size: the plan says which is meant, and `adapt` takes it."""

from __future__ import annotations

import pytest

import loadstone as ls

torch = pytest.importorskip("torch")
nn = torch.nn


class Encoder(nn.Module):
    def __init__(self, names: str, places: int, classes: int = 5) -> None:
        super().__init__()
        table, patch, blocks, mix, head = names.split()
        self.register_parameter(table, nn.Parameter(torch.randn(1, places, 8)))
        self.add_module(patch, nn.Conv2d(3, 8, 4, 4))
        self.add_module(blocks, nn.ModuleList(nn.ModuleDict({mix: nn.Linear(8, 8)}) for _ in range(3)))
        self.add_module(head, nn.Linear(8, classes))


OURS, THEIRS = "pos_embed proj blocks mix head", "positions patches layer dense classifier"


def test_a_table_of_another_size_is_named_and_not_loaded() -> None:
    plan = ls.plan(Encoder(OURS, 16), Encoder(THEIRS, 4).state_dict(), match="structure")
    (missing,) = [action for action in plan.actions if action.status == "missing"]
    assert missing.target == "pos_embed"
    assert missing.why == "`positions` is 1 × 4 × 8, this is 1 × 16 × 8"
    assert not plan.ok


def test_a_table_of_another_size_is_taken_as_adapt_says() -> None:
    source, model, named = Encoder(THEIRS, 4), Encoder(OURS, 16), Encoder(OURS, 16)
    ls.load(model, source.state_dict(), match="structure", adapt={"pos_embed": "interpolate"})
    ls.load(named, {"pos_embed": source.positions}, strict=False, adapt={"pos_embed": "interpolate"})
    assert torch.equal(model.pos_embed, named.pos_embed)
    assert torch.equal(model.blocks[2]["mix"].weight, source.layer[2]["dense"].weight)


def test_a_head_of_another_size_stays_out_without_a_word_about_it() -> None:
    source, model = Encoder(THEIRS, 4), Encoder(OURS, 4, classes=7)
    before = model.head.weight.clone()
    plan = ls.load(model, source.state_dict(), match="structure", strict=False)
    assert torch.equal(model.head.weight, before)
    assert sorted(plan.missing_keys) == ["head.bias", "head.weight"]
    assert plan.unexpected_keys == ["classifier.weight", "classifier.bias"]
