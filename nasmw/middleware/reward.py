"""Reward: the strategy is told one score, computed from any metrics."""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable

import attrs
import numpy as np

from nasmw.candidates import Outcomes
from nasmw.context import Context
from nasmw.errors import EvaluationError
from nasmw.middleware.values import TRIED, check_profiler, name_of, profiled
from nasmw.objective import Objective
from nasmw.profiler import Profiler, check_names
from nasmw.strategy import Middleware

__all__ = ["Reward"]

Combine = Callable[[dict[str, float]], float]


class Reward(Middleware):
    """Tells the strategy one score computed from the metrics of a trial; it turns nothing away and changes no metric.

    The stages below see one objective, ``"reward"``, which is maximised, whatever the objectives of the search are.
    Only an outcome that has a score gets one (completed, stopped, or known from before). A trial that was stopped has
    no metric of the objective; what it reported last stands for it.

    Args:
        combine: Takes the metrics of a trial by name, as the evaluation returned them, and the values of the
            profilers by theirs; returns a finite number. It must be a pure function.
        *profilers: The profilers whose values `combine` reads.

    Raises:
        TypeError: If `combine` is not callable, or one of the others no Profiler.
        ProfilerError: If two profilers have one name.
        EvaluationError: During a run, if `combine` raises or gives anything but a finite number.

    Example:
        >>> from nasmw.testing import TableProfiler, toy_space
        >>> def reward(metrics):
        ...     return metrics["accuracy"] - 0.01 * metrics["cost"]
        >>> Reward(reward, TableProfiler(toy_space()))
        Reward(combine=reward, reads=[<TableProfiler 'cost'>])
    """

    def __init__(self, combine: Combine, *profilers: Profiler) -> None:
        if not callable(combine):
            raise TypeError(f"Reward takes a function of a dict of metrics first, got {combine!r}")
        self.combine = combine
        self.reads = tuple(check_profiler("Reward", profiler) for profiler in profilers)
        check_names(self.reads)

    @property
    def profilers(self) -> tuple[Profiler, ...]:
        """The profilers whose values `combine` reads."""
        return self.reads

    def inner_context(self, context: Context) -> Context:
        """Return the context with the one objective ``"reward"``."""
        return attrs.evolve(context, objectives=(Objective("reward"),))

    def _amend(self, outcomes: Outcomes) -> Outcomes:
        scores = outcomes.scores.tolist()
        rows = [
            row
            for row, status in enumerate(outcomes.status)
            if status in TRIED and not all(math.isnan(score) for score in scores[row])
        ]
        told = np.full((len(outcomes), 1), np.nan)
        if rows:
            candidates = outcomes.candidates if len(rows) == len(outcomes) else outcomes.candidates[rows]
            values = {profiler.name: profiled(self.context, profiler, candidates).tolist() for profiler in self.reads}
            for place, row in enumerate(rows):
                metrics = {
                    name: value
                    for name, column in outcomes.metrics.items()
                    if not math.isnan(value := float(column[row]))
                }
                metrics.update({name: column[place] for name, column in values.items()})
                for objective, score in zip(self.context.objectives, scores[row], strict=True):
                    # A trial that was stopped has no metric, but a score: of what it reported last.
                    if not math.isnan(score):
                        metrics.setdefault(objective.name, objective.score(score))
                told[row, 0] = self._reward(metrics)
        return outcomes.evolve(scores=told)

    def _reward(self, metrics: dict[str, float]) -> float:
        name = name_of(self.combine)
        try:
            reward: object = self.combine(dict(metrics))
        except Exception as error:
            raise EvaluationError(
                f"the function {name!r} of Reward raised {type(error).__name__}: {error}, given {metrics}"
            ) from error
        if callable(item := getattr(reward, "item", None)):
            reward = item()
        if isinstance(reward, bool) or not isinstance(reward, numbers.Real) or not math.isfinite(reward):
            raise EvaluationError(
                f"the function {name!r} of Reward must return a finite number, got {reward!r}, given {metrics}"
            )
        return float(reward)
