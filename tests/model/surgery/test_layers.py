"""Layers added, exchanged and taken out by name."""

from __future__ import annotations

import copy
import itertools
import pickle

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import loadstone as ls


class Own(nn.Module):
    """A module whose forward says what runs."""

    def __init__(self) -> None:
        super().__init__()
        self.classifier = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))
        self.pool = nn.Tanh()
        self.parts = nn.ModuleDict({"a": nn.Linear(2, 2)})

    def forward(self, value):
        return self.pool(self.classifier(value))


@pytest.fixture
def model() -> nn.Module:
    return Own()


VALUE = torch.rand(2, 4)


def test_append_to_a_sequential_runs_last(model):
    edit = ls.append(model, "classifier", "add_linear", nn.Linear(3, 2))
    assert edit == "classifier.add_linear"
    assert list(model.classifier._modules) == ["0", "1", "2", "add_linear"]
    assert model(VALUE).shape == (2, 2)


def test_append_to_a_module_of_its_own_runs_on_what_forward_returns(model):
    layer = nn.Linear(3, 2)
    before = model(VALUE)
    assert ls.append(model, "", "add_linear", layer) == "add_linear"
    assert torch.equal(model(VALUE), layer(before))
    assert "add_linear.weight" in model.state_dict()


def test_what_was_appended_survives_a_copy_and_a_pickle(model):
    ls.append(model, "", "add_linear", nn.Linear(3, 2))
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        nn.init.zeros_(twin.add_linear.weight)
        nn.init.zeros_(twin.add_linear.bias)
        assert twin(VALUE).eq(0).all()
    assert not model(VALUE).eq(0).all()


def test_what_was_appended_is_removed_with_its_hook(model):
    before = model(VALUE)
    ls.append(model, "", "add_linear", nn.Linear(3, 2))
    edit = ls.remove(model, "add_linear")
    assert torch.equal(model(VALUE), before)
    assert "add_linear" not in model._modules
    edit.undo()
    assert model(VALUE).shape == (2, 2)


def test_append_to_a_dict_of_modules_says_that_the_model_decides(model):
    assert "own code says whether it runs" in str(ls.append(model, "parts", "b", nn.Linear(2, 2)))


def test_insert_moves_the_numbers_behind_it_and_lists_the_keys(model):
    last = model.classifier[2]
    edit = ls.insert(model, "classifier", 2, nn.Dropout(0.1))
    assert edit == "classifier.2"
    assert edit.moved == {"classifier.2.weight": "classifier.3.weight", "classifier.2.bias": "classifier.3.bias"}
    assert model.classifier[3] is last
    assert "classifier.2.weight → classifier.3.weight" in str(edit)


def test_insert_into_a_sequential_with_names_moves_no_key():
    model = nn.Sequential()
    model.add_module("conv", nn.Linear(4, 4))
    model.add_module("act", nn.ReLU())
    edit = ls.insert(model, "", 1, nn.Linear(4, 5))
    assert list(model._modules) == ["conv", "0", "act"]
    assert (edit, edit.moved) == ("0", {})
    assert model(VALUE).shape == (2, 5)


def test_replace_by_name(model):
    edit = ls.replace(model, "classifier.2", nn.Linear(6, 10))
    assert [(each.name, each.before, each.after) for each in edit.changes] == [
        ("classifier.2.weight", (3, 6), (10, 6)),
        ("classifier.2.bias", (3,), (10,)),
    ]
    assert model(VALUE).shape == (2, 10)


def test_replace_at_the_name_an_edit_gave(model):
    name = ls.replace(model, "classifier.2", nn.Linear(6, 10))
    assert ls.replace(model, name, nn.Linear(6, 11)) == "classifier.2"
    assert model.classifier[2].out_features == 11


def test_replace_names_the_other_places_of_a_shared_module(model):
    model.again = model.pool
    assert "stays at `again`" in str(ls.replace(model, "pool", nn.ReLU()))
    assert isinstance(model.again, nn.Tanh)


def test_remove_from_a_sequential_moves_the_numbers(model):
    edit = ls.remove(model, "classifier.1")
    assert list(model.classifier._modules) == ["0", "1"]
    assert edit.moved == {"classifier.2.weight": "classifier.1.weight", "classifier.2.bias": "classifier.1.bias"}
    assert model(VALUE).shape == (2, 3)


