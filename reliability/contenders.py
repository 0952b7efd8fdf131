"""The contenders: ways to save a checkpoint and to find it again, Loadstone's and other people's.

All of them keep the same few tensors, which differ from step to step in every byte that they can; so a file that was
mixed from two steps equals neither.
"""

from __future__ import annotations

import importlib.metadata
import os
import warnings
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

import loadstone
from loadstone.model.folder import write_folder
from loadstone.runs.facts import pin, protected, read_facts
from loadstone.runs.keep import Keep, retain
from loadstone.runs.listing import Entry, checkpoints, newest_first, verified_now
from loadstone.runs.names import checkpoint_name
from loadstone.runs.prune import prune
from loadstone.runs.seen import Verified

STEPS = 5  # a history is so many saves long
BEST, PINNED = 2, 1  # which of its steps has the lowest loss, and which is pinned


@dataclass(frozen=True, slots=True)
class Contender:
    """One way to save.

    Attributes:
        save: writes the content of a step into a directory, and returns when the step is safe by the contender's
            own word.  It may delete what its retention no longer wants.
        load: the newest content, found by the contender's own rule; raises where there is none.
        is_ours: its writes go through loadstone.io.disk.
        held: the steps of the checkpoints that its listing shows as usable; None where it has no listing.
        must_hold: the steps that retention promised to keep, once this step was acknowledged.
        package: the distribution that it comes from.
    """

    name: str
    save: Callable[[Path, int], object]
    load: Callable[[Path], Mapping[str, Tensor]]
    is_ours: bool = False
    held: Callable[[Path], Collection[int]] | None = None
    must_hold: Callable[[int], Collection[int]] = lambda step: ()
    package: str = "torch"

    @property
    def version(self) -> str:
        """Of the package it comes from."""
        return importlib.metadata.version(self.package)


def content(step: int) -> dict[str, Tensor]:
    """The tensors of a step."""
    generator = torch.Generator().manual_seed(step)
    return {
        "frozen": torch.arange(3000.0),  # the same in every step: what a folder links
        "weight": torch.randn(144, 129, generator=generator),
        "bias": torch.randn(64, generator=generator),
        "running_mean": torch.rand(7, generator=generator) + 1,
        "step": torch.tensor([step]),
    }


def memory() -> str | None:
    """A directory in memory, where the machine has one: for what needs no device."""
    return "/dev/shm" if Path("/dev/shm").is_dir() else None


def step_of(loaded: Mapping[str, Tensor]) -> int | None:
    """The step whose content this is, to the bit; None where it is that of no step."""
    try:
        step = int(loaded["step"])
    except (KeyError, TypeError, ValueError, RuntimeError):
        return None
    if not 0 < step < 10_000:
        return None
    return step if same(loaded, content(step)) else None


def same(left: Mapping[str, Tensor], right: Mapping[str, Tensor]) -> bool:
    """Equal keys, dtypes, shapes and bits."""
    return left.keys() == right.keys() and all(
        left[key].dtype == value.dtype
        and left[key].shape == value.shape
        and torch.equal(left[key].contiguous().view(torch.uint8), value.contiguous().view(torch.uint8))
        for key, value in right.items()
    )


def torch_load(path: Path) -> dict[str, Tensor]:
    """What plain torch reads."""
    loaded: dict[str, Tensor] = torch.load(path, weights_only=True)
    return loaded


def newest(folder: Path, pattern: str) -> Path:
    """The file whose name has the highest number: what a resume script does."""
    return max(folder.glob(pattern), key=lambda path: int("".join(filter(str.isdigit, path.stem)) or 0))


def _torch_in_place(folder: Path, step: int) -> None:
    torch.save(content(step), folder / "last.pth")


def _torch_rename(folder: Path, step: int) -> None:
    torch.save(content(step), folder / "last.pth.tmp")
    os.replace(folder / "last.pth.tmp", folder / "last.pth")


