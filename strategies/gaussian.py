"""A Gaussian process over architectures, with a cost per answer that stays bounded."""

from __future__ import annotations

import functools
import itertools
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from nasmw.candidates import Floats

__all__ = ["GaussianProcess", "normal_scores"]

SCALES = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
OTHER_SCALES = (0.25, 0.5, 1.0, 2.0, 4.0, 1e3)
"""Of the other columns, in units of their spread; the last one leaves them out."""
NOISES = (1e-3, 1e-2, 3e-2, 1e-1, 3e-1, 1.0)
FITTED_ON = 160
GROWTH = 1.3
SLACK = 64
NORMAL = NormalDist()


def normal_scores(values: Floats) -> Floats:
    """Return for each value the quantile of the normal distribution that its rank stands for; equal ones are equal."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts) - 1
    quantiles = _quantiles(len(values))
    scores: Floats = (quantiles[last - counts + 1] + quantiles[last])[inverse.ravel()] / 2.0
    return scores


@functools.lru_cache(maxsize=16)
def _quantiles(n: int) -> Floats:
    """Return the expected scores of `n` ordered draws from the normal distribution, nearly (Blom, 1958)."""
    return np.array([NORMAL.inv_cdf((rank + 0.625) / (n + 0.25)) for rank in range(n)])


class GaussianProcess:
    """Predicts a score from features, with its uncertainty; learns one more observation in O(n²).

    The kernel is squared exponential, so that on one-hot features it is a product over the choices. Its lengths and the
    noise are those of a small grid with the greatest marginal likelihood, sought anew as observations grow by 30 %.
    Scores are replaced by normal scores of their ranks: how far the worst are from the rest does not matter.

    Args:
        most: How many observations it answers from, some 64 more between two rebuildings: beyond, the best half and
            the latest of the rest.
        columns: The number of features.
        others: How many of these, the last ones, have a length of their own: what they tell is not that of the rest.
    """

    def __init__(self, most: int, columns: int, others: int = 0) -> None:
        self._most = most
        self._first = columns - others
        self._all = np.zeros((64, columns), dtype=np.float32)
        self._known: Floats = np.zeros((0, columns))
        self._scores = np.zeros(64)
        self._length = 0
        self._fitted = 0
        self._scale, self._other, self._noise = 2.0, 1.0, 1e-1
        self._used: npt.NDArray[np.intp] = np.zeros(0, dtype=np.intp)
        self._size = 0  # how many of all are in the inverse, or left out of it
        self._inverse: Floats = np.zeros((0, 0))
        self._weights = np.zeros(0)
        self._targets = np.zeros(0)
        self._variance = 1.0

    def __len__(self) -> int:
        return self._length

    @property
    def best(self) -> float:
        """The greatest normal score of the observations that it answers from."""
        return float(self._targets.max())

    def top(self, n: int) -> list[int]:
        """Return the numbers of the `n` observations with the greatest scores, the first of equals first."""
        order: list[int] = np.argsort(-self._scores[: self._length], kind="stable").tolist()
        return order[:n]

    def add(self, features: Floats, score: float) -> None:
        """Add an observation: ``(columns,)`` features and a score."""
        if self._length == len(self._scores):
            self._all = np.concatenate([self._all, np.zeros_like(self._all)])
            self._scores = np.concatenate([self._scores, np.zeros_like(self._scores)])
        self._all[self._length], self._scores[self._length] = features, score
        self._length += 1

    def update(self) -> None:
        """Take in what was added; called before `predict`."""
        if self._size == self._length:
            return
        if self._length >= GROWTH * self._fitted:
            self._fit()
            self._rebuild()
        elif len(self._used) + self._length - self._size > self._most + SLACK:
            self._rebuild()
        else:
            for row in range(self._size, self._length):
                self._append(row)
        self._size = self._length
        self._targets = normal_scores(self._scores[self._used])
        self._weights = self._inverse @ self._targets
        self._variance = max(float(self._targets @ self._weights) / len(self._used), 1e-6)

    def predict(self, features: Floats) -> tuple[Floats, Floats]:
        """Return means and standard deviations for ``(n, columns)`` features, on the scale of normal scores."""
        known = self._kernel(features, self._known)
        mean = known @ self._weights
        left = 1.0 - np.einsum("ij,ij->i", known @ self._inverse, known)
        return mean, np.sqrt(self._variance * np.maximum(left, 1e-9))

    def _kernel(self, first: Floats, second: Floats) -> Floats:
        near, other = self._distances(first, second)
        return np.exp(near * (-0.5 / self._scale**2) + other * (-0.5 / self._other**2))

    def _distances(self, first: Floats, second: Floats) -> tuple[Floats, Floats]:
        """Return the squared distances of all pairs of rows, by the first columns and by the others."""
        parts = slice(self._first), slice(self._first, None)
        near, other = (_distances(first[:, part], second[:, part]) for part in parts)
        return near, other

    def _fit(self) -> None:
        """Choose scales and noise by the marginal likelihood of some observations."""
        self._fitted = self._length
        rows = self._chosen(FITTED_ON)
        targets = normal_scores(self._scores[rows])
        features = self._all[rows].astype(np.float64)
        near, other = self._distances(features, features)
        best = np.inf
        for scale, length in itertools.product(SCALES, OTHER_SCALES if self._first < features.shape[1] else (1.0,)):
            values, vectors = np.linalg.eigh(np.exp(-near / (2.0 * scale**2) - other / (2.0 * length**2)))
            projected = (vectors.T @ targets) ** 2
            for noise in NOISES:
                spread = np.maximum(values, 0.0) + noise
                loss = len(rows) * np.log(max((projected / spread).mean(), 1e-12)) + np.log(spread).sum()
                if loss < best - 1e-9:
                    best, self._scale, self._other, self._noise = float(loss), scale, length, noise

    def _chosen(self, most: int) -> npt.NDArray[np.intp]:
        """Return the numbers of up to `most` observations: the best half, and the latest of the rest."""
        if self._length <= most:
            return np.arange(self._length)
        order = np.argsort(-self._scores[: self._length], kind="stable")
        half = most // 2
        return np.sort(np.concatenate([order[:half], np.sort(order[half:])[half - most :]]))

    def _rebuild(self) -> None:
        self._used = self._chosen(self._most)
        self._known = self._all[self._used].astype(np.float64)
        kernel = self._kernel(self._known, self._known)
        kernel[np.diag_indices(len(kernel))] += self._noise
        self._inverse = np.asarray(np.linalg.inv(kernel), dtype=np.float64)

    def _append(self, row: int) -> None:
        """Add an observation to the inverse, as a block of one."""
        features = self._all[row : row + 1].astype(np.float64)
        known = self._kernel(features, self._known)[0]
        through = self._inverse @ known
        left = max(1.0 + self._noise - float(known @ through), 1e-9)
        n = len(known)
        inverse: Floats = np.empty((n + 1, n + 1))
        inverse[:n, :n] = self._inverse + np.outer(through, through / left)
        inverse[n, :n] = inverse[:n, n] = -through / left
        inverse[n, n] = 1.0 / left
        self._inverse = inverse
        self._used = np.append(self._used, row)
        self._known = np.concatenate([self._known, features])


def _distances(first: Floats, second: Floats) -> Floats:
    """Return the squared distances of all pairs of rows."""
    products = first @ second.T
    squares = np.einsum("ij,ij->i", first, first)[:, None] + np.einsum("ij,ij->i", second, second)
    distances: Floats = np.maximum(squares - 2.0 * products, 0.0)
    return distances
