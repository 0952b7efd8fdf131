"""DeepSpeed checkpoints, cut as ZeRO cuts them, and put together again without a copy."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from math import prod
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from loadstone.errors import FormatError, IntegrityError, LoadstoneError, UnsafeError
from loadstone.formats import deepspeed
from loadstone.formats.contents import Contents, Context
from loadstone.formats.registry import open_source

Groups = list[dict[str, torch.Tensor]]
Change = Callable[[dict[str, Any]], Any]

GROUPS: Groups = [
    {"fc.weight": torch.arange(12.0).reshape(3, 4), "fc.bias": torch.arange(3.0)},
    {"norm.weight": torch.full((5,), 7.0)},
]


def read(path: Path) -> Contents:
    assert deepspeed.recognises_directory(path)
    return deepspeed.read_directory(path, Context(open_source))


def padded(tensor: torch.Tensor, multiple: int) -> torch.Tensor:
    return torch.cat([tensor.flatten(), torch.zeros(-tensor.numel() % multiple)])


def write(path: Path, groups: Groups, ranks: int, stage: int, **model: Any) -> Path:
    """What `model_engine.save_checkpoint(path)` leaves: see deepspeed/utils/zero_to_fp32.py."""
    step = path / "global_step5"
    step.mkdir(parents=True)
    (path / "latest").write_text("global_step5\n")
    states: dict[str, Any] = {
        "module": {key: tensor.half() for group in groups for key, tensor in group.items()},
        "param_shapes": [OrderedDict((key, tensor.shape) for key, tensor in group.items()) for group in groups],
        "buffer_names": [],
        "ds_version": "0.14.0",
        **model,
    }
    for rank in range(ranks):
        optimizer: dict[str, Any] = {"zero_stage": stage, "partition_count": [ranks] * len(groups)}
        if stage < 3:
            flat = [padded(torch.cat([t.flatten() for t in group.values()]), 2 * ranks) for group in groups]
            optimizer["single_partition_of_fp32_groups"] = [one.chunk(ranks)[rank].clone() for one in flat]
        else:
            optimizer["partition_count"] = ranks
            shares = [[padded(t, ranks).chunk(ranks)[rank] for t in group.values()] for group in groups]
            optimizer["fp32_flat_groups"] = [torch.cat(share) for share in shares]
            torch.save(states, step / f"zero_pp_rank_{rank}_mp_rank_00_model_states.pt")
        torch.save({"optimizer_state_dict": optimizer}, step / f"zero_pp_rank_{rank}_mp_rank_00_optim_states.pt")
    if stage < 3:
        torch.save(states, step / "mp_rank_00_model_states.pt")
    return path


def assert_weights(contents: Contents, groups: Groups) -> None:
    expected = {key: tensor for group in groups for key, tensor in group.items()}
    assert contents.tree.keys() == expected.keys()
    for key, tensor in expected.items():
        found = contents.tree[key].read()
        assert found.dtype == torch.float32
        assert torch.equal(found, tensor), key


@pytest.mark.parametrize("stage", [1, 2, 3])
@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_float32_weights_are_put_together(tmp_path: Path, stage: int, ranks: int) -> None:
    contents = read(write(tmp_path / "run", GROUPS, ranks, stage))
    assert_weights(contents, GROUPS)
    assert (contents.format, contents.weights) == ("deepspeed", ())
    assert contents.metadata["zero_stage"] == str(stage)
    assert contents.metadata["step"] == "global_step5"


@settings(max_examples=15, deadline=None)
@given(
    st.lists(st.lists(st.lists(st.integers(0, 4), max_size=3), min_size=1, max_size=4), min_size=1, max_size=2),
    st.integers(1, 4),
    st.sampled_from([2, 3]),
)
def test_any_shapes_on_any_number_of_ranks_come_back(
    tmp_path_factory: pytest.TempPathFactory, shapes: list[list[list[int]]], ranks: int, stage: int
) -> None:
    groups = [
        {f"g{g}.p{p}": torch.randn(prod(shape)).reshape(shape) for p, shape in enumerate(group)}
        for g, group in enumerate(shapes)
    ]
    assert_weights(read(write(tmp_path_factory.mktemp("zero") / "run", groups, ranks, stage)), groups)


def test_step_directory_itself_is_read(tmp_path: Path) -> None:
    assert_weights(read(write(tmp_path / "run", GROUPS, 2, 2) / "global_step5"), GROUPS)


def test_parameter_over_two_files_is_not_copied(tmp_path: Path) -> None:
    info = read(write(tmp_path / "run", GROUPS, 2, 2)).tree["fc.weight"]
    assert len(info.storage.extents) == 2


def test_buffers_come_from_the_module(tmp_path: Path) -> None:
    module = {"fc.weight": torch.zeros(3, 4), "running_mean": torch.tensor([1.0, 2.0])}
    path = write(tmp_path / "run", GROUPS, 2, 2, module=module, buffer_names=["running_mean"])
    assert read(path).tree["running_mean"].read().tolist() == [1.0, 2.0]


def test_tied_parameters_share_their_memory(tmp_path: Path) -> None:
    tree = read(write(tmp_path / "run", GROUPS, 2, 2, shared_params={"head.weight": "fc.weight"})).tree
    assert tree["head.weight"].storage is tree["fc.weight"].storage
    assert tree["head.weight"].key == "head.weight"


def test_frozen_parameters_are_read_from_their_fragments(tmp_path: Path) -> None:
    frozen = {"embed": torch.arange(6.0).reshape(2, 3)}
    path = write(
        tmp_path / "run", GROUPS, 2, 2,
        frozen_param_shapes={"embed": torch.Size([2, 3])}, frozen_param_fragments=frozen,
    )  # fmt: skip
    assert torch.equal(read(path).tree["embed"].read(), frozen["embed"])


def test_without_zero_the_module_is_the_tree(tmp_path: Path) -> None:
    torch.save({"module": {"w": torch.ones(2)}, "global_steps": 3}, tmp_path / "mp_rank_00_model_states.pt")
    contents = read(tmp_path)
    assert list(contents.tree) == ["w"]
    assert contents.metadata["global_steps"] == "3"


def changed(path: Path, name: str, change: Change) -> Path:
    file = path / "global_step5" / name
    content = torch.load(file, weights_only=True)
    change(content)
    torch.save(content, file)
    return path


MODEL, OPTIM = "mp_rank_00_model_states.pt", "zero_pp_rank_1_mp_rank_00_optim_states.pt"


@pytest.mark.parametrize(
    ("name", "change", "why"),
    [
        (MODEL, lambda c: c["param_shapes"][0].update(more=torch.Size([9])), "group 0 ends before the end of `more`"),
        (MODEL, lambda c: c["param_shapes"][0].pop("fc.weight"), "group 0 holds 13 elements too many"),
        (MODEL, lambda c: c["param_shapes"].pop(), "2 partitions for 1 parameter groups"),
        (MODEL, lambda c: c["param_shapes"][0].update({"fc.bias": [-3]}), "`param_shapes` gives 'fc.bias'"),
        (MODEL, lambda c: c["param_shapes"][0].update({"fc.bias": (2**40, 2**40)}), "ends before the end"),
        (MODEL, lambda c: c.update(param_shapes=3), "`param_shapes` is no list"),
        (OPTIM, lambda c: c.pop("optimizer_state_dict"), "has no dict `optimizer_state_dict`"),
        (
            OPTIM,
            lambda c: c["optimizer_state_dict"].pop("single_partition_of_fp32_groups"),
            "has no `fp32_flat_groups`",
        ),
        (
            OPTIM,
            lambda c: c["optimizer_state_dict"].update(single_partition_of_fp32_groups=[torch.ones(8).half()] * 2),
            "its partitions differ in dtype",
        ),
        (OPTIM, lambda c: c["optimizer_state_dict"].update(single_partition_of_fp32_groups=[1, 2]), "else than flat"),
    ],
)
def test_files_that_do_not_fit_together_are_refused(tmp_path: Path, name: str, change: Change, why: str) -> None:
    with pytest.raises(FormatError, match=f"header-invalid.*{why}"):
        read(changed(write(tmp_path / "run", GROUPS, 2, 2), name, change))


@pytest.mark.parametrize("rank", [0, 1])
def test_missing_rank_is_a_missing_shard(tmp_path: Path, rank: int) -> None:
    path = write(tmp_path / "run", GROUPS, 2, 2)
    (path / "global_step5" / f"zero_pp_rank_{rank}_mp_rank_00_optim_states.pt").unlink()
    with pytest.raises(IntegrityError, match="missing-shard"):
        read(path)


def test_tensor_parallel_checkpoint_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "run", GROUPS, 2, 2)
    torch.save({}, path / "global_step5" / "mp_rank_01_model_states.pt")
    with pytest.raises(FormatError, match=r"unsupported-feature.*tensor parallelism"):
        read(path)


def test_latest_that_leads_out_is_unsafe(tmp_path: Path) -> None:
    path = write(tmp_path / "run", GROUPS, 2, 2)
    (path / "latest").write_text("../elsewhere")
    with pytest.raises(UnsafeError, match="unsafe-path"):
        deepspeed.read_directory(path, Context(open_source))


def test_latest_of_a_step_that_is_gone_is_reported(tmp_path: Path) -> None:
    path = write(tmp_path / "run", GROUPS, 2, 2)
    (path / "latest").write_text("global_step6")
    with pytest.raises(LoadstoneError, match=r"missing-shard.*global_step6"):
        deepspeed.read_directory(path, Context(open_source))
