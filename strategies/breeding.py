"""Children of a population: crossed, mutated, within promised limits, and new unless repeats are allowed."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from nasmw.candidates import Codes
from nasmw.space import Space
from nasmw.strategies.pool import Pool

__all__ = ["Breeding"]

ONE_BY_ONE = 8
"""Up to so many children are made one by one, which is quicker then; `Space.mutate` has the same number."""


class Breeding:
    """Makes children of the parents that a strategy chooses, and takes note of them.

    Args:
        space: The space that is searched.
        rng: The generator of the strategy.
        pool: What may be asked for.
        crossover: The probability that a child has two parents: it takes every active choice from one or the other.
        mutation_probability: As for `Space.mutate`.
        mutate_crossed: Whether a child of two parents is mutated as well. If not, it is only where it may not be asked
            for as it is.
    """

    def __init__(
        self,
        space: Space,
        rng: np.random.Generator,
        pool: Pool,
        *,
        crossover: float,
        mutation_probability: float | None,
        mutate_crossed: bool,
    ) -> None:
        self._space = space
        self._rng = rng
        self._pool = pool
        self._crossover = crossover
        self._mutation_probability = mutation_probability
        self._mutate_crossed = mutate_crossed

    def children(self, n: int, parents: Callable[[int], Codes]) -> Codes:
        """Return `n` children, ``(n, d)``; fewer where fewer are left.

        A child beyond the limits, or known, is mutated anew or further, up to 16 times, and then changed in as few
        choices as bring it within them. Of many, another child takes the place of one beyond the limits, and random
        architectures that of what is missing at last.

        Args:
            n: How many.
            parents: Takes a number, returns so many parents, ``(n, d)``.
        """
        if n > ONE_BY_ONE:
            return self._pool.children(n, lambda number: self._made(number, parents), self._mutated)
        rows: list[Codes] = []
        while len(rows) < n and (row := self._child(parents)) is not None:
            self._pool.note(row)
            rows.append(row)
        return np.concatenate(rows) if rows else np.zeros((0, len(self._space)), dtype=self._space.dtype)

    def _mutated(self, rows: Codes) -> Codes:
        return self._space.mutate(rows, self._rng, self._mutation_probability)

    def _child(self, parents: Callable[[int], Codes]) -> Codes | None:
        """Return a child, ``(1, d)``; None where nothing new is left."""
        base = parents(1)
        if self._crossover and self._rng.random() < self._crossover:
            base = self._space.crossover(base, parents(1), self._rng)
            if not self._mutate_crossed and self._pool.allows(base):
                return base
        return self._pool.child(base, self._mutated)

    def _made(self, n: int, parents: Callable[[int], Codes]) -> Codes:
        """Return `n` children, within limits or not."""
        rows = np.array(parents(n))
        crossed = self._rng.random(n) < self._crossover
        if crossed.any():
            rows[crossed] = self._space.crossover(rows[crossed], parents(int(crossed.sum())), self._rng)
        changed = np.ones(n, dtype=np.bool_) if self._mutate_crossed else ~crossed
        rows[changed] = self._mutated(rows[changed])
        return rows
