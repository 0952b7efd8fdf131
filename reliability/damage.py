"""Damage on the medium: bits that flip, files cut short, holes of zeros, blocks of another place or of an older file.

Loadstone's files are asked of `ls.verify`, which must notice everything and name the file; and the tensor, where it was
bytes of a tensor that changed.  The other readers are simply loaded: what loads, and is not what was saved, is wrong.
"""

from __future__ import annotations

import random
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

import loadstone
from loadstone.errors import LoadstoneError
from loadstone.runs.listing import checkpoints
from reliability.contenders import OURS, content, memory, step_of, torch_load

_STEP, _OLDER = 4, 3
_SEED = 6


@dataclass(frozen=True, slots=True)
class Damaged:
    """What became of so many damaged files.

    Attributes:
        unnoticed: loaded, or verified as whole, and not what was saved.
        unnamed: noticed, and the message names no file, or not the tensor whose bytes were hit.
        not_survived: of a run with older checkpoints, that did not go on from the newest whole one.
    """

    name: str
    files: int
    unnoticed: int
    unnamed: int | None
    not_survived: int | None
    example: str = ""


def flip(data: bytes, older: bytes, chance: random.Random) -> bytes:
    """One bit is another."""
    place = chance.randrange(len(data))
    return data[:place] + bytes([data[place] ^ 1 << chance.randrange(8)]) + data[place + 1 :]


def cut(data: bytes, older: bytes, chance: random.Random) -> bytes:
    """The end is missing."""
    return data[: chance.randrange(len(data))]


def hole(data: bytes, older: bytes, chance: random.Random) -> bytes:
    """A block of 512 bytes is zero."""
    place = chance.randrange(0, len(data), 512)
    return data[:place] + bytes(len(data[place : place + 512])) + data[place + 512 :]


def swap(data: bytes, older: bytes, chance: random.Random) -> bytes:
    """Two blocks have changed places."""
    one, other = sorted(chance.randrange(0, max(len(data) - 512, 1), 512) for _ in range(2))
    block = data[other : other + 512]
    changed = data[:one] + block + data[one + 512 : other] + data[one : one + 512] + data[other + 512 :]
    return changed if one + 512 <= other else data


def stale(data: bytes, older: bytes, chance: random.Random) -> bytes:
    """A block is that of the file which was there before."""
    place = chance.randrange(0, len(data), 512)
    return data[:place] + older[place : place + 512] + data[place + 512 :]


def grown(data: bytes, older: bytes, chance: random.Random) -> bytes:
    """There are bytes behind the end."""
    return data + chance.randbytes(chance.randrange(1, 600))


DAMAGES = (flip, flip, flip, flip, cut, hole, swap, stale, grown)  # half of them flips


def loaded_by(
    name: str, files: int, save: Callable[[Path, int], object], load: Callable[[Path], Mapping[str, Tensor]]
) -> Damaged:
    """Damaged files of one layout, loaded by a reader: how many are wrong without a word."""
    chance, unnoticed, example = random.Random(_SEED), 0, ""
    with tempfile.TemporaryDirectory(prefix="loadstone-damage-", dir=memory()) as scratch:
        whole, older, folder = (Path(scratch, part) for part in ("whole", "older", "damaged"))
        for place, step in ((whole, _STEP), (older, _OLDER)):
            place.mkdir()
            save(place, step)
        for _ in range(files):
            what = _damage(whole, older, folder, chance)
            try:
                step_loaded = step_of(load(folder))
            except KeyboardInterrupt:
                raise
            except BaseException:  # torch.distributed.checkpoint's own error is no Exception
                continue
            if step_loaded != _STEP:
                unnoticed += 1
                example = example or what
    return Damaged(name, files, unnoticed, None, None, example)


def verified(name: str, files: int, suffix: str) -> Damaged:
    """Damaged checkpoints of Loadstone's, in a file or (with no suffix) a folder: what `ls.verify` overlooks."""
    chance, unnoticed, unnamed, example = random.Random(_SEED), 0, 0, ""
    with tempfile.TemporaryDirectory(prefix="loadstone-damage-", dir=memory()) as scratch:
        whole, older, folder = (Path(scratch, part) for part in ("whole", "older", "damaged"))
        for place, step in ((whole, _STEP), (older, _OLDER)):
            place.mkdir()
            _save(place / f"net{suffix}", step)
        for _ in range(files):
            what = _damage(whole, older, folder, chance)
            name_of_file, keys = what.split(": ")[0], _hit(whole, folder, suffix)
            try:
                report = loadstone.verify(folder / f"net{suffix}")
            except LoadstoneError as error:
                text = str(error)
            else:
                text = "" if report.ok else "\n".join(map(str, report.diagnostics))
            if not text:
                unnoticed += 1
                example = example or what
            elif Path(name_of_file).name not in text or not all(key in text for key in keys):
                unnamed += 1
                example = example or f"{what}, hit {sorted(keys)}: {text[:300]}"
    return Damaged(name, files, unnoticed, unnamed, None, example)


