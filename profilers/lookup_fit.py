"""Fits of latencies: what each layer takes within networks, from what it takes alone and from whole networks."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import attrs
import numpy as np
import numpy.typing as npt

from nasmw.candidates import Floats

__all__ = ["Fit", "cross_validated", "non_negative_least_squares"]

FOLDS = 5
NOISE = 0.02
"""What is taken for the relative error of measuring one network, where the parts are allowed to stray."""
STRAYS = (0.0, 0.05, 0.2)
"""By how much, relatively, the latency of a part may stray from what its features say."""
CONSTANT = 1e-9
ROUNDING = 1e-5


def non_negative_least_squares(matrix: Floats, target: Floats) -> Floats:
    """Return the non-negative ``x`` with the least ``|matrix @ x - target|``.

    Lawson, Hanson, Solving Least Squares Problems, 1974, chapter 23, algorithm NNLS.

    Args:
        matrix: ``(n, p)``.
        target: ``(n,)``.

    Example:
        >>> non_negative_least_squares(np.array([[1.0, 1.0], [1.0, -1.0]]), np.array([1.0, 3.0])).tolist()
        [2.0, 0.0]
    """
    columns = matrix.shape[1]
    size = np.linalg.norm(matrix, axis=0)
    scaled = matrix / np.where(size > 0, size, 1.0)
    found, free = np.zeros(columns), np.zeros(columns, dtype=np.bool_)
    useless = np.zeros(columns, dtype=np.bool_)  # by rounding alone: nearly a combination of those that are free
    slack = 1e-10 * max(float(np.linalg.norm(target)), CONSTANT)
    for _ in range(10 * columns + 10):
        gain = np.where(free | useless, -np.inf, scaled.T @ (target - scaled @ found))
        new = int(gain.argmax())
        if gain[new] <= slack:
            break
        free[new] = True
        best = _unbounded(scaled, target, free)
        useless[new] = best[new] <= 0
        if useless[new]:
            free[new] = False
            continue
        useless[:] = False
        while not (best[free] > 0).all():
            falling = np.flatnonzero(free & (best <= 0))
            down = found[falling] - best[falling]
            shares = np.where(down > 0, found[falling] / np.where(down > 0, down, 1.0), 0.0)
            found = np.where(free, found + shares.min() * (best - found), 0.0)
            free[falling[shares == shares.min()]] = False
            best = _unbounded(scaled, target, free)
        found = best
    return np.where(size > 0, found / np.where(size > 0, size, 1.0), 0.0)


def _unbounded(matrix: Floats, target: Floats, free: npt.NDArray[np.bool_]) -> Floats:
    """Return the least squares of the free columns, and zeros for the others."""
    best = np.zeros(len(free))
    if free.any():
        best[free] = np.linalg.lstsq(matrix[:, free], target, rcond=None)[0]
    return best


@attrs.frozen(eq=False)
class Fit:
    """Latencies of parts that add up to those of networks.

    Attributes:
        parts: What each part takes in a network, ``(l,)`` milliseconds.
        overhead: What every network takes beside them, milliseconds.
        relative_error: Root mean square of the relative error on networks that were left out, by cross-validation.
        model: What the fit is made of, in words.
        predicted: What each network was predicted to take while it was left out, ``(n,)`` milliseconds.
    """

    parts: Floats
    overhead: float
    relative_error: float
    model: str
    predicted: Floats


@attrs.frozen(eq=False)
class _Model:
    """A way to say what a part takes.

    Attributes:
        text: The way in words.
        features: ``(l, p)``; a part takes a non-negative combination of them.
        stray: By how much, relatively, a part may differ from that.
    """

    text: str
    features: Floats
    stray: float

    def fit(self, counts: Floats, latencies: Floats) -> tuple[Floats, float]:
        """Return the milliseconds of each part, and those beside them; the relative errors count."""
        weights = 1.0 / latencies
        design = np.column_stack([counts @ self.features, np.ones(len(counts))])
        factors = non_negative_least_squares(design * weights[:, None], np.ones(len(counts)))
        parts = np.maximum(self.features @ factors[:-1], 0.0)
        if self.stray:
            # Ridge towards what the features say, each part by its own scale; in the space of networks, which are few.
            variance = (self.stray * parts) ** 2
            covariance = (counts * variance) @ counts.T
            covariance[np.diag_indices_from(covariance)] += (NOISE * latencies) ** 2
            rest = latencies - counts @ parts - factors[-1]
            parts = np.maximum(parts + variance * (counts.T @ np.linalg.solve(covariance, rest)), 0.0)
        return parts, float(factors[-1])


def _models(alone: Floats, kinds: Sequence[Sequence[str]], fixed: Floats) -> Iterator[_Model]:
    """Yield the ways to say what a part takes, the simplest first.

    Args:
        alone: ``(l,)`` what each part takes by itself, or something proportional to that.
        kinds: Ways to tell kinds of parts apart, the coarsest first, each ``(l,)`` the kind of each part.
        fixed: ``(l,)`` what may be taken off for each part, such as the cost of calling it: ones, or zeros for none.
    """
    bases = [("one factor", alone[:, None])]
    each = []
    for way in kinds:
        distinct = list(dict.fromkeys(way))
        if len(distinct) > 1 and bases[-1][1].shape[1] < len(distinct):
            by_kind = np.stack([np.where(np.array(way) == kind, alone, 0.0) for kind in distinct], axis=1)
            text = f"a factor for each of {len(distinct)} kinds"
            bases.append((text, by_kind))
            constants = (by_kind > 0) * fixed[:, None]
            each.append((f"{text}, plus or less a constant for each", np.hstack([by_kind, constants, -constants])))
    if fixed.any():
        bases += [(f"{text}, less a constant", np.column_stack([some, -fixed])) for text, some in bases] + each
    for stray, (text, features) in itertools.product(STRAYS, bases):
        yield _Model(text + (f", parts straying by {100 * stray:g} %" if stray else ""), features, stray)


def cross_validated(
    counts: Floats, latencies: Floats, alone: Floats, kinds: Sequence[Sequence[str]], fixed: Floats, seed: int = 0
) -> Fit:
    """Return the fit that predicts networks best that are left out.

    What a part takes is a factor times what it takes alone (one factor, or one for each kind of part), perhaps less a
    constant (a part alone also pays for being called) or plus one (in a network its result is added to others), perhaps
    plus a deviation of its own that is kept small. Factors are fitted by least squares of relative errors and are not
    negative.

    Args:
        counts: ``(n, l)`` how often each network has each part.
        latencies: ``(n,)`` milliseconds of each network, n of at least 5.
        alone: ``(l,)`` milliseconds of each part by itself, or what is about proportional to them.
        kinds: Ways to tell kinds of parts apart, the coarsest first, each ``(l,)`` the kind of each part.
        fixed: ``(l,)`` 1 where a constant may be taken off, else 0.
        seed: Of the folds.
    """
    n = len(latencies)
    if n < FOLDS:
        raise ValueError(f"a cross-validated fit needs at least {FOLDS} networks, got {n}")
    order = np.random.default_rng(seed).permutation(n)
    folds = [np.sort(order[start::FOLDS]) for start in range(FOLDS)]
    best: Fit | None = None
    for model in _models(alone, kinds, fixed):
        predicted = np.empty(n)
        for left_out in folds:
            rest = np.setdiff1d(np.arange(n), left_out)
            parts, overhead = model.fit(counts[rest], latencies[rest])
            predicted[left_out] = counts[left_out] @ parts + overhead
        error = float(np.sqrt(np.mean((predicted / latencies - 1.0) ** 2)))
        # A model with more in it has to be better by more than chance.
        if best is None or error < 0.97 * best.relative_error - ROUNDING:
            parts, overhead = model.fit(counts, latencies)
            best = Fit(parts, overhead, error, model.text, predicted)
    assert best is not None
    return best
