"""A graph whose paths are the assignments of conditional variables, and whose edges carry additive costs.

Each cost is a sum of small tables. A table becomes a diagram of its own: after some of its variables, all that matters
is which of the remaining tables of values is left, so prefixes that leave the same one (up to a constant, which moves
to the edge before) share a node. The joint graph has as states the nodes of all pending tables together; states with
equal futures are merged. So of the widths behind a depth choice, only the one that still matters is remembered.

The reduction of edge-valued diagrams is that of Lai, Pedram and Vrudhula, "EVBDD-based algorithms for integer linear
programming, spectral transformation, and function decomposition", IEEE TCAD 13, 1994, for several costs and many
options.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from typing import Any

import attrs
import numpy as np
import numpy.typing as npt

from nasmw.elimination import Variable

__all__ = ["Diagram", "Layer", "Quantity", "TooBigError"]

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

STEPS = 2.0**40  # how many units the range of a float cost has
FUSED_DEGREE = 200
FUSED_GROWTH = 1.6


class TooBigError(Exception):
    """The graph would have more edges than allowed."""


@attrs.frozen(eq=False)
class Quantity:
    """A cost: the sum of tables.

    Attributes:
        tables: The variables of each table, ascending and with all their gates, and its entries, all int64 or all
            float64, the same for all assignments that differ only in variables that do not matter.
        hard: Whether only the least value possible is allowed: edges that lead above it are left out.
    """

    tables: Sequence[tuple[tuple[int, ...], npt.NDArray[Any]]]
    hard: bool = False

    @property
    def unit(self) -> float:
        """What the integers on edges count: 1 for integer tables, a fine fraction of the range for floats."""
        if all(table.dtype.kind == "i" for _, table in self.tables):
            return 1
        span = sum(float(table.max() - table.min()) for _, table in self.tables)
        largest = max(float(np.abs(table).max()) for _, table in self.tables)
        return max(span / STEPS, largest * 2.0**-44) or 1.0

    @property
    def error(self) -> int:
        """How many units a path's cost may be off its true value, in either direction."""
        return 0 if self.unit == 1 else sum(len(scope) + 1 for scope, _ in self.tables)


@attrs.frozen(eq=False)
class Layer:
    """The edges that decide some variables, sorted by the state that they leave.

    Attributes:
        variables: The variables, ``m`` of them.
        codes: ``(c, m)`` the combinations of options that occur.
        matters: ``(c, m)`` whether each variable matters there.
        states: The number of states that edges leave.
        source: ``(e,)`` the state that each edge leaves.
        child: ``(e,)`` the state of the next layer that it leads to.
        combination: ``(e,)`` which row of `codes` it stands for.
        cost: ``(k, e)`` what it adds to each cost, beyond the least that must be added from its source on.
    """

    variables: tuple[int, ...]
    codes: npt.NDArray[Any]
    matters: Bools
    states: int
    source: npt.NDArray[np.intp]
    child: npt.NDArray[np.intp]
    combination: npt.NDArray[np.intp]
    cost: Ints

    @property
    def starts(self) -> npt.NDArray[np.intp]:
        """``(states + 1,)`` where the edges of each state start, and the number of edges."""
        return np.searchsorted(self.source, np.arange(self.states + 1))


