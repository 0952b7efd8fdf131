"""A DeepSpeed checkpoint directory: the float32 weights, put together from the optimizer partitions without a copy.

ZeRO cuts each group's parameters, laid end to end, into one partition a rank.  A parameter is therefore a run of bytes
that may cross from one file into the next: a Storage made of several extents.

    latest                                          text: the name of the newest step's directory
    global_step5/mp_rank_00_model_states.pt         module, param_shapes, buffer_names, …  (stage 3: one a rank,
    global_step5/zero_pp_rank_0_mp_rank_00_model_states.pt                                   named like this)
    global_step5/zero_pp_rank_0_mp_rank_00_optim_states.pt   optimizer_state_dict (also with the prefix `bf16_`)

Source of the layout: deepspeed/utils/zero_to_fp32.py, which consolidates the same files by running pickles.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from math import prod
from pathlib import Path

from loadstone.errors import Diagnostic, FormatError, IntegrityError, UnsafeError
from loadstone.formats.contents import Contents, Context
from loadstone.formats.members import member_path
from loadstone.storage import Extent, Storage
from loadstone.tensors import MAX_INT64, TensorInfo, contiguous_stride
from loadstone.values import Value

FORMAT = "deepspeed"

_MODEL_STATES = re.compile(r"(?:zero_pp_rank_(?P<rank>\d{1,6})_)?mp_rank_(?P<model_rank>\d{1,6})_model_states\.pt")
_OPTIM_STATES = re.compile(
    r"(?:bf16_|fp16_)?zero_pp_rank_(?P<rank>\d{1,6})_mp_rank_(?P<model_rank>\d{1,6})_optim_states\.pt"
)
_PARTITIONS_1_2 = "single_partition_of_fp32_groups"
_PARTITIONS_3 = "fp32_flat_groups"
_ALIGNMENT_STAGE_2 = 2  # times the number of ranks, in elements: `zero2_align` of zero_to_fp32.py


@dataclass(frozen=True, slots=True)
class _Flat:
    """Elements that lie in several tensors, one behind the other."""

    pieces: tuple[TensorInfo, ...]

    @property
    def elements(self) -> int:
        return sum(piece.elements for piece in self.pieces)

    def extents(self, start: int, elements: int) -> list[Extent]:
        """Where the elements [start, start + elements) lie; the caller has checked that they exist."""
        result: list[Extent] = []
        position = 0
        stop = start + elements
        for piece in self.pieces:
            first, last = max(start, position), min(stop, position + piece.elements)
            if first < last:
                assert piece.storage is not None  # proved by _partition
                itemsize = piece.nbytes // piece.elements
                whole = piece.storage.extents[0]
                offset = whole.offset + piece.byte_range()[0] + (first - position) * itemsize
                result.append(Extent.stored(whole.source, offset, (last - first) * itemsize))
            position += piece.elements
        return result


def recognises_directory(path: Path) -> bool:
    """Whether `latest` names a step directory, or the directory is one: then it holds DeepSpeed's model states."""
    try:
        step = _step_directory(path)
        return step.name.startswith("global_step") or bool(_files(step, _MODEL_STATES))
    except UnsafeError:
        return True  # read_directory will say why
    except OSError:
        return False


