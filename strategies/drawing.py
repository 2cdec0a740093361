"""Where strategies draw architectures from: at random with replacement, or each one exactly once."""

from __future__ import annotations

import hashlib
import math

import numpy as np
import numpy.typing as npt

from nasmw.candidates import Codes
from nasmw.feasible import FeasibleSet
from nasmw.space import Space

__all__ = ["Distinct", "Independent", "Permutation"]

BLOCK = 256
TABULATED = 1 << 16
ROUNDS = 6


class Independent:
    """Uniform draws with replacement from a space, or from what limits leave of one.

    Rows are drawn in blocks of a fixed size, so that the sequence does not depend on how many are taken at a time.

    Args:
        source: The space, or the set of feasible architectures, to draw from.
        rng: The generator; only blocks are drawn from it.
    """

    def __init__(self, source: Space | FeasibleSet, rng: np.random.Generator) -> None:
        space = source.space if isinstance(source, FeasibleSet) else source
        self._source = source
        self._rng = rng
        self._block: Codes = np.zeros((0, len(space)), dtype=space.dtype)
        self._next = 0

    def take(self, n: int) -> Codes:
        """Return the next `n` rows, ``(n, d)``."""
        start, self._next = self._next, self._next + n
        if self._next > len(self._block):
            rest = self._block[start:]
            wanted = n - len(rest)
            blocks = -(-wanted // BLOCK)
            drawn = [self._source.sample(BLOCK, self._rng).codes for _ in range(blocks)]
            self._block = np.concatenate([rest, *drawn])
            start, self._next = 0, n
        return self._block[start : self._next]


class Permutation:
    """A bijection of ``0 ... size - 1``, chosen by a generator, in memory that does not grow with `size`.

    Up to 65,536 numbers it is a uniformly random permutation, held as a table. Beyond, it is a keyed pseudorandom
    one: numbers are written as pairs ``(left, right)`` over two ranges whose product is just above `size`; in turn,
    each part is shifted by a hash of the other one; and whatever falls outside the size is passed through again.

    Args:
        size: How many numbers there are; any positive Python integer.
        rng: The generator that the table, or the 128-bit key, is drawn from.

    Reference: Black and Rogaway, Ciphers with Arbitrary Finite Domains, CT-RSA 2002, section 5 (generalized Feistel)
    and section 3 (cycle walking). Here both halves are shifted in turn in place, and the round function is SHAKE-128.

    Example:
        >>> import numpy as np
        >>> shuffled = Permutation(10**80, np.random.default_rng(0))
        >>> len({shuffled(number) for number in range(1000)})
        1000
    """

    def __init__(self, size: int, rng: np.random.Generator) -> None:
        if size < 1:
            raise ValueError(f"a permutation is of at least one number, got a size of {size!r}")
        self.size = size
        self._table: npt.NDArray[np.intp] | None = rng.permutation(size) if size <= TABULATED else None
        self._key = rng.bytes(16)
        self._left = math.isqrt(size - 1) + 1
        self._right = -(-size // self._left)
        # 64 bits more than a part has make the bias of the remainder negligible.
        self._bytes = self._left.bit_length() // 8 + 9

    def __call__(self, number: int) -> int:
        """Return the image of a number.

        Raises:
            IndexError: If it is not from 0 to ``size - 1``.
        """
        if not 0 <= number < self.size:
            raise IndexError(f"number {number} of a permutation of {self.size}")
        if self._table is not None:
            return int(self._table[number])
        number = self._pass(number)
        while number >= self.size:
            number = self._pass(number)
        return number

    def _pass(self, number: int) -> int:
        left, right = divmod(number, self._right)
        for turn in range(0, ROUNDS, 2):
            left = (left + self._hash(turn, right)) % self._left
            right = (right + self._hash(turn + 1, left)) % self._right
        return left * self._right + right

    def _hash(self, turn: int, part: int) -> int:
        text = self._key + bytes((turn,)) + part.to_bytes(self._bytes, "big")
        return int.from_bytes(hashlib.shake_128(text).digest(self._bytes), "big")


class Distinct:
    """Every architecture of a space exactly once, in the order of ranks or shuffled.

    Args:
        space: The space to walk through.
        rng: The generator that the order is drawn from; None for the order of ranks.
    """

    def __init__(self, space: Space, rng: np.random.Generator | None) -> None:
        self._space = space
        self._order = None if rng is None else Permutation(space.size, rng)
        self._taken = 0

    @property
    def left(self) -> int:
        """The number of architectures that have not been taken."""
        return self._space.size - self._taken

    def take(self, n: int) -> Codes:
        """Return the next rows, up to `n` of them, as ``(n, d)``; fewer where fewer are left."""
        numbers = range(self._taken, self._taken + min(n, self.left))
        self._taken = numbers.stop
        return self._space.at(numbers if self._order is None else [self._order(number) for number in numbers]).codes
