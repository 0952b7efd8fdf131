"""The judge of names: what real checkpoints hold passes, what runs code is named."""

import collections
import datetime
import enum
import functools
import io
import operator
import pathlib
import pickle
import random
import typing
import zipfile
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from loadstone.errors import Diagnostic
from loadstone.formats.pickles.globals import MAX_FINDINGS, canonical, judge, printable
from loadstone.formats.pickles.known_globals import FUNCTION_ARGUMENT, SAFE_BUILDERS, SAFE_STDLIB
from loadstone.formats.pickles.vm import execute
from loadstone.io.sources import MemorySource


def judged(data: bytes) -> tuple[Diagnostic, ...]:
    return judge(execute(MemorySource(data, "test.pkl")), "test.pkl")


def called(module: str, name: str, arguments: bytes = b")") -> bytes:
    """A pickle that calls a name, written with STACK_GLOBAL so that the name may hold dots."""
    parts = b"".join(b"\x8c" + bytes([len(text.encode())]) + text.encode() for text in (module, name))
    return b"\x80\x04" + parts + b"\x93" + arguments + b"R."


def named(module: str, name: str) -> bytes:
    return called(module, name).removesuffix(b")R.") + b"."


class Colour(enum.Enum):
    RED = 1


class Flags(enum.Flag):
    A = 1
    B = 2


class Holder:
    def method(self) -> None: ...


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (("__builtin__", "set"), ("builtins", "set")),
        (("__builtin__", "unicode"), ("builtins", "str")),
        (("copy_reg", "_reconstructor"), ("copyreg", "_reconstructor")),
        (("cPickle", "loads"), ("pickle", "loads")),
        (("exceptions", "ValueError"), ("builtins", "ValueError")),
        (("commands", "getoutput"), ("subprocess", "getoutput")),
        (("numpy.core.multiarray", "scalar"), ("numpy._core.multiarray", "scalar")),
        (("numpy.core", "x"), ("numpy._core", "x")),
        (("numpy.core2", "x"), ("numpy.core2", "x")),
        (("torch._utils", "_rebuild_tensor_v2"), ("torch._utils", "_rebuild_tensor_v2")),
    ],
)
def test_names_of_old_versions_are_given_in_today_s_terms(old: tuple[str, str], new: tuple[str, str]) -> None:
    assert canonical(*old) == new


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize(
    "value",
    [
        pytest.param({1, 2}, id="set"),
        pytest.param(collections.OrderedDict(a=1), id="ordered dict"),
        pytest.param(collections.defaultdict(list, a=[1]), id="defaultdict"),
        pytest.param(collections.Counter("aab"), id="counter"),
        pytest.param(datetime.datetime(2026, 11, 22, tzinfo=datetime.UTC), id="datetime"),
        pytest.param(pathlib.PurePosixPath("/tmp/x"), id="path"),
        pytest.param(SimpleNamespace(lr=0.1), id="namespace"),
        pytest.param(functools.partial(int, base=2), id="partial"),
        pytest.param(typing.Any, id="annotation"),
        pytest.param(random.Random(0), id="random state"),
        pytest.param(np.arange(3), id="array"),
        pytest.param(np.float64(0.1), id="numpy scalar"),
        pytest.param(np.random.default_rng(0), id="numpy generator"),
        pytest.param(np.random.RandomState(0), id="numpy random state"),
        pytest.param(np.ma.masked_array([1, 2], [True, False]), id="masked array"),
        pytest.param(np.dtype("<f4"), id="numpy dtype"),
        pytest.param([type(None), ValueError("x"), ..., int, len], id="builtins"),
        pytest.param(b"\xff" * 10, id="bytes"),
    ],
)
def test_plain_objects_pass(value: Any, protocol: int) -> None:
    assert judged(pickle.dumps(value, protocol)) == ()


