"""A directory in the Hugging Face layout: weights in one or several files, with or without an index.

model.safetensors.index.json        {"weight_map": {key: file name}}, the files beside it
model-00001-of-00002.safetensors    numbered shards, also without an index
shard-00001-model-00001-of-00001.safetensors   one file a rank, each tensor in chunks whose places stand in the
                                    file's metadata (`HuggingFaceStorageWriter` of torch.distributed.checkpoint)
model.safetensors, pytorch_model.bin           one file
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from loadstone.errors import Diagnostic, FormatError, IntegrityError
from loadstone.formats import strict_json
from loadstone.formats.chunks import assemble
from loadstone.formats.contents import Contents, Context
from loadstone.formats.members import member_path
from loadstone.io.sources import FileSource
from loadstone.tensors import MAX_INT64, Part, TensorInfo
from loadstone.values import Value

FORMAT = "sharded"
SHARDING_INFO = "DCP_SHARDING_INFO"  # torch/distributed/checkpoint/_hf_utils.py, CUSTOM_METADATA_KEY

_NUMBERED = re.compile(r"(?P<stem>.+)-(?P<index>\d{5,9})-of-(?P<count>\d{5,9})(?P<suffix>\.safetensors|\.bin)")
_INDEX_SUFFIX = ".index.json"
_SINGLE_BIN = "pytorch_model.bin"


def recognises_directory(path: Path) -> bool:
    """Whether this is an index file, or a directory with an index, numbered shards, or one file of weights."""
    return bool(_choices(path))


def read_directory(path: Path, context: Context) -> Contents:
    """The tensors of a checkpoint directory, or of the index at `path`, as one flat tree.

    Where a directory holds both, safetensors files are preferred to `.bin` files.
    Raises IntegrityError ("missing-shard") for a file that is not there, FormatError ("index-mismatch") for a tensor
    that is in no shard, UnsafeError ("unsafe-path") for a file name that leads out of the directory.
    """
    choices = _choices(path)
    if not choices:
        raise FormatError(Diagnostic("unknown-format", f"`{path}` holds no weights in the Hugging Face layout"))
    chosen = choices[0]
    notes: tuple[Diagnostic, ...] = ()
    if len(choices) > 1:
        others = ", ".join(f"`{group[0].name}`" for group in choices[1:])
        notes = (Diagnostic("several-copies", f"`{path}` is read from `{chosen[0].name}`, not from {others}"),)
    if chosen[0].name.endswith(_INDEX_SUFFIX):
        return _read_indexed(context.open_path(member_path(chosen[0].parent, chosen[0].name)), context, notes)
    if _NUMBERED.fullmatch(chosen[0].name):
        _check_numbering(path, chosen)
        return _merged(path, {}, [file.name for file in chosen], context, notes)
    contents = context.open(context.open_path(member_path(path, chosen[0].name)))
    return replace(contents, diagnostics=notes + contents.diagnostics)


def _choices(path: Path) -> list[list[Path]]:
    """The sets of files that could be the weights, best first; a set is an index, numbered shards or one file."""
    if os.path.isfile(path):
        return [[path]] if path.name.endswith(_INDEX_SUFFIX) else []
    try:
        files = sorted(entry for entry in path.iterdir() if entry.suffix in (".json", ".safetensors", ".bin"))
    except OSError:
        return []
    choices: list[list[Path]] = []
    for suffix in (".safetensors", ".bin"):
        # `model.fp16.safetensors.index.json` is a variant: the shortest name is the plain one
        indexes = sorted((f for f in files if f.name.endswith(suffix + _INDEX_SUFFIX)), key=lambda f: len(f.name))
        choices += [[index] for index in indexes]
        members = [file for file in files if file.suffix == suffix]
        numbered = [file for file in members if _NUMBERED.fullmatch(file.name)]
        if numbered and not indexes:
            choices.append(numbered)
        single = [file for file in members if file not in numbered]
        if suffix == ".bin":
            single = [file for file in single if file.name == _SINGLE_BIN]  # training_args.bin is no weights
        elif len(single) > 1:
            single = [file for file in single if file.name == "model.safetensors"]
        choices += [single] if single else []
    return choices


def _check_numbering(path: Path, files: list[Path]) -> None:
    """Every one of `-00001-of-N` to `-N-of-N` is there, for each stem."""
    found: dict[tuple[str, int, str], set[int]] = {}
    for file in files:
        match = _NUMBERED.fullmatch(file.name)
        if match:
            series = (match["stem"], int(match["count"]), match["suffix"])
            found.setdefault(series, set()).add(int(match["index"]))
    for (stem, count, suffix), numbers in found.items():
        if len(numbers) < count and not stem.startswith("shard-"):  # a rank writes only the files it has tensors for
            first = next(number for number in range(1, count + 1) if number not in numbers)
            raise IntegrityError(
                Diagnostic(
                    "missing-shard",
                    f"`{path}` holds {len(numbers)} of {count} shards, "
                    f"`{stem}-{first:05d}-of-{count:05d}{suffix}` is not there",
                )
            )


def _read_indexed(source: FileSource, context: Context, notes: tuple[Diagnostic, ...]) -> Contents:
    name = f"the index `{source.name}`"
    context.limits.check("header_nbytes", source.size, name)
    index = strict_json.parse(source.read(0, source.size), name=name, limits=context.limits, max_depth=32)
    weight_map = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(weight_map, dict) or not weight_map:
        raise FormatError(Diagnostic("header-invalid", f"{name} has no `weight_map` from keys to files"))
    directory = source.path.parent
    tensors_in: dict[str, int] = {}
    for shard in weight_map.values():
        member_path(directory, shard)  # every name is proved before the first file is opened
        tensors_in[shard] = tensors_in.get(shard, 0) + 1
    for shard, count in tensors_in.items():
        if not os.path.isfile(member_path(directory, shard)):  # unlike Path.is_file, it takes names that are too long
            raise IntegrityError(
                Diagnostic(
                    "missing-shard",
                    f"`{shard}` is not in `{directory}`: {count:,} of {len(weight_map):,} tensors are in it",
                )
            )
    return _merged(directory, weight_map, tensors_in, context, notes)


def _merged(
    directory: Path, weight_map: dict[str, str], shards: Iterable[str], context: Context, notes: tuple[Diagnostic, ...]
) -> Contents:
    """One flat tree of all shards; `weight_map` settles which shard a key is taken from."""
    found: dict[str, dict[str, Value]] = {}
    chunk_places: dict[str, dict[str, tuple[int, ...]]] = {}
    metadata: dict[str, str] = {}
    diagnostics = list(notes)
    code: list[str] = []
    for shard in shards:
        contents = context.open(context.open_path(member_path(directory, shard)))
        if not isinstance(contents.tree, dict) or not all(isinstance(key, str) for key in contents.tree):
            raise FormatError(Diagnostic("index-mismatch", f"`{directory / shard}` holds no state dict"))
        found[shard] = contents.tree
        diagnostics += contents.diagnostics
        code += contents.code
        if SHARDING_INFO in contents.metadata:
            chunk_places[shard] = _chunk_places(directory / shard, contents.metadata[SHARDING_INFO], context)
        metadata |= {key: text for key, text in contents.metadata.items() if key != SHARDING_INFO}
    if chunk_places and not weight_map:  # with an index the files have been consolidated
        tree: dict[str, Value] = _from_chunks(directory, found, chunk_places)
    else:
        tree = _from_shards(directory, weight_map, found, diagnostics)
    return Contents(FORMAT, tree, tuple(diagnostics), metadata, weights=(), code=tuple(code))


def _from_shards(
    directory: Path, weight_map: dict[str, str], found: dict[str, dict[str, Value]], diagnostics: list[Diagnostic]
) -> dict[str, Value]:
    holders: dict[str, list[str]] = {}
    for shard, tensors in found.items():
        for key in tensors:
            holders.setdefault(key, []).append(shard)
    absent = [key for key in weight_map if key not in holders]
    if absent:
        raise FormatError(
            Diagnostic(
                "index-mismatch",
                f"{len(absent):,} of {len(weight_map):,} tensors of the index are in no shard of `{directory}`",
                evidence=tuple((key, f"should be in `{weight_map[key]}`") for key in absent[:8]),
                keys=tuple(absent),
            )
        )
    tree = {key: found[_taken_from(key, weight_map, shards)][key] for key, shards in _ordered(weight_map, holders)}
    moved = [key for key, shard in weight_map.items() if shard not in holders[key]]
    if moved:
        rows = tuple((key, f"in `{holders[key][0]}`, the index says `{weight_map[key]}`") for key in moved[:8])
        message = f"{len(moved):,} tensors lie in another shard of `{directory}` than the index says"
        diagnostics.append(Diagnostic("index-mismatch", message, rows, keys=tuple(moved), level="warning"))
    unlisted = [key for key in holders if weight_map and key not in weight_map]
    if unlisted:
        rows = tuple((key, f"in `{holders[key][0]}`") for key in unlisted[:8])
        message = f"{len(unlisted):,} tensors in the shards of `{directory}` are not in its index, and are read too"
        diagnostics.append(Diagnostic("index-mismatch", message, rows, keys=tuple(unlisted), level="note"))
    twice = [key for key, shards in holders.items() if len(shards) > 1]
    if twice:
        rows = tuple(
            (key, f"in {', '.join(f'`{s}`' for s in holders[key])}, taken from "
             f"`{_taken_from(key, weight_map, holders[key])}`")
            for key in twice[:8]
        )  # fmt: skip
        message = f"{len(twice):,} tensors stand in several shards of `{directory}`"
        diagnostics.append(Diagnostic("index-mismatch", message, rows, keys=tuple(twice), level="warning"))
    return tree


def _ordered(weight_map: dict[str, str], holders: dict[str, list[str]]) -> list[tuple[str, list[str]]]:
    """The index's order, then what only the shards have."""
    return [(key, holders[key]) for key in dict.fromkeys([*weight_map, *holders])]


