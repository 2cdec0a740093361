"""LocalSearch: to a better neighbour, again and again; afresh from where there is none."""

from __future__ import annotations

from collections import deque

import numpy as np

from nasmw.candidates import Candidates, Codes, Outcomes
from nasmw.context import Context
from nasmw.strategies.arguments import flag, one_objective, whole
from nasmw.strategies.pool import Pooled
from nasmw.strategy import batch_of_none

__all__ = ["LocalSearch"]


class LocalSearch(Pooled):
    """Local search: asks for the neighbours of the best architecture, and moves to a better one.

    It starts from the best of `initial` random architectures. Neighbours differ in one choice (`Space.neighbours`) and
    are asked for in random order. Where no neighbour is better, it starts again from `initial` new random ones. No
    architecture is asked for twice; once nothing new is left, the strategy is exhausted.

    Args:
        initial: The number of random architectures of each start.
        steepest: Whether all neighbours are evaluated before the search moves to the best of them. If not, it moves as
            soon as it is told of a better one.

    While a start, or the last neighbours, are not told, it asks for nothing: the search waits for them.

    Limits on profilers with a table that are offered to it are met by construction: random architectures are uniform
    over those within them, and in place of a neighbour beyond them there is the architecture within them that differs
    from it in the fewest choices.

    Raises:
        TypeError: If an argument is of the wrong kind.
        ValueError: If `initial` is below 1; at `setup` if there are several objectives.

    Reference: White, Nolen, Savani, Exploring the Loss Landscape in Neural Architecture Search, UAI 2021, algorithm 1
    (``steepest=True``, ``initial=1``) and the variants that query until something better is found and start from the
    best of several (section 4). Deviations: known architectures are not queried again; a choice that becomes active by
    a change takes its first option; where several candidates are open, what comes back from an earlier neighbourhood
    is moved to as well if it is better.

    Example:
        >>> from nasmw.strategies import LocalSearch
        >>> LocalSearch(steepest=True)
        LocalSearch(initial=5, steepest=True)
    """

    def __init__(self, initial: int = 5, steepest: bool = False) -> None:
        self.initial = whole("LocalSearch", "initial", initial)
        self.steepest = flag("LocalSearch", "steepest", steepest)

    def _setup(self, context: Context) -> None:
        one_objective("LocalSearch", context)
        super()._setup(context)
        self._known: dict[bytes, float] = {}
        self._open: set[bytes] = set()
        self._starts: list[tuple[float, Codes]] = []
        self._centre: Codes | None = None
        self._score = -np.inf
        self._neighbours: list[Codes] = []
        self._queue: deque[int] = deque()  # places in the list of neighbours

    def _ask(self, n: int) -> Candidates:
        rows: list[Codes] = []
        while len(rows) < n and (row := self._next()) is not None:
            self._pool.note(row)
            self._open.add(row.tobytes())
            rows.append(row)
        space = self.context.space
        return Candidates.of(space, np.concatenate(rows)) if rows else batch_of_none(space)

    def _next(self) -> Codes | None:
        """Return what to ask for next, ``(1, d)``; None before something is told, or where nothing is left."""
        while True:
            while self._queue:
                place = self._queue.popleft()
                row = self._neighbours[place] = self._pool.repaired(self._neighbours[place])
                if self._pool.is_new(row):
                    return row
            if self._open and (self._centre is not None or len(self._starts) + len(self._open) >= self.initial):
                return None
            if self._centre is None or not self._climb():
                break
        if self._centre is not None:  # no neighbour is better
            self._centre = None
            self._starts = []
        return self._pool.random()

    def _tell(self, outcomes: Outcomes) -> None:
        for number, score in enumerate(outcomes.scores[:, 0].tolist()):
            row = outcomes.codes[number : number + 1]
            self._pool.note(row)
            self._open.discard(row.tobytes())
            if score != score:
                continue
            self._known[row.tobytes()] = score
            if self._centre is None:
                self._starts.append((score, row))
            elif not self.steepest and score > self._score:
                self._move(row, score)
        if self._centre is None and not self._open and len(self._starts) >= self.initial:
            score, row = max(self._starts, key=lambda start: start[0])
            self._move(row, score)

    def _move(self, row: Codes, score: float) -> None:
        """Make an architecture the centre; where a neighbour is known to be better, go on to that one."""
        self._settle(row, score)
        while not self.steepest and self._climb():
            pass

    def _climb(self) -> bool:
        """Move to the best neighbour that was told if it is better; return whether it was."""
        scores = [self._known.get(row.tobytes(), -np.inf) for row in self._neighbours]
        if not scores or max(scores) <= self._score:
            return False
        best = int(np.argmax(scores))
        self._settle(self._neighbours[best], scores[best])
        return True

    def _settle(self, row: Codes, score: float) -> None:
        """Make an architecture, ``(1, d)``, the centre, and queue its neighbours in random order."""
        self._centre, self._score = row, score
        near = self.context.space.neighbours(row[0]).codes
        self._neighbours = [near[place : place + 1] for place in self._rng.permutation(len(near)).tolist()]
        self._queue = deque(range(len(near)))
