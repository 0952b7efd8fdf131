"""What is exported runs as the model runs, the model is what it was, and nothing wrong is ever kept."""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import loadstone as ls
from loadstone.model.exporting.comparing import compare

BOTH = pytest.mark.parametrize("name", ["m.pt2", "m.pt"])
Unchanged = Callable[[nn.Module], Callable[[], None]]


class Net(nn.Module):
    """A norm with statistics, dropout, a tie, a buffer of its own and one that is not persistent."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.drop = nn.Dropout(0.5)
        self.fc = nn.Linear(4, 4)
        self.again = self.fc
        self.register_buffer("scale", torch.tensor([2.0]))
        self.register_buffer("shift", torch.rand(4), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.drop(self.norm(self.conv(x)).relu().mean((2, 3)))
        return self.again(self.fc(x)) * self.scale + self.shift


class Branch(nn.Module):
    """It depends on values which way it goes."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(3, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.sum() > 0:
            return self.fc(x)
        return -self.fc(x)


class Two(nn.Module):
    """Two inputs by name, one of them token ids; outputs in a dict."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(7, 4)

    def forward(self, ids: torch.Tensor, weight: torch.Tensor) -> dict[str, torch.Tensor]:
        x = self.embed(ids)
        return {"y": x * weight[..., None], "a": x.sum(1)}


class Counting(nn.Module):
    """Every forward pass changes a buffer, and the output follows it."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.seen += 1
        return x * self.seen


def image(batch: int = 2) -> torch.Tensor:
    return torch.rand(batch, 3, 8, 8)


def runs(path: Path) -> Callable[..., Any]:
    """The program in the file, as torch loads it."""
    if path.suffix == ".pt2":
        return torch.export.load(path).module()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return torch.jit.load(path)


# --- what is written --------------------------------------------------------------------------------------------------


@BOTH
def test_the_file_gives_what_the_model_gives(name: str, tmp_path: Path) -> None:
    model, x = Net(), image()
    exported = ls.export(model, tmp_path / name, x)
    torch.testing.assert_close(runs(tmp_path / name)(x), model.eval()(x))
    assert exported.is_equal
    assert exported.max_difference == 0
    assert [each.input for each in exported.comparisons][:2] == ["the example", "other values"]
    assert exported.nbytes == (tmp_path / name).stat().st_size


@BOTH
def test_weights_read_back_are_the_models(name: str, tmp_path: Path) -> None:
    model = Net()
    exported = ls.export(model, tmp_path / name, image())
    with ls.open(tmp_path / name) as checkpoint:
        assert checkpoint.format == exported.format
        for key, tensor in model.state_dict().items():
            assert torch.equal(checkpoint.weights[key].read(), tensor), key


@BOTH
def test_a_model_loads_from_its_own_export(name: str, tmp_path: Path) -> None:
    model, other = Net(), Net()
    ls.export(model, tmp_path / name, image())
    ls.load(other, tmp_path / name, drop=["shift"])
    assert all(torch.equal(one, two) for one, two in zip(model.parameters(), other.parameters(), strict=True))


@BOTH
def test_inputs_by_name_and_outputs_in_a_dict(name: str, tmp_path: Path) -> None:
    model = Two()
    example = {"ids": torch.tensor([[0, 6, 3]]), "weight": torch.rand(1, 3)}
    assert ls.export(model, tmp_path / name, example).is_equal
    assert set(runs(tmp_path / name)(**example)) == {"y", "a"}


@BOTH
def test_inputs_by_position(name: str, tmp_path: Path) -> None:
    assert ls.export(Two(), tmp_path / name, (torch.tensor([[0, 6, 3]]), torch.rand(1, 3))).is_equal


@pytest.mark.parametrize("batch", [1, 2])
@BOTH
def test_a_dynamic_batch_is_tried_in_other_sizes(name: str, batch: int, tmp_path: Path) -> None:
    model = Net()
    exported = ls.export(model, tmp_path / name, image(batch), dynamic_batch=True)
    other_sizes = ["a batch of 3"] if batch == 1 else ["a batch of 1", "a batch of 3"]
    assert [each.input for each in exported.comparisons][-len(other_sizes) :] == other_sizes
    assert runs(tmp_path / name)(image(5)).shape == (5, 4)


