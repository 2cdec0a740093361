"""SourceDevices: several devices learnt together, from measurements of the same networks."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from nasmw.candidates import Architecture, Candidates, Codes, Floats
from nasmw.errors import OrderError, ProfilerError
from nasmw.profiler import Profiler
from nasmw.profilers.learned import files
from nasmw.profilers.learned.encoding_text import make_encoding
from nasmw.profilers.learned.encodings import Encoding, Group
from nasmw.profilers.learned.predictor import as_numbers
from nasmw.profilers.learned.scores import Scores
from nasmw.space import Space

__all__ = ["SourceDevice", "SourceDevices", "kept_whole", "matern", "scaled_columns", "squared_distances"]

DRAWN = 2048
"""So many random networks say how features are scaled."""
CURVED = (0.1, 0.3, 1.0)
"""Tried as the share of the curved kernel beside the linear one."""
NOISE = (1e-4, 1e-3, 1e-2, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
"""Tried as the variance of the noise beside that of the kernel, for each device apart."""
BLOCK = 1024
LEAST_NETWORKS = 3
MODEL = "source devices"
"""What files call it."""
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


def kept_whole(encoding: Encoding, space: Space) -> list[bool]:
    """Return of each group of an encoding's columns whether they keep their sizes beside each other."""
    return [part.metric for part in encoding.parts for _ in part.groups(space)]


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
        TypeError: If `space` is none, or `devices` are no list of strings.
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
        devices: Iterable[str],
        encoding: Encoding | str = "slots",
        *,
        name: str = "latency_ms",
        unit: str = "ms",
    ) -> None:
        if not isinstance(space, Space):
            raise TypeError(f"SourceDevices takes a Space first, got {type(space).__name__}")
        if isinstance(devices, str) or not isinstance(devices, Iterable):
            raise TypeError(f"SourceDevices takes a list of names of devices, got {devices!r}")
        self.devices = tuple(devices)
        if unnamed := [device for device in self.devices if not isinstance(device, str)]:
            raise TypeError(f"the name of a device is a string, got {unnamed[0]!r}")
        if not self.devices or len(set(self.devices)) < len(self.devices):
            raise ProfilerError(f"sources are one or more devices with names of their own, got {list(self.devices)}")
        self.space = space
        self.encoding = make_encoding(encoding)
        self.name = name
        self.unit = unit
        groups = self.encoding.groups(space)
        drawn = self.encoding.encode(space.sample(DRAWN, np.random.default_rng(0))).values
        self._centre, self._factors = scaled_columns(drawn, groups, kept_whole(self.encoding, space))
        self._groups = groups
        self._known: Floats | None = None
        self._answers = np.zeros((0, len(self.devices)))
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
        numbers = as_numbers("values of sources", values)
        wanted = (len(candidates), len(self.devices))
        if numbers.shape != wanted or len(candidates) < LEAST_NETWORKS:
            raise ProfilerError(
                f"{self!r} learn from values of at least {LEAST_NETWORKS} networks, a column for each device: {wanted} "
                f"were expected, got {numbers.shape}"
            )
        if len(holes := np.flatnonzero(~np.isfinite(numbers).all(axis=1))):
            raise ProfilerError(
                f"{len(holes)} of {len(numbers)} networks have values that are not finite, first row {holes[0]}; "
                "leave these networks out, or devices on which few were measured"
            )
        if (equal := np.ptp(numbers, axis=0) == 0).any():
            raise ProfilerError(
                f"all values of {self.devices[int(equal.argmax())]!r} are equal: nothing can be learnt; leave it out"
            )
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
        return self._said(self._own(architectures)).copy()

    def _said(self, candidates: Candidates) -> Floats:
        """Return what networks take; the array is kept, and is not to be changed."""
        known = self._ready()
        key = candidates.codes.tobytes()
        last = self._last
        if last is None or last[0] != key:  # each device is asked for the same networks in turn
            blocks = [
                self._block(candidates[start : start + BLOCK], known) for start in range(0, len(candidates), BLOCK)
            ]
            last = self._last = key, np.concatenate([np.zeros((0, len(self.devices))), *blocks])
        return last[1]

    def _ready(self) -> Floats:
        """Return the features of the networks that were learnt from."""
        if self._known is None:
            raise OrderError(f"{self!r} have learnt nothing yet; call fit(architectures, values)")
        return self._known

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write what was learnt to a file that holds no pickled objects.

        Raises:
            OrderError: If nothing was learnt yet.
        """
        arrays = {"known": self._ready(), "answers": self._answers, "curved": np.array(self._curved)}
        for number, own in enumerate(self._scores):
            arrays |= {f"values{number}": own.values, f"scores{number}": own.scores}
        header = {
            "space": self.space.fingerprint,
            "space_name": self.space.name,
            "source_encoding": str(self.encoding),
            "encoding_fingerprint": self.encoding.fingerprint(self.space),
            "devices": list(self.devices),
            "name": self.name,
            "unit": self.unit,
            "model": MODEL,
        }
        files.write(path, header, arrays)

    @classmethod
    def load(
        cls, path: str | os.PathLike[str], space: Space, *, given: Mapping[str, Encoding] | None = None
    ) -> SourceDevices:
        """Return the devices that `save` wrote.

        Args:
            path: The file.
            space: The space that it is about.
            given: As for `LearnedProfiler.load`.

        Raises:
            FileNotFoundError: If there is no file.
            ProfilerError: If it is no such file, or about another space or networks of other costs.
        """
        header, arrays = files.read(path, space)
        with files.damaged(path):
            if header.get("model") != MODEL:
                raise ProfilerError(f"{os.fspath(path)!r} was saved by no SourceDevices; use LearnedProfiler.load")
            encoding = make_encoding(header["source_encoding"], given)
            made = cls(space, header["devices"], encoding, name=header["name"], unit=header["unit"])
            if encoding.fingerprint(space) != header["encoding_fingerprint"]:
                raise ProfilerError(
                    f"{os.fspath(path)!r} was saved where the encoding {header['source_encoding']!r} gives other "
                    f"numbers than on {space!r}: other costs, or an encoding learnt on another machine"
                )
            made._known, made._answers, made._curved = arrays["known"], arrays["answers"], float(arrays["curved"])
            numbers = range(len(made.devices))
            made._scores = tuple(Scores(arrays[f"values{number}"], arrays[f"scores{number}"]) for number in numbers)
            # What does not fit together is to be found now, not at the first prediction.
            made.values(space.sample(1, np.random.default_rng(0)))
            return made

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
        return self.sources._said(self.sources._own(candidates))[:, self.number].copy()
