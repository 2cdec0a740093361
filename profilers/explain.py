"""Finding out which choices decide an observed number, from random observations and a few chosen ones."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence

import attrs
import numpy as np
import numpy.typing as npt

from nasmw.candidates import Codes
from nasmw.errors import ProfilerError
from nasmw.space import Space

__all__ = ["Explainer", "Leaf", "NotDecomposableError", "Split", "Tree", "restrict"]

Ints = npt.NDArray[np.int64]
ABSENT = -1
MAX_COMBINATIONS = 2_000
MAX_LEAVES = 500
PAIR_ROWS = 4
FLAGS = 50_000


class NotDecomposableError(ProfilerError):
    """The costs of a space are no sum of small tables, as far as was found out."""


@attrs.frozen(eq=False)
class Leaf:
    """A number that a few choices decide.

    Attributes:
        scope: The columns of these choices; none of them guards other choices.
        values: What was observed, by their codes.
    """

    scope: tuple[int, ...]
    values: Mapping[tuple[int, ...], int]


@attrs.frozen(eq=False)
class Split:
    """A number for which each option of a choice that guards others is a case of its own.

    Attributes:
        column: The choice.
        cases: The case of each code; codes without observations are missing.
    """

    column: int
    cases: Mapping[int, Tree]


Tree = Leaf | Split


def restrict(tree: Tree | None, column: int, code: int) -> Tree | None:
    """Return what remains of a tree where a choice is known; None where nothing was observed."""
    if not isinstance(tree, Split):
        return tree
    if tree.column == column:
        return tree.cases.get(code)
    cases = {other: restrict(case, column, code) for other, case in tree.cases.items()}
    kept = {other: case for other, case in cases.items() if case is not None}
    return Split(tree.column, kept) if kept else None


Observe = Callable[[Codes], int]


class Explainer:
    """Explains columns of observations by the choices of a space.

    Args:
        space: The space.
        codes: ``(n, d)`` the canonical codes that were observed.
    """

    def __init__(self, space: Space, codes: Codes) -> None:
        self.space = space
        self.codes = np.asarray(codes, dtype=np.int64)
        self.sizes = [len(choice.options) for choice in space.choices]
        self.guards = {gate for gates in space.gates for gate in gates}
        self._leaves = 0

    def explain(self, values: Ints, observe: Observe) -> Tree:
        """Return the tree of a column of observations.

        Args:
            values: ``(n,)`` what was observed, `ABSENT` where there was nothing.
            observe: Returns what is observed at another row of codes; called where the observations leave open which
                choice it is.

        Raises:
            NotDecomposableError: If too many choices decide it.
        """
        self._leaves = 0
        rows = np.flatnonzero(values != ABSENT)
        return self._tree(rows, values, (), frozenset(), observe)

    def _tree(self, rows: Ints, values: Ints, scope: tuple[int, ...], known: frozenset[int], observe: Observe) -> Tree:
        while True:
            ids = self._ids(rows, scope)
            if not _excess(ids, values[rows]):
                self._leaves += 1
                if self._leaves > MAX_LEAVES:
                    raise NotDecomposableError(f"more than {MAX_LEAVES} cases decide one number")
                keys = map(tuple, self.codes[rows][:, list(scope)].tolist())
                return Leaf(scope, dict(zip(keys, values[rows].tolist(), strict=True)))
            column = self._next(rows, ids, values, scope, known, observe)
            unknown = [gate for gate in self._gates(column) if gate not in known]
            if unknown or column in self.guards:
                column = unknown[0] if unknown else column
                break
            scope = tuple(sorted((*scope, column)))
            combinations = np.prod([self.sizes[member] for member in scope], dtype=np.float64)
            if combinations > MAX_COMBINATIONS:
                names = [self.space.choices[member].name for member in scope]
                raise NotDecomposableError(f"one number of a layer depends on all of {', '.join(names)}")
        cases = {}
        for code in np.unique(self.codes[rows, column]).tolist():
            chosen = rows[self.codes[rows, column] == code]
            cases[code] = self._tree(chosen, values, scope, known | {column}, observe)
        return Split(column, cases)

    def _gates(self, column: int) -> list[int]:
        """Return the gates of a column and theirs, outermost first."""
        found: list[int] = []
        for gate in self.space.gates[column]:
            found += [*self._gates(gate), gate]
        return list(dict.fromkeys(found))

    def _ids(self, rows: Ints, scope: Sequence[int]) -> Ints:
        ids = np.zeros(len(rows), dtype=np.int64)
        for column in scope:
            ids = ids * self.sizes[column] + self.codes[rows, column]
        return ids

    def _next(
        self,
        rows: Ints,
        ids: Ints,
        values: Ints,
        scope: tuple[int, ...],
        known: frozenset[int],
        observe: Observe,
    ) -> int:
        """Return a choice that decides the number besides those of the scope."""
        # Small numbers: they are counted by flags.
        seen = np.unique(values[rows], return_inverse=True)[1]
        ids = np.unique(ids, return_inverse=True)[1]
        varying = [
            column
            for column in range(len(self.sizes))
            if column not in scope and column not in known and np.ptp(self.codes[rows, column])
        ]
        extended = {column: ids * self.sizes[column] + self.codes[rows, column] for column in varying}
        # Where two rows agree on the scope and not in value, one of the choices that are missing has to differ.
        codes = self.codes[rows][:, varying]
        same = np.equal(*(codes[side] for side in _conflicts(ids, seen))).astype(np.float32)
        together = same.T @ same
        enough = [
            column for at, column in enumerate(varying) if not together[at, at] and not _excess(extended[column], seen)
        ]
        if len(enough) == 1:
            return enough[0]
        if not enough:
            pairs = ((varying[one], varying[other]) for one, other in np.argwhere(np.triu(together == 0, 1)).tolist())
            fitting = (
                pair
                for pair in pairs
                if self.sizes[pair[0]] * self.sizes[pair[1]] * PAIR_ROWS <= len(rows)
                and not _excess(extended[pair[0]] * self.sizes[pair[1]] + self.codes[rows, pair[1]], seen)
            )
            first = list(itertools.islice(fitting, 2))
            if len(first) == 1:
                return first[0][0]
        return self._bisect(rows, ids, values, (*scope, *known), observe)

    def _bisect(self, rows: Ints, ids: Ints, values: Ints, agreed: Sequence[int], observe: Observe) -> int:
        """Return a choice that makes the difference between two rows that agree on some choices."""
        one, other = self._conflict(rows, ids, values)
        first, second = self.codes[one].copy(), self.codes[other].copy()
        value = int(values[one])
        differing = [column for column in np.flatnonzero(first != second).tolist() if column not in agreed]
        while len(differing) > 1:
            half = differing[: len(differing) // 2]
            middle = first.copy()
            middle[half] = second[half]
            row = self.space.canonical(middle[None].astype(self.space.dtype))[0]
            if observe(row) == value:
                first = middle
                differing = differing[len(half) :]
            else:
                second = middle
                differing = half
        return differing[0]

    def _conflict(self, rows: Ints, ids: Ints, values: Ints) -> tuple[int, int]:
        """Return the two nearest rows among some that agree on the scope and differ in value."""
        best: tuple[int, int, int] | None = None
        for group in np.unique(ids).tolist():
            members = rows[ids == group]
            if len(np.unique(values[members])) < 2:
                continue
            first = members[0]
            for first in members[:8]:
                others = members[values[members] != values[first]]
                distances = (self.codes[others] != self.codes[first]).sum(axis=1)
                at = int(distances.argmin())
                if best is None or distances[at] < best[0]:
                    best = int(distances[at]), int(first), int(others[at])
        if best is None:
            raise RuntimeError("a conflict was counted and is not to be found")
        return best[1], best[2]

    def combinations(self, scope: Sequence[int]) -> Iterator[tuple[int, ...]]:
        """Yield all codes of a scope."""
        return itertools.product(*(range(self.sizes[column]) for column in scope))


def _conflicts(ids: Ints, values: Ints) -> tuple[Ints, Ints]:
    """Return pairs of rows that agree in id and not in value, as two arrays."""
    order = np.lexsort((values, ids))
    differ = (np.diff(ids[order]) == 0) & (np.diff(values[order]) != 0)
    return order[:-1][differ], order[1:][differ]


def _excess(ids: Ints, values: Ints) -> int:
    """Return how many values there are beyond one for each id; 0 where the ids decide the values."""
    return _distinct(ids * (int(values.max()) + 1) + values) - _distinct(ids) if len(ids) else 0


def _distinct(numbers: Ints) -> int:
    """Return how many different numbers there are; they are not negative."""
    if (greatest := int(numbers.max())) < FLAGS:
        seen = np.zeros(greatest + 1, dtype=np.bool_)
        seen[numbers] = True
        return int(np.count_nonzero(seen))
    ordered = np.sort(numbers)
    return 1 + int(np.count_nonzero(ordered[1:] != ordered[:-1]))
