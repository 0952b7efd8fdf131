"""What records of a pickle mean, on pickles that Python or torch wrote, and on some that only an attacker would."""

import io
import pickle
import zipfile
from collections import Counter, OrderedDict, defaultdict, deque
from typing import Any, NoReturn

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from loadstone.errors import FormatError, LimitError, LoadstoneError
from loadstone.formats.pickles.interpret import StorageRef, interpret
from loadstone.formats.pickles.values import Execution, Global
from loadstone.formats.pickles.vm import execute
from loadstone.io.limits import Limits
from loadstone.io.sources import MemorySource
from loadstone.storage import Extent, Storage
from loadstone.values import AnnotatedDict, Opaque, Value

MERSENNE = 2**61 - 1  # int hashes are taken modulo this


def run(data: bytes) -> Execution:
    return execute(MemorySource(data, "test.pkl"))


def no_storages(persistent_id: object) -> NoReturn:
    raise AssertionError(persistent_id)


def value_of(data: bytes, **options: Any) -> Value:
    return interpret(run(data), no_storages, where="test.pkl", **options)


def in_zip(value: object) -> Value:
    """What torch.save wrote, its storages as zeros of the right size: only descriptions matter here."""
    stream = io.BytesIO()
    torch.save(value, stream)
    archive = zipfile.ZipFile(stream)
    known: dict[str, StorageRef] = {}

    def storage_of(pid: Any) -> StorageRef:
        _, storage_class, key, _, _ = pid
        if key not in known:
            data = archive.read(f"archive/data/{key}")
            storage = Storage(key, len(data), (Extent.stored(MemorySource(data, key), 0, len(data)),))
            name = storage_class.name.removesuffix("Storage").lower()
            dtype = {"float": "float32", "long": "int64", "untyped": None, "complexfloat": "complex64"}[name]
            known[key] = StorageRef(storage, dtype)
        return known[key]

    return interpret(run(archive.read("archive/data.pkl")), storage_of, where="data.pkl")


def tensor_pickle(
    offset: str = "I0\n", size: str = "(I2\nI2\nt", stride: str = "(I2\nI1\nt", rest: str = "I00\nN"
) -> bytes:
    return f"ctorch._utils\n_rebuild_tensor_v2\n((S'storage'\ntQ{offset}{size}{stride}{rest}tR.".encode()


def four_floats(_: object) -> StorageRef:
    return StorageRef(Storage("0", 16, (Extent.stored(MemorySource(bytes(16), "0"), 0, 16),)), "float32")


def test_containers_of_the_standard_library_become_plain_ones() -> None:
    value = [OrderedDict(a=1), Counter("aab"), deque([1, 2]), frozenset({3}), bytearray(b"x"), defaultdict(list, b=[2])]
    for protocol in range(6):
        assert value_of(pickle.dumps(value, protocol)) == [{"a": 1}, {"a": 2, "b": 1}, [1, 2], {3}, b"x", {"b": [2]}]


def test_torch_values_become_text_and_tuples() -> None:
    value = [torch.float32, torch.Size([1, 2]), torch.device("cuda:1"), torch.strided, torch.per_tensor_affine]
    assert in_zip(value) == ["torch.float32", (1, 2), "cuda:1", "torch.strided", "torch.per_tensor_affine"]


def test_attributes_of_an_ordered_dict_are_kept() -> None:
    tree = in_zip(torch.nn.BatchNorm1d(2).state_dict())
    assert isinstance(tree, AnnotatedDict)
    assert tree.attributes["_metadata"][""] == {"version": 2}


def test_object_of_an_unknown_class_keeps_its_name_and_data() -> None:
    value = value_of(b"cmissing.pkg\nThing\n(I1\ntR}S'size'\nI3\nsb.")
    assert isinstance(value, Opaque)
    assert (value.class_name, value.args, value.state) == ("missing.pkg.Thing", (1,), {"size": 3})


def test_slots_are_merged_into_the_attributes() -> None:
    value = value_of(b"cpkg\nThing\n)R(}S'a'\nI1\ns}S'b'\nI2\nstb.")
    assert value.state == {"a": 1, "b": 2}


def test_python2_reconstructor_gives_the_class_it_was_told() -> None:
    value = value_of(b"ccopy_reg\n_reconstructor\n(cpkg\nOld\nc__builtin__\nobject\nNtR}S'a'\nI1\nsb.")
    assert (value.class_name, value.args, value.state) == ("pkg.Old", (), {"a": 1})


