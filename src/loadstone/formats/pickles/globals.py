"""Judge what a pickle names: which of its calls are data, which run code, and which nobody knows.

`judge` walks all records an execution made, reachable from its value or not: a payload that is thrown away again, that
hides in a key, in a hook or in a persistent id has run all the same.  The tables are in known_globals.py.
"""

from __future__ import annotations

import re
import unicodedata
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING  # data: where Python 3 keeps the names of Python 2
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final, Literal

from loadstone.errors import Diagnostic
from loadstone.formats.pickles.known_globals import (
    DANGEROUS,
    DATA_MODULES,
    FUNCTION_ARGUMENT,
    HOSTILE_BUILTINS,
    HOSTILE_MODULES,
    JUDGED_PACKAGES,
    MEMORY_FORMATS,
    OWN_PACKAGES,
    SAFE_BUILDERS,
    SAFE_STDLIB,
    STDLIB,
)
from loadstone.formats.pickles.values import (
    NO_STATE,
    BigInt,
    Call,
    Execution,
    Global,
    PersistentId,
    PickledDict,
    PickledSet,
    PickleValue,
)

Verdict = Literal["known", "unknown", "dangerous"]

MAX_FINDINGS: Final = 20  # a file can ask for the same thing in a million ways; the first few are enough
MAX_NAMES: Final = 200  # rows of evidence
MAX_CHARS: Final = 500  # of a name; the longest in PyTorch has 112
_MODULE_PIECE = re.compile(r"[\w-]+")  # a directory `yolov5-master` is a module piece, an identifier it is not
_DUNDER = re.compile(r"__\w+__")


def canonical(module: str, name: str) -> tuple[str, str]:
    """The name in today's terms: `__builtin__.set` is `builtins.set`, `numpy.core` is `numpy._core`.

    Python 2 names are those that `pickle` itself maps (Lib/_compat_pickle.py); numpy moved its core in 2.0.
    """
    if (module, name) in NAME_MAPPING:
        module, name = NAME_MAPPING[(module, name)]
    elif module in IMPORT_MAPPING:
        module = IMPORT_MAPPING[module]
    if module == "exceptions":
        module = "builtins"
    if module == "numpy.core" or module.startswith("numpy.core."):
        module = "numpy._core" + module[len("numpy.core") :]
    return module, name


def judge(execution: Execution, where: str) -> tuple[Diagnostic, ...]:
    """What there is to say about the names in a pickle; `where` says in messages which pickle it is.

    dangerous-global    error: a call, or a state put on a name, that is no data; warning: such a name as mere data
    misleading-pickle   error: constructs no pickler writes
    unknown-global      one note, with all classes and functions nobody knows
    """
    return tuple(_Findings(execution, where).diagnostics())


