"""The loop of a training: epochs that are finished, batches that were handed out, and how both go on from a place.

What a checkpoint must know of the middle of an epoch is noted when the epoch begins: the generators before the loader's
iterator drew from them.  Between two batches and between two epochs the loop calls back: there the run saves, if it is
time or if the process was asked to end.  Nothing here knows of files.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar, final

from loadstone.errors import Diagnostic, Fix, MatchError, RecipeError
from loadstone.training import differences, loaders
from loadstone.training.every import Due, Every
from loadstone.training.generators import generators_state, put_generators, put_own_generators
from loadstone.training.termination import Termination

B = TypeVar("B")


@final
class Loop:
    """Where a training stands, and the iterators that move it on.

    Attributes:
        loader: of `batches`; None until it is known.
        epoch: epochs that are finished.
        step: batches that were handed out in all.
        batch: batches that were handed out in the unfinished epoch.
        counts_batches: `batches` is in use.
        start: the generators before the running epoch's iterator; None between two epochs.
    """

    def __init__(
        self,
        loader: Iterable[Any] | None,
        every: Every | None,
        *,
        handed_out: Callable[[Any], None],
        between: Callable[[bool, bool], bool],
    ) -> None:
        """`handed_out` is told every batch; `between` hears what is asked, to save and to end, and says if it ends."""
        self.loader = loader
        self.epoch = self.step = self.batch = 0
        self.counts_batches = False
        self.start: dict[str, Any] | None = None
        self._handed_out = handed_out
        self._between = between
        self._due = Due(every, time.monotonic)
        self._termination = Termination()
        self._is_in_epochs = False
        self._is_in_batches = False
        self._place: loaders.Place | None = None  # where the epoch that a resume found goes on
        self._pending: dict[str, Any] | None = None  # the generators that the next epoch begins with
        self._own: list[Any] = []  # and those of its loader
        self._expected: Mapping[str, Any] | None = None  # the loader's fingerprint, where it is still to be compared
        self._saved_at: tuple[int, int, int] | None = None

    @property
    def place(self) -> tuple[int, int, int]:
        """Epoch, step and batch."""
        return self.epoch, self.step, self.batch

    @property
    def is_behind_batches(self) -> bool:
        """In an epoch, and not among its batches: they are through, and the epoch as good as finished."""
        return self._is_in_epochs and not self._is_in_batches

    def go_on(
        self, epoch: int, step: int, batch: int, *, place: loaders.Place | None, generators: dict[str, Any] | None,
        expected: Mapping[str, Any] | None,
    ) -> None:  # fmt: skip
        """Go on from what a checkpoint says; `expected` is the loader's fingerprint, compared when one is known."""
        self.epoch, self.step, self.batch = epoch, step, batch
        self._place, self._pending = place, generators
        self._expected = expected if self.loader is None else None
        self.saved()

    def saved(self) -> None:
        """A checkpoint holds this place."""
        self._saved_at = self.place
        self._due.saved(epoch=self.epoch, step=self.step)

    def count(self, epoch: int | None, step: int | None) -> None:
        """Counts of a script that has a loop of its own."""
        self.step = self.step if step is None else step
        if epoch is not None:
            self.epoch = epoch
            self.batch = self.batch if self._is_in_batches else 0

    @contextmanager
    def finished(self) -> Iterator[None]:
        """Behind the batches of an epoch, as if it were finished; the loop's own count goes on when it comes back."""
        before = self.epoch, self.batch, self.start
        self.epoch, self.batch, self.start = self.epoch + 1, 0, None
        try:
            yield
        finally:
            self.epoch, self.batch, self.start = before

    def epochs(self, total: int) -> Iterator[int]:
        """The numbers of the epochs that are left of 1 to `total`; one is finished when the loop comes back."""
        self._termination.install()
        self._is_in_epochs = True
        try:
            while self.epoch < total:
                self._begin_epoch()
                try:
                    yield self.epoch + 1
                except GeneratorExit:  # the loop was left: what was iterated is done, unless in its middle
                    if not self._is_in_batches:
                        self._finish_epoch()
                    raise
                self._finish_epoch()
                self._after(self._due.after_epoch(self.epoch, self.step))
        finally:
            self._is_in_epochs = False

    def batches(self, loader: Iterable[B] | None) -> Iterator[B]:
        """The batches of one epoch, or what is left of it."""
        source: Iterable[B] | None = self.loader if loader is None else loader
        if source is None:
            raise RecipeError(Diagnostic("invalid-option", "there is no loader, neither here nor as `data` of the run"))
        if self._is_in_batches or (self._is_in_epochs and self.start is not None):
            message = f"`batches` is used twice in epoch {self.epoch + 1}; one loader is the one that is trained on"
            fixes = (Fix("go through other data without it", "for x, y in validation_loader:"),)
            raise RecipeError(Diagnostic("invalid-option", message, fixes=fixes))
        self._termination.install()
        return self._counted(self._iterator(source))

    def _iterator(self, source: Iterable[B]) -> Iterator[B]:
        place, self._place = self._place, None
        if self._expected is not None:
            expected, self._expected = self._expected, None
            check_loader(expected, source)
        self.loader, number = source, self.epoch + 1
        if place is None:
            self._begin_epoch()
            self._begin_loader(source)
            self.batch = 0
            self.start = generators_state(source)
            return loaders.begin(source, number)
        self._pending, self._own = None, []
        self.start = place.start
        return loaders.go_on(source, number, place)

    def _counted(self, iterator: Iterator[B]) -> Iterator[B]:
        self._is_in_batches = self.counts_batches = True
        try:
            for batch in iterator:
                self.batch += 1
                self.step += 1
                self._handed_out(batch)
                yield batch
                self._after(self._due.after_batch(self.step))
        except GeneratorExit:
            self._leave_batches()  # the loop was left early, on purpose
            raise
        finally:
            self._is_in_batches = False
        self._leave_batches()

    def _leave_batches(self) -> None:
        """Without `epochs`, the end of the batches is the end of the epoch."""
        if not self._is_in_epochs:
            self._finish_epoch()

    def _begin_epoch(self) -> None:
        """Once after a resume: whatever the script drew in between does not count."""
        if self._pending is not None:
            pending, self._pending = self._pending, None
            put_generators(pending)
            self._own = list(pending.get("loader", ()))
            if self.loader is not None and self._place is None:
                self._begin_loader(self.loader)

    def _begin_loader(self, loader: object) -> None:
        """Once after a resume between two epochs, as soon as the loader is known."""
        own, self._own = self._own, []
        if own:
            put_own_generators(loader, own)

    def _finish_epoch(self) -> None:
        self.epoch += 1
        self.batch = 0
        self.start = None

    def _after(self, is_due: bool) -> None:
        """Between two batches or epochs: save if it is time, or if the process was asked to end."""
        is_ending = self._termination.is_asked
        if self._between((is_due or is_ending) and self._saved_at != self.place, is_ending):
            self._termination.go_on()

    def close(self) -> None:
        """SIGTERM is again as it was."""
        self._termination.restore()


def check_loader(saved: Mapping[str, Any], loader: object) -> None:
    """Raise MatchError (resume-differs) where the loader is not the one that the checkpoint speaks of."""
    found = differences.differs("the data loader", differences.by_key(saved, loaders.fingerprint(loader), "data."))
    if found:
        raise MatchError(*found)
