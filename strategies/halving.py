"""SuccessiveHalving and Hyperband: of many architectures with a small budget, few go on to a greater one."""

from __future__ import annotations

import itertools
import math
from abc import abstractmethod
from collections import deque
from collections.abc import Iterable, Iterator

from nasmw.context import Context
from nasmw.strategies.arguments import whole
from nasmw.strategies.rungs import Job, Multifidelity
from nasmw.strategies.rungs import rungs as rungs_of

__all__ = ["Hyperband", "SuccessiveHalving"]

BUDGETS = rungs_of(1, 81)


class _Bracket:
    """Some architectures on their way from one budget to the last: from each, the best share goes on together.

    Args:
        networks: How many begin.
        first: The number of the first budget.
        last: The number of the last budget.
        eta: Of how many one goes on.
    """

    def __init__(self, networks: int, first: int, last: int, eta: float) -> None:
        self.missing = networks
        self.rung = first
        self.open = 0
        self.queue: deque[tuple[Job, float]] = deque()
        self._first = first
        self._last = last
        self._eta = eta
        self._results: list[tuple[Job, float, float]] = []

    @property
    def waits(self) -> bool:
        """Whether results are still to come, or promoted architectures to be asked for."""
        return bool(self.open or self.queue)

    def take(self, job: Job, score: float, trial: float, *, tried: bool) -> None:
        """Take note of a result; one that was turned away before it began is replaced."""
        self.open -= 1
        if tried:
            self._results.append((job, score, trial))
        elif job.rung == self._first:
            self.missing += 1

    def promote(self) -> None:
        """Where every result is there, queue the best of them for the next budget."""
        scored = [result for result in self._results if result[1] == result[1]]
        number = max(math.floor(len(self._results) / self._eta + 1e-9), 1)
        self._results = []
        self.missing = 0
        if self.rung < self._last:
            self.rung += 1
            best = sorted(scored, key=lambda result: (-result[1], result[0].number))[:number]
            self.queue.extend((job, trial) for job, _, trial in best)


class Brackets(Multifidelity):
    """Goes through brackets, and begins with the next one while those before it wait."""

    @property
    @abstractmethod
    def plan(self) -> tuple[tuple[int, float], ...]:
        """The brackets of a round: how many architectures begin, and with what budget."""

    def _setup(self, context: Context) -> None:
        super()._setup(context)
        self._brackets: list[_Bracket] = []
        self._coming: Iterator[tuple[int, float]] = itertools.cycle(self.plan)

    @property
    def exhausted(self) -> bool:
        """Whether nothing new is left, and every bracket is finished."""
        self.context  # noqa: B018  raises before setup
        return self._pool.exhausted and not any(bracket.waits for bracket in self._brackets)

    def _next(self) -> Job | None:
        for bracket in self._brackets:
            if (job := self._of(bracket)) is not None:
                return job
        if self._pool.exhausted:
            return None
        networks, budget = next(self._coming)
        bracket = _Bracket(networks, self.budgets.index(budget), len(self.budgets) - 1, self.eta)
        self._brackets.append(bracket)
        return self._of(bracket)

    def _of(self, bracket: _Bracket) -> Job | None:
        """Return the next evaluation of a bracket; None where it waits."""
        job = None
        if bracket.queue:
            former, trial = bracket.queue.popleft()
            job = self._job(former.row, bracket.rung, trial, bracket)
        elif bracket.missing and (row := self._pool.random()) is not None:
            bracket.missing -= 1
            job = self._job(row, bracket.rung, group=bracket)
        if job is not None:
            bracket.open += 1
        return job

    def _result(self, job: Job, score: float, trial: float, *, tried: bool) -> None:
        assert isinstance(job.group, _Bracket)  # every job has one
        job.group.take(job, score, trial, tried=tried)
        self._go_on()

    def _go_on(self) -> None:
        """Promote in the brackets whose results are all there, and forget those that are finished."""
        left: list[_Bracket] = []
        for bracket in self._brackets:
            if not bracket.waits and (not bracket.missing or self._pool.exhausted):
                bracket.promote()
            if bracket.waits or bracket.missing:
                left.append(bracket)
        self._brackets = left


