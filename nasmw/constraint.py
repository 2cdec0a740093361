"""Constraint: a limit on one profiler, as a value."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, NoReturn

import attrs
import numpy as np
import numpy.typing as npt

from nasmw.candidates import Candidates, Floats
from nasmw.errors import ConstraintError
from nasmw.space import Space

if TYPE_CHECKING:
    from nasmw.profiler import Profiler

__all__ = ["Constraint", "Constraints", "Share", "exactly", "parse_share"]

SHARE_SAMPLES = 4096


@attrs.frozen
class Share:
    """A limit as a share: of the architectures of the space, or of the greatest value.

    Attributes:
        share: Above 0 and up to 1.
        of_max: Whether it is a share of the greatest value.
    """

    share: float
    of_max: bool


def parse_share(text: str) -> Share:
    """Return the share that ``"60%"`` or ``"60% of max"`` stands for."""
    match = re.fullmatch(r"\s*([0-9.]+)\s*%\s*(of max)?\s*", text)
    try:
        share = float(match[1]) / 100 if match else math.nan
    except ValueError:
        share = math.nan
    if match is None or not 0.0 < share <= 1.0:
        raise ConstraintError(f"a share is written '60%' or '60% of max', above 0 and up to 100 %, got {text!r}")
    return Share(share, bool(match[2]))


class Constraint:
    """A limit on one profiler: ``low <= value <= high``. A value, to be handed to `Filter` or a feasible set.

    Attributes:
        profiler: The profiler whose value is limited.
        low: The least value allowed; -inf where there is none.
        high: The greatest value allowed; inf where there is none.
    """

    __hash__ = object.__hash__

    def __init__(
        self,
        profiler: Profiler,
        low: float = -math.inf,
        high: float = math.inf,
        *,
        share: Share | None = None,
        upper: bool = True,
        text: str | None = None,
    ) -> None:
        self.profiler = profiler
        self.low = low
        self.high = high
        self._pending_share = share
        self._upper = upper
        self._text = text

    def __repr__(self) -> str:
        return f"<Constraint {self}>"

    def __str__(self) -> str:
        if self._text:
            return self._text
        if share := self._pending_share:
            of = "max" if share.of_max else "the space"
            return f"{self.profiler.name} {'<=' if self._upper else '>='} {100 * share.share:.6g}% of {of}"
        if math.isinf(self.low):
            return f"{self.profiler.name} <= {exactly(self.high)}"
        if math.isinf(self.high):
            return f"{self.profiler.name} >= {exactly(self.low)}"
        return f"{exactly(self.low)} <= {self.profiler.name} <= {exactly(self.high)}"

    def __bool__(self) -> NoReturn:
        raise TypeError(
            "a constraint has no truth value before it is applied; for two limits on one profiler write "
            "(latency >= 5) & (latency <= 25), not 5 <= latency <= 25; in a callable compare profiler.profile(sample)"
        )

    def __and__(self, other: Constraint | Constraints) -> Constraints:
        return Constraints((self,)) & other

    @property
    def resolved(self) -> bool:
        """Whether the limit is a number; a share becomes one by `resolve`."""
        return self._pending_share is None

    def resolve(self, values: Callable[[Profiler, Candidates], Floats], space: Space) -> Constraint:
        """Return the same limit with a share replaced by the number that it stands for.

        Args:
            values: Gives a profiler's values of candidates (through the run's records where they are measured).
            space: The space that shares are of.
        """
        share = self._pending_share
        if share is None:
            return self
        rng = np.random.default_rng(0)  # a fixed sample: the same limit in every run on the space
        bounds = self.profiler.bounds() if share.of_max else None
        if bounds is not None:
            number = share.share * bounds.high
        else:
            if not self.profiler.pure:
                raise ConstraintError(
                    f"{str(self)!r} would take {SHARE_SAMPLES} measurements to become a number; give the number itself"
                )
            sample = values(self.profiler, space.sample(SHARE_SAMPLES, rng))
            if share.of_max:
                number = share.share * float(sample.max())
            else:
                quantile = share.share if self._upper else 1.0 - share.share
                number = float(np.quantile(sample, quantile, method="inverted_cdf"))
        return self.profiler <= number if self._upper else self.profiler >= number

    def holds(self, values: Floats) -> npt.NDArray[np.bool_]:
        """Return which of the values are within the limit."""
        self._must_be_resolved()
        return (values >= self.low) & (values <= self.high)

    def excess(self, values: Floats) -> Floats:
        """Return by how much each value is beyond the limit; 0 where it holds."""
        self._must_be_resolved()
        return np.maximum(np.maximum(values - self.high, self.low - values), 0.0)

    def _must_be_resolved(self) -> None:
        if not self.resolved:
            raise ConstraintError(f"{self!r} is a share of a space; call resolve(...) first, as Filter does at setup")


def exactly(number: float) -> str:
    """Return the shortest usual text of a number that stands for it and no other."""
    short = f"{number:.6g}"
    return short if float(short) == number else repr(number)


class Constraints:
    """Several limits that must all hold, as ``(latency >= 5) & (latency <= 25)`` gives."""

    def __init__(self, terms: Iterable[Constraint]) -> None:
        self.terms = tuple(terms)

    def __iter__(self) -> Iterator[Constraint]:
        return iter(self.terms)

    def __len__(self) -> int:
        return len(self.terms)

    def __repr__(self) -> str:
        return f"<Constraints {' & '.join(f'({term})' for term in self.terms)}>"

    def __bool__(self) -> NoReturn:
        raise TypeError("constraints have no truth value before they are applied; join them with &, not with `and`")

    def __and__(self, other: Constraint | Constraints) -> Constraints:
        if isinstance(other, Constraint):
            return Constraints((*self.terms, other))
        if isinstance(other, Constraints):
            return Constraints((*self.terms, *other.terms))
        return NotImplemented