@dataclass(slots=True)
class _Findings:
    """What was found so far in one execution."""

    execution: Execution
    where: str
    errors: dict[str, Diagnostic] = field(default_factory=dict)  # by name; the first finding about each is kept
    warnings: dict[str, Diagnostic] = field(default_factory=dict)
    seen: set[tuple[str, str]] = field(default_factory=set)  # names called, and names judged as data
    unknown: set[str] = field(default_factory=set)
    verdicts: dict[tuple[str, str, bool], Verdict] = field(default_factory=dict)

    def diagnostics(self) -> Iterator[Diagnostic]:
        settled: set[tuple[int, str]] = set()  # most calls of a checkpoint are the same few tensor builders
        for call in self.execution.calls:
            key = (id(call.function), call.kind)
            if (key not in settled or call.items or call.entries) and self.judge_call(call):
                settled.add(key)
        self.judge_names()
        yield from self.errors.values()
        for offset, what in self.execution.oddities[:MAX_FINDINGS]:
            message = f"the pickle in `{self.where}` was not written by a pickler: {what}"
            yield Diagnostic("misleading-pickle", message, evidence=(("at", f"offset {offset:,}"),))
        yield from self.warnings.values()
        if self.unknown:
            count = "1 name that is" if len(self.unknown) == 1 else f"{len(self.unknown):,} names that are"
            evidence = tuple(("name", path) for path in sorted(self.unknown)[:MAX_NAMES])
            yield Diagnostic("unknown-global", f"`{self.where}` holds {count} not part of PyTorch", evidence)

    def report(self, path: str, what: str, offset: int, *, level: Literal["error", "warning"] = "error") -> None:
        """Keep a finding, unless there is one about this name already, or there are enough."""
        kept = self.errors if level == "error" else self.warnings
        if path not in kept and len(kept) < MAX_FINDINGS:
            message = f"the pickle in `{self.where}` {what}"
            evidence = (("at", f"offset {offset:,}"),)
            kept[path] = Diagnostic("dangerous-global", message, evidence=evidence, level=level)

    def judge_call(self, call: Call) -> bool:
        """Judge a call, and what its function will call in turn; True if another call of the same name is as good."""
        target, verdict = self.target_of(call.function, call.kind)
        if target is None or (verdict == "dangerous" and not _is_harmless(call)):
            self.report("" if target is None else target.path, f"calls {_shown_call(call)}", call.offset)
            return False
        if target is not call.function or verdict == "dangerous":
            return False
        name = canonical(target.module, target.name)
        if (call.entries or call.items) and name in SAFE_BUILDERS and name[0].startswith("torch"):
            self.report(target.path, f"puts items into the result of {_shown_call(call)}", call.offset)
        if name not in FUNCTION_ARGUMENT:
            return True
        place = FUNCTION_ARGUMENT[name]
        functions = call.args[place : place + 1] if type(call.args) is tuple else ()
        if name == ("functools", "partial") and type(call.state) is tuple:
            functions += call.state[:1]  # partial.__setstate__ replaces the function
        for function in functions:
            if type(function) in (Global, Call, PersistentId):
                inner, verdict = self.target_of(function, "newobj" if name[0] == "copyreg" else "reduce")
                if inner is None or verdict == "dangerous":
                    self.report(inner.path if inner else "", f"calls {_shown_call(call)}", call.offset)
        return False

    def target_of(self, function: PickleValue, kind: str) -> tuple[Global | None, Verdict]:
        """The name behind what is called, and what is known about it; None if only running would tell."""
        if type(function) is Global:
            self.seen.add(canonical(function.module, function.name))
            return function, self.verdict_of(function, is_init_run=not kind.startswith("newobj"))
        if type(function) is PersistentId and type(function.value) is tuple:  # legacy: ("module", class, file, source)
            for part in function.value[:2]:
                if type(part) is Global:
                    return self.target_of(part, kind)
        if type(function) is Call and type(function.function) is Global:
            maker = function.function
            name = canonical(maker.module, maker.name)
            if name == ("functools", "partial"):
                return maker, "known"  # judged as a call of its own
            if name == ("builtins", "getattr"):  # a method of a class: as unknown as the class is
                owner = function.args[0] if type(function.args) is tuple and function.args else None
                if type(owner) is Global and self.verdict_of(owner) == "unknown":
                    return owner, "unknown"
            elif self.verdict_of(maker) == "unknown":
                return maker, "unknown"
        return None, "dangerous"

    def judge_names(self) -> None:
        """Judge names that stand in the pickle without being called, and states put on names."""
        for record in self.execution.globals:
            if record.state is not NO_STATE:
                self.report(record.path, f"changes {printable(record.path)} with BUILD", record.offset)
                continue
            if self.verdict_of(record, is_init_run=False) == "unknown":
                self.unknown.add(printable(record.path))
                continue
            name = canonical(record.module, record.name)
            if name in self.seen:
                continue
            self.seen.add(name)
            if (level := _mention(*name)) is not None:
                self.report(record.path, f"names {printable(record.path)}", record.offset, level=level)

    def verdict_of(self, record: Global, *, is_init_run: bool = True) -> Verdict:
        """`_verdict` of a name as the file writes it, worked out once."""
        key = (record.module, record.name, is_init_run)
        verdict = self.verdicts.get(key)
        if verdict is None:
            verdict = _verdict(*canonical(record.module, record.name), is_init_run=is_init_run)
            self.verdicts[key] = verdict
        return verdict


def _verdict(module: str, name: str, *, is_init_run: bool = True) -> Verdict:
    """What calling this name means.  `is_init_run` is False for NEWOBJ, which only allocates an instance."""
    root = module.partition(".")[0]
    pieces = name.split(".")
    if (module, name) in SAFE_STDLIB or (module, name) in SAFE_BUILDERS:
        return "known"
    if _is_odd(module, name):
        return "dangerous"
    if root == "__torch__":  # TorchScript: the type is described in the archive, it is not a Python name
        return "known"
    if root in STDLIB:
        is_exception = module == "builtins" and name.endswith(
            ("Error", "Exception", "Warning", "Interrupt", "Iteration")
        )
        return "known" if is_exception else "dangerous"
    is_class = all(map(_is_class_name, pieces))
    if len(pieces) > 1 and not is_class:
        return "dangerous"  # a dotted name walks attributes: only through classes does it lead to a class
    if _begins(f"{module}.{name}") and (is_init_run or not is_class):
        return "dangerous"
    if root in JUDGED_PACKAGES and not is_class:
        return "dangerous"
    return "known" if root in OWN_PACKAGES else "unknown"


