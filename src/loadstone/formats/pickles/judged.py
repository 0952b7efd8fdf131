"""The pickles of one file: run, judged, and what was found kept until the file has been read.

A payload must not be hidden by a defect behind it, so that an error while reading carries the findings too.
"""

from __future__ import annotations

from types import TracebackType
from typing import Self, final

from loadstone.errors import Diagnostic, LoadstoneError
from loadstone.formats.contents import Context
from loadstone.formats.pickles.globals import judge
from loadstone.formats.pickles.values import Execution
from loadstone.formats.pickles.vm import execute
from loadstone.io.sources import ByteSource, MemorySource
from loadstone.values import Value


@final
class JudgedPickles:
    """Use it in a `with`: an error that leaves the block gets the serious findings as further diagnostics."""

    def __init__(self, context: Context, where: str) -> None:
        self._context = context
        self._where = where
        self._nested_nbytes = 0
        self.findings: list[Diagnostic] = []

    def execute(self, source: ByteSource, start: int = 0) -> Execution:
        """Run and judge the pickle that begins at `start`.  Raises what `pickle_vm.execute` raises."""
        execution = execute(source, start, limits=self._context.limits)
        self.findings += judge(execution, source.name)
        return execution

    def open_bytes(self, data: bytes) -> Value:
        """The tree of a file that is kept as bytes inside a pickle; of its findings, all but the notes are kept.

        Raises what its reader raises, and LimitError past `nested_files` or `expanded_nbytes`.
        """
        self._nested_nbytes += len(data)
        self._context.limits.check("expanded_nbytes", self._nested_nbytes, f"the files inside `{self._where}`")
        contents = self._context.open(MemorySource(data, f"{self._where} (bytes inside)"))
        self.findings += [finding for finding in contents.diagnostics if finding.severity != "note"]
        return contents.tree

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        serious = [finding for finding in self.findings if finding.severity == "error"]
        if isinstance(error, LoadstoneError) and serious:
            raise type(error)(*error.diagnostics, *serious) from error
