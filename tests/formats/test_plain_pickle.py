import io
import pickle

import numpy as np
import pytest
import torch

from loadstone.errors import IntegrityError, UnsafeError
from loadstone.formats import plain_pickle
from loadstone.formats.contents import Contents, Context
from loadstone.formats.registry import open_source
from loadstone.io.sources import MemorySource

CONTEXT = Context(open_source)


def read(data: bytes) -> Contents:
    source = MemorySource(data, "plain.pkl")
    assert plain_pickle.recognises(data[:4096], source)
    return plain_pickle.read(source, CONTEXT)


def codes(contents: Contents) -> list[str]:
    return [finding.code for finding in contents.diagnostics]


@pytest.mark.parametrize("protocol", range(6))
def test_plain_values_come_back_equal_from_every_protocol(protocol: int) -> None:
    value = {"a": [1, 2.5, None, True], "b": ("x", b"bytes", 2**70), 3: {"set"}, (1, "t"): complex(1, 2)}
    contents = read(pickle.dumps(value, protocol))
    assert contents.tree == value
    assert codes(contents) == []


@pytest.mark.parametrize("protocol", range(6))
def test_tensor_given_to_pickle_is_found_in_the_stream_inside(protocol: int) -> None:
    tensor = torch.arange(6.0).reshape(2, 3).t()
    tree = read(pickle.dumps({"w": tensor}, protocol)).tree
    assert torch.equal(tree["w"].read(), tensor)


def test_files_inside_files_stop_at_the_limit() -> None:
    data = b""
    for _ in range(10):
        data = b"\x80\x03ctorch.storage\n_load_from_bytes\nB" + len(data).to_bytes(4, "little") + data + b"\x85R."
    with pytest.raises(MemoryError, match="nested_files"):
        read(data)


@pytest.mark.parametrize("text", [b"<html>", b"hello world", b"N.B. this is no pickle", b"{}", b"import os\n", b"."])
def test_text_is_not_taken_for_a_pickle(text: bytes) -> None:
    assert not plain_pickle.recognises(text, MemorySource(text, "text"))


def test_persistent_id_without_a_zip_is_a_missing_record() -> None:
    with pytest.raises(IntegrityError) as caught:
        read(b"\x80\x02(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x04tQ.")
    assert caught.value.code == "missing-record"


def test_pickles_that_follow_are_counted_and_judged() -> None:
    evil = b"\x80\x02cos\nsystem\nX\x04\x00\x00\x00true\x85R."
    contents = read(pickle.dumps({"first": 1}) + pickle.dumps([2]) + evil)
    assert contents.tree == {"first": 1}
    assert set(codes(contents)) == {"dangerous-global", "trailing-bytes"}


def test_payload_in_a_broken_pickle_behind_the_first_is_reported() -> None:
    broken = b"\x80\x02cos\nsystem\nX\x04\x00\x00\x00true\x85R\xff"
    assert "dangerous-global" in codes(read(pickle.dumps(1) + broken))


def test_stream_of_torch_behind_a_pickle_is_opened() -> None:
    stream = io.BytesIO()
    pickle.dump(41, stream)
    torch.save({"w": torch.ones(2)}, stream, _use_new_zipfile_serialization=False)
    tree = read(stream.getvalue()).tree
    assert tree["pickle"] == 41
    assert tree["stream"]["w"].read().tolist() == [1.0, 1.0]


def test_zip_behind_a_pickle_is_refused() -> None:
    archive = io.BytesIO()
    torch.save({}, archive)
    with pytest.raises(UnsafeError):
        read(pickle.dumps({}) + archive.getvalue())


def test_line_end_behind_a_pickle_is_no_finding() -> None:
    assert codes(read(pickle.dumps({}, 0) + b"\n")) == []


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
@pytest.mark.parametrize("dtype", ["<f4", ">f4", "<i8", ">i2", "|b1", "<c16", "<u4", "<f2"])
def test_numpy_array_comes_as_a_tensor_of_its_values(dtype: str, protocol: int) -> None:
    array = np.arange(6).reshape(2, 3).astype(dtype)
    info = read(pickle.dumps(array, protocol)).tree
    assert np.array_equal(info.numpy(), array)
    assert info.shape == (2, 3)


def test_fortran_order_array_keeps_its_values() -> None:
    array = np.asfortranarray(np.arange(6.0).reshape(2, 3))
    assert np.array_equal(read(pickle.dumps(array)).tree.numpy(), array)


@pytest.mark.parametrize("scalar", [np.float32(1.5), np.int64(-3), np.bool_(True), np.complex64(1 + 2j), np.str_("ab")])
def test_numpy_scalar_comes_as_a_plain_value(scalar: np.generic) -> None:
    value = read(pickle.dumps(scalar)).tree
    assert value == scalar.item()
    assert type(value) is type(scalar.item())


def test_array_of_objects_stays_a_record() -> None:
    tree = read(pickle.dumps(np.array([{"a": 1}, None], dtype=object))).tree
    assert tree.class_name == "numpy._core.multiarray._reconstruct"
    assert tree.state[-1] == [{"a": 1}, None]
