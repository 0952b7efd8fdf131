"""The parts of training checkpoints as the codes of the world lay them out, written by torch and opened as files."""

from __future__ import annotations

import argparse
import random

import pytest
import torch
from torch import nn

import loadstone
from loadstone.training.layouts import Parts, find_parts
from loadstone.training.optimizer_saved import read_saved
from loadstone.training.optimizers import plan_optimizer

torch.set_num_threads(1)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3)
        self.bn = nn.BatchNorm2d(4)
        self.fc = nn.Linear(4, 3)


def trained() -> dict:
    """Live objects after a step, and their state dicts."""
    torch.manual_seed(0)
    model = Net()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=10)
    for parameter in model.parameters():
        parameter.grad = torch.rand(parameter.shape)
    optimizer.step()
    scheduler.step()
    scaler = torch.amp.GradScaler("cpu")
    return {"model": model, "net": model.state_dict(), "optimizer": optimizer, "optim": optimizer.state_dict(),
            "schedule": scheduler.state_dict(), "scaler": scaler.state_dict()}  # fmt: skip


LAYOUTS = {
    "tutorial": lambda has: {
        "epoch": 5, "model_state_dict": has["net"], "optimizer_state_dict": has["optim"], "loss": 0.4,
    },
    "imagenet": lambda has: {
        "epoch": 5, "arch": "net", "state_dict": has["net"], "best_acc1": torch.tensor(71.5),
        "optimizer": has["optim"], "scheduler": has["schedule"],
    },
    "torchvision": lambda has: {
        "model": has["net"], "optimizer": has["optim"], "lr_scheduler": has["schedule"], "epoch": 5,
        "args": argparse.Namespace(lr=0.1), "scaler": has["scaler"],
    },
    "timm": lambda has: {
        "epoch": 5, "arch": "net", "state_dict": has["net"], "optimizer": has["optim"], "version": 2,
        "args": argparse.Namespace(lr=0.1), "amp_scaler": has["scaler"], "metric": 71.5,
    },
    "lightning": lambda has: {
        "epoch": 5, "global_step": 900, "pytorch-lightning_version": "2.4.0",
        "state_dict": {f"model.{key}": value for key, value in has["net"].items()},
        "loops": {"fit_loop": {"epoch_progress": {"total": {"ready": 6}}}}, "callbacks": {},
        "optimizer_states": [has["optim"]], "lr_schedulers": [has["schedule"]], "MixedPrecision": has["scaler"],
        "hparams_name": "kwargs", "hyper_parameters": {"lr": 0.1},
    },
    "nanogpt": lambda has: {
        "model": {f"_orig_mod.{key}": value for key, value in has["net"].items()}, "optimizer": has["optim"],
        "model_args": {"n_layer": 12}, "iter_num": 900, "best_val_loss": torch.tensor(3.1), "config": {"lr": 0.1},
    },
    "ultralytics": lambda has: {
        "epoch": 5, "best_fitness": 0.5, "model": None, "ema": has["model"].half(), "updates": 900,
        "optimizer": has["optim"], "train_args": {}, "date": "2026-01-01",
    },
    "mmengine": lambda has: {
        "meta": {"epoch": 5, "iter": 900, "cfg": "x = 1"}, "state_dict": has["net"], "optimizer": has["optim"],
        "message_hub": {}, "param_schedulers": [has["schedule"]],
    },
    "resemblyzer": lambda has: {"step": 900, "model_state": has["net"], "optimizer_state": has["optim"]},
    "chgnet": lambda has: {
        "model": {"state_dict": has["net"], "model_args": {}}, "optimizer": has["optim"],
        "scheduler": has["schedule"], "training_history": {"e": {"train": [1.0], "val": [1.0]}}, "trainer_args": {},
    },
}  # fmt: skip
PLACES = {
    "tutorial": {"optimizer": "optimizer_state_dict", "epoch": "epoch", "loss": "loss"},
    "imagenet": {"optimizer": "optimizer", "scheduler": "scheduler", "epoch": "epoch", "metric": "best_acc1"},
    "torchvision": {"optimizer": "optimizer", "scheduler": "lr_scheduler", "scaler": "scaler", "epoch": "epoch"},
    "timm": {"optimizer": "optimizer", "scaler": "amp_scaler", "epoch": "epoch", "metric": "metric"},
    "lightning": {"optimizer": "optimizer_states.0", "scheduler": "lr_schedulers.0", "scaler": "MixedPrecision",
                  "epoch": "epoch", "step": "global_step"},
    "nanogpt": {"optimizer": "optimizer", "step": "iter_num", "metric": "best_val_loss"},
    "ultralytics": {"optimizer": "optimizer", "epoch": "epoch", "metric": "best_fitness"},
    "mmengine": {"optimizer": "optimizer", "scheduler": "param_schedulers.0", "epoch": "meta.epoch",
                 "step": "meta.iter"},
    "resemblyzer": {"optimizer": "optimizer_state", "step": "step"},
    "chgnet": {"optimizer": "optimizer", "scheduler": "scheduler"},
}  # fmt: skip


