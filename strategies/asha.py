"""ASHA: successive halving in which nobody waits."""

from __future__ import annotations

import bisect
import heapq
import math
from collections.abc import Iterable

from nasmw.candidates import BUDGET, Codes, Outcomes
from nasmw.context import Context
from nasmw.strategies.halving import BUDGETS
from nasmw.strategies.rungs import Job, Multifidelity

__all__ = ["ASHA"]


class _Rung:
    """The results with one budget, and which of them went on to the next."""

    def __init__(self, eta: float) -> None:
        self._eta = eta
        self._number = 0
        self._waiting: list[tuple[float, int, Codes, float]] = []
        self._promoted: list[tuple[float, int]] = []
        self._gone: set[bytes] = set()

    def add(self, row: Codes, score: float, number: int, trial: float) -> None:
        """Add a result; without a score it counts, and never goes on."""
        self._number += 1
        if score == score:
            heapq.heappush(self._waiting, (-score, number, row, trial))

    def leave(self, row: Codes) -> None:
        """Take note that an architecture went on, whoever decided that."""
        self._gone.add(row.tobytes())

    @property
    def ready(self) -> bool:
        """Whether the best that waits is among the best of each `eta`."""
        waiting = self._waiting
        while waiting and waiting[0][2].tobytes() in self._gone:
            bisect.insort(self._promoted, heapq.heappop(waiting)[:2])
        if not waiting:
            return False
        # All that are better than the best that waits have gone on.
        return bisect.bisect(self._promoted, waiting[0][:2]) < math.floor(self._number / self._eta + 1e-9)

    def pop(self) -> tuple[Codes, float]:
        """Return the codes and the trial of the best that waits, which goes on."""
        score, number, row, trial = heapq.heappop(self._waiting)
        bisect.insort(self._promoted, (score, number))
        return row, trial


class ASHA(Multifidelity):
    """Asynchronous successive halving: an architecture goes on as soon as it is among the best of each `eta`.

    Whenever a candidate is asked for: of the greatest budget at which an architecture is among the best
    ``1 / eta`` of those told so far and did not go on yet, that one goes on to the next budget. Where there is none, a
    new random architecture begins at the least budget. Once nothing new is left and nobody can go on, the strategy is
    exhausted.

    Args:
        budgets: What trials may spend, rising (`rungs` makes such a row); `Trial.budget` is the one of a trial.
        eta: Of how many architectures one goes on to the next budget.

    An architecture that was turned away before its trial does not count. Limits on profilers with a table that are
    offered to it are met by construction.

    Raises:
        TypeError: If an argument is of the wrong kind.
        ValueError: If budgets do not rise, or `eta` is not above 1; at `setup` if there are several objectives.

    Reference: Li, Jamieson, Rostamizadeh, Gonina, Ben-tzur, Hardt, Recht, Talwalkar, A System for Massively Parallel
    Hyperparameter Tuning, MLSys 2020, algorithm 2, with an early-stopping rate of 0 (leave the least budgets out for a
    greater one). Deviations: budgets are given, and need not be powers of `eta`; architectures are drawn without
    replacement; trials of an earlier run count where their budgets are among these.

    Example:
        >>> from nasmw.strategies import ASHA
        >>> ASHA(budgets=(1, 4, 16), eta=4)
        ASHA(budgets=[1, 4, 16], eta=4.0)
    """

    def __init__(self, budgets: Iterable[float] = BUDGETS, eta: float = 3.0) -> None:
        super().__init__(budgets, eta)

    def _setup(self, context: Context) -> None:
        super()._setup(context)
        self._rungs = [_Rung(self.eta) for _ in self.budgets[:-1]]

    @property
    def exhausted(self) -> bool:
        """Whether nothing new is left, nothing is open, and nobody can go on."""
        self.context  # noqa: B018  raises before setup
        return self._pool.exhausted and not self._open and not any(rung.ready for rung in self._rungs)

    def _next(self) -> Job | None:
        for number in range(len(self._rungs) - 1, -1, -1):
            if self._rungs[number].ready:
                row, trial = self._rungs[number].pop()
                return self._job(row, number + 1, trial)
        return self._fresh()

    def _result(self, job: Job, score: float, trial: float, *, tried: bool) -> None:
        if tried and job.rung < len(self._rungs):
            self._rungs[job.rung].add(job.row, score, job.number, trial)

    def _adopt(self, outcomes: Outcomes) -> None:
        super()._adopt(outcomes)
        budgets = outcomes.candidates.columns.get(BUDGET)
        if budgets is None:
            return
        trials = self._trials(outcomes)
        for place, budget in enumerate(budgets.tolist()):
            if budget not in self.budgets:
                continue
            row, number = outcomes.codes[place : place + 1], self.budgets.index(budget)
            self._asked += 1
            if number:
                self._rungs[number - 1].leave(row)
            if number < len(self._rungs):
                self._rungs[number].add(row, float(outcomes.scores[place, 0]), self._asked, trials[place])
