import contextlib
import io
import warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from loadstone.errors import FormatError, IntegrityError, LoadstoneError, UnsafeError
from loadstone.formats import torch_legacy
from loadstone.formats.contents import Contents, Context
from loadstone.formats.registry import open_source
from loadstone.io.sources import MemorySource
from loadstone.values import SavedModule

CONTEXT = Context(open_source)
SIGNED = ["float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "int8", "complex64", "complex128"]


def legacy_bytes(value: object, protocol: int = 2) -> bytes:
    stream = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the source of classes made in a test cannot be found
        torch.save(value, stream, _use_new_zipfile_serialization=False, pickle_protocol=protocol)
    return stream.getvalue()


def read(data: bytes) -> Contents:
    source = MemorySource(data, "legacy.pt")
    assert torch_legacy.recognises(data[:4096], source)
    return torch_legacy.read(source, CONTEXT)


def same(ours: torch.Tensor, theirs: torch.Tensor) -> bool:
    """Equal in dtype, shape and every bit of the values."""
    if ours.dtype != theirs.dtype or ours.shape != theirs.shape:
        return False
    as_bytes = [each.detach().contiguous().reshape(-1).view(torch.uint8) for each in (ours, theirs)]
    return torch.equal(*as_bytes)


@pytest.mark.parametrize("name", [*SIGNED, "uint8", "bool"])
def test_every_dtype_agrees_with_torch(name: str) -> None:
    data = legacy_bytes({"w": torch.arange(12).reshape(3, 4).to(getattr(torch, name))})
    assert same(read(data).tree["w"].read(), torch.load(io.BytesIO(data))["w"])


@pytest.mark.parametrize("name", ["float8_e4m3fn", "float8_e5m2", "uint16", "uint32", "uint64"])
def test_dtypes_that_torch_writes_and_cannot_read_back_are_read(name: str) -> None:
    tensor = torch.arange(6).to(getattr(torch, name))
    assert same(read(legacy_bytes({"w": tensor})).tree["w"].read(), tensor)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_every_binary_protocol_is_recognised_and_read(protocol: int) -> None:
    tensor = torch.arange(5.0)
    assert same(read(legacy_bytes({"w": tensor}, protocol)).tree["w"].read(), tensor)


def test_views_keep_their_stride_and_offset() -> None:
    base = torch.arange(20.0).reshape(4, 5)
    data = legacy_bytes({"t": base.t(), "column": base[:, 2], "expanded": base[0, 0].expand(3, 2)})
    tree, theirs = read(data).tree, torch.load(io.BytesIO(data))
    assert tree["column"].offset == 2
    assert tree["t"].stride == (1, 5)
    assert all(same(tree[key].read(), theirs[key]) for key in theirs)


def test_tensors_that_share_memory_share_one_storage() -> None:
    base = torch.arange(6.0)
    tree = read(legacy_bytes({"whole": base, "half": base[3:]})).tree
    assert tree["whole"].storage is tree["half"].storage


def test_parameters_are_told_from_tensors() -> None:
    tree = read(legacy_bytes([nn.Parameter(torch.ones(2)), torch.ones(2)])).tree
    assert [(info.is_parameter, info.requires_grad) for info in tree] == [(True, True), (False, False)]


def test_conjugated_tensor_is_resolved() -> None:
    tensor = torch.tensor([1 + 2j, 3 - 4j]).conj()
    assert torch.equal(read(legacy_bytes(tensor)).tree.read(), tensor)


def test_sparse_coo_agrees_with_torch() -> None:
    tensor = torch.eye(3).to_sparse().coalesce()
    assert torch.equal(read(legacy_bytes(tensor)).tree.read().to_dense(), torch.eye(3))


@pytest.mark.filterwarnings("ignore")  # torch calls sparse CSR beta and quantisation deprecated
def test_sparse_csr_and_quantised_tensors_come_as_such() -> None:
    quantised = torch.quantize_per_tensor(torch.tensor([0.5, 1.0, -1.0]), 0.25, 3, torch.qint8)
    tree = read(legacy_bytes({"csr": torch.eye(3).to_sparse_csr(), "q": quantised})).tree
    assert tree["csr"].layout == "sparse_csr"
    assert torch.equal(tree["csr"].read().to_dense(), torch.eye(3))
    assert torch.equal(tree["q"].read().int_repr(), quantised.int_repr())


@pytest.mark.filterwarnings("ignore")  # nested tensors are a prototype
def test_nested_tensor_is_read_where_torch_reads_garbage() -> None:
    rows = [torch.arange(6.0).reshape(2, 3), torch.ones(1, 3)]
    nested = read(legacy_bytes(torch.nested.nested_tensor(rows))).tree.read()
    assert all(torch.equal(ours, row) for ours, row in zip(nested.unbind(), rows, strict=True))


def test_whole_model_gives_the_state_dict_of_its_class_in_order() -> None:
    class Gone(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
            self.head = nn.Linear(4, 2, bias=False)
            self.register_buffer("kept", torch.ones(1))
            self.register_buffer("lost", torch.ones(1), persistent=False)

    Gone.__qualname__ = Gone.__name__ = "Gone"
    globals()["Gone"] = Gone
    model = Gone()
    data = legacy_bytes(model)
    del globals()["Gone"]
    module = read(data).tree
    assert isinstance(module, SavedModule)
    assert list(module.state_dict) == list(model.state_dict())
    assert all(same(module.state_dict[key].read(), value) for key, value in model.state_dict().items())
    assert list(module.non_persistent) == ["lost"]
    assert module.modules["layers.1"] == "torch.nn.modules.batchnorm.BatchNorm1d"


def test_source_text_of_classes_is_noted_and_listed() -> None:
    contents = read(legacy_bytes(nn.Linear(2, 2)))
    assert contents.code == ("torch.nn.modules.linear.Linear",)
    assert "contains-code" in [finding.code for finding in contents.diagnostics]


def test_format_is_noted_and_named() -> None:
    contents = read(legacy_bytes({}))
    assert contents.format == "torch-legacy"
    assert [finding.code for finding in contents.diagnostics] == ["legacy-format"]


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_a_stream_cut_anywhere_is_an_integrity_error(data: st.DataObject) -> None:
    whole = legacy_bytes({"w": torch.arange(4.0), "b": torch.ones(3)})
    cut = data.draw(st.integers(15, len(whole) - 1))
    with pytest.raises(IntegrityError) as caught:
        read(whole[:cut])
    assert caught.value.code == "truncated-file"


@settings(max_examples=60, deadline=None)
@given(place=st.integers(15, 500), byte=st.integers(0, 255))
def test_a_damaged_byte_never_escapes_as_another_error(place: int, byte: int) -> None:
    data = bytearray(legacy_bytes({"w": torch.arange(4.0), "b": torch.ones(3)}))
    data[place % len(data)] = byte
    if torch_legacy.recognises(bytes(data[:4096]), MemorySource(data, "x")):
        with contextlib.suppress(LoadstoneError):  # anything else fails the test
            read(bytes(data))


def test_element_count_in_the_data_must_agree_with_the_pickle() -> None:
    data = bytearray(legacy_bytes(torch.arange(4.0)))
    data[-24:-16] = (2**40).to_bytes(8, "little")
    with pytest.raises(FormatError, match="4 and 1,099,511,627,776 elements"):
        read(bytes(data))


def test_bytes_behind_the_data_are_noted() -> None:
    contents = read(legacy_bytes(torch.ones(2)) + b"extra")
    assert "trailing-bytes" in [finding.code for finding in contents.diagnostics]


def test_a_zip_behind_the_data_is_refused() -> None:
    archive = io.BytesIO()
    torch.save({"other": torch.zeros(1)}, archive)
    with pytest.raises(UnsafeError) as caught:
        read(legacy_bytes(torch.ones(2)) + archive.getvalue())
    assert caught.value.code == "ambiguous-archive"


def test_magic_number_that_is_computed_is_not_recognised() -> None:
    computed = b"\x80\x02cbuiltins\neval\nX\x18\x00\x00\x00119547037146038801333356\x85R."
    assert not torch_legacy.recognises(computed, MemorySource(computed, "x"))


def test_storage_class_that_does_not_exist_is_named() -> None:
    data = legacy_bytes(torch.ones(2)).replace(b"FloatStorage", b"FlootStorage")
    with pytest.raises(FormatError, match="FlootStorage"):
        read(data)
