"""Random: architectures drawn uniformly, whatever is told."""

from __future__ import annotations

from nasmw.candidates import Candidates, Outcomes
from nasmw.constraint import Constraint
from nasmw.context import Context
from nasmw.strategies.within import Source
from nasmw.strategy import Strategy

__all__ = ["Random"]


class Random(Strategy):
    """Random search: uniform over the distinct architectures of the space, whatever it is told.

    Args:
        replacement: Whether an architecture may be drawn again. If not, each is asked for exactly once and the
            strategy is exhausted then; memory does not grow with the number asked for, however large the space. Order
            is then a uniformly random permutation up to 65,536 architectures, and a keyed pseudorandom one beyond.

    Limits on profilers with a table that are offered to it are met by construction: draws are uniform over the
    architectures within them.

    Raises:
        TypeError: If `replacement` is no bool.

    Example:
        >>> from nasmw.strategies import Random
        >>> from nasmw.testing import drive, toy_space
        >>> len(set(drive(Random(replacement=False), toy_space(), trials=2000, n=50).row_keys()))
        1596
    """

    def __init__(self, replacement: bool = True) -> None:
        if not isinstance(replacement, bool):
            raise TypeError(f"Random: replacement is True or False, got {replacement!r}")
        self.replacement = replacement

    def _setup(self, context: Context) -> None:
        self._source = Source(context.space, context.rng, distinct=not self.replacement)

    def _offer(self, term: Constraint) -> bool:
        return self._source.promise(term)

    @property
    def exhausted(self) -> bool:
        """Whether every architecture has been asked for; never with replacement."""
        self.context  # noqa: B018  raises before setup
        return not self._source.left

    def _ask(self, n: int) -> Candidates:
        return Candidates.of(self.context.space, self._source.take(n))

    def _tell(self, outcomes: Outcomes) -> None:
        pass

    def _adopt(self, outcomes: Outcomes) -> None:
        if not self.replacement:
            self._source.leave_out(outcomes.codes)
