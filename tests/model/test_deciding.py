"""Open questions are answered by running the model, and only where it then computes what it should."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

import loadstone as ls


def randomised(model: nn.Module, seed: int = 0) -> nn.Module:
    """Every number another one: nothing is equal by its initial value."""
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in model.state_dict().items():
        tensor.copy_(torch.randn(tensor.shape, generator=generator) * 0.4 + 0.1)
        if name.endswith("var"):
            tensor.abs_().add_(0.5)
    return model.eval()


class Block(nn.Module):
    """A block whose two norms have the same shape."""

    def __init__(self, names: tuple[str, str, str]) -> None:
        super().__init__()
        self.names = names
        for name in names[:2]:
            self.add_module(name, nn.LayerNorm(8))
        self.add_module(names[2], nn.Linear(8, 8))

    def forward(self, x):
        first, second, mix = (getattr(self, name) for name in self.names)
        return x + second(mix(first(x)).tanh())


class Blocks(nn.Module):
    def __init__(self, names: tuple[str, str, str], depth: int = 3) -> None:
        super().__init__()
        self.stem, self.blocks = nn.Linear(5, 8), nn.ModuleList(Block(names) for _ in range(depth))
        self.head = nn.Linear(8, 7)

    def forward(self, x):
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        return self.head(x)


OURS, THEIRS = ("left", "right", "mix"), ("foo", "bar", "mix")
EXAMPLE = torch.randn(2, 5, generator=torch.Generator().manual_seed(1))


def blocks() -> tuple[nn.Module, nn.Module, ls.Plan]:
    model, reference = Blocks(OURS), randomised(Blocks(THEIRS))
    plan = ls.plan(model, copy.deepcopy(reference.state_dict()), match="structure")
    assert plan.questions
    return model, reference, plan


@pytest.mark.parametrize("is_pair", [False, True], ids=["reference", "outputs"])
def test_questions_are_answered_and_the_plan_is_new(is_pair):
    model, reference, plan = blocks()
    before = copy.deepcopy(model.state_dict())
    given = {"outputs": reference.double()(EXAMPLE.double())} if is_pair else {"reference": reference}
    decided = plan.decide(EXAMPLE, **given)
    assert decided.ok
    assert not decided.questions
    assert not plan.ok
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    answers = decided.recipe_options["answers"]
    assert all(("left" in target) == ("foo" in source) for target, source in answers.items())
    decided.apply()
    assert decided.check(EXAMPLE, reference=reference).max_relative < 1e-6


def test_the_answers_are_in_the_recipe(tmp_path):
    model, reference, plan = blocks()
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(plan.decide(EXAMPLE, reference=reference).recipe())
    assert ls.load(model, reference.state_dict(), recipe=recipe).ok


def test_where_no_answer_is_right_it_says_how_far_it_came():
    _, reference, plan = blocks()
    reference.blocks[2].mix.bias.data += 1
    with pytest.raises(ls.MatchError, match="undecided") as caught:
        plan.decide(EXAMPLE, reference=reference)
    (finding,) = caught.value.diagnostics
    assert "of 32 forward passes" in finding.message
    evidence = dict(finding.evidence)
    assert "foo" in evidence["nearest"]
    assert "at `blocks.2.mix`" in evidence["there"]
    with pytest.raises(ls.MatchError, match="forwards=4"):
        plan.decide(EXAMPLE, reference=reference, forwards=1)


def test_a_reference_that_holds_other_weights_is_named_first():
    _, _, plan = blocks()
    with pytest.raises(ls.MatchError, match="undecided") as caught:
        plan.decide(EXAMPLE, reference=Blocks(THEIRS))
    label, said = caught.value.diagnostics[0].evidence[0]
    assert label == "weights"
    assert "in the reference is not what" in said


class UNet(nn.Module):
    """The halves of a joined input come in this order, or in the other."""

    def __init__(self, *, skip_first: bool) -> None:
        super().__init__()
        self.skip_first = skip_first
        self.down, self.up, self.bn = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 4, 3, padding=1), nn.BatchNorm2d(12)
        self.out = nn.Conv2d(12, 2, 1)

    def forward(self, x):
        skip = self.down(x).relu()
        up = self.up(skip).relu()
        return self.out(self.bn(torch.cat((skip, up) if self.skip_first else (up, skip), 1)).relu())


def test_channels_in_another_order_are_found_through_a_norm_and_become_rules():
    example = torch.randn(2, 3, 9, 9)
    model, reference = UNet(skip_first=True), randomised(UNet(skip_first=False))
    plan = ls.plan(model, reference.state_dict())
    assert plan.ok
    decided = plan.decide(example, reference=reference)
    assert decided.rules["out.weight"] == "out.weight | blocks(1; 1, 2, 0)"
    for name in ("weight", "bias", "running_mean", "running_var"):
        assert decided.rules[f"bn.{name}"] == f"bn.{name} | blocks(0; 1, 2, 0)"
    decided.apply()
    assert decided.check(example, reference=reference).max_relative < 1e-6


class Flat(nn.Module):
    """Features are flattened channels first, or channels last."""

    def __init__(self, *, channels_last: bool) -> None:
        super().__init__()
        self.conv, self.fc, self.channels_last = nn.Conv2d(3, 4, 3), nn.Linear(4 * 6 * 5, 7), channels_last

    def forward(self, x):
        x = self.conv(x).relu()
        return self.fc((x.permute(0, 2, 3, 1) if self.channels_last else x).flatten(1))


@pytest.mark.parametrize("channels_last", [False, True])
def test_what_was_flattened_in_another_order_is_regrouped(channels_last):
    example = torch.randn(2, 3, 8, 7)
    model, reference = Flat(channels_last=channels_last), randomised(Flat(channels_last=not channels_last))
    decided = ls.plan(model, reference.state_dict()).decide(example, reference=reference)
    step = "regroup(1; 4, 30; 1, 0)" if channels_last else "regroup(1; 30, 4; 1, 0)"
    assert decided.rules["fc.weight"] == f"fc.weight | {step}"


def test_channels_in_an_order_that_nobody_would_write_are_no_answer():
    class Shuffled(Flat):
        def forward(self, x):
            order = torch.randperm(120, generator=torch.Generator().manual_seed(3))
            return self.fc(self.conv(x).relu().flatten(1)[:, order])

    reference = randomised(Shuffled(channels_last=False))
    plan = ls.plan(Flat(channels_last=False), reference.state_dict())
    with pytest.raises(ls.MatchError, match="what reaches `fc` is already another input"):
        plan.decide(torch.randn(2, 3, 8, 7), reference=reference)


class Rotary(nn.Module):
    """Attention that turns halves of a head by position, or neighbours."""

    def __init__(self, names: tuple[str, ...], *, halves: bool) -> None:
        super().__init__()
        self.embed, self.head = nn.Embedding(20, 16), nn.Linear(16, 20)
        self.layers = nn.ModuleList(nn.ModuleDict({name: nn.Linear(16, 16) for name in names}) for _ in range(2))
        self.halves, self.num_heads = halves, 2

    def turned(self, x):
        angle = torch.arange(x.shape[1], dtype=x.dtype)[:, None] * torch.tensor([1.0, 0.1, 0.01, 0.001], dtype=x.dtype)
        x = x.unflatten(-1, (2, 2, 4) if self.halves else (2, 4, 2))
        one, other = x.unbind(-2 if self.halves else -1)
        cos, sin = angle.cos()[:, None], angle.sin()[:, None]
        both = (one * cos - other * sin, one * sin + other * cos)
        return torch.stack(both, -2 if self.halves else -1).flatten(-2)

    def forward(self, words):
        x = self.embed(words)
        for layer in self.layers:
            q, k, v, out = layer.values()
            q, k = self.turned(q(x)), self.turned(k(x))
            v = v(x).unflatten(-1, (2, 8))
            made = nn.functional.scaled_dot_product_attention(*(each.transpose(1, 2) for each in (q, k, v)))
            x = x + out(made.transpose(1, 2).flatten(2))
        return self.head(x)


def test_halves_and_neighbours_of_rotary_positions_are_brought_together():
    words = torch.randint(0, 20, (2, 6), generator=torch.Generator().manual_seed(2))
    model = Rotary(("q_proj", "k_proj", "v_proj", "o_proj"), halves=True)
    reference = randomised(Rotary(("wq", "wk", "wv", "wo"), halves=False))
    plan = ls.plan(model, reference.state_dict(), match="structure")
    assert "rotary" in {question.kind for question in plan.questions}
    decided = plan.decide(words, reference=reference)
    rules = " ".join(decided.rules.values())
    assert "wq.* | regroup(0; -1, 4, 2; 0, 2, 1)" in rules
    assert "wv.* |" not in rules


@pytest.mark.parametrize(
    "given", [{}, {"reference": nn.ReLU(), "outputs": EXAMPLE}, {"reference": 3}, {"outputs": EXAMPLE, "forwards": 0}]
)
def test_half_a_question_is_refused(given):
    with pytest.raises(ls.RecipeError):
        blocks()[2].decide(EXAMPLE, **given)


def called(module):
    return lambda x: module(x)


class Bound(Blocks):
    """It runs its modules through functions that hold them, which a deep copy does not follow."""

    def __init__(self) -> None:
        super().__init__(OURS)
        self.at = {name: called(module) for name, module in self.named_children()}

    def forward(self, x):
        x = self.at["stem"](x)
        for block in self.blocks:
            x = block(x)
        return self.at["head"](x)


def test_a_model_that_holds_its_modules_in_functions_is_copied_with_them():
    reference = randomised(Blocks(THEIRS))
    plan = ls.plan(Bound(), copy.deepcopy(reference.state_dict()), match="structure")
    decided = plan.decide(EXAMPLE, reference=reference)
    assert all(("left" in target) == ("foo" in source) for target, source in decided.recipe_options["answers"].items())


def test_an_answer_that_the_output_does_not_depend_on_is_not_believed():
    class Idle(nn.Module):
        def __init__(self, names: tuple[str, str]) -> None:
            super().__init__()
            self.stem, self.head = nn.Linear(5, 8), nn.Linear(8, 7)
            for name in names:
                self.add_module(name, nn.Linear(8, 8))

        def forward(self, x):
            return self.head(self.stem(x))

    reference = randomised(Idle(("foo", "bar")))
    plan = ls.plan(Idle(("left", "right")), reference.state_dict(), match="structure")
    with pytest.raises(ls.MatchError, match=r"undecided.*does not depend on `left\.weight`"):
        plan.decide(EXAMPLE, reference=reference)


class Chain(nn.Module):
    """Six layers of one shape behind each other, run in an order that their names do not tell; one tensor is idle."""

    def __init__(self, names: str, spare: str = "") -> None:
        super().__init__()
        self.names = names
        for name in sorted(names):
            self.add_module(name, nn.Linear(6, 6))
        if spare:
            self.register_parameter(spare, nn.Parameter(torch.zeros(3)))

    def forward(self, x):
        for name in self.names:
            x = getattr(self, name)(x).tanh() + x.mean(-1, keepdim=True)
        return x


def chains(**spare: str) -> tuple[nn.Module, nn.Module, ls.Plan]:
    model, reference = Chain("uvwxyz", spare.get("ours", "")), randomised(Chain("dafbec", spare.get("theirs", "")))
    plan = ls.plan(model, copy.deepcopy(reference.state_dict()), match="structure")
    assert plan.questions
    return model, reference, plan


def test_one_look_at_both_models_answers_all_questions():
    model, reference, plan = chains()
    assert round(10**plan.admissible) == 720
    decided = plan.decide(torch.randn(3, 6), reference=reference, forwards=1)
    decided.apply()
    for mine, other in zip("uvwxyz", "dafbec", strict=True):
        assert torch.equal(getattr(model, mine).weight, getattr(reference, other).weight)


@pytest.mark.parametrize("side", ["ours", "theirs"])
def test_a_tensor_without_partner_keeps_nothing_from_being_decided(side):
    model, reference, plan = chains(**{side: "spare"})
    decided = plan.decide(torch.randn(3, 6), reference=reference)
    assert not decided.questions
    assert (decided.missing_keys, decided.unexpected_keys) == (["spare"], []) if side == "ours" else ([], ["spare"])
    said = {"fresh": "spare"} if side == "ours" else {"drop": "spare"}
    ls.load(model, reference.state_dict(), match="structure", answers=decided.recipe_options["answers"], **said)
    assert decided.check(torch.randn(3, 6), reference=reference).max_relative < 1e-6


def test_where_nothing_is_right_it_says_what_the_model_has_no_values_for():
    _, reference, plan = chains(ours="spare")
    reference.a.bias.data += 1
    with pytest.raises(ls.MatchError, match=r"(?s)undecided.*missing-key.*no source for `spare`"):
        plan.decide(torch.randn(3, 6), reference=reference)


class Headed(Chain):
    """The chain under a head."""

    def __init__(self, names: str, classes: int) -> None:
        super().__init__(names)
        self.norm, self.head = nn.LayerNorm(6), nn.Linear(6, classes)

    def forward(self, x):
        return self.head(self.norm(super().forward(x)))


def test_a_backbone_under_another_head_is_decided_by_what_reaches_its_modules():
    model, reference = Headed("uvwxyz", 3), randomised(Headed("dafbec", 4))
    plan = ls.plan(model, copy.deepcopy(reference.state_dict()), match="structure")
    decided = plan.decide(torch.randn(3, 6), reference=reference)
    assert not decided.questions
    assert decided.mismatched_keys == ["head.weight", "head.bias"]
    answers = decided.recipe_options["answers"]
    ls.load(model, reference.state_dict(), match="structure", answers=answers, fresh="head", drop="head")
    for mine, other in zip("uvwxyz", "dafbec", strict=True):
        assert torch.equal(getattr(model, mine).weight, getattr(reference, other).weight)


class Sides(nn.Module):
    """Two layers side by side, which nothing but the head tells apart."""

    def __init__(self, names: tuple[str, str], classes: int) -> None:
        super().__init__()
        self.names = names
        self.stem, self.norm, self.head = nn.Linear(6, 6), nn.LayerNorm(6), nn.Linear(6, classes)
        for name in names:
            self.add_module(name, nn.Linear(6, 6))

    def forward(self, x):
        x = self.norm(self.stem(x))
        one, other = (getattr(self, name)(x) for name in self.names)
        return self.head(one - other.tanh())


def test_an_answer_that_shows_in_nothing_but_another_head_is_not_believed():
    model, reference = Sides(("left", "right"), 3), randomised(Sides(("foo", "bar"), 4))
    plan = ls.plan(model, copy.deepcopy(reference.state_dict()), match="structure")
    assert plan.questions
    with pytest.raises(ls.MatchError, match=r"(?s)undecided.*shape-mismatch"):
        plan.decide(torch.randn(3, 6), reference=reference)


class Swapped(nn.Module):
    """Two layers under the same names, run in this order or in the other."""

    def __init__(self, order: str) -> None:
        super().__init__()
        self.order, self.a, self.b = order, nn.Linear(6, 6), nn.Linear(6, 6)

    def forward(self, x):
        for name in self.order:
            x = getattr(self, name)(x).tanh()
        return x


def test_a_settled_pair_that_the_reference_contradicts_is_put_right_unless_a_person_said_so():
    model, reference = Swapped("ab"), randomised(Swapped("ba"))
    example = torch.randn(3, 6)
    plan = ls.plan(model, copy.deepcopy(reference.state_dict()))
    with pytest.raises(ls.MatchError, match="function-differs"):
        plan.check(example, reference=reference)
    by_structure = ls.plan(model, copy.deepcopy(reference.state_dict()), match="structure")
    decided = by_structure.decide(example, reference=reference)
    decided.apply()
    assert torch.equal(model.a.weight, reference.b.weight)
    said = {"a.weight": "a.weight", "b.weight": "b.weight"}
    with pytest.raises(ls.MatchError, match="function-differs"):
        ls.plan(model, reference.state_dict(), match="structure", answers=said).decide(example, reference=reference)