def _mention(module: str, name: str) -> Literal["error", "warning"] | None:
    """How bad it is that a name stands in a file as data, without being called."""
    root = module.partition(".")[0]
    if (module, name) in SAFE_STDLIB or (module, name) in SAFE_BUILDERS:
        return None
    if _is_odd(module, name):
        return "error"
    if name in MEMORY_FORMATS:
        return None
    if root in STDLIB:
        is_class = all(map(_is_class_name, name.split(".")))
        if module in DATA_MODULES or _verdict(module, name) == "known":
            return None
        if root in HOSTILE_MODULES or (root == "builtins" and name in HOSTILE_BUILTINS):
            return "error" if not is_class or root == "subprocess" else "warning"
        return None if is_class else "warning"
    if "." in name and _verdict(module, name) == "dangerous":
        return "error"
    return "warning" if _begins(f"{module}.{name}") and not _is_class_name(name) else None


def _is_odd(module: str, name: str) -> bool:
    """No program has such a name, or it is made to look like another: blanks, control characters, other scripts.

    Letters of scripts without case (Lo: Chinese, Japanese, Arabic …) pass; Greek, Cyrillic and full-width letters can
    stand for Latin ones.
    """
    if len(module) + len(name) > MAX_CHARS:
        return True
    if not all(map(_MODULE_PIECE.fullmatch, module.split("."))) or not all(map(str.isidentifier, name.split("."))):
        return True
    if any(map(_DUNDER.fullmatch, name.split("."))):
        return True
    text = module + name
    return not text.isascii() and not all(ch.isascii() or unicodedata.category(ch) == "Lo" for ch in text)


def _is_class_name(name: str) -> bool:
    return name.lstrip("_")[:1].isupper()


def _begins(path: str) -> bool:
    """The dotted name, or one that it begins with, is in the table."""
    pieces = path.split(".")
    return any(".".join(pieces[:count]) in DANGEROUS for count in range(1, len(pieces) + 1))


def _is_harmless(call: Call) -> bool:
    """Calls of dangerous functions that picklers do write, told by their arguments.

    `getattr` gives a member of an enum or a bound method, `type` the type of None, `getitem` a generic type.
    """
    function = call.function
    if type(function) is not Global or type(call.args) is not tuple:
        return False
    name = canonical(function.module, function.name)
    if name == ("builtins", "type"):
        return len(call.args) == 1
    if len(call.args) != 2:
        return False
    owner, attribute = call.args
    if name in (("operator", "getitem"), ("_operator", "getitem")):
        return type(owner) is Global and owner.module in ("typing", "collections.abc", "builtins")
    if name != ("builtins", "getattr") or type(attribute) is not str:
        return False
    if not attribute.isidentifier() or not attribute.isascii() or _DUNDER.fullmatch(attribute):
        return False
    if type(owner) is Global:
        name = canonical(owner.module, owner.name)
        return _is_class_name(owner.name) and _verdict(*name, is_init_run=False) != "dangerous"
    return type(owner) in (Call, PersistentId)


# --- text from the file, for messages ---------------------------------------------------------------------------------


def printable(text: str, length: int = 120) -> str:
    """Text from a file as ASCII on one line: other signs are escaped, and what is too long is cut."""
    return ascii(text[:length])[1:-1] + ("…" if len(text) > length else "")


def _shown_call(call: Call) -> str:
    """`os.system('touch /tmp/x')`."""
    if type(call.args) is not tuple:
        return f"{_shown(call.function)}(*{_shown(call.args)})"
    arguments = ", ".join(map(_shown, call.args[:4])) + (", …" if len(call.args) > 4 else "")
    return f"{_shown(call.function)}({arguments})"


def _shown(value: PickleValue) -> str:
    """A value in a few words; never walks into it, so that depth and size do not matter."""
    match value:
        case Global():
            return printable(value.path)
        case Call(function=Global() as function):
            return f"{printable(function.path)}(…)"
        case str():
            return f"'{printable(value, 60)}'"
        case bytes() | bytearray():
            return f"b'{printable(bytes(value[:40]).decode('latin-1'))}'" + ("…" if len(value) > 40 else "")
        case None | bool() | float():
            return repr(value)
        case int():
            return str(value) if value.bit_length() < 128 else f"<integer of {value.bit_length():,} bits>"
        case BigInt():
            return f"<integer of {len(value.data):,} bytes>"
        case tuple() | list():
            return f"<{len(value):,} values>"
        case PickledDict():
            return f"<dict of {len(value.entries):,}>"
        case PickledSet():
            return f"<set of {len(value.items):,}>"
        case Call():
            return "<result of a call>"
    return f"<{type(value).__name__}>"
