"""Calibration: from residuals of samples left out to intervals that hold as often as they say."""

from __future__ import annotations

import math
from collections.abc import Callable
from statistics import NormalDist

import attrs
import numpy as np

from nasmw.candidates import Floats
from nasmw.errors import ProfilerError
from nasmw.profilers.learned.encodings import Features
from nasmw.profilers.learned.predictor import LeftOut, Prediction, Predictor

__all__ = ["Calibration", "cross_validated"]

NOMINAL = 0.9
"""The coverage at which a standard deviation is calibrated."""
NORMAL = NormalDist().inv_cdf(0.5 + NOMINAL / 2)


@attrs.frozen(eq=False)
class Calibration:
    """How large residuals of samples left out are beside the spread that was predicted for them.

    Attributes:
        scores: ``(m,)`` float64, residuals over spreads, without signs, in ascending order.
    """

    scores: Floats

    @classmethod
    def of(cls, residuals: Floats, spreads: Floats) -> Calibration:
        """Return the calibration on residuals of samples left out."""
        return cls(np.sort(np.abs(residuals) / spreads))

    def quantile(self, coverage: float) -> float:
        """Return how many spreads an interval reaches to each side to hold with a probability of `coverage`.

        With enough samples it is the conformal quantile, the ceil((m + 1) * coverage)-th smallest score; it promises
        nothing of a distribution. Where that rank exceeds the number of scores, it is the quantile of Student's t
        around their root mean square.

        Raises:
            ProfilerError: If the coverage is not above 0 and below 1.

        References:
            Lei, G'Sell, Rinaldo, Tibshirani, Wasserman, Distribution-Free Predictive Inference for Regression, JASA
            2018, sections 2.2 and 5.2 (locally weighted). Scores come from cross-validation, not from a split, as in
            Barber, Candes, Ramdas, Tibshirani, Predictive Inference with the Jackknife+, Annals of Statistics 2021,
            with the final fit in the place of the fits of the folds.
        """
        if not isinstance(coverage, (int, float)) or not 0.0 < coverage < 1.0:
            raise ProfilerError(f"the coverage of an interval is above 0 and below 1, got {coverage!r}")
        rank = math.ceil((len(self.scores) + 1) * coverage - 1e-9)
        if rank <= len(self.scores):
            return float(self.scores[rank - 1])
        size = float(np.sqrt(np.mean(self.scores**2)))
        return max(size * student(0.5 + coverage / 2, len(self.scores) - 1), float(self.scores[-1]))

    @property
    def std(self) -> float:
        """How many spreads a standard deviation is: 1.645 of them to each side hold 90 %."""
        return self.quantile(NOMINAL) / NORMAL


def student(probability: float, freedom: int) -> float:
    """Return the quantile of Student's t, by the expansion of Cornish and Fisher around the normal one."""
    z = NormalDist().inv_cdf(probability)
    v = max(freedom, 1)
    first = (z**3 + z) / 4
    second = (5 * z**5 + 16 * z**3 + 3 * z) / 96
    third = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    return z + first / v + second / v**2 + third / v**3


def cross_validated(
    make: Callable[[], Predictor], features: Features, values: Floats, weights: Floats, folds: int, used: int
) -> LeftOut:
    """Return predictions of samples by predictors that have not seen them.

    Args:
        make: Makes a predictor with nothing learnt.
        features: Of ``n`` samples.
        values: ``(n,)``.
        weights: ``(n,)``.
        folds: Into how many parts the samples are split, at random but the same way each time.
        used: How many of the parts are predicted.
    """
    order = np.random.default_rng(0).permutation(len(values))
    parts = np.array_split(order, min(folds, len(values)))
    means, spreads = [], []
    chosen = parts[:used]
    for part in chosen:
        rest = np.setdiff1d(order, part)
        predictor = make()
        predictor.fit(features[rest], values[rest], weights[rest] / weights[rest].mean())
        predicted = predictor.predict(features[part])
        means.append(predicted.mean)
        spreads.append(predicted.spread)
    return LeftOut(np.concatenate(chosen), Prediction(np.concatenate(means), np.concatenate(spreads)))
