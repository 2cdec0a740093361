"""Structure and Blocks: encodings of what of a network is alive, how deep it is, and of the likeness of its blocks."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, ClassVar

import attrs
import numpy as np
import numpy.typing as npt

from nasmw.candidates import Candidates, Floats
from nasmw.profilers.learned.encodings import Encoding, Term
from nasmw.profilers.learned.graphs import ABSENT, INPUT, NOTHING, OUTPUT, Graphs, graphs_of
from nasmw.profilers.learned.layers import needed_parts, operations
from nasmw.space import Space

if TYPE_CHECKING:
    from nasmw.spaces.layers import Placed

__all__ = ["Blocks", "Structure"]

SAMPLE = 2048
FEW = 6
"""With at most so many kinds of operations, the longest paths of some of them together have columns as well."""
KEPT = 0.9999
"""The share of the variance that the columns of `Blocks` keep."""


@attrs.frozen(eq=False)
class _Paths:
    kinds: tuple[str, ...]
    sets: tuple[frozenset[str], ...]
    names: tuple[str, ...]
    kept: npt.NDArray[np.intp]


class Structure(Encoding):
    """Numbers of operations, of those that are alive, of sums, and the longest paths, of the graph of an architecture.

    An operation is alive if something comes in and what comes out is used. Columns, for each kind of operation: how
    many there are, how many are alive, and the greatest number of them on one path; the same longest paths for all
    kinds together and, in vocabularies of up to six kinds, for each two and for all but one; then the live operations
    and the connections between them. What says nothing new in random architectures has no column: paths in a chain.

    See `graphs_of` for what the graph is.

    Example:
        >>> from nasmw.spaces import nasbench201
        >>> Structure().names(nasbench201())[:3]
        ('skip_connect', 'nor_conv_1x1', 'nor_conv_3x3')
    """

    def __str__(self) -> str:
        return "structure"

    def _prepare(self, space: Space) -> _Paths:
        drawn = space.sample(SAMPLE, np.random.default_rng(0))
        graphs = graphs_of(drawn)
        kinds = tuple(name for name in graphs.vocabulary if name not in (INPUT, OUTPUT, ABSENT, NOTHING))
        sets = [frozenset([kind]) for kind in kinds]
        if len(kinds) <= FEW:
            sets += [frozenset(pair) for pair in itertools.combinations(kinds, 2)]
            sets += [frozenset(kinds) - {kind} for kind in kinds]
        sets.append(frozenset(kinds))
        sets = list(dict.fromkeys(own for own in sets if own))
        names = [*kinds, *(f"live {kind}" for kind in kinds)]
        names += [f"path of {', '.join(sorted(own))}" for own in sets] + ["live", "live connections"]
        plan = _Paths(kinds, tuple(sets), tuple(names), np.arange(len(names)))
        values = _measured(plan, graphs)
        kept, seen = [], set()
        for column, own in enumerate(values.T):
            if np.ptp(own) > 0 and (key := own.tobytes()) not in seen:
                seen.add(key)
                kept.append(column)
        return attrs.evolve(plan, names=tuple(names[column] for column in kept), kept=np.array(kept, dtype=np.intp))

    def _encode(self, plan: _Paths, candidates: Candidates, active: npt.NDArray[np.bool_]) -> Floats:
        return _measured(plan, graphs_of(candidates))[:, plan.kept]

    def names(self, space: Space) -> tuple[str, ...]:
        """Return the names of the columns."""
        plan: _Paths = self.plan(space)
        return plan.names


def _measured(plan: _Paths, graphs: Graphs) -> Floats:
    """Return all columns, ``(n, p)``."""
    numbers = {name: number for number, name in enumerate(graphs.vocabulary)}
    m = graphs.operations.shape[1]
    joined = graphs.adjacency
    first, last = graphs.operations == numbers[INPUT], graphs.operations == numbers[OUTPUT]
    ahead, back = first.copy(), last.copy()
    for node in range(m):
        ahead[:, node] |= (joined[:, :, node] & ahead).any(axis=1)
    for node in reversed(range(m)):
        back[:, node] |= (joined[:, node, :] & back).any(axis=1)
    live = ahead & back
    columns = []
    of_kind = {kind: graphs.operations == numbers[kind] for kind in plan.kinds}
    columns += [of_kind[kind].sum(axis=1) for kind in plan.kinds]
    columns += [(of_kind[kind] & live).sum(axis=1) for kind in plan.kinds]
    between = joined & live[:, :, None] & live[:, None, :]
    for own in plan.sets:
        counted = np.any([of_kind[kind] for kind in sorted(own)], axis=0).astype(np.int32)
        longest = np.zeros(graphs.operations.shape, dtype=np.int32)
        for node in range(m):
            before = np.where(between[:, :, node], longest, 0).max(axis=1)
            longest[:, node] = before + counted[:, node] * live[:, node]
        columns.append(np.where(last & live, longest, 0).max(axis=1))
    inner = live & ~first & ~last
    columns += [inner.sum(axis=1), between.sum(axis=(1, 2))]
    return np.stack(columns, axis=1).astype(np.float64)


@attrs.frozen(eq=False)
class _Embedded:
    names: tuple[str, ...]
    parts: tuple[tuple[tuple[int, ...], Floats], ...]


class Blocks(Encoding):
    """A sum over the parts of a network of what is alike in parts that do alike work; parts without layers count for 0.

    A linear kernel of these columns is that of a sum over parts ``f(part)``, with one unknown function `f` of the
    part's work, and a Gaussian process as its prior: what is learnt of a block tells of blocks that are like it,
    wherever they stand. The columns are the leading directions of the kernel between all parts, Matern 5/2 in the
    logarithms of multiply-adds, elements and weights by kinds of operations.

    For spaces that describe their layers.

    References:
        Duvenaud, Nickisch, Rasmussen, Additive Gaussian Processes, NeurIPS 2011 (sums of functions of few variables;
        here the functions are one and the same).

    Example:
        >>> from nasmw.spaces import nasbench201
        >>> Blocks().width(nasbench201())
        2
    """

    metric: ClassVar[bool] = True

    def __str__(self) -> str:
        return "blocks"

    def _prepare(self, space: Space) -> _Embedded:
        parts = needed_parts(space, "blocks", "slots")
        kinds: dict[str, int] = {}
        rows: list[Counter[int]] = []
        found: list[tuple[tuple[int, ...], tuple[int, ...], int]] = []
        for part in parts:
            scope = tuple(space.column(name) for name in part.scope)
            if not scope:
                continue
            options = [space.choices[column].options for column in scope]
            found.append((scope, tuple(map(len, options)), len(rows)))
            for chosen in itertools.product(*options):
                row: Counter[int] = Counter()
                for name, amount in _work(part.layers(*chosen) if part.layers else ()):
                    row[kinds.setdefault(name, len(kinds))] += amount
                rows.append(row)
        work = np.array([[row[column] for column in range(len(kinds))] for row in rows], dtype=np.float64)
        directions = _directions(work.reshape(len(rows), len(kinds)))
        r = directions.shape[1]
        embedded = [
            (scope, directions[start : start + int(np.prod(sizes))].reshape(*sizes, r)) for scope, sizes, start in found
        ]
        return _Embedded(tuple(f"direction {number}" for number in range(r)), tuple(embedded))

    def _encode(self, plan: _Embedded, candidates: Candidates, active: npt.NDArray[np.bool_]) -> Floats:
        values = np.zeros((len(candidates), len(plan.names)))
        for scope, directions in plan.parts:
            values += directions[tuple(candidates.codes[:, column] for column in scope)]
        return values

    def names(self, space: Space) -> tuple[str, ...]:
        """Return the names of the columns."""
        plan: _Embedded = self.plan(space)
        return plan.names

    def terms(self, space: Space, weights: Floats) -> list[Term]:
        """Return one term for each part of the networks."""
        plan: _Embedded = self.plan(space)
        return [
            (tuple(space.choices[column].name for column in scope), np.asarray(directions @ weights))
            for scope, directions in plan.parts
        ]


def _work(layers: Any) -> Iterator[tuple[str, int]]:
    """Yield what layers add to the amounts of work, by name."""
    placed: Placed
    for placed in layers:
        for operation in operations(placed):
            if operation.macs or operation.elements:  # what passes its input on has neither
                yield "macs", operation.macs
                yield "elements", operation.elements
                yield "weights", operation.weights
                yield "number", 1
                kind = operation.kind.rstrip("0123456789")  # other kernels are other amounts of the same work
                yield f"{kind} macs", operation.macs
                yield f"{kind} elements", operation.elements


def _directions(work: Floats) -> Floats:
    """Return the leading directions of the kernel of rows of work, ``(n, r)``; rows without any work are 0."""
    some = work.any(axis=1)
    if not some.any():
        return np.zeros((len(work), 0))
    columns = np.log1p(work)
    size = columns.std(axis=0)
    columns = columns[:, size > 0] / size[size > 0]
    squares = ((columns[:, None, :] - columns[None, :, :]) ** 2).sum(axis=2)
    scaled = np.sqrt(5.0 * squares / max(float(squares.mean()), 1e-300))
    kernel = (1.0 + scaled + scaled**2 / 3.0) * np.exp(-scaled)
    kernel *= np.outer(some, some)
    lengths, sides = np.linalg.eigh(kernel)
    order = np.argsort(lengths)[::-1]
    lengths, sides = np.maximum(lengths[order], 0.0), sides[:, order]
    count = int(np.searchsorted(np.cumsum(lengths) / lengths.sum(), KEPT)) + 1
    # The sign of a direction is arbitrary: the greatest entry is positive.
    signs = np.sign(sides[np.abs(sides[:, :count]).argmax(axis=0), np.arange(count)])
    directions: Floats = sides[:, :count] * (np.sqrt(lengths[:count]) * signs)
    return directions