@pytest.mark.parametrize("protocol", [2, 4])
def test_torch_objects_pass(protocol: int) -> None:
    model = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.BatchNorm2d(2), torch.nn.ReLU())
    optimizer = torch.optim.AdamW(model.parameters())
    value = {
        "model": model,
        "state_dict": model.state_dict(),
        "optimizer": optimizer,
        "scheduler": torch.optim.lr_scheduler.StepLR(optimizer, 1).state_dict(),
        "sparse": torch.eye(3).to_sparse(),
        "float8": torch.zeros(2, dtype=torch.float8_e5m2),
        "meta": torch.zeros(2, device="meta"),
        "parts": (torch.Size([1]), torch.device("cpu"), torch.float32, torch.strided),
        "function": torch.nn.functional.relu,
        "rng": torch.get_rng_state(),
    }
    buffer = io.BytesIO()
    torch.save(value, buffer, pickle_protocol=protocol)
    assert judged(zipfile.ZipFile(buffer).read("archive/data.pkl")) == ()


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize(
    "value", [Colour.RED, Flags.A | Flags.B, Holder(), Holder().method, functools.partial(Holder), operator.add]
)
def test_classes_nobody_knows_are_a_note_and_no_more(value: Any, protocol: int) -> None:
    diagnostics = judged(pickle.dumps(value, protocol))
    assert {diagnostic.severity for diagnostic in diagnostics} <= {"note"}
    assert len(diagnostics) == (0 if value is operator.add else 1)


def test_unknown_names_are_listed_once_and_sorted() -> None:
    [diagnostic] = judged(b"(czoo\nB\n)\x81cghost\nA\nczoo\nB\ncghost\nbuild\n)Rt.")
    assert diagnostic.code == "unknown-global"
    assert [name for _, name in diagnostic.evidence] == ["ghost.A", "ghost.build", "zoo.B"]


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("os", "system"),
        ("posix", "system"),
        ("nt", "system"),
        ("os2emxpath", "join"),
        ("subprocess", "Popen"),
        ("__builtin__", "eval"),
        ("builtins", "exec"),
        ("builtins", "getattr"),
        ("builtins", "map"),
        ("builtins", "print"),
        ("importlib", "import_module"),
        ("pickle", "loads"),
        ("_pickle", "loads"),
        ("commands", "getoutput"),
        ("types", "CodeType"),
        ("operator", "attrgetter"),
        ("_operator", "methodcaller"),
        ("collections", "namedtuple"),
        ("typing", "get_type_hints"),
        ("copyreg", "add_extension"),
        ("logging", "FileHandler"),
        ("lib2to3.pgen2.grammar", "Grammar.loads"),
        ("test.support.script_helper", "assert_python_ok"),
        ("distutils.file_util", "write_file"),
        ("pip", "main"),
        ("torch", "load"),
        ("torch.hub", "load"),
        ("torch.jit", "load"),
        ("torch", "PyTorchFileWriter"),
        ("torch.storage", "open"),
        ("torch.fx.graph_module", "reduce_graph_module"),
        ("torch._inductor.codecache", "compile_file"),
        ("torch.utils._config_module", "ConfigModule.load_config"),
        ("torchvision.datasets.utils", "download_url"),
        ("numpy.testing._private.utils", "runstring"),
        ("numpy", "load"),
        ("dill._dill", "_create_function"),
        ("cloudpickle.cloudpickle", "_make_function"),
        ("joblib", "load"),
        ("pandas", "read_pickle"),
        ("ghost.module", "Class.method"),
        ("ghost", "os.system"),
        ("ghost", "__dict__"),
        ("оs", "system"),
        ("ｏs", "system"),
        ("os ", "system"),
        ("os\n", "system"),
        ("", "system"),
        ("ghost", ""),
    ],
)
def test_calls_that_run_code_are_errors(module: str, name: str) -> None:
    diagnostics = judged(called(module, name))
    assert [(diagnostic.code, diagnostic.severity) for diagnostic in diagnostics] == [("dangerous-global", "error")]


