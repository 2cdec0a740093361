"""What a feasible set says: counts, estimates, extremes, and why limits leave little or nothing."""

from __future__ import annotations

import math

import attrs

from nasmw.candidates import Architecture
from nasmw.constraint import Constraint

__all__ = ["Count", "Diagnosis", "Estimate", "LimitReport", "Optimum"]


@attrs.frozen
class Count:
    """How many architectures there are: at least `low`, at most `high`, and `exact` where that is known."""

    low: int
    high: int
    exact: int | None

    def __str__(self) -> str:
        return f"{self.exact}" if self.exact is not None else f"{self.low:.4g} to {self.high:.4g}"


@attrs.frozen
class Estimate:
    """A number estimated from random draws, and its standard error."""

    value: float
    error: float


@attrs.frozen
class Optimum:
    """The least or greatest value of a profiler under limits.

    Attributes:
        value: The value of `architecture`.
        architecture: The best architecture found.
        bound: What no architecture within the limits can be better than.
        exact: Whether `architecture` is proved to be the best one.
    """

    value: float
    architecture: Architecture
    bound: float
    exact: bool


@attrs.frozen
class LimitReport:
    """What one limit means: the values that the space has, and the share of it that the limit leaves by itself."""

    constraint: Constraint
    low: float | None
    high: float | None
    share: float


@attrs.frozen
class Diagnosis:
    """What limits mean for a space; its text is for people.

    Attributes:
        limits: One report for each limit.
        share: The share of the space that all limits together leave; an upper bound where not counted exactly.
        conflict: Where nothing was found to be left, limits of which each one is needed for that; else empty.
        proved: Whether it is proved that no architecture meets these.
        nearest: For each limit in conflict that is on a table, the best value that the others allow, and an
            architecture that has it.
    """

    limits: tuple[LimitReport, ...]
    share: float
    conflict: tuple[Constraint, ...] = ()
    proved: bool = False
    nearest: tuple[tuple[Constraint, float, Architecture], ...] = ()

    def __str__(self) -> str:
        lines = []
        if self.conflict:
            names = " and ".join(map(str, self.conflict))
            none = "No architecture meets" if self.proved else "No architecture was found that meets"
            lines.append(f"{none} {names}{' together' if len(self.conflict) > 1 else ''}.")
            for term, value, architecture in self.nearest:
                unit = f" {term.profiler.unit}" if term.profiler.unit else ""
                best = "greatest" if math.isinf(term.high) or value < term.low else "least"
                among = " that meet the others" if len(self.conflict) > 1 else ""
                lines.append(
                    f"The {best} {term.profiler.name} of architectures{among} is {value:.6g}{unit}, "
                    f"of {dict(architecture)!r}."
                )
        for report in self.limits:
            known = "" if report.low is None else f" (the space has {report.low:.6g} to {report.high:.6g})"
            lines.append(f"{report.constraint}{known} leaves {report.share:.3g} of the space.")
        if len(self.limits) > 1 and not self.conflict:
            lines.append(f"Together they leave at most {self.share:.3g} of the space.")
        return " ".join(lines)
