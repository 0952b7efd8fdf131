"""Save and load a checkpoint to resume training: epoch, model_state_dict, optimizer_state_dict, loss.

    RuntimeError: Error(s) in loading state_dict for Sequential:
        Missing key(s) in state_dict: "0.weight", "0.bias", "2.weight", "2.bias".
        Unexpected key(s) in state_dict: "epoch", "model_state_dict", "optimizer_state_dict", "loss".

is what the whole dict gives where torch wants the part that is the model's.
"""

import tempfile
from pathlib import Path

import torch
from torch import nn

import loadstone as ls


def model_and_optimizer():
    """As the training script makes them."""
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    return model, torch.optim.Adam(model.parameters(), lr=0.01)


with tempfile.TemporaryDirectory() as folder:
    path = Path(folder) / "checkpoint.pth"
    model, optimizer = model_and_optimizer()
    loss = model(torch.rand(16, 4)).square().mean()
    loss.backward()
    optimizer.step()
    state = {"model_state_dict": model.state_dict(), "optimizer_state_dict": optimizer.state_dict()}
    ls.save({"epoch": 5, "loss": loss.item(), **state}, path)  # whole or not at all, also if the power fails

    resumed, its_optimizer = model_and_optimizer()
    ls.load(resumed, path)  # finds the part that is the weights
    with ls.open(path) as checkpoint:
        its_optimizer.load_state_dict(checkpoint.read("optimizer_state_dict"))
        epoch, last_loss = checkpoint.read("epoch"), checkpoint.read("loss")

assert (epoch, last_loss) == (5, loss.item())
for one, other in ((model, optimizer), (resumed, its_optimizer)):  # both go on alike
    other.zero_grad()
    one(torch.ones(1, 4)).sum().backward()
    other.step()
assert all(map(torch.equal, model.parameters(), resumed.parameters()))
print(f"resumed after epoch {epoch}")
