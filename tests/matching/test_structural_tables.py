"""Plans by structure and the integers that no layer learns: loaded, kept or left out, and always said."""

from __future__ import annotations

import pytest

import loadstone as ls

torch = pytest.importorskip("torch")
nn = torch.nn


class Window(nn.Module):
    """A bias per pair of places, looked up through an index."""

    def __init__(self, names: tuple[str, str], index: str = "", *, is_reversed: bool = False) -> None:
        super().__init__()
        table, linear = names
        self.register_parameter(table, nn.Parameter(torch.randn(9, 2)))
        self.add_module(linear, nn.Linear(4, 6))
        self.names, self.index = names, index
        if index:
            places = torch.arange(9)
            self.register_buffer(index, places.flip(0) if is_reversed else places)

    def forward(self, x):
        table, linear = (getattr(self, name) for name in self.names)
        bias = table[getattr(self, self.index)] if self.index else table
        return linear(x) + bias.sum(1)[:6]


def stack(names: tuple[str, str], index: str = "", *, is_reversed: bool = False) -> nn.Module:
    return nn.Sequential(Window(names, index, is_reversed=is_reversed))


OURS, THEIRS = ("table", "proj"), ("relative_bias", "dense")


def test_an_index_without_a_partner_is_kept_and_said() -> None:
    model = stack(OURS, "places")
    plan = ls.load(model, stack(THEIRS).state_dict(), match="structure")
    (kept,) = [action for action in plan.actions if action.status == "kept"]
    assert (kept.target, kept.how) == ("0.places", "index table")
    assert model[0].places.equal(torch.arange(9))


def test_an_index_that_the_model_has_no_place_for_is_left_out_and_said() -> None:
    plan = ls.plan(stack(OURS), stack(THEIRS, "indices").state_dict(), match="structure")
    assert plan.ok
    (dropped,) = [action for action in plan.actions if action.status == "dropped"]
    assert (dropped.source, dropped.how) == ("0.indices", "index table")


def test_an_index_goes_with_the_table_it_reads() -> None:
    source, model = stack(THEIRS, "indices", is_reversed=True), stack(OURS, "places")
    plan = ls.load(model, source.state_dict(), match="structure")
    assert model[0].places.equal(torch.arange(9).flip(0))
    plan.check(torch.randn(3, 4), reference=source)


def test_on_meta_a_kept_index_has_no_values_and_nothing_is_loaded() -> None:
    with torch.device("meta"):
        model = stack(OURS, "places")
    with pytest.raises(ls.LoadstoneError) as raised:
        ls.load(model, stack(THEIRS).state_dict(), match="structure")
    assert [finding.code for finding in raised.value.diagnostics] == ["left-on-meta"]