def test_remove_elsewhere_lets_everything_through(model):
    ls.remove(model, "pool")
    assert isinstance(model.pool, nn.Identity)
    assert torch.equal(model(VALUE), model.classifier(VALUE))


def test_a_layer_takes_the_mode_of_the_model(model):
    model.eval()
    ls.insert(model, "classifier", 0, nn.Dropout(0.9))
    assert not model.classifier[0].training


NUMBERS = itertools.count()
EDITS = {
    "append": lambda model, place: ls.append(model, "classifier", f"extra{next(NUMBERS)}", nn.Linear(3, 3)),
    "append to the model": lambda model, place: ls.append(model, "", f"extra{next(NUMBERS)}", nn.Identity()),
    "insert": lambda model, place: ls.insert(model, "classifier", place % (len(model.classifier) + 1), nn.Tanh()),
    "replace": lambda model, place: ls.replace(model, "pool", nn.ReLU()),
    "remove": lambda model, place: ls.remove(
        model, "classifier." + list(model.classifier._modules)[place % len(model.classifier)]
    ),
}


@given(st.lists(st.tuples(st.sampled_from(sorted(EDITS)), st.integers(0, 9)), max_size=6))
def test_edits_undone_in_reverse_leave_the_model_as_it_was(choices):
    model = Own()

    def picture():
        return [(path, id(module), list(module._forward_hooks)) for path, module in model.named_modules()]

    states = [picture()]
    edits = []
    for name, place in choices:
        if len(model.classifier) or name != "remove":
            edits.append(EDITS[name](model, place))
            states.append(picture())
    for edit in reversed(edits):
        assert picture() == states.pop()
        edit.undo()
    assert picture() == states.pop()


BAD = {
    "unknown name": ("unknown-module", lambda model: ls.replace(model, "clasifier.2", nn.ReLU())),
    "unknown parent": ("unknown-module", lambda model: ls.append(model, "head", "x", nn.ReLU())),
    "a tensor's name": ("unknown-module", lambda model: ls.remove(model, "classifier.0.weight")),
    "a name that is no text": ("invalid-option", lambda model: ls.remove(model, 3)),
    "the model itself": ("invalid-option", lambda model: ls.replace(model, "", nn.ReLU())),
    "a name that is taken": ("invalid-option", lambda model: ls.append(model, "", "pool", nn.ReLU())),
    "a name that is an attribute": ("invalid-option", lambda model: ls.append(model, "", "forward", nn.ReLU())),
    "a name with a dot": ("invalid-option", lambda model: ls.append(model, "", "a.b", nn.ReLU())),
    "an empty name": ("invalid-option", lambda model: ls.append(model, "", "", nn.ReLU())),
    "a class": ("invalid-option", lambda model: ls.replace(model, "pool", nn.ReLU)),
    "a circle": ("invalid-option", lambda model: ls.replace(model, "pool", nn.Sequential(model))),
    "an index outside": ("invalid-option", lambda model: ls.insert(model, "classifier", 4, nn.ReLU())),
    "a bool for an index": ("invalid-option", lambda model: ls.insert(model, "classifier", True, nn.ReLU())),
    "no order": ("not-editable", lambda model: ls.insert(model, "", 1, nn.ReLU())),
}


@pytest.mark.parametrize(("code", "edit"), BAD.values(), ids=BAD)
def test_an_edit_that_cannot_be_made_changes_nothing(code, edit, model, unchanged):
    check = unchanged(model)
    with pytest.raises(ls.SurgeryError) as caught:
        edit(model)
    assert caught.value.code == code
    check()


def test_an_unknown_name_comes_with_the_nearest(model):
    with pytest.raises(ls.SurgeryError, match=r"classifier\.2"):
        ls.remove(model, "clasifier.2")


def test_an_edit_under_another_is_not_undone(model):
    first = ls.insert(model, "classifier", 0, nn.Tanh())
    ls.insert(model, "classifier", 0, nn.Tanh())
    with pytest.raises(ls.SurgeryError, match="stale-edit"):
        first.undo()
