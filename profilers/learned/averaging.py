"""Weights of a sum of kernels, drawn from their posterior: what a Gaussian process averages over if samples are few."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from nasmw.candidates import Floats

__all__ = ["draw_variances"]

PROPOSED = 512
TURNS = 30
"""An ellipse that was cut so often is a point to float64 all but always; the draw then stays where it is."""
FAILED = -1e300


def draw_variances(
    kernels: Floats,
    target: Floats,
    noise: Floats,
    centre: Floats,
    width: float,
    *,
    draws: int,
    steps: int,
    rng: np.random.Generator,
) -> tuple[Floats, float]:
    """Return variances of kernels and of noise, drawn given samples, and how likely the samples are.

    Each draw counts alike. The logarithms of the variances have independent normal priors. Many are drawn of the prior,
    some of these by their likelihoods, and each of them then goes some steps of elliptical slice sampling, side by
    side.

    Args:
        kernels: ``(q, S, S)``, the kernels between ``S`` samples.
        target: ``(S,)``, what was measured.
        noise: ``(S,)``, by how much the variance of a measurement is multiplied in each sample.
        centre: ``(q + 1,)``, logarithms of the variances under the prior, the last one that of the noise.
        width: The standard deviation of the logarithms under the prior.
        draws: How many are returned.
        steps: How many steps each one goes.
        rng: The random numbers.

    Returns:
        ``(draws, q + 1)`` variances, and the logarithm of the marginal likelihood, averaged over the prior, up to a
        constant.

    References:
        Murray, Adams, MacKay, Elliptical Slice Sampling, AISTATS 2010, figure 2; after Murray and Adams, Slice Sampling
        Covariance Hyperparameters of Latent Gaussian Models, NeurIPS 2010. The start is drawn by importance resampling.
    """

    def likelihoods(states: Floats) -> Floats:
        return _likelihoods(kernels, target, noise, np.exp(centre + width * states))

    proposed = rng.standard_normal((PROPOSED, len(centre)))
    known = likelihoods(proposed)
    shares = np.exp(known - known.max())
    ends = np.cumsum(shares / shares.sum())
    taken = np.minimum(np.searchsorted(ends, (np.arange(draws) + rng.random()) / draws), PROPOSED - 1)
    states, current = proposed[taken], known[taken]
    for _ in range(steps):
        states, current = _step(states, current, likelihoods, rng)
    average = float(known.max() + np.log(shares.mean()))
    return np.exp(centre + width * states), average


def _step(
    states: Floats, current: Floats, likelihoods: Callable[[Floats], Floats], rng: np.random.Generator
) -> tuple[Floats, Floats]:
    """Move every state along an ellipse of its own, to where the likelihood is above a height that was drawn."""
    m = len(states)
    others = rng.standard_normal(states.shape)
    heights = current + np.log(rng.random(m))
    angles = rng.random(m) * 2.0 * np.pi
    low, high = angles - 2.0 * np.pi, angles.copy()
    states, current = states.copy(), current.copy()
    start = states.copy()
    moving = np.arange(m)
    for _ in range(TURNS):
        angle = angles[moving][:, None]
        tried = start[moving] * np.cos(angle) + others[moving] * np.sin(angle)
        found = likelihoods(tried)
        above = found > heights[moving]
        states[moving[above]], current[moving[above]] = tried[above], found[above]
        moving = moving[~above]
        if not len(moving):
            break
        below = angles[moving] < 0
        low[moving[below]] = angles[moving[below]]
        high[moving[~below]] = angles[moving[~below]]
        angles[moving] = low[moving] + (high[moving] - low[moving]) * rng.random(len(moving))
    return states, current


def _likelihoods(kernels: Floats, target: Floats, noise: Floats, variances: Floats) -> Floats:
    """Return the logarithm of the marginal likelihood for each row of variances, up to a constant, ``(m,)``."""
    size = len(target)
    covariance = np.tensordot(variances[:, :-1], kernels, axes=1)
    covariance[:, np.arange(size), np.arange(size)] += variances[:, -1:] * noise
    try:
        factor = np.linalg.cholesky(covariance)
    except np.linalg.LinAlgError:
        if len(variances) == 1:
            return np.array([FAILED])
        return np.concatenate([_likelihoods(kernels, target, noise, row[None]) for row in variances])
    whitened = np.linalg.solve(factor, np.broadcast_to(target[:, None], (len(variances), size, 1)))[..., 0]
    found: Floats = -0.5 * (whitened**2).sum(axis=1) - np.log(np.diagonal(factor, axis1=1, axis2=2)).sum(axis=1)
    return found
