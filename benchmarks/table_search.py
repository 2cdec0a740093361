"""Searches on benchmark tables without a log, and what is measured of them; the scripts beside import it.

`searched` asks and tells a chain as a `Search` with a window of 1 does, and takes the scores from a column. What is
kept of a run is which rows of the table were evaluated, in order: every figure of merit follows from that.
"""

from __future__ import annotations

import time
from collections.abc import Hashable, Sequence
from functools import cached_property
from typing import Any, Literal

import attrs
import numpy as np
import numpy.typing as npt
from tables import Benchmark

from nasmw import Candidates, Constraint, Objective, Outcomes, Status, Strategy
from nasmw.candidates import Floats
from nasmw.context import Context
from nasmw.errors import DeadlockError

__all__ = ["Problem", "Run", "band", "outcome_of", "regrets", "repeated", "searched", "selected", "wasted"]

Rows = npt.NDArray[np.intp]


@attrs.frozen(eq=False, slots=False)
class Problem:
    """A benchmark, what is maximised in it, and the limits that a network is to keep.

    Attributes:
        name: How tables call it.
        benchmark: The space and its columns.
        told: The columns that are told as scores, maximised; those of `minimised` with the other sign.
        limits: The limits on profilers of columns.
        minimised: Names among those told that are minimised.
        same: What two rows have in common that count as one network: their ``"function"``, as far as the space knows,
            or their ``"architecture"``.
    """

    name: str
    benchmark: Benchmark
    told: tuple[str, ...]
    limits: tuple[Constraint, ...] = ()
    minimised: frozenset[str] = frozenset()
    same: Literal["function", "architecture"] = "function"

    @cached_property
    def scores(self) -> Floats:
        """``(rows, objectives)`` what is told of each row."""
        columns = [self.benchmark.column(name) * (-1.0 if name in self.minimised else 1.0) for name in self.told]
        return np.stack(columns, axis=1)

    @cached_property
    def inside(self) -> npt.NDArray[np.bool_]:
        """``(rows,)`` which rows are within the limits."""
        return self.benchmark.within(*self.limits)

    @cached_property
    def excess(self) -> Floats:
        """``(rows, limits)`` by what share of a limit each row is beyond it; at most 0 where it is within."""
        every = Candidates.of(self.benchmark.space, self.benchmark.codes)
        parts = [limit.profiler.profile_batch(every) / limit.high - 1.0 for limit in self.limits]
        return np.stack(parts, axis=1) if parts else np.zeros((len(every), 0))

    @cached_property
    def networks(self) -> npt.NDArray[np.intp]:
        """``(rows,)`` a number for each row, equal where two rows count as one network."""
        if self.same == "architecture":
            return np.arange(len(self.benchmark.codes))
        numbers: dict[Hashable, int] = {}
        every = Candidates.of(self.benchmark.space, self.benchmark.codes)
        keys = self.benchmark.space.function_keys(every)
        return np.array([numbers.setdefault(key, len(numbers)) for key in keys])

    def row(self, codes: Sequence[int]) -> int:
        """Return the row of one network's codes."""
        return int(self.benchmark.index.rows_of(np.asarray([codes]))[0])

    @property
    def objectives(self) -> tuple[Objective, ...]:
        """The objectives, all of them maximised: scores have their signs already."""
        return tuple(Objective(name) for name in self.told)


@attrs.frozen(eq=False)
class Run:
    """What a search evaluated, and what it cost.

    Attributes:
        rows: ``(n,)`` the rows of the table that were evaluated, in order, those beyond limits included.
        budgets: ``(n,)`` the budgets of the evaluations; empty where the strategy gives none.
        finished_s: ``(n,)`` simulated seconds at which they were finished; empty where nobody asked.
        cpu_s: CPU seconds in the strategy: asking, checking, telling.
        proposals: How many candidates the strategy gave, those that never reached evaluation included.
        substitutes: How many of the evaluated ones the loop around it drew at random, since it gave nothing new.
    """

    rows: Rows
    cpu_s: float
    proposals: int
    substitutes: int = 0
    budgets: Floats = attrs.field(factory=lambda: np.zeros(0))
    finished_s: Floats = attrs.field(factory=lambda: np.zeros(0))


