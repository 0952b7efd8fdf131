"""What is frozen does not move, and unfreezing gives back what freezing took."""

from __future__ import annotations

import copy
import io

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations
from torchvision import models

import loadstone as ls

INPUT = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)
        self.conv2, self.bn2 = nn.Conv2d(4, 4, 3), nn.InstanceNorm2d(4, affine=True, track_running_stats=True)
        self.drop = nn.Dropout(0.5)
        self.fc = nn.Linear(4, 2)

    def forward(self, x):
        x = self.bn2(self.conv2(self.bn1(self.conv1(x)).relu())).relu()
        return self.fc(self.drop(x.mean((2, 3))))


@pytest.fixture
def model():
    torch.manual_seed(0)
    return Net()


def values(model):
    return {key: tensor.clone() for key, tensor in model.state_dict().items()}


def changed(model, before):
    return {key for key, tensor in model.state_dict().items() if not torch.equal(tensor, before[key])}


def gradients(model):
    return {name: parameter.requires_grad for name, parameter in model.named_parameters()}


def train(model, optimizer, steps=3):
    model.train()
    for _ in range(steps):
        optimizer.zero_grad()
        model(INPUT).square().sum().backward()
        optimizer.step()


def step_made(model):
    """A step in training mode, taken before freezing: every parameter has a gradient, every norm has seen data."""
    train(model, torch.optim.SGD(model.parameters(), lr=0.1), steps=1)


@pytest.mark.parametrize(
    "optimizer",
    [
        lambda parameters: torch.optim.SGD(parameters, lr=0.1, momentum=0.9, weight_decay=0.1),
        lambda parameters: torch.optim.AdamW(parameters, lr=0.1, weight_decay=0.1),
    ],
    ids=["sgd", "adamw"],
)
def test_only_the_exception_moves_though_the_optimizer_has_all_and_has_momentum(model, optimizer):
    stepping = optimizer(model.parameters())
    train(model, stepping, steps=1)
    ls.freeze(model, except_=["fc"])
    before = values(model)
    train(model, stepping)
    assert changed(model, before) == {"fc.weight", "fc.bias"}


def test_without_freezing_all_of_it_would_have_moved(model):
    before = values(model)
    train(model, torch.optim.SGD(model.parameters(), lr=0.1))
    assert changed(model, before) >= {"bn1.running_mean", "bn1.num_batches_tracked", "bn2.running_var", "conv1.weight"}


def test_the_parameters_left_are_returned_in_the_order_of_the_model(model):
    left = ls.freeze(model, except_=["fc", "conv2.bias"])
    assert [id(parameter) for parameter in left] == [id(model.conv2.bias), id(model.fc.weight), id(model.fc.bias)]


def test_gradients_of_frozen_parameters_are_dropped(model):
    step_made(model)
    ls.freeze(model, except_=["fc"])
    assert model.conv1.weight.grad is None
    assert model.fc.weight.grad is not None


def test_a_stale_gradient_of_a_parameter_that_was_fixed_already_is_dropped(model):
    step_made(model)
    model.conv1.weight.requires_grad_(False)
    ls.freeze(model, except_=["fc"])
    assert model.conv1.weight.grad is None


def test_a_norm_of_which_one_parameter_trains_updates_its_statistics(model):
    ls.freeze(model, except_=["bn1.weight"])
    before = values(model)
    train(model, torch.optim.SGD(model.parameters(), lr=0.1), steps=1)
    assert changed(model, before) == {
        "bn1.weight", "bn1.running_mean", "bn1.running_var", "bn1.num_batches_tracked",
    }  # fmt: skip


def test_dropout_in_the_frozen_part_follows_the_mode_of_the_model(model):
    ls.freeze(model, except_=["fc"])
    model.train()
    assert (model.training, model.drop.training, model.bn1.training) == (True, True, False)
    model.eval()
    assert not model.drop.training


def test_a_norm_without_parameters_is_held_unless_named():
    model = nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3, affine=False), nn.BatchNorm2d(3, affine=False))
    ls.freeze(model, except_=["0", "2"])
    model.train()(INPUT)
    assert model[1].num_batches_tracked == 0
    assert model[2].num_batches_tracked == 1


