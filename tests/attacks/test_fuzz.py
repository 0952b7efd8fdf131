"""Files of every format, damaged at random: each opens, or is refused with an error of Loadstone's own, at once."""

from __future__ import annotations

import gzip
import io
import json
import os
import pickle
import struct
import subprocess
import sys
import tarfile
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
import torch.distributed.checkpoint as dcp
from safetensors.torch import save_file
from torch import nn

WORKER = Path(__file__).with_name("fuzz_worker.py")
QUICK = 25  # damaged files of each family
LONG = 10_000
MEGABYTES = 1000  # of memory for a file of some kilobytes: Limits allow 256 MiB for a header

pytestmark = pytest.mark.filterwarnings("ignore")  # torch warns of half of what is saved here


def network() -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Sequential(nn.Linear(2, 3)))


def everything() -> dict[str, Any]:
    """A value of every kind that torch.save writes."""
    shared = torch.arange(12.0).reshape(3, 4)
    model = network()
    optimizer = torch.optim.Adam(model.parameters())
    return {
        "state_dict": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "views": [shared, shared.t(), shared[1:, ::2], shared.expand(2, 3, 4)],
        "parameter": nn.Parameter(torch.ones(2)),
        "conj": torch.ones(2, dtype=torch.complex64).conj(),
        "neg": torch.ones(2, dtype=torch.complex64).conj().imag,
        "sparse": [shared.to_sparse(), shared.to_sparse_csr(), shared.to_sparse_csc()],
        "quantized": [
            torch.quantize_per_tensor(shared, 0.1, 3, torch.qint8),
            torch.quantize_per_channel(shared, torch.ones(3), torch.zeros(3, dtype=torch.long), 0, torch.quint8),
        ],
        "nested": torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]),
        "meta": torch.empty(3, device="meta"),
        "dtypes": [torch.ones(2).to(dtype) for dtype in (torch.bfloat16, torch.float8_e4m3fn, torch.bool)],
        "numpy": [numpy.arange(4), numpy.float64(0.5), numpy.array(["a", "b"]), numpy.dtype("int8")],
        "torch": [torch.float32, torch.device("cpu"), torch.Size([1, 2])],
        "python": [{1, 2}, frozenset("a"), b"bytes", 2**200, 1j, True, None, 0.5],
        "empty": [torch.empty(0, 3), torch.tensor(1.5), {}, [], ()],
    }  # fmt: skip


def torch_file(value: object, **options: Any) -> bytes:
    torch.save(value, buffer := io.BytesIO(), **options)
    return buffer.getvalue()


def module_in(path: Path) -> None:
    (path / "module.pt").write_bytes(torch_file(network()))


def legacy_in(path: Path) -> None:
    (path / "legacy.pth").write_bytes(torch_file(everything(), _use_new_zipfile_serialization=False))


def tar_in(path: Path) -> None:
    """The layout of torch before 0.2, see torch.serialization._legacy_load."""
    storage = pickle.dumps(3, 2)[2:-1] + b"X\3\0\0\0cpuctorch\nFloatStorage\n"
    tensor = b"\x80\2(K\7K\3ctorch\nFloatTensor\nt."
    members = {
        "sys_info": pickle.dumps({"protocol_version": 1000, "little_endian": True}, 2),
        "pickle": b"\x80\2}X\1\0\0\0wX\1\0\0\x007Qs.",
        "tensors": b"\x80\2K\1." + tensor + struct.pack("<ii5q", 2, 0, 2, 3, 3, 1, 0),
        "storages": b"\x80\2K\1.\x80\2(" + storage + b"t." + struct.pack("<q6f", 6, *range(6)) + b"\x80\2].",
    }
    with tarfile.open(path / "old.tar", "w") as archive:
        for name, data in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))


def safetensors_in(path: Path) -> None:
    save_file(network().state_dict(), path / "model.safetensors", metadata={"format": "pt", "note": "text"})


def npz_in(path: Path) -> None:
    numpy.savez(path / "arrays.npz", a=numpy.arange(6).reshape(2, 3), b=numpy.asfortranarray(numpy.ones((2, 3))))


def npy_in(path: Path) -> None:
    numpy.save(path / "array.npy", numpy.arange(6.0).reshape(2, 3))


def torchscript_in(path: Path) -> None:
    torch.jit.save(torch.jit.script(network()), path / "scripted.pt")


def exported_in(path: Path) -> None:
    meta = {
        "dtype": 7, "sizes": [{"as_int": 2}, {"as_int": 3}], "requires_grad": True, "device": {"type": "cpu"},
        "strides": [{"as_int": 3}, {"as_int": 1}], "storage_offset": {"as_int": 0}, "layout": 7,
    }  # fmt: skip
    entries = {
        name: {"path_name": f"weight_{number}", "is_param": True, "use_pickle": number == 1, "tensor_meta": meta}
        for number, name in enumerate(("fc.weight", "fc.more"))
    }
    with zipfile.ZipFile(path / "exported.pt2", "w") as archive:
        archive.writestr("archive/archive_format", "pt2")
        archive.writestr("archive/archive_version", "0")
        archive.writestr("archive/data/weights/model_weights_config.json", json.dumps({"config": entries}))
        archive.writestr("archive/data/weights/weight_0", torch.arange(6.0).numpy().tobytes())
        archive.writestr("archive/data/weights/weight_1", torch_file(torch.ones(2, 3)))


