"""AdaptiveIntervals: intervals that keep what they promise while the device, or the networks, change."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from nasmw.candidates import Candidates, Floats
from nasmw.errors import ProfilerError
from nasmw.profiler import Profiler

__all__ = ["AdaptiveIntervals"]


class AdaptiveIntervals:
    """Intervals around a profiler's values, as many standard deviations wide as recent measurements ask for.

    Intervals that are calibrated once hold as often as they say on networks and in a state of the device like those of
    the samples. Here each measurement that comes in widens them a little where it was missed, and narrows them less
    where it was not; so in the long run the promised share holds, whatever changes on the way.

    Args:
        profiler: A profiler with standard deviations; it is not fitted anew.
        coverage: The share of measurements that intervals are to hold, above 0 and below 1.
        start: How many standard deviations they reach to each side at first; what normal errors take, by default.
        step: A measurement that was missed multiplies the width by ``exp(step * coverage)``, another one by
            ``exp(-step * (1 - coverage))``.

    Attributes:
        reach: How many standard deviations intervals reach to each side now.

    Raises:
        ProfilerError: If a number is out of range; at use, if the profiler has no standard deviations.

    References:
        Gibbs, Candes, Adaptive Conformal Inference Under Distribution Shift, NeurIPS 2021, equation 2; here the
        logarithm of the quantile is moved, similar to Angelopoulos, Candes, Tibshirani, Conformal PID Control for Time
        Series Prediction, NeurIPS 2023, equation 3.

    Example:
        >>> from nasmw.profilers.learned import LearnedProfiler
        >>> from nasmw.testing import TableProfiler, toy_space
        >>> space = toy_space()
        >>> known = space.sample(100, np.random.default_rng(0))
        >>> values = TableProfiler(space).profile_batch(known)
        >>> latency = LearnedProfiler(space).fit(known, values + np.random.default_rng(0).normal(size=100))
        >>> intervals = AdaptiveIntervals(latency)
        >>> before = intervals.reach
        >>> intervals.update(known, values + 100.0)
        >>> intervals.reach > before
        True
    """

    def __init__(
        self, profiler: Profiler, coverage: float = 0.9, *, start: float | None = None, step: float = 0.1
    ) -> None:
        if not 0.0 < coverage < 1.0:
            raise ProfilerError(f"the coverage of an interval is above 0 and below 1, got {coverage!r}")
        if not step > 0.0:
            raise ProfilerError(f"AdaptiveIntervals(step=...) takes a number above 0, got {step!r}")
        self.profiler = profiler
        self.coverage = coverage
        self.step = step
        self.reach = 1.645 if start is None else float(start)

    def _deviations(self, candidates: Candidates) -> Floats:
        std = self.profiler.std(candidates)
        if std is None:
            raise ProfilerError(f"{self.profiler!r} has no standard deviations to make intervals from")
        return std

    def interval(self, candidates: Candidates) -> tuple[Floats, Floats]:
        """Return the lower and the upper ends, each ``(n,)``."""
        values, std = self.profiler.profile_batch(candidates), self._deviations(candidates)
        return values - self.reach * std, values + self.reach * std

    def update(self, candidates: Candidates, measured: npt.ArrayLike) -> None:
        """Learn from measurements, one after the other in the order given.

        Args:
            candidates: ``n`` candidates.
            measured: ``(n,)``, in the profiler's unit; NaN is passed over.
        """
        self.held(candidates, measured)

    def held(self, candidates: Candidates, measured: npt.ArrayLike) -> npt.NDArray[np.bool_]:
        """Do as `update`, and return for each measurement whether the interval just before it held it, ``(n,)``.

        It is False for NaN.
        """
        values = np.asarray(measured, dtype=np.float64)
        distances = np.abs(values - self.profiler.profile_batch(candidates)) / self._deviations(candidates)
        found = np.zeros(len(values), dtype=np.bool_)
        for row, distance in enumerate(distances.tolist()):
            if np.isnan(distance):
                continue
            found[row] = distance <= self.reach
            self.reach *= float(np.exp(self.step * (float(not found[row]) - (1.0 - self.coverage))))
        return found