@pytest.mark.parametrize("norm", [parametrizations.spectral_norm, nn.utils.spectral_norm], ids=["parametrized", "hook"])
def test_the_vectors_of_a_spectral_norm_stay_put(norm):
    torch.manual_seed(0)
    model = nn.Sequential(norm(nn.Conv2d(3, 4, 3)), nn.Flatten(), nn.Linear(144, 2))
    ls.freeze(model, except_=["2"])
    before = values(model)
    train(model, torch.optim.SGD(model.parameters(), lr=0.01))
    assert changed(model, before) == {"2.weight", "2.bias"}


def test_freezing_a_part_holds_when_the_whole_is_trained(model):
    whole = nn.Sequential(model, nn.Linear(2, 2))
    assert ls.freeze(model) == []
    before = values(whole)
    train(whole, torch.optim.SGD(whole.parameters(), lr=0.1, weight_decay=0.1))
    assert changed(whole, before) == {"1.weight", "1.bias"}


# --- what else people do with a model -----------------------------------------------------------------------------


def pickled(model):
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


@pytest.mark.parametrize("copied", [pickled, copy.deepcopy], ids=["pickle", "deepcopy"])
def test_a_copy_is_frozen_by_itself(model, copied):
    ls.freeze(model, except_=["fc"])
    twin = copied(model)
    assert gradients(twin) == gradients(model)
    ls.unfreeze(model)
    before = values(twin)
    train(twin, torch.optim.SGD(twin.parameters(), lr=0.1))
    assert changed(twin, before) == {"fc.weight", "fc.bias"}
    ls.unfreeze(twin)
    assert all(gradients(twin).values())
    assert twin.bn1.training


def test_the_keys_of_the_state_dict_and_the_classes_are_what_they_were(model):
    keys, classes = list(model.state_dict()), [type(module) for module in model.modules()]
    ls.freeze(model, except_=["fc"])
    assert (list(model.state_dict()), [type(module) for module in model.modules()]) == (keys, classes)


def test_a_compiled_model_stays_frozen(model):
    ls.freeze(model, except_=["fc"])
    model.drop.p = 0.0
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    before = values(model)
    train(compiled, torch.optim.SGD(compiled.parameters(), lr=0.1))
    assert changed(model, before) == {"fc.weight", "fc.bias"}


def test_names_are_found_behind_the_prefix_of_a_wrapper(model):
    wrapped = nn.DataParallel(model)
    ls.freeze(wrapped, except_=["fc"])
    before = values(model)
    train(wrapped, torch.optim.SGD(wrapped.parameters(), lr=0.1))
    assert changed(model, before) == {"fc.weight", "fc.bias"}


def test_a_frozen_model_can_be_exported_and_gives_the_same(model):
    ls.freeze(model, except_=["fc"])
    model.eval()
    exported = torch.export.export(model, (INPUT,)).module()
    torch.testing.assert_close(exported(INPUT), model(INPUT))


def test_loading_into_a_frozen_model_leaves_it_frozen(model):
    ls.freeze(model, except_=["fc"])
    ls.load(model, Net().state_dict())
    before = values(model)
    train(model, torch.optim.SGD(model.parameters(), lr=0.1))
    assert changed(model, before) == {"fc.weight", "fc.bias"}


# --- tied parameters ----------------------------------------------------------------------------------------------


def tied():
    model = nn.ModuleDict({"embed": nn.Embedding(5, 3), "body": nn.Linear(3, 3), "head": nn.Linear(3, 5, bias=False)})
    model["head"].weight = model["embed"].weight
    return model


def test_a_tied_parameter_is_returned_once_and_trains_if_one_of_its_names_does():
    model = tied()
    left = ls.freeze(model, except_=["embed", "head"])
    assert [id(each) for each in left] == [id(model["embed"].weight)]
    assert [id(each) for each in ls.freeze(model, except_="head")] == [id(model["embed"].weight)]


def test_parameters_that_are_views_of_one_memory_stay_together():
    model = tied()
    model["head"].weight = nn.Parameter(model["embed"].weight.data)
    ls.freeze(model, except_=["head"])
    assert model["embed"].weight.requires_grad


# --- unfreezing ---------------------------------------------------------------------------------------------------


def test_unfreeze_gives_back_exactly_what_was_taken(model):
    model.conv2.bias.requires_grad_(False)
    model.bn2.eval()
    before, modes = gradients(model), [module.training for module in model.modules()]
    ls.freeze(model, except_=["fc"])
    freed = ls.unfreeze(model)
    assert (gradients(model), [module.training for module in model.modules()]) == (before, modes)
    assert len(freed) == sum(before.values()) - 2
    assert all("train" not in vars(module) for module in model.modules())


