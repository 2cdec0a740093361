"""Verify: a candidate that may or may not keep a limit, as far as its predicted value says, is measured."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from nasmw.candidates import Candidates, Floats, Status
from nasmw.constraint import Constraint, Constraints, exactly
from nasmw.context import Context
from nasmw.errors import ConstraintError, ProfilerError
from nasmw.middleware.attempts import Attempts
from nasmw.middleware.margins import knows_error, std_of
from nasmw.middleware.values import check_count, check_number, check_profiler, profiled
from nasmw.profiler import Profiler
from nasmw.strategy import Middleware, Verdict

__all__ = ["Verify"]


class Verify(Middleware):
    """Measures candidates whose predicted value is too near to a limit to tell, and passes those that keep it.

    A profiler that states its error gives an interval: its value, plus and minus some standard deviations. A candidate
    whose interval is within the limit passes, and one whose interval is beyond it is turned away, unmeasured both. One
    whose interval straddles the limit is measured; what was measured decides. Measured values ride along as a column
    under the name of the measuring profiler, NaN for those that were not measured, and are written to the log.

    A candidate that cannot be built, or on which the device fails, is turned away as failed, and the search goes on;
    five of them in a row end it with the device's error.

    Where few candidates are to be measured, put a `Verify` outside of what is cheap and choosy: in
    ``Chain(Evolution(...), Filter(latency <= 25.0), Rank(score, groups_of=10), Verify(latency <= 25.0, measured))``
    at most every tenth candidate is measured.

    Args:
        limit: The limit, on a profiler that predicts and states its error; one number or both, joined by ``&``.
        measured: The profiler that measures the same metric. Its name is another one.
        margin: Half the width of the interval, in standard deviations.
        guard: By how many standard deviations of the measurement, where it states any, what was measured keeps the
            limit. A search picks what is just within its limit, and of such networks half are beyond it when they are
            measured again.
        at_most: The greatest share of the candidates seen so far that may be measured. One that would have to be
            measured beyond it is turned away as skipped. None for any number.
        patience: How many candidates in a row may be turned away before the run ends with a message.
        pushdown: Whether it is offered to the stages below that no interval lies beyond the limit, where the error is a
            fixed share of the value.

    Raises:
        TypeError: If `limit` is no limit, or `measured` no profiler.
        ValueError: If a number is out of range.
        ProfilerError: If both profilers have one name, or different units; at setup, if the first one states no
            error.
        DeviceError: During a run, if the device fails on five candidates in a row.

    Example:
        >>> from nasmw.testing import TableProfiler, toy_space
        >>> predicted, measured = TableProfiler(toy_space(), std=2.0), TableProfiler(toy_space(), "measured")
        >>> Verify(predicted <= 50, measured)
        Verify(limit=[<Constraint cost <= 50>], measured=<TableProfiler 'measured'>, margin=2.0, guard=0.0,
               at_most=None, patience=10000, pushdown=True)
    """

    def __init__(
        self,
        limit: Constraint | Constraints,
        measured: Profiler,
        *,
        margin: float = 2.0,
        guard: float = 0.0,
        at_most: float | None = None,
        patience: int = 10_000,
        pushdown: bool = True,
    ) -> None:
        if not isinstance(limit, (Constraint, Constraints)):
            raise TypeError(f"Verify takes a limit such as latency <= 25.0 first, got {limit!r}")
        self.limit = tuple(limit) if isinstance(limit, Constraints) else (limit,)
        self.measured = check_profiler("Verify", measured)
        self.margin = check_number("Verify", "margin", margin)
        if self.margin <= 0:
            raise ValueError(f"Verify(margin=...) takes a positive number of standard deviations, got {margin!r}")
        self.guard = check_number("Verify", "guard", guard)
        if self.guard < 0:
            raise ValueError(f"Verify(guard=...) takes at least 0 standard deviations, got {guard!r}")
        self.at_most = None if at_most is None else check_number("Verify", "at_most", at_most)
        if self.at_most is not None and not 0 < self.at_most <= 1:
            raise ValueError(f"Verify(at_most=...) takes a share above 0 and up to 1, got {at_most!r}")
        self.patience = check_count("Verify", "patience", patience)
        if not isinstance(pushdown, bool):
            raise TypeError(f"Verify(pushdown=...) takes True or False, got {pushdown!r}")
        self.pushdown = pushdown
        named = {part.profiler.name for part in self.limit}
        if len({id(part.profiler) for part in self.limit}) > 1:
            raise ProfilerError(f"Verify checks limits on one profiler, got {sorted(named)}; write one Verify for each")
        if self.measured.name in named:
            raise ProfilerError(
                f"what is predicted and what is measured are both named {self.measured.name!r}; give one of the "
                "profilers another name, as in DeviceProfiler(..., name='measured_ms')"
            )
        units = (self.predicted.unit, self.measured.unit)
        if all(units) and len(set(units)) > 1:
            raise ProfilerError(
                f"what is predicted is in {units[0]!r}, and what is measured in {units[1]!r}; "
                "both are to keep one limit"
            )

    @property
    def predicted(self) -> Profiler:
        """The profiler that predicts."""
        return self.limit[0].profiler

    @property
    def profilers(self) -> tuple[Profiler, ...]:
        """The profiler that predicts and the one that measures."""
        return (self.predicted, self.measured)

    @property
    def measurements(self) -> int:
        """How many candidates of this run had to be measured."""
        self.context  # noqa: B018  raises before setup
        return self._measurements

    def _setup(self, context: Context) -> None:
        resolved = [part.resolve(context.profile, context.space) for part in self.limit]
        self._low = max(part.low for part in resolved)
        self._high = min(part.high for part in resolved)
        if self._low > self._high:
            raise ConstraintError(f"no value of {self.predicted.name!r} meets all of {list(map(str, resolved))}")
        if not knows_error(context.stage, self.predicted, context):
            raise ProfilerError(
                f"{context.stage} measures what {self.predicted!r} is not sure of, and its values are exact; a Filter "
                "does here"
            )
        self._seen = 0
        self._measurements = 0
        self._attempts = Attempts(context, self.measured)
        if self.pushdown and (wide := self._wide()) is not None:
            self.inner.offer(wide)

    def _wide(self) -> Constraint | None:
        """Return the limit on predicted values beyond which no interval reaches the limit."""
        share = self.predicted.relative_error
        if share is None or self.margin * share >= 1.0:
            return None
        low, high = self._low, self._high
        low = low / (1.0 + self.margin * share) if low > 0 else -math.inf
        high = high / (1.0 - self.margin * share) if high > 0 else math.inf
        if math.isinf(low) and math.isinf(high):
            return None
        return Constraint(self.predicted, low, high)

    def _screen(self, candidates: Candidates) -> Verdict:
        context = self.context
        values = profiled(context, self.predicted, candidates)
        slack = self.margin * std_of(context.stage, context, self.predicted, candidates)
        within = (values - slack >= self._low) & (values + slack <= self._high)
        beyond = (values - slack > self._high) | (values + slack < self._low)
        causes, reasons = [""] * len(candidates), [""] * len(candidates)
        for row in np.flatnonzero(beyond).tolist():
            causes[row] = f"{self.predicted.name} beyond {self._text} by {self.margin:g} std"
            reasons[row] = f"{self.predicted.name} = {values[row]:.6g} +- {slack[row]:.3g}, the limit is {self._text}"
        passes, found = within, np.full(len(candidates), np.nan)
        unmeasured, failed = np.zeros((2, len(candidates)), dtype=np.bool_)
        for row in range(len(candidates)):
            self._seen += 1
            if within[row] or beyond[row]:
                continue
            if not self._affordable():
                unmeasured[row] = True
                continue
            self._measurements += 1
            if not self._attempts.measurable(candidates[row])[0]:
                failed[row] = True
                continue
            found[row] = value = profiled(context, self.measured, candidates[row])[0]
            slack_of_it = self._slack_of_measuring(candidates[row])
            passes[row] = self._low <= value - slack_of_it and value + slack_of_it <= self._high
            causes[row] = f"{self.measured.name} beyond {self._text}"
            by = f" +- {slack_of_it:.3g}" if slack_of_it else ""
            reasons[row] = f"{self.measured.name} = {value:.6g}{by}, the limit is {self._text}"
        columns = {self.predicted.name: values}
        if not np.isnan(found).all() or self.measured.name in candidates.columns:
            columns[self.measured.name] = _filled(found, candidates.columns.get(self.measured.name))
        self._skip(candidates, values, slack, unmeasured)
        self._fail(candidates[failed])
        return Verdict(passes, causes, reasons, columns=columns, held=unmeasured | failed)

    @property
    def _text(self) -> str:
        return " and ".join(
            f"{sign} {exactly(number)}"
            for sign, number in ((">=", self._low), ("<=", self._high))
            if math.isfinite(number)
        )

    def _slack_of_measuring(self, candidate: Candidates) -> float:
        if not self.guard:
            return 0.0
        return self.guard * float(std_of(self.context.stage, self.context, self.measured, candidate)[0])

    def _fail(self, candidates: Candidates) -> None:
        """Turn away those on which the device failed."""
        if len(candidates):
            causes = [self._attempts.cause] * len(candidates)
            self.turn_away(candidates, Status.FAILED, causes, self._attempts.reasons(candidates))

    def _affordable(self) -> bool:
        return self.at_most is None or self._measurements + 1 <= self.at_most * self._seen

    def _skip(self, candidates: Candidates, values: Floats, slack: Floats, rows: npt.NDArray[np.bool_]) -> None:
        """Turn away those that would have to be measured and may not."""
        if not rows.any():
            return
        reasons = [
            f"{self.predicted.name} = {values[row]:.6g} +- {slack[row]:.3g} may be beyond {self._text}; "
            f"{self._measurements} of {self._seen} are measured already"
            for row in np.flatnonzero(rows).tolist()
        ]
        share = f"{100 * (self.at_most or 0):.3g} %"
        self.turn_away(candidates[rows], Status.SKIPPED, [f"not measured: at most {share} are"] * len(reasons), reasons)

    def _out_of_patience(self) -> str:
        return (
            f"{self.context.stage} turned away {self._in_a_row} candidates in a row: of {self._seen} it measured "
            f"{self._measurements}, against {self.predicted.name} {self._text}. Loosen the limit, allow more "
            "measurements with at_most=..., or put a Filter with the same limit before it"
        )


def _filled(found: Floats, riding: Floats | None) -> Floats:
    return found if riding is None else np.where(np.isnan(found), riding, found)
