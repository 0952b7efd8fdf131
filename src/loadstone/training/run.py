"""Run: a training that can be stopped at any moment and goes on as if it had not been.

    run = ls.Run("runs/resnet18", model=model, optimizer=optimizer, scheduler=scheduler, data=loader)
    run.resume()
    for epoch in run.epochs(50):
        for x, y in run.batches(loader):
            ...
        run.save(loss=loss)

The loop stays the script's own.  `epochs` counts and `batches` knows the place in the epoch (loop); `save` writes, and
`resume` reads; everything else is in the rooms beside: what there is to save (parts), the generators, the loader's
place (loaders), the directory (store), and putting it all back (resuming).
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar, final

from torch import nn
from torch.optim import Optimizer

from loadstone.checkpoint import open_checkpoint
from loadstone.errors import Diagnostic, Fix, MatchError, RecipeError
from loadstone.model.options import PlanOptions
from loadstone.runs.keep import Keep, Mode
from loadstone.runs.listing import Entry
from loadstone.training import loaders
from loadstone.training.every import parse_every
from loadstone.training.generators import generators_state
from loadstone.training.loop import Loop
from loadstone.training.parts import OWN, RANKS, Several, content_of, gather
from loadstone.training.progress import Progress, Report, describe
from loadstone.training.ranks import Ranks
from loadstone.training.resuming import Resume, Strict, carry_out, plan_resume
from loadstone.training.saved_run import SavedRun, read_run
from loadstone.training.store import Store
from loadstone.training.values import plain_config, plain_metrics
from loadstone.training.witness import attend, redirected

B = TypeVar("B")


@final
class Run:
    """A training run: a directory of checkpoints, and the objects that they are of.

    Args:
        folder: where the checkpoints are; made by the first save.
        model: its state dict is saved without the names of wrappers (DataParallel, torch.compile); a dict of models is
            saved as one.
        optimizer, scheduler, scaler: one, or a dict or list of several.
        state: other objects with `state_dict` and `load_state_dict`, by name: `{"ema": ema}`.
        data: the loader of `batches`.
        name: what the checkpoints are called; by default the model's class in lower case.
        config: plain values, saved along, and compared by an exact resume.
        keep: which checkpoints stay; None: all of them.
        every: save without being asked: "500 steps", "10 minutes", "5 epochs"; between two batches, or two epochs.
        wait: False: write in the background, while the training goes on.
        layout: "file", or "folder" of shards, where what did not change is not written again.

    Raises RecipeError (invalid-option).
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        model: nn.Module | Mapping[str, nn.Module] | None = None,
        optimizer: Several = None,
        scheduler: Several = None,
        scaler: Several = None,
        state: Several = None,
        data: Iterable[Any] | None = None,
        name: str | None = None,
        config: object = None,
        keep: Keep | None = None,
        every: str | int | None = None,
        wait: bool = True,
        layout: str = "file",
    ) -> None:
        self._parts = gather(model, optimizer, scheduler, scaler, state)
        self._config = plain_config(config)
        amount = None if every is None else parse_every(every)
        self._loop = Loop(data, amount, handed_out=self._attend, between=self._between)
        own_name = type(self._parts.model).__name__.lower() if isinstance(model, nn.Module) else "run"
        self._store = Store(redirected(folder), name or own_name, keep=keep, layout=layout, wait=wait)
        self._store.is_usable()
        self._ranks = Ranks()
        self._stepped: dict[str, int] = {}  # by optimizer: batches that were handed out when it made its last step
        self._hooks = [
            each.register_step_post_hook(lambda *_, name=name: self._stepped.__setitem__(name, self.step))
            for name, each in self._parts.optimizers.items()
            if isinstance(each, Optimizer)
        ]
        named = self._parts.model
        self._witness = None if named is None else attend(folder, named, self._parts.optimizers.values())

    @property
    def folder(self) -> Path:
        """Where the checkpoints are."""
        return self._store.folder

    @property
    def epoch(self) -> int:
        """Epochs that are finished."""
        return self._loop.epoch

    @property
    def step(self) -> int:
        """Batches that were handed out in all."""
        return self._loop.step

    @property
    def batch(self) -> int:
        """Batches that were handed out in the unfinished epoch."""
        return self._loop.batch

    def resume(
        self,
        *,
        strict: Strict = "exact",
        checkpoint: str | os.PathLike[str] | None = None,
        match: str = "names",
        answers: Mapping[str, str] | None = None,
        recipe: str | os.PathLike[str] | None = None,
    ) -> Progress:
        """Go on from the newest whole checkpoint, or from `checkpoint`; zeros where there is none yet.

        Args:
            strict: "exact": any difference is an error that lists it.  "transfer": weights and optimizer state go by
                name, and the report says what starts anew.  "weights": the model alone; finished epochs stay finished.
            checkpoint: a path, or a name in the directory; also one that other code wrote in the usual layouts.
            match, answers, recipe: as in `plan`, for a model of another implementation.  Where "structure" turns, cuts
                or joins weights, moments of the optimizer that are one number a weight go the same way.

        Raises:
            MatchError: resume-differs, open-question, and every diagnostic of the parts that differ; everything is as
                it was.
            IntegrityError: damaged-checkpoint, where no checkpoint is whole; file-not-found.
        """
        if strict not in ("exact", "transfer", "weights"):
            raise RecipeError(Diagnostic("invalid-option", f"strict={strict!r:.40}: no exact, transfer or weights"))
        self._store.wait()
        self._join()
        entry, passed = self._ranks.from_first(lambda: self._chosen(checkpoint))
        for diagnostic in passed if self._ranks.rank == 0 else ():
            warnings.warn(str(diagnostic), stacklevel=2)
        if entry is None:
            return Progress()
        with open_checkpoint(entry.path) as opened:
            saved = replace(read_run(opened), rank=self._ranks.rank)
            data = None if self._loop.loader is None else loaders.fingerprint(self._loop.loader)
            matching: PlanOptions = {"match": match, "answers": answers, "recipe": recipe}
            made = plan_resume(
                self._parts, saved, strict,
                config=self._config, data=data, matching=matching, processes=self._ranks.count,
            )  # fmt: skip
            if made.errors:
                summary = f"`{entry.path.name}` cannot be resumed ({strict}); nothing was changed"
                raise MatchError(*made.errors, summary=summary)
            carry_out(made, self._parts)
        if self._ranks.rank == 0:
            self._store.go_on_from(entry.path)
        return self._at(saved, made, entry, strict, [*passed, *self._newer(entry)])

    def _join(self) -> None:
        """Before the first thing that all processes of a training do."""
        self._ranks.join(f"{self.folder} {self._store.name}")

    def _chosen(self, checkpoint: str | os.PathLike[str] | None) -> tuple[Entry | None, list[Diagnostic]]:
        return self._store.newest() if checkpoint is None else (self._store.one(Path(checkpoint)), [])

    def _at(self, saved: SavedRun, made: Resume, entry: Entry, strict: Strict, notes: list[Diagnostic]) -> Progress:
        self._loop.go_on(
            saved.epoch, saved.step, made.batch, place=made.place, generators=made.generators, expected=made.expected
        )
        where = describe(*self._loop.place)
        head = f"resumed from {entry.path.name} ({strict}): {where}"
        report = Report(head, tuple(made.lines), (*notes, *made.notes), tuple(made.details))
        return Progress(*self._loop.place, entry.path, report)

    def _newer(self, entry: Entry) -> list[Diagnostic]:
        """A note where the run goes on from an older checkpoint than the newest."""
        newer = [each for each in self._store.entries() if each.name == entry.name and each.order > entry.order]
        if not newer or entry.path.parent.resolve() != self.folder.resolve():
            return []
        message = f"{len(newer)} checkpoints in `{self.folder}` are newer, and a later `resume()` takes the newest"
        fix = Fix("keep this branch of the training in a directory of its own", f'Run("{self.folder}-branch", ...)')
        newest = (("newest", newer[-1].path.name),)
        return [Diagnostic("newer-checkpoints", message, newest, (fix,))] if not _is_passed(newer) else []

    def epochs(self, total: int) -> Iterator[int]:
        """The numbers of the epochs that are left of 1 to `total`.

        An epoch is finished when the loop comes back; a checkpoint that is due is written then.
        """
        self._join()
        return self._loop.epochs(total)

    def batches(self, loader: Iterable[B] | None = None) -> Iterator[B]:
        """The batches of one epoch; of an epoch that was interrupted, those that are left, shuffled as they were.

        A checkpoint that is due is written between two batches.  Without `loader`, those of the run's `data`.
        """
        self._join()
        return self._loop.batches(loader)

    def _attend(self, batch: Any) -> None:
        if self._witness is not None:
            rates = self._parts.learning_rates()
            self._witness.batch(self.epoch + 1, self.batch, self.step, batch, rates)

    def _between(self, is_due: bool, is_ending: bool) -> bool:
        """Between two batches or epochs; whether the process is to end."""
        self._store.check()
        is_due, is_ending = self._ranks.any_of(is_due, is_ending)
        if is_due:
            self._write({})
        if is_ending:
            path = self._store.wait()
            self._ranks.wait()
            if self._ranks.rank == 0:
                print(f"loadstone: SIGTERM: the training is saved in {path}", file=sys.stderr, flush=True)
        return is_ending

    def save(self, *, epoch: int | None = None, step: int | None = None, **metrics: Any) -> Path | None:
        """Write a checkpoint now; its path, None where it is written in the background or by another process.

        Inside `batches` it is one in the middle of an epoch, after the batch that was handed out last.  Behind it, the
        epoch is finished.

        Args:
            epoch, step: epochs finished and batches done, for loops without `epochs` and `batches`.
            metrics: numbers by name; `loss` is also an entry of the checkpoint itself.

        Raises:
            SaveError: nothing was written; with `wait=False` this is raised by the next call.
            RecipeError: a metric is no number.
        """
        numbers = plain_metrics(metrics)
        for name, count in (("epoch", epoch), ("step", step)):
            if count is not None and (type(count) is not int or count < 0):
                raise RecipeError(Diagnostic("invalid-option", f"`{name}` is {count!r:.40}; it counts from 0"))
        self._loop.count(epoch, step)
        if epoch is None and self._loop.is_behind_batches:
            with self._loop.finished():
                return self._write(numbers)
        return self._write(numbers)

    def _write(self, metrics: Mapping[str, float]) -> Path | None:
        content, training = self._content(metrics)
        own = {key: content[key] for key in OWN if key in content}
        if self._ranks.rank and "gradients" in own:
            own["gradients"] = {name: gradient.cpu() for name, gradient in own["gradients"].items()}
        others = self._ranks.gathered(own)[1:]
        if others:
            content[RANKS] = others
        path = self._store.write(content, training, self._parts.model) if self._ranks.rank == 0 else None
        self._loop.saved()
        return path

    def _content(self, metrics: Mapping[str, float]) -> tuple[dict[str, Any], dict[str, Any]]:
        """The checkpoint, and what its manifest says of the training."""
        loader = self._loop.loader
        counts = {"epoch": self.epoch, "step": self.step, "batch": self.batch}
        content: dict[str, Any] = {**counts, **content_of(self._parts, self._accumulating())}
        if "loss" in metrics:
            content["loss"] = metrics["loss"]
        content |= {"metrics": dict(metrics), "config": self._config}
        content["rng_state"] = generators_state(loader)
        if loader is not None:
            content["data"] = loaders.saved_place(loader, self._loop.start if self.batch else None)
        training = {"name": self._store.name, **counts, "metrics": content["metrics"], "config": self._config}
        return content, training

    def _accumulating(self) -> list[str]:
        """Optimizers that made no step since the last batch was handed out: their gradients wait."""
        known = {name for name, each in self._parts.optimizers.items() if isinstance(each, Optimizer)}
        return [name for name in known if self._loop.counts_batches and self._stepped.get(name) != self.step]

    def list(self) -> list[Entry]:
        """Every checkpoint in the directory, oldest first."""
        return self._store.entries()

    def best(self, metric: str | None = None, mode: Mode | None = None) -> Entry | None:
        """The whole checkpoint with the best metric, by default the one that `keep` names; None where there is none."""
        return self._store.best(metric, mode)

    def close(self) -> None:
        """Wait for what is being written and raise what went wrong; SIGTERM is again as it was."""
        try:
            self._store.close()
        finally:
            self._loop.close()
            for hook in self._hooks:
                hook.remove()
            if self._witness is not None:
                self._witness.finished()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _is_passed(newer: list[Entry]) -> bool:
    """All the newer ones are damaged, and were said to be."""
    return all(each.state == "damaged" for each in newer)
