"""Walking values that are shared, that contain themselves, and that would fill the world if they were spelt out."""

from __future__ import annotations

from typing import Any

import pytest

from loadstone.errors import LimitError
from loadstone.io.limits import DEFAULT_LIMITS, Limits
from loadstone.storage import Storage
from loadstone.tensors import TensorInfo, contiguous_stride
from loadstone.tree import check_expansion, every_tensor
from loadstone.values import Opaque


def tensor(*shape: int) -> TensorInfo:
    return TensorInfo("", "float32", shape, contiguous_stride(shape), 0, Storage("memory", 4096, ()))


def test_every_tensor_has_a_key_even_where_places_collide() -> None:
    tree = {"a": {"b": tensor(1)}, "a.b": tensor(2), "c": [tensor(3), (tensor(4),)], 7: tensor(5), b"x": tensor(6)}
    assert {key: info.shape for key, info in every_tensor(tree).items()} == {
        "a.b": (1,), "a.b#2": (2,), "c.0": (3,), "c.1.0": (4,), "7": (5,), "x": (6,),
    }  # fmt: skip


def test_a_container_that_is_shared_is_listed_at_each_place() -> None:
    state = {"w": tensor(2)}
    assert list(every_tensor({"model": state, "best": state})) == ["model.w", "best.w"]


def test_objects_that_point_at_each_other_are_walked_once() -> None:
    parent, child = Opaque("Trainer", state={"w": tensor(1)}), Opaque("Callback")
    child.state = {"trainer": parent, "v": tensor(2)}
    parent.state["callbacks"] = [child, child]
    assert list(every_tensor({"trainer": parent})) == ["trainer.w", "trainer.callbacks.0.v"]


def test_a_list_that_contains_itself_ends() -> None:
    loop: list[Any] = [tensor(1)]
    loop.append(loop)
    check_expansion(loop, DEFAULT_LIMITS)
    assert list(every_tensor(loop)) == ["0"]


@pytest.mark.parametrize("leaf", [tensor(1), "lol"])
def test_a_tree_that_expands_without_end_hits_the_limit(leaf: object) -> None:
    tree: Any = [leaf]
    for _ in range(60):
        tree = [tree, tree]
    with pytest.raises(LimitError, match="`nodes`"):
        check_expansion(tree, DEFAULT_LIMITS)


def test_a_tree_of_many_values_is_no_attack() -> None:
    check_expansion([[i, i + 1] for i in range(100_000)], DEFAULT_LIMITS)


def test_depth_hits_the_limit() -> None:
    tree: Any = []
    for _ in range(100_000):
        tree = (tree,)
    with pytest.raises(LimitError, match="`depth`"):
        check_expansion(tree, Limits(depth=100))