class Diagram:
    """All assignments of conditional variables with their costs, as a layered graph with one root and one end.

    From every state some path adds 0 to a cost, for every cost by itself: so a slack of at least 0 says exactly that a
    single limit can still be met.

    Args:
        variables: The variables, gates before what they gate.
        quantities: The costs.
        edges: How many edges a layer may have while it is built.

    Attributes:
        layers: The layers; none where an assignment within the hard quantities does not exist.
        least: For each cost its least value, in its unit: a float for floats, else an exact integer.
        empty: Whether there is no path.

    Raises:
        TooBigError: If a layer would have more edges.
    """

    def __init__(self, variables: Sequence[Variable], quantities: Sequence[Quantity], *, edges: int = 2**22) -> None:
        self.variables = tuple(variables)
        self.units = [quantity.unit for quantity in quantities]
        self.errors = [quantity.error for quantity in quantities]
        scopes = [scope for quantity in quantities for scope, _ in quantity.tables]
        best: _Graph | None = None
        for order in dict.fromkeys((_by_tables(variables, scopes), tuple(range(len(variables))))):
            try:
                graph = _Graph(variables, quantities, self.units, order, edges if best is None else best.edges)
            except TooBigError:
                continue
            if best is None or graph.edges < best.edges:
                best = graph
        if best is None:
            raise TooBigError(f"the joint graph of {len(scopes)} tables needs more than {edges} edges in a layer")
        roots, raw = best.reduced()
        self.least = [
            root + offset if unit == 1 else float(root) + float(offset) * unit
            for root, offset, unit in zip(best.offsets, roots, self.units, strict=True)
        ]
        self.empty = not raw
        self.layers = _fused(raw)

    @property
    def states(self) -> int:
        """The number of states."""
        return sum(layer.states for layer in self.layers) + 1

    @property
    def dtype(self) -> np.dtype[np.unsignedinteger[Any]]:
        """The smallest unsigned type that holds every option's number."""
        return np.min_scalar_type(max((variable.options for variable in self.variables), default=1) - 1)

    @property
    def edges(self) -> int:
        """The number of edges."""
        return sum(len(layer.source) for layer in self.layers)

    @property
    def events(self) -> int:
        """The number of layers, each of which rounds a cost once."""
        return len(self.layers)

    def divisor(self, k: int) -> int:
        """Return the greatest common divisor of all that edges add to one cost; 0 where they add nothing."""
        return int(np.gcd.reduce([int(np.gcd.reduce(layer.cost[k])) for layer in self.layers], initial=0))


def _by_tables(variables: Sequence[Variable], scopes: Iterable[tuple[int, ...]]) -> tuple[int, ...]:
    """Return an order in which tables are decided one after the other, each gate as late as that allows."""
    scopes = list(scopes)
    needed = {gate for variable in variables for gate in variable.gates}.union(*scopes)
    groups = [*scopes, *((index,) for index in range(len(variables)) if index not in needed)]
    placed: dict[int, None] = {}

    def place(index: int) -> None:
        for gate in sorted(variables[index].gates):
            place(gate)
        placed.setdefault(index)

    for scope in sorted((scope for scope in groups if scope), key=lambda scope: (max(scope), -len(scope))):
        for index in scope:
            place(index)
    return tuple(placed)


def classes(columns: Iterable[npt.NDArray[Any]], n: int) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Return the first row of each class of equal rows, and the class of each row, from integer columns of length n."""
    key = np.zeros(n, dtype=np.int64)
    size = 1
    for column in columns:
        low, high = int(column.min()), int(column.max())
        if low == high:
            continue
        if size * (high - low + 1) >= 2**62:
            values, key = np.unique(key, return_inverse=True)
            size = len(values)
            if size * (high - low + 1) >= 2**62:
                values, column = np.unique(column, return_inverse=True)
                low, high = 0, len(values) - 1
        key = key * (high - low + 1) + (column - low)
        size *= high - low + 1
    _, first, inverse = np.unique(key, return_index=True, return_inverse=True)
    return first, inverse.reshape(-1)


@attrs.frozen(eq=False)
class _Level:
    """One variable of a table's own diagram."""

    child: npt.NDArray[np.intp]  # (nodes, options)
    cost: Ints  # (nodes, options)


