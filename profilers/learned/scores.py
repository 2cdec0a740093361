"""Scores: values by their ranks, as numbers that are normally distributed, and back."""

from __future__ import annotations

import attrs
import numpy as np

from nasmw.candidates import Floats

__all__ = ["Scores", "normal_scores", "ranks"]

ALIKE = 12
"""So many digits of the range tell values apart: sums in another order are the same value."""


def ranks(values: Floats) -> Floats:
    """Return the rank of each value from 1 on, ``(n,)``; equal ones share the mean of theirs."""
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    shared: Floats = np.cumsum(counts) - (counts - 1) / 2.0
    return shared[places]


def normal_scores(values: Floats) -> Floats:
    """Return for each value where a normal distribution has the same share below it, ``(n,)``; equal ones share theirs.

    Values count as equal if they differ by about 1e-12 of the range at most.

    References:
        Blom, Statistical Estimates and Transformed Beta-Variables, 1958, with (rank - 1/2) / n as the share.
    """
    import torch

    _, places, counts = np.unique(_rounded(values), return_inverse=True, return_counts=True)
    middle = np.cumsum(counts) - counts / 2.0
    scores: Floats = torch.special.ndtri(torch.from_numpy(middle / len(values))).numpy()
    return scores[places]


@attrs.frozen(eq=False)
class Scores:
    """A map from values to normal scores that never falls, learnt of a sample.

    Straight lines join the sample's values; beyond them the map goes on as steeply as it is on average.

    Attributes:
        values: ``(m,)``, the sample's, distinct and ascending.
        scores: ``(m,)``, theirs.
    """

    values: Floats
    scores: Floats

    @classmethod
    def of(cls, sample: Floats) -> Scores:
        """Learn the map of a sample with at least two different values."""
        scores = normal_scores(sample)
        _, first = np.unique(_rounded(sample), return_index=True)
        return cls(sample[first], scores[first])

    def to(self, values: Floats) -> Floats:
        """Return the scores of values."""
        return _interpolated(values, self.values, self.scores)

    def back(self, scores: Floats) -> Floats:
        """Return the values that have these scores."""
        return _interpolated(scores, self.scores, self.values)


def _rounded(values: Floats) -> Floats:
    size = float(np.ptp(values)) or 1.0
    rounded: Floats = np.round((values - values.min()) / size, ALIKE)
    return rounded


def _interpolated(x: Floats, known: Floats, values: Floats) -> Floats:
    slope = (values[-1] - values[0]) / (known[-1] - known[0]) if len(known) > 1 else 0.0
    beyond = np.minimum(x - known[0], 0.0) + np.maximum(x - known[-1], 0.0)
    found: Floats = np.interp(x, known, values) + slope * beyond
    return found