def test_a_dynamic_batch_of_named_inputs(tmp_path: Path) -> None:
    example = {"ids": torch.tensor([[0, 6, 3]]), "weight": torch.rand(1, 3)}
    ls.export(Two(), tmp_path / "m.pt2", example, dynamic_batch=True)
    out = runs(tmp_path / "m.pt2")(ids=torch.zeros(4, 3, dtype=torch.int64), weight=torch.rand(4, 3))
    assert out["y"].shape == (4, 3, 4)


def test_without_it_the_batch_size_is_that_of_the_example(tmp_path: Path) -> None:
    ls.export(Net(), tmp_path / "m.pt2", image(2))
    with pytest.raises(Exception, match="2"):
        runs(tmp_path / "m.pt2")(image(3))


def test_a_scripted_file_keeps_both_branches(tmp_path: Path) -> None:
    model = Branch()
    ls.export(model, tmp_path / "m.pt", torch.ones(1, 3), script=True)
    x = -torch.ones(1, 3)
    assert torch.equal(runs(tmp_path / "m.pt")(x), model(x))


@BOTH
def test_a_buffer_that_forward_changes_is_written_as_the_model_has_it(name: str, tmp_path: Path) -> None:
    model = Counting()
    assert ls.export(model, tmp_path / name, torch.ones(2)).is_equal
    assert model.seen == 0
    assert runs(tmp_path / name)(torch.ones(2)).tolist() == [1, 1]


