"""What running a model says, as numbers: Probed beside what it should compute, Sensitivity to an open question."""

from __future__ import annotations

from dataclasses import dataclass

from loadstone.matching.structure.items import Question


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


@dataclass(frozen=True, slots=True)
class Sensitivity:
    """How much one open question matters for one input.

    Attributes:
        question: what is open.
        options: those that were tried, the first being what the others are compared with.
        apart: how far the output with any of them is from that with the first, as a share of its largest magnitude.
        is_moot: whatever is answered, the model computes the same for this input.
    """

    question: Question
    options: tuple[str, ...]
    apart: float
    is_moot: bool

    def __str__(self) -> str:
        if self.is_moot:
            return f"`{self.question.target}`: any answer gives the same output"
        return f"`{self.question.target}`: another answer moves the output by {self.apart:.1g} of its largest value"
