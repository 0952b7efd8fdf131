"""Weights that are computed on the way: weight_norm taken out and put in, batch norms folded."""

from __future__ import annotations

import pytest

import loadstone as ls

torch = pytest.importorskip("torch")
nn = torch.nn
OLD, NEW = nn.utils.weight_norm, nn.utils.parametrizations.weight_norm


def randomised(model: nn.Module) -> nn.Module:
    generator = torch.Generator().manual_seed(0)
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point():
            tensor.copy_(torch.randn(tensor.shape, generator=generator) * 0.4 + 0.1)
            if name.endswith("var"):
                tensor.abs_().add_(0.5)
    return model.eval()


# weight_norm ---------------------------------------------------------------------------------------------------------


def none(layer: nn.Module) -> nn.Module:
    return layer


class Voice(nn.Module):
    """Convolutions with weight_norm of the old kind, of the new kind, or without."""

    def __init__(self, first: str, last: str, norm) -> None:
        super().__init__()
        self.first, self.last = first, last
        self.add_module(first, norm(nn.Conv1d(3, 6, 3)))
        self.add_module(last, norm(nn.Linear(6, 5)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return getattr(self, self.last)(getattr(self, self.first)(x).relu().mean(-1))


@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
@pytest.mark.parametrize("one", [OLD, NEW, none])
@pytest.mark.parametrize("other", [OLD, NEW, none])
def test_weight_norm_of_either_kind_and_none_fill_each_other(one, other) -> None:
    reference, model = randomised(Voice("conv_pre", "post", one)), Voice("entry", "out", other)
    plan = ls.load(model, reference.state_dict(), match="structure")
    example = torch.randn(2, 3, 9)
    torch.testing.assert_close(model.eval()(example), reference(example))
    computed = any(op.name == "compute" for action in plan.loaded for op in action.ops)
    assert computed is ((one is none) is not (other is none))


def test_computing_is_said_and_kept_as_a_rule(tmp_path) -> None:
    reference, model = randomised(Voice("conv_pre", "post", NEW)), Voice("entry", "out", none)
    plan = ls.load(model, reference.state_dict(), match="structure")
    assert plan.rules["entry.weight"] == (
        "scaled(conv_pre.parametrizations.weight.original1, conv_pre.parametrizations.weight.original0)"
    )
    line = next(action for action in plan.loaded if action.target == "entry.weight")
    assert line.ops[0].text == "computed, rows scaled to their lengths: 6 × 3 × 3, 6 × 1 × 1 → 6 × 3 × 3"
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(plan.recipe())
    again = Voice("entry", "out", none)
    ls.load(again, reference.state_dict(), recipe=recipe)
    assert torch.equal(again.entry.weight, model.entry.weight)


# spectral_norm -------------------------------------------------------------------------------------------------------

SPECTRAL = nn.utils.spectral_norm, nn.utils.parametrizations.spectral_norm


class Critic(nn.Module):
    """Convolutions of any shape with spectral_norm of either kind, or without."""

    def __init__(self, names: tuple[str, str, str], norm, middle=nn.Conv1d) -> None:
        super().__init__()
        self.names = names
        layers = nn.Conv1d(3, 6, 3), middle(6, 6, 3, padding=1), nn.ConvTranspose1d(6, 4, 3), nn.Linear(4, 5)
        for name, layer in zip((*names, "score"), layers, strict=True):
            self.add_module(name, norm(layer))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for name in self.names:
            x = getattr(self, name)(x).relu()
        return self.score(x.mean(-1))


OURS, THEIRS = ("entry", "mid", "rise"), ("layer1", "layer2", "layer3")


@pytest.mark.parametrize("other", [*SPECTRAL, none], ids=["old", "new", "none"])
@pytest.mark.parametrize("one", SPECTRAL, ids=["old", "new"])
def test_spectral_norm_of_either_kind_becomes_the_other_or_the_weight_that_was_used(one, other) -> None:
    reference, model = randomised(Critic(THEIRS, one).double()), Critic(OURS, other).double()
    plan = ls.load(model, reference.state_dict(), match="structure")
    example = torch.randn(2, 3, 9, dtype=torch.float64)
    torch.testing.assert_close(model.eval()(example), reference(example))
    if other is none:
        parts = ("_orig", "_u", "_v") if one is SPECTRAL[0] else (".original", ".0._u", ".0._v")
        before = "" if one is SPECTRAL[0] else "parametrizations."
        keys = ", ".join(f"layer1.{before}weight{part}" for part in parts)
        assert plan.rules["entry.weight"] == f"spectral({keys})"


def test_a_transposed_convolution_that_may_be_divided_either_way_is_not_filled() -> None:
    reference = randomised(Critic(THEIRS, SPECTRAL[1], nn.ConvTranspose1d))
    plan = ls.plan(Critic(OURS, none, nn.ConvTranspose1d), reference.state_dict(), match="structure", strict=False)
    assert "mid.weight" in plan.missing_keys


@pytest.mark.parametrize("norm", SPECTRAL, ids=["old", "new"])
def test_spectral_norm_that_only_the_model_has_is_named(norm) -> None:
    reference = randomised(Critic(THEIRS, none))
    with pytest.raises(ls.MatchError, match="fill the model before `spectral_norm` is applied to it"):
        ls.load(Critic(OURS, norm), reference.state_dict(), match="structure")


# batch norm ----------------------------------------------------------------------------------------------------------


class Normed(nn.Module):
    def __init__(self, eps: float = 1e-5, bias: bool = False) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 4, 3, bias=bias), nn.BatchNorm2d(4, eps), nn.ReLU())
        self.blocks = nn.ModuleList()
        for _ in range(2):
            block = nn.ModuleDict()
            for number, (size, width) in enumerate(((3, 4), (1, 4)), 1):
                block[f"conv{number}"] = nn.Conv2d(4, width, size, padding="same", bias=bias)
                block[f"bn{number}"] = nn.BatchNorm2d(width, eps)
            self.blocks.append(block)
        self.fc = nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        for block in self.blocks:
            x = x + block["bn2"](block["conv2"](block["bn1"](block["conv1"](x)).relu()))
        return self.fc(x.mean((2, 3)))