class _Chart:
    """The diagram of one table, its variables in a given order."""

    def __init__(self, table: npt.NDArray[Any], unit: float) -> None:
        nodes: npt.NDArray[Any] = np.zeros(table.shape, dtype=np.intp)
        rest = table
        self.levels: list[_Level] = []
        for axis in reversed(range(table.ndim)):
            options = table.shape[axis]
            values, children = rest.reshape(-1, options), nodes.reshape(-1, options)
            low = values.min(axis=1)
            above = values - low[:, None]
            cost = above if table.dtype.kind == "i" else np.rint(above / unit).astype(np.int64)
            first, inverse = classes([*children.T, *cost.T], len(values))
            self.levels.insert(0, _Level(children[first], cost[first]))
            nodes, rest = inverse.reshape(table.shape[:axis]), low.reshape(table.shape[:axis])
        self.offset = rest.item()


@attrs.frozen(eq=False)
class _Raw:
    """One variable of the joint graph: ``(s, options)`` children, -1 for none, and ``(k, s, options)`` costs."""

    variable: int
    matters: Bools
    child: npt.NDArray[np.intp]
    cost: Ints


class _Graph:
    """The joint graph in one order of the variables, before states with equal futures are merged."""

    def __init__(
        self,
        variables: Sequence[Variable],
        quantities: Sequence[Quantity],
        units: Sequence[float],
        order: Sequence[int],
        limit: int,
    ) -> None:
        position = {variable: p for p, variable in enumerate(order)}
        self._count = len(quantities)
        self.offsets: list[Any] = [0] * self._count
        self._hard = [k for k, quantity in enumerate(quantities) if quantity.hard]
        touching: dict[int, list[tuple[int, int, int, bool]]] = {}  # variable: (table, its level, cost, last level)
        charts: list[_Chart] = []
        for k, (quantity, unit) in enumerate(zip(quantities, units, strict=True)):
            for scope, table in quantity.tables:
                axes = sorted(range(len(scope)), key=lambda axis: position[scope[axis]])
                chart = _Chart(table.transpose(axes), unit)
                self.offsets[k] += chart.offset
                for level, axis in enumerate(axes):
                    entry = (len(charts), level, k, level == len(axes) - 1)
                    touching.setdefault(scope[axis], []).append(entry)
                charts.append(chart)
        gated_by: dict[int, list[tuple[int, Bools]]] = {}
        for index, variable in enumerate(variables):
            for gate, allowed in variable.gates.items():
                gated_by.setdefault(gate, []).append(
                    (index, np.isin(np.arange(variables[gate].options), list(allowed)))
                )

        self.layers: list[_Raw] = []
        self.edges = 0
        nodes: dict[int, npt.NDArray[Any]] = {}  # by table: the node of each state
        dead: dict[int, Bools] = {}  # by variable: whether each state knows that it does not matter
        states = 1
        for index in order:
            options = variables[index].options
            if states * options > limit:
                raise TooBigError
            gone = dead.pop(index, None)
            matters = np.ones(states, dtype=np.bool_) if gone is None else ~gone
            source = np.repeat(np.arange(states), options)
            option = np.tile(np.arange(options), states)
            cost = np.zeros((self._count, states * options), dtype=np.int64)
            after: dict[int, npt.NDArray[Any]] = {}
            for number, level, k, last in touching.get(index, ()):
                node = nodes.pop(number)[source] if level else np.zeros(len(source), dtype=np.intp)
                own = charts[number].levels[level]
                cost[k] += own.cost[node, option]
                if not last:
                    after[number] = own.child[node, option]
            valid = matters[source] | (option == 0)
            for k in self._hard:
                valid &= cost[k] == 0
            edges = np.flatnonzero(valid)
            source, option = source[edges], option[edges]
            nodes = {number: node[source] for number, node in nodes.items()}
            nodes.update((number, node[edges]) for number, node in after.items())
            dead = {variable: known[source] for variable, known in dead.items()}
            for gated, opens in gated_by.get(index, ()):
                blocked = ~(matters[source] & opens[option])
                dead[gated] = dead[gated] | blocked if gated in dead else blocked
            child = np.full((states, options), -1, dtype=np.intp)
            if len(edges):
                first, following = classes([*nodes.values(), *dead.values()], len(edges))
                child[source, option] = following
                nodes = {number: node[first] for number, node in nodes.items()}
                dead = {variable: known[first] for variable, known in dead.items()}
                states_after = len(first)
            else:
                states_after = 0
            self.layers.append(_Raw(index, matters, child, cost.reshape(self._count, states, options)))
            self.edges += len(edges)
            states = states_after

    def reduced(self) -> tuple[Ints, list[Layer]]:
        """Return what must be added to each cost from the root on, and layers of states with distinct futures."""
        must = np.zeros((self._count, 1), dtype=np.int64)  # by state of the layer behind, before merging
        merged = np.zeros(1, dtype=np.intp)  # its class, -1 for a dead end
        result: list[Layer] = []
        for raw in reversed(self.layers):
            child = np.where(raw.child >= 0, merged[raw.child], -1)
            valid = child >= 0
            alive = np.flatnonzero(valid.any(axis=1))
            if not len(alive):
                return np.zeros(self._count, dtype=np.int64), []
            through = raw.cost + must[:, raw.child]
            through[:, ~valid] = np.iinfo(np.int64).max
            low = through.min(axis=2)
            cost = np.where(valid, through - low[:, :, None], 0)[:, alive]
            matters, child = raw.matters[alive], child[alive]
            first, inverse = classes([matters, *child.T, *cost.transpose(0, 2, 1).reshape(-1, len(alive))], len(alive))
            source, option = np.nonzero(child[first] >= 0)
            state = first[source]
            kinds, combination = np.unique(2 * option + matters[state], return_inverse=True)
            layer = Layer(
                (raw.variable,),
                (kinds // 2)[:, None],
                (kinds % 2 == 1)[:, None],
                len(first),
                source,
                child[state, option],
                combination,
                cost[:, state, option],
            )
            result.append(layer)
            merged = np.full(len(raw.child), -1, dtype=np.intp)
            merged[alive] = inverse
            must = np.where(valid.any(axis=1), low, 0)
        return must[:, 0], result[::-1]


def _fused(layers: Sequence[Layer]) -> list[Layer]:
    """Return the graph with neighbouring layers made one where that adds few edges: fewer states, less rounding."""
    result = list(layers)
    growth = [_growth(*pair) for pair in itertools.pairwise(result)]
    while growth and (best := min(growth)) <= FUSED_GROWTH:
        at = growth.index(best)
        result[at : at + 2] = [_fuse(result[at], result[at + 1])]
        growth[max(at - 1, 0) : at + 2] = [
            _growth(*pair) for pair in itertools.pairwise(result[max(at - 1, 0) : at + 2])
        ]
    return result


def _growth(before: Layer, after: Layer) -> float:
    """Return how many times as many edges two layers have when they are one."""
    reached = np.diff(after.starts)[before.child]
    if np.bincount(before.source, weights=reached).max() > FUSED_DEGREE:
        return math.inf
    return int(reached.sum()) / (len(before.source) + len(after.source))


def _fuse(before: Layer, after: Layer) -> Layer:
    starts = after.starts
    degree = np.diff(starts)[before.child]
    first = np.repeat(np.arange(len(before.source)), degree)
    second = starts[before.child[first]] + np.arange(len(first)) - np.repeat(np.cumsum(degree) - degree, degree)
    pairs = before.combination[first] * len(after.codes) + after.combination[second]
    kinds, combination = np.unique(pairs, return_inverse=True)
    left, right = kinds // len(after.codes), kinds % len(after.codes)
    return Layer(
        before.variables + after.variables,
        np.concatenate([before.codes[left], after.codes[right]], axis=1),
        np.concatenate([before.matters[left], after.matters[right]], axis=1),
        before.states,
        before.source[first],
        after.child[second],
        combination,
        before.cost[:, first] + after.cost[:, second],
    )