def parts_of(content: object, path) -> Parts:
    torch.save(content, path)
    with loadstone.open(path) as checkpoint:
        return find_parts(checkpoint.tree, checkpoint.sets)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_part_is_found_where_it_stands(layout, tmp_path):
    parts = parts_of(LAYOUTS[layout](trained()), tmp_path / "a.pth")
    assert {part.kind: part.place for part in parts.found} == PLACES[layout]
    assert len(parts.found) == len(PLACES[layout])
    assert len(parts.weights) == 1
    assert parts.diagnostics == ()


@pytest.mark.parametrize("layout", sorted(LAYOUTS.keys() - {"ultralytics"}))
def test_the_optimizer_of_every_layout_can_be_carried_over(layout, tmp_path):
    has = trained()
    path = tmp_path / "a.pth"
    torch.save(LAYOUTS[layout](has), path)
    model = Net()
    optimizer = torch.optim.AdamW(model.parameters())
    with loadstone.open(path) as checkpoint:
        plan_optimizer(optimizer, checkpoint, model=model).apply()
    wanted = has["optimizer"].state[has["model"].fc.weight]["exp_avg"]
    assert optimizer.state[model.fc.weight]["exp_avg"].equal(wanted)


def test_an_optimizer_in_a_file_of_its_own_is_the_whole_file(tmp_path):
    """transformers keeps optimizer.pt and scheduler.pt beside the weights."""
    has = trained()
    (part,) = parts_of(has["optim"], tmp_path / "optimizer.pt").found
    assert (part.kind, part.path, part.place) == ("optimizer", (), "the whole file")
    (part,) = parts_of(has["schedule"], tmp_path / "scheduler.pt").found
    assert (part.kind, part.path) == ("scheduler", ())


def test_two_optimizers_are_two_parts_and_no_riddle(tmp_path):
    has = trained()
    parts = parts_of({"netG": has["net"], "optG": has["optim"], "optD": has["optim"], "epoch": 1}, tmp_path / "a.pth")
    assert [part.name for part in parts.all("optimizer")] == ["optG", "optD"]
    assert parts.diagnostics == ()


def test_of_two_optimizers_one_has_to_be_named(tmp_path):
    has = trained()
    torch.save({"netG": has["net"], "optG": has["optim"], "optD": has["optim"]}, tmp_path / "a.pth")
    model = Net()
    optimizer = torch.optim.AdamW(model.parameters())
    with loadstone.open(tmp_path / "a.pth") as checkpoint:
        with pytest.raises(loadstone.MatchError, match='part="optD"'):
            plan_optimizer(optimizer, checkpoint, model=model)
        assert plan_optimizer(optimizer, checkpoint, model=model, part="optD").ok


def test_weights_without_an_optimizer_are_no_training_checkpoint(tmp_path):
    model = Net()
    torch.save(model.state_dict(), tmp_path / "a.pth")
    with loadstone.open(tmp_path / "a.pth") as checkpoint, pytest.raises(loadstone.MatchError, match="no state of an"):
        plan_optimizer(torch.optim.SGD(model.parameters()), checkpoint, model=model)


