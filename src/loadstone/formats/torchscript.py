"""TorchScript archives (`torch.jit.save`, torch >= 1.4; also those of the lite interpreter), read as modules.

    <root>/data.pkl             the module as a tree of objects: NEWOBJ of `__torch__.*` classes, BUILD with attributes
    <root>/data/<key>           its tensors
    <root>/constants.pkl        a tuple of the tensors that the code names; a frozen module keeps its weights here
    <root>/constants/<key>
    <root>/code/**.py           the classes, as text: `__parameters__` and `__buffers__` say what each attribute is

Source: torch/csrc/jit/serialization (export_module.cpp, import.cpp, python_print.cpp).  None of the code is run; three
kinds of line of it are read as text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from loadstone.errors import Diagnostic, FormatError
from loadstone.formats.contents import Contents, Context
from loadstone.formats.pickles.interpret import interpret
from loadstone.formats.pickles.judged import JudgedPickles
from loadstone.formats.zips.archive import Archive
from loadstone.formats.zips.members import archive_metadata, archive_notes, code_note, code_of, judge_others
from loadstone.formats.zips.storages import ZipStorages
from loadstone.io.limits import Limits
from loadstone.tensors import TensorInfo
from loadstone.values import Opaque, SavedModule, Value

FORMAT = "torchscript"

_NODES_PER_KEY = 16  # a key of the state dict takes the memory of so many values

_CLASS_PREFIX = "__torch__."
_BUILDERS = "torch.jit._pickle."  # restore_type_tag(value, type), build_intlist(values), …: the value comes first
_MANGLED = re.compile(r"\.___torch_mangle_\d+")

_LINE = re.compile(
    r"^class (?P<name>\w+)\((?P<base>\w*)\):$|^  __parameters__ = \[(?P<parameters>.*)\]$"
    r"|^  __buffers__ = \[(?P<buffers>.*)\]$",
    re.MULTILINE,
)
_QUOTED = re.compile(r'"([^"]*)"')
# what TorchScript code can do to the machine that runs it
_REACHES_OUT = re.compile(r"\b(?:torch\.(?:from_file|save)|ops\.aten\.(?:from_file|save)|prim\.PythonOp)\b")


@dataclass(slots=True)
class _Class:
    """What the text of a class says.  `buffers` is None before torch 1.6, where every other tensor was a buffer."""

    is_module: bool
    parameters: frozenset[str] = frozenset()
    buffers: frozenset[str] | None = None


def read(archive: Archive, context: Context) -> Contents:
    """The module as a SavedModule: its state dict has the keys, in order, of `torch.jit.load(file).state_dict()`.

    Tensors that state_dict() leaves out (plain attributes, and constants under "constants.N") are `non_persistent`.
    Raises FormatError ("unsupported-feature") for the format of torch 1.0 to 1.3.
    """
    name, constants_name = f"{archive.root}/data.pkl", f"{archive.root}/constants.pkl"
    if name not in archive:
        raise FormatError(
            Diagnostic("unsupported-feature", f"`{archive.source.name}` is a TorchScript archive of torch 1.0 to 1.3")
        )
    metadata = archive_metadata(archive)
    read_records = {name, constants_name}
    values: dict[str, Value] = {}
    with JudgedPickles(context, archive.source.name) as pickles:
        for record, folder in ((name, "data"), (constants_name, "constants")):
            if record in archive:
                storages = ZipStorages(
                    archive, f"{archive.root}/{folder}/", is_big_endian=metadata.get("byteorder") == "big"
                )
                source = archive.member(record)
                values[folder] = interpret(pickles.execute(source), storages, where=source.name, limits=context.limits)
                read_records |= storages.used
    code = code_of(archive)
    texts = {member: archive.read(member).decode("utf-8", "replace") for member in code if member.endswith(".py")}
    tree = _saved_module(values["data"], values.get("constants", ()), _classes(archive.root, texts), context.limits)
    diagnostics = (
        *pickles.findings,
        *judge_others(archive, context, read=read_records),
        *_reaching_out(texts),
        *archive_notes(archive, metadata),
        *code_note(archive, code, "TorchScript code"),
    )
    return Contents(FORMAT, tree, diagnostics, metadata, code=code)


def _saved_module(tree: Value, constants: Value, classes: Mapping[str, _Class], limits: Limits) -> Value:
    """The tree of objects as a module; anything else, as a file of another kind may hold, is left as it is."""
    if not isinstance(tree, Opaque) or not tree.class_name.startswith(_CLASS_PREFIX):
        return tree
    module = SavedModule(_clean(tree.class_name), tree.args, tree.state, tree.items, tree.entries)
    for path, part in _modules(tree, classes, limits):
        module.modules[path] = _clean(part.class_name)
        _add_attributes(module, f"{path}." if path else "", part, classes.get(part.class_name))
    if isinstance(constants, tuple):
        for index, value in enumerate(constants):
            if isinstance(value, TensorInfo):
                module.non_persistent[f"constants.{index}"] = value
    return module


def _modules(tree: Opaque, classes: Mapping[str, _Class], limits: Limits) -> Iterator[tuple[str, Opaque]]:
    """Every module with its dotted path, parents first, a shared one at each of its places, as named_modules() does
    with duplicates.  Paths count against `limits.nodes`, so that sharing cannot multiply without end.
    """
    stack = [("", tree, 0)]
    visited = 0
    while stack:
        path, module, depth = stack.pop()
        yield path, module
        state = _attributes(module)
        visited += (_NODES_PER_KEY + len(path) // 4) * (len(state) + 1)
        limits.check("nodes", visited, "the module tree of this file")
        limits.check("depth", depth, "the module tree of this file")
        children = [
            (f"{path}.{name}" if path else name, child, depth + 1)
            for name, child in state.items()
            if isinstance(child, Opaque) and _is_module(child, classes)
        ]
        stack.extend(reversed(children))


def _add_attributes(module: SavedModule, prefix: str, part: Opaque, text: _Class | None) -> None:
    """The tensors of one module: parameters first, then buffers, as state_dict() has them."""
    state = _attributes(part)
    tensors = {name: value for name, value in state.items() if isinstance(value, TensorInfo)}
    parameters = text.parameters if text else frozenset(n for n, info in tensors.items() if info.requires_grad)
    buffers = text.buffers if text else None
    if buffers is None:
        buffers = frozenset(tensors) - parameters
    for kind in (parameters, buffers):
        module.state_dict.update((prefix + name, info) for name, info in tensors.items() if name in kind)
    for name, value in state.items():
        if name in parameters or name in buffers:
            continue
        if isinstance(value, TensorInfo):
            module.non_persistent[prefix + name] = value
        elif isinstance(value, Opaque) and value.class_name.startswith(f"{_CLASS_PREFIX}torch.classes."):
            module.skipped[prefix + name] = _clean(value.class_name)  # packed parameters


def _attributes(module: Opaque) -> dict[str, Value]:
    """The attributes of an object, with what the archive wraps around typed lists and dicts taken off."""
    if not isinstance(module.state, dict):
        return {}
    return {name: _unwrapped(value) for name, value in module.state.items() if isinstance(name, str)}


def _unwrapped(value: Value) -> Value:
    while isinstance(value, Opaque) and value.class_name.startswith(_BUILDERS) and value.args:
        value = value.args[0]
    return value


def _is_module(value: Opaque, classes: Mapping[str, _Class]) -> bool:
    """By its class's text; without one (the lite interpreter can do without) every object of the file's own classes."""
    if value.class_name.startswith(f"{_CLASS_PREFIX}torch.classes."):
        return False
    text = classes.get(value.class_name)
    return text.is_module if text else value.class_name.startswith(_CLASS_PREFIX)


def _classes(root: str, texts: Mapping[str, str]) -> dict[str, _Class]:
    """The classes by full name: `class Conv1d(Module):` in code/__torch__/torch/nn/modules/conv.py is
    `__torch__.torch.nn.modules.conv.Conv1d`.
    """
    classes: dict[str, _Class] = {}
    for member, text in texts.items():
        package = member.removeprefix(f"{root}/code/").removesuffix(".py").replace("/", ".")
        current = _Class(is_module=False)
        for line in _LINE.finditer(text):
            if line["name"] is not None:
                current = classes[f"{package}.{line['name']}"] = _Class(line["base"] == "Module")
            elif line["parameters"] is not None:
                current.parameters = frozenset(_QUOTED.findall(line["parameters"]))
            else:
                current.buffers = frozenset(_QUOTED.findall(line["buffers"]))
    return classes


def _reaching_out(texts: Mapping[str, str]) -> tuple[Diagnostic, ...]:
    """Calls in the code that read or write files of whoever runs it."""
    return tuple(
        Diagnostic("dangerous-global", f"the code in `{member}` calls {found[0]}, which reaches outside the model")
        for member, text in texts.items()
        if (found := _REACHES_OUT.search(text))
    )


def _clean(class_name: str) -> str:
    """`__torch__.torch.nn.modules.conv.___torch_mangle_3.Conv1d` as people know it."""
    return _MANGLED.sub("", class_name).removeprefix(_CLASS_PREFIX)