def test_a_name_longer_than_any_is_an_error() -> None:
    [diagnostic] = judged(b"cghost\n" + b"a" * 100_000 + b"\n)R.")
    assert diagnostic.severity == "error"
    assert len(diagnostic.message) < 300


@pytest.mark.parametrize("opcodes", [b")R.", b")\x81.", b")}\x92.", b"}b."])
def test_every_way_to_use_a_dangerous_name_is_seen(opcodes: bytes) -> None:
    [diagnostic] = judged(b"cshutil\nrmtree\n" + opcodes)
    assert "shutil.rmtree" in diagnostic.message


@pytest.mark.parametrize("data", [b"(ios\nsystem\n.", b"(cos\nsystem\no."])
def test_calls_of_protocol_0_are_seen(data: bytes) -> None:
    assert [diagnostic.severity for diagnostic in judged(data)] == ["error"]


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"cfunctools\npartial\ncos\nsystem\n\x85R.", id="partial"),
        pytest.param(b"cfunctools\npartial\nc__builtin__\nint\n\x85R(cos\nsystem\n)}NtR.", id="partial, then called"),
        pytest.param(b"cfunctools\npartial\nc__builtin__\nint\n\x85R(cos\nsystem\n)}Ntb.", id="state of a partial"),
        pytest.param(b"ccollections\ndefaultdict\ncos\ngetcwd\n\x85R.", id="default factory"),
        pytest.param(b"ccopy_reg\n_reconstructor\n(csubprocess\nPopen\nc__builtin__\nobject\nNtR.", id="reconstructor"),
        pytest.param(b"ctorch._tensor\n_rebuild_from_type_v2\n(cos\nsystem\nctorch\nTensor\n)NtR.", id="tensor type"),
    ],
)
def test_functions_that_are_called_for_another_are_seen(data: bytes) -> None:
    assert any(diagnostic.severity == "error" for diagnostic in judged(data))


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"cbuiltins\ngetattr\n(ctorch\nhub\nVload\ntR.", id="of a module"),
        pytest.param(b"cbuiltins\ngetattr\n(cghost\nModel\nV__globals__\ntR.", id="dunder"),
        pytest.param(b"cbuiltins\ngetattr\n(csubprocess\nPopen\nVwait\ntR.", id="of a dangerous class"),
        pytest.param(b"cbuiltins\ngetattr\n(Vx\nVformat\ntR.", id="of a text"),
        pytest.param(b"cbuiltins\ngetattr\n(ctorch\nTensor\nVtofile\ntR)R.", id="called"),
        pytest.param(b"cbuiltins\ngetattr\n(cghost\nModel\ncghost\nx\ntR.", id="computed"),
    ],
)
def test_getattr_is_dangerous_where_it_is_no_member_of_a_class(data: bytes) -> None:
    assert any(diagnostic.severity == "error" for diagnostic in judged(data))


def test_the_result_of_a_known_function_is_not_called() -> None:
    [diagnostic] = judged(b"ccollections\nOrderedDict\n)R)R.")
    assert diagnostic.code == "dangerous-global"


def test_a_class_kept_outside_the_pickle_is_judged_by_its_name() -> None:
    legacy = b"(Vmodule\nc%s\nVfile.py\nVsource\ntQ)\x81."
    assert [entry.code for entry in judged(legacy % b"ghost\nNet")] == ["unknown-global"]
    assert [entry.code for entry in judged(legacy % b"subprocess\nPopen")] == ["dangerous-global"]
    assert [entry.severity for entry in judged(b"Px\n)R.")] == ["error"]


def test_items_put_into_a_tensor_are_an_attack() -> None:
    [diagnostic] = judged(b"ctorch._utils\n_rebuild_tensor_v2\n)RNNs.")
    assert "puts items into" in diagnostic.message