def searched(problem: Problem, chain: Strategy, evaluations: int, seed: int) -> Run:
    """Search with a strategy or a chain until so many evaluations are done, or it is exhausted.

    A network beyond the limits that reaches evaluation costs one, and has no score.

    Args:
        problem: What is searched.
        chain: A strategy, or a chain with one.
        evaluations: After how many to stop.
        seed: The seed of the run.

    Raises:
        DeadlockError: If the chain gives nothing although it has been told everything, and is not exhausted.
    """
    benchmark = problem.benchmark
    told, inside = problem.scores, problem.inside
    cpu_s = 0.0
    rows: list[int] = []
    start = time.process_time()
    chain.setup(Context(benchmark.space, problem.objectives, seed))
    while len(rows) < evaluations:
        batch = chain.ask(1)
        if not len(batch):
            if not chain.exhausted:
                raise DeadlockError(f"{chain!r} gave nothing, has been told everything, and is not exhausted")
            break
        cpu_s += time.process_time() - start
        row = benchmark.rows_of(batch)
        outcome = outcome_of(problem, batch, told[row], bool(inside[row[0]]))
        rows.append(int(row[0]))
        start = time.process_time()
        chain.tell(outcome)
    cpu_s += time.process_time() - start
    return Run(np.array(rows, dtype=np.intp), cpu_s, chain.stages[0].given)


def outcome_of(problem: Problem, candidate: Candidates, scores: Floats, within: bool) -> Outcomes:
    """Return the outcome of one evaluated candidate, without its ``(1, objectives)`` scores where it is not within."""
    if not within:
        return Outcomes.turned_away(candidate, Status.INFEASIBLE, ["beyond a limit"], len(problem.told))
    metrics = {name: scores[:, place] for place, name in enumerate(problem.told)}
    return Outcomes(candidate, (Status.COMPLETED,), scores, metrics)


def selected(problem: Problem, rows: Rows, at: Sequence[int]) -> list[int]:
    """Return after each number of evaluations the row with the best first score among those within the limits.

    Of equal ones the first; -1 where none is within the limits yet. A run that ended earlier keeps its last.
    """
    score = np.where(problem.inside[rows], problem.scores[rows, 0], -np.inf)
    found = []
    for number in at:
        part = score[:number]
        best = int(np.argmax(part)) if len(part) and part.max() > -np.inf else -1
        found.append(int(rows[best]) if best >= 0 else -1)
    return found


def regrets(problem: Problem, rows: Rows, reported: str, at: Sequence[int]) -> Floats:
    """Return ``(len(at),)`` how far the selected networks are below the best one within the limits.

    Args:
        problem: What was searched; its first score selects.
        rows: ``(n,)`` what was evaluated.
        reported: The column that is compared.
        at: After how many evaluations.

    A run that has found nothing within the limits has the regret of the worst network within them.
    """
    values = problem.benchmark.column(reported)
    within = values[problem.inside]
    worst = float(within.max() - within.min())
    return np.array([float(within.max() - values[row]) if row >= 0 else worst for row in selected(problem, rows, at)])


def repeated(problem: Problem, rows: Rows) -> npt.NDArray[np.bool_]:
    """Return ``(n,)`` which evaluations were of a network that had been evaluated before."""
    networks = problem.networks[rows]
    result = np.ones(len(rows), dtype=np.bool_)
    result[np.unique(networks, return_index=True)[1]] = False
    return result


def wasted(problem: Problem, rows: Rows) -> tuple[float, float]:
    """Return the shares of evaluations of networks beyond the limits, and of other networks that were repeated."""
    beyond = ~problem.inside[rows]
    again = repeated(problem, rows) & ~beyond
    return float(beyond.mean()), float(again.mean())


def band(values: Any, share: float = 0.9) -> tuple[float, float, float]:
    """Return the median and the ends of the central share of values."""
    tail = (1.0 - share) / 2.0
    low, middle, high = np.quantile(np.asarray(values, dtype=float), [tail, 0.5, 1.0 - tail])
    return float(middle), float(low), float(high)
