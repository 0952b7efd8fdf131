"""Files of torch.save, read without torch.load and compared with it."""

from __future__ import annotations

import io
import pickle
import struct
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import loadstone as ls

DTYPES = [
    torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2,
    torch.float8_e4m3fnuz, torch.float8_e5m2fnuz, torch.float8_e8m0fnu, torch.int64, torch.int32, torch.int16,
    torch.int8, torch.uint8, torch.uint16, torch.uint32, torch.uint64, torch.bool, torch.complex64, torch.complex128,
]  # fmt: skip


def saved(path: Path, value: Any, **options: Any) -> Path:
    torch.save(value, path, **options)
    return path


def bits(tensor: torch.Tensor) -> torch.Tensor:
    """The bytes of the values, so that NaN equals NaN and every dtype can be compared."""
    flat = tensor.detach().contiguous().reshape(-1)
    return flat.view(torch.uint8) if flat.numel() else torch.empty(0, dtype=torch.uint8)


def assert_reads_as(path: Path, value: dict[str, torch.Tensor]) -> None:
    with ls.open(path) as checkpoint:
        assert list(checkpoint.tensors) == list(value)
        for key, tensor in value.items():
            read = checkpoint.tensors[key].read()
            assert (read.dtype, read.shape) == (tensor.dtype, tensor.shape), key
            assert torch.equal(bits(read), bits(tensor)), key


def rewritten(source: Path, target: Path, change: Any, method: int = zipfile.ZIP_STORED) -> Path:
    """The archive with other records: `change` gets and gives a dict of them."""
    with zipfile.ZipFile(source) as old:
        records = change({name: old.read(name) for name in old.namelist()})
    with zipfile.ZipFile(target, "w", method) as new:
        for name, data in records.items():
            new.writestr(name, data)
    return target


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_dtype_reads_back_to_the_bit(dtype: torch.dtype, tmp_path: Path) -> None:
    itemsize = torch.empty(0, dtype=dtype).element_size()
    values = torch.arange(24 * itemsize, dtype=torch.uint8)
    values = (values % 2).to(torch.bool)[:24] if dtype == torch.bool else values.view(dtype)
    assert_reads_as(saved(tmp_path / "x.pt", {"w": values.reshape(4, 6)}), {"w": values.reshape(4, 6)})


@pytest.mark.parametrize("protocol", range(6))
def test_every_pickle_protocol_is_read(protocol: int, tmp_path: Path) -> None:
    value = {"w": torch.arange(6.0).reshape(2, 3), "b": torch.tensor([1, 2]), "h": torch.ones(2).half()}
    path = saved(tmp_path / "x.pt", value, pickle_protocol=protocol)
    assert_reads_as(path, value)
    assert ls.open(path).metadata["protocol"] == str(protocol if protocol > 1 else 0)


@st.composite
def views(draw: st.DrawFn) -> torch.Tensor:
    """A view of a shared base with any shape, stride and offset that fits."""
    base = torch.arange(60.0)
    shape = draw(st.lists(st.integers(0, 4), max_size=3))
    stride = [draw(st.integers(0, 5)) for _ in shape]
    span = sum(max(size - 1, 0) * step for size, step in zip(shape, stride, strict=True)) + 1
    return base.as_strided(shape, stride, draw(st.integers(0, 60 - span)))


@given(views())
@settings(max_examples=50, deadline=None)
def test_every_view_reads_back(tensor: torch.Tensor) -> None:
    torch.save({"view": tensor}, buffer := io.BytesIO())
    from loadstone.formats.contents import Context
    from loadstone.formats.registry import open_source
    from loadstone.io.sources import MemorySource

    info = open_source(MemorySource(buffer.getvalue(), "view.pt"), Context(open_source)).tree["view"]
    assert info.stride == tensor.stride()
    assert torch.equal(info.read(), tensor)


def test_tensors_that_share_memory_share_their_storage(tmp_path: Path) -> None:
    base = torch.arange(10.0)
    with ls.open(saved(tmp_path / "x.pt", {"a": base[2:5], "b": base, "c": base.clone()})) as checkpoint:
        a, b, c = checkpoint.tensors.values()
        assert a.storage is b.storage
        assert a.storage is not c.storage


