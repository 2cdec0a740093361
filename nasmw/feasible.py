"""FeasibleSet: the architectures of a space that meet limits; counted, drawn from and searched without enumeration."""

from __future__ import annotations

import math
import weakref
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property

import numpy as np
import numpy.typing as npt

from nasmw.binned import PROVED, Binned, Limit, ascending, bins_for, bytes_for, cheapest
from nasmw.candidates import Candidates, Codes
from nasmw.constraint import Constraint, Constraints
from nasmw.cost import CostTable, MaxTable, TableBase
from nasmw.diagram import Diagram, Quantity, TooBigError
from nasmw.elimination import Variable
from nasmw.errors import ConstraintError, ProfilerError
from nasmw.findings import Count, Diagnosis, Estimate, LimitReport, Optimum
from nasmw.limits import Bounded, TableRange, as_constraints, bounded, ranges
from nasmw.profiler import Profiler
from nasmw.repair import Repair
from nasmw.space import Space, check_draw
from nasmw.walk import Walk

__all__ = ["Count", "Diagnosis", "Estimate", "FeasibleSet", "LimitReport", "Optimum", "by_construction"]

BUDGET_BYTES = 256 * 2**20
STEPS_ONE = 3e7  # additions that building may take with one limit: a tenth of a second
STEPS = 1.8e8  # with several: two thirds of a second
_SHARED: weakref.WeakValueDictionary[tuple[object, ...], FeasibleSet] = weakref.WeakValueDictionary()
PROBES = 2048
GUIDING = 1024  # bins of what only guides a search: what it finds is checked exactly
RANKED = 2**53
TRIES = 2**21
NEVER = 4096


def by_construction(term: Constraint) -> bool:
    """Return whether a limit can be met by construction: its profiler computes what a table says, once and for all."""
    return term.profiler.fixed and isinstance(term.profiler.table, TableBase)


