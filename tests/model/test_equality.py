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


def test_a_function_between_two_modules_is_named_with_what_stands_there():
    class Named(Ours):
        def __init__(self) -> None:
            super().__init__()
            self.pool = nn.Flatten()

        def forward(self, x):
            return self.head(self.pool(self.activation(self.norm(self.conv(x))).mean((2, 3), keepdim=True)))

    class Reference(Named):
        def __init__(self) -> None:
            super().__init__()
            self.activation = nn.GELU(approximate="tanh")

    torch.manual_seed(0)
    reference, model = Reference(), Named()
    model.activation = nn.GELU()
    plan = ls.load(model, reference.state_dict())
    with pytest.raises(ls.MatchError, match="at `activation`, which is set otherwise") as caught:
        plan.check(EXAMPLE, reference=reference)
    assert dict(caught.value.diagnostics[0].evidence)["approximate"] == "'none' in the model, 'tanh' in the reference"


class Block(nn.Module):
    """A block of a PoolFormer; the scale is the block's own, or that of a module of its own."""

    def __init__(self, *, has_scale_module: bool) -> None:
        super().__init__()
        self.norm, self.mlp = nn.GroupNorm(1, 8), nn.Conv2d(8, 8, 1)
        if has_scale_module:
            self.ls = nn.Module()
            self.ls.scale = nn.Parameter(torch.rand(8))
            self.ls.forward = lambda x: x * self.ls.scale.view(-1, 1, 1)
        else:
            self.layer_scale = nn.Parameter(torch.rand(8))

    def forward(self, x):
        y = self.mlp(self.norm(x))
        return x + (self.ls(y) if hasattr(self, "ls") else y * self.layer_scale.view(-1, 1, 1))


class Former(nn.Module):
    """Two blocks, and a norm before the pool or behind it."""

    def __init__(self, *, has_scale_module: bool, pools_first: bool) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3)
        self.blocks = nn.ModuleList(Block(has_scale_module=has_scale_module) for _ in range(2))
        self.norm, self.head = nn.LayerNorm(8), nn.Linear(8, 5)
        self.pools_first = pools_first

    def forward(self, x):
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        if self.pools_first:
            return self.head(self.norm(x.mean((2, 3))))
        return self.head(self.norm(x.permute(0, 2, 3, 1)).mean((1, 2)))


def test_a_norm_before_the_pool_is_told_from_one_behind_it_though_a_block_owns_its_scale():
    torch.manual_seed(0)
    reference = Former(has_scale_module=False, pools_first=False)
    for parameter in reference.parameters():
        nn.init.normal_(parameter)
    model = Former(has_scale_module=True, pools_first=True)
    plan = ls.load(model, reference.state_dict(), rename={r"layer_scale$": "ls.scale"})
    with pytest.raises(ls.MatchError) as caught:
        plan.check(EXAMPLE, reference=reference)
    (found,) = caught.value.diagnostics
    assert found.message.endswith("after `blocks.1.mlp`: what reaches `norm` is already another input")
    assert dict(found.evidence)["pools_first"] == "True in the model, False in the reference"


def test_a_stride_in_another_convolution_of_the_block_is_named():
    class Bottleneck(nn.Module):
        def __init__(self, strides: tuple[int, int]) -> None:
            super().__init__()
            self.conv1 = nn.Conv2d(3, 4, 1, stride=strides[0])
            self.conv2 = nn.Conv2d(4, 4, 3, stride=strides[1], padding=1)

        def forward(self, x):
            return self.conv2(self.conv1(x).relu())

    torch.manual_seed(0)
    reference, model = Bottleneck((2, 1)), Bottleneck((1, 2))
    plan = ls.load(model, reference.state_dict())
    with pytest.raises(ls.MatchError, match="at `conv1`, which is set otherwise") as caught:
        plan.check(EXAMPLE, reference=reference)
    assert dict(caught.value.diagnostics[0].evidence)["stride"] == "(1, 1) in the model, (2, 2) in the reference"


def test_a_joined_projection_is_no_pair_of_its_first_part():
    class Apart(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = nn.Linear(4, 4)
            self.query, self.key, self.value = (nn.Linear(4, 4) for _ in range(3))
            self.out = nn.Linear(4, 3)

        def forward(self, x):
            x = self.stem(x)
            return self.out(self.query(x) * self.key(x) + self.value(x))

    class Joined(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.qkv, self.out = nn.Linear(4, 4), nn.Linear(4, 12), nn.Linear(4, 3)

        def forward(self, x):
            q, k, v = self.qkv(self.stem(x)).chunk(3, -1)
            return self.out(q * k - v)

    torch.manual_seed(0)
    reference, model = Apart(), Joined()
    plan = ls.load(model, reference.state_dict(), match="structure", answers={"stem.weight": "stem.weight"})
    with pytest.raises(ls.MatchError, match="after `stem`: what reaches `out` is already another input"):
        plan.check(torch.randn(5, 4), reference=reference)
