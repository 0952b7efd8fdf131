"""The pickle machine against Python's own: the same data, the same ends, and clean refusals of all else."""

import gc
import io
import pickle
import pickletools
import random
import tracemalloc
import zipfile
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from loadstone.errors import FormatError, IntegrityError, LimitError, LoadstoneError
from loadstone.formats.pickles.input import FIRST_WINDOW
from loadstone.formats.pickles.opcodes import OPCODES
from loadstone.formats.pickles.values import (
    BigInt,
    Call,
    Execution,
    Global,
    OutOfBandBuffer,
    PersistentId,
    PickledDict,
    PickledSet,
)
from loadstone.formats.pickles.vm import execute
from loadstone.io.limits import Limits
from loadstone.io.sources import MemorySource

PROTOCOLS = range(6)


def run(data: bytes, start: int = 0, **limits: int) -> Execution:
    return execute(MemorySource(data, "test.pkl"), start, limits=Limits(**limits))


def value_of(data: bytes) -> Any:
    return run(data).value


def plain(value: Any) -> Any:
    """Inert values as the Python values they stand for, calls of builtins included; recursive, for small values."""
    match value:
        case PickledDict():
            return {plain(key): plain(item) for key, item in value.entries}
        case PickledSet():
            return (frozenset if value.is_frozen else set)(map(plain, value.items))
        case list() | tuple():
            return type(value)(map(plain, value))
        case Call(function=Global(name="encode")):
            return value.args[0].encode("latin-1")
        case Call(function=Global(name=name)):
            return {"set": set, "frozenset": frozenset, "bytes": bytes, "bytearray": bytearray, "complex": complex}[
                name
            ](*map(plain, value.args))
    return value


def exact(value: Any) -> Any:
    """A value so that 1, 1.0 and True differ, and so do 0.0 and -0.0; recursive, for small values."""
    match value:
        case dict():
            return [(exact(key), exact(item)) for key, item in value.items()]
        case set() | frozenset():
            return type(value), sorted(map(repr, value))
        case list() | tuple():
            return type(value), [exact(item) for item in value]
    return repr(value)


scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary()
    | st.complex_numbers()
)
hashable = st.none() | st.booleans() | st.integers() | st.text() | st.tuples(st.integers(), st.text())
values = st.recursive(
    scalars | st.builds(bytearray, st.binary()) | st.sets(st.integers()) | st.frozensets(st.text()),
    lambda inner: st.lists(inner) | st.tuples(inner, inner) | st.tuples(inner) | st.dictionaries(hashable, inner),
    max_leaves=20,
)


@given(values, st.sampled_from(PROTOCOLS))
def test_data_comes_out_as_python_reads_it(value: Any, protocol: int) -> None:
    assert exact(plain(value_of(pickle.dumps(value, protocol)))) == exact(value)


@given(st.text(alphabet=st.characters()), st.sampled_from(PROTOCOLS))
def test_lone_surrogates_survive(text: str, protocol: int) -> None:
    assert value_of(pickle.dumps(text, protocol)) == text


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_every_cut_is_reported_as_a_truncated_file(protocol: int) -> None:
    data = pickle.dumps({"a": [1, 2.5, None, True, -3, 2**40, 2**70, "é"], "b": (b"z" * 300, {1})}, protocol)
    for length in range(len(data)):
        with pytest.raises(IntegrityError) as caught:
            run(data[:length])
        assert caught.value.code == "truncated-file"


def test_the_opcode_table_is_that_of_pickletools() -> None:
    assert {code: name for code, (name, _) in OPCODES.items()} == {ord(op.code): op.name for op in pickletools.opcodes}


def test_every_opcode_is_carried_out() -> None:
    without_handler = []
    for code in OPCODES:
        try:
            run(bytes([code]) + b"0\n0\n" + bytes(16))
        except LoadstoneError as error:
            without_handler += [code] if f"at 0: {OPCODES[code][0]} is no opcode" in str(error) else []
    assert without_handler == []


