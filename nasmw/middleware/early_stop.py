"""EarlyStop: trials that fall behind end themselves."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

import numpy as np

from nasmw.candidates import STOP_ABOVE, STOP_BELOW, Candidates, Outcomes, Status
from nasmw.context import Context
from nasmw.middleware.values import check_count
from nasmw.strategy import Middleware, Verdict

__all__ = ["EarlyStop"]


class EarlyStop(Middleware):
    """Stops a trial at a step where its best value so far is worse than the median of others up to that step.

    An evaluation takes part by calling ``trial.report(step, value)`` with the objective's metric so far. The others
    are the completed trials that the stage was told of before the trial was asked for; of each, the mean of its values
    up to the step counts. Their medians ride along with the candidate to its worker, where ``trial.report`` ends the
    trial, so that results depend neither on the number of workers nor on who finishes first. A trial that was stopped
    has the status ``"stopped"``, and its last value is the score that the strategy is told.

    Args:
        min_trials: How many completed trials must have reported up to a step before one is stopped there.
        min_step: The first step at which a trial may be stopped.
        steps: The steps at which trials may be stopped; all that were reported by default.
        objective: The name of the objective that is reported; needed where there are several.

    Raises:
        TypeError: If a number is no integer.
        ValueError: If `min_trials` is below 1; at setup, if the objective is missing or unknown.

    References:
        Golovin et al., Google Vizier: A Service for Black-Box Optimization, KDD 2017, section 3.2.2, the median
        stopping rule. `min_trials`, `min_step` and `steps` are additions.

    Example:
        >>> EarlyStop(min_step=3)
        EarlyStop(min_trials=5, min_step=3, steps=None, objective=None)
    """

    def __init__(
        self,
        min_trials: int = 5,
        min_step: int = 0,
        steps: Sequence[int] | None = None,
        objective: str | None = None,
    ) -> None:
        self.min_trials = check_count("EarlyStop", "min_trials", min_trials)
        self.min_step = _step("min_step", min_step)
        self.steps = None if steps is None else sorted({_step("steps", step) for step in steps})
        self.objective = objective

    def _setup(self, context: Context) -> None:
        names = [objective.name for objective in context.objectives]
        if self.objective is None and len(names) > 1:
            raise ValueError(f"EarlyStop needs objective=..., the name of the one of {names} that trials report")
        if self.objective is not None and self.objective not in names:
            raise ValueError(f"EarlyStop(objective={self.objective!r}): the objectives here are {names}")
        minimized = context.objectives[0 if self.objective is None else names.index(self.objective)].minimized
        self._prefix = STOP_ABOVE if minimized else STOP_BELOW
        self._means: dict[int, list[float]] = {}

    def _screen(self, candidates: Candidates) -> Verdict:
        n = len(candidates)
        columns = {
            f"{self._prefix}{step}": np.full(n, statistics.median(means))
            for step, means in sorted(self._means.items())
            if len(means) >= self.min_trials
        }
        return Verdict(np.ones(n, dtype=np.bool_), columns=columns)

    def _amend(self, outcomes: Outcomes) -> Outcomes:
        for status, reports in zip(outcomes.status, outcomes.reports, strict=True):
            if status is Status.COMPLETED:
                self._note(reports)
        return outcomes

    def _note(self, reports: Sequence[tuple[int, float]]) -> None:
        """Keep the mean of a trial's values up to each of its steps."""
        total, number = 0.0, 0
        for step, value in reports:
            if math.isfinite(value):
                total, number = total + value, number + 1
            if number and step >= self.min_step and (self.steps is None or step in self.steps):
                self._means.setdefault(step, []).append(total / number)


def _step(name: str, value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise TypeError(f"EarlyStop({name}=...) takes steps, which are integers, got {value!r}")
    return int(value)
