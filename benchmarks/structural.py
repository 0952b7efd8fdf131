"""A load of another implementation's file, joined or transposed on the way: against reading the same bytes bare."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import nn

import loadstone
from benchmarks.cases import Bars, Figure
from benchmarks.loaders import bare_read
from benchmarks.timing import interleaved

LAYERS = 12
WIDTH = 1024
KEYS = 30_000
BUDGET = 1.25
PLAN_BUDGET = 8.0  # seconds


class Theirs(nn.Module):
    """Queries, keys and values apart."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.query, self.key, self.value, self.dense = (nn.Linear(width, width) for _ in range(4))
        self.feed_in, self.feed_out = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)


class Ours(nn.Module):
    """Queries, keys and values in one."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.fc1, self.fc2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)


def stack(kind: type[nn.Module], layers: int = LAYERS, width: int = WIDTH) -> nn.Module:
    """Blocks of one kind; 151 M float32 parameters by default."""
    return nn.ModuleList(kind(width) for _ in range(layers))


def load_other_implementation(folder: Path) -> tuple[list[Figure], list[Bars]]:
    """Names of another code base; q, k and v joined, or every matrix transposed."""
    figures, bars = [], []
    theirs = stack(Theirs)
    state = theirs.state_dict()
    ways: dict[str, tuple[nn.Module, dict[str, torch.Tensor], Callable[[Path, nn.Module], object]]] = {
        "q, k, v joined": (theirs, state, by_hand),
        "transposed": (stack(Ours), turned(stack(Ours).state_dict()), by_hand_turned),
    }
    for what, (same, content, beside) in ways.items():
        path = folder / f"{what.replace(', ', '')}.pth"
        torch.save(content, path)
        if what == "transposed":  # the floor reads the bytes as they are
            same = _with_the_shapes(content)
        model = stack(Ours)
        contenders: dict[str, Callable[[], object]] = {
            "bare read": bare_read(same, path),
            "loadstone": partial(loadstone.load, model, path, match="structure"),
            "torch.load, renamed and joined by hand": partial(beside, path, model),
        }
        timings = interleaved(contenders)
        floor = timings.pop("bare read")
        ratio = timings["loadstone"].ratio_to(floor)
        others = {name: f"{timing.ratio_to(floor):.2f} ×" for name, timing in timings.items() if name != "loadstone"}
        has_budget = what == "q, k, v joined"
        budget = f"≤ {BUDGET} × the bare read" if has_budget else "reported"
        figures.append(
            Figure(f"by structure, {what}", budget, f"{ratio:.2f} ×", not has_budget or ratio <= BUDGET, others)
        )
        seconds = {"bare read": floor.median} | {name: timing.median for name, timing in timings.items()}
        bars.append(Bars(f"from another implementation, {what}", "structure", seconds))
        path.unlink()
    return figures, bars


def plan_by_structure() -> list[Figure]:
    """The whole plan, questions included, for 30,000 keys under other names."""
    with torch.device("meta"):
        theirs, ours = (stack(kind, KEYS // 12, 4) for kind in (Theirs, Ours))
    start = time.perf_counter()
    plan = loadstone.plan(ours, theirs.state_dict(), match="structure")
    seconds = time.perf_counter() - start
    assert len(plan.schema.slots) + len(plan.sources) >= KEYS
    return [
        Figure(
            f"plan by structure, {len(plan.sources):,} keys",
            f"≤ {PLAN_BUDGET:.0f} s",
            f"{seconds:.1f} s",
            seconds <= PLAN_BUDGET,
        )
    ]


def by_hand(path: Path, model: nn.Module) -> None:
    """What people write: a loop over the blocks."""
    state = torch.load(path)
    made = {}
    for number in range(LAYERS):
        for role in ("weight", "bias"):
            parts = [state[f"{number}.{name}.{role}"] for name in ("query", "key", "value")]
            made[f"{number}.qkv.{role}"] = torch.cat(parts)
            for old, new in (("dense", "proj"), ("feed_in", "fc1"), ("feed_out", "fc2")):
                made[f"{number}.{new}.{role}"] = state[f"{number}.{old}.{role}"]
    model.load_state_dict(made)


def by_hand_turned(path: Path, model: nn.Module) -> None:
    """The same for matrices that are stored (in, out)."""
    model.load_state_dict(turned(torch.load(path)))


def turned(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Every matrix transposed."""
    return {key: value.t().contiguous() if value.dim() == 2 else value for key, value in state.items()}


def _with_the_shapes(content: dict[str, torch.Tensor]) -> nn.Module:
    """A module with parameters of these keys and shapes."""
    root = nn.Module()
    for key, value in content.items():
        *path, name = key.split(".")
        module = root
        for part in path:
            if not hasattr(module, part):
                module.add_module(part, nn.Module())
            module = module.get_submodule(part)
        module.register_parameter(name, nn.Parameter(torch.empty_like(value)))
    return root