def test_one_record_gives_one_value() -> None:
    shared: list[int] = [1]
    tree = value_of(pickle.dumps({"a": shared, "b": shared}))
    assert tree["a"] is tree["b"]


def test_list_that_contains_itself_is_kept_as_a_circle() -> None:
    circle: list[Any] = []
    circle.append(circle)
    tree = value_of(pickle.dumps(circle))
    assert tree[0] is tree


def test_tuple_that_contains_itself_through_a_list_is_cut_open() -> None:
    inner: list[Any] = []
    outer = (inner,)
    inner.append(outer)
    tree = value_of(pickle.dumps(outer))
    assert tree[0][0] is tree or repr(tree[0][0]) == "Opaque('<cycle>')"


def test_objects_as_keys_become_text_that_tells_them_apart() -> None:
    tree = value_of(b"}(cpkg\nK\n)RI1\ncpkg\nK\n)RI2\n(I1\nlI3\nu.")
    assert list(tree.values()) == [1, 2, 3]
    assert [key.split(" ")[0] for key in tree] == ["<pkg.K", "<pkg.K", "<list"]
    assert len(set(tree)) == 3


def test_of_equal_keys_the_last_value_counts() -> None:
    assert value_of(b"}(I1\nI1\nI2\nI2\nI1\nI3\nu.") == {1: 3, 2: 2}


@pytest.mark.parametrize("wrap", [b"", b"\x85"])
def test_keys_made_to_share_a_hash_become_text(wrap: bytes) -> None:
    keys = [1 + place * MERSENNE for place in range(200)]
    longs = [b"\x8a\x09" + key.to_bytes(9, "little") for key in keys]
    tree = value_of(b"\x80\x02}(" + b"".join(long + wrap + b"N" for long in longs) + b"u.")
    assert len(tree) == 200
    assert all(isinstance(key, str) for key in tree)


def test_integer_of_megabytes_is_kept_as_bytes() -> None:
    value = value_of(b"\x8b" + (5000).to_bytes(4, "little") + b"\x01" * 5000 + b".")
    assert (value.class_name, len(value.args[0])) == ("builtins.int", 5000)


def test_nesting_beyond_the_limit_is_refused() -> None:
    with pytest.raises(LimitError, match="depth"):
        value_of(b"]" * 5000 + b"a" * 4999 + b".")


def test_records_beyond_the_limit_are_refused() -> None:
    with pytest.raises(LimitError, match="nodes"):
        value_of(pickle.dumps([[0] for _ in range(200)]), limits=Limits(nodes=100))


def test_tensor_of_200_dimensions_is_accepted() -> None:
    ones = "(" + "I1\n" * 200 + "t"
    assert interpret(run(tensor_pickle(size=ones, stride=ones)), four_floats, where="x").shape == (1,) * 200


@pytest.mark.parametrize(
    "wrong",
    [
        {"offset": "I1\n"}, {"offset": "I-1\n"}, {"offset": "F0\n"}, {"size": "(I3\nI2\nt"}, {"size": "(I-2\nI2\nt"},
        {"size": "(I01\nI2\nt"}, {"size": "(F2\nI2\nt"}, {"size": "(I2\nt"}, {"size": "(I2\nI2\nl"}, {"size": "N"},
        {"stride": "(I-2\nI1\nt"}, {"stride": "(I4611686018427387904\nI1\nt"},
        {"size": "(I4294967296\nI4294967296\nt", "stride": "(I0\nI0\nt"}, {"rest": ""}, {"rest": "I00\nNNNN"},
    ],
)  # fmt: skip
def test_forged_tensor_is_a_format_error(wrong: dict[str, str]) -> None:
    with pytest.raises(FormatError) as caught:
        interpret(run(tensor_pickle(**wrong)), four_floats, where="x")
    assert caught.value.code in ("tensor-out-of-bounds", "corrupt-pickle")


def test_storage_that_is_a_value_is_one_dimension_of_its_elements() -> None:
    info = interpret(run(b"(S'storage'\ntQ."), four_floats, where="x")
    assert (info.shape, info.dtype) == ((4,), "float32")


def test_class_that_is_kept_outside_the_pickle_names_its_objects() -> None:
    value = interpret(run(b"(S'module'\ntQ)R."), lambda _: Global("pkg", "Net", 0), where="x")
    assert value.class_name == "pkg.Net"


def test_oldest_form_of_a_tensor_is_built_from_its_state() -> None:
    info = interpret(run(b"ctorch\nFloatTensor\n)R((S's'\ntQI0\n(I4\nt(I1\nttb."), four_floats, where="x")
    assert (info.shape, info.dtype) == ((4,), "float32")


