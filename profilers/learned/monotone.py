"""Monotone: from scores that only order to values, by an increasing function through samples."""

from __future__ import annotations

import attrs
import numpy as np

from nasmw.candidates import Floats

__all__ = ["Monotone"]

FLATTEST = 1e-3
"""The least slope beyond the samples, as a share of what spreads of values over spreads of scores are."""

ALIKE = 1e-9
"""Scores that differ by less are equal."""


@attrs.frozen(eq=False)
class Monotone:
    """A function that increases strictly: straight between knots, and beyond them along the line of least squares.

    Between samples it is isotonic regression; each run of samples that it holds to be equal is one knot, at the mean
    of their scores. So the order of any two scores is kept.

    Attributes:
        scores: ``(k,)``, the knots in ascending order, the first and the last beyond the samples.
        values: ``(k,)``, the values there.

    References:
        Barlow, Bartholomew, Bremner, Brunk, Statistical Inference under Order Restrictions, 1972 (pooling of adjacent
        violators).
    """

    scores: Floats = attrs.field(factory=lambda: np.array([0.0, 1.0]))
    values: Floats = attrs.field(factory=lambda: np.array([0.0, 1.0]))

    @classmethod
    def fit(cls, scores: Floats, values: Floats, weights: Floats) -> Monotone:
        """Return the function through samples; `weights` say how much each counts."""
        blocks: list[tuple[float, float, float]] = []
        for row in np.argsort(scores, kind="stable"):
            weight, score, value = float(weights[row]), float(scores[row]), float(values[row])
            while blocks and (value <= blocks[-1][2] or score <= blocks[-1][1]):
                own, other, mean = blocks.pop()
                total = weight + own
                score, value = (weight * score + own * other) / total, (weight * value + own * mean) / total
                weight = total
            blocks.append((weight, score, value))
        knots, steps = np.array([block[1:] for block in blocks]).T
        wide = float(np.ptp(scores))
        centre, level = np.average(scores, weights=weights), np.average(values, weights=weights)
        squares = np.average((scores - centre) ** 2, weights=weights)
        slope = float(np.average((scores - centre) * (values - level), weights=weights) / max(float(squares), 1e-18))
        if wide < ALIKE:  # equal scores say nothing of how fast values rise
            wide, slope = 1.0, 0.0
        slope = max(slope, FLATTEST * max(float(np.ptp(values)), 1e-9) / wide)
        return cls(
            np.concatenate([[knots[0] - wide], knots, [knots[-1] + wide]]),
            np.concatenate([[steps[0] - slope * wide], steps, [steps[-1] + slope * wide]]),
        )

    def __call__(self, scores: Floats) -> Floats:
        """Return values for scores, ``(n,)``."""
        place = np.clip(np.searchsorted(self.scores, scores, side="right") - 1, 0, len(self.scores) - 2)
        slopes = np.diff(self.values) / np.diff(self.scores)
        return np.asarray(self.values[place] + slopes[place] * (scores - self.scores[place]))
