"""Where strategies draw architectures from when they may have promised to keep limits."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from nasmw.candidates import Candidates, Codes
from nasmw.constraint import Constraint
from nasmw.errors import ConstraintError
from nasmw.feasible import FeasibleSet, by_construction
from nasmw.space import Space
from nasmw.strategies.drawing import BLOCK, Distinct, Independent, Permutation

__all__ = ["DistinctWithin", "Source"]


class Source:
    """Architectures of a space, or of what limits leave of it, in an order that does not depend on what is told.

    Args:
        space: The space that is searched.
        rng: The generator that the order is drawn from; None for an order that is always the same.
        distinct: Whether every architecture comes exactly once; if not, draws are uniform with replacement.
    """

    def __init__(self, space: Space, rng: np.random.Generator | None, *, distinct: bool) -> None:
        self._space = space
        self._rng = rng
        self._distinct = distinct or rng is None
        self._terms: list[Constraint] = []
        self._feasible: FeasibleSet | None = None
        self._drawing: Independent | Distinct | DistinctWithin | None = None
        self._left_out: set[bytes] = set()
        self._waiting: Codes | None = None

    def leave_out(self, codes: Codes) -> None:
        """Never give the rows of codes, ``(n, d)``, such as those of an earlier run."""
        self._left_out.update(row.tobytes() for row in codes)

    def promise(self, term: Constraint) -> bool:
        """Take a limit on if it can be met by construction and nothing was drawn yet; return whether it was."""
        if self._drawing is not None or not by_construction(term):
            return False
        self._terms.append(term)
        return True

    @property
    def _open(self) -> Independent | Distinct | DistinctWithin:
        """What to take from; made at the first use, when all limits are known.

        Raises:
            ConstraintError: If the limits leave nothing; says which of them conflict.
        """
        if self._drawing is None:
            if self._terms:
                self._feasible = FeasibleSet.shared(self._space, self._terms)
                if self._feasible.empty:
                    raise ConstraintError(str(self._feasible.diagnose()))
            if not self._distinct and self._rng is not None:
                self._drawing = Independent(self._feasible or self._space, self._rng)
            elif self._feasible is None:
                self._drawing = Distinct(self._space, self._rng)
            else:
                self._drawing = DistinctWithin(self._feasible, self._rng)
        return self._drawing

    @property
    def feasible(self) -> FeasibleSet | None:
        """What the limits leave of the space; None where there is no limit."""
        self._open  # noqa: B018  made there
        return self._feasible

    @property
    def left(self) -> bool:
        """Whether there are architectures that have not been taken; always with replacement."""
        drawing = self._open
        if isinstance(drawing, Independent):
            return True
        return self._next() is not None if self._left_out else bool(drawing.left)

    def take(self, n: int) -> Codes:
        """Return the next rows, up to `n` of them, as ``(n, d)``; fewer where fewer are left."""
        if not self._left_out:
            return self._open.take(n)
        rows: list[Codes] = []
        while len(rows) < n and (row := self._next()) is not None:
            rows.append(row)
            self._waiting = None
        return np.concatenate(rows) if rows else self._open.take(0)

    def _next(self) -> Codes | None:
        """Return the next row, ``(1, d)``, that is not to be left out; None where there is none."""
        while self._waiting is None or self._waiting.tobytes() in self._left_out:
            self._waiting = self._open.take(1)
            if not len(self._waiting):
                self._waiting = None
                return None
        return self._waiting

    def holds(self, codes: Codes) -> bool:
        """Return whether one architecture, ``(1, d)``, is within the limits."""
        feasible = self.feasible
        return feasible is None or bool(feasible.holds(Candidates.of(self._space, codes))[0])


class DistinctWithin:
    """Every architecture within limits exactly once.

    Args:
        feasible: The architectures.
        rng: The generator that the order is drawn from; None for the order in which they are enumerated. Where ranks
            go beyond 2^53, random ones are drawn, and what was drawn before is left out; memory grows with them then.
    """

    def __init__(self, feasible: FeasibleSet, rng: np.random.Generator | None) -> None:
        self._blocks = _enumerated(feasible) if rng is None else _shuffled(feasible, rng)
        self._ready: Codes = np.zeros((0, len(feasible.space)), dtype=feasible.space.dtype)

    @property
    def left(self) -> bool:
        """Whether there are architectures that have not been taken."""
        return bool(len(self._fill(1)))

    def _fill(self, n: int) -> Codes:
        while len(self._ready) < n:
            block = next(self._blocks, None)
            if block is None:
                break
            self._ready = np.concatenate([self._ready, block])
        return self._ready

    def take(self, n: int) -> Codes:
        """Return the next rows, up to `n` of them, as ``(n, d)``; fewer where fewer are left."""
        taken, self._ready = np.split(self._fill(n), [n])
        return taken


def _enumerated(feasible: FeasibleSet) -> Iterator[Codes]:
    return (batch.codes for batch in feasible.enumerate())


def _shuffled(feasible: FeasibleSet, rng: np.random.Generator) -> Iterator[Codes]:
    if (ranks := feasible.ranks) is not None:
        order = Permutation(ranks, rng)
        for start in range(0, ranks, BLOCK):
            yield feasible.at([order(rank) for rank in range(start, min(start + BLOCK, ranks))]).codes
        return
    seen: set[bytes] = set()
    while True:
        batch = feasible.sample(BLOCK, rng)
        for row, key in enumerate(batch.row_keys()):
            if key not in seen:
                seen.add(key)
                yield batch.codes[row : row + 1]
