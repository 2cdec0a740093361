"""From constraints on profilers to limits on the costs of a `Diagram`."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import attrs
import numpy as np

from nasmw.constraint import Constraint, Constraints
from nasmw.cost import CostTable, TableBase
from nasmw.diagram import Quantity
from nasmw.errors import ConstraintError, ProfilerError
from nasmw.space import Space

__all__ = ["Bounded", "TableRange", "as_constraints", "bounded", "ranges"]


@attrs.frozen(eq=False)
class TableRange:
    """A table and the range that its values must be in; infinite where there is no limit, or one that says nothing."""

    table: TableBase
    low: float
    high: float


@attrs.frozen(eq=False)
class Bounded:
    """A cost and the range that it must be in; `high` is always finite."""

    quantity: Quantity
    low: float
    high: float


def as_constraints(space: Space, terms: Iterable[Constraint | Constraints]) -> tuple[Constraint, ...]:
    """Return the limits one by one, checked, with shares of the space replaced by numbers.

    Raises:
        TypeError: If something is no limit.
        ConstraintError: If a limit is NaN, or two limits on one profiler contradict each other.
        ProfilerError: If a profiler is about another space.
    """
    flat: list[Constraint] = []
    for term in terms:
        if isinstance(term, Constraints):
            flat += term.terms
        elif isinstance(term, Constraint):
            flat.append(term)
        else:
            raise TypeError(f"a feasible set takes limits such as latency <= 25.0, got {term!r}")
    result = []
    for limit in flat:
        about = limit.profiler.space
        if about is not None and about.fingerprint != space.fingerprint:
            raise ProfilerError(f"{limit.profiler!r} is about {about!r}; the feasible set is of {space!r}")
        limit = limit.resolve(lambda profiler, sample: profiler.profile_batch(sample), space)
        if math.isnan(limit.low) or math.isnan(limit.high):
            raise ConstraintError(f"a limit on {limit.profiler.name!r} is NaN: {limit!r}")
        result.append(limit)
    for number, limit in enumerate(result):
        for other in result[: number + 1]:
            if other.profiler is limit.profiler and max(other.low, limit.low) > min(other.high, limit.high):
                raise ConstraintError(
                    f"no value of {limit.profiler.name!r} meets both {str(other)!r} and {str(limit)!r}; "
                    "these limits contradict each other"
                )
    return tuple(result)


def ranges(constraints: Sequence[Constraint]) -> tuple[list[TableRange], list[Constraint]]:
    """Return one range for each table, without those that every architecture meets, and the limits without a table."""
    without = [limit for limit in constraints if not isinstance(limit.profiler.table, TableBase)]
    tables = {id(limit.profiler.table): limit.profiler.table for limit in constraints if limit not in without}
    result = []
    for table in tables.values():
        own = [limit for limit in constraints if limit.profiler.table is table]
        low, high = max(limit.low for limit in own), min(limit.high for limit in own)
        bounds = table.bounds()
        low = -math.inf if low <= bounds.low else low
        high = math.inf if high >= bounds.high else high
        if not math.isinf(low) or not math.isinf(high):
            result.append(TableRange(table, low, high))
    return result, without


def bounded(given: Sequence[TableRange]) -> tuple[list[Bounded], list[Quantity]]:
    """Return the costs to limit, without the tables' constants, and the hard ones, kept at their least value."""
    limited: list[Bounded] = []
    hard: list[Quantity] = []
    for item in given:
        low, high = item.low - item.table.constant, item.high - item.table.constant
        tables = item.table.tables
        if isinstance(item.table, CostTable):
            if math.isinf(high):
                limited.append(Bounded(Quantity([(s, -table) for s, table in tables.items()]), -math.inf, -low))
            else:
                limited.append(Bounded(Quantity(list(tables.items())), low, high))
            continue
        # A maximum is at most `high` where no table exceeds it, and at least `low` where one of them reaches it.
        if not math.isinf(high):
            beyond = [(s, (table + item.table.constant > item.high).astype(np.int64)) for s, table in tables.items()]
            hard.append(Quantity(beyond, hard=True))
        if not math.isinf(low):
            reached = [(s, -(table + item.table.constant >= item.low).astype(np.int64)) for s, table in tables.items()]
            limited.append(Bounded(Quantity(reached), -math.inf, -1))
    return limited, hard
