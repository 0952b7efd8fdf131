"""Trainings of many kinds, each run whole, run killed in the middle of an epoch, and resumed in a new process.

A program: cells come as JSON lines on stdin, what happened goes as JSON lines to stdout.  torch is imported once, and
every training is a fork, so that a cell costs a fraction of a second.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import tempfile
import traceback
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.optim import lr_scheduler

import loadstone as ls
from loadstone.io.digests import digest

EPOCHS, BATCHES = 2, 7


class Noisy(torch.utils.data.Dataset):
    """Every sample draws from every generator, as augmentation does."""

    def __len__(self):
        return BATCHES * 4

    def __getitem__(self, at):
        x = torch.linspace(0, 1, 6) * (at + 1) / 10 + torch.rand(6) / 10
        return x + random.random() / 10, x[:2] + float(np.random.rand()) / 10


OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, nesterov=True),
    "adam": lambda p: torch.optim.Adam(p, lr=0.01, amsgrad=True),
    "adamw-foreach": lambda p: torch.optim.AdamW(p, lr=0.01, foreach=True),
    "adamw-fused": lambda p: torch.optim.AdamW(p, lr=0.01, fused=True),
    "lbfgs": lambda p: torch.optim.LBFGS(p, lr=0.1, max_iter=3, history_size=5),
}
SCHEDULERS = {
    "step": lambda o: lr_scheduler.StepLR(o, 1, gamma=0.7),
    "cosine": lambda o: lr_scheduler.CosineAnnealingLR(o, T_max=5),
    "onecycle": lambda o: lr_scheduler.OneCycleLR(o, 0.05, total_steps=EPOCHS * BATCHES, cycle_momentum=False),
    "sequential": lambda o: lr_scheduler.SequentialLR(
        o, [lr_scheduler.ConstantLR(o, 0.5, 1), lr_scheduler.ExponentialLR(o, 0.9)], [1]
    ),
    "plateau": lambda o: lr_scheduler.ReduceLROnPlateau(o, patience=0, factor=0.5),
}


def train(cell, folder, log, kill_at=None):
    torch.manual_seed(1), random.seed(2), np.random.seed(3)
    model = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.3), nn.Linear(8, 2))
    optimizer = OPTIMIZERS[cell["optimizer"]](model.parameters())
    scheduler = SCHEDULERS[cell["scheduler"]](optimizer)
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0, growth_interval=3) if cell["scaler"] else None
    loader = torch.utils.data.DataLoader(
        Noisy(),
        batch_size=4,
        shuffle=True,
        num_workers=cell["workers"],
        generator=torch.Generator().manual_seed(4) if cell["generator"] else None,
    )
    run = ls.Run(
        folder, model=model, optimizer=optimizer, scheduler=scheduler, scaler=scaler, data=loader, name="net",
        every="2 steps", wait=cell["wait"], layout=cell["layout"], keep=ls.Keep(last=2),
    )  # fmt: skip
    at = run.resume()
    torch.rand(at.step + 1)  # what a script draws on its way must not matter
    with log.open("a") as lines:
        for _ in run.epochs(EPOCHS):
            for x, y in run.batches(loader):
                rates = [group["lr"] for group in optimizer.param_groups]
                lines.write(json.dumps([run.step, digest(x.numpy().tobytes()), rates]) + "\n")
                lines.flush()
                loss = step(model, optimizer, scaler, x, y, run.step % cell["accumulate"] == 0, run.step == kill_at)
                if cell["scheduler"] == "onecycle":
                    scheduler.step()
            if cell["scheduler"] == "plateau":
                scheduler.step(loss)
            elif cell["scheduler"] != "onecycle":
                scheduler.step()
            run.save(loss=loss)
        run.close()
        state = {key: digest(value.numpy().tobytes()) for key, value in model.state_dict().items()}
        lines.write(json.dumps({"resumed": [at.epoch, at.step, at.batch], "weights": state}) + "\n")


def step(model, optimizer, scaler, x, y, is_last, is_killed):
    def loss_now():
        return nn.functional.mse_loss(model(x), y)

    def closure():
        optimizer.zero_grad()
        loss = loss_now()
        loss.backward()
        return loss

    if isinstance(optimizer, torch.optim.LBFGS):
        loss = closure()
        if is_killed:
            os.kill(os.getpid(), signal.SIGKILL)
        optimizer.step(closure)
        return loss.item()
    loss = loss_now()
    (loss if scaler is None else scaler.scale(loss)).backward()
    if is_killed:
        os.kill(os.getpid(), signal.SIGKILL)
    if is_last:
        if scaler is None:
            optimizer.step()
        else:
            scaler.step(optimizer)
            scaler.update()
        optimizer.zero_grad()
    return loss.item()


def in_a_fork(*arguments, **options):
    """The exit status of a training in a process of its own; its errors go to stderr."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            train(*arguments, **options)
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def carried_out(cell):
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        whole, killed, resumed = place / "whole.log", place / "killed.log", place / "resumed.log"
        statuses = [
            in_a_fork(cell, place / "whole", whole),
            in_a_fork(cell, place / "run", killed, kill_at=cell["kill"]),
            in_a_fork(cell, place / "run", resumed),
        ]
        logs = [[json.loads(line) for line in log.read_text().splitlines()] for log in (whole, killed, resumed)]
    return {"statuses": statuses, "whole": logs[0], "killed": logs[1], "resumed": logs[2]}


if __name__ == "__main__":
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as place:  # what torch imports at its first step, it imports here
        warm = {"optimizer": "adam", "scheduler": "step", "workers": 0, "accumulate": 1, "scaler": True}
        train({**warm, "generator": False, "wait": True, "layout": "file"}, Path(place, "run"), Path(place, "log"))
    for text in sys.stdin:
        print(json.dumps(carried_out(json.loads(text))), flush=True)
