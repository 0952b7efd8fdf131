"""The optimizer's state follows a match by structure, and says what it cannot follow."""

from __future__ import annotations

from pathlib import Path

import pytest

import loadstone

torch = pytest.importorskip("torch")
nn = torch.nn


class Old(nn.Module):
    """A square matrix stored transposed beside one that proves it, as GPT-2's Conv1D does."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Linear(6, 8)
        self.h = nn.ModuleList(nn.ModuleDict({"fc": Transposed(8, 32), "proj": Transposed(32, 8)}) for _ in range(2))
        self.end = nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        for block in self.h:
            x = x + block["proj"](block["fc"](x).relu())
        return self.end(x)


class Transposed(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(inputs, outputs))
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x @ self.weight + self.bias


class New(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedder = nn.Linear(6, 8)
        self.blocks = nn.ModuleList(nn.ModuleDict({"up": nn.Linear(8, 32), "down": nn.Linear(32, 8)}) for _ in range(2))
        self.head = nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.embedder(x)
        for block in self.blocks:
            x = x + block["down"](block["up"](x).relu())
        return self.head(x)


def trained(model: nn.Module) -> torch.optim.Optimizer:
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.randn(4, 6)).square().sum().backward()
    optimizer.step()
    return optimizer


def test_state_follows_what_only_has_another_name_and_starts_anew_where_weights_change(tmp_path: Path) -> None:
    torch.manual_seed(0)
    old = Old()
    optimizer = trained(old)
    with loadstone.Run(tmp_path / "run", name="net", model=old, optimizer=optimizer) as run:
        run.save(epoch=1)

    new = New()
    following = torch.optim.AdamW(new.parameters())
    with loadstone.Run(tmp_path / "run", name="net", model=new, optimizer=following) as run:
        at = run.resume(strict="transfer", match="structure")
    assert at.epoch == 1
    assert torch.equal(new.blocks[1]["up"].weight, old.h[1]["fc"].weight.T)
    kept = following.state[new.embedder.weight]["exp_avg"]
    assert torch.equal(kept, optimizer.state[old.stem.weight]["exp_avg"])
    assert torch.equal(
        following.state[new.blocks[0]["down"].bias]["exp_avg"],
        optimizer.state[old.h[0]["proj"].bias]["exp_avg"],
    )
    assert not following.state.get(new.blocks[0]["up"].weight)
    assert "its weights are changed on the way" in str(at.report)
