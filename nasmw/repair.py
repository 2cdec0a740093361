"""The path of a `Diagram` within limits that differs least from a given assignment."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from nasmw.binned import Limit
from nasmw.candidates import Codes
from nasmw.diagram import Diagram, Layer

__all__ = ["Repair"]

NOTHING = 2**60
CELLS = 2**22
BRANCHES = 4096

Ints = npt.NDArray[np.int64]


class Repair:
    """Finds, for assignments, those within limits that differ from them in the fewest variables.

    A variable differs where it matters in both assignments and has another option. For each cost by itself, the least
    that remains to be added from every state with so many changes is known exactly; a depth-first search keeps within
    all of them. With one limit it never turns back. With several, the number of changes is the least one unless more
    than 4,096 branches had to be left for it.

    Args:
        diagram: The graph, with at least one cost; its first costs are the limited ones.
        limits: The limits.
        tight: Whether limits are taken as low as their error could make them, instead of as high.
    """

    def __init__(self, diagram: Diagram, limits: Sequence[Limit], *, tight: bool = False) -> None:
        self._diagram = diagram
        self._starts = [layer.starts for layer in diagram.layers]
        self._sides: list[tuple[int, int, int]] = []  # (cost, sign, the most that sign * cost may be)
        for k, limit in enumerate(limits):
            error = -limit.error if tight else limit.error
            self._sides.append((k, 1, limit.high + error))
            if limit.low > 0:
                self._sides.append((k, -1, error - limit.low))
        if not self._sides:  # without a limit on a cost, whether the end is reached is all that counts
            self._sides.append((0, 0, 0))

    def nearest(
        self, codes: Codes, matters: npt.NDArray[np.bool_], rng: np.random.Generator | None
    ) -> tuple[Codes, npt.NDArray[np.intp]]:
        """Return the nearest assignments and how many variables differ; -1 where none was found.

        Args:
            codes: ``(n, d)`` assignments.
            matters: ``(n, d)`` which variables matter in each.
            rng: Decides between equally near ones; None takes the first.
        """
        found = np.zeros(codes.shape, dtype=codes.dtype, order="F")
        changes = np.full(len(codes), -1, dtype=np.intp)
        most = min(4, len(self._diagram.variables))
        pending = np.arange(len(codes))
        while len(pending):
            cells = (most + 1) * max(max((len(layer.source) for layer in self._diagram.layers), default=1), 1)
            size = max(CELLS // (cells * len(self._sides) * 4), 1)
            for start in range(0, len(pending), size):
                rows = pending[start : start + size]
                self._search(codes[rows], matters[rows], most, rng, rows, found, changes)
            pending = pending[changes[pending] < 0]
            if most == len(self._diagram.variables):
                break
            most = min(2 * most, len(self._diagram.variables))
        return found, changes

    def _search(
        self,
        codes: Codes,
        matters: npt.NDArray[np.bool_],
        most: int,
        rng: np.random.Generator | None,
        rows: npt.NDArray[np.intp],
        found: Codes,
        changes: npt.NDArray[np.intp],
    ) -> None:
        differing = [_differing(layer, codes, matters) for layer in self._diagram.layers]
        remaining = [self._remaining(k, sign, differing, most) for k, sign, _ in self._sides]
        for number, row in enumerate(rows.tolist()):
            for allowed in range(most + 1):
                within = (
                    rest[0][number, 0, allowed] <= bound
                    for rest, (_, _, bound) in zip(remaining, self._sides, strict=True)
                )
                if not all(within):
                    continue
                own = [each[number] for each in differing]
                path = self._descend(own, [[layer[number] for layer in rest] for rest in remaining], allowed, rng)
                if path is None:
                    continue
                for layer, edge in zip(self._diagram.layers, path, strict=True):
                    found[row, list(layer.variables)] = layer.codes[layer.combination[edge]]
                changes[row] = allowed
                break

    def _remaining(self, k: int, sign: int, differing: list[npt.NDArray[np.intp]], most: int) -> list[Ints]:
        """Return for every layer ``(n, states, most + 1)``: the least sign * cost to the end with so many changes."""
        n = len(differing[0])
        behind = np.zeros((n, 1, most + 1), dtype=np.int64)
        result = [behind]
        allowed = np.arange(most + 1)
        for layer, starts, changed in zip(
            reversed(self._diagram.layers), reversed(self._starts), reversed(differing), strict=True
        ):
            left = allowed - changed[:, :, None]
            through = np.take_along_axis(behind[:, layer.child], np.maximum(left, 0), axis=2)
            through += sign * layer.cost[k][:, None]
            through[left < 0] = NOTHING
            behind = np.minimum(np.minimum.reduceat(through, starts[:-1], axis=1), NOTHING)
            result.append(behind)
        return result[::-1]

    def _descend(
        self,
        differing: list[npt.NDArray[np.intp]],
        remaining: list[list[Ints]],
        allowed: int,
        rng: np.random.Generator | None,
    ) -> list[int] | None:
        """Return the edges of a path with at most so many changes, or None where none was found."""
        layers = self._diagram.layers
        path: list[int] = []
        open_branches: list[list[tuple[int, int, int, list[int]]]] = []
        state, left, spent = 0, allowed, [0] * len(self._sides)
        branches = 0
        while True:
            depth = len(path)
            if depth == len(layers):
                return path
            layer, starts = layers[depth], self._starts[depth]
            edges = np.arange(starts[state], starts[state + 1])
            after = left - differing[depth][edges]
            edges, after = edges[after >= 0], after[after >= 0]
            child = layer.child[edges]
            within = np.ones(len(edges), dtype=np.bool_)
            added = []
            for side, (k, sign, bound) in enumerate(self._sides):
                own = spent[side] + sign * layer.cost[k, edges]
                within &= own + remaining[side][depth + 1][child, after] <= bound
                added.append(own)
            kept = np.flatnonzero(within)
            kept = kept[::-1] if rng is None else rng.permutation(kept)
            open_branches.append(
                [(int(edges[i]), int(child[i]), int(after[i]), [int(own[i]) for own in added]) for i in kept.tolist()]
            )
            while open_branches and not open_branches[-1]:
                open_branches.pop()
                if path:
                    path.pop()
                branches += 1
            if not open_branches or branches > BRANCHES:
                return None
            edge, state, left, spent = open_branches[-1].pop()
            path.append(edge)


def _differing(layer: Layer, codes: Codes, matters: npt.NDArray[np.bool_]) -> npt.NDArray[np.intp]:
    """Return ``(n, e)`` how many variables of each edge differ from each assignment."""
    changed = np.zeros((len(codes), len(layer.codes)), dtype=np.intp)
    for position, variable in enumerate(layer.variables):
        other = codes[:, variable, None] != layer.codes[None, :, position]
        changed += other & matters[:, variable, None] & layer.matters[None, :, position]
    return changed[:, layer.combination]
