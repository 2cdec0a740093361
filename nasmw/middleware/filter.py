"""Filter: only candidates within limits reach training."""

from __future__ import annotations

import collections
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal

import attrs
import numpy as np

from nasmw.candidates import Architecture, Candidates, Floats, Outcomes, Status
from nasmw.constraint import Constraint, Constraints
from nasmw.context import Context, Recorded
from nasmw.errors import ConstraintError, ProfilerError
from nasmw.feasible import FeasibleSet, by_construction
from nasmw.middleware.attempts import Attempts
from nasmw.middleware.margins import knows_error, std_of, tightened, with_margin
from nasmw.middleware.values import check_count, check_number, name_of, profiled
from nasmw.profiler import KINDS, Profiler
from nasmw.strategy import Middleware, Verdict

__all__ = ["Filter"]

Predicate = Callable[[Architecture], bool] | Recorded
Test = Constraint | Predicate


@attrs.frozen
class _Miss:
    """How a value is beyond a limit."""

    constraint: Constraint
    value: float
    cause: str
    margin: float = 0.0

    @property
    def limit(self) -> float:
        return self.constraint.high if self.value > self.constraint.high else self.constraint.low

    @property
    def excess(self) -> float:
        return abs(self.value - self.limit)

    @property
    def relative(self) -> float:
        return self.excess / abs(self.limit) if self.limit else math.inf

    def __str__(self) -> str:
        value, limit = f"{self.value:.6g}", f"{self.limit:.6g}"
        if value == limit:
            value, limit = repr(self.value), repr(self.limit)
        sign, side = (">", "+") if self.value > self.limit else ("<", "-")
        slack = f" {side} {self.margin:g} std" if self.margin else ""
        return f"{self.constraint.profiler.name}{slack} = {value} {sign} {limit}"

    def describe(self) -> str:
        """Return the miss with its size."""
        unit = f" {self.constraint.profiler.unit}" if self.constraint.profiler.unit else ""
        share = f" ({100 * self.relative:.3g} % of the limit)" if self.limit else ""
        return f"{self}, beyond {self.cause!r} by {self.excess:.3g}{unit}{share}"


