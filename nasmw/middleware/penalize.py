"""Penalize: the strategy is told a score that pays for a cost."""

from __future__ import annotations

import math
from typing import get_args

from nasmw.candidates import Outcomes
from nasmw.context import Context
from nasmw.errors import did_you_mean
from nasmw.middleware.values import TRIED, check_number, check_profiler, profiled
from nasmw.penalty import Form, Penalty
from nasmw.profiler import Profiler
from nasmw.strategy import Middleware

__all__ = ["Penalize"]


class Penalize(Middleware):
    """Tells the strategy a score that pays for a cost; it turns nothing away and changes no metric.

    With a score s, a value v of the profiler, a target t and a weight w, the strategy is told

    - ``"absolute"``: s - w |v/t - 1|, which pulls towards the target from both sides;
    - ``"hinge"``: s - w max(0, v/t - 1), which costs nothing below the target;
    - ``"power"``: s (v/t)^-w, which rewards values below the target too.

    Scores of trials are penalised (completed, stopped, or known from before); where there is no score, there is none
    afterwards. A score that a stage above tells of a candidate it turned away is passed on as it is.

    At its setup the penalty is offered to the stages below: a strategy that trains a supernet makes it a term of its
    loss, where scores come too late to teach it.

    Args:
        profiler: The cost. The value that rides along with a candidate is used, else the profiler is asked.
        target: The target of the cost, above 0, in the profiler's unit.
        weight: How much a cost of twice the target costs, at least 0; the minus sign of the papers is in the formulas.
        form: One of the three forms.
        objective: The name of the objective whose score is penalised; needed where there are several.

    Raises:
        TypeError: If `profiler` is no Profiler, or a number is none.
        ValueError: If a number or the form is out of range; at setup, if the objective is missing or unknown, or the
            power form meets an objective that is minimised.
        EvaluationError: During a run, if the power form meets a score below 0.

    References:
        absolute: Bender et al., Can Weight Sharing Outperform Random Architecture Search? An Investigation With
        TuNAS, CVPR 2020, the absolute reward function with beta = -`weight`.
        power: Tan et al., MnasNet: Platform-Aware Neural Architecture Search for Mobile, CVPR 2019, equation 2 with
        alpha = beta = -`weight`.

    Example:
        >>> from nasmw.testing import TableProfiler, toy_space
        >>> Penalize(TableProfiler(toy_space()), target=20).penalised(0.9, 30.0)
        0.865
    """

    def __init__(
        self,
        profiler: Profiler,
        target: float,
        weight: float = 0.07,
        form: Form = "absolute",
        objective: str | None = None,
    ) -> None:
        self.profiler = check_profiler("Penalize", profiler)
        self.target = check_number("Penalize", "target", target)
        self.weight = check_number("Penalize", "weight", weight)
        if self.target <= 0:
            raise ValueError(f"Penalize(target=...) takes a number above 0, got {target}")
        if self.weight < 0:
            raise ValueError(
                f"Penalize(weight=...) takes a number of at least 0, got {weight}; the formulas have the minus sign"
            )
        if form not in get_args(Form):
            raise ValueError(f"Penalize(form=...) takes one of {get_args(Form)}, got {form!r}")
        self.form = form
        if objective is not None and not isinstance(objective, str):
            raise TypeError(f"Penalize(objective=...) takes the name of an objective, got {objective!r}")
        self.objective = objective

    @property
    def profilers(self) -> tuple[Profiler, ...]:
        """The profiler whose values are paid for."""
        return (self.profiler,)

    def penalised(self, score: float, value: float) -> float:
        """Return what the strategy is told for a score and a value of the profiler."""
        return self._penalty.score(score, value)

    @property
    def _penalty(self) -> Penalty:
        return Penalty(self.profiler, self.target, self.weight, self.form)

    def _setup(self, context: Context) -> None:
        names = [objective.name for objective in context.objectives]
        if self.objective is None and len(names) > 1:
            raise ValueError(f"Penalize needs objective=..., the name of one of the objectives {names}")
        if self.objective is not None and self.objective not in names:
            raise ValueError(
                f"there is no objective {self.objective!r} to penalise{did_you_mean(self.objective, names)}"
            )
        self._column = 0 if self.objective is None else names.index(self.objective)
        if self.form == "power" and context.objectives[self._column].minimized:
            raise ValueError(
                f"the power form of Penalize cannot penalise {names[self._column]!r}, which is minimised, so that its "
                "scores are negative; use form='absolute' or form='hinge'"
            )
        self.inner.offer(self._penalty)

    def _amend(self, outcomes: Outcomes) -> Outcomes:
        scores = outcomes.scores[:, self._column].tolist()
        rows = [row for row, status in enumerate(outcomes.status) if status in TRIED and not math.isnan(scores[row])]
        if not rows:
            return outcomes
        candidates = outcomes.candidates
        values = profiled(self.context, self.profiler, candidates if len(rows) == len(scores) else candidates[rows])
        told = outcomes.scores.copy()
        for row, value in zip(rows, values.tolist(), strict=True):
            told[row, self._column] = self.penalised(scores[row], value)
        return outcomes.evolve(scores=told)