def test_all_other_bytes_are_refused() -> None:
    for code in set(range(256)) - set(OPCODES):
        with pytest.raises(FormatError, match="is no opcode"):
            run(bytes([code]) + bytes(16))


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_torch_file_gives_its_records(protocol: int) -> None:
    buffer = io.BytesIO()
    torch.save({"weight": torch.zeros(2, 3)}, buffer, pickle_protocol=protocol)
    execution = run(zipfile.ZipFile(buffer).read("archive/data.pkl"))
    [(key, tensor)] = execution.value.entries
    assert (key, tensor.function.path) == ("weight", "torch._utils._rebuild_tensor_v2")
    assert tensor.args[1:5] == (0, (2, 3), (3, 1), False)
    assert tensor.args[0] is execution.persistent_ids[0]
    if protocol:
        assert [getattr(part, "path", part) for part in tensor.args[0].value] == [
            "storage", "torch.FloatStorage", "0", "cpu", 6,
        ]  # fmt: skip
    assert execution.protocol == max(protocol, 2) if protocol > 1 else execution.protocol == 0
    assert execution.oddities == []


class CountingSource:
    """A source of any size: a pickle, then zeros that are never stored."""

    name = "large.pt"

    def __init__(self, pickled: bytes, size: int) -> None:
        self.pickled, self.size, self.nbytes_read = pickled, size, 0

    def read(self, offset: int, nbytes: int) -> bytes:
        self.nbytes_read += nbytes
        return self.pickled[offset : offset + nbytes].ljust(nbytes, b"\0")

    def read_into(self, offset: int, buffer: memoryview) -> None:
        buffer[:] = self.read(offset, buffer.nbytes)

    def view(self, offset: int, nbytes: int) -> memoryview:
        return memoryview(bytearray(self.read(offset, nbytes)))

    def close(self) -> None:
        pass


def test_no_more_than_a_window_is_read_of_a_large_file() -> None:
    source = CountingSource(pickle.dumps(list(range(1000))), 50 * 10**9)
    assert execute(source).value == list(range(1000))
    assert source.nbytes_read <= FIRST_WINDOW


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_instructions_may_lie_across_windows(protocol: int) -> None:
    generator = random.Random(protocol)
    lengths = [FIRST_WINDOW - 40, *(generator.randrange(30) for _ in range(200_000)), 3 * FIRST_WINDOW, 300, 5]
    texts = ["é" * (length // 2) for length in lengths]
    assert plain(value_of(pickle.dumps(texts, protocol))) == texts


@pytest.mark.parametrize("filler", range(FIRST_WINDOW - 24, FIRST_WINDOW + 2))
def test_an_operand_may_lie_across_windows(filler: int) -> None:
    data = b"(B" + filler.to_bytes(4, "little") + bytes(filler) + b"J\x01\x02\x03\x04G?\xf0\0\0\0\0\0\0V\\u00e9\nt."
    assert value_of(data)[1:] == (0x04030201, 1.0, "é")


def test_pickles_stand_back_to_back() -> None:
    data = b"junk" + pickle.dumps("first") + pickle.dumps("second", 0)
    first = run(data, 4)
    second = run(data, first.stop)
    assert (first.start, first.value, second.value, second.stop) == (4, "first", "second", len(data))


def test_shared_objects_stay_shared() -> None:
    inner = [1]
    first, second = value_of(pickle.dumps((inner, inner)))
    assert first is second


def test_a_list_may_hold_itself() -> None:
    value: list[Any] = []
    value.append(value)
    result = value_of(pickle.dumps(value))
    assert result[0] is result


def test_a_huge_memo_index_costs_nothing() -> None:
    tracemalloc.start()
    assert value_of(b"\x80\x02Nr\xff\xff\xff\x7fj\xff\xff\xff\x7f.") is None
    assert tracemalloc.get_traced_memory()[1] < 1_000_000
    tracemalloc.stop()


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"\x80\x02)" + b"\x85" * 1_000_000 + b".", id="tuples"),
        pytest.param(b"\x80\x02" + b"]" * 300_000 + b"a" * 299_999 + b".", id="lists"),
        pytest.param(b"\x80\x02" + b"}N" * 300_000 + b"N" + b"s" * 300_000 + b".", id="dicts"),
        pytest.param(b"\x80\x02cghost\nf\nq\x000" + b"h\x00" * 200_000 + b")" + b"R\x85" * 200_000 + b".", id="calls"),
        pytest.param(b"\x80\x02cghost\nf\nq\x000" + b"h\x00)R" * 200_000 + b"b" * 199_999 + b".", id="states"),
    ],
)
def test_deep_values_are_built_and_freed(data: bytes) -> None:
    assert run(data).opcodes > 300_000


