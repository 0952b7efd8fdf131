"""A Run: what it saves and when, what it goes on from, and that a resume changes everything or nothing."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import textwrap

import pytest
import torch
from torch import nn

import loadstone as ls
from loadstone.training import resuming
from loadstone.training.every import Due, parse_every


def parts(seed=0, hidden=8, lr=0.05):
    torch.manual_seed(seed)
    model = nn.Sequential(
        nn.Linear(4, hidden), nn.BatchNorm1d(hidden), nn.ReLU(), nn.Dropout(0.2), nn.Linear(hidden, 2)
    )
    optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9)
    return model, optimizer, torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)


def loader(**options):
    data = torch.utils.data.TensorDataset(torch.arange(24.0).view(12, 2).repeat(1, 2) / 24, torch.ones(12, 2))
    return torch.utils.data.DataLoader(data, batch_size=3, shuffle=True, **options)


def train(run, model, optimizer, epochs=2, stop_at=None, scheduler=None):
    """The batches that came."""
    seen = []
    for _ in run.epochs(epochs):
        for x, y in run.batches():
            seen.append(x[:, 0].tolist())
            optimizer.zero_grad()
            nn.functional.mse_loss(model(x), y).backward()
            optimizer.step()
            if run.step == stop_at:
                return seen
        if scheduler is not None:
            scheduler.step()
        run.save(loss=1 / run.step)
    return seen


def bits(model, optimizer, *others):
    """Everything, as values that compare."""
    tensors = [value.detach().clone() for value in model.state_dict().values()]
    momentum = [each["momentum_buffer"].clone() for each in optimizer.state.values()]
    groups = [{k: v for k, v in group.items() if k != "params"} for group in optimizer.param_groups]
    rest = [str(other.state_dict()) for other in others]
    return [t.numpy().tobytes() for t in (*tensors, *momentum)], groups, rest, torch.get_rng_state().tolist()


def names(run):
    return [entry.path.name for entry in run.list()]


def test_finished_epochs_are_skipped_and_their_numbers_are_those_of_the_files(tmp_path):
    model, optimizer, _ = parts()
    with ls.Run(tmp_path, model=model, optimizer=optimizer, data=loader(), name="net") as run:
        assert not run.resume()
        train(run, model, optimizer, epochs=2)
        assert names(run) == ["net_epoch0001.pth", "net_epoch0002.pth"]
    again = ls.Run(tmp_path, model=model, optimizer=optimizer, data=loader(), name="net")
    at = again.resume()
    assert (at.epoch, at.step, at.batch) == (2, 8, 0)
    assert list(again.epochs(2)) == []
    assert next(iter(again.epochs(3))) == 3


def test_a_foreign_reader_trains_on_with_plain_torch(tmp_path):
    model, optimizer, scheduler = parts()
    with ls.Run(tmp_path, model=model, optimizer=optimizer, scheduler=scheduler, data=loader(), name="net") as run:
        train(run, model, optimizer, epochs=1)
    checkpoint = torch.load(tmp_path / "net_epoch0001.pth", weights_only=True)
    other, its_optimizer, its_scheduler = parts(seed=1)
    other.load_state_dict(checkpoint["model_state_dict"])
    its_optimizer.load_state_dict(checkpoint["optimizer_state_dict"])
    its_scheduler.load_state_dict(checkpoint["scheduler_state_dict"])
    assert (checkpoint["epoch"], checkpoint["step"], checkpoint["loss"]) == (1, 4, 0.25)
    for net, opt in ((model, optimizer), (other, its_optimizer)):
        net.eval()
        opt.zero_grad()
        net(torch.ones(1, 4)).sum().backward()
        opt.step()
    assert all(map(torch.equal, model.state_dict().values(), other.state_dict().values()))


def test_a_checkpoint_is_never_written_over(tmp_path):
    model, optimizer, _ = parts()
    with ls.Run(tmp_path, model=model, optimizer=optimizer, name="net") as run:
        paths = [run.save(epoch=3, step=30) for _ in range(3)]
    assert [path.name for path in paths] == ["net_epoch0003.pth", "net_epoch0003-2.pth", "net_epoch0003-3.pth"]


@pytest.mark.parametrize("layout", ["file", "folder"])
def test_a_damaged_newest_checkpoint_is_passed_over_with_a_warning(tmp_path, layout):
    model, optimizer, _ = parts()
    with ls.Run(tmp_path, model=model, optimizer=optimizer, data=loader(), name="net", layout=layout) as run:
        train(run, model, optimizer, epochs=3)
        newest = run.list()[-1].path
    victim = newest if layout == "file" else max(newest.glob("*.safetensors"), key=lambda path: path.stat().st_size)
    data = bytearray(victim.read_bytes())
    data[len(data) // 2] ^= 4
    victim.unlink()
    victim.write_bytes(data)
    again = ls.Run(tmp_path, model=model, optimizer=optimizer, data=loader(), name="net", layout=layout)
    with pytest.warns(UserWarning, match="damaged-checkpoint"):
        at = again.resume()
    assert at.epoch == 2
    assert [each.code for each in at.report.diagnostics] == ["damaged-checkpoint"]


def test_where_no_checkpoint_is_whole_a_resume_is_an_error_and_not_a_new_beginning(tmp_path):
    model, optimizer, _ = parts()
    with ls.Run(tmp_path, model=model, optimizer=optimizer, name="net") as run:
        path = run.save(epoch=1)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ls.IntegrityError, match="damaged-checkpoint"):
        ls.Run(tmp_path, model=model, optimizer=optimizer, name="net").resume()


def test_every_difference_is_listed_and_nothing_is_changed(tmp_path):
    model, optimizer, scheduler = parts()
    options = {"scheduler": scheduler, "data": loader(), "name": "net", "config": {"width": 8, "deep": {"a": 1}}}
    with ls.Run(tmp_path, model=model, optimizer=optimizer, **options) as run:
        train(run, model, optimizer, epochs=1)
    other = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.2), nn.Linear(8, 3))
    its_optimizer = torch.optim.SGD(other.parameters(), lr=0.05, momentum=0.8)
    its_scheduler = torch.optim.lr_scheduler.StepLR(its_optimizer, 2, gamma=0.5)
    before = bits(other, its_optimizer, its_scheduler)
    changed = {
        "scheduler": its_scheduler,
        "data": loader(drop_last=True),
        "name": "net",
        "config": {"width": 8, "deep": {"a": 2}},
        "scaler": torch.amp.GradScaler("cpu"),
    }
    with pytest.raises(ls.MatchError) as caught:
        ls.Run(tmp_path, model=other, optimizer=its_optimizer, **changed).resume()
    text = str(caught.value)
    for part in ("4.weight", "momentum", "step_size", "config.deep.a", "data.drop_last", "scaler"):
        assert part in text
    assert bits(other, its_optimizer, its_scheduler) == before


STAGES = ["plan.apply", "scheduler", "put_gradients", "put_generators", "check_rates"]


@pytest.mark.parametrize("stage", STAGES)
def test_a_resume_that_breaks_off_leaves_every_object_as_it_was(tmp_path, monkeypatch, stage):
    model, optimizer, scheduler = parts()
    with ls.Run(tmp_path, model=model, optimizer=optimizer, scheduler=scheduler, data=loader(), name="net") as run:
        train(run, model, optimizer, epochs=1, scheduler=scheduler)
    model, optimizer, scheduler = parts(seed=5)
    scratch = ls.Run(tmp_path / "other", model=model, optimizer=optimizer, data=loader(), name="net")
    train(scratch, model, optimizer, epochs=1)
    before = bits(model, optimizer, scheduler)

    def broken(*args, **options):
        raise OSError(f"{stage} broke")

    if stage == "plan.apply":
        monkeypatch.setattr("loadstone.training.optimizers.OptimizerPlan.apply", broken)
    elif stage == "scheduler":
        calls = iter([broken, type(scheduler).load_state_dict])
        monkeypatch.setattr(type(scheduler), "load_state_dict", lambda *args: next(calls)(*args))
    else:
        monkeypatch.setattr(resuming, stage, broken)
    run = ls.Run(tmp_path, model=model, optimizer=optimizer, scheduler=scheduler, data=loader(), name="net")
    with pytest.raises(OSError, match="broke"):
        run.resume()
    assert bits(model, optimizer, scheduler) == before
    assert run.epoch == 0


def test_two_optimizers_and_a_state_of_another_kind_are_saved_and_put_back(tmp_path):
    class Ema:
        def __init__(self, value):
            self.value = torch.full((3,), value)

        def state_dict(self):
            return {"value": self.value}

        def load_state_dict(self, state):
            self.value = state["value"]

    def gan(seed, value):
        torch.manual_seed(seed)
        models = {"generator": nn.Linear(2, 2), "critic": nn.Linear(2, 1)}
        optimizers = {name: torch.optim.Adam(net.parameters()) for name, net in models.items()}
        for name, net in models.items():
            net(torch.ones(1, 2)).sum().backward()
            optimizers[name].step()
        return models, optimizers, Ema(value)

    models, optimizers, ema = gan(0, 1.0)
    with ls.Run(tmp_path, model=models, optimizer=optimizers, state={"ema": ema}, name="gan") as run:
        path = run.save(epoch=1)
    saved = torch.load(path, weights_only=True)
    assert list(saved["optimizer_state_dict"]) == ["generator", "critic"]
    assert saved["optimizer_state_dict"]["critic"]["param_groups"][0]["param_names"] == ["critic.weight", "critic.bias"]
    others, its_optimizers, its_ema = gan(1, 2.0)
    ls.Run(tmp_path, model=others, optimizer=its_optimizers, state={"ema": its_ema}, name="gan").resume()
    for name in models:
        assert all(map(torch.equal, models[name].parameters(), others[name].parameters()))
        pairs = zip(optimizers[name].state.values(), its_optimizers[name].state.values(), strict=True)
        assert all(torch.equal(one["exp_avg"], other["exp_avg"]) for one, other in pairs)
    assert torch.equal(its_ema.value, ema.value)


def test_transfer_keeps_what_goes_by_name_and_says_what_is_new(tmp_path):
    model, optimizer, _ = parts()
    with ls.Run(tmp_path, model=model, optimizer=optimizer, data=loader(), name="net") as run:
        train(run, model, optimizer, epochs=1)
    other = nn.Sequential(*model[:4], nn.Linear(8, 5))
    its_optimizer = torch.optim.SGD(other.parameters(), lr=0.05, momentum=0.9)
    at = ls.Run(tmp_path, model=other, optimizer=its_optimizer, data=loader(), name="net").resume(strict="transfer")
    assert at.epoch == 1
    assert "model.4.weight" in at.report.new
    assert "optimizer.4.weight" in at.report.new
    first, second = optimizer.state[model[0].weight], its_optimizer.state[other[0].weight]
    assert torch.equal(first["momentum_buffer"], second["momentum_buffer"])


def test_a_checkpoint_of_other_code_is_read_by_transfer(tmp_path):
    model, optimizer, _ = parts()
    model(torch.ones(3, 4)).sum().backward()
    optimizer.step()
    torch.save(
        {"epoch": 7, "state_dict": model.state_dict(), "optimizer": optimizer.state_dict(), "loss": 0.5},
        tmp_path / "their.pth.tar",
    )
    other, its_optimizer, _ = parts(seed=1)
    run = ls.Run(tmp_path / "run", model=other, optimizer=its_optimizer, name="net")
    at = run.resume(strict="transfer", checkpoint=tmp_path / "their.pth.tar")
    assert at.epoch == 7
    assert "foreign-count" in [each.code for each in at.report.diagnostics]
    assert all(map(torch.equal, model.state_dict().values(), other.state_dict().values()))


def test_an_older_checkpoint_can_be_chosen_and_is_never_deleted(tmp_path):
    model, optimizer, _ = parts()
    options = {"model": model, "optimizer": optimizer, "data": loader(), "name": "net"}
    with ls.Run(tmp_path, **options) as run:
        train(run, model, optimizer, epochs=3)
    with ls.Run(tmp_path, **options, keep=ls.Keep(last=1)) as run:
        at = run.resume(checkpoint="net_epoch0001.pth")
        assert [each.code for each in at.report.diagnostics] == ["newer-checkpoints"]
        train(run, model, optimizer, epochs=2)
        assert "net_epoch0001.pth" in names(run)


def test_retention_keeps_the_last_and_the_best(tmp_path):
    model, optimizer, _ = parts()
    keep = ls.Keep(last=2, best=1, metric="acc", mode="max")
    with ls.Run(tmp_path, model=model, optimizer=optimizer, name="net", keep=keep) as run:
        for epoch, acc in enumerate([0.1, 0.9, float("nan"), 0.3, 0.2], start=1):
            run.save(epoch=epoch, acc=torch.tensor(acc))
        assert names(run) == ["net_epoch0002.pth", "net_epoch0004.pth", "net_epoch0005.pth"]
        assert run.best().epoch == 2


@pytest.mark.parametrize("wait", [True, False])
def test_it_saves_by_itself_every_so_many_steps(tmp_path, wait):
    model, optimizer, _ = parts()
    with ls.Run(
        tmp_path, model=model, optimizer=optimizer, data=loader(), name="net", every="3 steps", wait=wait
    ) as run:
        train(run, model, optimizer, epochs=2)
    assert [(each.epoch, each.step, each.batch) for each in run.list()] == [
        (0, 3, 3), (1, 4, 0), (1, 7, 3), (2, 8, 0),
    ]  # fmt: skip


def test_it_saves_at_the_end_of_an_epoch_only_where_the_script_did_not(tmp_path):
    model, optimizer, _ = parts()
    run = ls.Run(tmp_path, model=model, optimizer=optimizer, data=loader(), name="net", every=2)
    for epoch in run.epochs(4):
        for _ in run.batches():
            pass
        if epoch == 2:
            run.save()
    assert names(run) == ["net_epoch0002.pth", "net_epoch0004.pth"]


def test_minutes_are_counted_from_the_last_save():
    now = [0.0]
    due = Due(parse_every("10 minutes"), lambda: now[0])
    now[0] = 599.0
    assert not due.after_batch(1)
    now[0] = 600.0
    assert due.after_batch(1)
    due.saved(epoch=0, step=1)
    assert not due.after_batch(2)


@pytest.mark.parametrize("text", ["", "ten minutes", "5", "0 steps", "-1 s", "1.5 steps", 0, True, None, "nan s"])
def test_an_interval_that_is_no_amount_is_refused(text):
    with pytest.raises(ls.RecipeError, match="invalid-option"):
        parse_every(text)


def test_a_loop_that_trains_on_two_loaders_in_one_epoch_is_refused(tmp_path):
    run = ls.Run(tmp_path, data=loader(), name="net")
    for _ in run.epochs(1):
        list(run.batches())
        with pytest.raises(ls.RecipeError, match="twice"):
            run.batches()


def test_a_loader_that_is_given_late_is_compared_all_the_same(tmp_path):
    model, optimizer, _ = parts()
    with ls.Run(tmp_path, model=model, optimizer=optimizer, data=loader(), name="net", every="1 steps") as run:
        train(run, model, optimizer, stop_at=3)
    late = ls.Run(tmp_path, model=model, optimizer=optimizer, name="net")
    assert late.resume().batch == 2
    with pytest.raises(ls.MatchError, match="drop_last"):
        late.batches(loader(drop_last=True))


def test_a_loader_that_knows_its_place_is_asked_for_it(tmp_path):
    class Stateful:
        def __init__(self):
            self.at = 0

        def __iter__(self):
            first, self.at = self.at, 0
            order = torch.randperm(6, generator=torch.Generator().manual_seed(0)).tolist()
            for at in range(first, 6):
                self.at = at + 1
                yield order[at]

        def state_dict(self):
            return {"at": self.at}

        def load_state_dict(self, state):
            self.at = state["at"]

    whole = list(Stateful())
    with ls.Run(tmp_path, data=Stateful(), name="net", every="1 steps") as run:
        for _ in run.batches():
            if run.step == 4:
                break
    again = ls.Run(tmp_path, data=Stateful(), name="net")
    assert again.resume().batch == 3
    assert list(again.batches()) == whole[3:]


def test_gradients_that_wait_for_their_step_are_saved_and_those_that_do_not_are_not(tmp_path):
    model, optimizer, _ = parts()
    run = ls.Run(tmp_path, model=model, optimizer=optimizer, data=loader(), name="net")
    for x, y in run.batches():
        nn.functional.mse_loss(model(x), y).backward()
        if run.step == 2:
            optimizer.step()
        path = run.save()
        has_gradients = "gradients" in torch.load(path, weights_only=True)
        assert has_gradients == (run.step != 2)


SCRIPT = """
    import os, sys, time, torch
    import loadstone as ls
    torch.manual_seed(0)
    model = torch.nn.Linear(2, 1)
    data = torch.utils.data.TensorDataset(torch.ones(400, 2))
    loader = torch.utils.data.DataLoader(data, batch_size=1, num_workers=int(sys.argv[2]))
    run = ls.Run(sys.argv[1], model=model, data=loader, name="net")
    for epoch in run.epochs(3):
        for (x,) in run.batches(loader):
            print(run.step, flush=True)
            time.sleep(0.005)
