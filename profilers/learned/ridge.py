"""Ridge: a linear predictor in closed form."""

from __future__ import annotations

from typing import Any, ClassVar

import attrs
import numpy as np

from nasmw.candidates import Floats
from nasmw.profilers.learned.encodings import Features
from nasmw.profilers.learned.predictor import Arrays, LeftOut, Linear, Prediction, Predictor, number

__all__ = ["Ridge"]

PENALTIES = tuple(10.0**exponent for exponent in np.arange(-4.0, 3.01, 0.5))
LEAST = 1e-12  # eigenvalues below this share of the greatest are noise
MOST_LEVERAGE = 1.0 - 1e-9


@attrs.define(eq=False)
class Ridge(Predictor):
    """A weighted sum of the features, with a penalty on the squares of the weights; fitted in closed form.

    The intercept is not penalised. Uncertainty is that of Bayesian linear regression: it grows where features are
    unlike those of the samples. Residuals of samples left out are exact without further fits (the PRESS statistic,
    Allen, Technometrics 1974).

    Args:
        penalty: How much squares of weights cost, above 0; None for the one of a grid from 1e-4 to 1e3 that has the
            least squared error on samples left out one at a time.
    """

    kind: ClassVar[str] = "ridge"
    minimum: ClassVar[int] = 3
    options: ClassVar[dict[str, tuple[Any, ...]]] = {"penalty": PENALTIES}

    penalty: float | None = attrs.field(
        default=None,
        validator=attrs.validators.optional(number("a number above 0 or None", lambda x: 0.0 < x < np.inf)),
    )
    _weights: Floats = attrs.field(init=False, factory=lambda: np.zeros(0))
    _centre: Floats = attrs.field(init=False, factory=lambda: np.zeros(0))
    _constant: float = attrs.field(init=False, default=0.0)
    _basis: Floats = attrs.field(init=False, factory=lambda: np.zeros((0, 0)))  # (p, r), orthonormal
    _shrunk: Floats = attrs.field(init=False, factory=lambda: np.zeros(0))  # (r,), variance along each of them
    _elsewhere: float = attrs.field(init=False, default=0.0)  # variance along all other directions
    _offset: float = attrs.field(init=False, default=0.0)  # variance of the mean
    _left_out: LeftOut | None = attrs.field(init=False, default=None)

    def fit(self, features: Features, values: Floats, weights: Floats) -> None:
        """Learn from samples."""
        x = features.values
        total = weights.sum()
        self._centre = weights @ x / total
        middle = float(weights @ values / total)
        root = np.sqrt(weights)
        centred = (x - self._centre) * root[:, None]
        target = (values - middle) * root
        lengths, basis, projected = _decomposed(centred)
        answer = projected.T @ target
        own = weights / total
        best, least = 0.0, np.inf
        for penalty in PENALTIES if self.penalty is None else (self.penalty,):
            leverage = np.minimum(own + (projected**2) @ (1.0 / (lengths + penalty)), MOST_LEVERAGE)
            residual = (target - projected @ (answer / (lengths + penalty))) / (1.0 - leverage)
            if (error := float(residual @ residual)) < least:
                best, least, kept = penalty, error, (leverage, residual)
        self._basis = basis
        self._shrunk = 1.0 / (lengths + best)
        self._elsewhere = 1.0 / best if basis.shape[1] < basis.shape[0] else 0.0
        self._offset = 1.0 / float(total)
        self._weights = basis @ (answer * self._shrunk)
        self._constant = middle - float(self._centre @ self._weights)
        leverage, residual = kept
        spread = np.sqrt(1.0 + leverage / (weights * (1.0 - leverage)))
        self._left_out = LeftOut(np.arange(len(values)), Prediction(values - residual / root, spread))

    def predict(self, features: Features) -> Prediction:
        """Return what was learnt of candidates."""
        centred = features.values - self._centre
        along = centred @ self._basis
        variance = self._offset + (along**2) @ self._shrunk
        if self._elsewhere:
            rest = np.maximum((centred**2).sum(axis=1) - (along**2).sum(axis=1), 0.0)
            variance = variance + self._elsewhere * rest
        mean = (features.values * self._weights).sum(axis=1) + self._constant
        return Prediction(mean, np.sqrt(1.0 + variance))

    def left_out(self) -> LeftOut | None:
        """Return the prediction of each sample had it been left out, exactly."""
        return self._left_out

    def linear(self) -> Linear:
        """Return the weights."""
        return Linear(self._weights, self._constant)

    def state(self) -> Arrays:
        """Return what was learnt, as arrays."""
        return {
            "weights": self._weights,
            "centre": self._centre,
            "basis": self._basis,
            "shrunk": self._shrunk,
            "numbers": np.array([self._constant, self._elsewhere, self._offset]),
        }

    def restore(self, state: Arrays, groups: tuple[Any, ...]) -> None:
        """Take back what `state` gave."""
        self._weights, self._centre = state["weights"], state["centre"]
        self._basis, self._shrunk = state["basis"], state["shrunk"]
        self._constant, self._elsewhere, self._offset = (float(number) for number in state["numbers"])


def _decomposed(x: Floats) -> tuple[Floats, Floats, Floats]:
    """Return the eigenvalues of ``x.T @ x`` above 0, its eigenvectors ``(p, r)``, and `x` along them, ``(n, r)``."""
    n, p = x.shape
    if n >= p:
        lengths, basis = np.linalg.eigh(x.T @ x)
        kept = lengths > LEAST * lengths.max(initial=1e-300)
        return lengths[kept], basis[:, kept], x @ basis[:, kept]
    lengths, sides = np.linalg.eigh(x @ x.T)
    kept = lengths > LEAST * lengths.max(initial=1e-300)
    lengths, sides = lengths[kept], sides[:, kept]
    roots = np.sqrt(lengths)
    return lengths, x.T @ sides / roots, sides * roots
