"""The genetic algorithm that once-for-all's authors published to search their networks, after its description.

A population of random networks within the limit. In every generation the best quarter are parents; half of the next
population are mutated copies of random parents, half are children of two random ones, each drawn anew until it is
within the limit; the parents themselves stay. A mutation draws each block's kernel and expansion, each stage's depth
and the resolution anew with a probability of 0.1; a child has each of its genes from one parent or the other.

As in the publication a network that was evaluated before is evaluated again. Unlike the program that was published,
whole populations are drawn, checked and evaluated at once, which takes a third of its time.

Source: Cai, Gan, Wang, Zhang, Han, Once-for-All: Train One Network and Specialize it for Efficient Deployment, ICLR
2020, section 3.3, and its tutorial, which states the numbers.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import attrs
import numpy as np
import numpy.typing as npt

from nasmw import Candidates, Constraint, Space
from nasmw.candidates import Codes
from ofa_searches.meter import Meter

__all__ = ["Genetic"]

Rows = npt.NDArray[np.intp]


@attrs.frozen
class Genetic:
    """The published genetic algorithm with its published numbers.

    Attributes:
        population: How many networks each generation adds.
        generations: How many generations follow the first population; the meter may end the search earlier.
        mutation_probability: With which a gene is drawn anew.
        mutation_ratio: The share of a generation that is mutated copies.
        parent_ratio: The share of a population that becomes parents.
    """

    population: int = 100
    generations: float = 500
    mutation_probability: float = 0.1
    mutation_ratio: float = 0.5
    parent_ratio: float = 0.25

    @property
    def evaluations(self) -> int:
        """How many evaluations the published numbers take."""
        return round(self.population * (1 + self.generations))

    def run(self, limit: Constraint, meter: Meter, seed: int) -> None:
        """Search a space of `nasmw.spaces.ofa_mobilenetv3` until the generations are over or the meter says so."""
        rng = np.random.default_rng(seed)
        genes = _Genes(meter.predictor.space, self.mutation_probability, rng)
        n, mutants = self.population, round(self.mutation_ratio * self.population)
        codes = genes.within(limit, n, lambda rows: genes.random(len(rows)))
        scores = meter(genes.candidates(codes))
        generation = 0
        while generation < self.generations and meter.left > 0:
            best = np.argsort(-scores, kind="stable")[: round(self.parent_ratio * n)]
            codes, scores = codes[best], scores[best]
            children = np.concatenate([genes.mutants(limit, codes, mutants), genes.pairs(limit, codes, n - mutants)])
            codes = np.concatenate([codes, children])
            scores = np.concatenate([scores, meter(genes.candidates(children))])
            generation += 1


class _Genes:
    """Genes are codes of all choices, those of blocks that a network does not have included; they are inherited too."""

    def __init__(self, space: Space, probability: float, rng: np.random.Generator) -> None:
        self._space = space
        self._probability = probability
        self._rng = rng
        self._sizes = np.array([len(choice.options) for choice in space.choices])
        # A block's kernel and expansion are drawn anew together.
        names = [name.rsplit(".", 1)[0] if ".block" in name else name for name in space.names]
        units = list(dict.fromkeys(names))
        self._unit = np.array([units.index(name) for name in names])

    def candidates(self, genes: Codes) -> Candidates:
        """Return the networks that genes are of."""
        return self._space.candidates(genes)

    def random(self, n: int) -> Codes:
        """Return random genes, ``(n, d)``."""
        return self._rng.integers(0, self._sizes, (n, len(self._sizes))).astype(self._space.dtype)

    def mutants(self, limit: Constraint, parents: Codes, n: int) -> Codes:
        """Return `n` mutated copies of random parents."""
        chosen = parents[self._rng.integers(0, len(parents), n)]

        def mutated(rows: Rows) -> Codes:
            anew = self._rng.random((len(rows), self._unit.max() + 1)) < self._probability
            return np.where(anew[:, self._unit], self.random(len(rows)), chosen[rows])

        return self.within(limit, n, mutated)

    def pairs(self, limit: Constraint, parents: Codes, n: int) -> Codes:
        """Return a child of each of `n` random pairs of parents."""
        first, second = parents[self._rng.integers(0, len(parents), (2, n))]

        def crossed(rows: Rows) -> Codes:
            return np.where(self._rng.random((len(rows), first.shape[1])) < 0.5, first[rows], second[rows])

        return self.within(limit, n, crossed)

    def within(self, limit: Constraint, n: int, draw: Callable[[Rows], Codes]) -> Codes:
        """Draw for each of `n` rows, whose numbers `draw` takes, until all are within the limit."""
        found = np.zeros((n, len(self._sizes)), dtype=self._space.dtype)
        missing = np.arange(n)
        share = 1.0
        while len(missing):
            # Where few are within the limit, several are drawn for each row at a time.
            times = min(math.ceil(1.0 / share), 64)
            wanted = np.tile(missing, times)
            drawn = draw(wanted)
            inside = np.flatnonzero(limit.holds(limit.profiler.profile_batch(self.candidates(drawn))))
            found[wanted[inside]] = drawn[inside]
            share = max(len(inside) / len(wanted), 1.0 / 64)
            missing = np.setdiff1d(missing, wanted[inside])
        return found