def read_directory(path: Path, context: Context) -> Contents:
    """The consolidated float32 state dict: parameters from the partitions, buffers as the module has them.

    Without ZeRO partitions the tree is the `module` of the model states.  Raises FormatError ("header-invalid") where
    partitions and shapes do not add up, ("unsupported-feature") for tensor-parallel checkpoints, IntegrityError
    ("missing-shard") where the partition of a rank is not there.
    """
    directory = _step_directory(path)
    models, diagnostics, code = _open_all(directory, _MODEL_STATES, context)
    optimizers, more, more_code = _open_all(directory, _OPTIM_STATES, context)
    diagnostics, code = diagnostics + more, code + more_code
    if not models:
        raise IntegrityError(Diagnostic("missing-shard", f"`{directory}` holds no model states"))
    model = models[0]
    metadata = {
        key: str(value) for key, value in model.items() if isinstance(key, str) and isinstance(value, str | int | float)
    }
    metadata["step"] = directory.name
    module = model.get("module")
    if not optimizers:
        return Contents(FORMAT, module, diagnostics, metadata, weights=(), code=code)
    states = [_field(directory, optimizer, "optimizer_state_dict") for optimizer in optimizers]
    metadata["zero_stage"] = str(states[0].get("zero_stage"))
    _check_ranks(directory, states)
    groups = _shapes(directory, model)
    if all(_PARTITIONS_1_2 in state for state in states):
        tree = _consolidated_1_2(directory, states, groups)
    else:
        tree = _consolidated_3(directory, states, groups)
    buffers = _buffers(model, module)
    return Contents(
        FORMAT, buffers | _frozen(directory, models) | tree | _shared(model, tree), diagnostics, metadata,
        weights=(), code=code,
    )  # fmt: skip


def _step_directory(path: Path) -> Path:
    latest = path / "latest"
    if not os.path.isfile(latest):
        return path
    with latest.open("rb") as file:
        return member_path(path, file.read(256).decode("utf-8", "replace").strip())


def _files(directory: Path, pattern: re.Pattern[str]) -> list[str]:
    """File names that match, by rank; a rank that is missing in between is an error of its own."""
    matches = [match for entry in directory.iterdir() if (match := pattern.fullmatch(entry.name))]
    return [m.string for m in sorted(matches, key=lambda m: (int(m["model_rank"]), int(m["rank"] or 0)))]


def _open_all(
    directory: Path, pattern: re.Pattern[str], context: Context
) -> tuple[list[dict[str, Value]], tuple[Diagnostic, ...], tuple[str, ...]]:
    try:
        names = _files(directory, pattern)
    except OSError as error:
        why = f"`{directory}` cannot be listed: {error.strerror}"
        raise IntegrityError(Diagnostic("missing-shard", why)) from error
    matches = [match for name in names if (match := pattern.fullmatch(name))]
    if any(int(match["model_rank"]) for match in matches):
        raise FormatError(
            Diagnostic("unsupported-feature", f"`{directory}` is cut by tensor parallelism (files of mp_rank_01 …)")
        )
    for expected, match in enumerate(matches):
        if match["rank"] is not None and int(match["rank"]) != expected:
            raise IntegrityError(
                Diagnostic(
                    "missing-shard", f"`{directory}` lacks the file of rank {expected}, the next is `{match.string}`"
                )
            )
    trees: list[dict[str, Value]] = []
    diagnostics: list[Diagnostic] = []
    code: list[str] = []
    for name in names:
        contents = context.open(context.open_path(member_path(directory, name)))
        if not isinstance(contents.tree, dict):
            raise _inconsistent(directory, f"`{name}` holds no dict")
        trees.append(contents.tree)
        diagnostics += contents.diagnostics
        code += contents.code
    return trees, tuple(diagnostics), tuple(code)


def _check_ranks(directory: Path, states: list[dict[str, Value]]) -> None:
    """As many partitions as the file says there were ranks."""
    counts = states[0].get("partition_count", len(states))
    expected = max(counts, default=0) if _is_counts(counts) else counts
    if type(expected) is not int or expected < 1:
        raise _inconsistent(directory, f"the partition count is {counts!r:.60}")
    if expected > len(states):
        raise IntegrityError(
            Diagnostic("missing-shard", f"`{directory}` holds {len(states)} of {expected} optimizer partitions")
        )
    if expected < len(states):
        raise _inconsistent(directory, f"there are {len(states)} optimizer files for {expected} partitions")


