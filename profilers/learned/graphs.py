"""Graphs of architectures: operations and how they are joined, for cells and for chains."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import attrs
import numpy as np
import numpy.typing as npt

from nasmw.candidates import Candidates, Floats
from nasmw.profilers.learned.encodings import Encoding, Slots, kept, space_of
from nasmw.space import Space

__all__ = ["Adjacency", "Graphs", "graphs_of"]

EDGE = re.compile(r"edge_(\d+)_(\d+)")
CELL_INPUTS = re.compile(r"(\w+)\.node(\d+)\.inputs")
CELL_OPERATION = re.compile(r"(\w+)\.node(\d+)\.op(\d+)")
INPUT, OUTPUT, ABSENT = "input", "output", "absent"
NOTHING = "none"


@attrs.frozen(eq=False)
class Graphs:
    """The graphs of ``n`` architectures, of ``m`` nodes each.

    Attributes:
        operations: ``(n, m)``, the operation of each node by its number in `vocabulary`.
        adjacency: ``(n, m, m)``, whether the row's node feeds the column's; nodes are in topological order.
        vocabulary: The operations.
        nodes: The names of the nodes.
    """

    operations: npt.NDArray[np.intp]
    adjacency: npt.NDArray[np.bool_]
    vocabulary: tuple[str, ...]
    nodes: tuple[str, ...]


def graphs_of(candidates: Candidates) -> Graphs:
    """Return the graphs of candidates, with the operations on nodes.

    A space whose choices are all named ``edge_{source}_{target}`` is a cell with operations on its edges; one with
    choices ``{cell}.node{i}.inputs`` and ``{cell}.node{i}.op{k}`` is one or several cells whose nodes read two others.
    Any other space is a chain: its nodes are the slots of `Slots` in declared order, each joined to the next that is
    active. An operation ``"none"`` feeds nothing.
    """
    space = space_of(candidates)
    return _shape(space)(space, candidates)


def _shape(space: Space) -> Callable[[Space, Candidates], Graphs]:
    if all(EDGE.fullmatch(name) for name in space.names):
        return _edges
    if any(CELL_INPUTS.fullmatch(name) for name in space.names) and all(
        CELL_INPUTS.fullmatch(name) or CELL_OPERATION.fullmatch(name) for name in space.names
    ):
        return _cells
    return _chain


def _numbered(space: Space, columns: list[int], vocabulary: dict[str, int]) -> list[npt.NDArray[np.intp]]:
    """Return for each choice the numbers of its options in the vocabulary, which grows."""
    return [
        np.array([vocabulary.setdefault(str(option), len(vocabulary)) for option in space.choices[column].options])
        for column in columns
    ]


def _edges(space: Space, candidates: Candidates) -> Graphs:
    vocabulary = {INPUT: 0, OUTPUT: 1}
    numbers = _numbered(space, list(range(len(space))), vocabulary)
    ends = [tuple(int(part) for part in name.split("_")[1:]) for name in space.names]
    last = max(target for _, target in ends)
    order = sorted(range(len(ends)), key=lambda place: (ends[place][1], ends[place][0]))
    m = len(order) + 2
    operations = np.zeros((len(candidates), m), dtype=np.intp)
    operations[:, -1] = vocabulary[OUTPUT]
    joined = np.zeros((m, m), dtype=np.bool_)
    for node, place in enumerate(order, 1):
        source, target = ends[place]
        operations[:, node] = numbers[place][candidates.codes[:, place]]
        joined[0, node] = source == 0
        joined[node, -1] = target == last
        for other, after in enumerate(order, 1):
            joined[node, other] = ends[after][0] == target
    adjacency = np.broadcast_to(joined, (len(candidates), m, m)).copy()
    _cut(operations, adjacency, vocabulary)
    return Graphs(operations, adjacency, tuple(vocabulary), (INPUT, *(space.names[place] for place in order), OUTPUT))


def _cut(operations: npt.NDArray[np.intp], adjacency: npt.NDArray[np.bool_], vocabulary: dict[str, int]) -> None:
    """Take away what goes into and comes out of operations that give nothing."""
    if NOTHING in vocabulary:
        nothing = operations == vocabulary[NOTHING]
        adjacency &= ~nothing[:, :, None] & ~nothing[:, None, :]


def _cells(space: Space, candidates: Candidates) -> Graphs:
    vocabulary = {INPUT: 0, OUTPUT: 1}
    found = [(match, column) for column, name in enumerate(space.names) if (match := CELL_OPERATION.fullmatch(name))]
    cells = list(dict.fromkeys(match[1] for match, _ in found))
    columns = [column for _, column in found]
    numbers = dict(zip(columns, _numbered(space, columns, vocabulary), strict=True))
    names: list[str] = []
    first: dict[str, int] = {}
    for cell in cells:
        first[cell] = len(names)
        own = [space.names[column] for match, column in found if match[1] == cell]
        names += [f"{cell}.input0", f"{cell}.input1", *own, f"{cell}.output"]
    n, m = len(candidates), len(names)
    place = {name: number for number, name in enumerate(names)}
    operations = np.zeros((n, m), dtype=np.intp)
    adjacency = np.zeros((n, m, m), dtype=np.bool_)
    for cell in cells:
        operations[:, place[f"{cell}.output"]] = vocabulary[OUTPUT]
    for match, column in found:
        cell, node, number = match[1], int(match[2]), int(match[3])
        own_place = place[space.names[column]]
        operations[:, own_place] = numbers[column][candidates.codes[:, column]]
        adjacency[:, own_place, place[f"{cell}.output"]] = True
        for row, read in enumerate(_read(space, candidates, cell, node, number)):
            feeding = [f"{cell}.input{read}"] if read < 2 else _operations(found, space, cell, int(read))
            for name in feeding:
                adjacency[row, place[name], own_place] = True
    _cut(operations, adjacency, vocabulary)
    return Graphs(operations, adjacency, tuple(vocabulary), tuple(names))


def _read(space: Space, candidates: Candidates, cell: str, node: int, number: int) -> npt.NDArray[np.intp]:
    """Return what the operation of a node reads in each row: 0 and 1 are the cell's inputs, others are nodes."""
    name = f"{cell}.node{node}.inputs"
    if name not in space.names:  # the first node can read the cell's inputs only
        return np.full(len(candidates), number)
    column = space.column(name)
    options = np.array([pair[number] for pair in space.choices[column].options])
    read: npt.NDArray[np.intp] = options[candidates.codes[:, column]]
    return read


