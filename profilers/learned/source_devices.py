"""SourceDevices: several devices learnt together, from measurements of the same networks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import numpy.typing as npt

from nasmw.candidates import Architecture, Candidates, Codes, Floats
from nasmw.errors import OrderError, ProfilerError
from nasmw.profiler import Profiler
from nasmw.profilers.learned.encoding_text import make_encoding
from nasmw.profilers.learned.encodings import Encoding, Group
from nasmw.profilers.learned.scores import Scores
from nasmw.space import Space

__all__ = ["SourceDevice", "SourceDevices", "matern", "scaled_columns", "squared_distances"]

DRAWN = 2048
"""So many random networks say how features are scaled."""
CURVED = (0.1, 0.3, 1.0)
"""Tried as the share of the curved kernel beside the linear one."""
NOISE = (1e-4, 1e-3, 1e-2, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
"""Tried as the variance of the noise beside that of the kernel, for each device apart."""
BLOCK = 1024
LEAST_NETWORKS = 3
LEAST = 1e-9


def matern(squares: Floats) -> Floats:
    """Return the Matern 5/2 kernel of squared distances in units of its length."""
    scaled = np.sqrt(5.0 * squares)
    kernel: Floats = scaled / 3.0
    kernel += 1.0
    kernel *= scaled
    kernel += 1.0
    np.negative(scaled, out=scaled)
    kernel *= np.exp(scaled, out=scaled)
    return kernel


def squared_distances(first: Floats, second: Floats) -> Floats:
    """Return the squared distances between rows, ``(n, m)``."""
    squares: Floats = first @ (-2.0 * second.T)
    squares += (first**2).sum(axis=1)[:, None]
    squares += (second**2).sum(axis=1)
    return np.maximum(squares, 0.0, out=squares)


def scaled_columns(values: Floats, groups: Sequence[Group], whole: Sequence[bool]) -> tuple[Floats, Floats]:
    """Return centres and factors such that the squares of each group's columns sum to 1 on average.

    Args:
        values: ``(n, p)``, of random networks.
        groups: Which columns belong together.
        whole: Of each group, whether its columns keep their sizes beside each other; else they are made alike first.

    Returns:
        ``(p,)`` centres to be subtracted, and ``(p,)`` factors; 0 for columns that are constant.
    """
    centre = values.mean(axis=0)
    size = values.std(axis=0)
    varies = size > LEAST * np.maximum(np.abs(values).max(axis=0), 1e-300)
    factors = np.where(varies, 1.0 / np.where(varies, size, 1.0), 0.0)
    for group, together in zip(groups, whole, strict=True):
        own = slice(group.start, group.stop)
        if together:
            factors[own] = np.where(varies[own], 1.0, 0.0)
        length = np.sqrt((((values[:, own] - centre[own]) * factors[own]) ** 2).sum(axis=1).mean())
        if length > 0:
            factors[own] /= length
    return centre, factors


class SourceDevices:
    """What is known of several devices, learnt together from measurements of the same networks.

    A Gaussian process with a linear kernel for each part of the encoding and a curved one of all of them; the devices
    share the kernels, hence one decomposition serves all. Each has a noise of its own. Shares and noise maximise the
    marginal likelihood, on a grid. Latencies are learnt as normal scores of their ranks, which bears outliers, whole
    milliseconds and any unit.

    Iterating gives a profiler for each device, such as `MultiSourceProfiler` and `TransferProfiler` take as sources.

    Args:
        space: The space.
        devices: The names of ``k`` devices.
        encoding: Of the networks; slots by default.
        name: The name of the metric.
        unit: Its unit.

    Raises:
        TypeError: If `space` is none.
        ProfilerError: If there are no devices, two have one name, or the space lacks what the encoding encodes.

    References:
        Rasmussen and Williams, Gaussian Processes for Machine Learning, 2006, section 2.3 (several outputs that share
        a kernel need one factorisation) and section 5.4.1.

    Example:
        >>> from nasmw.testing import TableProfiler, toy_space
        >>> space = toy_space()
        >>> known = space.sample(100, np.random.default_rng(0))
        >>> first = TableProfiler(space).profile_batch(known)
        >>> sources = SourceDevices(space, ["phone", "board"]).fit(known, np.stack([first, first**2], axis=1))
        >>> [source.device for source in sources]
        ['phone', 'board']
    """

    def __init__(
        self,
        space: Space,
        devices: Sequence[str],
        encoding: Encoding | str = "slots",
        *,
        name: str = "latency_ms",
        unit: str = "ms",
    ) -> None:
        if not isinstance(space, Space):
            raise TypeError(f"SourceDevices takes a Space first, got {type(space).__name__}")
        if not devices or len(set(devices)) < len(devices):
            raise ProfilerError(f"sources are one or more devices with names of their own, got {list(devices)}")
        self.space = space
        self.devices = tuple(devices)
        self.encoding = make_encoding(encoding)
        self.name = name
        self.unit = unit
        groups = self.encoding.groups(space)
        drawn = self.encoding.encode(space.sample(DRAWN, np.random.default_rng(0))).values
        self._centre, self._factors = scaled_columns(drawn, groups, [part.metric for part in self.encoding.parts])
        self._groups = groups
        self._known: Floats | None = None
        self._answers = np.zeros((0, len(devices)))
        self._curved = 0.0
        self._scores: tuple[Scores, ...] = ()
        self._last: tuple[bytes, Floats] | None = None

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {', '.join(self.devices)} of {self.space!r}>"

    def __len__(self) -> int:
        return len(self.devices)

    def __iter__(self) -> Iterator[SourceDevice]:
        return (SourceDevice(self, number) for number in range(len(self.devices)))

    def fit(self, architectures: Candidates | Codes | Iterable[Architecture], values: npt.ArrayLike) -> SourceDevices:
        """Learn from networks that are measured on all devices, from scratch; return the sources.

        Time grows with the third power of the number of networks.

        Args:
            architectures: ``m`` networks.
            values: ``(m, k)``, what each takes on each device.

        Raises:
            ProfilerError: If values do not fit or are not finite, there are fewer than three networks, or all values of
                a device are equal.
        """
        candidates = self._own(architectures)
        numbers = np.asarray(values, dtype=np.float64)
        wanted = (len(candidates), len(self.devices))
        if numbers.shape != wanted or len(candidates) < LEAST_NETWORKS or not np.isfinite(numbers).all():
            raise ProfilerError(
                f"{self!r} learns from finite values of at least {LEAST_NETWORKS} networks, a column for each device: "
                f"{wanted} were expected, got {numbers.shape}"
                + ("" if np.isfinite(numbers).all() else ", and some are not finite; leave these networks out")
            )
        if (equal := np.ptp(numbers, axis=0) == 0).any():
            raise ProfilerError(f"all values of {self.devices[int(equal.argmax())]!r} are equal: nothing can be learnt")
        scores = tuple(Scores.of(column) for column in numbers.T)
        target = np.stack([own.to(column) for own, column in zip(scores, numbers.T, strict=True)], axis=1)
        features = self._features(candidates)
        linear = features @ features.T + 1.0
        curve = matern(squared_distances(features, features) / len(self._groups))
        best = -np.inf
        for share in CURVED:
            lengths, sides = np.linalg.eigh(linear + share * curve)
            lengths, along = np.maximum(lengths, 0.0), sides.T @ target
            likelihoods = np.stack([_likelihoods(lengths, along, noise) for noise in NOISE])
            if (found := float(likelihoods.max(axis=0).sum())) > best:
                best, self._curved = found, share
                noises = np.array(NOISE)[likelihoods.argmax(axis=0)]
                answers = sides @ (along / (lengths[:, None] + noises))
        self._known, self._answers, self._scores = features, answers, scores
        self._last = None
        return self

    def values(self, architectures: Candidates | Codes | Iterable[Architecture]) -> Floats:
        """Return what networks take on all devices, ``(n, k)``, in `unit`.

        Raises:
            OrderError: If nothing was learnt yet.
        """
        candidates = self._own(architectures)
        if self._known is None:
            raise OrderError(f"{self!r} have learnt nothing yet; call fit(architectures, values)")
        key = candidates.codes.tobytes()
        if self._last is None or self._last[0] != key:  # each device is asked for the same networks in turn
            blocks = [
                self._block(candidates[start : start + BLOCK], self._known)
                for start in range(0, len(candidates), BLOCK)
            ]
            self._last = key, np.concatenate([np.zeros((0, len(self.devices))), *blocks])
        return self._last[1]

    def _own(self, architectures: Candidates | Codes | Iterable[Architecture]) -> Candidates:
        if not isinstance(architectures, Candidates):
            return self.space.candidates(architectures)
        if architectures.space is self.space:
            return architectures
        if getattr(architectures.space, "fingerprint", "") != self.space.fingerprint:
            raise ProfilerError(f"{self!r} were given candidates of {architectures.space!r}")
        return Candidates.of(self.space, architectures.codes)

    def _features(self, candidates: Candidates) -> Floats:
        return (self.encoding.encode(candidates).values - self._centre) * self._factors

    def _block(self, candidates: Candidates, known: Floats) -> Floats:
        features = self._features(candidates)
        said = features @ (known.T @ self._answers) + self._answers.sum(axis=0)
        curve = matern(squared_distances(features, known) / len(self._groups))
        said += self._curved * (curve @ self._answers)
        return np.stack([own.back(column) for own, column in zip(self._scores, said.T, strict=True)], axis=1)


def _likelihoods(lengths: Floats, along: Floats, noise: float) -> Floats:
    """Return for each device the logarithm of the marginal likelihood, at the likeliest size of its kernel."""
    variances = lengths + noise
    sizes = (along**2 / variances[:, None]).mean(axis=0)
    likelihoods: Floats = -0.5 * (len(lengths) * np.log(sizes) + np.log(variances).sum())
    return likelihoods


class SourceDevice(Profiler):
    """One of several devices that were learnt together, as a profiler.

    Args:
        sources: The devices, learnt.
        number: Which of them.
    """

    def __init__(self, sources: SourceDevices, number: int) -> None:
        super().__init__(
            sources.name, sources.unit, space=sources.space, kind="learned", device=sources.devices[number]
        )
        self.sources = sources
        self.number = number

    @property
    def fixed(self) -> bool:
        """True: it learns nothing more."""
        return True

    def _profile_batch(self, candidates: Candidates) -> Floats:
        return self.sources.values(candidates)[:, self.number]