class Filter(Middleware):
    """Passes only candidates within limits; it trains nothing and changes no score of a trial.

    The tests run cheap first: limits on analytical profilers, on learned ones, then callables, then limits on measured
    profilers and callables marked `recorded`; in the given order among themselves. A later test sees only candidates
    that passed the earlier ones, and a profiler in several limits is asked once. Values ride along as columns named
    by the profilers.

    At its setup a Filter resolves shares, refuses limits that nothing in the space can meet (where profilers know their
    bounds or have tables; it says which limits conflict, and what is nearest to them), and offers each limit to the
    stages below; a strategy that honours it samples within it. Candidates are checked all the same.

    Where a limit's profiler measures, a candidate that cannot be built, or on which the device fails, is turned away
    as failed, and the search goes on; five of them in a row end it with the device's error.

    Args:
        *tests: Limits such as ``macs <= 300e6``, limits joined by ``&``, or callables that take an architecture as a
            mapping and return a bool.
        tell: What the strategy is told of a candidate that does not pass. None: infeasible, without a score.
            ``"bad score"``: infeasible, with the worst score that the Filter was told so far, for each objective (none
            while there is none). A number: infeasible, with that score. A `Penalize` belongs outside such a Filter:
            the worst score is then the worst penalised one.
        patience: How many candidates in a row may be turned away before the run ends with a message.
        pushdown: Whether limits are offered to the stages below. Where `tell` is not None nothing is offered: the
            strategy is to see what it did wrong.
        margin: By how many standard deviations of the profiler's own error a value stays within its limit:
            ``latency <= 25.0`` with a margin of 2 passes where the value and twice its error are at most 25. Where the
            error is a share of the value, this is a lower limit, and offered as such; else the limit itself is offered,
            and the margin checked. Exact values have no margin.

    Raises:
        TypeError: If a test is neither a limit nor a callable, or `tell` is neither None, ``"bad score"`` nor a number.
        ValueError: If the margin is negative, or there is no limit for it.
        ConstraintError: If limits on one profiler contradict each other; at setup, if nothing can meet one.
        ProfilerError: At setup, if there is a margin and a profiler that predicts states no error.

    Example:
        >>> from nasmw.testing import TableProfiler, toy_space
        >>> cost = TableProfiler(toy_space())
        >>> Filter((cost >= 2) & (cost <= 6), patience=100)
        Filter(tests=[<Constraint cost >= 2>, <Constraint cost <= 6>], told=None, patience=100,
               pushdown=True, margin=0.0)
    """

    def __init__(
        self,
        *tests: Constraint | Constraints | Predicate,
        tell: Literal["bad score"] | float | None = None,
        patience: int = 10_000,
        pushdown: bool = True,
        margin: float = 0.0,
    ) -> None:
        self.tests = _flatten(tests)
        self.told = _told(tell)
        self.patience = check_count("Filter", "patience", patience)
        if not isinstance(pushdown, bool):
            raise TypeError(f"Filter(pushdown=...) takes True or False, got {pushdown!r}")
        self.pushdown = pushdown
        self.margin = check_number("Filter", "margin", margin)
        if self.margin < 0:
            raise ValueError(f"Filter(margin=...) takes at least 0 standard deviations, got {margin!r}")
        if self.margin and not any(isinstance(test, Constraint) for test in self.tests):
            raise ValueError("Filter(margin=...) is about limits such as latency <= 25.0, and this Filter has none")
        _check_agreement(test for test in self.tests if isinstance(test, Constraint))

    @property
    def profilers(self) -> tuple[Profiler, ...]:
        """The profilers of the limits, each once."""
        return tuple(dict.fromkeys(test.profiler for test in self.tests if isinstance(test, Constraint)))

    @property
    def honoured(self) -> tuple[Constraint, ...]:
        """The limits that the stages below promised to keep, as numbers."""
        self.context  # noqa: B018  raises before setup
        return self._honoured

    def _setup(self, context: Context) -> None:
        self._loose: dict[Constraint, str] = {}
        resolved = [
            self._with_margin(test.resolve(context.profile, context.space)) if isinstance(test, Constraint) else test
            for test in self.tests
        ]
        if (
            self.margin
            and not self._loose
            and all(test.profiler.relative_error is None for test in resolved if isinstance(test, Constraint))
        ):
            raise ProfilerError(
                f"{context.stage} has a margin of {self.margin:g} standard deviations, and all its profilers are "
                f"exact: {', '.join(profiler.name for profiler in self.profilers)}; leave the margin out"
            )
        limits = [test for test in resolved if isinstance(test, Constraint)]
        _check_agreement(limits)
        for limit in limits:
            _check_bounds(limit)
        tabled = [limit for limit in limits if by_construction(limit)]
        # Held so that a strategy that draws within the same limits need not count again.
        self._feasible = FeasibleSet.shared(context.space, tabled) if tabled else None
        if self._feasible is not None and not self._feasible.share:
            raise ConstraintError(str(self._feasible.diagnose()))
        causes = _causes([self._loose.get(test, test) if isinstance(test, Constraint) else test for test in resolved])
        self._active = sorted(zip(resolved, causes, strict=True), key=lambda pair: _cost(pair[0]))
        self._attempts = {
            limit.profiler.name: Attempts(context, limit.profiler) for limit in limits if not limit.profiler.pure
        }
        self._turned_away: collections.Counter[str] = collections.Counter()
        self._nearest: _Miss | None = None
        self._worst: Floats = np.full(len(context.objectives), np.nan)
        offers = self.pushdown and self.told is None
        self._honoured = tuple(limit for limit in limits if offers and self.inner.offer(limit))

    def _with_margin(self, limit: Constraint) -> Constraint:
        """Return the limit on values alone that holds with the margin; where there is none, note the limit as loose."""
        if not self.margin or not knows_error(self.context.stage, limit.profiler, self.context):
            return limit
        tight = tightened(limit, self.margin)
        if tight is not None:
            return tight
        self._loose[limit] = with_margin(limit, self.margin)
        return limit

    def _screen(self, candidates: Candidates) -> Verdict:
        n = len(candidates)
        rows = list(range(n))
        away: dict[int, tuple[str, str]] = {}
        failed: dict[int, tuple[str, str]] = {}
        columns: dict[str, Floats] = {}
        for test, cause in self._active:
            if not rows:
                break
            if isinstance(test, Constraint):
                if test.profiler.name in self._attempts:
                    failed.update(self._unmeasurable(self._attempts[test.profiler.name], candidates, rows))
                    rows = [row for row in rows if row not in failed]
                missed = self._beyond(test, cause, candidates, rows, columns)
                for row, miss in missed.items():
                    away[row] = cause, str(miss)
            else:
                for row in self._refused(test, cause, candidates, rows):
                    away[row] = cause, f"{cause} is False"
            rows = [row for row in rows if row not in away] if away else rows
        passes = np.ones(n, dtype=np.bool_)
        if not away and not failed:
            return Verdict(passes, columns=columns)
        passes[[*away, *failed]] = False
        self._fail(candidates, failed)
        causes, reasons = zip(*(away.get(row, ("", "")) for row in range(n)), strict=True)
        self._turned_away.update(cause for cause, _ in away.values())
        score = self._worst if self.told == "bad score" else np.nan if self.told is None else float(self.told)
        held = np.isin(np.arange(n), list(failed))
        return Verdict(passes, causes, reasons, score=score, columns=columns, held=held)

    def _unmeasurable(self, attempts: Attempts, candidates: Candidates, rows: list[int]) -> dict[int, tuple[str, str]]:
        """Measure the rows; return those on which the device fails, with cause and reason."""
        worked = attempts.measurable(candidates[rows])
        without = [row for row, one in zip(rows, worked.tolist(), strict=True) if not one]
        reasons = attempts.reasons(candidates[without])
        return {row: (attempts.cause, reason) for row, reason in zip(without, reasons, strict=True)}

    def _fail(self, candidates: Candidates, failed: Mapping[int, tuple[str, str]]) -> None:
        if failed:
            causes, reasons = zip(*failed.values(), strict=True)
            self._turned_away.update(causes)
            self.turn_away(candidates[list(failed)], Status.FAILED, list(causes), list(reasons))

    def _beyond(
        self, limit: Constraint, cause: str, candidates: Candidates, rows: list[int], columns: dict[str, Floats]
    ) -> dict[int, _Miss]:
        """Return who of the rows is beyond a limit, and how; note the values in the columns."""
        name = limit.profiler.name
        values = columns.get(name)
        if values is None and len(rows) == len(candidates):
            values = columns[name] = profiled(self.context, limit.profiler, candidates)
        elif values is None:
            values = columns[name] = np.full(len(candidates), np.nan)
            values[rows] = profiled(self.context, limit.profiler, candidates[rows])
        low, high = limit.low, limit.high
        listed = values.tolist()
        if limit in self._loose:
            missed = self._beyond_margin(limit, cause, candidates[rows], dict(zip(rows, values[rows], strict=True)))
        else:
            missed = {row: _Miss(limit, listed[row], cause) for row in rows if not low <= listed[row] <= high}
        for miss in missed.values():
            if self._nearest is None or (miss.relative, miss.excess) < (self._nearest.relative, self._nearest.excess):
                self._nearest = miss
        return missed

    def _beyond_margin(
        self, limit: Constraint, cause: str, candidates: Candidates, values: Mapping[int, float]
    ) -> dict[int, _Miss]:
        """Return which values are not within a limit by the margin, and how."""
        slacks = self.margin * std_of(self.context.stage, self.context, limit.profiler, candidates)
        missed: dict[int, _Miss] = {}
        for (row, value), slack in zip(values.items(), slacks.tolist(), strict=True):
            if value + slack > limit.high:
                missed[row] = _Miss(limit, value + slack, cause, self.margin)
            elif value - slack < limit.low:
                missed[row] = _Miss(limit, value - slack, cause, self.margin)
        return missed

    def _refused(self, test: Predicate, cause: str, candidates: Candidates, rows: list[int]) -> list[int]:
        """Return for which of the rows a callable says no."""
        refused = []
        for row in rows:
            one = candidates[row]
            try:
                if isinstance(test, Recorded):
                    answer: Any = float(self.context.apply(test, one)[0])
                else:
                    answer = test(next(iter(one)))
                if hasattr(answer, "item"):
                    answer = answer.item()
                if not isinstance(answer, (bool, int, float)) or answer not in (0, 1):
                    raise TypeError(f"a test must return True or False, got {answer!r}")
            except Exception as error:
                raise ProfilerError(
                    f"the test {cause!r} of {self.context.stage} failed on {next(iter(one))!r}: "
                    f"{type(error).__name__}: {error}"
                ) from error
            if not answer:
                refused.append(row)
        return refused

    def _amend(self, outcomes: Outcomes) -> Outcomes:
        if self.told == "bad score":
            self._worst = np.fmin(self._worst, np.fmin.reduce(outcomes.scores, axis=0))
        return outcomes

    @property
    def message(self) -> str:
        """Why this stage, or one below it, ended the run; that nothing passed, where there is nothing more."""
        nothing = self.inner.exhausted and self._in_a_row and not self.given
        return super().message or (self._out_of_patience() if nothing else "")

    def _out_of_patience(self) -> str:
        total = sum(self._turned_away.values())
        parts = ", ".join(f"{number} by {cause}" for cause, number in self._turned_away.most_common())
        if self._nearest is None:
            remedy = "Check the tests on a few architectures of space.sample(...)"
        else:
            remedy = f"The nearest miss: {self._nearest.describe()}. Loosen that limit"
        longer = "" if self.inner.exhausted else f", or go on for longer with patience=... (now {self.patience})"
        return (
            f"{self.context.stage} turned away {self._in_a_row} candidates in a row, {total} in all: {parts}. "
            f"{remedy}{longer}"
        )


