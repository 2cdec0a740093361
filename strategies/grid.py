"""Grid: every architecture once."""

from __future__ import annotations

from nasmw.candidates import Candidates, Outcomes
from nasmw.constraint import Constraint
from nasmw.context import Context
from nasmw.strategies.within import Source
from nasmw.strategy import Strategy

__all__ = ["Grid"]


class Grid(Strategy):
    """Exhaustive search: every architecture of the space exactly once; exhausted then.

    Args:
        shuffle: Whether the order is random. If not, it is that of the ranks (`Space.at`), which does not depend on
            the seed: the choice walked first changes slowest.

    Limits on profilers with a table that are offered to it are met by construction: it walks through the architectures
    within them alone, in an order of their own.

    Raises:
        TypeError: If `shuffle` is no bool.

    Example:
        >>> from nasmw.choice import Choice
        >>> from nasmw.space import Space
        >>> from nasmw.strategies import Grid
        >>> from nasmw.testing import drive
        >>> space = Space([Choice("depth", (1, 2)), Choice("kernel", (3, 5), when={"depth": 2})])
        >>> list(drive(Grid(), space))
        [{'depth': 1}, {'depth': 2, 'kernel': 3}, {'depth': 2, 'kernel': 5}]
    """

    def __init__(self, shuffle: bool = False) -> None:
        if not isinstance(shuffle, bool):
            raise TypeError(f"Grid: shuffle is True or False, got {shuffle!r}")
        self.shuffle = shuffle

    def _setup(self, context: Context) -> None:
        self._source = Source(context.space, context.rng if self.shuffle else None, distinct=True)

    def _offer(self, term: Constraint) -> bool:
        return self._source.promise(term)

    @property
    def exhausted(self) -> bool:
        """Whether every architecture has been asked for."""
        self.context  # noqa: B018  raises before setup
        return not self._source.left

    def _ask(self, n: int) -> Candidates:
        return Candidates.of(self.context.space, self._source.take(n))

    def _tell(self, outcomes: Outcomes) -> None:
        pass

    def _adopt(self, outcomes: Outcomes) -> None:
        self._source.leave_out(outcomes.codes)
