"""Repeat: one candidate, several trials, one score."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Literal

import attrs
import numpy as np
import numpy.typing as npt

from nasmw.candidates import Candidates, Floats, Outcomes, Status
from nasmw.context import Context
from nasmw.middleware.reissue import TURNED_AWAY, Reissued, under_id
from nasmw.middleware.values import TRIED, check_count
from nasmw.strategy import Middleware, batch_of_none

__all__ = ["Repeat"]


@attrs.define(eq=False)
class _Group:
    """A candidate of the inner strategy, and what came of its trials so far."""

    candidate: Candidates
    number: int
    outcomes: list[Outcomes] = attrs.field(factory=list)


class Repeat(Middleware):
    """Has each candidate evaluated several times; the strategy below is told one outcome of them all.

    Each evaluation is a trial of its own, with a seed of its own, and stands in the log. The strategy is told once all
    of them have come back: the mean or the median of the scores and of the metrics of those that have a score. If none
    has, it is told what came of the last that was tried. The spread, the sample standard deviation of each objective's
    scores, goes to the log as a recorded value named ``<objective>_spread``, which `Result.values` reads; where one
    trial alone has a score there is none.

    Stages above see each evaluation as another candidate, so `Deduplicate` belongs below this stage.

    Args:
        times: How many evaluations, at least 2.
        by: ``"mean"`` or ``"median"``.

    Raises:
        TypeError: If `times` is no integer.
        ValueError: If `times` is below 2, or `by` is neither.

    Example:
        >>> Repeat(3, by="median")
        Repeat(times=3, by='median')
    """

    def __init__(self, times: int = 3, by: Literal["mean", "median"] = "mean") -> None:
        self.times = check_count("Repeat", "times", times)
        if times < 2:
            raise ValueError(f"Repeat(times=...) takes an integer of at least 2, got {times}")
        if by not in ("mean", "median"):
            raise ValueError(f"Repeat(by=...) takes 'mean' or 'median', got {by!r}")
        self.by = by

    @property
    def exhausted(self) -> bool:
        """Whether no evaluation waits to be asked for, and the inner strategy is exhausted."""
        return not self._waiting and super().exhausted

    def _setup(self, context: Context) -> None:
        self._waiting: deque[_Group] = deque()
        self._tried: Reissued[_Group] = Reissued()
        self._groups = 0

    def _ask(self, n: int) -> Candidates:
        missing = n - len(self._waiting)
        if missing > 0:
            batch = self.inner.ask(-(-missing // self.times))
            for row in range(len(batch)):
                self._waiting.extend([_Group(batch[row], self._groups)] * self.times)
                self._groups += 1
        groups = [self._waiting.popleft() for _ in range(min(n, len(self._waiting)))]
        if not groups:
            return batch_of_none(self.context.space)
        return self._tried.issue([(group.candidate, group) for group in groups])

    def _tell(self, outcomes: Outcomes) -> None:
        complete = []
        for row, number in enumerate(outcomes.ids.tolist()):
            group = self._tried.take(number)
            group.outcomes.append(outcomes[row])
            if len(group.outcomes) == self.times:
                complete.append(self._together(group))
        if complete:
            self.tell_inner(Outcomes.join(complete))

    def _together(self, group: _Group) -> Outcomes:
        """Return one outcome of all evaluations of a candidate."""
        scored = [
            outcome for outcome in group.outcomes if outcome.status[0] in TRIED and not np.isnan(outcome.scores).all()
        ]
        tried = [outcome for outcome in group.outcomes if outcome.status[0] not in TURNED_AWAY]
        last = (scored or tried or group.outcomes)[-1]
        if not scored:
            return under_id(last, group.candidate)
        scores = np.concatenate([outcome.scores for outcome in scored])
        self._record(group, scores)
        names = dict.fromkeys(name for outcome in scored for name in outcome.metrics)
        metrics = {
            name: self._middle(np.array([[outcome.metrics[name][0]] for outcome in scored if name in outcome.metrics]))
            for name in names
        }
        completed = any(outcome.status[0] is Status.COMPLETED for outcome in scored)
        return Outcomes(
            last.candidates.with_ids(group.candidate.ids),
            (Status.COMPLETED if completed else last.status[0],),
            self._middle(scores)[None],
            metrics,
            (f"the {self.by} of {len(scored)} evaluations",),
        )

    def _middle(self, values: npt.NDArray[np.float64]) -> Floats:
        """Return the mean or median over the rows; NaN where a column has a NaN."""
        middle: Floats = np.median(values, axis=0) if self.by == "median" else values.mean(axis=0)
        return middle

    def _record(self, group: _Group, scores: Floats) -> None:
        if len(scores) < 2:
            return
        spreads = scores.std(axis=0, ddof=1).tolist()
        for objective, spread in zip(self.context.objectives, spreads, strict=True):
            if np.isfinite(spread):
                name = f"{objective.name}_spread"
                self.context.recorded(name, group.candidate, _always(spread))


def _always(value: float) -> Callable[[Candidates], Floats]:
    return lambda _: np.array([value])
