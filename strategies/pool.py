"""What a strategy may still ask for: architectures within promised limits, each once unless repeats are allowed."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from nasmw.candidates import Candidates, Codes
from nasmw.constraint import Constraint
from nasmw.context import Context
from nasmw.feasible import FeasibleSet
from nasmw.space import Space
from nasmw.strategies.within import Source
from nasmw.strategy import Strategy

__all__ = ["Pool", "Pooled"]

TRIES = 16


class Pool:
    """Architectures within promised limits that may still be asked for.

    Args:
        space: The space that is searched.
        rng: The generator of a strategy. Random architectures are drawn from one spawned from it, so that they do not
            depend on what else is drawn.
        repeats: Whether an architecture may be asked for twice.
    """

    def __init__(self, space: Space, rng: np.random.Generator, *, repeats: bool = False) -> None:
        self._space = space
        self._rng = rng
        self._repeats = repeats
        self._source = Source(space, rng.spawn(1)[0], distinct=not repeats)
        self._seen: set[bytes] = set()
        self._waiting: Codes | None = None

    def promise(self, term: Constraint) -> bool:
        """Take a limit on if it can be met by construction and nothing was drawn yet; return whether it was."""
        return self._source.promise(term)

    @property
    def feasible(self) -> FeasibleSet | None:
        """What the limits leave of the space; None where there is no limit."""
        return self._source.feasible

    @property
    def exhausted(self) -> bool:
        """Whether there is nothing new; never with repeats."""
        return not self._repeats and self._unseen() is None

    def note(self, codes: Codes) -> None:
        """Take note of rows, ``(n, d)``, that were asked for or told."""
        if not self._repeats:
            self._seen.update(row.tobytes() for row in codes)

    def is_new(self, row: Codes) -> bool:
        """Return whether a row, ``(d,)`` or ``(1, d)``, may still be asked for as far as repeats go."""
        return self._repeats or row.tobytes() not in self._seen

    def allows(self, row: Codes) -> bool:
        """Return whether a row, ``(1, d)``, is within the limits and may still be asked for."""
        return self.is_new(row) and self._source.holds(row)

    def random(self) -> Codes | None:
        """Return a random architecture, ``(1, d)``, uniform over those that may be asked for; None if none is left."""
        return self._source.take(1) if self._repeats else self._unseen()

    def _unseen(self) -> Codes | None:
        while self._waiting is None or self._waiting.tobytes() in self._seen:
            if not self._source.left:
                return None
            self._waiting = self._source.take(1)
        return self._waiting

    def holds(self, codes: Codes) -> npt.NDArray[np.bool_]:
        """Return which rows, ``(n, d)``, are within the limits."""
        feasible = self.feasible
        if feasible is None:
            return np.ones(len(codes), dtype=np.bool_)
        return feasible.holds(Candidates.of(self._space, codes))

    def repaired(self, codes: Codes) -> Codes:
        """Return for each row, ``(n, d)``, the architecture within the limits that differs in the fewest choices."""
        feasible = self.feasible
        if feasible is None or not len(codes):
            return codes
        outside = np.flatnonzero(~self.holds(codes))
        if not len(outside):
            return codes
        result = np.array(codes)
        result[outside] = feasible.nearest(Candidates.of(self._space, codes[outside]), self._rng).codes
        return result

    def child(self, base: Codes, change: Callable[[Codes], Codes]) -> Codes | None:
        """Return a changed copy of a row, ``(1, d)``, that may be asked for.

        A copy beyond the limits is made anew, one that is not new is changed further, up to 16 times in all. Then it
        is changed in as few choices as bring it within the limits; where it is not new then, a random one takes its
        place.

        Args:
            base: ``(1, d)`` what is changed.
            change: Returns a changed copy of a row.

        Returns:
            ``(1, d)``, or None where nothing is left.
        """
        row = change(base)
        for _ in range(TRIES):
            if not self._source.holds(row):
                row = change(base)
            elif self.is_new(row):
                return row
            else:
                base = row
                row = change(base)
        if self.feasible is not None:
            row = self.feasible.nearest(Candidates.of(self._space, row), self._rng).codes
        return row if self.is_new(row) else self.random()

    def children(self, n: int, make: Callable[[int], Codes], change: Callable[[Codes], Codes]) -> Codes:
        """Return changed copies, all at once, that may be asked for; no two are equal unless repeats are allowed.

        In place of copies beyond the limits others are made, copies that are not new are changed further, up to 16
        times in all. Then random architectures take the place of the rest.

        Args:
            n: How many.
            make: Takes a number, returns so many changed copies.
            change: Returns a further changed copy of each row.

        Returns:
            ``(n, d)`` in no particular order, taken note of; fewer rows where fewer are left.
        """
        found: list[Codes] = []
        missing, tried = n, n
        rows = make(n)
        for _ in range(TRIES):
            rows = np.ascontiguousarray(rows)[self.holds(rows)]
            new = self._first_new(rows, missing)
            found.append(rows[new])
            missing -= len(found[-1])
            if not missing:
                break
            # More than are missing, so that a few rounds suffice: a round costs as much as dozens of rows.
            wanted = min(math.ceil(missing * tried / max(n - missing, 1)), 8 * missing)
            rows = change(rows[~new][:wanted])
            if wanted > len(rows):
                rows = np.concatenate([rows, make(wanted - len(rows))])
            tried += wanted
        while missing and (random := self.random()) is not None:
            self.note(random)
            found.append(random)
            missing -= 1
        return np.concatenate(found)

    def _first_new(self, rows: Codes, n: int) -> npt.NDArray[np.bool_]:
        """Return which of some rows, ``(m, d)``, are the first `n` that may be asked for, and take note of these."""
        new = np.zeros(len(rows), dtype=np.bool_)
        if self._repeats:
            new[:n] = True
            return new
        for place, row in enumerate(rows):
            key = row.tobytes()
            if key not in self._seen:
                self._seen.add(key)
                new[place] = True
                n -= 1
                if not n:
                    break
        return new


class Pooled(Strategy):
    """A strategy that asks for what a `Pool` allows: it honours limits as the pool does, and is exhausted with it."""

    repeats: bool = False
    """Whether an architecture may be asked for twice."""

    def _setup(self, context: Context) -> None:
        self._rng = context.rng
        self._pool = Pool(context.space, context.rng, repeats=self.repeats)

    def _offer(self, term: Constraint) -> bool:
        return self._pool.promise(term)

    @property
    def exhausted(self) -> bool:
        """Whether every architecture was asked for, or told; never where it may ask for one twice."""
        self.context  # noqa: B018  raises before setup
        return self._pool.exhausted
