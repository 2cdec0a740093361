"""NSGA2: populations sorted by dominance and crowding, for several objectives and limits."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from nasmw.candidates import Candidates, Codes, Floats, Outcomes
from nasmw.constraint import Constraint
from nasmw.context import Context
from nasmw.strategies.arguments import share, whole
from nasmw.strategies.pool import Pooled
from nasmw.strategy import batch_of_none

__all__ = ["NSGA2", "crowding", "ranks"]


def ranks(scores: Floats, violations: Floats) -> npt.NDArray[np.intp]:
    """Return the number of the front of each member, 0 for those that nobody dominates.

    Args:
        scores: ``(n, m)``, maximised; not looked at where a member violates limits.
        violations: ``(n,)`` by how much limits are violated; 0 where they are not. Of two members the one with the
            smaller violation dominates; of two without, the one that is better in an objective and worse in none.
    """
    feasible = violations <= 0.0
    first, second = scores[:, None, :], scores[None, :, :]
    better = (first >= second).all(axis=2) & (first > second).any(axis=2)
    dominates = (violations[:, None] < violations[None, :]) | (better & feasible[:, None] & feasible[None, :])
    above = dominates.sum(axis=0)
    result = np.full(len(scores), -1, dtype=np.intp)
    front = 0
    while (left := result < 0).any():
        now = left & (above == 0)
        result[now] = front
        above = above - dominates[now].sum(axis=0)
        front += 1
    return result


def crowding(scores: Floats, fronts: npt.NDArray[np.intp]) -> Floats:
    """Return the crowding distance of each member within its front; infinite at the ends of an objective.

    Args:
        scores: ``(n, m)``; members with NaN get 0.
        fronts: ``(n,)`` numbers of fronts.
    """
    result = np.zeros(len(scores))
    usable = ~np.isnan(scores).any(axis=1)
    for front in range(int(fronts.max(initial=-1)) + 1):
        members = np.flatnonzero((fronts == front) & usable)
        if not len(members):
            continue
        for column in scores[members].T:
            order = members[np.argsort(column, kind="stable")]
            sorted_column = np.sort(column, kind="stable")
            width = sorted_column[-1] - sorted_column[0]
            result[order[[0, -1]]] = np.inf
            if width > 0.0:
                result[order[1:-1]] += (sorted_column[2:] - sorted_column[:-2]) / width
    return result


class NSGA2(Pooled):
    """NSGA-II: children of tournament winners; the fronts that nobody dominates survive, the sparse parts of the last.

    Random architectures are asked for until `population` of them were told. From then on each candidate is a child of
    two winners of tournaments between two members; once `population` of them were told, the next generation is made of
    parents and children: whole fronts as long as they fit, of the front that does not fit those with the greatest
    crowding distance. No architecture is asked for twice; once nothing new is left, the strategy is exhausted.

    Limits: those on profilers with a table that are offered to it are met by construction. Of others it sees how far
    a candidate that a `Filter` turned away was beyond them; such a candidate takes part without scores, and whoever
    violates limits less dominates it.

    Args:
        population: The number of members.
        crossover: The probability that a child takes every active choice from one parent or the other, each as likely;
            if not, it is a copy of the first.
        mutation_probability: Each active choice of a child changes with this probability, and one of them in any
            case. None changes exactly one.

    Raises:
        TypeError: If an argument is of the wrong kind.
        ValueError: If a number is out of range.

    Reference: Deb, Pratap, Agarwal, Meyarivan, A Fast and Elitist Multiobjective Genetic Algorithm: NSGA-II, IEEE
    Transactions on Evolutionary Computation, 2002, sections III and VI (limits). Deviations: candidates may be asked
    for before the last ones are told, and a generation is the next `population` that are told, in that order; crossover
    is uniform; every child is mutated; violations are shares of the limits, summed up; nothing is asked for twice.

    Example:
        >>> from nasmw.strategies import NSGA2
        >>> NSGA2(population=20)
        NSGA2(population=20, crossover=0.9, mutation_probability=None)
    """

    def __init__(self, population: int = 50, crossover: float = 0.9, mutation_probability: float | None = None) -> None:
        self.population = whole("NSGA2", "population", population, least=2)
        self.crossover = share("NSGA2", "crossover", crossover)
        self.mutation_probability = (
            None if mutation_probability is None else share("NSGA2", "mutation_probability", mutation_probability)
        )

    def _setup(self, context: Context) -> None:
        super()._setup(context)
        self._limits: list[Constraint] = []
        self._codes: Codes = np.zeros((0, len(context.space)), dtype=context.space.dtype)
        self._scores: Floats = np.zeros((0, len(context.objectives)))
        self._violations: Floats = np.zeros(0)
        self._order: list[tuple[int, float]] = []  # front and crowding (negative) of each member: less is better
        self._children: list[tuple[Codes, Floats, float]] = []

    def _offer(self, term: Constraint) -> bool:
        if super()._offer(term):
            return True
        self._limits.append(term)
        return False

    def _ask(self, n: int) -> Candidates:
        rows: list[Codes] = []
        while len(rows) < n:
            row = self._child() if self._order else self._pool.random()
            if row is None:
                break
            self._pool.note(row)
            rows.append(row)
        space = self.context.space
        return Candidates.of(space, np.concatenate(rows)) if rows else batch_of_none(space)

    def _child(self) -> Codes | None:
        space, rng = self.context.space, self._rng
        first = self._winner()
        if self.crossover and rng.random() < self.crossover:
            first = space.crossover(first, self._winner(), rng)
        return self._pool.child(first, lambda row: space.mutate(row, rng, self.mutation_probability))

    def _winner(self) -> Codes:
        """Return the better of two random members, ``(1, d)``; of equal ones the first."""
        first, second = self._rng.integers(0, len(self._order), 2).tolist()
        best = second if self._order[second] < self._order[first] else first
        return self._codes[best : best + 1]

    def _tell(self, outcomes: Outcomes) -> None:
        self._pool.note(outcomes.codes)
        violations = self._violation(outcomes)
        for row, scores in enumerate(outcomes.scores.tolist()):
            lacks = any(score != score for score in scores)
            violation = float(violations[row]) if lacks else 0.0
            if lacks and not violation > 0.0:
                continue
            self._children.append((outcomes.codes[row], outcomes.scores[row], violation))
            if len(self._children) >= self.population:
                self._select()

    def _violation(self, outcomes: Outcomes) -> Floats:
        """Return by how much each candidate was beyond the limits, as far as columns say; 0 where they say nothing."""
        total = np.zeros(len(outcomes))
        for limit in self._limits:
            values = outcomes.candidates.columns.get(limit.profiler.name)
            if values is not None:
                beyond = np.where(values > limit.high, limit.high, limit.low)
                scale = np.where(np.isfinite(beyond) & (beyond != 0.0), np.abs(beyond), 1.0)
                total += np.nan_to_num(limit.excess(values) / scale)
        return total

    def _select(self) -> None:
        """Make the next generation of the members and the children."""
        codes, scores, violations = zip(*self._children, strict=True)
        self._children = []
        space = self.context.space
        joined = np.concatenate([self._codes, np.array(codes, dtype=space.dtype).reshape(-1, len(space))])
        all_scores = np.concatenate([self._scores, np.array(scores)])
        all_violations = np.concatenate([self._violations, np.array(violations)])
        fronts = ranks(all_scores, all_violations)
        spread = crowding(all_scores, fronts)
        kept = np.lexsort((-spread, fronts))[: self.population]
        self._codes, self._scores, self._violations = joined[kept], all_scores[kept], all_violations[kept]
        self._order = list(zip(fronts[kept].tolist(), (-spread[kept]).tolist(), strict=True))