def test_layers_that_draw_in_eval_mode_draw_the_same(tmp_path: Path) -> None:
    class Noisy(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.dropout(x, 0.5, True)

    assert ls.export(Noisy(), tmp_path / "m.pt2", torch.ones(64)).is_equal


def test_a_norm_by_hook_that_has_run_is_exported(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        model = nn.Sequential(nn.utils.weight_norm(nn.Linear(3, 2)))
    model(torch.rand(1, 3))  # leaves a computed weight that deepcopy refuses
    assert ls.export(model, tmp_path / "m.pt2", torch.rand(1, 3)).comparisons


@BOTH
def test_a_tensor_that_is_given_twice_stays_one(name: str, tmp_path: Path) -> None:
    x = torch.rand(2, 5, 8)
    assert ls.export(nn.MultiheadAttention(8, 2, batch_first=True), tmp_path / name, (x, x, x)).comparisons


@BOTH
def test_an_example_made_in_inference_mode(name: str, tmp_path: Path) -> None:
    with torch.inference_mode():
        assert ls.export(nn.Linear(3, 2), tmp_path / name, torch.rand(1, 3)).is_equal


# --- what it says -----------------------------------------------------------------------------------------------------


def test_it_says_in_one_line_what_was_compared(tmp_path: Path) -> None:
    exported = ls.export(Net(), tmp_path / "m.pt2", image())
    assert str(exported).endswith("   equal to the model on 2 inputs")
    assert "\n" not in str(exported)


def test_torchscript_is_said_to_be_deprecated_and_warns_in_no_other_way(tmp_path: Path) -> None:
    exported = ls.export(Net(), tmp_path / "m.pt", image())
    assert [each.code for each in exported.diagnostics] == ["torchscript-deprecated"]


def test_a_trace_that_fixed_a_value_names_the_line(tmp_path: Path) -> None:
    class Constant(Counting):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * float(self.seen)

    exported = ls.export(Constant(), tmp_path / "m.pt", torch.ones(3))
    (found,) = [each for each in exported.diagnostics if each.code == "trace-is-fixed"]
    assert "test_export.py:" in str(found)


# --- the model is what it was -----------------------------------------------------------------------------------------


def stateful() -> nn.Module:
    """Some parts train, some do not; a frozen norm, a gradient."""
    model = Net()
    model.train()
    ls.freeze(model, except_=["fc"])
    model.drop.eval()
    model.fc.weight.grad = torch.ones(4, 4)
    return model


@BOTH
def test_the_model_is_bit_for_bit_what_it_was(name: str, unchanged: Unchanged, tmp_path: Path) -> None:
    model = stateful()
    check = unchanged(model)
    ls.export(model, tmp_path / name, image())
    check()
    assert model.fc.weight.grad is not None


@BOTH
def test_the_model_is_what_it_was_when_the_export_fails(name: str, unchanged: Unchanged, tmp_path: Path) -> None:
    class Failing(Counting):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if torch.jit.is_tracing() or torch.compiler.is_exporting():
                raise NotImplementedError("no")
            return super().forward(x)

    model = Failing().train()
    check = unchanged(model)
    with pytest.raises(ls.SaveError, match="export-failed"):
        ls.export(model, tmp_path / name, torch.ones(2))
    check()


@BOTH
def test_random_numbers_go_on_as_if_nothing_had_been(name: str, tmp_path: Path) -> None:
    torch.manual_seed(3)
    random.seed(3)
    expected = torch.rand(3), random.random()
    torch.manual_seed(3)
    random.seed(3)
    ls.export(nn.Dropout(), tmp_path / name, torch.ones(3))
    found = torch.rand(3), random.random()
    assert torch.equal(expected[0], found[0])
    assert expected[1] == found[1]


def test_the_example_is_not_written_to(tmp_path: Path) -> None:
    example = torch.full((2, 3), -1.0)
    ls.export(nn.ReLU(inplace=True), tmp_path / "m.pt2", example)
    assert example.eq(-1).all()


# --- what is refused --------------------------------------------------------------------------------------------------


def refused(tmp_path: Path, code: str, *args: Any, name: str = "m.pt2", **options: Any) -> ls.LoadstoneError:
    """The error, after seeing that the folder holds what it held."""
    (tmp_path / name).write_bytes(b"what was there before")
    model, example = args
    with pytest.raises(ls.LoadstoneError) as caught:
        ls.export(model, tmp_path / name, example, **options)
    assert caught.value.code == code, caught.value
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_bytes() == b"what was there before"
    return caught.value


def test_a_branch_on_values_names_its_line_and_the_ways_out(tmp_path: Path) -> None:
    error = refused(tmp_path, "export-failed", Branch(), torch.ones(1, 3))
    assert "if x.sum() > 0:" in str(error)
    assert "script=True" in str(error)


def test_a_trace_that_gives_other_outputs_is_not_kept(tmp_path: Path) -> None:
    class Fixed(nn.Module):
        def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"y": x * float(x[0])}

    error = refused(tmp_path, "export-differs", Fixed(), torch.tensor([1.0, 2.0]), name="m.pt")
    assert "output['y']" in str(error)
    assert "other values" in str(error)
    assert [each.code for each in error.diagnostics] == ["export-differs", "trace-is-fixed"]


def test_a_trace_of_one_branch_is_not_kept(tmp_path: Path) -> None:
    error = refused(tmp_path, "export-differs", Branch(), torch.tensor([[9.0, 10.0, 11.0]]), name="m.pt")
    assert "the example negated" in str(error)


def test_a_trace_that_fixed_the_batch_size_is_not_kept(tmp_path: Path) -> None:
    class Flat(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.reshape(2 if torch.jit.is_tracing() else len(x), -1)

    refused(tmp_path, "export-differs", Flat(), image(2), name="m.pt", dynamic_batch=True)


def test_a_model_that_takes_one_batch_size_only(tmp_path: Path) -> None:
    class Fixed(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.reshape(2, -1)

    refused(tmp_path, "export-failed", Fixed(), image(2), dynamic_batch=True)


def test_a_program_that_torch_cannot_read_back(tmp_path: Path) -> None:
    class Mixed(nn.Module):
        def forward(self, x: torch.Tensor) -> tuple[object, ...]:
            return None, x, [x, 3], "text"

    refused(tmp_path, "export-failed", Mixed(), torch.ones(1, 3))


def test_what_cannot_be_scripted(tmp_path: Path) -> None:
    class Free(nn.Module):
        def forward(self, *values: torch.Tensor) -> torch.Tensor:
            return values[0]

    refused(tmp_path, "export-failed", Free(), torch.ones(1), name="m.pt", script=True)


def test_an_example_that_the_model_does_not_take(tmp_path: Path) -> None:
    assert "1 × 5" in str(refused(tmp_path, "example-refused", Branch(), torch.ones(1, 5)))


def test_a_model_on_meta(tmp_path: Path) -> None:
    with torch.device("meta"):
        model = Branch()
    assert "fc.weight" in str(refused(tmp_path, "unsaveable-value", model, torch.ones(1, 3)))


def test_a_lazy_model(tmp_path: Path) -> None:
    refused(tmp_path, "uninitialised-parameter", nn.LazyLinear(2), torch.ones(1, 3))


def test_a_quantised_model(tmp_path: Path) -> None:
    from torch.ao.nn.quantized import Linear

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = nn.Sequential(Linear(3, 2))
    refused(tmp_path, "unsupported-feature", model, torch.ones(1, 3))


@pytest.mark.parametrize("wrap", [nn.DataParallel, torch.compile])
def test_a_wrapped_model_names_what_is_inside(wrap: Callable[[nn.Module], nn.Module], tmp_path: Path) -> None:
    error = refused(tmp_path, "unsupported-feature", wrap(Branch()), torch.ones(1, 3))
    assert "model.module" in str(error) or "model._orig_mod" in str(error)


def test_a_scripted_model(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = torch.jit.script(nn.Linear(3, 2))
    refused(tmp_path, "unsupported-feature", model, torch.ones(1, 3))


@pytest.mark.parametrize(
    ("name", "example", "options"),
    [
        ("m.onnx", torch.ones(1, 3), {}),
        ("m.pt2", torch.ones(1, 3), {"script": True}),
        ("m.pt2", torch.ones(1, 3), {"tolerance": -1}),
        ("m.pt2", torch.ones(1, 3), {"tolerance": float("nan")}),
        ("m.pt2", [1, 2], {}),
        ("m.pt2", torch.ones(()), {"dynamic_batch": True}),
        ("m.pt2", (torch.ones(2, 3), torch.ones(3, 3)), {"dynamic_batch": True}),
    ],
)
def test_options_that_make_no_sense(name: str, example: object, options: dict[str, Any], tmp_path: Path) -> None:
    refused(tmp_path, "invalid-option", Branch(), example, name=name, **options)


def test_what_is_no_model(tmp_path: Path) -> None:
    refused(tmp_path, "invalid-option", Branch().state_dict(), torch.ones(1, 3))


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ls.SaveError, match="save-failed"):
        ls.export(Branch(), tmp_path / "none" / "m.pt", torch.ones(1, 3), script=True)


# --- the comparison ---------------------------------------------------------------------------------------------------


def test_rounding_is_let_pass_and_said() -> None:
    one = torch.tensor([1.0, -8.0])
    found = compare(one, one + torch.tensor([0.0, 1e-4]), "x", None)
    assert not found.is_equal
    assert found.max_difference == pytest.approx(1e-4, rel=0.01)
    assert found.max_relative == pytest.approx(1e-4 / 8, rel=0.01)


@pytest.mark.parametrize(
    ("other", "tolerance"),
    [
        (torch.tensor([1.0, -8.1]), None),
        (torch.tensor([1.0, -8.00001]), 0.0),
        (torch.tensor([1.0, torch.nan]), 1.0),
        (torch.tensor([1.0, -8.0], dtype=torch.float64), None),
        (torch.tensor([[1.0, -8.0]]), None),
        ((torch.tensor([1.0, -8.0]), 3), None),
        ("text", None),
    ],
)
def test_what_is_no_rounding_is_refused(other: object, tolerance: float | None) -> None:
    with pytest.raises(ls.SaveError, match="export-differs"):
        compare(torch.tensor([1.0, -8.0]), other, "x", tolerance)


def test_whole_numbers_must_be_equal() -> None:
    with pytest.raises(ls.SaveError, match="export-differs"):
        compare(torch.tensor([1000000]), torch.tensor([1000001]), "x", None)


def test_the_same_nan_and_infinity_are_equal() -> None:
    values = torch.tensor([torch.nan, torch.inf, -torch.inf, 0.0])
    assert compare(values, values.clone(), "x", None).is_equal


def test_the_sign_of_zero_is_a_bit() -> None:
    found = compare(torch.tensor([0.0]), torch.tensor([-0.0]), "x", 0.0)
    assert not found.is_equal
    assert found.max_difference == 0