@pytest.mark.parametrize(
    ("module", "name", "severity"),
    [
        ("os", "system", "error"),
        ("builtins", "eval", "error"),
        ("subprocess", "Popen", "error"),
        ("ghost", "a.b", "error"),
        ("posixpath", "join", "warning"),
        ("builtins", "print", "warning"),
        ("torch", "load", "warning"),
    ],
)
def test_a_dangerous_name_that_is_only_data_is_reported(module: str, name: str, severity: str) -> None:
    [diagnostic] = judged(named(module, name))
    assert (diagnostic.code, diagnostic.severity) == ("dangerous-global", severity)


@pytest.mark.parametrize(
    ("module", "name"),
    [("builtins", "float"), ("torch", "float32"), ("torch", "relu"), ("math", "sqrt"), ("logging", "Logger")],
)
def test_types_and_plain_functions_may_be_data(module: str, name: str) -> None:
    assert judged(named(module, name)) == ()


@pytest.mark.parametrize("module", ["__main__", "模型.网络", "yolov5-master.models"])
def test_modules_of_real_people_are_only_unknown(module: str) -> None:
    assert [diagnostic.code for diagnostic in judged(called(module, "Net"))] == ["unknown-global"]


def test_a_memory_format_is_data_under_whatever_module_it_was_found() -> None:
    assert judged(pickle.dumps(torch.channels_last, 4)) == ()


def test_types_of_torchscript_are_no_python_names() -> None:
    assert judged(b"c__torch__.ghost.___torch_mangle_3\nNet\n)\x81}b.") == ()


def test_oddities_are_errors() -> None:
    [diagnostic] = judged(b"NN.")
    assert (diagnostic.code, diagnostic.severity) == ("misleading-pickle", "error")


def test_an_extension_code_is_an_error() -> None:
    assert {diagnostic.code for diagnostic in judged(b"\x82\x07)R.")} == {"dangerous-global", "misleading-pickle"}


def test_the_message_names_call_and_place() -> None:
    data = b"cos\nsystem\n(Vtouch /tmp/x\nI1\nNtR."
    [diagnostic] = judged(data)
    assert diagnostic.message == "the pickle in `test.pkl` calls os.system('touch /tmp/x', 1, None)"
    assert diagnostic.evidence == (("at", f"offset {data.index(b'R')}"),)


def test_text_of_the_file_is_escaped_and_cut() -> None:
    [diagnostic] = judged("cоs\nsystem\n(V\x1b[31m\\u202e\nV".encode() + b"x" * 100_000 + b"\ntR.")
    assert diagnostic.message.replace("…", "").isascii()
    assert diagnostic.message.isprintable()
    assert len(diagnostic.message) < 300


def test_printable_escapes_and_cuts() -> None:
    assert printable("é\n") == "\\xe9\\n"
    assert printable("x" * 10, 5) == "xxxxx…"


def test_findings_about_many_names_are_bounded() -> None:
    data = b"(" + b"".join(b"cos\nf%d\n)R" % number for number in range(1000)) + b"t."
    assert len(judged(data)) == MAX_FINDINGS


def test_warnings_do_not_crowd_out_errors() -> None:
    data = b"(" + b"".join(b"cposixpath\nf%d\n" % number for number in range(1000)) + b"cos\nsystem\nt."
    assert judged(data)[0].severity == "error"


def test_one_name_is_reported_once() -> None:
    assert len(judged(b"(" + b"cos\nsystem\n)R" * 1000 + b"t.")) == 1


def test_values_that_hold_themselves_are_shown() -> None:
    assert len(judged(b"]q\x00h\x00acos\nsystem\nh\x00\x85R\x86.")) == 1


def test_the_tables_agree_with_themselves() -> None:
    assert set(FUNCTION_ARGUMENT) <= SAFE_STDLIB | SAFE_BUILDERS
    assert all(canonical(*name) == name for name in SAFE_STDLIB | SAFE_BUILDERS)
