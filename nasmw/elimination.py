"""Counting and sampling assignments of conditional variables by dynamic programming; knows nothing of networks.

A `Variable` has a number of options and may be gated: it matters only where every gate is active and has an
allowed option. Two assignments are the same where they differ only in variables that do not matter. A `Program`
walks the variables in an order found here; its state after each of them is which of the pending variables are known
not to matter. States are few (one per depth of a stage, say), however many assignments there are.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import attrs
import numpy as np
import numpy.typing as npt

__all__ = ["Program", "Variable", "least"]

MAX_ENTRIES = 2**27


@attrs.frozen
class Variable:
    """One variable: its number of options and its gates.

    Attributes:
        options: The number of options, at least 1.
        gates: For each gating variable, by its index (lower than this variable's own), the options of it
            under which this variable matters.
    """

    options: int
    gates: Mapping[int, frozenset[int]] = attrs.field(factory=dict)


@attrs.frozen(eq=False)
class _Layer:
    variable: int
    child: npt.NDArray[np.int32]  # (states, options): the state that follows, -1 where there is none
    counts: list[int]  # assignments of this and all later variables, for each state
    cumulative: npt.NDArray[np.float64]  # (states, options): share of the assignments up to and including an option


class Program:
    """All distinct assignments of conditional variables, as a graph of small layers.

    Args:
        variables: The variables, gates before what they gate.

    Attributes:
        size: The number of distinct assignments, exactly.
        order: The order in which the variables are walked; ranks are lexicographic in it.
    """

    def __init__(self, variables: Sequence[Variable]) -> None:
        self._options = [variable.options for variable in variables]
        self.order = _order(variables)
        self._layers = _layers(variables, self.order)
        self.size: int = self._layers[0].counts[0] if self._layers else 1

    def sample(self, n: int, rng: np.random.Generator) -> npt.NDArray[Any]:
        """Return ``(n, d)`` assignments, uniform over the distinct ones (float64 rounding of the weights apart)."""
        codes = np.zeros((n, len(self._options)), dtype=_dtype(self._options), order="F")
        state = np.zeros(n, dtype=np.int32)
        for layer in self._layers:
            drawn = rng.random(n)
            picked = (drawn[:, None] >= layer.cumulative[state, :-1]).sum(axis=1)
            codes[:, layer.variable] = picked
            state = layer.child[state, picked]
        return codes

    def unrank(self, ranks: Sequence[int]) -> npt.NDArray[Any]:
        """Return the assignments of the given ranks, each from 0 to ``size - 1``, as ``(len(ranks), d)``."""
        codes = np.zeros((len(ranks), len(self._options)), dtype=_dtype(self._options), order="F")
        following = [layer.counts for layer in self._layers[1:]] + [[1]]
        for row, rank in enumerate(ranks):
            if not 0 <= rank < self.size:
                raise IndexError(f"rank {rank} of {self.size} assignments")
            state = 0
            for layer, counts in zip(self._layers, following, strict=True):
                option = 0
                while rank >= (ways := counts[layer.child[state, option]]):
                    rank -= ways
                    option += 1
                codes[row, layer.variable] = option
                state = layer.child[state, option]
        return codes


def _dtype(options: Sequence[int]) -> type[np.unsignedinteger[Any]]:
    return np.uint8 if max(options, default=1) <= 256 else np.uint16 if max(options) <= 65536 else np.uint32


def _order(variables: Sequence[Variable]) -> tuple[int, ...]:
    """Place each gate just before the first variable that needs it, so that few gates are open at a time."""
    gating = {gate for variable in variables for gate in variable.gates}
    placed: dict[int, None] = {}

    def place(index: int) -> None:
        for gate in sorted(variables[index].gates):
            if gate not in placed:
                place(gate)
        placed[index] = None

    for index in range(len(variables)):
        if index not in gating:
            place(index)
    return tuple(placed)


def _layers(variables: Sequence[Variable], order: Sequence[int]) -> list[_Layer]:
    gated_by: dict[int, list[tuple[int, frozenset[int]]]] = {}
    for index, variable in enumerate(variables):
        for gate, allowed in variable.gates.items():
            gated_by.setdefault(gate, []).append((index, allowed))

    # A state is a set of pending variables that are known not to matter, as the bits of an integer.
    states = [0]
    children: list[npt.NDArray[np.int32]] = []
    for index in order:
        options = variables[index].options
        following: dict[int, int] = {}
        child = np.full((len(states), options), -1, dtype=np.int32)
        for row, state in enumerate(states):
            matters = not state >> index & 1
            rest = state & ~(1 << index)
            for option in range(options if matters else 1):
                after = rest
                for dependent, allowed in gated_by.get(index, ()):
                    if not matters or option not in allowed:
                        after |= 1 << dependent
                child[row, option] = following.setdefault(after, len(following))
        children.append(child)
        states = list(following)

    layers: list[_Layer] = []
    counts = [1] * len(states)
    for index, child in zip(reversed(order), reversed(children), strict=True):
        ways = [[counts[c] if c >= 0 else 0 for c in row] for row in child.tolist()]
        counts = [sum(row) for row in ways]
        shares = np.array([[w / total for w in row] for row, total in zip(ways, counts, strict=True)])
        layers.append(_Layer(index, child, counts, _cumulative(shares)))
    return layers[::-1]


def _cumulative(shares: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Sum the shares; the last option that has any gets all that rounding left over."""
    cumulative = np.cumsum(shares, axis=1)
    last = shares.shape[1] - 1 - np.argmax(shares[:, ::-1] > 0, axis=1)
    cumulative[np.arange(shares.shape[1])[None, :] >= last[:, None]] = 1.0
    return cumulative


def least(
    tables: Sequence[tuple[tuple[int, ...], npt.NDArray[Any]]], sizes: Sequence[int], combine: np.ufunc
) -> tuple[Any, list[int]]:
    """Return the least combined entry of tables over all assignments, and an assignment that has it.

    The variables are eliminated one by one, the one that leaves the smallest table first (Dechter, "Bucket
    elimination: a unifying framework for reasoning", Artificial Intelligence 113, 1999).

    Args:
        tables: The variables of each table in ascending order, and its entries, one axis per variable.
        sizes: The number of options of each variable.
        combine: `numpy.add` or `numpy.maximum`: how entries are combined.

    Returns:
        The least value as a Python number, 0 where there is no table, and ``(d,)`` codes.

    Raises:
        MemoryError: If a table on the way would have more than 2^27 entries.
    """
    pending = list(tables)
    eliminated: list[tuple[int, tuple[int, ...], npt.NDArray[Any]]] = []
    variables = {variable for scope, _ in tables for variable in scope}
    while variables:
        unions = {v: {u for scope, _ in pending if v in scope for u in scope} for v in variables}
        variable = min(variables, key=lambda v: (math.prod(sizes[u] for u in unions[v]), v))
        union = tuple(sorted(unions[variable]))
        if (entries := math.prod(sizes[u] for u in union)) > MAX_ENTRIES:
            raise MemoryError(
                f"bounds of these tables need one of {entries:.3g} entries: their scopes overlap too much"
            )
        joint: npt.NDArray[Any] | None = None
        for scope, table in pending:
            if variable in scope:
                wide = table.reshape([sizes[u] if u in scope else 1 for u in union])
                joint = wide if joint is None else combine(joint, wide)
        assert joint is not None  # a variable is here because a table has it
        axis = union.index(variable)
        joint = np.broadcast_to(joint, [sizes[u] for u in union])
        rest = union[:axis] + union[axis + 1 :]
        eliminated.append((variable, rest, joint.argmin(axis=axis)))
        pending = [(scope, table) for scope, table in pending if variable not in scope]
        pending.append((rest, joint.min(axis=axis)))
        variables.remove(variable)
    codes = [0] * len(sizes)
    for variable, rest, best in reversed(eliminated):
        codes[variable] = int(best[tuple(codes[u] for u in rest)])
    values = [table.item() for _, table in pending]
    value = functools.reduce(lambda a, b: combine(a, b).item(), values) if values else 0
    return value, codes
