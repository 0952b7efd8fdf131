"""Two models are the same function, or the first place where they part is named."""

from __future__ import annotations

import copy
from collections import OrderedDict

import pytest
import torch
from torch import nn

import loadstone as ls

EXAMPLE = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))


class Ours(nn.Module):
    """A stem, a norm, an activation, a head."""

    def __init__(self, eps: float = 1e-5, padding: int = 1, activation: nn.Module | None = None) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=padding)
        self.norm = nn.BatchNorm2d(8, eps=eps)
        self.activation = activation or nn.ReLU()
        self.head = nn.Linear(8, 5)

    def forward(self, x):
        return self.head(self.activation(self.norm(self.conv(x))).mean((2, 3)))


def theirs() -> nn.Module:
    """The same function under other names, in another order of registration."""
    torch.manual_seed(0)

    class Pool(nn.Module):
        def forward(self, x):
            return x.mean((2, 3))

    model = nn.Sequential(
        OrderedDict(
            stem=nn.Conv2d(3, 8, 3, padding=1), bn=nn.BatchNorm2d(8), act=nn.ReLU(), pool=Pool(), fc=nn.Linear(8, 5)
        )
    )
    nn.init.uniform_(model.bn.running_var, 0.01, 0.1)
    return model


RENAME = {r"^stem\.": "conv.", r"^bn\.": "norm.", r"^fc\.": "head."}


def test_another_implementation_is_the_same_function():
    reference, model = theirs(), Ours()
    plan = ls.load(model, reference.state_dict(), rename=RENAME)
    result = plan.check(EXAMPLE, reference=reference)
    assert result.max_relative < 1e-12
    assert result.values == 10


@pytest.mark.parametrize(
    ("model", "module", "evidence"),
    [
        (Ours(eps=0.1), "norm", "eps"),
        (Ours(padding=0), "conv", "padding"),
    ],
    ids=["eps", "padding"],
)
def test_a_setting_that_differs_is_told_from_a_wrong_mapping(model, module, evidence):
    reference = theirs()
    plan = ls.load(model, reference.state_dict(), rename=RENAME)
    with pytest.raises(ls.MatchError, match=rf"function-differs.*at `{module}`, which is set otherwise") as caught:
        plan.check(EXAMPLE, reference=reference)
    assert evidence in dict(caught.value.diagnostics[0].evidence)


def test_an_operation_without_weights_lies_between_modules():
    reference, model = theirs(), Ours(activation=nn.Sigmoid())
    plan = ls.load(model, reference.state_dict(), rename=RENAME)
    with pytest.raises(ls.MatchError, match="after `norm`: what reaches `head` is already another input"):
        plan.check(EXAMPLE, reference=reference)


def test_a_wrong_mapping_is_found_at_its_module():
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x):
            return self.b(torch.tanh(self.a(x)))

    torch.manual_seed(0)
    reference, model = Two(), Two()
    plan = ls.load(model, reference.state_dict(), rename={r"^a\.": "x.", r"^b\.": "a.", r"^x\.": "b."})
    with pytest.raises(ls.MatchError, match="function-differs"):
        plan.check(torch.randn(3, 4), reference=reference)


def test_a_pair_of_input_and_output_is_enough():
    reference, model = theirs().eval(), Ours()
    plan = ls.load(model, reference.state_dict(), rename=RENAME)
    with torch.no_grad():
        assert plan.check(EXAMPLE, outputs=reference(EXAMPLE)).max_relative < 1e-5
        model.conv.bias += 1
        with pytest.raises(ls.MatchError, match="function-differs"):
            plan.check(EXAMPLE, outputs=reference(EXAMPLE))


def test_both_models_are_left_alone():
    reference, model = theirs(), Ours()
    plan = ls.load(model, reference.state_dict(), rename=RENAME)
    before = copy.deepcopy([model.state_dict(), reference.state_dict()])
    state = torch.get_rng_state()
    plan.check(EXAMPLE, reference=reference)
    assert torch.equal(torch.get_rng_state(), state)
    for old, new in zip(before, [model.state_dict(), reference.state_dict()], strict=True):
        assert all(torch.equal(old[key], new[key]) for key in old)
    assert model.training
    assert not model._forward_hooks


def test_half_a_question_is_refused():
    plan = ls.load(Ours(), theirs().state_dict(), rename=RENAME)
    with pytest.raises(ls.RecipeError, match="`reference` or `outputs`"):
        plan.check(EXAMPLE)
    with pytest.raises(ls.MatchError, match="RuntimeError for this input"):
        plan.check(torch.randn(1), reference=theirs())
    with pytest.raises(ls.MatchError, match="no-probe"):
        plan.check()