def test_what_it_holds_counts_more_than_what_it_is_called(tmp_path):
    has = trained()
    parts = parts_of({"model": has["net"], "scheduler": has["optim"], "optimizer": has["schedule"]}, tmp_path / "a.pth")
    assert [(part.kind, part.place) for part in parts.found] == [("optimizer", "scheduler"), ("scheduler", "optimizer")]


def test_two_epochs_that_differ_are_said_and_not_chosen_from(tmp_path):
    parts = parts_of({"state_dict": trained()["net"], "epoch": 4, "start_epoch": 5}, tmp_path / "a.pth")
    assert parts.one("epoch") is None
    (diagnostic,) = parts.diagnostics
    assert diagnostic.code == "ambiguous-part"
    assert "`epoch`, `start_epoch`" in diagnostic.message
    same = parts_of({"state_dict": trained()["net"], "epoch": 5, "start_epoch": 5}, tmp_path / "b.pth")
    assert same.one("epoch").value == 5


def test_a_files_own_epoch_comes_before_one_further_in(tmp_path):
    content = {"state_dict": trained()["net"], "meta": {"epoch": 3}, "epoch": 5}
    parts = parts_of(content, tmp_path / "a.pth")
    assert parts.one("epoch").value == 5
    assert parts.diagnostics == ()


def test_a_schedulers_own_counts_are_not_the_files(tmp_path):
    has = trained()
    parts = parts_of({"model": has["net"], "scheduler": {"last_epoch": 3, "_step_count": 4}}, tmp_path / "a.pth")
    assert [part.kind for part in parts.found] == ["scheduler"]


@pytest.mark.parametrize(
    "make",
    [
        lambda it: torch.optim.lr_scheduler.StepLR(it, 2),
        lambda it: torch.optim.lr_scheduler.OneCycleLR(it, 0.1, total_steps=9),
        lambda it: torch.optim.lr_scheduler.ReduceLROnPlateau(it),
        lambda it: torch.optim.lr_scheduler.SequentialLR(
            it, [torch.optim.lr_scheduler.ConstantLR(it), torch.optim.lr_scheduler.StepLR(it, 2)], [3]
        ),
        lambda it: torch.optim.lr_scheduler.LambdaLR(it, lambda epoch: 0.9**epoch),
        lambda it: torch.optim.lr_scheduler.CyclicLR(it, 0.1, 0.2, cycle_momentum=False),
        lambda it: torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(it, 3),
    ],
)
def test_schedulers_of_torch_are_known_by_what_they_hold(make, tmp_path):
    has = trained()
    state = make(torch.optim.SGD(has["model"].parameters(), lr=0.1)).state_dict()
    state.pop("_scale_fn_ref", None)
    parts = parts_of({"model": has["net"], "x": state}, tmp_path / "a.pth")
    assert [(part.kind, part.place) for part in parts.found] == [("scheduler", "x")]


def test_random_states_are_found_by_name(tmp_path):
    content = {"model": trained()["net"], "rng_state": torch.get_rng_state(), "python_rng_state": random.getstate()}
    assert [part.kind for part in parts_of(content, tmp_path / "a.pth").found] == ["rng", "rng"]


def test_no_tensor_is_read(tmp_path, monkeypatch):
    path = tmp_path / "a.pth"
    torch.save(LAYOUTS["torchvision"](trained()), path)
    monkeypatch.setattr("loadstone.tensors.TensorInfo.read", lambda *_, **__: pytest.fail("read"))
    with loadstone.open(path) as checkpoint:
        assert len(find_parts(checkpoint.tree).found) == 4


def test_lines_say_what_an_epoch_may_mean(tmp_path):
    parts = parts_of(LAYOUTS["tutorial"](trained()), tmp_path / "a.pth")
    assert parts.metrics == {"loss": 0.4}
    assert any("the last one done, or the next" in line for line in parts.lines())


def test_a_whole_optimizer_is_found_but_cannot_be_used(tmp_path):
    has = trained()
    (part,) = parts_of({"model": has["net"], "opt": has["optimizer"]}, tmp_path / "a.pth").found
    assert part.kind == "optimizer"
    with pytest.raises(loadstone.MatchError, match="optimizer-invalid"):
        read_saved(part.value)