class Hyperband(Brackets):
    """Hyperband: brackets of successive halving, from many architectures with little budget to few with all of it.

    A bracket begins with random architectures at one of the budgets. When all of them were told, the best of each
    `eta` go on to the next budget together, until the last. The first bracket begins at the least budget, the second
    at the next, and so on; after the one that begins at the greatest budget, it starts over. No architecture begins
    twice; once nothing new is left, brackets are finished with those that there are, and the strategy is exhausted.

    Args:
        budgets: What trials may spend, rising (`rungs` makes such a row); `Trial.budget` is the one of a trial.
        eta: Of how many architectures one goes on to the next budget.

    While a bracket waits for results, the next one begins. An architecture that was turned away before its first trial
    is replaced. Limits on profilers with a table that are offered to it are met by construction.

    Raises:
        TypeError: If an argument is of the wrong kind.
        ValueError: If budgets do not rise, or `eta` is not above 1; at `setup` if there are several objectives.

    Reference: Li, Jamieson, DeSalvo, Rostamizadeh, Talwalkar, Hyperband: A Novel Bandit-Based Approach to
    Hyperparameter Optimization, JMLR 2018, algorithm 1. Deviations: budgets are given, and need not be powers of `eta`;
    at least one architecture goes on; brackets overlap where several trials are open; architectures are drawn without
    replacement; it goes on after the last bracket.

    Example:
        >>> from nasmw.strategies import Hyperband, rungs
        >>> Hyperband(rungs(5, 45)).plan
        ((9, 5), (5, 15), (3, 45))
    """

    def __init__(self, budgets: Iterable[float] = BUDGETS, eta: float = 3.0) -> None:
        super().__init__(budgets, eta)

    @property
    def plan(self) -> tuple[tuple[int, float], ...]:
        """The brackets of a round: how many architectures begin, and with what budget."""
        most = len(self.budgets)
        return tuple(
            (math.ceil(most / left * self.eta ** (left - 1) - 1e-9), self.budgets[most - left])
            for left in range(most, 0, -1)
        )


class SuccessiveHalving(Brackets):
    """Successive halving: many architectures with a small budget; of each `eta` the best goes on to the next one.

    As `Hyperband`, with brackets that all begin with `networks` architectures at the least budget.

    Args:
        budgets: What trials may spend, rising; `Trial.budget` is the one of a trial.
        networks: How many architectures begin; by default as many as leave one for the greatest budget.
        eta: Of how many architectures one goes on to the next budget.

    Raises:
        TypeError: If an argument is of the wrong kind.
        ValueError: If budgets do not rise, a number is out of range; at `setup` if there are several objectives.

    Reference: Jamieson, Talwalkar, Non-stochastic Best Arm Identification and Hyperparameter Optimization, AISTATS
    2016, figure 3; as a part of Hyperband in Li et al., JMLR 2018. Deviations: as for `Hyperband`.

    Example:
        >>> from nasmw.strategies import SuccessiveHalving
        >>> SuccessiveHalving(budgets=(12, 200), eta=4).plan
        ((4, 12),)
    """

    def __init__(self, budgets: Iterable[float] = BUDGETS, networks: int | None = None, eta: float = 3.0) -> None:
        super().__init__(budgets, eta)
        fewest = math.ceil(self.eta ** (len(self.budgets) - 1) - 1e-9)
        self.networks = fewest if networks is None else whole("SuccessiveHalving", "networks", networks)

    @property
    def plan(self) -> tuple[tuple[int, float], ...]:
        """The one kind of bracket: how many architectures begin, and with what budget."""
        return ((self.networks, self.budgets[0]),)