def pickles_in(path: Path) -> None:
    values = {"a": numpy.arange(3), "b": [1, 2.5, "text", None, b"bytes"], "c": OrderedDict(d=numpy.float32(1))}
    (path / "values.pkl").write_bytes(pickle.dumps(values, 4))


def text_pickle_in(path: Path) -> None:
    values = {"a": numpy.arange(3.0), "b": [1, 2.5, "text", None, True, 2**70], "c": (1, 2, 3, 4)}
    (path / "values.pkl").write_bytes(pickle.dumps(values, 0))


def shards_in(path: Path) -> None:
    state = network().state_dict()
    names = {key: f"model-{1 + number % 2:05}-of-00002.safetensors" for number, key in enumerate(state)}
    for shard in set(names.values()):
        save_file({key: tensor for key, tensor in state.items() if names[key] == shard}, path / shard)
    index = {"metadata": {"total_size": 100}, "weight_map": names}
    (path / "model.safetensors.index.json").write_text(json.dumps(index))


def dcp_in(path: Path) -> None:
    dcp.save({"model": network().state_dict(), "epoch": 3, "lr": 0.5}, checkpoint_id=path)


def deepspeed_in(path: Path) -> None:
    """Stage 1 with one rank: see deepspeed/utils/zero_to_fp32.py."""
    step = path / "global_step1"
    step.mkdir()
    weight = torch.arange(6.0)
    module = {"w": weight.reshape(2, 3).half(), "b": torch.ones(2).half()}
    shapes = [OrderedDict(w=torch.Size([2, 3]), b=torch.Size([2]))]
    model = {"module": module, "buffer_names": [], "param_shapes": shapes, "shared_params": {}, "ds_version": "0.14"}
    flat = torch.cat([weight, torch.ones(2)])
    optimizer = {"zero_stage": 1, "partition_count": 1, "single_partition_of_fp32_groups": [flat]}
    (path / "latest").write_text("global_step1")
    (step / "mp_rank_00_model_states.pt").write_bytes(torch_file(model))
    name = "bf16_zero_pp_rank_0_mp_rank_00_optim_states.pt"
    (step / name).write_bytes(torch_file({"optimizer_state_dict": optimizer, "ds_version": "0.14"}))


def gguf_in(path: Path) -> None:
    def text(value: str) -> bytes:
        return struct.pack("<Q", len(value)) + value.encode()

    head = b"GGUF" + struct.pack("<I2Q", 3, 2, 3)
    head += text("general.name") + struct.pack("<I", 8) + text("model")
    head += text("general.alignment") + struct.pack("<2I", 4, 32)
    head += text("list") + struct.pack("<2IQ3i", 9, 5, 3, 1, 2, 3)
    head += text("w") + struct.pack("<I2QIQ", 2, 3, 2, 0, 0)
    head += text("q") + struct.pack("<I1QIQ", 1, 256, 12, 32)
    (path / "model.gguf").write_bytes(head + bytes(-len(head) % 32) + bytes(range(32)) + bytes(144))


def gzip_in(path: Path) -> None:
    state = {"w": torch.arange(6.0), "b": torch.ones(2)}
    (path / "model.pt.gz").write_bytes(gzip.compress(torch_file(state)))


def everything_in(path: Path) -> None:
    (path / "everything.pt").write_bytes(torch_file(everything()))


FAMILIES: dict[str, Callable[[Path], None]] = {
    make.__name__.removesuffix("_in"): make
    for make in (
        everything_in, module_in, legacy_in, tar_in, safetensors_in, npz_in, npy_in, torchscript_in, exported_in,
        pickles_in, text_pickle_in, shards_in, dcp_in, deepspeed_in, gguf_in, gzip_in,
    )
}  # fmt: skip


@pytest.fixture(scope="module")
def seeds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("seeds")
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, make in FAMILIES.items():
            (directory / name).mkdir()
            make(directory / name)
    return directory


def findings(seeds: Path, work: Path, count: int, seed: int, *families: str) -> list[dict[str, Any]]:
    """What the worker found; the damaged files are kept under `work`/found."""
    run = subprocess.run(
        [sys.executable, str(WORKER), str(seeds), str(count), str(seed), str(MEGABYTES), *families],
        cwd=work, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    lines = [json.loads(line) for line in run.stdout.splitlines()]
    assert run.returncode == 0, f"it died of {work / 'work'}: {run.stderr[-2000:]}"
    outcomes = dict(lines.pop()["outcomes"])
    assert sum(outcomes.values()) == count * len(families or FAMILIES)
    assert outcomes["opened"] > 0  # a worker that is refused everything finds nothing
    return lines


def test_damaged_files_are_opened_or_refused(seeds: Path, tmp_path: Path) -> None:
    assert findings(seeds, tmp_path, QUICK, 1) == []


@pytest.mark.long
@pytest.mark.parametrize("family", FAMILIES)
def test_many_damaged_files_are_opened_or_refused(family: str, seeds: Path, tmp_path: Path) -> None:
    assert findings(seeds, tmp_path, LONG, 2, family) == []
