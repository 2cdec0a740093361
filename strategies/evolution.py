"""Evolution: regularized evolution, in which the oldest dies."""

from __future__ import annotations

from numbers import Integral, Real

import numpy as np

from nasmw.candidates import Candidates, Codes, Outcomes
from nasmw.constraint import Constraint
from nasmw.context import Context
from nasmw.space import Space
from nasmw.strategies.within import Source
from nasmw.strategy import Strategy

__all__ = ["Evolution"]

TRIES = 16


class Evolution(Strategy):
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
    as bring it within them.

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
        self.population = _whole("population", population)
        self.tournament = max(population // 4, 1) if tournament is None else _whole("tournament", tournament)
        if self.tournament > self.population:
            raise ValueError(
                f"Evolution: a tournament is among at most the whole population of {population}, got {tournament!r}"
            )
        self.mutation_probability = (
            None if mutation_probability is None else _share("mutation_probability", mutation_probability)
        )
        self.crossover = _share("crossover", crossover)
        if not isinstance(repeats, bool):
            raise TypeError(f"Evolution: repeats is True or False, got {repeats!r}")
        self.repeats = repeats

    def _setup(self, context: Context) -> None:
        if len(context.objectives) > 1:
            raise ValueError(
                f"Evolution maximises one objective, and this search has {[str(each) for each in context.objectives]}; "
                "join them to one score with the middleware Reward"
            )
        # Where the next member goes once the population is complete: members are replaced in a circle, oldest first.
        self._oldest = 0
        self._members: list[Codes] = []
        self._scores: list[float] = []
        self._seen: set[bytes] = set()
        self._rng = context.rng
        # The source of random ones has a generator of its own: they do not depend on what children were made.
        self._source = Source(context.space, context.rng.spawn(1)[0], distinct=not self.repeats)
        self._waiting: Codes | None = None

    def _offer(self, term: Constraint) -> bool:
        return self._source.promise(term)

    @property
    def exhausted(self) -> bool:
        """Whether every architecture was asked for, or told; never with repeats."""
        self.context  # noqa: B018  raises before setup
        return not self.repeats and self._unseen() is None

    def _ask(self, n: int) -> Candidates:
        space = self.context.space
        rows: list[Codes] = []
        while len(rows) < n and not self.exhausted:
            row = self._random() if len(self._members) < self.population else self._child(space)
            if not self.repeats:
                self._seen.add(row.tobytes())
            rows.append(row)
        return Candidates.of(space, np.concatenate(rows) if rows else np.zeros((0, len(space)), dtype=space.dtype))

    def _random(self) -> Codes:
        """Return a random architecture, ``(1, d)``; a new one unless repeats are allowed."""
        unseen = None if self.repeats else self._unseen()
        return self._source.take(1) if unseen is None else unseen

    def _unseen(self) -> Codes | None:
        """Return the next architecture of the source that was neither asked for nor told, None where none is left."""
        while self._waiting is None or self._waiting.tobytes() in self._seen:
            if not self._source.left:
                return None
            self._waiting = self._source.take(1)
        return self._waiting

    def _child(self, space: Space) -> Codes:
        """Return a child of the population, ``(1, d)``."""
        base: Codes = self._winner()
        if self.crossover and self._rng.random() < self.crossover:
            base = space.crossover(base, self._winner(), self._rng)
        row = space.mutate(base, self._rng, self.mutation_probability)
        for _ in range(TRIES):
            if not self._source.holds(row):
                row = space.mutate(base, self._rng, self.mutation_probability)
            elif self.repeats or row.tobytes() not in self._seen:
                return row
            else:
                base = row
                row = space.mutate(base, self._rng, self.mutation_probability)
        if (feasible := self._source.feasible) is not None:
            row = feasible.nearest(Candidates.of(space, row), self._rng).codes
        return row if self.repeats or row.tobytes() not in self._seen else self._random()

    def _winner(self) -> Codes:
        """Return the best of a tournament, ``(1, d)``; of equal ones the one drawn first."""
        drawn: list[int] = self._rng.integers(0, self.population, self.tournament).tolist()
        return self._members[max(drawn, key=self._scores.__getitem__)]

    def _tell(self, outcomes: Outcomes) -> None:
        for row, score in enumerate(outcomes.scores[:, 0].tolist()):
            member = outcomes.codes[row : row + 1]
            if not self.repeats:
                self._seen.add(member.tobytes())
            if score != score:
                continue
            if len(self._members) < self.population:
                self._members.append(member)
                self._scores.append(score)
            else:
                self._members[self._oldest] = member
                self._scores[self._oldest] = score
                self._oldest = (self._oldest + 1) % self.population


def _whole(name: str, value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"Evolution: {name} is a whole number, got {value!r}")
    if value < 1:
        raise ValueError(f"Evolution: {name} is at least 1, got {value!r}")
    return int(value)


def _share(name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"Evolution: {name} is a number from 0 to 1, got {value!r}")
    share = float(value)
    if not 0.0 <= share <= 1.0:
        raise ValueError(f"Evolution: {name} is from 0 to 1, got {value!r}")
    return share
