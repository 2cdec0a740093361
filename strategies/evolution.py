"""Evolution: regularized evolution, in which the oldest dies."""

from __future__ import annotations

import numpy as np

from nasmw.candidates import Candidates, Codes, Outcomes
from nasmw.context import Context
from nasmw.strategies.arguments import flag, one_objective, share, whole
from nasmw.strategies.breeding import Breeding
from nasmw.strategies.pool import Pooled
from nasmw.strategy import batch_of_none

__all__ = ["Evolution"]


class Evolution(Pooled):
    """Regularized evolution: children of tournament winners; the oldest of the population dies.

    Random architectures are asked for until `population` of them were told with a score. From then on each candidate
    is a child: of `tournament` members drawn from the population (with replacement) the best one is the parent, a
    mutated copy of it is asked for, joins the population when its score is told, and the oldest member dies.

    Args:
        population: The number of living members.
        tournament: How many of them are drawn for each tournament; a quarter of the population by default (25 of the
            100). More of them mean stronger selection.
        mutation_probability: Each active choice of a child changes with this probability, and one of them in any
            case. None changes exactly one.
        crossover: The probability that a child has two parents, winners of a tournament each: before the mutation, it
            takes every active choice from one or the other, each as likely.
        repeats: Whether an architecture may be asked for twice. If not, a child that was asked for, or told, before
            is mutated again, up to 16 times; after that a random new one takes its place. Once nothing new is left,
            the strategy is exhausted.

    Limits on profilers with a table that are offered to it are met by construction: random architectures are uniform
    over those within them, and a child beyond them is mutated anew, up to 16 times, and then changed in as few choices
    as bring it within them. Where more than 8 are asked for at a time, which takes a few microseconds each, another
    child takes the place of one beyond them.

    Raises:
        TypeError: If an argument is of the wrong kind.
        ValueError: If a number is out of range; at `setup` if there are several objectives.

    Reference: Real, Aggarwal, Huang, Le, Regularized Evolution for Image Classifier Architecture Search, AAAI 2019,
    Algorithm 1. Deviations: several candidates may be asked for before the first is told, so that a search over a
    window of 8 asks for up to 7 more random ones at the start; age counts from when a score is told, not from when the
    candidate was asked for; outcomes without a score (NaN) do not join; crossover and `repeats` are additions; a
    mutation changes one choice of any space, where the paper has two kinds of changes of a cell.

    Example:
        >>> from nasmw.strategies import Evolution
        >>> Evolution(population=50)
        Evolution(population=50, tournament=12, mutation_probability=None, crossover=0.0, repeats=True)
    """

    def __init__(
        self,
        population: int = 100,
        tournament: int | None = None,
        mutation_probability: float | None = None,
        crossover: float = 0.0,
        repeats: bool = True,
    ) -> None:
        self.population = whole("Evolution", "population", population)
        self.tournament = (
            max(population // 4, 1) if tournament is None else whole("Evolution", "tournament", tournament)
        )
        if self.tournament > self.population:
            raise ValueError(
                f"Evolution: a tournament is among at most the whole population of {population}, got {tournament!r}"
            )
        self.mutation_probability = (
            None if mutation_probability is None else share("Evolution", "mutation_probability", mutation_probability)
        )
        self.crossover = share("Evolution", "crossover", crossover)
        self.repeats = flag("Evolution", "repeats", repeats)

    def _setup(self, context: Context) -> None:
        one_objective("Evolution", context)
        # Where the next member goes once the population is complete: members are replaced in a circle, oldest first.
        self._oldest = 0
        self._members: list[Codes] = []
        self._scores: list[float] = []
        super()._setup(context)
        self._breeding = Breeding(
            context.space,
            context.rng,
            self._pool,
            crossover=self.crossover,
            mutation_probability=self.mutation_probability,
            mutate_crossed=True,
        )

    def _ask(self, n: int) -> Candidates:
        space = self.context.space
        if len(self._members) == self.population:
            return Candidates.of(space, self._breeding.children(n, self._winners))
        rows: list[Codes] = []
        while len(rows) < n and (row := self._pool.random()) is not None:
            self._pool.note(row)
            rows.append(row)
        return Candidates.of(space, np.concatenate(rows)) if rows else batch_of_none(space)

    def _winners(self, n: int) -> Codes:
        """Return the best of `n` tournaments, ``(n, d)``; of equal ones the one drawn first."""
        if n == 1:
            drawn: list[int] = self._rng.integers(0, self.population, self.tournament).tolist()
            return self._members[max(drawn, key=self._scores.__getitem__)]
        places = self._rng.integers(0, self.population, (n, self.tournament))
        best = np.array(self._scores)[places].argmax(axis=1)
        winners: Codes = np.concatenate(self._members)[places[np.arange(n), best]]
        return winners

    def _tell(self, outcomes: Outcomes) -> None:
        for row, score in enumerate(outcomes.scores[:, 0].tolist()):
            member = outcomes.codes[row : row + 1]
            self._pool.note(member)
            if score != score:
                continue
            if len(self._members) < self.population:
                self._members.append(member)
                self._scores.append(score)
            else:
                self._members[self._oldest] = member
                self._scores[self._oldest] = score
                self._oldest = (self._oldest + 1) % self.population