def _shapes(directory: Path, model: dict[str, Value]) -> list[dict[str, tuple[int, ...]]]:
    """Shapes of the parameters, in the order they were laid out, by parameter group."""
    groups = model.get("param_shapes")
    if isinstance(groups, dict):
        groups = [groups]  # before DeepSpeed 0.4
    if not isinstance(groups, list | tuple) or not all(isinstance(group, dict) for group in groups):
        raise _inconsistent(directory, "`param_shapes` is no list of dicts")
    for group in groups:
        for key, shape in group.items():
            if not isinstance(key, str) or not isinstance(shape, tuple) or not _is_counts(shape):
                raise _inconsistent(directory, f"`param_shapes` gives {key!r:.60} the shape {shape!r:.60}")
    return list(groups)


def _consolidated_1_2(
    directory: Path, states: list[dict[str, Value]], groups: list[dict[str, tuple[int, ...]]]
) -> dict[str, TensorInfo]:
    """Stages 1 and 2: each group is cut into one partition a rank; what remains at its end is padding."""
    partitions = [_partitions(directory, state, _PARTITIONS_1_2) for state in states]
    if any(len(own) != len(groups) for own in partitions):
        raise _inconsistent(directory, f"{len(partitions[0])} partitions for {len(groups)} parameter groups")
    tree: dict[str, TensorInfo] = {}
    for number, group in enumerate(groups):
        flat = _Flat(tuple(own[number] for own in partitions))
        position = 0
        for key, shape in group.items():
            elements = prod(shape)
            if position + elements > flat.elements:
                raise _inconsistent(directory, f"group {number} ends before the end of `{key}`")
            tree[key] = _tensor(directory, key, shape, flat.extents(position, elements), flat.pieces)
            position += elements
        unit = _ALIGNMENT_STAGE_2 * len(states)
        if -(-flat.elements // unit) != -(-position // unit):
            raise _inconsistent(directory, f"group {number} holds {flat.elements - position:,} elements too many")
    return tree


def _consolidated_3(
    directory: Path, states: list[dict[str, Value]], groups: list[dict[str, tuple[int, ...]]]
) -> dict[str, TensorInfo]:
    """Stage 3: each parameter is cut into one part a rank, so each rank's groups hold parts of all of them."""
    ranks = [_Flat(tuple(_partitions(directory, state, _PARTITIONS_3))) for state in states]
    pieces = tuple(piece for rank in ranks for piece in rank.pieces)
    tree: dict[str, TensorInfo] = {}
    position = 0
    for key, shape in ((key, shape) for group in groups for key, shape in group.items()):
        elements = prod(shape)
        share = -(-elements // len(ranks))
        if any(position + share > rank.elements for rank in ranks):
            raise _inconsistent(directory, f"the partitions end before the end of `{key}`")
        extents: list[Extent] = []
        for number, rank in enumerate(ranks):
            extents += rank.extents(position, max(0, min(share, elements - number * share)))
        tree[key] = _tensor(directory, key, shape, extents, pieces)
        position += share
    if any(rank.elements != position for rank in ranks):
        raise _inconsistent(directory, f"the partitions hold more than the {position:,} elements of the parameters")
    return tree


def _partitions(directory: Path, state: dict[str, Value], name: str) -> list[TensorInfo]:
    """The flat tensors of one rank, each proved to lie uncompressed in one place."""
    tensors = state.get(name)
    if not isinstance(tensors, list | tuple):
        raise _inconsistent(directory, f"an optimizer file has no `{name}`")
    for tensor in tensors:
        if not isinstance(tensor, TensorInfo) or not tensor.is_contiguous or tensor.storage is None:
            raise _inconsistent(directory, f"`{name}` holds something else than flat tensors")
        if len(tensor.storage.extents) != 1 or tensor.storage.extents[0].is_deflated:
            raise FormatError(Diagnostic("unsupported-feature", f"the partitions in `{directory}` are compressed"))
    if len({(tensor.dtype, tensor.storage.is_big_endian) for tensor in tensors if tensor.storage}) > 1:
        raise _inconsistent(directory, "its partitions differ in dtype")
    return list(tensors)


def _tensor(
    directory: Path, key: str, shape: tuple[int, ...], extents: list[Extent], pieces: tuple[TensorInfo, ...]
) -> TensorInfo:
    if len({piece.dtype for piece in pieces}) != 1:
        raise _inconsistent(directory, "its partitions differ in dtype")
    if prod(size or 1 for size in shape) > MAX_INT64:
        raise _inconsistent(directory, f"`{key}` has the shape {list(shape)}")
    big_endian = pieces[0].storage is not None and pieces[0].storage.is_big_endian
    nbytes = sum(extent.nbytes for extent in extents)
    storage = Storage(key, nbytes, tuple(extents), is_big_endian=big_endian)
    return TensorInfo(key, pieces[0].dtype, shape, contiguous_stride(shape), 0, storage, is_parameter=True)


def _buffers(model: dict[str, Value], module: Value) -> dict[str, TensorInfo]:
    """Buffers, which no optimizer holds, from the module's own state dict."""
    names = model.get("buffer_names")
    if not isinstance(module, dict) or not isinstance(names, list | tuple | set):
        return {}
    return {name: module[name] for name in names if isinstance(name, str) and isinstance(module.get(name), TensorInfo)}


def _frozen(directory: Path, models: list[dict[str, Value]]) -> dict[str, TensorInfo]:
    """Parameters that were not trained: whole in stages 1 and 2, in one fragment a rank in stage 3."""
    shapes = models[0].get("frozen_param_shapes")
    if not isinstance(shapes, dict) or not shapes:
        return {}
    fragments = [_partitions_by_key(directory, model) for model in models]
    tree: dict[str, TensorInfo] = {}
    for key, shape in shapes.items():
        if not isinstance(key, str) or not isinstance(shape, tuple) or not _is_counts(shape):
            raise _inconsistent(directory, f"`frozen_param_shapes` gives {key!r:.60} the shape {shape!r:.60}")
        if any(key not in own for own in fragments):
            raise _inconsistent(directory, f"the frozen parameter `{key}` has no fragment")
        flat = _Flat(tuple(own[key] for own in fragments))
        elements = prod(shape)
        if elements > flat.elements:
            raise _inconsistent(directory, f"the fragments of `{key}` hold {flat.elements:,} of {elements:,} elements")
        tree[key] = _tensor(directory, key, shape, flat.extents(0, elements), flat.pieces)
    return tree


def _partitions_by_key(directory: Path, model: dict[str, Value]) -> dict[str, TensorInfo]:
    fragments = _field(directory, model, "frozen_param_fragments")
    tensors = _partitions(directory, {"fragments": list(fragments.values())}, "fragments")
    return dict(zip(fragments, tensors, strict=True))


def _shared(model: dict[str, Value], tree: dict[str, TensorInfo]) -> dict[str, TensorInfo]:
    """Tied parameters: pairs (or a dict) of the key that is left out and the key it shares memory with."""
    pairs = model.get("shared_params")
    items: Iterable[Value] = pairs.items() if isinstance(pairs, dict) else pairs if isinstance(pairs, list) else ()
    shared: dict[str, TensorInfo] = {}
    for item in items:
        if isinstance(item, list | tuple) and len(item) == 2 and all(isinstance(name, str) for name in item):
            name, owner = item
            if owner in tree and name not in tree:
                shared[name] = tree[owner].with_key(name)
    return shared


def _field(directory: Path, tree: dict[str, Value], name: str) -> dict[str, Value]:
    value = tree.get(name)
    if not isinstance(value, dict):
        raise _inconsistent(directory, f"a file has no dict `{name}`")
    return value


def _is_counts(value: Value) -> bool:
    return isinstance(value, list | tuple) and all(type(item) is int and 0 <= item < 2**62 for item in value)


def _inconsistent(directory: Path, why: str) -> FormatError:
    return FormatError(Diagnostic("header-invalid", f"the files of `{directory}` do not fit together: {why}"))
