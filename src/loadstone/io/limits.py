"""Limits on what a file may ask of this machine.  Every size that a file claims is held against one of them first."""

from __future__ import annotations

from dataclasses import dataclass

from loadstone.errors import Diagnostic, Fix, LimitError


@dataclass(frozen=True, slots=True)
class Limits:
    """How much a file may ask for.  The defaults open the largest real checkpoints and stop every bomb we know.

    Attributes:
        header_nbytes: bytes of one header or pickle held in memory (safetensors allows headers of 100 MB).
        opcodes: instructions of one pickle; 60,000 optimizer tensors take 1.8 million, and 8 million at most 1 GB.
        depth: nesting of containers; iterative everywhere, this bounds what people have to look at.
        nodes: values of a tree that is spelt out; what is shared counts at each of its places.
        nested_files: files inside files inside files.
        expanded_nbytes: bytes that compressed records other than tensors may expand to, in all.
        big_int_nbytes: bytes of one integer that are kept as an integer; longer ones stay bytes.
    """

    header_nbytes: int = 256 * 1024 * 1024
    opcodes: int = 8_000_000
    depth: int = 1000
    nodes: int = 5_000_000
    nested_files: int = 8
    expanded_nbytes: int = 256 * 1024 * 1024
    big_int_nbytes: int = 1024

    def check(self, name: str, needed: int, what: str) -> None:
        """Raise LimitError if `needed` is more than the limit called `name`; `what` says whose need it is."""
        limit = getattr(self, name)
        if needed > limit:
            raise LimitError(
                Diagnostic(
                    "resource-limit",
                    f"{what} would need {needed:,}, the limit `{name}` is {limit:,}",
                    fixes=(Fix("if you trust the file, raise the limit", f"limits=Limits({name}={needed})"),),
                )
            )


DEFAULT_LIMITS = Limits()