def test_unfreeze_puts_a_norm_in_the_mode_that_was_asked_for_meanwhile(model):
    ls.freeze(model, except_=["fc"])
    model.eval()
    ls.unfreeze(model)
    assert not model.bn1.training


def test_a_part_is_unfrozen_with_its_statistics(model):
    ls.freeze(model, except_=["fc"])
    freed = ls.unfreeze(model, ["bn2"])
    assert [id(each) for each in freed] == [id(model.bn2.weight), id(model.bn2.bias)]
    before = values(model)
    train(model, torch.optim.SGD(model.parameters(), lr=0.1))
    assert changed(model, before) == {
        "fc.weight", "fc.bias", "bn2.weight", "bn2.bias", "bn2.running_mean", "bn2.running_var",
        "bn2.num_batches_tracked",
    } & changed(model, before)  # fmt: skip
    assert {"bn2.weight", "bn2.running_mean"} <= changed(model, before)


def test_freezing_again_begins_with_the_model_as_it_was(model):
    ls.freeze(model, except_=["fc"])
    left = ls.freeze(model, except_=["bn2"])
    assert [id(each) for each in left] == [id(model.bn2.weight), id(model.bn2.bias)]
    assert not model.fc.weight.requires_grad
    assert model.bn2.training
    ls.unfreeze(model)
    assert all(gradients(model).values())


def test_unfreeze_next_goes_from_the_head_to_the_input(model):
    ls.freeze(model, except_=["fc"])
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    steps = []
    while freed := ls.unfreeze_next(model):
        steps.append([names[id(each)] for each in freed])
    assert steps == [
        ["conv2.weight", "conv2.bias", "bn2.weight", "bn2.bias"],
        ["conv1.weight", "conv1.bias", "bn1.weight", "bn1.bias"],
    ]
    assert model.bn1.training


# --- mistakes -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("except_", "code", "said"),
    [
        (["fcc"], "freeze-matches-nothing", "fc"),
        (["fc", "con1.weight"], "freeze-matches-nothing", "conv1.weight"),
        ([], "nothing-to-train", "empty"),
        (["bn1.running_mean"], "nothing-to-train", "bn1.running_mean"),
        ([3], "invalid-option", "3"),
        (nn.Linear(1, 1), "invalid-option", "accepted"),
    ],
)
def test_a_mistake_is_named_and_leaves_the_model_as_it_was(model, except_, code, said):
    step_made(model)
    before = values(model)
    with pytest.raises(ls.RecipeError, match=said) as error:
        ls.freeze(model, except_=except_)
    assert error.value.code == code
    assert all(gradients(model).values())
    assert model.conv1.weight.grad is not None
    assert model.bn1.training
    assert changed(model, before) == set()


def test_an_exception_that_needed_no_gradient_before_is_an_error(model):
    model.requires_grad_(False)
    with pytest.raises(ls.RecipeError, match="needed no gradient before"):
        ls.freeze(model, except_=["fc"])
    with pytest.raises(ls.RecipeError, match="needed no gradient before"):
        ls.unfreeze(model, ["fc"])


def test_a_lazy_module_is_refused():
    model = nn.Sequential(nn.Linear(2, 2), nn.LazyLinear(2))
    with pytest.raises(ls.MatchError, match="uninitialised-parameter"):
        ls.freeze(model, except_=["1"])
    assert model[0].weight.requires_grad


def test_what_replace_head_returns_can_be_given():
    model = models.mobilenet_v2()
    head = ls.replace_head(model, num_classes=2)
    assert [id(each) for each in ls.freeze(model, except_=head)] == [id(each) for each in model.classifier.parameters()]
    assert len(ls.freeze(model, except_=[head, "features.0.1"])) == 4


def test_all_names_of_an_edit_count(model):
    class Edit(str):
        names = ("fc", "bn1")

    assert len(ls.freeze(model, except_=Edit("fc"))) == 4


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")
def test_a_scripted_part_is_refused(model):
    whole = nn.Sequential(torch.jit.script(nn.BatchNorm2d(3)), model)
    with pytest.raises(ls.FormatError, match="`0` is scripted"):
        ls.freeze(whole, except_=["1.fc"])
    assert all(gradients(model).values())