def test_billion_laughs_stay_small() -> None:
    levels = b"".join(b"(" + b"h" + bytes([i]) + b"h" + bytes([i]) + b"tq" + bytes([i + 1]) + b"0" for i in range(200))
    execution = run(b"\x80\x02)q\x000" + levels + b"h\xc8.")
    assert execution.value[0] is execution.value[1]


def test_a_long_integer_stays_bytes() -> None:
    data = b"\x01" * 5000
    value = value_of(b"\x80\x02\x8b" + len(data).to_bytes(4, "little") + data + b".")
    assert isinstance(value, BigInt)
    assert value.data == data


@pytest.mark.parametrize("value", [0, 1, -1, 255, -128, 2**63, -(2**63), 2**2000, -(2**2000)])
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_integers_of_any_size_and_sign(value: int, protocol: int) -> None:
    assert value_of(pickle.dumps(value, protocol)) == value


def test_strings_of_python_2_are_text_where_they_are_utf_8() -> None:
    assert value_of(b"U\x03abc.") == "abc"
    assert value_of(b"T\x02\0\0\0\xc3\xa9.") == "é"
    assert value_of(b"U\x02\xff\xfe.") == b"\xff\xfe"


@given(st.binary(max_size=30))
@settings(max_examples=200)
def test_escapes_of_python_2_strings_are_python_s(data: bytes) -> None:
    pickled = b"S" + repr(data)[1:].encode() + b"\n."
    assert pickle.loads(pickled, encoding="bytes") == data
    value = value_of(pickled)
    assert (value.encode() if isinstance(value, str) else value) == data


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"\x80\x02\x87.", "TUPLE3 finds too little"),
        (b".", "STOP finds too little"),
        (b"(.", "STOP comes while a MARK is open"),
        (b"Nt.", "TUPLE finds too little"),
        (b"N(Nu.", "SETITEMS finds a key without a value"),
        (b"N(e.", "APPENDS finds None instead of a list"),
        (b"}Na.", "APPEND finds a dict instead of a list"),
        (b"]NNs.", "SETITEM finds a list instead of a dict"),
        (b"\x8f(Ne.", "APPENDS finds a set instead of a list"),
        (b"(\x91(N\x90.", "ADDITEMS finds a set instead of a set"),
        (b"Nh\x07.", "BINGET asks for memo entry 7"),
        (b"Ng7\n.", "GET asks for memo entry 7"),
        (b"Np-1\n.", "PUT has the negative memo index"),
        (b"q\x00.", "BINPUT finds too little"),
        (b"K\x01)R.", "REDUCE calls an integer"),
        (b"cghost\nf\nNR.", "REDUCE passes None for a tuple of arguments"),
        (b"(N)o.", "OBJ calls None"),
        (b"(o.", "OBJ finds too little"),
        (b"NN\x81.", "NEWOBJ calls None"),
        (b"cghost\nf\n)N\x92.", "NEWOBJ_EX passes None for a dict"),
        (b"NNb.", "BUILD gives a state to None"),
        (b"}}b.", "BUILD gives a state to a dict"),
        (b"K\x01\x8c\x01f\x93.", "STACK_GLOBAL takes two texts, not an integer"),
        (b"\x80\x06N.", "PROTO says 6"),
        (b"I12x\n.", "INT has '12x' for an integer"),
        (b"I0x10\n.", "INT has '0x10' for an integer"),
        (b"I1_0\n.", "INT has '1_0' for an integer"),
        (b"L\n.", "LONG has '' for an integer"),
        (b"F1.0.0\n.", "FLOAT has '1.0.0' for a number"),
        (b"S'abc\n.", 'STRING has "\'abc" for a quoted string'),
        (b"S'\\x1'\n.", "STRING has a string that ends inside an escape"),
        (b"\x8b\xff\xff\xff\xff.", "LONG4 has the negative length -1"),
        (b"T\xff\xff\xff\xff.", "BINSTRING has the negative length -1"),
        (b"X\x01\0\0\0\xff.", "BINUNICODE has text that is not utf-8"),
        (b"P\xc3\xa9\n.", "PERSID has text that is not ascii"),
        (b"N\x98.", "READONLY_BUFFER finds None instead of a buffer"),
    ],
)
def test_malformed_pickles_are_refused(data: bytes, what: str) -> None:
    with pytest.raises(FormatError) as caught:
        run(data)
    assert caught.value.code == "corrupt-pickle"
    assert what in caught.value.diagnostics[0].message


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"\x8d" + (2**62).to_bytes(8, "little") + b"x.", id="BINUNICODE8"),
        pytest.param(b"\x8e" + (2**64 - 1).to_bytes(8, "little") + b"x.", id="BINBYTES8"),
        pytest.param(b"\x96" + (2**40).to_bytes(8, "little") + b"x.", id="BYTEARRAY8"),
        pytest.param(b"\x8b\xff\xff\xff\x7f.", id="LONG4"),
        pytest.param(b"\x80\x04\x95" + (2**62).to_bytes(8, "little") + b"N.", id="FRAME"),
    ],
)
def test_a_length_beyond_the_end_is_refused_before_memory_is_taken(data: bytes) -> None:
    tracemalloc.start()
    with pytest.raises(IntegrityError):
        run(data)
    assert tracemalloc.get_traced_memory()[1] < 1_000_000
    tracemalloc.stop()


