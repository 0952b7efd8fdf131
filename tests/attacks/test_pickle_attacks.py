"""Pickles that run code in Python, and are only looked at here.

Every payload does one thing: it makes an empty file.  Each is a pair: Python's own `pickle.loads`, in a process of its
own, makes the file; Loadstone reads the same bytes, makes none, and reports the call.
"""

import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from loadstone.errors import FormatError
from loadstone.formats.pickles.globals import judge
from loadstone.formats.pickles.vm import execute
from loadstone.io.sources import MemorySource


def text(value: str) -> bytes:
    return b"X" + len(value.encode()).to_bytes(4, "little") + value.encode()


OPEN = b"cio\nopen\n"


def arguments(path: str) -> bytes:
    """The tuple that makes `open` make the file."""
    return text(path) + text("w") + b"\x86"


PAYLOADS: dict[str, Callable[[str], bytes]] = {
    "reduce": lambda path: OPEN + arguments(path) + b"R.",
    "result thrown away": lambda path: OPEN + arguments(path) + b"R0N.",
    "result kept in a key": lambda path: b"}" + OPEN + arguments(path) + b"RNs.",
    "inst": lambda path: b"(" + text(path) + text("w") + b"iio\nopen\n.",
    "obj": lambda path: b"(" + OPEN + text(path) + text("w") + b"o.",
    "name of python 2": lambda path: b"c__builtin__\nopen\n" + arguments(path) + b"R.",
    "name from the stack": lambda path: b"\x80\x04" + text("io") + text("open") + b"\x93" + arguments(path) + b"R.",
    "name from the memo": lambda path: (
        b"\x80\x04" + text("open") + b"\x940" + text("io") + b"h\x00\x93" + arguments(path) + b"R."
    ),
    "name that is computed": lambda path: (
        b"\x80\x04" + text("io") + b"cbuiltins\nstr\n" + text("open") + b"\x85R\x93" + arguments(path) + b"R."
    ),
    "name with dots": lambda path: (
        b"\x80\x04" + text("pathlib") + text("Path.touch") + b"\x93cpathlib\nPath\n" + text(path) + b"\x85R\x85R."
    ),
    "eval": lambda path: b"cbuiltins\neval\n" + text(f"open({path!r}, 'w')") + b"\x85R.",
    "module and attribute": lambda path: (
        b"cbuiltins\ngetattr\ncimportlib\nimport_module\n" + text("io") + b"\x85R" + text("open") + b"\x86R"
        + arguments(path) + b"R."
    ),
    "partial": lambda path: b"cfunctools\npartial\n" + OPEN + b"\x85R" + arguments(path) + b"R.",
    "partial by its state": lambda path: (
        b"cfunctools\npartial\ncbuiltins\nint\n\x85R(" + OPEN + arguments(path) + b"}Ntb)R."
    ),
    "map, drawn by list": lambda path: (
        b"cbuiltins\nlist\ncbuiltins\nmap\n" + OPEN + b"]" + text(path) + b"a]" + text("w") + b"a\x87R\x85R."
    ),
    "method caller": lambda path: (
        b"coperator\nmethodcaller\n" + text("touch") + b"\x85Rcpathlib\nPath\n" + text(path) + b"\x85R\x85R."
    ),
    "pickle in a pickle": lambda path: (
        b"cpickle\nloads\nB" + len(inner := OPEN + arguments(path) + b"R.").to_bytes(4, "little") + inner + b"\x85R."
    ),
    "constructor that opens a file": lambda path: b"clogging\nFileHandler\n" + text(path) + b"\x85R.",
    "default of a dict": lambda path: (
        b"cbuiltins\ngetattr\nccollections\ndefaultdict\ncfunctools\npartial\n" + OPEN + arguments(path)[:-1]
        + b"\x87R\x85R" + text("__missing__") + b"\x86RN\x85R."
    ),
    "end cut off": lambda path: OPEN + arguments(path) + b"R\xff",
}  # fmt: skip


def load_with_python(data: bytes, directory: Path) -> None:
    """What a user without Loadstone would do."""
    (directory / "payload.pkl").write_bytes(data)
    script = "import pickle, sys; pickle.load(open(sys.argv[1], 'rb'))"
    subprocess.run([sys.executable, "-Ic", script, directory / "payload.pkl"], capture_output=True, check=False)


@pytest.mark.parametrize("name", PAYLOADS)
def test_payload_is_reported_and_not_run(name: str, tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    data = PAYLOADS[name](str(marker))
    try:
        diagnostics = judge(execute(MemorySource(data, "payload.pkl")), "payload.pkl")
    except FormatError as error:
        diagnostics = error.diagnostics
    assert not marker.exists()
    assert "dangerous-global" in [entry.code for entry in diagnostics if entry.severity == "error"]
    load_with_python(data, tmp_path)
    assert marker.exists(), "the payload is no payload"


def test_attributes_of_modules_are_not_replaced() -> None:
    """BUILD on a name replaces attributes of a live module or class in Python."""
    data = b"\x80\x04" + text("pickle") + text("Pickler") + b"\x93N}" + text("hijacked") + b"Ns\x86b."
    [diagnostic] = judge(execute(MemorySource(data, "payload.pkl")), "payload.pkl")
    assert "changes pickle.Pickler with BUILD" in diagnostic.message
    assert not hasattr(pickle.Pickler, "hijacked")


def test_a_frame_that_lies_hides_nothing(tmp_path: Path) -> None:
    """Readers disagree about a FRAME shorter than what is in it (python/cpython#154848)."""
    hidden = OPEN + arguments(str(tmp_path / "marker")) + b"R"
    inside = b"B" + len(hidden).to_bytes(4, "little") + hidden
    data = b"\x80\x04\x95" + (7).to_bytes(8, "little") + inside + b"."
    diagnostics = judge(execute(MemorySource(data, "payload.pkl")), "payload.pkl")
    assert [diagnostic.code for diagnostic in diagnostics] == ["misleading-pickle"]


def test_a_deep_key_does_not_crash() -> None:
    """Hashing a million nested tuples overflows the C stack of Python's unpickler, and of torch.load."""
    data = b"\x80\x02})" + b"\x85" * 1_000_000 + b"Ns."
    [(key, value)] = execute(MemorySource(data, "payload.pkl")).value.entries
    assert (type(key), value) == (tuple, None)


def test_nothing_is_imported(tmp_path: Path) -> None:
    (tmp_path / "payload.pkl").write_bytes(b"(cantigravity\nfly\ncthis\ns\n)Rt.")
    script = (
        "import sys; from pathlib import Path\n"
        "from loadstone.formats.pickles.vm import execute; from loadstone.formats.pickles.globals import judge\n"
        "from loadstone.io.sources import MemorySource\n"
        "before = set(sys.modules)\n"
        "judge(execute(MemorySource(Path(sys.argv[1]).read_bytes(), 'x')), 'x')\n"
        "print(sorted(set(sys.modules) - before))\n"
    )
    output = subprocess.run([sys.executable, "-c", script, tmp_path / "payload.pkl"], capture_output=True, check=True)
    assert output.stdout.strip() == b"[]"
