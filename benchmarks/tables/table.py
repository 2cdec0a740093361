"""What a benchmark of published measurements gives: a space, evaluations, profilers of its columns, known optima."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs
import numpy as np
import numpy.typing as npt

from nasmw import Candidates, Constraint, CostTable, Space, TabledProfiler, Trial
from nasmw.candidates import Architecture, Codes, Floats

__all__ = ["Benchmark", "Best", "ColumnProfiler", "Evaluate", "Index"]

BEYOND = 10.0
"""An architecture that was not measured counts as this many times the greatest value that was."""


@attrs.frozen
class Index:
    """The row of an architecture in published tables.

    Attributes:
        steps: For each choice its name, and what each of its options adds to the place of an architecture.
        rows: ``(size,)`` the row at each place.
    """

    steps: tuple[tuple[str, Mapping[Any, int]], ...]
    rows: npt.NDArray[np.intp] = attrs.field(eq=False, repr=False)

    @classmethod
    def of(cls, space: Space, codes: Codes) -> Index:
        """Join the rows of a published table to a space.

        Args:
            space: A space without conditions.
            codes: ``(size, d)`` the options of each row.

        Raises:
            ValueError: If the rows are not every architecture of the space exactly once.
        """
        sizes = [len(choice.options) for choice in space.choices]
        if any(space.gates) or np.shape(codes) != (space.size, len(sizes)):
            raise ValueError(f"a table of every architecture of {space!r} was wanted, got codes of {np.shape(codes)}")
        places = np.ravel_multi_index(tuple(space.check_codes(codes).T), sizes)
        rows = np.full(space.size, -1)
        rows[places] = np.arange(space.size)
        if (rows < 0).any():
            raise ValueError(f"{int((rows < 0).sum())} architectures of {space!r} are in no row of the table")
        strides = np.cumprod([1, *sizes[:0:-1]])[::-1].tolist()
        steps = tuple(
            (choice.name, {option: code * stride for code, option in enumerate(choice.options)})
            for choice, stride in zip(space.choices, strides, strict=True)
        )
        return cls(steps, rows)

    def row(self, architecture: Architecture) -> int:
        """Return the row of one architecture."""
        return int(self.rows[sum(step[architecture[name]] for name, step in self.steps)])

    def rows_of(self, codes: Codes) -> npt.NDArray[np.intp]:
        """Return the rows of ``(n, d)`` codes, ``(n,)``."""
        return self.rows[np.ravel_multi_index(tuple(codes.T), [len(step) for _, step in self.steps])]


@attrs.frozen
class Evaluate:
    """Looks up what the training of an architecture gave: the `evaluate` of a `Search`; it can be pickled.

    Attributes:
        index: Where the rows are.
        metrics: By budget, in ascending order: by metric ``(rows,)`` values. ``(rows, k)`` are `k` runs, of which the
            trial's seed decides on one. A trial without a budget gets the last.
    """

    index: Index
    metrics: Mapping[float, Mapping[str, Floats]] = attrs.field(eq=False, repr=False)

    def __call__(self, trial: Trial) -> dict[str, float]:
        """Return the metrics of a trial.

        Raises:
            ValueError: If nothing is known for the trial's budget.
        """
        budget = next(reversed(self.metrics)) if trial.budget is None else trial.budget
        if budget not in self.metrics:
            raise ValueError(f"the benchmark knows the budgets {list(self.metrics)}, got {budget!r}")
        row = self.index.row(trial.architecture)
        found = {name: values[row] for name, values in self.metrics[budget].items()}
        return {
            name: float(value if value.ndim == 0 else value[trial.seed % len(value)]) for name, value in found.items()
        }


class ColumnProfiler(TabledProfiler):
    """A published measurement of every architecture: measured once and for all, so that limits are met by construction.

    Args:
        index: Where the rows are.
        space: The space.
        values: ``(rows,)``; NaN where there is no measurement. Such an architecture gets ten times the greatest value,
            which no limit of use lets pass.
        name: The name of the metric.
        unit: The unit.
        device: What it was measured on.

    Attributes:
        measured: ``(rows,)`` where there is a measurement.
    """

    def __init__(
        self, index: Index, space: Space, values: npt.ArrayLike, name: str, unit: str = "", device: str | None = None
    ) -> None:
        column = np.asarray(values, dtype=np.float64)
        self.measured = np.isfinite(column)
        column = np.where(self.measured, column, BEYOND * column[self.measured].max())
        shape = [len(choice.options) for choice in space.choices]
        table = CostTable(space, [(space.names, column[index.rows].reshape(shape))], name=name)
        super().__init__(table, name, unit, kind="measured", device=device)

    @property
    def fixed(self) -> bool:
        """True: the measurements are published numbers, which do not change."""
        return True


@attrs.frozen
class Best:
    """The best architecture of a table.

    Attributes:
        value: Its value.
        row: Its row in the published table.
        architecture: What it is.
    """

    value: float
    row: int
    architecture: Architecture


class Benchmark:
    """A space of which every architecture was trained, with what is known of each.

    Rows are in the order of the published tables.

    Args:
        space: A space without conditions.
        codes: ``(rows, d)`` the options of each row.
        columns: ``(rows,)`` numbers by name.

    Attributes:
        space: The space to search.
        index: The row of each architecture.
        codes: ``(rows, d)`` codes of the space.
        columns: ``(rows,)`` float64 by name, NaN where a number is not known.
    """

    def __init__(self, space: Space, codes: npt.ArrayLike, columns: Mapping[str, npt.ArrayLike]) -> None:
        self.space = space
        self.codes = space.check_codes(np.asarray(codes))
        self.index = Index.of(space, self.codes)
        self.columns: dict[str, Floats] = {
            name: np.asarray(values, dtype=np.float64) for name, values in columns.items()
        }

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self.space!r}: {len(self.columns)} columns>"

    def column(self, name: str) -> Floats:
        """Return a column, ``(rows,)``.

        Raises:
            KeyError: If there is none of this name.
        """
        if name not in self.columns:
            raise KeyError(f"{self!r} has no column {name!r}; it has {', '.join(self.columns)}")
        return self.columns[name]

    def rows_of(self, candidates: Candidates) -> npt.NDArray[np.intp]:
        """Return the rows of candidates, ``(n,)``."""
        return self.index.rows_of(candidates.codes)

    def profiler(self, column: str, unit: str = "", device: str | None = None, name: str = "") -> ColumnProfiler:
        """Return a profiler of a column, named like the column unless a name is given."""
        return ColumnProfiler(self.index, self.space, self.column(column), name or column, unit, device)

    def within(self, *limits: Constraint) -> npt.NDArray[np.bool_]:
        """Return which rows are within limits, ``(rows,)``."""
        every = Candidates.of(self.space, self.codes)
        inside = np.ones(len(every), dtype=np.bool_)
        for limit in limits:
            inside &= limit.holds(limit.profiler.profile_batch(every))
        return inside

    def best(self, column: str, *limits: Constraint) -> Best:
        """Return the architecture with the greatest value within limits; the first of equals.

        Raises:
            ValueError: If nothing is within the limits.
        """
        values = np.where(self.within(*limits), self.column(column), np.nan)
        if np.isnan(values).all():
            raise ValueError(f"no architecture of {self.space!r} is within {', '.join(map(str, limits))}")
        row = int(np.nanargmax(values))
        return Best(float(values[row]), row, self.space.decode(self.codes[row]))
