"""Counting, sampling and optimising paths of a `Diagram` within limits, by the slack that is left, in bins.

From every state, and for every slack in whole bins, the number of paths to the end that stay within the limits follows
from the states behind it. Rounding what edges cost down counts some paths too many, rounding it up some too few;
drawing from the former and rejecting what exceeds the limits is exactly uniform.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any

import attrs
import numpy as np
import numpy.typing as npt

from nasmw.candidates import Codes
from nasmw.diagram import Diagram, Layer

__all__ = ["PROVED", "Binned", "Front", "Limit", "Scale", "ascending", "bins_for", "bytes_for", "cheapest"]

NOTHING = np.iinfo(np.int64).max // 2  # stands for the cost of what cannot be
BLOCK = 4096
CELLS = 2**18  # gathered at a time while sampling
PROVED = 2.0**100  # counts up to here are exact from float64 and their remainder modulo 2^64


@attrs.frozen
class Limit:
    """What a path may add to one cost beyond the least: from `low` to `high`, in units of the diagram.

    Attributes:
        high: The most.
        low: The least.
        error: How many units either may be off the true limit.
    """

    high: int
    low: int = 0
    error: int = 0


def bins_for(diagram: Diagram, limits: Sequence[Limit], budget_bytes: int, steps: float) -> tuple[int, ...]:
    """Return how many bins each limit gets: as many as are of use, and memory and time allow.

    Args:
        diagram: The graph.
        limits: One limit for each binned cost.
        budget_bytes: What all counts together may need.
        steps: How many additions of one count building may take.
    """
    useful = [_useful(diagram, k, limit) for k, limit in enumerate(limits)]
    cells = min(budget_bytes / 8 / diagram.states, steps / max(diagram.edges, 1))
    bins = list(useful)
    # The smallest ones are served first, so that what they leave goes to the others.
    for rank, k in enumerate(sorted(range(len(limits)), key=lambda k: useful[k])):
        share = max(cells, 1.0) ** (1 / (len(limits) - rank))
        bins[k] = max(min(useful[k], int(share) - 2), 1)
        cells /= bins[k] + 2
    return tuple(bins)


def bytes_for(diagram: Diagram, limits: Sequence[Limit], bins: Sequence[int]) -> int:
    """Return the memory that the counts of a `Binned` need."""
    return 8 * math.prod(Scale(diagram, limits, bins).shape) * diagram.states


def _useful(diagram: Diagram, k: int, limit: Limit) -> int:
    divisor = diagram.divisor(k)
    return (limit.high + limit.error) // divisor + 1 if divisor else 1


@attrs.frozen(eq=False)
class _Steps:
    """The edges of a layer as ``(j, s)`` arrays, padded by edges that no slack affords, or that are marked so."""

    layer: Layer
    child: npt.NDArray[np.intp]
    combination: npt.NDArray[np.intp]
    bins: npt.NDArray[np.intp]  # (k, j, s)
    padding: npt.NDArray[np.bool_] | None  # (j, s), where there is no slack to refuse them


class Scale:
    """Slack in bins: how many each edge takes, and how many there are.

    Args:
        diagram: The graph; its first costs are the limited ones.
        limits: A limit for each of them.
        bins: How many bins each limit has; with as many as its units over their divisor, nothing is rounded.

    Attributes:
        most: For each limit, the bins that are left at the root, with costs rounded down.
        rounds: Whether rounding occurs at all.
    """

    def __init__(self, diagram: Diagram, limits: Sequence[Limit], bins: Sequence[int]) -> None:
        self.limits = tuple(limits)
        self._events = diagram.events
        divisors = [diagram.divisor(k) or limit.high + limit.error + 1 for k, limit in enumerate(limits)]
        self._widths = [
            divisor * math.ceil(((limit.high + limit.error) // divisor + 1) / number)
            for divisor, limit, number in zip(divisors, limits, bins, strict=True)
        ]
        self._rounds = [width != divisor for width, divisor in zip(self._widths, divisors, strict=True)]
        self.rounds = any(self._rounds) or any(limit.error for limit in limits)
        self.most = [(limit.high + limit.error) // w for limit, w in zip(limits, self._widths, strict=True)]

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one state's values by slack; index 0 of each axis stands for less than none."""
        return tuple(most + 2 for most in self.most)

    def taken(
        self, layer: Layer, *, down: bool, edges: npt.NDArray[np.intp] | slice = slice(None)
    ) -> npt.NDArray[np.int64]:
        """Return ``(k, e)`` bins that each edge takes, rounded down or up, at most one more than there are."""
        widths = np.array(self._widths, dtype=np.int64).reshape(-1, 1)
        most = np.array(self.most, dtype=np.int64).reshape(-1, 1)
        cost = layer.cost[: len(self.most), edges]
        taken: npt.NDArray[np.int64] = np.minimum(cost // widths if down else -(-cost // widths), most + 1)
        return taken

    def start(self, *, down: bool) -> tuple[int, ...]:
        """Return the index of the full slack, 0 where there is none."""
        if down:
            return tuple(most + 1 for most in self.most)
        pairs = zip(self.limits, self._widths, strict=True)
        return tuple(max(limit.high - limit.error, -1) // width + 1 for limit, width in pairs)

    def ends(self, *, down: bool) -> npt.NDArray[np.bool_]:
        """Return by slack whether a path may end with it: enough must have been spent."""
        result = np.ones((), dtype=np.bool_)
        for k, (limit, width, most) in enumerate(zip(self.limits, self._widths, self.most, strict=True)):
            least = max(limit.low - limit.error if down else limit.low + limit.error, 0)
            spent = -(-least // width)
            if self._rounds[k] and least:
                spent = max(least // width - self._events + 1, 0) if down else spent + self._events
            own = np.zeros(most + 2, dtype=np.bool_)
            first = self.start(down=down)[k]
            own[1 : max(first - spent, 0) + 1] = True
            result = np.logical_and.outer(result, own)
        return result


@attrs.frozen(eq=False)
class Front:
    """Paths from the root to one layer.

    Attributes:
        number: The number of layers behind them.
        state: ``(n,)`` the state that each has reached.
        spent: ``(k, n)`` what each has added to the costs.
        slack: ``(k, n)`` the bins that are left, with costs rounded down.
        ways: ``(n,)`` the number of paths on to the end, as `Binned.total` counts them, but for one factor.
        codes: ``(n, d)`` the assignments; 0 where they are not decided yet.
    """

    number: int
    state: npt.NDArray[np.intp]
    spent: npt.NDArray[np.int64]
    slack: npt.NDArray[np.intp]
    ways: npt.NDArray[np.float64]
    codes: Codes

    def __len__(self) -> int:
        return len(self.state)

    def __getitem__(self, rows: npt.NDArray[Any] | slice) -> Front:
        return Front(
            self.number,
            self.state[rows],
            self.spent[:, rows],
            self.slack[:, rows],
            self.ways[rows],
            self.codes[rows],
        )


class Binned:
    """Paths within limits, counted by bins of slack.

    Args:
        diagram: The graph, with one cost for each limit; not empty.
        limits: The limits.
        bins: How many bins each limit has.

    Attributes:
        exact: Whether bins round nothing.
        bytes: The memory that the counts need.
        total: The number of paths with costs rounded down, in float64, but for a power of two in huge graphs.
    """

    def __init__(self, diagram: Diagram, limits: Sequence[Limit], bins: Sequence[int]) -> None:
        self.diagram = diagram
        self.bins = tuple(bins)
        self._scale = Scale(diagram, limits, bins)
        self.exact = not self._scale.rounds
        self.bytes = bytes_for(diagram, limits, bins)
        self._counts: list[npt.NDArray[np.float64]] = []
        self._exponent = 0
        for counts, exponent in self._sweep(down=True, dtype=np.float64):
            self._counts.insert(0, counts)
            self._exponent = exponent
        self.total = float(self._counts.pop(0).sum())
        self._steps = [self._padded(layer) for layer in diagram.layers]
        self._starts = [layer.starts for layer in diagram.layers]
        self._highest = np.array([limit.high + limit.error for limit in limits], dtype=np.int64).reshape(-1, 1)

    # -- counting -----------------------------------------------------------------------------------------------

    def _sweep(self, *, down: bool, dtype: Any) -> Iterator[tuple[npt.NDArray[Any], int]]:
        """Yield the counts of every layer's states from the last layer on, and the power of two to multiply by."""
        behind: npt.NDArray[Any] = self._scale.ends(down=down)[None].astype(dtype)
        exponent = 0
        yield behind, exponent
        shape = self._scale.shape
        start = self._scale.start(down=down)
        for number in reversed(range(len(self.diagram.layers))):
            layer = self.diagram.layers[number]
            bins = self._scale.taken(layer, down=down)
            if number == 0:  # only the full slack occurs
                left = np.maximum(np.array(start).reshape(-1, 1) - bins, 0)
                yield behind[(layer.child, *left)].sum(keepdims=True), exponent
                return
            counts = np.zeros((layer.states, *shape), dtype=dtype)
            for _, source, child, taken in _listed(layer, bins, self._scale):
                if len(taken) == 1:
                    counts[source, 1 + taken[0] :] += behind[child, 1 : shape[0] - taken[0]]
                else:
                    counts[_after(source, taken)] += behind[_before(child, taken, shape)]
            if dtype == np.float64 and (largest := float(counts.max())) > 2.0**600:
                shift = math.frexp(largest)[1]
                counts = np.ldexp(counts, -shift)
                exponent += shift
            yield counts, exponent
            behind = counts

    def count(self, *, down: bool) -> int:
        """Return how many paths are within the limits with what edges cost rounded down, or up.

        Exact up to 2^100; beyond, float64 sums are widened by more than their error.
        """
        total, exponent = self.total, self._exponent
        if not down:
            for counts, power in self._sweep(down=False, dtype=np.float64):
                total, exponent = float(counts.sum()), power
        if exponent == 0 and total <= 2.0**50:
            return int(total)
        if exponent == 0 and total <= PROVED:
            rest = 0
            for counts, _ in self._sweep(down=down, dtype=np.uint64):
                rest = int(counts.sum())
            return rest + (round((int(total) - rest) / 2**64) << 64)
        mantissa, power = math.frexp(total)
        number = int(mantissa * 2**53) << (power + exponent - 53)
        return number + (number >> 36) if down else number - (number >> 36)

    def share_of(self, size: int) -> float:
        """Return the number of paths with costs rounded down over a number of assignments."""
        return (int(self.total) << self._exponent) / size

    # -- sampling -----------------------------------------------------------------------------------------------

    def _padded(self, layer: Layer) -> _Steps:
        starts = layer.starts
        width = int(np.diff(starts).max())
        rank = np.arange(len(layer.source)) - starts[layer.source]
        most = np.array(self._scale.most, dtype=np.intp).reshape(-1, 1, 1)
        child = np.zeros((width, layer.states), dtype=np.intp)
        combination = np.zeros((width, layer.states), dtype=np.intp)
        bins = np.broadcast_to(most + 1, (len(self.bins), width, layer.states)).copy()
        child[rank, layer.source] = layer.child
        combination[rank, layer.source] = layer.combination
        bins[:, rank, layer.source] = self._scale.taken(layer, down=True)
        padding = None
        if not self.bins and len(layer.source) < child.size:
            padding = np.ones(child.shape, dtype=np.bool_)
            padding[rank, layer.source] = False
        return _Steps(layer, child, combination, bins, padding)

    def sample(self, n: int, rng: np.random.Generator) -> Codes:
        """Return ``(n, d)`` assignments, uniform over those within the limits or beyond by no more than rounding.

        There must be one.
        """
        return self._walked(n, rng)

    def at(self, ranks: npt.NDArray[np.int64]) -> Codes:
        """Return the assignments of the given ranks, each from 0 to ``total - 1``; `total` must be at most 2^53."""
        return self._walked(len(ranks), ranks)

    def _walked(self, n: int, source: np.random.Generator | npt.NDArray[np.int64]) -> Codes:
        codes = np.zeros((n, len(self.diagram.variables)), dtype=self.diagram.dtype, order="F")
        widest = max((len(steps.child) for steps in self._steps), default=1)
        size = max(CELLS // widest, 256)
        for start in range(0, n, size):
            part = source if isinstance(source, np.random.Generator) else source[start : start + size]
            rows = codes[start : start + size]
            slack = np.repeat(np.array(self._scale.most, dtype=np.intp)[:, None], len(rows), axis=1)
            self._walk(rows, part, 0, np.zeros(len(rows), dtype=np.intp), slack)
        return codes

    def _walk(
        self,
        codes: Codes,
        source: np.random.Generator | npt.NDArray[np.int64],
        number: int,
        state: npt.NDArray[np.intp],
        slack: npt.NDArray[np.intp],
    ) -> None:
        """Decide what the layers from one on decide, from its states ``(n,)`` on, with ``(k, n)`` bins left."""
        n = len(codes)
        ranks = None if isinstance(source, np.random.Generator) else source.astype(np.float64)
        for steps, counts in zip(self._steps[number:], self._counts[number:], strict=True):
            index = steps.child.take(state, axis=1)
            for k, most in enumerate(self._scale.most):
                left = steps.bins[k].take(state, axis=1)
                np.subtract(slack[k], left, out=left)
                np.maximum(left, -1, out=left)
                index *= most + 2
                index += left
                index += 1
            weights = counts.reshape(-1).take(index, mode="clip")
            if steps.padding is not None:
                weights[steps.padding.take(state, axis=1)] = 0
            for before, after in itertools.pairwise(weights):
                after += before
            if isinstance(source, np.random.Generator):
                total = weights[-1]
                drawn = np.minimum(source.random(n) * total, np.nextafter(total, 0.0))
            else:
                drawn = ranks
            picked = np.zeros(n, dtype=np.intp)
            for upto in weights:
                picked += upto <= drawn
            if ranks is not None:
                ranks -= np.where(picked > 0, weights[picked - 1, np.arange(n)], 0.0)
            for k in range(len(slack)):
                slack[k] -= steps.bins[k][picked, state]
            combination = steps.combination[picked, state]
            for position, variable in enumerate(steps.layer.variables):
                codes[:, variable] = steps.layer.codes[combination, position]
            state = steps.child[picked, state]

    # -- enumeration --------------------------------------------------------------------------------------------

    @property
    def root(self) -> Front:
        """The path of no edge."""
        return Front(
            0,
            np.zeros(1, dtype=np.intp),
            np.zeros((len(self.bins), 1), dtype=np.int64),
            np.array(self._scale.most, dtype=np.intp).reshape(-1, 1),
            np.array([self.total]),
            np.zeros((1, len(self.diagram.variables)), dtype=self.diagram.dtype),
        )

    def extended(self, front: Front) -> Front:
        """Return all paths that are one edge longer, without those that lead to no path within the limits."""
        layer, starts = self.diagram.layers[front.number], self._starts[front.number]
        degree = starts[front.state + 1] - starts[front.state]
        row = np.repeat(np.arange(len(front)), degree)
        edge = starts[front.state[row]] + np.arange(len(row)) - np.repeat(np.cumsum(degree) - degree, degree)
        spent = front.spent[:, row] + layer.cost[: len(self.bins), edge]
        slack = front.slack[:, row] - self._scale.taken(layer, down=True, edges=edge)
        child = layer.child[edge]
        ways = self._counts[front.number][(child, *np.maximum(slack + 1, 0))]
        kept = np.flatnonzero((ways > 0) & (spent <= self._highest).all(axis=0))
        codes = front.codes[row[kept]]
        codes[:, list(layer.variables)] = layer.codes[layer.combination[edge[kept]]]
        return Front(front.number + 1, child[kept], spent[:, kept], slack[:, kept], ways[kept], codes)

    def paths(self, start: Front | None = None) -> Iterator[Codes]:
        """Yield blocks of assignments, in the order of ranks: all those within the limits, and some beyond by rounding.

        Branches that lead to none are not visited.

        Args:
            start: Only assignments that go on from these paths; all of them by default.
        """
        stack = [self.root if start is None else start]
        while stack:
            front = stack.pop()
            if front.number == len(self.diagram.layers):
                yield front.codes
                continue
            longer = self.extended(front)
            parts = [slice(first, first + BLOCK) for first in range(0, len(longer), BLOCK)]
            stack.extend(longer[part] for part in reversed(parts))

    def drawn(self, front: Front, n: int, rng: np.random.Generator) -> Codes:
        """Return ``(n, d)`` assignments, uniform over those that go on from paths of a front, as `sample` does."""
        total = np.cumsum(front.ways)
        row = np.minimum(np.searchsorted(total, rng.random(n) * total[-1], side="right"), len(front) - 1)
        codes: Codes = front.codes[row]
        self._walk(codes, rng, front.number, front.state[row], front.slack[:, row])
        return codes


def cheapest(diagram: Diagram, limits: Sequence[Limit], bins: Sequence[int], *, down: bool) -> tuple[int, Codes] | None:
    """Return the least that a path within limits adds to the cost that follows the limited ones, and that path.

    Args:
        diagram: The graph, with one cost more than there are limits.
        limits: The limits.
        bins: How many bins each has.
        down: Whether costs are rounded down, which gives a bound that no path within the limits is below, or up, which
            gives a path that is within them.

    Returns:
        What is added, in units, and ``(1, d)`` codes; None where there is no path.
    """
    scale = Scale(diagram, limits, bins)
    k = len(limits)
    ahead = _least_ahead(diagram, scale, down=down)
    slack = scale.start(down=down)
    total = int(ahead[0][(0, *slack)])
    if total >= NOTHING:
        return None
    codes = np.zeros((1, len(diagram.variables)), dtype=diagram.dtype)
    state = 0
    for layer, behind in zip(diagram.layers, ahead[1:], strict=True):
        edges = np.arange(*layer.starts[state : state + 2])
        spent = scale.taken(layer, down=down, edges=edges)
        left = np.maximum(np.array(slack, dtype=np.intp).reshape(-1, 1) - spent, 0)
        best = int((behind[(layer.child[edges], *left)] + layer.cost[k, edges]).argmin())
        codes[0, list(layer.variables)] = layer.codes[layer.combination[edges[best]]]
        slack, state = tuple(int(n) for n in left[:, best]), int(layer.child[edges[best]])
    return total, codes


def _least_ahead(diagram: Diagram, scale: Scale, *, down: bool) -> list[npt.NDArray[np.int64]]:
    """Return for each layer, and the end, the least that is added to the last cost from its states on, by slack."""
    behind: npt.NDArray[np.int64] = np.where(scale.ends(down=down), 0, NOTHING)[None]
    ahead = [behind]
    shape = scale.shape
    k = len(shape)
    for layer in reversed(diagram.layers):
        least = np.full((layer.states, *shape), NOTHING)
        costs = layer.cost[k].tolist()
        for edge, source, child, taken in _listed(layer, scale.taken(layer, down=down), scale):
            to = _after(source, taken)
            least[to] = np.minimum(least[to], behind[_before(child, taken, shape)] + costs[edge])
        ahead.insert(0, least)
        behind = least
    return ahead


def ascending(diagram: Diagram, limits: Sequence[Limit], bins: Sequence[int]) -> Iterator[tuple[int, Codes]]:
    """Yield the paths within limits, or beyond by no more than rounding, that with the least last cost first.

    The search goes from the root on; what a path must still add at the least, with the slack that is left, is known, so
    the next path to come is always among those that were begun (Hart, Nilsson, Raphael, "A formal basis for the
    heuristic determination of minimum cost paths", IEEE Transactions on Systems Science and Cybernetics 4, 1968).

    Args:
        diagram: The graph, with one cost more than there are limits.
        limits: The limits.
        bins: How many bins each has.

    Yields:
        What a path adds to the last cost, in units, and ``(1, d)`` codes.
    """
    scale = Scale(diagram, limits, bins)
    k = len(limits)
    ahead = _least_ahead(diagram, scale, down=True)
    highest = np.array([limit.high + limit.error for limit in limits], dtype=np.int64).reshape(-1, 1)
    starts = [layer.starts for layer in diagram.layers]
    first = np.array(scale.start(down=True), dtype=np.intp)
    # A path that was begun: what it will cost at the least, minus its length, a number that breaks ties; how it came
    # to be; its state, the slack that is left, what it has spent of the limits, and what it costs so far.
    serial = itertools.count()
    begun: list[Any] = [(int(ahead[0][(0, *first)]), 0, next(serial), None, 0, first, np.zeros(k, dtype=np.int64), 0)]
    if begun[0][0] >= NOTHING:
        return
    while begun:
        bound, depth, _, past, state, slack, spent, cost = heapq.heappop(begun)
        number = -depth
        if number == len(diagram.layers):
            codes = np.zeros((1, len(diagram.variables)), dtype=diagram.dtype)
            while past is not None:
                number, combination, past = past
                layer = diagram.layers[number]
                codes[0, list(layer.variables)] = layer.codes[combination]
            yield bound, codes
            continue
        layer = diagram.layers[number]
        edges = np.arange(starts[number][state], starts[number][state + 1])
        left = np.maximum(slack[:, None] - scale.taken(layer, down=True, edges=edges), 0)
        total = spent[:, None] + layer.cost[:k, edges]
        costs = cost + layer.cost[k, edges]
        child = layer.child[edges]
        bounds = costs + ahead[number + 1][(child, *left)]
        for at in np.flatnonzero((bounds < NOTHING) & (total <= highest).all(axis=0)).tolist():
            came = (number, int(layer.combination[edges[at]]), past)
            begun_now = (int(bounds[at]), depth - 1, next(serial), came, int(child[at]))
            heapq.heappush(begun, (*begun_now, left[:, at], total[:, at], int(costs[at])))


def _listed(layer: Layer, taken: npt.NDArray[np.int64], scale: Scale) -> Iterator[tuple[int, int, int, list[int]]]:
    """Yield number, source, child and bins of the edges that the full slack affords."""
    most = np.array(scale.most, dtype=np.int64).reshape(-1, 1)
    edges = np.flatnonzero((taken <= most).all(axis=0))
    return zip(
        edges.tolist(),
        layer.source[edges].tolist(),
        layer.child[edges].tolist(),
        taken[:, edges].T.tolist(),
        strict=True,
    )


def _after(state: int, taken: Sequence[int]) -> Any:
    """Return the index of a state's values for all slacks that afford so many bins."""
    return (state, *(slice(1 + bins, None) for bins in taken))


def _before(state: int, taken: Sequence[int], shape: Sequence[int]) -> Any:
    """Return the index of a state's values for what these slacks leave."""
    return (state, *(slice(1, n - bins) for n, bins in zip(shape, taken, strict=True)))
