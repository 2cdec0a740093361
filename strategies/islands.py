"""Islands: small populations evolve one after the other, and are merged two by two."""

from __future__ import annotations

from collections.abc import Iterable

import attrs
import numpy as np

from nasmw.candidates import Candidates, Codes, Outcomes
from nasmw.context import Context
from nasmw.strategies.arguments import one_objective, share, whole
from nasmw.strategies.breeding import Breeding
from nasmw.strategies.pool import Pooled
from nasmw.strategy import batch_of_none

__all__ = ["Islands"]


@attrs.define(eq=False)
class _Population:
    """A population: `parts` first populations in one; its best first."""

    parts: int
    members: list[Codes] = attrs.field(factory=list)
    scores: list[float] = attrs.field(factory=list)

    def join(self, members: list[Codes], scores: list[float], size: int) -> None:
        """Add members; the best `size` of all survive, of equal ones the older."""
        members, scores = self.members + members, self.scores + scores
        best = sorted(range(len(scores)), key=scores.__getitem__, reverse=True)[:size]
        self.members, self.scores = [members[place] for place in best], [scores[place] for place in best]


class Islands(Pooled):
    """Evolution of populations that start small, one after the other; two that have come to rest become one.

    A population begins with `population` random architectures. Each further candidate is a child of it, mostly of two
    random members; it joins where it is better than the worst member, who dies. Once `patience` times as many children
    as it has members brought nothing better than its best, the population rests. Two that rest and are made of equally
    many first ones are merged: they evolve on as one population, as large as both. Where there is no such pair, another
    small one begins. So the best is found soon by a small population, and what several of them found apart is combined
    later, however long the search; there is no size of a population to be chosen for a number of trials.

    No architecture is asked for twice; once nothing new is left, the strategy is exhausted. Dozens or hundreds may be
    asked for at a time: they are made at once, in a few microseconds each. While the first members of a population are
    not told, it asks for nothing: the search waits for them.

    It suits evaluations without noise: a member that was lucky once stays.

    Args:
        population: How many members a first population has.
        patience: After how many children, as a multiple of its members, without a better best a population rests.
        crossover: The probability that a child has two parents: it takes every active choice from one or the other. It
            is mutated only where it was asked for before; a child of one parent always is.
        mutation_probability: Each active choice changes with this probability, and one of them in any case. None
            changes exactly one.

    Limits on profilers with a table that are offered to it are met by construction: random architectures are uniform
    over those within them, and a child beyond them is mutated anew, up to 16 times, and then changed in as few choices
    as bring it within them. Where more than 8 are asked for at a time, another child takes the place of one beyond.

    Raises:
        TypeError: If an argument is of the wrong kind.
        ValueError: If a number is out of range; at `setup` if there are several objectives.

    Reference: Harik, Lobo, A parameter-less genetic algorithm, GECCO 1999, runs populations of doubling sizes side by
    side, as on the digits of a counter; here two equal populations become the one of double size, so that it starts
    with what they found. Merging is also in Goldman, Punch, Parameter-less population pyramid, GECCO 2014.

    Example:
        >>> from nasmw.strategies import Islands
        >>> Islands(population=30)
        Islands(population=30, patience=10, crossover=0.9, mutation_probability=None)
    """

    def __init__(
        self,
        population: int = 60,
        patience: int = 10,
        crossover: float = 0.9,
        mutation_probability: float | None = None,
    ) -> None:
        self.population = whole("Islands", "population", population, least=2)
        self.patience = whole("Islands", "patience", patience)
        self.crossover = share("Islands", "crossover", crossover)
        self.mutation_probability = (
            None if mutation_probability is None else share("Islands", "mutation_probability", mutation_probability)
        )

    def _setup(self, context: Context) -> None:
        one_objective("Islands", context)
        super()._setup(context)
        self._breeding = Breeding(
            context.space,
            context.rng,
            self._pool,
            crossover=self.crossover,
            mutation_probability=self.mutation_probability,
            mutate_crossed=False,
        )
        self._resting: list[_Population] = []
        self._begin()

    def _begin(self) -> None:
        """Begin with another first population; what is open belongs to those before."""
        self._living = _Population(1)
        self._complete = False
        self._waited = 0
        self._open: set[bytes] = set()

    def _ask(self, n: int) -> Candidates:
        space = self.context.space
        if self._complete:
            codes = self._breeding.children(n, self._parents)
        else:
            missing = self.population - len(self._living.members) - len(self._open)
            rows: list[Codes] = []
            while len(rows) < min(n, missing) and (row := self._pool.random()) is not None:
                self._pool.note(row)
                rows.append(row)
            if not rows:
                return batch_of_none(space)
            codes = np.concatenate(rows)
        self._open.update(row.tobytes() for row in codes)
        return Candidates.of(space, codes)

    def _parents(self, n: int) -> Codes:
        """Return `n` random members, ``(n, d)``."""
        members = self._living.members
        if n == 1:
            return members[int(self._rng.integers(0, len(members)))]
        parents: Codes = np.concatenate(members)[self._rng.integers(0, len(members), n)]
        return parents

    def _tell(self, outcomes: Outcomes) -> None:
        self._pool.note(outcomes.codes)
        own = [place for place, row in enumerate(outcomes.codes) if row.tobytes() in self._open]
        self._open.difference_update(outcomes.codes[place].tobytes() for place in own)
        self._waited += len(own)
        self._join(outcomes, own)
        if self._complete and self._waited >= self.patience * len(self._living.members):
            self._rest()

    def _adopt(self, outcomes: Outcomes) -> None:
        self._pool.note(outcomes.codes)
        self._join(outcomes, range(len(outcomes)))

    def _join(self, outcomes: Outcomes, places: Iterable[int]) -> None:
        """Add outcomes with a score to the living population."""
        living = self._living
        scores = outcomes.scores[:, 0].tolist()
        scored = [place for place in places if scores[place] == scores[place]]
        before = max(living.scores, default=-np.inf)
        size = self.population * living.parts
        living.join([outcomes.codes[p : p + 1] for p in scored], [scores[p] for p in scored], size)
        if max(living.scores, default=-np.inf) > before or not self._complete:
            self._waited = 0
        self._complete = self._complete or len(living.members) == size

    def _rest(self) -> None:
        """Merge the living population with one that rests, or let it rest and begin with another one."""
        if self._resting and self._resting[-1].parts == self._living.parts:
            other = self._resting.pop()
            self._living.parts *= 2
            self._living.join(other.members, other.scores, self.population * self._living.parts)
            self._waited = 0
        else:
            self._resting.append(self._living)
            self._begin()