@pytest.mark.parametrize(
    ("data", "limits"),
    [
        (b"N0" * 100 + b"N.", {"opcodes": 100}),
        (b"(" * 100, {"depth": 50}),
        (b"B\xe8\x03\0\0" + bytes(1000) + b".", {"header_nbytes": 500}),
        (b"V" + b"a" * (3 * FIRST_WINDOW) + b"\n.", {"header_nbytes": FIRST_WINDOW}),
        (b"N0" * FIRST_WINDOW + b"N.", {"header_nbytes": FIRST_WINDOW}),
        (b"I" + b"9" * 5000 + b"\n.", {}),
        (b"L" + b"9" * 100 + b"L\n.", {"big_int_nbytes": 10}),
    ],
)
def test_limits_stop_a_pickle(data: bytes, limits: dict[str, int]) -> None:
    with pytest.raises(LimitError) as caught:
        run(data, **limits)
    assert caught.value.code == "resource-limit"


def test_the_limit_of_opcodes_is_exact() -> None:
    assert run(b"N0N.", opcodes=4).opcodes == 4
    with pytest.raises(LimitError):
        run(b"N0N.", opcodes=3)


def frame(length: int) -> bytes:
    return b"\x95" + length.to_bytes(8, "little")


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"\x80\x04" + frame(1) + b"K\x01.", "ends inside an instruction"),
        (b"\x80\x04" + frame(12) + frame(3) + b"K\x01.", "starts inside another"),
        (b"\x80\x04" + frame(5) + b"K\x01.xx", "goes on behind STOP"),
        (b"\x82\x07.", "extension code 7"),
        (b"NN.", "leaves 1 values behind"),
        (b"cghost\nf\n)RNbNb.", "a state twice"),
        (b"cghost\nf\n)R\x8c\x01f\x93.", "a name is the result of a call"),
        (b"cghost\nf\nq\0h\0)RR.", "the arguments of a call"),
        (b"csys\nmodules\nNNs.", "items are put into 'sys.modules'"),
    ],
)
def test_what_no_pickler_writes_is_noted(data: bytes, what: str) -> None:
    assert any(what in text for _, text in run(data).oddities)


def test_a_frame_may_end_before_any_instruction() -> None:
    assert run(b"\x80\x04" + frame(2) + b"K\x01.").oddities == []


@pytest.mark.parametrize("protocol", [4, 5])
def test_frames_that_python_writes_are_fine(protocol: int) -> None:
    value = [bytes(length) for length in (10, 70_000, 100, 200_000, 3)] + ["x" * 100_000, list(range(100_000))]
    data = pickle.dumps(value, protocol)
    assert pickletools.optimize(data) != data
    assert run(data).oddities == run(pickletools.optimize(data)).oddities == []