def test_old_variable_says_whether_it_needs_a_gradient() -> None:
    data = b"ctorch.autograd.variable\nVariable\n(ctorch\nFloatTensor\n)RtR(I01\nI00\nNtb."
    assert value_of(data).requires_grad


def test_tensor_subclass_keeps_its_class_name() -> None:
    function = b"ctorch._utils\n_rebuild_tensor\ncpkg\nMarked\n"
    call = b"ctorch._tensor\n_rebuild_from_type_v2\n(" + function + b"((S's'\ntQI0\n(I4\nt(I1\ntt}tR."
    info = interpret(run(call), four_floats, where="x")
    assert (info.class_name, info.shape) == ("pkg.Marked", (4,))


def test_wrapper_subclass_has_the_tensors_of_its_state_as_parts() -> None:
    wrapper = b"ctorch._utils\n_rebuild_wrapper_subclass\ncpkg\nTwo\n"
    args = b"(cpkg\nTwo\nctorch\nfloat32\n(I8\nt(I1\ntI0\nNS'cpu'\nI00\nt"
    inner = b"ctorch._utils\n_rebuild_tensor\n((S's'\ntQI0\n(I4\nt(I1\nttR"
    call = b"ctorch._tensor\n_rebuild_from_type_v2\n(" + wrapper + args + b"}S'local'\n" + inner + b"stR."
    info = interpret(run(call), four_floats, where="x")
    assert (info.layout, info.class_name, info.shape) == ("wrapper", "pkg.Two", (8,))
    assert [(part.name, part.info.shape) for part in info.parts] == [("local", (4,))]


def test_meta_tensor_has_a_shape_and_no_storage() -> None:
    info = in_zip(torch.empty(3, 4, device="meta"))
    assert (info.shape, info.is_meta) == ((3, 4), True)


def test_float8_tensor_takes_its_dtype_from_the_call() -> None:
    info = in_zip(torch.ones(3).to(torch.float8_e4m3fn))
    assert (info.dtype, info.shape) == ("float8_e4m3fn", (3,))


@pytest.mark.filterwarnings("ignore")  # nested tensors are a prototype
def test_jagged_tensor_is_kept_as_its_parts() -> None:
    rows = [torch.ones(2, 3), torch.zeros(1, 3)]
    info = in_zip(torch.nested.nested_tensor(rows, layout=torch.jagged))
    assert (info.layout, [part.name for part in info.parts]) == ("wrapper", ["values", "offsets"])


def test_channel_axis_outside_the_shape_is_refused() -> None:
    scheme = b"(ctorch\nper_channel_affine\n(F1\nl(I0\nlI5\nt"  # the last number is the axis
    call = b"ctorch._utils\n_rebuild_qtensor\n((S's'\ntQI0\n(I4\nt(I1\nt" + scheme + b"I00\nNtR."
    storage = Storage("0", 4, (Extent.stored(MemorySource(bytes(4), "0"), 0, 4),))
    with pytest.raises(FormatError, match="axis 5"):
        interpret(run(call), lambda _: StorageRef(storage, "qint8"), where="x")


def test_sparse_indices_of_another_shape_are_refused() -> None:
    tensor = b"ctorch._utils\n_rebuild_tensor\n((S's'\ntQI0\n(I4\nt(I1\nttR"
    call = b"ctorch._utils\n_rebuild_sparse_tensor\n(S'torch.sparse_coo'\n(" + tensor + tensor + b"(I9\ntttR."
    with pytest.raises(FormatError) as caught:
        interpret(run(call), four_floats, where="x")
    assert caught.value.code == "tensor-out-of-bounds"


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.integers(), inner) | st.tuples(inner, inner),
    max_leaves=30,
)


@settings(max_examples=150, deadline=None)
@given(value=plain, protocol=st.integers(0, 5))
def test_plain_values_round_trip(value: object, protocol: int) -> None:
    assert value_of(pickle.dumps(value, protocol)) == value


@settings(max_examples=300, deadline=None)
@given(place=st.integers(0, 400), byte=st.integers(0, 255))
def test_a_damaged_byte_never_escapes_as_another_error(place: int, byte: int) -> None:
    data = bytearray(pickle.dumps([OrderedDict(a=1), {2, 3}, complex(1, 2), b"x", torch.float32, {"k": (1, 2)}], 2))
    data[place % len(data)] = byte
    try:
        value_of(bytes(data))
    except (LoadstoneError, AssertionError) as error:  # the latter: it has become a persistent id
        assert isinstance(error, LoadstoneError) or error.args  # noqa: PT017
