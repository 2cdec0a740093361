"""Architectures as numbers of options, over all choices: for counts, draws and distances."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from nasmw.candidates import Codes, Floats
from nasmw.space import Space

__all__ = ["Options", "Rows"]

Numbers = npt.NDArray[np.intp]


class Options:
    """The options of all choices of a space, numbered one after the other.

    Args:
        space: The space.

    Attributes:
        total: The number of options of all choices together.
    """

    def __init__(self, space: Space) -> None:
        self._space = space
        sizes = np.array([len(choice.options) for choice in space.choices])
        self.total = int(sizes.sum())
        self._first = np.cumsum(sizes) - sizes
        self._choice = np.repeat(np.arange(len(sizes)), sizes)
        self._beyond = np.arange(sizes.max()) >= sizes[:, None]
        self._padded = np.where(self._beyond, self.total, self._first[:, None] + np.arange(sizes.max()))

    def numbers(self, codes: Codes) -> Numbers:
        """Return the numbers of the options of rows, ``(n, d)``; `total` where a choice is inactive."""
        numbers: Numbers = np.where(self._space.active(codes), codes + self._first, self.total)
        return numbers

    def ones(self, codes: Codes) -> Floats:
        """Return ``(n, total)``: one for each option of an active choice, else zero."""
        result = np.zeros((len(codes), self.total + 1))
        np.put_along_axis(result, self.numbers(codes), 1.0, axis=1)
        return result[:, :-1]

    def sums(self, values: Floats) -> Floats:
        """Return for each option the sum of ``(total,)`` values over the options of its choice."""
        return np.bincount(self._choice, values).astype(np.float64)[self._choice]

    def draw(self, weights: Floats, n: int, rng: np.random.Generator) -> Codes:
        """Return `n` rows, ``(n, d)``: each choice drawn by itself, options in proportion to ``(total,)`` weights."""
        table = np.append(weights, 0.0)[self._padded].cumsum(axis=1)
        reached = rng.random((n, len(table))) * table[:, -1]
        codes = (reached[:, :, None] >= table[None]).sum(axis=2)
        # Rounding may reach the sum itself.
        codes = np.minimum(codes, (~self._beyond).sum(axis=1) - 1)
        return self._space.canonical(codes.astype(self._space.dtype))


class Rows:
    """A growing table of the options of architectures, with their scores.

    Args:
        choices: The number of choices of the space.
    """

    def __init__(self, choices: int) -> None:
        self._numbers = np.zeros((64, choices), dtype=np.intp)
        self._scores = np.zeros(64)
        self._length = 0

    def __len__(self) -> int:
        return self._length

    @property
    def numbers(self) -> Numbers:
        """The numbers of the options, ``(n, d)``."""
        return self._numbers[: self._length]

    @property
    def scores(self) -> Floats:
        """The scores, ``(n,)``."""
        return self._scores[: self._length]

    def add(self, numbers: Numbers, score: float) -> None:
        """Add one architecture by the numbers of its options, ``(d,)``."""
        if self._length == len(self._scores):
            self._numbers = np.concatenate([self._numbers, np.zeros_like(self._numbers)])
            self._scores = np.concatenate([self._scores, np.zeros_like(self._scores)])
        self._numbers[self._length] = numbers
        self._scores[self._length] = score
        self._length += 1
