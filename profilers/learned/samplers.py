"""Which networks to measure on a new device: at random, by cost, by clusters, by similarity, by what a model lacks."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from nasmw.candidates import Floats
from nasmw.errors import ProfilerError
from nasmw.profilers.learned.predictor import as_numbers
from nasmw.space import check_draw

__all__ = ["choose_buckets", "choose_cosine", "choose_kmeans", "choose_random", "choose_variance"]

Rows = npt.NDArray[np.intp]

LLOYD = 30
"""Rounds of Lloyd's algorithm at most."""
LEAST = 1e-12


def choose_random(m: int, n: int, rng: np.random.Generator) -> Rows:
    """Return ``n`` of ``m`` rows, each with equal probability.

    Args:
        m: How many networks there are to choose from.
        n: How many to choose.
        rng: The random numbers.

    Raises:
        TypeError: If `n` is no whole number, or `rng` no generator; so with all functions here.
        ProfilerError: If there are fewer than `n`.

    Example:
        >>> len(choose_random(100, 20, np.random.default_rng(0)))
        20
    """
    _check(m, n)
    check_draw(n, rng)
    return np.asarray(rng.choice(m, n, replace=False), dtype=np.intp)


def choose_buckets(costs: npt.ArrayLike, n: int, rng: np.random.Generator) -> Rows:
    """Return one random row of each of ``n`` buckets of equal size, sorted by a cost.

    Args:
        costs: ``(m,)``, such as MACs or parameters.
        n: How many to choose.
        rng: The random numbers; they also order equal costs.

    Raises:
        ProfilerError: If there are fewer than `n` rows, or costs are not finite.

    References:
        The samplers by parameters and by latency of Akhauri and Abdelfattah, On Latency Predictors for Neural
        Architecture Search, MLSys 2024.

    Example:
        >>> sorted((choose_buckets(np.arange(6.0), 3, np.random.default_rng(0)) // 2).tolist())
        [0, 1, 2]
    """
    numbers = as_numbers("costs", costs)
    if numbers.ndim != 1 or not np.isfinite(numbers).all():
        raise ProfilerError(f"costs are one finite number for each network, got an array of shape {numbers.shape}")
    _check(len(numbers), n)
    check_draw(n, rng)
    order = np.lexsort((rng.random(len(numbers)), numbers))
    return np.array([rng.choice(bucket) for bucket in np.array_split(order, n)], dtype=np.intp)


def choose_kmeans(values: npt.ArrayLike, n: int, rng: np.random.Generator, *, nearest: bool = False) -> Rows:
    """Return one row of each of ``n`` clusters.

    Args:
        values: ``(m, p)``, an encoding of the networks. Distances are Euclidean: scale the columns first.
        n: How many to choose.
        rng: The random numbers.
        nearest: Whether to take the row nearest to the centre; else a random one of the cluster, as in the source.

    Raises:
        ProfilerError: If there are fewer than `n` rows, or numbers are not finite.

    References:
        Lloyd, Least Squares Quantization in PCM, IEEE Transactions on Information Theory 1982, from starts drawn as by
        Arthur and Vassilvitskii, k-means++, SODA 2007; as a sampler: Akhauri and Abdelfattah, MLSys 2024.

    Example:
        >>> two = np.array([[0.0], [0.1], [5.0], [5.1]])
        >>> sorted((choose_kmeans(two, 2, np.random.default_rng(0)) // 2).tolist())
        [0, 1]
    """
    rows = _values(values)
    _check(len(rows), n)
    check_draw(n, rng)
    centres = rows[_spread_out(rows, n, rng)]
    cluster = np.full(len(rows), -1)
    for _ in range(LLOYD):
        distances = _squares(rows, centres)
        found = distances.argmin(axis=1)
        if (found == cluster).all():
            break
        cluster = found
        for number in np.unique(cluster):
            centres[number] = rows[cluster == number].mean(axis=0)
    distances = _squares(rows, centres)
    chosen: list[int] = []
    for number in range(n):
        members = np.flatnonzero(cluster == number)
        if len(members):
            chosen.append(int(members[distances[members, number].argmin()] if nearest else rng.choice(members)))
    rest = np.setdiff1d(np.arange(len(rows)), chosen)
    if len(chosen) < n:  # rows that are all alike leave clusters empty
        chosen += rng.choice(rest, n - len(chosen), replace=False).tolist()
    return np.array(chosen, dtype=np.intp)