"""


def test_sigterm_saves_says_where_and_ends_the_process_as_it_would_have(tmp_path):
    command = [sys.executable, "-c", textwrap.dedent(SCRIPT), str(tmp_path), "1"]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    for _ in range(5):
        child.stdout.readline()
    os.kill(child.pid, signal.SIGTERM)
    _, stderr = child.communicate(timeout=60)
    assert child.returncode == -signal.SIGTERM
    (path,) = tmp_path.glob("net_epoch0000_step*.pth")
    assert f"the training is saved in {path}" in stderr
    assert torch.load(path, weights_only=True)["batch"] >= 5


def test_the_handler_of_before_gets_the_signal_and_is_back_afterwards(tmp_path):
    calls = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: calls.append(number))
    try:
        mine = signal.getsignal(signal.SIGTERM)
        run = ls.Run(tmp_path, data=[1, 2, 3], name="net")
        for at in run.batches():
            if at == 2:
                os.kill(os.getpid(), signal.SIGTERM)
                assert calls == []
        assert calls == [signal.SIGTERM]
        assert signal.getsignal(signal.SIGTERM) == mine
        assert names(run) == ["net_epoch0000_step000002.pth"]
    finally:
        signal.signal(signal.SIGTERM, before)


def test_an_error_in_the_background_is_raised_by_a_later_call(tmp_path):
    model, optimizer, _ = parts()
    run = ls.Run(tmp_path / "run", model=model, optimizer=optimizer, name="net", wait=False)
    (tmp_path / "run").write_text("in the way")
    run.save(epoch=1)
    with pytest.raises((ls.LoadstoneError, OSError)):
        run.close()


def test_what_the_script_draws_after_a_resume_does_not_change_the_training(tmp_path):
    def drawn(run, extra):
        for _ in range(extra):
            random.random()
        (epoch,) = (epoch for epoch in run.epochs(2) if epoch == 2)
        return epoch, random.random()

    with ls.Run(tmp_path, data=[1, 2], name="net") as run:
        run.save(epoch=1)
    results = []
    for extra in (0, 5):
        again = ls.Run(tmp_path, data=[1, 2], name="net")
        again.resume()
        results.append(drawn(again, extra))
    assert results[0] == results[1]