def test_storage_keeps_the_device_it_came_from(tmp_path: Path) -> None:
    path = saved(tmp_path / "x.pt", {"w": torch.ones(3)})

    def moved(records: dict[str, bytes]) -> dict[str, bytes]:
        data = records["x/data.pkl"].replace(b"X\3\0\0\0cpu", b"X\6\0\0\0cuda:0")
        return records | {"x/data.pkl": data}

    info = ls.open(rewritten(path, tmp_path / "y.pt", moved)).tensors["w"]
    assert info.storage is not None
    assert info.storage.location == "cuda:0"
    assert torch.equal(info.read(), torch.ones(3))


def test_state_dict_keeps_its_metadata(tmp_path: Path) -> None:
    model = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.BatchNorm1d(3))
    path = saved(tmp_path / "x.pt", model.state_dict())
    assert_reads_as(path, model.state_dict())
    assert ls.open(path).chosen.metadata["1"] == {"version": 2}


def test_whole_module_gives_the_state_dict_it_would_have_given(tmp_path: Path) -> None:
    model = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.BatchNorm1d(3))
    with ls.open(saved(tmp_path / "x.pt", model)) as checkpoint:
        assert list(checkpoint.weights) == list(model.state_dict())
        assert checkpoint.modules["1"] == "torch.nn.modules.batchnorm.BatchNorm1d"


def test_checksums_left_out_are_metadata_and_no_error(tmp_path: Path) -> None:
    torch.serialization.set_crc32_options(False)
    try:
        path = saved(tmp_path / "x.pt", {"w": torch.ones(3)})
    finally:
        torch.serialization.set_crc32_options(True)
    checkpoint = ls.open(path)
    assert checkpoint.metadata["checksums"] == "not recorded"
    assert checkpoint.diagnostics == ()
    assert torch.equal(checkpoint.tensors["w"].read(), torch.ones(3))


def test_checksum_of_a_storage_is_kept(tmp_path: Path) -> None:
    path = saved(tmp_path / "x.pt", {"w": torch.ones(3)})
    storage = ls.open(path).tensors["w"].storage
    assert storage is not None
    assert storage.crc32 == zipfile.ZipFile(path).getinfo("x/data/0").CRC


def test_archive_zipped_again_and_deflated_is_read(tmp_path: Path) -> None:
    value = {"w": torch.zeros(1000), "v": torch.arange(7)}
    path = saved(tmp_path / "x.pt", value)
    assert_reads_as(rewritten(path, tmp_path / "y.pt", dict, zipfile.ZIP_DEFLATED), value)


def test_records_in_reverse_order_are_read(tmp_path: Path) -> None:
    value = {"w": torch.arange(5.0), "v": torch.arange(7)}
    path = saved(tmp_path / "x.pt", value)
    reverse = rewritten(path, tmp_path / "y.pt", lambda records: dict(reversed(records.items())))
    assert_reads_as(reverse, value)


def test_folder_entries_and_those_of_macos_are_passed_over(tmp_path: Path) -> None:
    value = {"w": torch.arange(5.0)}
    path = saved(tmp_path / "x.pt", value)
    folders = rewritten(path, tmp_path / "y.pt", lambda r: {"x/": b"", "x/data/": b""} | r | {"__MACOSX/x/._d": b"?"})
    assert_reads_as(folders, value)


@pytest.mark.parametrize("name", ["модель.pt", "a b.pt", "v1.2.pt"])
def test_root_folder_of_any_name_is_found(name: str, tmp_path: Path) -> None:
    value = {"w": torch.arange(5.0)}
    path = saved(tmp_path / name, value)
    assert_reads_as(path, value)


def test_big_endian_file_is_swapped_and_noted(tmp_path: Path) -> None:
    path = saved(tmp_path / "x.pt", {"w": torch.tensor([1.0, 2.5]), "c": torch.tensor([1 + 2j])})

    def swapped(records: dict[str, bytes]) -> dict[str, bytes]:
        return records | {
            "x/byteorder": b"big",
            "x/data/0": struct.pack(">2f", 1.0, 2.5),
            "x/data/1": struct.pack(">2f", 1.0, 2.0),
        }

    checkpoint = ls.open(rewritten(path, tmp_path / "y.pt", swapped))
    assert checkpoint.tensors["w"].read().tolist() == [1.0, 2.5]
    assert checkpoint.tensors["c"].read().tolist() == [1 + 2j]
    assert [diagnostic.code for diagnostic in checkpoint.diagnostics] == ["big-endian"]


