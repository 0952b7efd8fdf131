"""Models and checkpoints by their shapes alone: planning needs nothing else."""

from collections.abc import Callable, Mapping
from math import prod

import pytest

from loadstone.matching.migration import Migrate
from loadstone.matching.names import make_plan
from loadstone.matching.options import Options
from loadstone.matching.plan import Plan
from loadstone.matching.schema import Schema, Slot
from loadstone.storage import Storage
from loadstone.tensors import TensorInfo, contiguous_stride

Shapes = Mapping[str, tuple[int, ...]]


def make_tensor(key: str, shape: tuple[int, ...], dtype: str = "float32", storage: Storage | None = None) -> TensorInfo:
    """A tensor of a file that holds no bytes."""
    return TensorInfo(key, dtype, shape, contiguous_stride(shape), 0, storage or Storage(key, prod(shape) * 16, ()))


def make_schema(shapes: Shapes, dtype: str = "float32") -> Schema:
    """A model with these tensors."""
    return Schema("Net", {key: Slot(key, dtype, shape) for key, shape in shapes.items()})


def make(
    model: Shapes | Schema,
    checkpoint: Mapping[str, tuple[int, ...] | TensorInfo],
    *,
    migrate: Migrate | None = None,
    not_for_model: Mapping[str, TensorInfo] | None = None,
    **options: object,
) -> Plan:
    """A plan for either side given as shapes, or as a Schema and as tensors."""
    sources = {
        key: made if isinstance(made, TensorInfo) else make_tensor(key, made) for key, made in checkpoint.items()
    }
    return make_plan(
        model if isinstance(model, Schema) else make_schema(model),
        sources,
        Options(**options),  # type: ignore[arg-type]
        source_name="file.pth",
        target_name="Net",
        migrate=migrate,
        not_for_model=not_for_model or {},
    )


@pytest.fixture(scope="session")
def tensor() -> Callable[..., TensorInfo]:
    """tensor(key, shape, dtype="float32", storage=None)"""
    return make_tensor


@pytest.fixture(scope="session")
def schema() -> Callable[..., Schema]:
    """schema(shapes, dtype="float32")"""
    return make_schema


@pytest.fixture(scope="session")
def plan_of() -> Callable[..., Plan]:
    """plan_of(model, checkpoint, **options)"""
    return make


@pytest.fixture(scope="session")
def prefixed() -> Callable[[str, Shapes], dict[str, tuple[int, ...]]]:
    """prefixed(prefix, shapes): the same tensors with a prefix before every key."""
    return lambda prefix, shapes: {prefix + key: shape for key, shape in shapes.items()}


@pytest.fixture
def net() -> dict[str, tuple[int, ...]]:
    """A small network by its shapes."""
    return {
        "conv1.weight": (8, 3, 3, 3),
        "layer1.0.weight": (8, 8),
        "layer1.1.weight": (8, 8),
        "fc.weight": (10, 8),
        "fc.bias": (10,),
    }