def _taken_from(key: str, weight_map: dict[str, str], shards: list[str]) -> str:
    named = weight_map.get(key)
    return named if named in shards else shards[0]


def _chunk_places(path: Path, text: str, context: Context) -> dict[str, tuple[int, ...]]:
    """Where each tensor of a file begins in the tensor it is a chunk of."""
    name = f"`{SHARDING_INFO}` of `{path}`"
    info = strict_json.parse(text.encode(), name=name, limits=context.limits)
    places: dict[str, tuple[int, ...]] = {}
    for key, entry in info.items() if isinstance(info, dict) else ():
        offsets = entry.get("saved_offsets") if isinstance(entry, dict) else None
        if not isinstance(offsets, list) or not all(type(item) is int and 0 <= item <= MAX_INT64 for item in offsets):
            raise FormatError(Diagnostic("header-invalid", f"{name} gives no offsets for `{key}`"))
        places[key] = tuple(offsets)
    return places


def _from_chunks(
    directory: Path, found: dict[str, dict[str, Value]], chunk_places: dict[str, dict[str, tuple[int, ...]]]
) -> dict[str, Value]:
    """Tensors that are cut over several files; their shape is the smallest that all chunks fit into."""
    parts: dict[str, list[Part]] = {}
    for shard, tensors in found.items():
        for key, info in tensors.items():
            place = chunk_places.get(shard, {}).get(key)
            if not isinstance(info, TensorInfo) or place is None or len(place) != len(info.shape):
                message = f"`{directory / shard}` does not say where its chunk of `{key}` begins"
                raise FormatError(Diagnostic("header-invalid", message))
            parts.setdefault(key, []).append(Part(shard, info, place))
    tree: dict[str, Value] = {}
    for key, chunks in parts.items():
        if len({len(chunk.offsets) for chunk in chunks}) != 1:
            message = f"the chunks of `{key}` in `{directory}` differ in their number of dimensions"
            raise FormatError(Diagnostic("header-invalid", message))
        ends = [[a + b for a, b in zip(chunk.offsets, chunk.info.shape, strict=True)] for chunk in chunks]
        shape = tuple(max(sizes) for sizes in zip(*ends, strict=True))
        tree[key] = assemble(key, chunks[0].info.dtype, shape, chunks, source=str(directory))
    return tree