def choose_cosine(values: npt.ArrayLike, n: int, rng: np.random.Generator) -> Rows:
    """Return one random row of each of ``n`` buckets of equal size, sorted by the mean cosine similarity to all rows.

    So both the usual networks and the odd ones are there.

    Args:
        values: ``(m, p)``, an encoding of the networks.
        n: How many to choose.
        rng: The random numbers.

    Raises:
        ProfilerError: If there are fewer than `n` rows, or numbers are not finite.

    References:
        Akhauri and Abdelfattah, On Latency Predictors for Neural Architecture Search, MLSys 2024.
    """
    rows = _values(values)
    unit = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), LEAST)
    return choose_buckets(unit @ unit.mean(axis=0), n, rng)


def choose_variance(covariance: npt.ArrayLike, n: int, noise: float | npt.ArrayLike) -> Rows:
    """Return rows whose measurements lower the variances of all rows most, one after the other, the best first.

    Nothing measured is needed: in a Gaussian process variances do not depend on the values. Random numbers are not
    needed either; for another choice give other rows.

    Args:
        covariance: ``(m, m)``, that of a Gaussian process before anything is measured, without noise.
        n: How many to choose.
        noise: The variance of a measurement, above 0; one for all rows, or ``(m,)``.

    Raises:
        ProfilerError: If there are fewer than `n` rows, or the covariance is no square matrix of finite numbers.

    References:
        Krause, Singh, Guestrin, Near-Optimal Sensor Placements in Gaussian Processes, JMLR 2008 (greedy choice under a
        Gaussian process); Seo, Wallat, Graepel, Obermayer, Gaussian Process Regression: Active Data Selection and Test
        Point Rejection, 2000, section 3 (the total variance as what is to fall, after Cohn).

    Example:
        >>> x = np.array([[0.0], [1.0], [-3.0]])
        >>> choose_variance(x @ x.T, 1, 0.1)
        array([2])
    """
    left = np.array(as_numbers("covariances", covariance))
    if left.ndim != 2 or left.shape[0] != left.shape[1] or not np.isfinite(left).all():
        raise ProfilerError(f"a covariance is a square matrix of finite numbers, got one of shape {left.shape}")
    _check(len(left), n)
    given = as_numbers("variances of measurements", noise)
    if given.shape not in ((), (len(left),)) or not np.isfinite(given).all() or not (given > 0).all():
        raise ProfilerError(f"the variance of a measurement (one for all or for each row) is above 0, got {noise!r}")
    noises = np.broadcast_to(given, len(left))
    chosen: list[int] = []
    for _ in range(n):
        falls = (left**2).sum(axis=0) / (np.maximum(np.diagonal(left), 0.0) + noises)
        falls[chosen] = -1.0
        row = int(np.argmax(falls))
        chosen.append(row)
        along = left[row].copy()
        left -= np.outer(along, along / (max(along[row], 0.0) + noises[row]))
    return np.array(chosen, dtype=np.intp)


def _check(m: int, n: int) -> None:
    for number in (m, n):
        if isinstance(number, bool) or not isinstance(number, (int, np.integer)):
            raise TypeError(f"a number of networks is a whole number, got {number!r}")
    if not 1 <= n <= m:
        raise ProfilerError(f"{n} of {m} networks cannot be chosen: it takes at least 1, and no more than there are")


def _values(values: npt.ArrayLike) -> Floats:
    rows = np.array(as_numbers("encodings", values))
    if rows.ndim != 2 or not np.isfinite(rows).all():
        raise ProfilerError(f"an encoding is a row of finite numbers for each network, got the shape {rows.shape}")
    return rows


def _squares(rows: Floats, centres: Floats) -> Floats:
    """Return the squared distances, ``(m, k)``."""
    found: Floats = (rows**2).sum(axis=1)[:, None] - 2.0 * rows @ centres.T + (centres**2).sum(axis=1)
    return np.maximum(found, 0.0)


def _spread_out(rows: Floats, n: int, rng: np.random.Generator) -> list[int]:
    """Return rows to start from, each drawn by its squared distance to those before it."""
    chosen = [int(rng.integers(len(rows)))]
    nearest = _squares(rows, rows[chosen])[:, 0]
    for _ in range(n - 1):
        nearest[chosen] = 0.0
        total = nearest.sum()
        row = int(rng.choice(len(rows), p=nearest / total)) if total > 0 else int(rng.integers(len(rows)))
        chosen.append(row)
        nearest = np.minimum(nearest, _squares(rows, rows[[row]])[:, 0])
    return chosen
