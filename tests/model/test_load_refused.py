"""A load that is refused leaves the model as it was, to the bit, whatever the reason."""

from __future__ import annotations

import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import loadstone as ls

Unchanged = Callable[[nn.Module], Callable[[], None]]


def saved(model: nn.Module, path: Path) -> Path:
    torch.save(model.state_dict(), path)
    return path


@pytest.mark.parametrize("options", [{}, {"strict": False}, {"assign": True}, {"backup": True}])
def test_one_wrong_shape(
    small: nn.Module, trained: nn.Module, unchanged: Unchanged, tmp_path: Path, options: dict[str, Any]
) -> None:
    state = trained.state_dict()
    state["embed.weight"] = torch.zeros(6, 4)
    state["head.weight"] = torch.zeros(6, 4)
    torch.save(state, tmp_path / "bad.pth")
    check = unchanged(small)
    if options == {"strict": False}:  # loads the rest on purpose; nothing of the embedding
        before = small.embed.weight.clone()
        ls.load(small, tmp_path / "bad.pth", strict=False)
        assert torch.equal(small.embed.weight, before)
        return
    with pytest.raises(ls.MatchError, match="shape-mismatch") as caught:
        ls.load(small, tmp_path / "bad.pth", **options)
    assert caught.value.plan is not None
    assert "embed.weight" in caught.value.plan.mismatched_keys
    check()


@pytest.mark.parametrize("kind", ["pre", "post", "override"])
def test_hook_that_raises(
    small: nn.Module, trained: nn.Module, unchanged: Unchanged, tmp_path: Path, kind: str
) -> None:
    def raising(*args: object) -> None:
        raise RuntimeError("not today")

    if kind == "pre":
        small.norm._register_load_state_dict_pre_hook(raising)
    elif kind == "post":
        small.norm.register_load_state_dict_post_hook(raising)
    else:
        small.norm._load_from_state_dict = raising  # type: ignore[method-assign]
    path = saved(trained, tmp_path / "m.pth")
    check = unchanged(small) if kind != "post" else None
    values = {key: value.clone() for key, value in small.state_dict().items()}
    with pytest.raises(ls.MatchError, match=r"hook-failed.*\n?.*not today"):
        ls.load(small, path)
    if check is not None:
        check()
    assert all(torch.equal(value, values[key]) for key, value in small.state_dict().items())


