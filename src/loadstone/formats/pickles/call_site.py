"""One call of a pickle, as the tables of known globals see it.

A builder is a pure function from a CallSite to a value.  The tables (plain_objects.py, tensor_builders.py,
numpy_values.py) map names to builders; a name that is in none of them stays an Opaque record.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from loadstone.errors import Diagnostic, FormatError
from loadstone.values import Opaque, Value

OpenBytes: TypeAlias = Callable[[bytes], Value]  # the tree of a file that is kept as bytes inside a pickle


@dataclass(slots=True, eq=False)
class CallSite:
    """A call that a pickle would have made, its arguments already turned into values.

    Attributes:
        path: "package.module.name" of what would have been called, in its present spelling.
        args: positional arguments.
        state: what BUILD gave to the result; None if nothing.
        items, entries: what was appended to the result, and set in it.
        where: the file, for messages.
        open_bytes: opens a file that is kept as bytes; None where that is not wanted.
    """

    path: str
    args: tuple[Value, ...]
    state: Value
    items: list[Value]
    entries: list[tuple[Value, Value]]
    where: str
    open_bytes: OpenBytes | None = None

    def unbuilt(self) -> Opaque:
        """The call as a record, for what has no plain form."""
        return Opaque(self.path, self.args, self.state, self.items)

    def malformed(self) -> FormatError:
        """The error for arguments that the real function would not take."""
        shown = ", ".join(type(argument).__name__ for argument in self.args[:8])
        state = () if self.state is None else (("state", type(self.state).__name__),)
        return FormatError(
            Diagnostic(
                "corrupt-pickle",
                f"`{self.where}` calls {self.path} with arguments that it does not take",
                evidence=(("arguments", shown or "none"), *state),
            )
        )


Builder: TypeAlias = Callable[[CallSite], Value]
Table: TypeAlias = Mapping[str, Builder]
