"""fit_robust: learning from measurements of which some are far off."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from nasmw.candidates import Architecture, Candidates, Codes
from nasmw.errors import ProfilerError
from nasmw.profilers.learned.base import LearnedProfiler

__all__ = ["fit_robust"]

Self = TypeVar("Self", bound=LearnedProfiler)
TUNING = 1.345
"""In robust standard deviations; estimates keep 95 % of their efficiency where errors are normal."""
NORMAL_MAD = 1.4826


def fit_robust(
    profiler: Self,
    architectures: Candidates | Codes | Iterable[Architecture],
    values: npt.ArrayLike,
    *,
    rounds: int = 3,
) -> Self:
    """Fit a profiler such that single measurements far off count for little; return the profiler.

    After a first fit, samples with large residuals get weights below 1, and the profiler is fitted anew, several times.

    Args:
        profiler: Any learned profiler.
        architectures: As for `LearnedProfiler.fit`.
        values: As for `LearnedProfiler.fit`.
        rounds: How often weights are set, at least 1.

    Raises:
        ProfilerError: If `rounds` is below 1; all that `LearnedProfiler.fit` raises.

    References:
        Huber, Robust Estimation of a Location Parameter, Annals of Mathematical Statistics 1964; by iteratively
        reweighted least squares (Holland and Welsch, Communications in Statistics 1977).

    Example:
        >>> from nasmw.testing import TableProfiler, toy_space
        >>> space = toy_space()
        >>> known = space.sample(200, np.random.default_rng(0))
        >>> measured = TableProfiler(space).profile_batch(known)
        >>> disturbed = np.where(np.arange(200) % 20 == 0, 3.0 * measured, measured)
        >>> latency = fit_robust(LearnedProfiler(space), known, disturbed)
        >>> bool(np.median(np.abs(latency.profile_batch(known) / measured - 1.0)) < 0.02)
        True
    """
    if rounds < 1:
        raise ProfilerError(f"fit_robust(rounds=...) takes a whole number of at least 1, got {rounds!r}")
    if not isinstance(architectures, (Candidates, np.ndarray)):
        architectures = list(architectures)
    profiler.fit(architectures, values)
    samples = profiler.samples
    candidates = Candidates.of(profiler._space(), samples.codes)
    for _ in range(rounds):
        errors = profiler.profile_batch(candidates) - samples.values
        if profiler.transform == "log":
            errors = errors / samples.values
        size = NORMAL_MAD * float(np.median(np.abs(errors)))
        if size <= 1e-12 * float(np.abs(samples.values).max()):
            break  # all but a few are met exactly
        profiler.fit(candidates, samples.values, weights=1.0 / np.maximum(1.0, np.abs(errors) / (TUNING * size)))
    return profiler
