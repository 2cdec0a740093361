"""What strategies that evaluate architectures at rising budgets have in common."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable

import attrs
import numpy as np

from nasmw.candidates import BUDGET, RESUME_FROM, TRIAL, Candidates, Codes, Outcomes, Status
from nasmw.context import Context
from nasmw.strategies.arguments import one_objective, positive, rising
from nasmw.strategies.pool import Pooled
from nasmw.strategy import batch_of_none

__all__ = ["Job", "Multifidelity", "reduction", "rungs"]

TURNED_AWAY = (Status.INFEASIBLE, Status.DUPLICATE, Status.SKIPPED)


def rungs(least: float, most: float, eta: float = 3.0) -> tuple[float, ...]:
    """Return budgets from `least` to `most`, each at most `eta` times the one before, the greatest first divided down.

    Raises:
        TypeError: If an argument is no number.
        ValueError: If one is out of range.

    Example:
        >>> rungs(1, 81)
        (1, 3, 9, 27, 81)
        >>> rungs(5, 100, eta=4)
        (6.25, 25, 100)
    """
    least, most = positive("rungs", "least", least), positive("rungs", "most", most)
    eta = reduction("rungs", eta)
    budgets = [most]
    while budgets[0] / eta >= least * (1.0 - 1e-9):
        budgets.insert(0, budgets[0] / eta)
    if least > most:
        raise ValueError(f"rungs: least is at most the greatest budget {most:g}, got {least:g}")
    # A quotient that was meant to be whole is so.
    return rising("rungs", "budgets", [round(b) if abs(b - round(b)) < 1e-9 * b else b for b in budgets])


def reduction(stage: str, eta: object) -> float:
    """Return by what number architectures become fewer from budget to budget, above 1.

    Raises:
        TypeError: If it is no number.
        ValueError: If it is not above 1.
    """
    number = positive(stage, "eta", eta)
    if number <= 1.0:
        raise ValueError(f"{stage}: eta is above 1, got {eta!r}")
    return number


@attrs.define(eq=False)
class Job:
    """One evaluation of an architecture at one budget.

    Attributes:
        row: ``(1, d)`` the codes.
        rung: The number of the budget.
        number: Its place among all evaluations; decides between equal scores.
        resume_from: The trial of the budget before; NaN for none.
        group: What the evaluation belongs to.
    """

    row: Codes
    rung: int
    number: int
    resume_from: float = float("nan")
    group: object = None


class Multifidelity(Pooled):
    """Asks for evaluations with a budget; the base of strategies that do so.

    A candidate carries its budget in the column ``"budget"`` and, where the architecture was evaluated with the next
    smaller one, the number of that trial in ``"resume_from"``. A subclass says what comes next, and takes results.

    Args:
        budgets: The budgets, rising.
        eta: Of how many architectures one goes on to the next budget.
    """

    def __init__(self, budgets: Iterable[float], eta: float) -> None:
        name = type(self).__name__
        self.budgets = rising(name, "budgets", budgets)
        self.eta = reduction(name, eta)

    def _setup(self, context: Context) -> None:
        one_objective(type(self).__name__, context)
        super()._setup(context)
        self._open: dict[tuple[bytes, float], Job] = {}
        self._asked = 0

    @abstractmethod
    def _next(self) -> Job | None:
        """Return the next evaluation; None where there is none before more is told, or at all."""

    @abstractmethod
    def _result(self, job: Job, score: float, trial: float, *, tried: bool) -> None:
        """Take note of a result.

        Args:
            job: What was asked for.
            score: Its score; NaN where it has none.
            trial: The number of the trial; NaN where that is not known.
            tried: Whether it was evaluated, or turned away before.
        """

    def _fresh(self, group: object = None) -> Job | None:
        """Return the evaluation of a new random architecture at the first budget; None where none is left."""
        row = self._pool.random()
        return None if row is None else self._job(row, 0, group=group)

    def _job(self, row: Codes, rung: int, resume_from: float = float("nan"), group: object = None) -> Job:
        self._asked += 1
        self._pool.note(row)
        return Job(row, rung, self._asked, resume_from, group)

    def _ask(self, n: int) -> Candidates:
        jobs: list[Job] = []
        while len(jobs) < n and (job := self._next()) is not None:
            self._open[job.row.tobytes(), self.budgets[job.rung]] = job
            jobs.append(job)
        space = self.context.space
        if not jobs:
            return batch_of_none(space)
        columns = {BUDGET: [float(self.budgets[job.rung]) for job in jobs]}
        origins = [job.resume_from for job in jobs]
        if any(origin == origin for origin in origins):
            columns[RESUME_FROM] = origins
        return Candidates.of(space, np.concatenate([job.row for job in jobs]), columns)

    def _tell(self, outcomes: Outcomes) -> None:
        budgets = outcomes.candidates.columns[BUDGET].tolist()
        trials = self._trials(outcomes)
        for place, score in enumerate(outcomes.scores[:, 0].tolist()):
            job = self._open.pop((outcomes.codes[place].tobytes(), budgets[place]))
            tried = score == score or outcomes.status[place] not in TURNED_AWAY
            self._result(job, score, trials[place], tried=tried)

    def _trials(self, outcomes: Outcomes) -> list[float]:
        trials = outcomes.candidates.columns.get(TRIAL)
        return [float("nan")] * len(outcomes) if trials is None else trials.tolist()

    def _adopt(self, outcomes: Outcomes) -> None:
        self._pool.note(outcomes.codes)