def resumed(files: int) -> Damaged:
    """The newest checkpoint of a run is damaged: whether the run goes on from the one before."""
    chance, not_survived, unnoticed, example = random.Random(_SEED), 0, 0, ""
    run = next(each for each in OURS if each.name.startswith("ls.Run"))
    with tempfile.TemporaryDirectory(prefix="loadstone-damage-", dir=memory()) as scratch:
        start, folder = Path(scratch, "start"), Path(scratch, "run")
        start.mkdir()
        for step in range(1, _STEP + 1):
            run.save(start, step)
        newest, before = [entry.path for entry in reversed(checkpoints(start))][:2]
        for _ in range(files):
            shutil.copytree(start, folder)
            data = newest.read_bytes()
            damage = chance.choice(DAMAGES)
            changed = damage(data, before.read_bytes(), chance)
            if changed != data:
                (folder / newest.name).write_bytes(changed)
                try:
                    step_loaded = step_of(run.load(folder))
                except LoadstoneError as error:
                    step_loaded, example = -1, example or f"{damage.__name__}: {error!s:.300}"
                unnoticed += step_loaded is None
                not_survived += step_loaded != _OLDER
            shutil.rmtree(folder)
    return Damaged("ls.Run, newest damaged: resume", files, unnoticed, None, not_survived, example)


def _save(path: Path, step: int) -> None:
    if path.suffix:
        loadstone.save(content(step), path)
    else:
        from loadstone.model.folder import write_folder

        write_folder(content(step), path)


def _damage(whole: Path, older: Path, folder: Path, chance: random.Random) -> str:
    """A copy with one of its files damaged, or another step's file in its place; says what was done."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(whole, folder)
    while True:
        victim = chance.choice(sorted(path for path in folder.rglob("*") if path.is_file()))
        place = victim.relative_to(folder)
        data, before = victim.read_bytes(), b""
        if (older / place).exists():
            before = (older / place).read_bytes()
        damage = chance.choice(DAMAGES)
        changed = damage(data, before, chance)
        if changed != data:
            victim.chmod(0o644)
            victim.write_bytes(changed)
            return f"{place}: {damage.__name__}"


def _hit(whole: Path, folder: Path, suffix: str) -> set[str]:
    """The tensors whose bytes are others; none where the checkpoint does not open."""
    try:
        with loadstone.open(whole / f"net{suffix}") as saved, loadstone.open(folder / f"net{suffix}") as damaged:
            if saved.tensors.keys() != damaged.tensors.keys():
                return set()
            return {key for key, info in saved.tensors.items() if not _equal(info.read(), damaged.tensors[key].read())}
    except (LoadstoneError, ValueError, RuntimeError):
        return set()


def _equal(left: Tensor, right: Tensor) -> bool:
    return left.shape == right.shape and torch.equal(left.view(-1).view(torch.uint8), right.view(-1).view(torch.uint8))


def _dcp_save(folder: Path, step: int) -> None:
    from torch.distributed.checkpoint.state_dict_saver import save

    save(content(step), checkpoint_id=folder / "dcp", no_dist=True)


def _dcp_load(folder: Path) -> Mapping[str, Tensor]:
    from torch.distributed.checkpoint.state_dict_loader import load

    tensors = {key: torch.zeros_like(value) for key, value in content(1).items()}
    load(tensors, checkpoint_id=folder / "dcp", no_dist=True)
    return tensors


def all_damages(files: int) -> list[Damaged]:
    """Every layout, `files` times each; Loadstone's first."""
    from reliability.contenders import FOLK

    by_name = {each.name: each for each in FOLK}
    in_place, library = by_name["torch.save, in place"], by_name["safetensors.save_file"]
    return [
        verified("ls.save .pth: ls.verify", files, ".pth"),
        verified("ls.save .safetensors: ls.verify", files, ".safetensors"),
        verified("ls.save folder: ls.verify", files, ""),
        resumed(max(files // 10, 20)),
        loaded_by("torch.save: torch.load", files, in_place.save, lambda folder: torch_load(folder / "last.pth")),
        loaded_by("safetensors: load_file", files, library.save, library.load),
        loaded_by("torch.distributed.checkpoint: load", max(files // 4, 20), _dcp_save, _dcp_load),
    ]
