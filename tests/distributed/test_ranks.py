"""Two real processes over gloo: what each rank loads, and what ranks save together, read in one process."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.distributed.checkpoint.format_utils import dcp_to_torch_save

import loadstone as ls

RANK = Path(__file__).with_name("rank.py")
RANKS = 2
NAMES = ("plain.pth", "module.pth")


def network(seed: int) -> nn.Module:
    """The network of rank.py."""
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, 7), nn.BatchNorm1d(7), nn.Linear(7, 1))


@pytest.fixture(scope="module")
def left(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory that the ranks worked in."""
    directory = tmp_path_factory.mktemp("ranks")
    state = network(seed=1).state_dict()
    torch.save(state, directory / "plain.pth")
    torch.save({f"module.{key}": tensor for key, tensor in state.items()}, directory / "module.pth")
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={RANKS}"]
    run = subprocess.run(
        [*launch, str(RANK), str(directory)],
        capture_output=True, text=True, timeout=120, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert run.returncode == 0, run.stderr[-4000:]
    return directory


@pytest.fixture(scope="module")
def consolidated(left: Path) -> dict[str, Any]:
    """torch's own reading of what the ranks saved."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own, about reading without a process group
        dcp_to_torch_save(left / "sharded", left / "consolidated.pth")
    return torch.load(left / "consolidated.pth", weights_only=True)  # type: ignore[no-any-return]


def tensors_in(value: Any, key: str = "") -> dict[str, torch.Tensor]:
    """Every tensor of nested dicts by dotted key."""
    if isinstance(value, torch.Tensor):
        return {key: value}
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return {
        place: tensor
        for name, child in items
        for place, tensor in tensors_in(child, f"{key}.{name}" if key else str(name)).items()
    }


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("rank", range(RANKS))
def test_every_rank_of_ddp_has_the_weights_of_the_file(left: Path, name: str, rank: int) -> None:
    loaded = torch.load(left / f"loaded-{name}-{rank}", weights_only=True)
    expected = network(seed=1).state_dict()
    assert loaded.keys() == expected.keys()
    for key, tensor in expected.items():
        assert torch.equal(loaded[key], tensor), key


@pytest.mark.parametrize("name", NAMES)
def test_ranks_still_share_gradients_after_the_load(left: Path, name: str) -> None:
    first, second = (torch.load(left / f"gradients-{name}-{rank}", weights_only=True) for rank in range(RANKS))
    assert all(torch.equal(one, other) for one, other in zip(first, second, strict=True))
    assert any(gradient.count_nonzero() for gradient in first)


def test_each_rank_wrote_a_part(left: Path) -> None:
    assert len(list((left / "sharded").glob("*.distcp"))) == RANKS


def test_what_ranks_saved_is_read_as_torch_consolidates_it(left: Path, consolidated: dict[str, Any]) -> None:
    expected = tensors_in(consolidated)
    with ls.open(left / "sharded") as checkpoint:
        assert checkpoint.format == "dcp"
        assert checkpoint.tree["step"] == 1
        assert checkpoint.tensors.keys() == expected.keys()
        for key, tensor in expected.items():
            assert checkpoint.tensors[key].dtype == str(tensor.dtype).removeprefix("torch."), key
            assert torch.equal(checkpoint.tensors[key].read(), tensor), key


def test_tensors_that_ranks_cut_are_put_together(left: Path) -> None:
    table = torch.arange(30.0).reshape(5, 6).to(torch.bfloat16)
    with ls.open(left / "sharded") as checkpoint:
        assert checkpoint.tensors["tables.columns"].layout == "chunked"
        for name in ("columns", "copies", "plain"):
            assert torch.equal(checkpoint.tensors[f"tables.{name}"].read(), table), name


def test_sharded_weights_load_into_a_plain_model(left: Path, consolidated: dict[str, Any]) -> None:
    model = network(seed=2)
    ls.load(model, left / "sharded")
    for key, tensor in model.state_dict().items():
        assert torch.equal(tensor, consolidated["model"][key]), key


def test_sharded_weights_fill_a_model_on_meta(left: Path, consolidated: dict[str, Any]) -> None:
    with torch.device("meta"):
        model = network(seed=2)
    ls.load(model, left / "sharded")
    for key, tensor in model.state_dict().items():
        assert torch.equal(tensor, consolidated["model"][key]), key
