"""Finding the head of models that no library made, and refusing what cannot be done."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from torch import nn
from torchvision.models import resnet18

import loadstone as ls
from loadstone.model.surgery.head import find_heads


class Net(nn.Module):
    """A backbone and whatever heads a test gives it; `join` says what forward returns."""

    def __init__(self, join, **heads: nn.Module) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        for name, head in heads.items():
            self.add_module(name, head)
        self.join = join

    def forward(self, image):
        return self.join(self, self.stem(image).relu().mean((2, 3)))


def one() -> Net:
    return Net(lambda net, x: net.zz_last(x).softmax(-1), zz_last=nn.Linear(8, 5), decoy=nn.Linear(8, 5))


def refusal(code: str, model: nn.Module, classes: object = 10, **options: object) -> str:
    with pytest.raises(ls.SurgeryError) as caught:
        ls.replace_head(model, classes, **options)
    assert caught.value.code == code
    return str(caught.value)


def test_a_head_is_found_by_where_the_scores_come_from_not_by_its_name():
    model = one()
    assert ls.replace_head(model, 10) == "zz_last"
    assert model(torch.rand(1, 3, 16, 16)).shape == (1, 10)
    assert model.decoy.out_features == 5


def test_two_heads_that_are_averaged_are_both_replaced():
    model = Net(lambda net, x: (net.a(x) + net.b(x)) / 2, a=nn.Linear(8, 5), b=nn.Linear(8, 5))
    assert ls.replace_head(model, 10).names == ("a", "b")


def test_a_temperature_behind_the_head_stays():
    model = Net(lambda net, x: net.a(x) * net.temperature, a=nn.Linear(8, 5))
    model.temperature = nn.Parameter(torch.tensor(0.5))
    assert ls.replace_head(model, 10) == "a"
    assert model(torch.rand(1, 3, 16, 16)).shape == (1, 10)


def test_scores_are_told_from_other_outputs_by_the_name_the_model_gives_them():
    model = Net(lambda net, x: {"logits": net.a(x), "box": net.b(x)}, a=nn.Linear(8, 5), b=nn.Linear(8, 4))
    assert ls.replace_head(model, 10).names == ("a",)


def test_a_head_that_stands_in_two_places_is_replaced_in_both():
    model = one()
    model.alias = nn.ModuleList([model.zz_last])
    edit = ls.replace_head(model, 10)
    assert model.alias[0] is model.zz_last
    assert model.zz_last.out_features == 10
    edit.undo()
    assert model.alias[0] is model.zz_last
    assert model.zz_last.out_features == 5


def test_the_new_head_has_the_dtype_and_bias_of_the_old_one_and_is_to_be_trained():
    model = Net(lambda net, x: net.a(x), a=nn.Linear(8, 5, bias=False)).to(torch.bfloat16).requires_grad_(False).eval()
    ls.replace_head(model, 10)
    assert (model.a.weight.dtype, model.a.bias) == (torch.bfloat16, None)
    assert model.a.weight.requires_grad
    assert not model.a.training
    assert model.a.weight.std() > 0


def test_numbers_that_mirror_the_count_follow_and_come_back():
    model = one()
    model.num_classes = 5
    edit = ls.replace_head(model, 10)
    assert model.num_classes == 10
    edit.undo()
    assert model.num_classes == 5


def test_the_model_initialises_its_own_kind_of_layer():
    class Own(Net):
        def _init_weights(self, module: nn.Module) -> None:
            nn.init.constant_(module.weight, 0.25)

    model = Own(lambda net, x: net.a(x), a=nn.Linear(8, 5))
    edit = ls.replace_head(model, 10)
    assert model.a.weight.eq(0.25).all()
    assert "Own._init_weights" in str(edit)


def test_finding_leaves_weights_statistics_hooks_and_random_states_alone(unchanged):
    class Noisy(nn.Module):
        def forward(self, value):
            random.random()
            np.random.rand()
            return nn.functional.dropout(value + torch.rand(()), 0.5, True)

    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), Noisy(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    model.append(nn.Linear(8, 5))
    seen: list[object] = []
    model[0].register_forward_hook(lambda *_: seen.append(1))
    check = unchanged(model)
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    refusal("invalid-option", model, 0)
    assert find_heads(model).names == ("5",)
    check()
    assert seen == []
    assert torch.equal(torch.get_rng_state(), states[0])
    assert (random.getstate(), np.random.get_state()[1].tolist()) == states[1:]


def test_code_that_looks_at_values_is_run_on_borrowed_weights(unchanged):
    class Looks(nn.Module):
        def forward(self, value):
            return value * 2 if value.sum().item() > 0 else value

    model = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), Looks(), nn.Linear(8, 5))
    assert ls.replace_head(model, 10) == "3"
    check = unchanged(model)
    ls.replace_head(model, 10).undo()
    check()


def test_without_a_forward_pass_the_model_says_how_many_classes_it_has():
    class Blind(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.num_classes = 5
            self.a, self.b = nn.Linear(3, 4), nn.Linear(4, 5)

    edit = ls.replace_head(Blind(), 10)
    assert edit == "b"
    assert "module graph" in str(edit)


def test_a_given_example_is_what_the_pass_is_made_with():
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(3, 4), nn.Linear(7, 5)

        def forward(self, left, right):
            return self.b(torch.cat([self.a(left), right], 1))

    assert "forward-failed" in refusal("forward-failed", Two())
    assert ls.replace_head(Two(), 10, example_input=(torch.rand(1, 3), torch.rand(1, 3))) == "b"
    assert ls.replace_head(Two(), 10, example_input={"left": torch.rand(1, 3), "right": torch.rand(1, 3)}) == "b"


def test_undo_puts_the_very_same_layer_back(unchanged):
    model = resnet18()
    check = unchanged(model.fc)
    old = model.fc
    edit = ls.replace_head(model, 10)
    edit.undo()
    assert model.fc is old
    check()
    with pytest.raises(ls.SurgeryError, match="stale-edit"):
        edit.undo()


def test_the_edit_is_the_name_and_prints_before_and_after():
    edit = ls.replace_head(resnet18(), 10)
    assert (edit, edit.name, edit.names, f"{edit}.weight") == ("fc", "fc", ("fc",), "fc.weight")
    assert edit.changes[0].before == (1000, 512)
    assert edit.changes[0].after == (10, 512)
    assert "1000 × 512 → 10 × 512" in str(edit)


def test_what_is_edited_loads_the_old_file_with_the_name_as_fresh():
    old = resnet18()
    model = resnet18()
    head = ls.replace_head(model, 10)
    plan = ls.load(model, old.state_dict(), fresh=[head], drop=[head])
    assert plan.ok
    assert torch.equal(model.conv1.weight, old.conv1.weight)


# --- bad input --------------------------------------------------------------------------------------------------------


def tied() -> nn.Module:
    model = nn.Sequential(nn.Embedding(50, 8), nn.Linear(8, 50, bias=False))
    model[1].weight = model[0].weight
    return model


def fixed_size() -> nn.Module:
    return Net(lambda net, x: net.a(x).reshape(-1, 5), a=nn.Linear(8, 5))


def scripted() -> nn.Module:
    return torch.jit.script(nn.Sequential(nn.Linear(3, 4)))


def quantised() -> nn.Module:
    return torch.ao.quantization.quantize_dynamic(nn.Sequential(nn.Linear(3, 4)))


BAD = {
    "nothing with weights": ("head-not-found", nn.ReLU),
    "a norm after the last layer": ("head-not-found", lambda: nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))),
    "features without a head": ("head-not-found", lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten())),
    "two heads": (
        "several-candidates",
        lambda: Net(lambda net, x: (net.a(x), net.b(x)), a=nn.Linear(8, 5), b=nn.Linear(8, 5)),
    ),
    "a lazy module": ("uninitialised-parameter", lambda: nn.Sequential(nn.Linear(3, 4), nn.LazyLinear(5))),
    "a compiled model": ("not-editable", lambda: torch.compile(nn.Sequential(nn.Linear(3, 4)))),
    "tied weights": ("not-editable", tied),
    "a weight of its own": (
        "not-editable",
        lambda: Net(lambda net, x: x @ net.a.weight.t() * 1, a=nn.Embedding(5, 8)),
    ),
    "a size that is fixed in the code": ("edit-breaks-model", fixed_size),
}


@pytest.mark.parametrize(("code", "make"), BAD.values(), ids=BAD)
def test_a_model_that_cannot_be_given_a_head_is_left_as_it_was(code, make, request, unchanged):
    model = make()
    check = unchanged(model) if code != "uninitialised-parameter" else lambda: None
    refusal(code, model)
    check()


@pytest.mark.filterwarnings("ignore:.*deprecated:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:.*deprecated:UserWarning")
@pytest.mark.filterwarnings("ignore:.*deprecated:FutureWarning")
@pytest.mark.parametrize("make", [scripted, quantised])
def test_code_and_packed_memory_are_refused(make):
    refusal("not-editable", make())


def test_two_heads_are_named_with_a_line_for_each():
    said = refusal("several-candidates", BAD["two heads"][1]())
    assert "`a` and `b`" in said
    assert 'ls.replace(model, "b", nn.Linear(8, num_classes))' in said


@pytest.mark.parametrize("classes", [0, -3, True, 2.0, "10", None])
def test_a_number_of_classes_is_a_positive_int(classes, unchanged):
    model = one()
    check = unchanged(model)
    refusal("invalid-option", model, classes)
    check()


@pytest.mark.parametrize("example", [torch.rand(1, 5, 8, 8), torch.rand(3)])
def test_an_example_that_does_not_run_is_quoted(example):
    assert "Error" in refusal("forward-failed", one(), example_input=example)


@pytest.mark.parametrize("example", ["image.png", [], {"image": 3}])
def test_an_example_holds_a_tensor(example):
    refusal("invalid-option", one(), example_input=example)


@pytest.mark.parametrize("classes", [2, 3, 4])
def test_as_many_classes_as_images_in_the_batch_are_told_apart(classes):
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 5), nn.ReLU(), nn.Linear(5, classes))
    example = torch.zeros(classes, 3, 2, 2)
    assert ls.replace_head(model, 7, example_input=example).names == ("3",)
    assert model(example).shape == (classes, 7)
