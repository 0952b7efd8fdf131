"""Stop a training anywhere and go on as if it had not been stopped: same batches, same dropout, same weights."""

import tempfile
from pathlib import Path

import torch
from torch import nn

import loadstone as ls


def train(folder, stop_at=None):
    """A training script; with `stop_at` it is left in the middle of an epoch, as a crash would."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.2), nn.Linear(8, 2))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    data = torch.utils.data.TensorDataset(torch.randn(32, 4), torch.randn(32, 2))
    loader = torch.utils.data.DataLoader(data, batch_size=4, shuffle=True)
    run = ls.Run(folder, model=model, optimizer=optimizer, data=loader, name="net", every="5 steps")
    print(run.resume())
    for _ in run.epochs(3):
        for x, y in run.batches():
            if run.step == stop_at:
                return model
            loss = nn.functional.mse_loss(model(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        run.save(loss=loss.item())
    run.close()
    return model


with tempfile.TemporaryDirectory() as folder:
    whole = train(Path(folder, "whole"))
    train(Path(folder, "run"), stop_at=15)
    resumed = train(Path(folder, "run"))
    assert all(map(torch.equal, whole.state_dict().values(), resumed.state_dict().values()))
    print("the same to the bit")
