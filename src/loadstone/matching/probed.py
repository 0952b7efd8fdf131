"""Probed: what a model computes beside what its file remembers, as numbers.  Made by model/probe.py."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Probed:
    """The outputs of a model beside those that it should have.

    Attributes:
        is_equal: equal to the bit, in all values that were kept.
        max_difference: the largest difference between two numbers.
        max_relative: the largest difference as a share of the largest magnitude in the same output.
        tolerance: what `max_relative` may be; where outputs have several dtypes, the loosest.
        values: how many numbers were compared.
        beside: what they were compared with, as a clause.
    """

    is_equal: bool
    max_difference: float
    max_relative: float
    tolerance: float
    values: int
    beside: str = "the file remembers"

    def __str__(self) -> str:
        if self.is_equal:
            return f"the model computes what {self.beside}: {self.values:,} values, equal to the bit"
        apart = f"largest difference {self.max_relative:.1g} of the largest value, {self.tolerance:.0e} is rounding"
        return f"the model computes what {self.beside}: {self.values:,} values, {apart}"