class Folded(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.entry = nn.Conv2d(3, 4, 3)
        self.layers = nn.ModuleList(
            nn.ModuleDict({"a": nn.Conv2d(4, 4, 3, padding="same"), "b": nn.Conv2d(4, 4, 1)}) for _ in range(2)
        )
        self.head = nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.entry(x).relu()
        for layer in self.layers:
            x = x + layer["b"](layer["a"](x).relu())
        return self.head(x.mean((2, 3)))


IMAGE = torch.randn(2, 3, 8, 8)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("eps", [1e-5, 1e-3])
def test_batch_norms_are_folded_after_one_question_about_eps(bias, eps) -> None:
    reference, model = randomised(Normed(eps, bias)), Folded()
    plan = ls.plan(model, reference.state_dict(), match="structure")
    [question] = plan.questions
    assert (question.kind, question.places) == ("fold", 5)
    answers = {float(option.rpartition(" ")[2].rstrip(")")): option for option in question.options}
    assert sorted(answers) == [1e-5, 1e-3]
    plan = ls.load(model, reference.state_dict(), match="structure", answers={question.target: answers[eps]})
    plan.check(IMAGE, reference=reference)
    wrong = ls.load(Folded(), reference.state_dict(), match="structure", answers={question.target: answers[1e-8 / eps]})
    with pytest.raises(ls.MatchError, match="function-differs"):
        wrong.check(IMAGE, reference=reference)


def test_another_eps_can_be_said() -> None:
    reference, model = randomised(Normed(0.1)), Folded()
    answer = {"entry.weight": "fold(stem.0.weight, stem.1.weight, stem.1.running_var; 0.1)"}
    plan = ls.load(model, reference.state_dict(), match="structure", answers=answer)
    plan.check(IMAGE, reference=reference)


def test_folding_is_computed_in_double_and_rounded_once() -> None:
    reference, model = randomised(Normed()).half(), Folded()
    answer = {"entry.weight": "fold(stem.0.weight, stem.1.weight, stem.1.running_var; 1e-05)"}
    ls.load(model, reference.state_dict(), match="structure", answers=answer)
    conv, norm = reference.stem[0].weight.double(), reference.stem[1].double()
    exact = conv * (norm.weight / (norm.running_var + 1e-5).sqrt()).reshape(-1, 1, 1, 1)
    assert torch.equal(model.entry.weight, exact.half().float())


def test_a_folded_norm_cannot_be_taken_out_again_and_that_is_said() -> None:
    plan = ls.plan(Normed(), Folded().state_dict(), match="structure")
    assert not plan.ok
    assert not plan.loaded
    assert any("cannot be taken out again" in finding.message for finding in plan.diagnostics)


def test_norms_that_could_belong_to_either_of_two_layers_are_not_folded() -> None:
    class Unclear(nn.Module):
        def __init__(self, *norms: str) -> None:
            super().__init__()
            for name in ("left", "right"):
                self.add_module(name, nn.Conv2d(4, 4, 3, bias=not norms))
            for name in norms:
                self.add_module(name, nn.BatchNorm2d(4))

    plan = ls.plan(Unclear(), Unclear("before", "after").state_dict(), match="structure")
    assert not plan.compositions
    assert not plan.loaded