class FeasibleSet:
    """The architectures of a space that meet all of some limits.

    Limits on profilers with a `CostTable` or a `MaxTable` are met by construction. What a limit leaves is counted by
    dynamic programming over the choices, with slack in bins; rounding makes the set that is drawn from a little too
    large, and what is beyond a limit is drawn again. A limit on a profiler without a table, or on tables that overlap
    too much, is met by drawing again alone; the repr says which.

    Args:
        space: The space.
        *constraints: Limits such as ``latency <= 25.0``, or several joined by ``&``.
        budget_bytes: What the counts may need in memory. More limits need more: beyond the budget bins become fewer,
            and more draws are rejected.
        bins: How many bins of slack each limit has; None for as many as are of use, up to the budget and what is
            built in well under a second.

    Attributes:
        space: The space.
        constraints: The limits, shares of the space among them replaced by numbers.
        rejected: Those of them that are met by drawing again alone.

    Raises:
        TypeError: If something else than a limit is given.
        ConstraintError: If a limit is NaN, or two limits on one profiler contradict each other.
        ProfilerError: If a profiler is about another space.

    Example:
        >>> import numpy as np
        >>> from nasmw import Choice, Space
        >>> from nasmw.cost import CostTable
        >>> from nasmw.tabled import TabledProfiler
        >>> space = Space([Choice(f"width{i}", (1, 2, 3)) for i in range(30)])
        >>> width = TabledProfiler(CostTable(space, [((f"width{i}",), [1, 2, 3]) for i in range(30)], name="width"))
        >>> few = FeasibleSet(space, width <= 32)
        >>> few.count().exact
        496
        >>> bool(width.profile_batch(few.sample(5, np.random.default_rng(0))).max() <= 32)
        True
    """

    def __init__(
        self,
        space: Space,
        *constraints: Constraint | Constraints,
        budget_bytes: int = BUDGET_BYTES,
        bins: int | None = None,
    ) -> None:
        if not isinstance(space, Space):
            raise TypeError(f"FeasibleSet takes a Space first, got {type(space).__name__}")
        self.space = space
        self.constraints = as_constraints(space, constraints)
        self._budget = budget_bytes
        self._bins = bins
        given, without = ranges(self.constraints)
        self._variables = [
            Variable(len(choice.options), gates) for choice, gates in zip(space.choices, space.gates, strict=True)
        ]
        self._empty = False
        dropped: list[TableRange] = []
        while True:
            try:
                self._build(given)
                break
            except TooBigError:
                largest = max(given, key=lambda item: sum(table.size for table in item.table.tables.values()))
                given = [item for item in given if item is not largest]
                dropped.append(largest)
        tables = [item.table for item in dropped]
        self.rejected = tuple(
            term for term in self.constraints if term in without or any(term.profiler.table is t for t in tables)
        )

    def _build(self, given: Sequence[TableRange]) -> None:
        self._ranges = given
        limited, hard = bounded(given)
        quantities = [item.quantity for item in limited] + hard
        self._diagram = self._graph(quantities)
        self._limits = self._limits_of(self._diagram, limited)
        self._counts: Binned | None = None
        self._empty = self._diagram.empty or any(limit.high + limit.error < 0 for limit in self._limits)
        if self._empty:
            return
        bins = self._bins_for(self._diagram)
        if given and bytes_for(self._diagram, self._limits, bins) > self._budget:
            raise TooBigError(f"one bin for each limit needs more than {self._budget} bytes")
        self._counts = Binned(self._diagram, self._limits, bins)
        self._empty = self._counts.total == 0

    def _graph(self, quantities: Sequence[Quantity], variables: Sequence[Variable] | None = None) -> Diagram:
        # An edge needs some 200 bytes while the graph is built. Without a cost the graph is as small as it can be.
        edges = self._budget // 256 if quantities else 2**24
        return Diagram(self._variables if variables is None else variables, quantities, edges=edges)

    def _limits_of(self, diagram: Diagram, limited: Sequence[Bounded]) -> list[Limit]:
        limits = []
        for k, item in enumerate(limited):
            low, high = item.low, item.high
            least, unit = diagram.least[k], diagram.units[k]
            if unit == 1:
                floor = 0 if math.isinf(low) else math.ceil(low) - int(least)
                limits.append(Limit(math.floor(high) - int(least), max(floor, 0)))
            else:
                floor = 0 if math.isinf(low) else math.floor((low - least) / unit)
                limits.append(Limit(math.floor((high - least) / unit), max(floor, 0), diagram.errors[k] + 2))
        return limits

    def _bins_for(self, diagram: Diagram) -> tuple[int, ...]:
        steps = STEPS_ONE if len(self._limits) == 1 else STEPS
        bins = bins_for(diagram, self._limits, self._budget, steps if self._bins is None else math.inf)
        return bins if self._bins is None else tuple(min(number, self._bins) for number in bins)

    @classmethod
    def shared(cls, space: Space, constraints: Iterable[Constraint]) -> FeasibleSet:
        """Return the set of these limits, the same object as long as someone holds it.

        Args:
            space: The space.
            constraints: Limits on profilers whose tables do not change.
        """
        terms = as_constraints(space, constraints)
        key = (space.fingerprint, *((id(term.profiler), term.low, term.high) for term in terms))
        found = _SHARED.get(key)
        if found is None:
            found = _SHARED[key] = cls(space, *terms)
        return found

    @property
    def empty(self) -> bool:
        """Whether it is proved that no architecture meets the limits; False where that is not known."""
        return self._empty

    @property
    def bytes(self) -> int:
        """What the counts need in memory."""
        return 0 if self._counts is None else self._counts.bytes

    @property
    def states(self) -> int:
        """The number of states of the graph that is counted on."""
        return self._diagram.states

    @property
    def bins(self) -> tuple[int, ...]:
        """How many bins of slack each limit on a cost has."""
        return () if self._counts is None else self._counts.bins

    def __repr__(self) -> str:
        limits = ", ".join(map(str, self.constraints)) or "no limit"
        text = f"<FeasibleSet of {self.space.name!r}: {limits}; "
        if self._counts is None or self._empty:
            return f"{text}empty>"
        bins = " x ".join(map(str, self.bins)) or "no"
        text += f"{self.states} states, {bins} bins, {self.bytes / 2**20:.1f} MiB, {self.accepted:.1%} accepted"
        if self.rejected:
            text += f"; by rejection alone: {', '.join(map(str, self.rejected))}"
        return f"{text}>"

    # -- counting -----------------------------------------------------------------------------------------------

    def holds(self, candidates: Candidates) -> npt.NDArray[np.bool_]:
        """Return which candidates meet every limit, ``(n,)``, by the profilers themselves."""
        result = np.ones(len(candidates), dtype=np.bool_)
        for term in self.constraints:
            result &= term.holds(term.profiler.profile_batch(candidates))
        return result

    @cached_property
    def accepted(self) -> float:
        """The share of draws that meet the limits, of 2,048 ones."""
        return self._accepted(by_choice=False)

    @cached_property
    def _accepted_by_choice(self) -> float:
        return self._accepted(by_choice=True)

    def _accepted(self, by_choice: bool) -> float:
        if self._counts is None or self._empty:
            return 0.0
        return float(self.holds(self._drawn(PROBES, np.random.default_rng(0), by_choice)).mean())

    @cached_property
    def _count(self) -> Count:
        if self._counts is None or self._empty:
            return Count(0, 0, 0)
        if not self._ranges:
            size = self.space.size
            return Count(0, size, None) if self.rejected else Count(size, size, size)
        high = self._counts.count(down=True)
        if self.rejected:
            return Count(0, high, None)
        if self._counts.exact and high <= PROVED:
            return Count(high, high, high)
        low = self._counts.count(down=False)
        return Count(low, high, high if low == high else self._exact_count())

    def _exact_count(self) -> int | None:
        """Return the count with nothing rounded, where costs are integers and memory and time allow."""
        if any(limit.error for limit in self._limits):
            return None
        bins = [limit.high // (self._diagram.divisor(k) or limit.high + 1) + 1 for k, limit in enumerate(self._limits)]
        cells = math.prod(number + 2 for number in bins)
        if cells * 8 * self._diagram.states > self._budget or cells * self._diagram.edges > 10 * STEPS:
            return None
        number = Binned(self._diagram, self._limits, bins).count(down=True)
        return number if number <= PROVED else None

    def count(self) -> Count:
        """Return how many architectures there are, bounded from both sides, and exactly where that is in reach.

        Bounds come from rounding costs down and up to bins. Integer costs are counted exactly where as many bins as
        there are distinct values fit the budget.
        """
        return self._count

    def estimate(self, n: int = 10_000, rng: np.random.Generator | None = None) -> Estimate:
        """Return the count as the accepted share of `n` draws says, with its standard error."""
        if self._counts is None or self._empty:
            return Estimate(0.0, 0.0)
        share = float(self.holds(self._drawn(n, rng or np.random.default_rng(0))).mean())
        high = float(self._count.high)
        return Estimate(high * share, high * math.sqrt(share * (1 - share) / n))

    # -- drawing ------------------------------------------------------------------------------------------------

    def _drawn(self, n: int, rng: np.random.Generator, by_choice: bool = False) -> Candidates:
        """Return `n` architectures within the rounded limits."""
        assert self._counts is not None  # asked only where the set is not empty
        if by_choice:
            return self._candidates(self.space.canonical(self._counts_by_choice.sample(n, rng)))
        return self._candidates(self._counts.sample(n, rng))

    @cached_property
    def _counts_by_choice(self) -> Binned:
        """The counts with an option for every choice, those that do not matter included: costs are the same for all."""
        limited, hard = bounded(self._ranges)
        free = [Variable(variable.options) for variable in self._variables]
        try:
            diagram = self._graph([*(item.quantity for item in limited), *hard], free)
        except TooBigError as error:
            raise ConstraintError(f"drawing by choice under these limits is out of reach: {error}") from None
        return Binned(diagram, self._limits_of(diagram, limited), self._bins_for(diagram))

    def _candidates(self, codes: Codes) -> Candidates:
        return Candidates.of(self.space, codes.astype(self.space.dtype, copy=False))

    def sample(self, n: int, rng: np.random.Generator, *, by_choice: bool = False) -> Candidates:
        """Return `n` candidates drawn uniformly, with replacement, from the distinct architectures of the set.

        Args:
            n: How many.
            rng: The generator.
            by_choice: Whether every choice is drawn uniformly instead, given that the limits are met. An architecture
                is the likelier then, the fewer choices matter in it: a layer that may be skipped is skipped as often
                as not, however many choices it has.

        Raises:
            ConstraintError: If the set is empty, or none was met in two million draws; says why.
            TypeError: If `n` is no integer, or `rng` no NumPy generator.
            ValueError: If `n` is below 0.
        """
        check_draw(n, rng)
        parts: list[Candidates] = []
        wanted, tried = n, 0
        if n and self._empty:
            raise ConstraintError(str(self.diagnose()))
        share = max(self._accepted_by_choice if by_choice else self.accepted, 1 / NEVER)
        while wanted:
            batch = self._drawn(min(int(wanted / share * 1.05) + 8, 2**18), rng, by_choice)
            tried += len(batch)
            batch = batch[np.flatnonzero(self.holds(batch))[:wanted]]
            if len(batch):
                parts.append(batch)
                wanted -= len(batch)
            elif tried > TRIES and not parts:
                raise ConstraintError(f"none of {tried} draws met all limits. {self.diagnose()}")
        return Candidates.join(parts) if parts else self._candidates(np.zeros((0, len(self.space)), self.space.dtype))

    @property
    def ranks(self) -> int | None:
        """The number of ranks that `at` knows, or None where there are too many, or none is needed.

        Every architecture of the set has one rank; some ranks are of architectures beyond a limit.
        """
        if self._counts is None or self._empty:
            return 0
        return int(self._counts.total) if self._counts.total <= RANKED else None

    def at(self, ranks: Sequence[int]) -> Candidates:
        """Return the architectures of ranks that are in the set; those beyond a limit are left out.

        Raises:
            IndexError: If a rank is out of range.
        """
        total = self.ranks
        if total is None or any(not 0 <= rank < total for rank in ranks):
            raise IndexError(f"ranks are from 0 to {total} - 1, got {list(ranks)[:8]}")
        if self._counts is None or not len(ranks):
            return self._candidates(np.zeros((0, len(self.space)), self.space.dtype))
        batch = self._candidates(self._counts.at(np.array(ranks, dtype=np.int64)))
        return batch[np.flatnonzero(self.holds(batch))]

    def enumerate(self) -> Iterator[Candidates]:
        """Yield all architectures of the set in blocks, without visiting branches that lead to none."""
        if self._counts is None or self._empty:
            return
        for codes in self._counts.paths():
            batch = self._candidates(codes)
            batch = batch[np.flatnonzero(self.holds(batch))]
            if len(batch):
                yield batch

    def walk(self) -> Walk:
        """Return a walk that decides on an architecture of the set one choice after the other.

        Raises:
            ConstraintError: If the set is empty, or no architecture of it was found; says why.
        """
        if self._counts is None or self._empty:
            raise ConstraintError(str(self.diagnose()))
        if not self.rejected and (not self._limits or self._counts.exact):
            return Walk(self._counts)
        # From every state some path adds nothing to a cost: an upper limit on its own is met where slack is left.
        alone = not self.rejected and len(self._limits) == 1 and all(math.isinf(term.low) for term in self.constraints)
        highest = self._limits[0].high - self._limits[0].error if alone else -1
        try:
            return Walk(self._counts, self._holds, highest)
        except ConstraintError as error:
            raise ConstraintError(f"{error}. {self.diagnose()}") from None

    def _holds(self, codes: Codes) -> npt.NDArray[np.bool_]:
        return self.holds(self._candidates(codes))

    # -- the nearest, the least, the greatest -------------------------------------------------------------------

    def nearest(self, candidates: Candidates, rng: np.random.Generator | None = None) -> Candidates:
        """Return for each candidate the architecture of the set that differs in the fewest choices.

        A choice differs where it is active in both and has another option. With one limit the result is always
        nearest; with several it is unless the search for it had to turn back very often.

        Args:
            candidates: The candidates; those in the set stay as they are.
            rng: Decides between equally near ones; None takes the first.

        Returns:
            As many candidates, without ids.

        Raises:
            ConstraintError: If the set is empty, or a limit without a table keeps none of those found.
        """
        codes = np.array(self.space.canonical(candidates.codes))
        beyond = np.flatnonzero(~self.holds(candidates))
        if not len(beyond):
            return self._candidates(codes)
        if self._empty:
            raise ConstraintError(str(self.diagnose()))
        if not self.rejected:
            beyond = np.array(
                [row for row in beyond.tolist() if not self._changed_once(codes, row, rng)], dtype=np.intp
            )
        for tight in (False, True):
            if not len(beyond):
                return self._candidates(codes)
            rows = codes[beyond]
            found, changes = Repair(self._diagram, self._limits, tight=tight).nearest(
                rows, self.space.active(rows), rng
            )
            held = (changes >= 0) & self.holds(self._candidates(found))
            codes[beyond[held]] = found[held]
            beyond = beyond[~held]
        if not len(beyond):
            return self._candidates(codes)
        raise ConstraintError(
            f"no architecture near {len(beyond)} of the candidates meets all limits. {self.diagnose()}"
        )

    def _changed_once(self, codes: Codes, row: int, rng: np.random.Generator | None) -> bool:
        """Change one choice of a row in place where that brings it into the set, and return whether it does.

        One change is often enough, and to try all of them takes less than `Repair` does to find the fewest.
        """
        near = self.space.neighbours(codes[row]).codes
        held = np.flatnonzero(self.holds(self._candidates(near)))
        if len(held):
            codes[row] = near[held[0] if rng is None else held[int(rng.integers(len(held)))]]
        return bool(len(held))

    def minimum(self, profiler: Profiler) -> Optimum:
        """Return the least value of a profiler with a `CostTable` among the architectures of the set.

        Raises:
            TypeError: If the profiler has no `CostTable`.
            ConstraintError: If the set is empty, or no architecture of it was found.
        """
        return self._optimum(profiler, 1)

    def maximum(self, profiler: Profiler) -> Optimum:
        """Return the greatest value of a profiler with a `CostTable` among the architectures of the set.

        Raises:
            TypeError: If the profiler has no `CostTable`.
            ConstraintError: If the set is empty, or no architecture of it was found.
        """
        return self._optimum(profiler, -1)

    def _optimum(self, profiler: Profiler, sign: int) -> Optimum:
        table = profiler.table
        if not isinstance(table, CostTable):
            raise TypeError(f"the least and greatest value of {profiler!r} are not known: it has no CostTable")
        if self._empty:
            raise ConstraintError(str(self.diagnose()))
        diagram, limits, bins = self._with_cost(table * sign)
        k = len(limits)
        bound, best = math.nan, None
        for down in (True, False):
            found = cheapest(diagram, limits, bins, down=down)
            if found is None:
                continue
            added, codes = found
            candidate = self._candidates(codes)
            if down:
                least = (added - diagram.errors[k]) * diagram.units[k]
                bound = sign * (float(diagram.least[k]) + least) + table.constant
            if self.holds(candidate)[0]:
                best, exact = candidate, down
                break
        if best is None:
            raise ConstraintError(f"no architecture within all limits was found. {self.diagnose()}")
        value = float(table.evaluate(best)[0])
        return Optimum(value, next(iter(best)), value if exact else bound, exact)

    def _with_cost(self, table: CostTable) -> tuple[Diagram, list[Limit], tuple[int, ...]]:
        """Return a graph that has a further cost as its last one, with the limits and bins of the others.

        Raises:
            ConstraintError: If the graph is too big.
        """
        limited, hard = bounded(self._ranges)
        cost = Quantity(list(table.tables.items()))
        try:
            diagram = self._graph([*(item.quantity for item in limited), cost, *hard])
        except TooBigError as error:
            raise ConstraintError(f"{table.name!r} under these limits is out of reach: {error}") from None
        return diagram, self._limits_of(diagram, limited), self._bins_for(diagram)

    def ascending(self, table: CostTable) -> Iterator[Candidates]:
        """Yield the architectures of the set one by one, that with the least value of a table first.

        Nothing is enumerated: the next one is found among the beginnings of those that are left. Values that differ by
        less than 2^-40 of their range may come in either order.

        Args:
            table: What they are ordered by, such as logarithms of probabilities.

        Raises:
            TypeError: If `table` is no CostTable.
            ProfilerError: If it is about another space.
            ConstraintError: If table and limits together are out of reach.

        Example:
            >>> from nasmw import Choice, Space
            >>> from nasmw.cost import CostTable
            >>> space = Space([Choice("a", (1, 2, 3)), Choice("b", (1, 2, 3))])
            >>> product = CostTable(space, [(("a", "b"), [[1, 2, 3], [2, 4, 6], [3, 6, 9]])])
            >>> first, second = list(FeasibleSet(space).ascending(-product))[:2]
            >>> next(iter(first)), next(iter(second))
            ({'a': 3, 'b': 3}, {'a': 2, 'b': 3})
        """
        if not isinstance(table, CostTable):
            raise TypeError(f"architectures are put in order by a CostTable, got {table!r}")
        if table.space.fingerprint != self.space.fingerprint:
            raise ProfilerError(f"{table!r} is about {table.space!r}; the feasible set is of {self.space!r}")
        if self._empty:
            return
        diagram, limits, bins = self._with_cost(table)
        for _, codes in ascending(diagram, limits, [min(number, GUIDING) for number in bins]):
            candidate = self._candidates(codes)
            if self.holds(candidate)[0]:
                yield candidate

    # -- diagnosis ----------------------------------------------------------------------------------------------

    def diagnose(self) -> Diagnosis:
        """Return what each limit means, what they leave, and which of them conflict where they leave nothing."""
        reports = []
        for term in self.constraints:
            bounds = term.profiler.bounds()
            low, high = (None, None) if bounds is None else (bounds.low, bounds.high)
            reports.append(LimitReport(term, low, high, self._of([term]).share))
        share = self.share
        if share > 0:
            return Diagnosis(tuple(reports), share)
        conflict = self.constraints
        for term in self.constraints:
            rest = tuple(other for other in conflict if other is not term)
            if rest and self._of(rest).share == 0:
                conflict = rest
        nearest = []
        proved = self._of(conflict).empty
        for term in conflict:
            rest = tuple(other for other in conflict if other is not term)
            if isinstance(term.profiler.table, CostTable):
                try:
                    best = self._of(rest).minimum(term.profiler)
                    proved |= best.bound > term.high
                    if best.bound <= term.high:
                        best = self._of(rest).maximum(term.profiler)
                        proved |= best.bound < term.low
                except ConstraintError:
                    continue
                nearest.append((term, best.value, best.architecture))
            elif isinstance(term.profiler.table, MaxTable) and not rest:
                bounds = term.profiler.table.bounds()
                ends = (bounds.high, bounds.high_architecture), (bounds.low, bounds.low_architecture)
                nearest.append((term, *ends[bounds.low > term.high]))
        return Diagnosis(tuple(reports), share, conflict, proved, tuple(nearest))

    def _of(self, constraints: Iterable[Constraint]) -> FeasibleSet:
        return FeasibleSet(self.space, *constraints, budget_bytes=self._budget)

    @cached_property
    def share(self) -> float:
        """The share of the space that is in the set: the upper count times the accepted share; 0 where none was met."""
        if self._counts is None or self._empty:
            return 0.0
        share = self._counts.share_of(self.space.size)
        if self._counts.exact and not self.rejected:
            return share
        rng = np.random.default_rng(0)
        accepted, drawn = self.accepted, PROBES
        while not accepted and drawn < TRIES // 8:
            accepted = float(self.holds(self._drawn(TRIES // 32, rng)).mean())
            drawn += TRIES // 32
        return share * accepted