def _torch_keep_one(folder: Path, step: int) -> None:
    """Written beside, flushed, renamed; then the one before is deleted.  The directory is never flushed."""
    with open(folder / "tmp", "wb") as file:
        torch.save(content(step), file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(folder / "tmp", folder / f"epoch{step:04d}.pth")
    (folder / f"epoch{step - 1:04d}.pth").unlink(missing_ok=True)


def _safetensors(folder: Path, step: int) -> None:
    from safetensors.torch import save_file

    save_file(content(step), folder / "last.safetensors")


def _safetensors_load(folder: Path) -> dict[str, Tensor]:
    from safetensors.torch import load_file

    return load_file(folder / "last.safetensors")


FOLK = (
    Contender("torch.save, in place", _torch_in_place, lambda folder: torch_load(folder / "last.pth")),
    Contender("torch.save, then rename", _torch_rename, lambda folder: torch_load(folder / "last.pth")),
    Contender(
        "fsync, rename, delete the old one", _torch_keep_one, lambda folder: torch_load(newest(folder, "epoch*.pth"))
    ),
    Contender("safetensors.save_file", _safetensors, _safetensors_load, package="safetensors"),
)


def _replace_with(suffix: str) -> Callable[[Path, int], object]:
    """`ls.save` over the file that is there."""
    return lambda folder, step: loadstone.save(content(step), folder / f"last{suffix}")


def _whole(folder: Path) -> list[Entry]:
    """The checkpoints that the listing shows as whole, the newest first."""
    return [entry for entry in newest_first(verified_now(checkpoints(folder), Verified())) if entry.state == "whole"]


def _loaded(path: Path) -> dict[str, Tensor]:
    with loadstone.open(path) as checkpoint:
        return {key: info.read() for key, info in checkpoint.weights.items()}


def _newest_whole(folder: Path) -> dict[str, Tensor]:
    return _loaded(_whole(folder)[0].path)


def _held(folder: Path) -> set[int]:
    """The steps that are listed as whole and load as what they are called; -1 for a file that does not."""
    return {entry.epoch if step_of(_loaded(entry.path)) == entry.epoch else -1 for entry in _whole(folder)}


def _must_hold(step: int) -> set[int]:
    """What `Keep(last=2, best=1)` promises, and the one that is pinned."""
    return {step, max(step - 1, 1), min(step, BEST), PINNED}


def loss_of(step: int) -> float:
    """The metric of a step."""
    return abs(step - BEST) + 0.5


def _folder_save(folder: Path, step: int) -> None:
    """A folder, what did not change linked to the one before; then retention."""
    path = folder / checkpoint_name("net", epoch=step, suffix="")
    training = {
        "name": "net",
        "epoch": step,
        "step": step,
        "batch": 0,
        "metrics": {"loss": loss_of(step)},
        "config": {},
    }
    previous = folder / checkpoint_name("net", epoch=step - 1, suffix="")
    write_folder(content(step), path, training=training, previous=previous if previous.exists() else None)
    if step == PINNED:
        pin(path)
    keep = Keep(last=2, best=1, metric="loss", mode="min")
    entries = verified_now(checkpoints(folder), Verified())
    prune(folder, retain(entries, keep, protected(read_facts(folder))))


def _model(tensors: Mapping[str, Tensor]) -> torch.nn.Module:
    """A model whose state dict is these tensors."""
    model = torch.nn.Module()
    for key, value in tensors.items():
        model.register_buffer(key, value)
    return model


def _run_save(layout: str) -> Callable[[Path, int], object]:
    """A `Run` that goes on from what is there, saves one epoch, and pins the first."""

    def save(folder: Path, step: int) -> object:
        keep = Keep(last=2, best=1, metric="loss", mode="min")
        with loadstone.Run(folder, model=_model(content(step)), name="net", keep=keep, layout=layout) as run:
            path = run.save(epoch=step, step=step, loss=loss_of(step))
        if step == PINNED and path is not None:
            pin(path)
        return path

    return save


def _run_load(folder: Path) -> Mapping[str, Tensor]:
    model = _model(content(9_000))
    with warnings.catch_warnings(), loadstone.Run(folder, model=model, name="net") as run:
        warnings.simplefilter("ignore")  # it says which checkpoints it passed over
        run.resume()
    return model.state_dict()


OURS = (
    Contender(
        "ls.save, .pth replaced",
        _replace_with(".pth"),
        lambda folder: torch_load(folder / "last.pth"),
        is_ours=True,
        package="loadstone",
    ),
    Contender(
        "ls.save, .safetensors replaced",
        _replace_with(".safetensors"),
        _safetensors_load,
        is_ours=True,
        package="loadstone",
    ),
    Contender(
        "folders with links, retention",
        _folder_save,
        _newest_whole,
        is_ours=True,
        held=_held,
        must_hold=_must_hold,
        package="loadstone",
    ),
    Contender(
        "ls.Run, retention",
        _run_save("file"),
        _run_load,
        is_ours=True,
        held=_held,
        must_hold=_must_hold,
        package="loadstone",
    ),
    Contender(
        "ls.Run, retention, folders",
        _run_save("folder"),
        _run_load,
        is_ours=True,
        held=_held,
        must_hold=_must_hold,
        package="loadstone",
    ),
)
