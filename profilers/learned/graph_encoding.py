"""GraphEncoding: the whole graph of an architecture as a row, for predictors that are graph networks."""

from __future__ import annotations

import itertools
from typing import Any

import attrs
import numpy as np
import numpy.typing as npt

from nasmw.candidates import Candidates, Floats
from nasmw.errors import ProfilerError
from nasmw.profilers.learned.encodings import Encoding, Group
from nasmw.profilers.learned.graphs import Graphs, graphs_of
from nasmw.profilers.learned.layers import LayerWork, needed_parts
from nasmw.space import Space

__all__ = ["JOINED", "OPERATIONS", "WORK", "GraphEncoding"]

OPERATIONS, JOINED, WORK = "graph operations", "graph joined", "graph work"
"""The names of the groups of columns: one-hot operations, the adjacency matrix, and what each node costs."""


@attrs.frozen(eq=False)
class _Part:
    """What a part of a network adds to the columns of one node; one axis of `values` for each choice, then columns."""

    node: int
    scope: tuple[int, ...]
    values: Floats


@attrs.frozen(eq=False)
class _Plan:
    vocabulary: tuple[str, ...]
    nodes: tuple[str, ...]
    parts: tuple[_Part, ...]
    amounts: tuple[str, ...]
    """The names of what is known of each node's cost."""
    centre: Floats
    size: Floats


class GraphEncoding(Encoding):
    """The graph of an architecture as `graphs_of` gives it, node by node: what a graph network reads.

    With ``m`` nodes and a vocabulary of ``v`` operations there are ``m v`` columns of one-hot operations, then ``m m``
    of the adjacency matrix by rows (1 where the row's node feeds the column's). ``"work"`` adds what each node costs:
    the columns of `LayerWork` for the layers that its choices decide on, of mean 0 and standard deviation 1 over the
    nodes of random architectures. Other encodings are joined by ``+`` and reach the network behind the graph.

    Args:
        work: ``"work"``, or nothing.

    Raises:
        ProfilerError: If `work` is another word; at the first use, if the space does not describe its layers.

    Example:
        >>> from nasmw.testing import toy_space
        >>> [group.name for group in GraphEncoding().groups(toy_space())]
        ['graph operations', 'graph joined']
    """

    def __init__(self, work: str = "") -> None:
        if work not in ("", "work"):
            raise ProfilerError(f"a graph takes 'work' or nothing, got {work!r}")
        self.work = work

    def __str__(self) -> str:
        return "graph(work)" if self.work else "graph"

    def _prepare(self, space: Space) -> _Plan:
        sample = space.sample(SAMPLE, np.random.default_rng(0))
        graphs = graphs_of(sample)
        if not self.work:
            return _Plan(graphs.vocabulary, graphs.nodes, (), (), np.zeros(0), np.ones(0))
        parts, amounts = _parts(space, graphs.nodes)
        values = _amounts(parts, len(graphs.nodes), len(amounts), sample)
        size = values.std(axis=(0, 1))
        told = size > 1e-9 * np.abs(values).max(axis=(0, 1), initial=1e-300)
        parts = tuple(_Part(part.node, part.scope, part.values[..., told]) for part in parts)
        names = tuple(name for name, kept in zip(amounts, told, strict=True) if kept)
        return _Plan(graphs.vocabulary, graphs.nodes, parts, names, values.mean(axis=(0, 1))[told], size[told])

    def _encode(self, plan: _Plan, candidates: Candidates, active: npt.NDArray[np.bool_]) -> Floats:
        graphs: Graphs = graphs_of(candidates)
        n, m = graphs.operations.shape
        one_hot = graphs.operations[:, :, None] == np.arange(len(plan.vocabulary))
        columns = [one_hot.reshape(n, m * len(plan.vocabulary)), graphs.adjacency.reshape(n, m * m)]
        if plan.amounts:
            values = _amounts(plan.parts, len(plan.nodes), len(plan.amounts), candidates)
            columns.append(((values - plan.centre) / plan.size).reshape(n, m * len(plan.amounts)))
        return np.concatenate(columns, axis=1, dtype=np.float64)

    def names(self, space: Space) -> tuple[str, ...]:
        """Return the names of the columns."""
        plan: _Plan = self.plan(space)
        pairs = itertools.product(plan.nodes, plan.nodes)
        return (
            *(f"{node}: {operation}" for node, operation in itertools.product(plan.nodes, plan.vocabulary)),
            *(f"{source} -> {target}" for source, target in pairs),
            *(f"{node}: {amount}" for node, amount in itertools.product(plan.nodes, plan.amounts)),
        )

    def groups(self, space: Space) -> tuple[Group, ...]:
        """Return one group for operations, one for the adjacency matrix, and one for the nodes' costs if there are."""
        plan: _Plan = self.plan(space)
        m = len(plan.nodes)
        first, second = m * len(plan.vocabulary), m * (len(plan.vocabulary) + m)
        found = [Group(OPERATIONS, 0, first), Group(JOINED, first, second)]
        if plan.amounts:
            found.append(Group(WORK, second, second + m * len(plan.amounts)))
        return tuple(found)


SAMPLE = 1024
"""How many architectures are looked at for the scale of the costs."""


def _parts(space: Space, nodes: tuple[str, ...]) -> tuple[tuple[_Part, ...], tuple[str, ...]]:
    """Return what the parts of networks cost, each for the node that has most of its choices; and the columns."""
    parts = needed_parts(space, "graph(work)", "graph")
    chosen_by = [set(node.split(", ")) for node in nodes]
    columns: dict[str, int] = {}
    found: list[tuple[int, tuple[int, ...], list[dict[str, float]], list[int]]] = []
    for part in parts:
        shared = [len(choices.intersection(part.scope)) for choices in chosen_by]
        if not max(shared):
            continue  # what every network has alike
        node = max(range(len(nodes)), key=lambda place: (shared[place], place))
        scope = tuple(space.column(name) for name in part.scope)
        options = [space.choices[column].options for column in scope]
        rows = []
        for chosen in itertools.product(*options):
            row: dict[str, float] = {}
            for placed in part.layers(*chosen) if part.layers else ():
                for name, value in LayerWork()._values(placed).items():
                    row[name] = row.get(name, 0.0) + value
                    columns.setdefault(name, len(columns))
            rows.append(row)
        found.append((node, scope, rows, [len(own) for own in options]))
    made = []
    for node, scope, rows, sizes in found:
        values = np.array([[row.get(name, 0.0) for name in columns] for row in rows], dtype=np.float64)
        made.append(_Part(node, scope, values.reshape(*sizes, len(columns))))
    return tuple(made), tuple(columns)


def _amounts(parts: tuple[_Part, ...], nodes: int, amounts: int, candidates: Candidates) -> Floats:
    """Return what the nodes of candidates cost, ``(n, m, f)``."""
    values: Any = np.zeros((len(candidates), nodes, amounts))
    for part in parts:
        values[:, part.node] += part.values[tuple(candidates.codes[:, column] for column in part.scope)]
    return np.asarray(values)
