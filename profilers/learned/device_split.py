"""Splitting devices into sources and targets that have little to say of each other."""

from __future__ import annotations

import attrs
import numpy as np
import numpy.typing as npt

from nasmw.candidates import Floats
from nasmw.errors import ProfilerError
from nasmw.profilers.learned.predictor import as_numbers
from nasmw.profilers.learned.scores import ranks

__all__ = ["DeviceSplit", "rank_correlations", "split_devices"]

Rows = npt.NDArray[np.intp]

FEWEST = 3
PASSES = 10
LEAST = 1e-9


@attrs.frozen
class DeviceSplit:
    """A partition of some devices.

    Attributes:
        sources: Their columns, ascending.
        targets: Their columns, ascending.
        correlation: The mean rank correlation of a source with a target.
    """

    sources: tuple[int, ...]
    targets: tuple[int, ...]
    correlation: float


def rank_correlations(latencies: npt.ArrayLike) -> Floats:
    """Return Spearman's rank correlation of each two devices, ``(d, d)``, over the networks that both have measured.

    Args:
        latencies: ``(n, d)``, NaN where not measured.

    Raises:
        ProfilerError: If latencies are no matrix of numbers, two devices share fewer than three networks, or one has
            equal latencies for all of them.
    """
    values = as_numbers("latencies", latencies)
    if values.ndim != 2:
        raise ProfilerError(f"latencies are a matrix of networks and devices, got the shape {values.shape}")
    known = np.isfinite(values)
    d = values.shape[1]
    found = np.eye(d)
    for first in range(d):
        for second in range(first):
            shared = known[:, first] & known[:, second]
            if shared.sum() < FEWEST:
                raise ProfilerError(f"devices {second} and {first} share {shared.sum()} networks; {FEWEST} are needed")
            both = {device: _unit_ranks(values[shared, device]) for device in (second, first)}
            for device, own in both.items():
                if not own.any():
                    raise ProfilerError(
                        f"all latencies that devices {second} and {first} share are equal on device {device}; leave it "
                        "out, or measure networks that differ more"
                    )
            found[first, second] = found[second, first] = both[first] @ both[second]
    return found


def _unit_ranks(values: Floats) -> Floats:
    """Return ranks of mean 0 and length 1, equal values sharing theirs; zeros where all are equal."""
    found = ranks(values)
    found -= found.mean()
    length = float(np.linalg.norm(found))
    return found / length if length > 0 else found


def split_devices(latencies: npt.ArrayLike, sources: int, targets: int, rng: np.random.Generator) -> DeviceSplit:
    """Return some devices as sources and others as targets such that both sets are little correlated.

    The devices are first cut into two halves with little rank correlation across the cut. Then, as long as a half has
    too many devices, the one of it leaves that correlates most with the other half.

    Args:
        latencies: ``(n, d)``, NaN where not measured.
        sources: How many sources there are to be.
        targets: How many targets.
        rng: It draws the halves to start from; the first of them becomes the sources.

    Raises:
        TypeError: If a number is no whole one, or `rng` no generator.
        ProfilerError: If there are too few devices; all that `rank_correlations` raises.

    References:
        Kernighan and Lin, An Efficient Heuristic Procedure for Partitioning Graphs, Bell System Technical Journal 1970;
        as a way to make transfer tasks: Akhauri and Abdelfattah, On Latency Predictors for Neural Architecture Search,
        MLSys 2024.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> of_two_kinds = np.repeat(rng.random((50, 2)), 3, axis=1) + 0.1 * rng.random((50, 6))
        >>> split = split_devices(of_two_kinds, 2, 2, rng)
        >>> len({device // 3 for device in split.sources}), abs(split.correlation) < 0.5
        (1, True)
    """
    weights = rank_correlations(latencies)
    d = len(weights)
    for count in (sources, targets):
        if isinstance(count, bool) or not isinstance(count, (int, np.integer)):
            raise TypeError(f"a number of devices is a whole number, got {count!r}")
    if not isinstance(rng, np.random.Generator):
        raise TypeError(f"rng is a generator such as numpy.random.default_rng(0), got {rng!r}")
    if min(sources, targets) < 1 or sources + targets > d:
        raise ProfilerError(
            f"{sources} sources and {targets} targets, at least one of each, cannot be had of {d} devices"
        )
    known, new = _bisected(weights, min(max(d // 2, sources), d - targets), rng)
    while len(known) > sources or len(new) > targets:
        across = weights[np.ix_(known, new)]
        of_known = across.mean(axis=1).max() if len(known) > sources else -np.inf
        of_new = across.mean(axis=0).max() if len(new) > targets else -np.inf
        if of_known >= of_new:
            known = np.delete(known, across.mean(axis=1).argmax())
        else:
            new = np.delete(new, across.mean(axis=0).argmax())
    correlation = float(weights[np.ix_(known, new)].mean())
    return DeviceSplit(tuple(sorted(known.tolist())), tuple(sorted(new.tolist())), correlation)


def _bisected(weights: Floats, size: int, rng: np.random.Generator) -> tuple[Rows, Rows]:
    """Return two sets of nodes, the first of a given size, such that no exchange lowers the weight between them."""
    d = len(weights)
    order = rng.permutation(d)
    first = np.zeros(d, dtype=np.bool_)
    first[order[:size]] = True
    between = weights - np.diag(np.diagonal(weights))
    for _ in range(PASSES):
        side, free = first.copy(), np.ones(d, dtype=np.bool_)
        pairs: list[tuple[int, int]] = []
        gains: list[float] = []
        for _ in range(min(size, d - size)):
            # What a node gains by going over: its weight across the cut less that on its own side.
            crossing = between @ side - between @ ~side
            gain = np.where(side, -crossing, crossing)
            own, other = np.flatnonzero(side & free), np.flatnonzero(~side & free)
            both = gain[own][:, None] + gain[other] - 2.0 * between[np.ix_(own, other)]
            place = np.unravel_index(int(both.argmax()), both.shape)
            pair = int(own[place[0]]), int(other[place[1]])
            pairs.append(pair)
            gains.append(float(both[place]))
            side[list(pair)] = ~side[list(pair)]
            free[list(pair)] = False
        total = np.cumsum(gains)
        if total.max() <= LEAST:
            break
        for pair in pairs[: int(total.argmax()) + 1]:
            first[list(pair)] = ~first[list(pair)]
    return np.flatnonzero(first), np.flatnonzero(~first)
