"""Rank: of every group of candidates the best pass."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np

from nasmw.candidates import RESUME_FROM, Architecture, Candidates, Floats, Status
from nasmw.context import Context, Recorded
from nasmw.errors import ProfilerError
from nasmw.middleware.values import check_count, check_number, name_of, profiled
from nasmw.profiler import Profiler, check_names
from nasmw.strategy import Middleware, batch_of_none

__all__ = ["Rank"]

Scorer = Profiler | Callable[[Architecture], float] | Recorded


class Rank(Middleware):
    """Passes the best of every group of candidates by cheap scores; the rest are told that they were skipped.

    The strategy below is asked until a group is full. Where it gives no more for now, or is exhausted, the group is
    ranked as it is, so that nobody waits for somebody who never comes; the best `keep` of it pass all the same. Those
    who pass leave best first; of equal ones the one asked first is better. Who passes and is not asked for yet waits
    for the next ask.

    A candidate that goes on from an earlier trial with a greater budget passes: it was ranked before.

    Limits offered from above are handed down: then groups consist of candidates within the limits, which changes
    who is the best of a group. Values ride along as columns, under the names of the scorers (where a callable has one).

    Args:
        *scorers: Profilers, or callables that take an architecture and return a number; mark one that is no pure
            function (a proxy on random weights) with `recorded`.
        groups_of: How many candidates are compared, at least 2.
        keep: How many of them pass, fewer than `groups_of`.
        weights: One finite number per scorer, negative where less is better; 1 by default.
        by: ``"value"`` adds the weighted values, ``"rank"`` the weighted ranks within the group, equal values sharing
            the mean of their ranks; use it where scorers have different units.
        maximize: Whether the greatest sum is the best.

    Raises:
        TypeError: If there is no scorer, or one is neither a profiler nor a callable.
        ValueError: If a number is out of range, weights do not fit, or two callables have one name.
        ProfilerError: If two profilers have one name; during a run, if a scorer fails or gives no finite number.

    Example:
        >>> from nasmw.testing import TableProfiler, toy_space
        >>> Rank(TableProfiler(toy_space()), groups_of=8, maximize=False).keep
        1
    """

    def __init__(
        self,
        *scorers: Scorer,
        groups_of: int,
        keep: int = 1,
        weights: Sequence[float] | None = None,
        by: Literal["value", "rank"] = "value",
        maximize: bool = True,
    ) -> None:
        if not scorers:
            raise TypeError("Rank needs at least one scorer: a profiler, or a callable of an architecture")
        for scorer in scorers:
            if not isinstance(scorer, Profiler) and (not callable(scorer) or isinstance(scorer, type)):
                raise TypeError(f"Rank takes profilers and callables of an architecture, got {scorer!r}")
        self.scorers = scorers
        self.groups_of = check_count("Rank", "groups_of", groups_of)
        self.keep = check_count("Rank", "keep", keep)
        if self.keep >= self.groups_of:
            raise ValueError(f"Rank keeps fewer than it compares, got keep={keep} of groups_of={groups_of}")
        self.weights = _weights(weights, len(scorers))
        if by not in ("value", "rank"):
            raise ValueError(f"Rank(by=...) takes 'value' or 'rank', got {by!r}")
        self.by = by
        if not isinstance(maximize, bool):
            raise TypeError(f"Rank(maximize=...) takes True or False, got {maximize!r}")
        self.maximize = maximize
        check_names(self.profilers)
        self._names = [scorer.name if isinstance(scorer, Profiler) else name_of(scorer) for scorer in scorers]
        columns = [
            name
            for name, scorer in zip(self._names, scorers, strict=True)
            if isinstance(scorer, Profiler) or name.isidentifier()
        ]
        if len(set(columns)) < len(columns):
            raise ValueError(f"the scorers of a Rank have different names, got {columns}")

    @property
    def profilers(self) -> tuple[Profiler, ...]:
        """The profilers among the scorers."""
        return tuple(scorer for scorer in self.scorers if isinstance(scorer, Profiler))

    @property
    def exhausted(self) -> bool:
        """Whether nobody waits here, and the inner strategy is exhausted."""
        return super().exhausted and not len(self._buffer)

    def _setup(self, context: Context) -> None:
        self._none = batch_of_none(context.space)
        self._buffer = self._none

    def _ask(self, n: int) -> Candidates:
        passed: list[Candidates] = []
        wanted = n
        while wanted:
            if not len(self._buffer):
                self._buffer = self._best_of(self._group())
                if not len(self._buffer):
                    break
            part, self._buffer = self._buffer, self._none
            if len(part) > wanted:
                part, self._buffer = part[:wanted], part[wanted:]
            passed.append(part)
            wanted -= len(part)
        return Candidates.join(passed) if passed else self._none

    def _group(self) -> Candidates:
        """Return the next candidates to compare: a full group, or what there is for now."""
        parts: list[Candidates] = []
        missing = self.groups_of
        while missing:
            part = self.inner.ask(missing)
            if not len(part):
                break
            parts.append(part)
            missing -= len(part)
        return Candidates.join(parts) if parts else self._none

    def _best_of(self, group: Candidates) -> Candidates:
        """Return those of a group who pass, best first, after telling the rest that they were skipped."""
        size = len(group)
        if not size:
            return group
        values = [self._values(scorer, name, group) for scorer, name in zip(self.scorers, self._names, strict=True)]
        # Lists: groups are small, where NumPy's fixed cost per call is most of the time.
        total = [0.0] * size
        for weight, value in zip(self.weights, values, strict=True):
            for row, number in enumerate((value if self.by == "value" else _ranks(value)).tolist()):
                total[row] += weight * number
        origins = group.columns[RESUME_FROM].tolist() if RESUME_FROM in group.columns else [math.nan] * size
        gone_on = [row for row in range(size) if not math.isnan(origins[row])]
        order = [row for row in range(size) if math.isnan(origins[row])]
        order.sort(key=total.__getitem__, reverse=self.maximize)
        group = group.with_columns(
            {
                name: value
                for name, value, scorer in zip(self._names, values, self.scorers, strict=True)
                if isinstance(scorer, Profiler) or name.isidentifier()
            }
        )
        rest = order[self.keep :]
        if len(rest):
            cause = f"not among the best {self.keep} of {self.groups_of}"
            what = "sum" if self.by == "value" else "rank sum"
            reasons = [
                f"rank {self.keep + place + 1} of {size}, {what} {total[row]:.6g}" for place, row in enumerate(rest)
            ]
            self.turn_away(group[rest], Status.SKIPPED, [cause] * len(rest), reasons)
        return group[gone_on + order[: self.keep]]

    def _values(self, scorer: Scorer, name: str, group: Candidates) -> Floats:
        if isinstance(scorer, Profiler):
            return profiled(self.context, scorer, group)
        values = np.empty(len(group))
        for row in range(len(group)):
            try:
                values[row] = value = self.context.apply(scorer, group[row])[0]
                if not math.isfinite(value):
                    raise ValueError(f"it gave {value}; a finite number was wanted")
            except Exception as error:
                raise ProfilerError(
                    f"the scorer {name!r} of {self.context.stage} failed on {next(iter(group[row]))!r}: "
                    f"{type(error).__name__}: {error}"
                ) from error
        return values


def _ranks(values: Floats) -> Floats:
    """Return the ranks of values, 1 for the least; equal values share the mean of their ranks."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    means: Floats = last - (counts - 1) / 2.0
    return means[inverse]


def _weights(weights: Sequence[float] | None, number: int) -> tuple[float, ...]:
    if weights is None:
        return (1.0,) * number
    given = tuple(weights)
    if len(given) != number:
        raise ValueError(f"Rank takes one weight per scorer, got {len(given)} for {number}")
    return tuple(check_number("Rank", "weights", weight) for weight in given)