def _flatten(tests: Iterable[object]) -> tuple[Test, ...]:
    flat: list[Test] = []
    for test in tests:
        if isinstance(test, Constraints):
            flat += test.terms
        elif isinstance(test, Constraint) or (callable(test) and not isinstance(test, type)):
            flat.append(test)
        else:
            hint = ""
            if isinstance(test, (bool, np.bool_)):
                hint = "; compare the profiler itself (latency <= 25), not a value of it"
            elif isinstance(test, Profiler):
                hint = f"; write {test.name} <= limit"
            raise TypeError(
                f"Filter takes limits such as macs <= 300e6, or callables of an architecture, got {test!r}{hint}"
            )
    if not flat:
        raise TypeError("Filter needs at least one test: a limit such as macs <= 300e6, or a callable")
    return tuple(flat)


def _told(tell: object) -> Literal["bad score"] | float | None:
    if tell is None:
        return None
    if isinstance(tell, str):
        if tell != "bad score":
            raise ValueError(f"Filter(tell=...) takes None, 'bad score' or a number, got {tell!r}")
        return "bad score"
    return check_number("Filter", "tell", tell)


def _cost(test: Test) -> int:
    """Return the place of a test in the order cheap first."""
    if isinstance(test, Constraint):
        kind = 0 if test.profiler.fixed else KINDS.index(test.profiler.kind)
        return kind if kind < len(KINDS) - 1 else len(KINDS)
    return len(KINDS) if isinstance(test, Recorded) else len(KINDS) - 1