def test_unknown_byte_order_is_refused(tmp_path: Path) -> None:
    path = saved(tmp_path / "x.pt", {"w": torch.ones(1)})
    with pytest.raises(ls.FormatError, match="middle"):
        ls.open(rewritten(path, tmp_path / "y.pt", lambda records: records | {"x/byteorder": b"middle"}))


def test_storage_without_its_record_is_named(tmp_path: Path) -> None:
    path = saved(tmp_path / "x.pt", {"w": torch.ones(3)})
    without = rewritten(path, tmp_path / "y.pt", lambda r: {k: v for k, v in r.items() if k != "x/data/0"})
    with pytest.raises(ls.IntegrityError, match="x/data/0") as caught:
        ls.open(without)
    assert caught.value.code == "missing-record"


@pytest.mark.parametrize(("nbytes", "code"), [(11, "missing-record"), (13, "tensor-out-of-bounds")])
def test_record_of_another_size_than_its_storage_is_refused(nbytes: int, code: str, tmp_path: Path) -> None:
    path = saved(tmp_path / "x.pt", {"w": torch.ones(3)})
    with pytest.raises(ls.LoadstoneError) as caught:
        ls.open(rewritten(path, tmp_path / "y.pt", lambda records: records | {"x/data/0": bytes(nbytes)}))
    assert caught.value.code == code


class _Id:
    """Pickled as a reference to something outside."""

    def __init__(self, value: object) -> None:
        self.value = value


class _Pickler(pickle.Pickler):
    def persistent_id(self, thing: object) -> object:
        return thing.value if isinstance(thing, _Id) else None


class _Rebuilt:
    """Pickled as the call that rebuilds a tensor over a storage."""

    def __init__(self, persistent_id: object, size: int) -> None:
        self.persistent_id = persistent_id
        self.size = size

    def __reduce__(self) -> Any:
        arguments = (_Id(self.persistent_id), 0, (self.size,), (1,), False, OrderedDict())
        return torch._utils._rebuild_tensor_v2, arguments


def archive_with(path: Path, value: object, records: dict[str, bytes]) -> Path:
    _Pickler(buffer := io.BytesIO(), protocol=3).dump(value)
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in ({"archive/data.pkl": buffer.getvalue()} | records).items():
            archive.writestr(name, data)
    return path


def floats(key: object = "0", numel: object = 4, cls: object = torch.FloatStorage, location: object = "cpu") -> Any:
    return "storage", cls, key, location, numel


@pytest.mark.parametrize("key", ["0", b"0", 0])
def test_storage_key_may_be_text_bytes_or_a_number(key: object, tmp_path: Path) -> None:
    data = struct.pack("<4f", 1, 2, 3, 4)
    path = archive_with(tmp_path / "x.pt", [_Rebuilt(floats(key), 4)], {"archive/data/0": data})
    assert ls.open(path).tensors["0"].read().tolist() == [1, 2, 3, 4]


@pytest.mark.parametrize(
    "persistent_id",
    [
        floats(numel=-4),
        floats(numel=4.0),
        floats(numel=True),
        floats(numel=2**70),
        floats(key=("0",)),
        floats(key=True),
        floats(location=3),
        floats(cls="FloatStorage"),
        ("st0rage", torch.FloatStorage, "0", "cpu", 4),
        ("storage",),
        "hello",
        17,
        None,
    ],
    ids=repr,
)
def test_malformed_persistent_id_is_refused(persistent_id: object, tmp_path: Path) -> None:
    if persistent_id is None:
        persistent_id = ()
    path = archive_with(tmp_path / "x.pt", [_Rebuilt(persistent_id, 4)], {"archive/data/0": bytes(16)})
    with pytest.raises(ls.FormatError):
        ls.open(path)


