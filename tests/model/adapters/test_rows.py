"""Rows from the file beside rows of the model: both are what they were, to the bit."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import loadstone as ls

OLD = ["cat", "dog", "fox", "owl"]
NEW = ["owl", "bee", "dog"]


def classifier(classes: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, classes))


def bits(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().clone().contiguous().view(torch.uint8)


def test_kept_classes_give_equal_logits():
    old, model = classifier(4).double(), classifier(3).double()
    ls.load(model, old.state_dict(), adapt={"2": ls.classes(OLD, NEW)})
    images = torch.rand(5, 6, dtype=torch.float64)
    torch.testing.assert_close(model(images)[:, [0, 2]], old(images)[:, [3, 1]], rtol=0, atol=1e-15)


def test_other_classes_keep_weight_and_bias_of_the_model():
    model = classifier(3)
    weight, bias = bits(model[2].weight[1]), bits(model[2].bias[1:2])
    ls.load(model, classifier(4).state_dict(), adapt={"2": ls.classes(OLD, NEW)})
    assert torch.equal(bits(model[2].weight[1]), weight)
    assert torch.equal(bits(model[2].bias[1:2]), bias)


def test_classes_of_the_model_itself_change_places():
    model = classifier(4)
    before = model[2].weight.detach().clone()
    ls.load(model, model.state_dict(), adapt={"2": ls.classes(OLD, OLD[::-1])})
    assert torch.equal(model[2].weight, before.flip(0))


def test_vocabulary_grows_at_its_end():
    old, model = nn.Embedding(5, 4), nn.Embedding(8, 4)
    fresh = bits(model.weight[5:])
    ls.load(model, old.state_dict(), adapt={"weight": "vocabulary"})
    assert torch.equal(bits(model.weight[:5]), bits(old.weight))
    assert torch.equal(bits(model.weight[5:]), fresh)


def test_rows_of_the_model_are_not_rounded_to_the_dtype_of_the_file():
    model = nn.Embedding(8, 4)
    fresh = bits(model.weight[5:])
    ls.load(model, {"weight": torch.randn(5, 4).half()}, adapt={"weight": "vocabulary"})
    assert torch.equal(bits(model.weight[5:]), fresh)


def test_assigned_parameters_have_the_dtype_of_the_file():
    model = nn.Embedding(8, 4)
    ls.load(model, {"weight": torch.randn(5, 4).half()}, adapt={"weight": "vocabulary"}, assign=True)
    assert model.weight.dtype == torch.float16


def test_tied_head_grows_with_its_embedding(tmp_path):
    def model(words: int) -> nn.Module:
        made = nn.ModuleDict({"embed": nn.Embedding(words, 4), "head": nn.Linear(4, words, bias=False)})
        made["head"].weight = made["embed"].weight
        return made

    old, new = model(5), model(8)
    torch.save(old.state_dict(), tmp_path / "old.pth")
    ls.load(new, tmp_path / "old.pth", adapt={"embed.weight": "vocabulary", "head.weight": "vocabulary"})
    assert new["head"].weight is new["embed"].weight
    assert torch.equal(new["head"].weight[:5], old["embed"].weight)


def test_build_gives_the_rows_that_initialising_would_have_given(tmp_path):
    torch.save(nn.Embedding(5, 4).state_dict(), tmp_path / "old.pth")
    torch.manual_seed(3)
    expected = nn.Embedding(8, 4).weight[5:].detach().clone()
    torch.manual_seed(3)
    built = ls.build(lambda: nn.Embedding(8, 4), tmp_path / "old.pth", adapt={"weight": "vocabulary"})
    assert torch.equal(built.weight[5:], expected)


def test_model_on_meta_has_no_rows_of_its_own(unchanged):
    model = nn.Embedding(8, 4, device="meta")
    check = unchanged(model)
    with pytest.raises(ls.MatchError, match="on the meta device it has none") as caught:
        ls.load(model, {"weight": torch.zeros(5, 4)}, adapt={"weight": "vocabulary"})
    assert caught.value.code == "left-on-meta"
    check()


def test_labels_that_do_not_fit_leave_the_model_as_it_was(unchanged):
    model = classifier(3)
    check = unchanged(model)
    with pytest.raises(ls.MatchError, match="4 old and 2 new labels"):
        ls.load(model, classifier(4).state_dict(), adapt={"2": ls.classes(OLD, NEW[:1] + NEW[2:])})
    check()


def test_recipe_loads_the_same_again(tmp_path):
    old, one, two = classifier(4), classifier(3), classifier(3)
    two.load_state_dict(one.state_dict())
    plan = ls.load(one, old.state_dict(), adapt={"2": ls.classes(OLD, NEW)})
    (tmp_path / "recipe.toml").write_text(plan.recipe(), encoding="utf-8")
    ls.load(two, old.state_dict(), recipe=tmp_path / "recipe.toml")
    assert all(torch.equal(value, two.state_dict()[key]) for key, value in one.state_dict().items())