def test_calls_of_every_kind_become_records() -> None:
    execution = run(
        b"(cghost\nA\nN\x85R"  # reduce
        b"(Nighost\nB\n"  # inst
        b"(cghost\nC\nNo"  # obj
        b"cghost\nD\n)\x81"  # newobj
        b"cghost\nE\n)}\x92"  # newobj_ex
        b"t."
    )
    assert [(call.kind, call.function.path, call.args) for call in execution.value] == [
        ("reduce", "ghost.A", (None,)),
        ("inst", "ghost.B", (None,)),
        ("obj", "ghost.C", (None,)),
        ("newobj", "ghost.D", ()),
        ("newobj_ex", "ghost.E", ()),
    ]
    assert execution.calls == list(execution.value)
    assert [record.name for record in execution.globals] == list("ABCDE")


def test_what_is_done_to_the_result_of_a_call_is_kept() -> None:
    value = value_of(b"cghost\nA\n)R}b(K\x01K\x02eK\x03a(K\x04K\x05uK\x06K\x07s(K\x08\x90.")
    assert isinstance(value.state, PickledDict)
    assert value.items == [1, 2, 3, 8]
    assert value.entries == [(4, 5), (6, 7)]


def test_records_that_are_thrown_away_are_kept_for_the_judge() -> None:
    execution = run(b"cos\nsystem\nV:\n\x85R0N.")
    assert execution.value is None
    assert [call.function.path for call in execution.calls] == ["os.system"]


def test_a_state_put_on_a_name_is_kept() -> None:
    assert isinstance(value_of(b"csys\nmodules\n}b.").state, PickledDict)


def test_persistent_ids_of_both_kinds() -> None:
    execution = run(b"(Pone\nK\x02Qt.")
    assert [reference.value for reference in execution.value] == ["one", 2]
    assert all(isinstance(reference, PersistentId) for reference in execution.persistent_ids)


def test_buffers_beside_the_pickle_are_numbered() -> None:
    first, second = value_of(b"\x80\x05\x97\x97\x98\x86.")
    assert isinstance(second, OutOfBandBuffer)
    assert (first.index, second.index) == (0, 1)


def test_unhashable_keys_are_no_error() -> None:
    assert value_of(b"}]Ns.").entries == [([], None)]


def test_pop_takes_a_mark_where_the_stack_is_empty() -> None:
    assert value_of(b"N(0.") is None
    assert value_of(b"N(NN1.") is None


def test_an_error_tells_what_had_been_asked_for() -> None:
    with pytest.raises(FormatError) as caught:
        run(b"cos\nsystem\nV:\n\x85R\xff")
    assert [diagnostic.code for diagnostic in caught.value.diagnostics] == ["corrupt-pickle", "dangerous-global"]


def test_the_garbage_collector_is_left_as_it_was() -> None:
    assert gc.isenabled()
    with pytest.raises(FormatError):
        run(b"\xff")
    assert gc.isenabled()
    gc.disable()
    run(b"N.")
    was_enabled = gc.isenabled()
    gc.enable()
    assert not was_enabled


def test_damaged_pickles_give_only_errors_of_our_own() -> None:
    generator = random.Random(20261122)
    value = {"a": [1, 2.5, None, True, 2**70, "é"], "b": (b"z", {1, 2}), "c": bytearray(b"x"), "d": 1 + 2j}
    seeds = [pickle.dumps(value, protocol) for protocol in PROTOCOLS]
    codes = list(OPCODES)
    messages = []
    for _ in range(3000):
        data = bytearray(generator.choice(seeds))
        for _ in range(generator.randint(1, 4)):
            place = generator.randrange(len(data))
            match generator.randrange(3):
                case 0:
                    data[place] = generator.choice(codes)
                case 1:
                    data[place:place] = bytes(generator.choices(codes, k=3))
                case 2:
                    del data[place : place + generator.randint(1, 5)]
        try:
            run(bytes(data))
        except LoadstoneError as error:
            messages.append(error.diagnostics[0].message)
    assert 1000 < len(messages) < 3000
    assert all(message.isprintable() for message in messages)