def test_storage_key_that_climbs_out_finds_no_record(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(bytes(16))
    path = archive_with(tmp_path / "x.pt", [_Rebuilt(floats("../../secret"), 4)], {"archive/data/0": bytes(16)})
    with pytest.raises(ls.IntegrityError) as caught:
        ls.open(path)
    assert caught.value.code == "missing-record"


def test_one_key_of_two_classes_is_refused(tmp_path: Path) -> None:
    value = [_Rebuilt(floats(), 1), _Rebuilt(floats(cls=torch.IntStorage), 1)]
    path = archive_with(tmp_path / "x.pt", value, {"archive/data/0": bytes(16)})
    with pytest.raises(ls.FormatError, match="and, later") as caught:
        ls.open(path)
    assert caught.value.code == "tensor-out-of-bounds"


@pytest.mark.parametrize("numel", [3, 5])
def test_one_key_of_two_sizes_is_refused(numel: int, tmp_path: Path) -> None:
    value = [_Rebuilt(floats(), 1), _Rebuilt(floats(numel=numel), 1)]
    path = archive_with(tmp_path / "x.pt", value, {"archive/data/0": bytes(16)})
    with pytest.raises(ls.LoadstoneError):
        ls.open(path)


class _Payload:
    def __reduce__(self) -> Any:
        import os

        return os.system, ("touch loadstone-was-here",)


def test_payload_in_another_pickle_of_the_archive_is_found(tmp_path: Path) -> None:
    path = archive_with(tmp_path / "x.pt", [1], {"archive/extra.pkl": pickle.dumps(_Payload())})
    assert "dangerous-global" in [diagnostic.code for diagnostic in ls.open(path).diagnostics]


def test_payload_in_a_checkpoint_inside_the_archive_is_found(tmp_path: Path) -> None:
    inner = archive_with(tmp_path / "inner.pt", _Payload(), {})
    path = archive_with(tmp_path / "x.pt", [1], {"archive/extra/anything": inner.read_bytes()})
    assert "dangerous-global" in [diagnostic.code for diagnostic in ls.open(path).diagnostics]


def test_payload_before_a_defect_is_reported_with_it(tmp_path: Path) -> None:
    path = archive_with(tmp_path / "x.pt", [_Payload(), _Rebuilt(floats("absent"), 4)], {})
    with pytest.raises(ls.IntegrityError) as caught:
        ls.open(path)
    assert {"missing-record", "dangerous-global"} <= {diagnostic.code for diagnostic in caught.value.diagnostics}


def test_zip_around_a_checkpoint_names_it_and_says_to_unpack(tmp_path: Path) -> None:
    inner = saved(tmp_path / "inner.pt", {"w": torch.ones(1)})
    with zipfile.ZipFile(tmp_path / "outer.zip", "w") as archive:
        archive.write(inner, "inner.pt")
    with pytest.raises(ls.FormatError, match=r"inner\.pt") as caught:
        ls.open(tmp_path / "outer.zip")
    assert caught.value.code == "not-a-checkpoint"
    assert "unzip" in str(caught.value)


def test_truncated_zip_reports_missing_bytes(tmp_path: Path) -> None:
    path = saved(tmp_path / "x.pt", {"w": torch.ones(1000), "tied": torch.ones(500)})
    whole = path.read_bytes()
    path.write_bytes(whole[:3000])
    with pytest.raises(ls.IntegrityError) as caught:
        ls.open(path)
    evidence = dict(caught.value.diagnostics[0].evidence)
    assert caught.value.code == "truncated-file"
    assert evidence["found"].startswith("3,000 bytes")
    assert 6000 < int(evidence["expected"].split()[0].replace(",", "")) <= len(whole)


def test_zip_without_its_root_folder_is_named(tmp_path: Path) -> None:
    path = saved(tmp_path / "x.pt", {"w": torch.ones(1)})
    bare = rewritten(path, tmp_path / "y.pt", lambda r: {name.removeprefix("x/"): data for name, data in r.items()})
    with pytest.raises(ls.FormatError, match="without the folder"):
        ls.open(bare)


def test_bytes_behind_the_archive_are_noted(tmp_path: Path) -> None:
    path = saved(tmp_path / "x.pt", {"w": torch.ones(1)})
    path.write_bytes(path.read_bytes() + b"more")
    assert [diagnostic.code for diagnostic in ls.open(path).diagnostics] == ["trailing-bytes"]
