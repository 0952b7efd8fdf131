"""The screen of `loadstone inspect`: what a file is, its weights folded, what else is in it, and whether it is safe."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from loadstone.dtypes import DTYPES
from loadstone.errors import Diagnostic
from loadstone.screens import quantities
from loadstone.screens.diagnostic import diagnostic_lines
from loadstone.screens.folding import Row, fold, rows
from loadstone.screens.lines import EMPTY, Line, Span, draw, indented, line
from loadstone.screens.parts import other_parts
from loadstone.screens.provenance import provenance_lines
from loadstone.screens.table import GAP, natural_width, tabulate
from loadstone.screens.text import cells, cut_end, cut_key, visible, wrap, wrap_words
from loadstone.tensors import TensorInfo

if TYPE_CHECKING:
    from loadstone.checkpoint import Checkpoint

MOST_ROWS = 60
_MOST_PARTS = 24
_MOST_CLASSES = 12
_INDENT = 2
_LEAST_BAR, _MOST_BAR = 5, 20  # cells; a bar gives way before a key does
_MOST_METADATA = 6
_MOST_TIED = 4
_TECHNICAL = frozenset(  # about the container; --json has them
    ("version", "byteorder", "format_version", "storage_alignment", "serialization_id", "checksums", "protocol")
)
_ONLY_DATA = ("safetensors", "npz", "gguf")  # formats in which no code can be


def render_inspection(
    checkpoint: Checkpoint, *, width: int = 100, color: bool = False, all_rows: bool = False,
    diagnostics: Sequence[Diagnostic] | None = None,
) -> str:  # fmt: skip
    """What is in the checkpoint, at most about 60 rows of it unless `all_rows`; `diagnostics` if not its own."""
    chosen = checkpoint.chosen if checkpoint.sets else None
    shown = checkpoint.tensors if chosen is None else chosen.tensors
    sections = [
        _header(checkpoint, width),
        _weights(checkpoint, shown),
        _tensors(shown, width, None if all_rows else MOST_ROWS),
        _tied(shown),
        _parts(checkpoint, width, all_rows),
        _modules(checkpoint.modules, width),
        provenance_lines(checkpoint.manifest, width) if checkpoint.manifest is not None else [],
        _safety(checkpoint, width),
        *(diagnostic_lines(found, width) for found in diagnostics or checkpoint.diagnostics),
    ]
    lines: list[Line] = []
    for section in sections:
        lines += [*section, EMPTY] if section else []
    return draw(lines[:-1], color=color)


def next_step(checkpoint: Checkpoint) -> str:
    """One thing to do after looking at this file."""
    if any(diagnostic.severity == "error" for diagnostic in checkpoint.diagnostics):
        return "do not open this file with torch.load(weights_only=False) or pickle"
    if not checkpoint.sets:
        return "the file holds no weights that fit a model as they are"
    return f"see whether it fits your model with `loadstone plan {checkpoint.name} --into module:factory`"


def _header(checkpoint: Checkpoint, width: int) -> list[Line]:
    tensors = checkpoint.tensors
    facts = [
        checkpoint.format,
        quantities.nbytes(checkpoint.nbytes),
        quantities.counted(len(tensors), "tensor"),
        f"{quantities.elements(sum(info.elements for info in tensors.values()))} elements",
        _dtypes(tensors),
    ]
    facts = [fact for fact in facts if fact]
    name = visible(checkpoint.name)
    if cells(name) + 3 + cells("   ".join(facts)) <= width:
        return [line((name, "strong"), "   ", "   ".join(facts))]
    return [line((name, "strong")), *(line("  ", part) for part in wrap_words(facts, width - _INDENT, "   "))]


def _dtypes(tensors: Mapping[str, TensorInfo]) -> str:
    counts = Counter(DTYPES[info.dtype].short for info in tensors.values())
    if len(counts) == 1:
        return f"all {next(iter(counts))}"
    usual = [f"{name} × {count:,}" for name, count in counts.most_common(4)]
    return ", ".join(usual) + (f" and {len(counts) - 4} more dtypes" if len(counts) > 4 else "")


def _weights(checkpoint: Checkpoint, shown: Mapping[str, TensorInfo]) -> list[Line]:
    """Which set of weights the rows are, where that is not the whole file."""
    if not checkpoint.sets:
        return (
            [indented(_INDENT, line(("no model weights found", "warning"), ", all tensors of the file:"))]
            if shown
            else []
        )
    chosen = checkpoint.chosen
    if chosen.name == "" and len(shown) == len(checkpoint.tensors):
        return []
    total = sum(info.nbytes for info in shown.values())
    return [
        line(
            "  weights  ",
            (chosen.name or "(the whole file)", "strong"),
            f"   {quantities.counted(len(shown), 'tensor')}   {quantities.elements(chosen.elements)} elements"
            f"   {quantities.nbytes(total)}" + ("   a moving average" if chosen.is_averaged else ""),
        )
    ]


def _tensors(tensors: Mapping[str, TensorInfo], width: int, limit: int | None) -> list[Line]:
    """A table of the folded keys: key, how often, shape, dtype, elements, bytes, bar."""
    kinds = {key: _kind(info) for key, info in tensors.items()}
    table = rows(fold(tensors, kinds), limit)
    hidden = table[limit:] if limit is not None else []
    table = table[:limit] if limit is not None else table
    if not table:
        return []
    several = len(set(kinds.values())) > 1
    cells_of_rows = [_cells(row, several) for row in table]
    room = width - _INDENT - natural_width(cells_of_rows) - len(GAP)
    if room >= _LEAST_BAR:
        most = max(row.group.nbytes for row in table)
        for row, spans in zip(table, cells_of_rows, strict=True):
            spans.append((quantities.bar(row.group.nbytes, most, min(room, _MOST_BAR)), "key"))
    lines = [
        indented(_INDENT, content)
        for content in tabulate(cells_of_rows, width=width - _INDENT, right=(1, 4, 5), cut=cut_key)
    ]
    if hidden:
        left_out = sum(row.group.tensors for row in hidden if not row.rails)
        nbytes = sum(row.group.nbytes for row in hidden if not row.rails)
        text = f"… {quantities.counted(left_out, 'more tensor')}, {quantities.nbytes(nbytes)}, "
        lines.append(line("  ", (text + "shown with --all", "dim")))
    return lines


def _kind(info: TensorInfo) -> str:
    """Its dtype, and what is unusual about how it is stored."""
    kind = DTYPES[info.dtype].short
    if info.layout != "strided":
        kind += f" {info.layout}"
    elif info.is_meta:
        kind += " meta"
    return kind


def _cells(row: Row, several_kinds: bool) -> list[Span]:
    group = row.group
    example = group.example
    label = row.label
    if example is None and not row.is_open:
        label += ".**"
        shape = quantities.counted(group.tensors, "tensor")
    else:
        shape = quantities.shape(example.shape) if example is not None else ""
    return [
        (row.branches + (label or "(the file itself)"), "strong" if row.is_open else ""),
        (f"× {group.repeats}" if group.repeats > 1 else "", "dim"),
        (shape, ""),
        (group.kind if several_kinds else "", "dim"),
        (quantities.elements(group.elements), ""),
        (quantities.nbytes(group.nbytes), ""),
    ]


def _parts(checkpoint: Checkpoint, width: int, all_rows: bool) -> list[Line]:
    """What the file holds besides the weights shown."""
    sets = {weight_set.name: weight_set.is_averaged for weight_set in checkpoint.sets}
    chosen = checkpoint.chosen.name if checkpoint.sets else None
    parts = other_parts(checkpoint.tree, chosen, sets, checkpoint.tensors)
    shown = parts if all_rows else parts[:_MOST_PARTS]
    if not shown:
        return []
    big: list[list[Span]] = [
        [(part.name, ""), (quantities.counted(part.tensors, "tensor"), ""), (quantities.nbytes(part.nbytes), ""),
         (part.text, "dim")]
        for part in shown if part.tensors
    ]  # fmt: skip
    plain: list[list[Span]] = [[(part.name, ""), (part.text, "")] for part in shown if not part.tensors]
    room = width - _INDENT - 2
    body = tabulate(big, width=room, right=(1, 2), yielding=3)
    body += tabulate(plain, width=room, yielding=1)
    if len(parts) > len(shown):
        more = quantities.counted(len(parts) - len(shown), "more entry", "more entries")
        body.append(line((f"… {more}, shown with --all", "dim")))
    head = line("  ", ("also in the file" if checkpoint.sets else "in the file", "strong"))
    return [head, *(indented(_INDENT + 2, content) for content in body)]


def _modules(modules: Mapping[str, str], width: int) -> list[Line]:
    """The class tree of a whole module in a few lines."""
    if not modules:
        return []
    counts = Counter(name.rpartition(".")[2] for path, name in modules.items() if path)
    root = modules.get("", "")
    text = ", ".join(f"{name} × {count:,}" for name, count in counts.most_common(_MOST_CLASSES))
    if len(counts) > _MOST_CLASSES:
        text += f" and {len(counts) - _MOST_CLASSES} more classes"
    head = line("  a whole module, saved as ", (root, "strong"), f", {quantities.counted(len(modules), 'module')}")
    return [head, *(line("    ", part) for part in wrap(visible(text), width - 4) if part)]


def _tied(tensors: Mapping[str, TensorInfo]) -> list[Line]:
    """Keys that are the very same memory as an earlier key."""
    first: dict[tuple[object, ...], str] = {}
    same = {
        key: found
        for key, info in tensors.items()
        if info.storage is not None
        and info.elements
        and (found := first.setdefault((id(info.storage), info.offset, info.shape, info.stride), key)) != key
    }
    if len(same) > _MOST_TIED:
        return [line(f"  tied     {quantities.counted(len(same), 'key')} are the same memory as others")]
    return [
        line("  tied     " if not number else "           ", f"{visible(key)} is {visible(found)}")
        for number, (key, found) in enumerate(same.items())
    ]


def _safety(checkpoint: Checkpoint, width: int) -> list[Line]:
    """What opening did, and what is said about the file in its own words."""
    codes = {diagnostic.code for diagnostic in checkpoint.diagnostics}
    if "dangerous-global" in codes:
        text = "Opening ran no code. The file asks for some: see below."
    elif checkpoint.format in _ONLY_DATA:
        text = "Opening ran no code; this format holds data only."
    elif "unknown-global" in codes:
        text = "Opening ran no code; the classes that the file names were kept as records."
    else:
        text = "Opening ran no code."
    if checkpoint.code:
        text += f" It left {quantities.counted(len(checkpoint.code), 'piece')} of program code in the file alone."
    told = {name: value for name, value in checkpoint.metadata.items() if name not in _TECHNICAL}
    lines = [line("  ", part) for part in wrap(text, width - _INDENT)]
    for name, value in list(told.items())[:_MOST_METADATA]:
        lines.append(line("  metadata ", cut_end(visible(f"{name}: {value}"), width - 11)))
    if len(told) > _MOST_METADATA:
        lines.append(line(("  " + f"… {len(told) - _MOST_METADATA:,} more in --json", "dim")))
    return lines