def _causes(tests: Sequence[Test | str]) -> list[str]:
    """Return one short text per test; a second test of one name gets a number."""
    names = [str(test) if isinstance(test, (Constraint, str)) else name_of(test) for test in tests]
    return [
        name if name not in names[:place] else f"{name}#{names[:place].count(name) + 1}"
        for place, name in enumerate(names)
    ]


def _check_agreement(limits: Iterable[Constraint]) -> None:
    """Refuse limits on one profiler that no value can meet."""
    by_name: dict[str, list[Constraint]] = {}
    for limit in limits:
        by_name.setdefault(limit.profiler.name, []).append(limit)
    for name, same in by_name.items():
        lowest = max(same, key=lambda limit: limit.low)
        highest = min(same, key=lambda limit: limit.high)
        if lowest.low > highest.high:
            raise ConstraintError(
                f"no value of {name!r} meets both {str(lowest)!r} and {str(highest)!r}; "
                "these limits contradict each other"
            )


def _check_bounds(limit: Constraint) -> None:
    """Refuse a limit that nothing in the space meets."""
    bounds = limit.profiler.bounds()
    if bounds is None:
        return
    if bounds.low > limit.high:
        word, value, architecture = "least", bounds.low, bounds.low_architecture
    elif bounds.high < limit.low:
        word, value, architecture = "greatest", bounds.high, bounds.high_architecture
    else:
        return
    unit = f" {limit.profiler.unit}" if limit.profiler.unit else ""
    raise ConstraintError(
        f"nothing in the space meets {str(limit)!r}: the {word} {limit.profiler.name} is {value:.6g}{unit}, "
        f"of {dict(architecture)!r}; choose a limit on the other side of it"
    )
