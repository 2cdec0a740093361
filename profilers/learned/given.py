"""Given: numbers of the user's own as an encoding, such as zero-cost proxies."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from nasmw.candidates import Candidates, Codes, Floats
from nasmw.errors import ProfilerError
from nasmw.profilers.learned.encodings import Encoding
from nasmw.space import Space

__all__ = ["Given"]


class Given(Encoding):
    """Numbers of the user's own about each architecture: zero-cost proxies, or what another tool says.

    Columns are scaled to mean 0 and standard deviation 1 over the values given (those of a function are left as they
    are). Files of profilers do not hold the numbers: hand the same object to ``LearnedProfiler.load(..., given=...)``.

    Args:
        name: By which texts, files and messages call the encoding: an identifier.
        values: A function of candidates that returns ``(n, p)`` numbers, a pair of ``(n, d)`` codes and ``(n, p)``
            numbers, or a mapping of the space's `Candidates.row_keys` to ``p`` numbers each.
        columns: The names of the ``p`` columns.

    Raises:
        TypeError: If `values` is none of these.
        ProfilerError: If the name is no identifier, or numbers do not fit or are not finite; at use, if an architecture
            has none.

    Example:
        >>> from nasmw.testing import toy_space
        >>> space = toy_space()
        >>> known = space.sample(5, np.random.default_rng(0))
        >>> proxies = Given("proxies", (known.codes, np.arange(10.0).reshape(5, 2)), ["synflow", "jacov"])
        >>> proxies.encode(known).values.shape
        (5, 2)
    """

    def __init__(
        self,
        name: str,
        values: Callable[[Candidates], npt.ArrayLike] | tuple[Codes, npt.ArrayLike] | Mapping[bytes, Sequence[float]],
        columns: Sequence[str],
    ) -> None:
        if not isinstance(name, str) or not name.isidentifier():
            raise ProfilerError(f"an encoding of given values is named by an identifier, got {name!r}")
        self.name = name
        self.columns = tuple(columns)
        if not self.columns:
            raise ProfilerError(f"the encoding {name!r} needs a name for each of its columns")
        self._function: Callable[[Candidates], npt.ArrayLike] | None = None
        self._rows: dict[bytes, int] = {}
        self._numbers = np.zeros((0, len(self.columns)))
        if isinstance(values, Mapping):
            self._take(list(values), list(values.values()))
        elif isinstance(values, tuple) and len(values) == 2:
            self._take([row.tobytes() for row in np.ascontiguousarray(values[0])], values[1])
        elif callable(values):
            self._function = values
        else:
            raise TypeError(
                f"values are given by a function, a pair of codes and numbers, or a mapping, got {values!r}"
            )

    def _take(self, keys: list[bytes], values: npt.ArrayLike) -> None:
        numbers = np.asarray(values, dtype=np.float64)
        if numbers.shape != (len(keys), len(self.columns)) or not np.isfinite(numbers).all():
            raise ProfilerError(
                f"the encoding {self.name!r} takes {len(self.columns)} finite numbers for each of {len(keys)} "
                f"architectures, got {numbers.shape}"
                + ("" if np.isfinite(numbers).all() else ", and some are not finite")
            )
        size = numbers.std(axis=0)
        size[size == 0.0] = 1.0
        self._numbers = (numbers - numbers.mean(axis=0)) / size
        self._rows = {key: row for row, key in enumerate(keys)}

    def __str__(self) -> str:
        return self.name

    def plan(self, space: Space) -> Any:
        """Return nothing: there is nothing to prepare, and two objects of one name may hold other numbers."""
        return None

    def _prepare(self, space: Space) -> Any:
        return None

    def _encode(self, plan: Any, candidates: Candidates, active: npt.NDArray[np.bool_]) -> Floats:
        if self._function is not None:
            found = np.asarray(self._function(candidates), dtype=np.float64)
            if found.shape != (len(candidates), len(self.columns)) or not np.isfinite(found).all():
                raise ProfilerError(
                    f"the function of the encoding {self.name!r} is to give finite numbers of shape "
                    f"{(len(candidates), len(self.columns))}, got {found.shape}"
                )
            return found
        rows = [self._rows.get(key, -1) for key in candidates.row_keys()]
        if -1 in rows:
            missing = next(iter(candidates[rows.index(-1)]))
            raise ProfilerError(f"the encoding {self.name!r} was given no numbers for {missing!r}")
        taken: Floats = self._numbers[rows]
        return taken

    def examples(self, space: Space, n: int) -> Candidates:
        """Return up to `n` random architectures that have numbers, to take means and sizes of columns from."""
        rng = np.random.default_rng(0)
        if self._function is not None:
            return space.sample(n, rng)
        rows = np.frombuffer(b"".join(self._rows), dtype=space.dtype).reshape(len(self._rows), len(space))
        return space.candidates(rng.permutation(rows)[:n])

    def names(self, space: Space) -> tuple[str, ...]:
        """Return the names of the columns."""
        return self.columns

    def width(self, space: Space) -> int:
        """Return the number of columns."""
        return len(self.columns)

    def fingerprint(self, space: Space) -> str:
        """Return the names: whoever loads a file answers for the numbers being the same."""
        return " ".join((self.name, *self.columns))