def _operations(found: list[Any], space: Space, cell: str, node: int) -> list[str]:
    return [space.names[column] for match, column in found if match[1] == cell and int(match[2]) == node]


def _chain(space: Space, candidates: Candidates) -> Graphs:
    chain = kept(space, "graph of a chain", lambda: _chained(space))
    slots = Slots().plan(space)
    m = len(chain.nodes)
    operations = np.zeros((len(candidates), m), dtype=np.intp)
    operations[:, -1] = chain.vocabulary.index(OUTPUT)
    present = np.ones((len(candidates), m), dtype=np.bool_)
    present[:, 1:-1] = space.active(candidates.codes)[:, slots.first]
    chosen = chain.numbers[slots.numbers(candidates.codes)]
    operations[:, 1:-1] = np.where(present[:, 1:-1], chosen, chain.vocabulary.index(ABSENT))
    # A node feeds the next one that is there: among those that are, their numbers differ by 1.
    place = np.cumsum(present, axis=1, dtype=np.int32)
    adjacency = place[:, None, :] - place[:, :, None] == 1
    adjacency &= present[:, None, :] & present[:, :, None]
    return Graphs(operations, adjacency, chain.vocabulary, chain.nodes)


@attrs.frozen(eq=False)
class _Chain:
    """What the graphs of a chain have in common; `numbers` says the operation of each column of `Slots`."""

    numbers: npt.NDArray[np.intp]
    vocabulary: tuple[str, ...]
    nodes: tuple[str, ...]


def _chained(space: Space) -> _Chain:
    slots = Slots()
    vocabulary = {INPUT: 0, OUTPUT: 1, ABSENT: 2}
    # The same words in another slot are the same operation: the last parts of names, without what is before.
    numbers = [vocabulary.setdefault(_short(name), len(vocabulary)) for name in slots.names(space)]
    nodes = [", ".join(space.choices[column].name for column in slot.columns) for slot in slots.plan(space).slots]
    return _Chain(np.array(numbers, dtype=np.intp), tuple(vocabulary), (INPUT, *nodes, OUTPUT))


def _short(name: str) -> str:
    return " ".join(part.rpartition(".")[2] if "." in part.partition("=")[0] else part for part in name.split(" "))


class Adjacency(Encoding):
    """The graph of an architecture: who feeds whom above the diagonal, and a one-hot of each node's operation.

    See `graphs_of` for what the graph is. Pairs of nodes that are joined in no architecture of a sample, or in all,
    have no column.

    References:
        The adjacency encoding of Ying et al., NAS-Bench-101: Towards Reproducible Neural Architecture Search, ICML
        2019, and White, Neiswanger, Nolen, Savani, A Study on Encodings for Neural Architecture Search, NeurIPS 2020.
    """

    def __str__(self) -> str:
        return "adjacency"

    def _prepare(self, space: Space) -> tuple[Any, ...]:
        graphs = graphs_of(space.sample(SAMPLE, np.random.default_rng(0)))
        share = graphs.adjacency.mean(axis=0)
        pairs = np.argwhere(np.triu((share > 0) & (share < 1), 1))
        used = [np.unique(graphs.operations[:, node]) for node in range(len(graphs.nodes))]
        kinds = [(node, int(number)) for node, own in enumerate(used) if len(own) > 1 for number in own]
        names = [f"{graphs.nodes[source]} -> {graphs.nodes[target]}" for source, target in pairs]
        names += [f"{graphs.nodes[node]}: {graphs.vocabulary[number]}" for node, number in kinds]
        return pairs, kinds, tuple(names)

    def _encode(self, plan: tuple[Any, ...], candidates: Candidates, active: npt.NDArray[np.bool_]) -> Floats:
        pairs, kinds, _ = plan
        graphs = graphs_of(candidates)
        joined = graphs.adjacency[:, pairs[:, 0], pairs[:, 1]]
        nodes, numbers = np.array(kinds, dtype=np.intp).reshape(-1, 2).T
        return np.concatenate([joined, graphs.operations[:, nodes] == numbers], axis=1).astype(np.float64)

    def names(self, space: Space) -> tuple[str, ...]:
        """Return the names of the columns."""
        names: tuple[str, ...] = self.plan(space)[2]
        return names


SAMPLE = 2048
"""How many architectures are looked at to see which pairs of nodes are ever joined."""
