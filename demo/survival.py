"""A training on handwritten digits that is killed in the middle of an epoch, damaged, and goes on exactly."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from pathlib import Path

import loadstone as ls
from datasets import digits
from stage import OffError, check, command, say, title

TRAINING = """
import os, signal, sys
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
import loadstone as ls

folder, killed_at = sys.argv[1], int(sys.argv[2])
torch.set_num_threads(1)
torch.manual_seed(0)
images, labels = torch.load("digits.pth").values()
loader = DataLoader(TensorDataset(images, labels), batch_size=50, shuffle=True)
model = nn.Sequential(
    nn.Conv2d(1, 8, 3, 2), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Dropout(0.2), nn.Linear(1352, 10)
)
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-2, total_steps=160)

with ls.Run(folder, name="digits", model=model, optimizer=optimizer, scheduler=scheduler, data=loader, every="15 steps",
            keep=ls.Keep(last=3, best=1, metric="loss")) as run:
    print(str(run.resume()).splitlines()[0])
    seen = 0
    for epoch in run.epochs(4):
        for x, y in run.batches(loader):
            loss = nn.functional.cross_entropy(model(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            scheduler.step()
            seen += 1
            if seen == killed_at:
                os.kill(os.getpid(), signal.SIGKILL)
        run.save(loss=loss)
ls.save(model, folder + ".safetensors")
"""


def survival() -> None:
    """The step of the demo."""
    title("8. A training that is killed, and whose last checkpoint is damaged")
    data = digits()
    ls.save({"images": data.images[: data.trained, None], "labels": data.labels[: data.trained]}, "digits.pth")
    Path("train.py").write_text(TRAINING)
    say("The same script, 160 batches of handwritten digits, once undisturbed and once killed (SIGKILL) at batch 97.")
    train("undisturbed")
    ended = train("killed", killed_at=97)
    check(ended == -signal.SIGKILL, "the process is gone, in the middle of epoch 3")
    command("list killed")
    newest = sorted(Path("killed").glob("digits_*.pth"))[-1]
    say(f"As if that were not enough, one bit of the newest checkpoint, {newest.name}, flips.")
    data_on_disk = bytearray(newest.read_bytes())
    data_on_disk[len(data_on_disk) // 2] ^= 1
    newest.write_bytes(data_on_disk)
    command(f"verify {newest}", status=1)
    say("Started again, it passes over the damaged one, says so, and goes on from the one before.")
    train("killed")
    same = Path("killed.safetensors"), Path("undisturbed.safetensors")
    weights = [digests(path) for path in same]
    check(weights[0] == weights[1], f"all {len(weights[0])} tensors are to the bit those of the training never stopped")


def train(folder: str, *, killed_at: int = 0) -> int:
    """Run the script; its exit status."""
    print(f"\n$ python train.py {folder} {killed_at}", flush=True)
    done = subprocess.run(
        [sys.executable, "train.py", folder, str(killed_at)], capture_output=True, text=True, check=False
    )
    print(done.stdout.strip("\n"), flush=True)
    warned = re.search(r"\w+\[damaged-checkpoint\].*", done.stderr)
    if warned:
        print(warned[0], flush=True)
    if done.returncode not in (0, -signal.SIGKILL):
        raise OffError(f"the training ended with status {done.returncode}:\n{done.stderr}")
    return done.returncode


def digests(path: Path) -> dict[str, str]:
    """The digest of every tensor, as the file has it."""
    with ls.open(path) as checkpoint:
        if checkpoint.manifest is None:
            raise OffError(f"{path} has no manifest")
        return {key: mark.digest for key, mark in checkpoint.manifest.tensors.items()}