@pytest.mark.parametrize("on_meta", [False, True])
def test_adapter_that_raises(
    small: nn.Module, trained: nn.Module, unchanged: Unchanged, tmp_path: Path, on_meta: bool
) -> None:
    def adapter(tensor: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
        raise ZeroDivisionError("division by zero")

    state = trained.state_dict()
    state["first.weight"] = torch.zeros(9, 3)
    torch.save(state, tmp_path / "m.pth")
    if on_meta:
        small.to("meta")
        small.mask = torch.ones(2, 2)
    check = unchanged(small)
    with pytest.raises(ls.MatchError, match=r"adapter-failed.*ZeroDivisionError"):
        ls.load(small, tmp_path / "m.pth", adapt={"first.weight": adapter})
    check()


@pytest.mark.parametrize("result", [torch.zeros(2, 2), "no tensor"])
def test_adapter_that_gives_the_wrong_thing(
    small: nn.Module, trained: nn.Module, unchanged: Unchanged, tmp_path: Path, result: object
) -> None:
    state = trained.state_dict()
    state["first.weight"] = torch.zeros(9, 3)
    torch.save(state, tmp_path / "m.pth")
    check = unchanged(small)
    with pytest.raises(ls.MatchError, match=r"adapter-failed.*`first.weight`"):
        ls.load(small, tmp_path / "m.pth", adapt={"first.weight": lambda tensor, shape: result})
    check()


def test_adapter_that_runs_out_of_memory(
    small: nn.Module, trained: nn.Module, unchanged: Unchanged, tmp_path: Path
) -> None:
    def adapter(tensor: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
        raise MemoryError

    state = trained.state_dict()
    state["norm.weight"] = torch.zeros(9)
    torch.save(state, tmp_path / "m.pth")
    check = unchanged(small)
    with pytest.raises(MemoryError):
        ls.load(small, tmp_path / "m.pth", adapt={"norm.weight": adapter})
    check()


def deflated(path: Path, *, damaged: bool) -> Path:
    """The archive with every record deflated, and the stream of the last tensor damaged."""
    rewritten = path.with_name("deflated.pth")
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(rewritten, "w", zipfile.ZIP_DEFLATED) as target:
        names = source.namelist()
        for name in names:
            target.writestr(name, source.read(name))
        last = max(
            (info for info in target.infolist() if "/data/" in info.filename), key=lambda info: info.header_offset
        )
    if damaged:
        data = bytearray(rewritten.read_bytes())
        lengths = struct.unpack_from("<HH", data, last.header_offset + 26)
        start = last.header_offset + 30 + sum(lengths)
        data[start : start + last.compress_size] = b"\xff" * last.compress_size
        rewritten.write_bytes(data)
    return rewritten


def test_damaged_deflate_stream(small: nn.Module, trained: nn.Module, unchanged: Unchanged, tmp_path: Path) -> None:
    path = deflated(saved(trained, tmp_path / "m.pth"), damaged=True)
    check = unchanged(small)
    with pytest.raises(ls.IntegrityError, match="bad-compression"):
        ls.load(small, path)
    check()


def test_deflated_archive_loads_to_the_bit(small: nn.Module, trained: nn.Module, tmp_path: Path) -> None:
    ls.load(small, deflated(saved(trained, tmp_path / "m.pth"), damaged=False))
    assert all(torch.equal(value, small.state_dict()[key]) for key, value in trained.state_dict().items())
    assert zlib.crc32(b"") == 0


def test_file_cut_short_after_the_plan(
    small: nn.Module, trained: nn.Module, unchanged: Unchanged, tmp_path: Path
) -> None:
    path = saved(trained, tmp_path / "m.pth")
    plan = ls.plan(small, path)
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size - 500)
    check = unchanged(small)
    with pytest.raises(ls.MatchError, match=r"stale-plan.*bytes when it was opened"):
        plan.apply()
    check()


def test_model_changed_after_the_plan(small: nn.Module, trained: nn.Module, unchanged: Unchanged) -> None:
    plan = ls.plan(small, trained.state_dict())
    small.first = nn.Linear(3, 6)
    check = unchanged(small)
    with pytest.raises(ls.MatchError, match=r"stale-plan.*`first.weight`"):
        plan.apply()
    check()


def test_cast_that_overflows_names_key_count_and_place(unchanged: Unchanged, tmp_path: Path) -> None:
    model = nn.Linear(3, 2).half()
    state = {"weight": torch.tensor([[1.0, 2.0, 3.0], [4.0, 1e9, -1e9]]), "bias": torch.zeros(2)}
    torch.save(state, tmp_path / "m.pth")
    check = unchanged(model)
    with pytest.raises(ls.MatchError, match=r"dtype-breaks-values.*2 values of `weight`") as caught:
        ls.load(model, tmp_path / "m.pth")
    assert "index [1, 1]" in str(caught.value)
    check()


def test_infinity_in_the_file_is_no_overflow(tmp_path: Path) -> None:
    model = nn.Linear(1, 2).half()
    torch.save({"weight": torch.tensor([[float("inf")], [1.0]]), "bias": torch.zeros(2)}, tmp_path / "m.pth")
    ls.load(model, tmp_path / "m.pth")
    assert model.weight[0].isinf().all()


def test_tied_parameter_with_two_different_sources(
    small: nn.Module, trained: nn.Module, unchanged: Unchanged, tmp_path: Path
) -> None:
    state = dict(trained.state_dict())
    state["head.weight"] = state["embed.weight"] + 1
    torch.save(state, tmp_path / "m.pth")
    check = unchanged(small)
    with pytest.raises(ls.MatchError, match=r"tied-conflict.*embed.weight"):
        ls.load(small, tmp_path / "m.pth")
    check()


def test_expanded_parameter(unchanged: Unchanged) -> None:
    model = nn.Module()
    model.weight = nn.Parameter(torch.zeros(1).expand(4))
    check = unchanged(model)
    with pytest.raises(ls.FormatError, match=r"unsupported-feature.*expanded"):
        ls.load(model, {"weight": torch.ones(4)})
    check()


def test_tensor_that_would_stay_on_meta(trained: nn.Module, unchanged: Unchanged, tmp_path: Path) -> None:
    with torch.device("meta"):
        model = type(trained)()
    path = saved(trained, tmp_path / "m.pth")
    check = unchanged(model)
    with pytest.raises(ls.MatchError, match=r"left-on-meta.*`mask`"):
        ls.load(model, path)
    check()


def test_meta_model_is_all_or_nothing(unchanged: Unchanged, tmp_path: Path) -> None:
    with torch.device("meta"):
        model = nn.Linear(3, 2)
    torch.save({"weight": torch.zeros(2, 3), "bias": torch.zeros(5)}, tmp_path / "m.pth")
    check = unchanged(model)
    with pytest.raises(ls.MatchError, match="shape-mismatch"):
        ls.load(model, tmp_path / "m.pth")
    check()


def test_integer_parameter_that_wants_a_gradient_on_the_assign_path(unchanged: Unchanged) -> None:
    model = nn.Linear(2, 2)
    check = unchanged(model)
    with pytest.raises(ls.LoadstoneError):
        ls.load(model, {"weight": torch.ones(2, 2, dtype=torch.int64), "bias": torch.zeros(2)}, assign=True)
    check()


def test_nothing_runs_and_nothing_changes_when_only_planning(
    small: nn.Module, trained: nn.Module, unchanged: Unchanged, tmp_path: Path
) -> None:
    path = saved(trained, tmp_path / "m.pth")
    check = unchanged(small)
    assert ls.plan(small, path).ok
    check()
