"""What screens are drawn from: checkpoints and schemas made by hand, so that every number on a screen is known."""

from __future__ import annotations

import os
import pickle
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace

import pytest

from loadstone.checkpoint import Checkpoint
from loadstone.errors import Diagnostic
from loadstone.formats.contents import Contents
from loadstone.io.sources import MemorySource
from loadstone.matching.schema import Schema, Slot
from loadstone.storage import Storage
from loadstone.tensors import TensorInfo, contiguous_stride

GOLDEN = Path(__file__).parent.parent / "golden"
Shapes = Mapping[str, tuple[int, ...]]


@pytest.fixture(scope="session")
def made() -> SimpleNamespace:
    """The makers below, for tests to call."""
    return SimpleNamespace(
        tensor=tensor, tensors=tensors, schema=schema, checkpoint=checkpoint, gpt2=gpt2, resnet18=resnet18,
        dangerous_file=dangerous_file,
    )  # fmt: skip


@pytest.fixture
def golden() -> Callable[[str, str], None]:
    """Compare a screen with its file in tests/golden; LOADSTONE_UPDATE_GOLDEN=1 writes the file instead."""

    def compare(name: str, text: str) -> None:
        path = GOLDEN / f"{name}.txt"
        if os.environ.get("LOADSTONE_UPDATE_GOLDEN") == "1" and not os.environ.get("CI"):
            path.write_text(text, encoding="utf-8")
        assert text == path.read_text(encoding="utf-8")

    return compare


def tensor(shape: tuple[int, ...], dtype: str = "float32", storage: Storage | None = None) -> TensorInfo:
    """A tensor that nobody reads."""
    info = TensorInfo("", dtype, shape, contiguous_stride(shape))
    storage = storage or Storage("made", info.nbytes, ())
    return TensorInfo("", dtype, shape, contiguous_stride(shape), 0, storage)


def tensors(shapes: Shapes, dtype: str = "float32") -> dict[str, TensorInfo]:
    return {key: tensor(shape, dtype).with_key(key) for key, shape in shapes.items()}


def schema(name: str, shapes: Shapes, dtype: str = "float32") -> Schema:
    return Schema(name, {key: Slot(key, dtype, shape) for key, shape in shapes.items()})


def checkpoint(
    tree: object, *, name: str = "made.pt", format: str = "torch-zip", nbytes: int = 1000,
    metadata: Mapping[str, str] = {}, weights: tuple[str, ...] | None = None, diagnostics: tuple[Diagnostic, ...] = (),
) -> Checkpoint:  # fmt: skip
    contents = Contents(format, tree, metadata=metadata, weights=weights, diagnostics=diagnostics)
    return Checkpoint(contents, name=name, sources=[_Sized(nbytes, name)])


class _Sized(MemorySource):  # type: ignore[misc]  # a file of a size that no test needs to hold
    def __init__(self, size: int, name: str) -> None:
        super().__init__(b"", name)
        self.size = size


def gpt2(prefix: str = "", vocabulary: int = 50257, masks: bool = True) -> dict[str, tuple[int, ...]]:
    """The shapes of GPT-2 small on the Hub."""
    block: dict[str, tuple[int, ...]] = {
        "ln_1.weight": (768,), "ln_1.bias": (768,), "attn.bias": (1, 1, 1024, 1024),
        "attn.c_attn.weight": (768, 2304), "attn.c_attn.bias": (2304,),
        "attn.c_proj.weight": (768, 768), "attn.c_proj.bias": (768,), "ln_2.weight": (768,), "ln_2.bias": (768,),
        "mlp.c_fc.weight": (768, 3072), "mlp.c_fc.bias": (3072,),
        "mlp.c_proj.weight": (3072, 768), "mlp.c_proj.bias": (768,),
    }  # fmt: skip
    shapes: dict[str, tuple[int, ...]] = {"wte.weight": (vocabulary, 768), "wpe.weight": (1024, 768)}
    for layer in range(12):
        shapes |= {f"h.{layer}.{key}": shape for key, shape in block.items() if masks or key != "attn.bias"}
    shapes |= {"ln_f.weight": (768,), "ln_f.bias": (768,)}
    return {prefix + key: shape for key, shape in shapes.items()}


def resnet18(prefix: str = "", classes: int = 1000) -> dict[str, tuple[int, ...]]:
    """The shapes of torchvision's resnet18."""
    shapes: dict[str, tuple[int, ...]] = {"conv1.weight": (64, 3, 7, 7), **_norm("bn1", 64)}
    before = 64
    for layer, width in enumerate((64, 128, 256, 512), 1):
        for block in range(2):
            place = f"layer{layer}.{block}"
            shapes |= {f"{place}.conv1.weight": (width, before, 3, 3), **_norm(f"{place}.bn1", width)}
            shapes |= {f"{place}.conv2.weight": (width, width, 3, 3), **_norm(f"{place}.bn2", width)}
            if before != width:
                shapes |= {
                    f"{place}.downsample.0.weight": (width, before, 1, 1),
                    **_norm(f"{place}.downsample.1", width),
                }
            before = width
    shapes |= {"fc.weight": (classes, 512), "fc.bias": (classes,)}
    return {prefix + key: shape for key, shape in shapes.items()}


def _norm(place: str, width: int) -> dict[str, tuple[int, ...]]:
    return {f"{place}.{name}": (width,) for name in ("weight", "bias", "running_mean", "running_var")}


class Payload:
    """Pickled, it asks for a shell."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("touch must_not_appear",)


def dangerous_file(path: Path) -> None:
    """A torch zip whose pickle calls a shell beside harmless values."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({"epoch": 12, "hook": Payload()}, protocol=2))
        archive.writestr("archive/byteorder", "little")
        archive.writestr("archive/version", "3\n")
