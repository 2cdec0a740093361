"""Ranks of proxies within a reference sample: their mean as a profiler, and side by side as an encoding."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import nn
from tqdm import tqdm

from nasmw.candidates import Candidates, Floats
from nasmw.errors import ProfilerError
from nasmw.profiler import Profiler, check_names
from nasmw.profilers.learned.given import Given
from nasmw.profilers.zero_cost.base import check_whole
from nasmw.space import Space

__all__ = ["RankEnsembleProfiler", "proxy_encoding"]


class Ranks:
    """The places of values among those of a reference sample, by profiler, as numbers between 0 and 1.

    Args:
        profilers: Profilers of one space, with different names.
        size: The number of architectures in the sample, at least 2; all of a space that has no more.
        seed: What the sample is drawn from.
        progress: Whether a bar is shown while the sample is profiled.
    """

    def __init__(self, owner: str, profilers: Sequence[Profiler], size: int, seed: int, progress: bool) -> None:
        self.profilers = tuple(profilers)
        if not self.profilers:
            raise ProfilerError(f"{owner} needs at least one profiler")
        check_names(self.profilers)
        if len({profiler.name for profiler in self.profilers}) < len(self.profilers):
            raise ProfilerError(f"{owner} was given one profiler twice; use weights instead")
        spaces = {profiler.space.fingerprint: profiler.space for profiler in self.profilers if profiler.space}
        if len(spaces) != 1 or any(profiler.space is None for profiler in self.profilers):
            raise ProfilerError(
                f"{owner} ranks architectures, so its profilers are made with one and the same space; got "
                f"{[profiler.space for profiler in self.profilers]}"
            )
        if learning := [profiler for profiler in self.profilers if profiler.pure and not profiler.fixed]:
            raise ProfilerError(
                f"{owner} ranks among values that stay, and {learning[0]!r} learns during a search; rank it by "
                "Rank(..., by='rank'), or freeze it"
            )
        self.space: Space = next(iter(spaces.values()))
        self.size = check_whole(owner, "reference", size, 2)
        self.seed = check_whole(owner, "seed", seed, 0)
        self.progress = progress
        self._known: dict[str, tuple[Floats, Floats]] = {}

    def sample(self) -> Candidates:
        """Return the reference sample: distinct architectures, equally likely."""
        if self.space.size <= self.size:
            return self.space.at(range(self.space.size))
        rng = np.random.default_rng(self.seed)
        found: dict[bytes, Candidates] = {}
        while len(found) < self.size:
            batch = self.space.sample(self.size, rng)
            for number, key in enumerate(batch.row_keys()):
                if len(found) < self.size:
                    found.setdefault(key, batch[number])
        return Candidates.join(list(found.values()))

    def _reference(self, profiler: Profiler) -> tuple[Floats, Floats]:
        """Return the different values of the sample, ascending, and the place of each."""
        if profiler.name not in self._known:
            sample = self.sample()
            rows = range(len(sample))
            bar = tqdm(rows, desc=f"{profiler.name} of a reference sample", disable=not self.progress, leave=False)
            found = np.array([profiler.profile_batch(sample[row])[0] for row in bar])
            values, counts = np.unique(found, return_counts=True)
            places = (np.cumsum(counts) - counts / 2.0) / len(found)
            self._known[profiler.name] = values, places
        return self._known[profiler.name]

    def of(self, profiler: Profiler, given: Floats) -> Floats:
        """Return the places of values of a profiler, ``(n,)``."""
        values, places = self._reference(profiler)
        found: Floats = np.interp(given, values, places)
        middle = float(np.interp(0.5, places, values))
        above, below = given > values[-1], given < values[0]
        found[above] += (1.0 - places[-1]) * _share(given[above] - values[-1], values[-1] - middle)
        found[below] -= places[0] * _share(values[0] - given[below], middle - values[0])
        return found


def _share(distance: Floats, unit: float) -> Floats:
    """Return how far beyond an end distances lie, between 0 and 1 and strictly growing."""
    ratio = distance / (unit if unit > 0.0 else 1.0)
    return ratio / (1.0 + ratio)


class RankEnsembleProfiler(Profiler):
    """Mean of the ranks of an architecture among a reference sample, over several proxies; between 0 and 1.

    The reference sample is drawn from the space by a seed and profiled once, when the first value is asked for, so a
    value depends on nothing that a search has seen. The place of an architecture by one proxy is the share of the
    sample with smaller values, those of equal value counted by half, and interpolated between neighbouring values.
    Beyond the ends of the sample, where a search soon gets, places still grow with the values: towards 1 and 0, which
    they do not reach, slower the farther out.

    `Rank(..., by="rank")` ranks several scorers within a group of candidates, without a reference.

    Args:
        profilers: The proxies, of one space, with different names. Any profiler will do, `ParamsProfiler` included.
        weights: One finite number for each, negative where less is better; they are divided by the sum of their
            sizes. 1 by default.
        reference: How many architectures the sample has, at least 2; all of a space that has no more.
        name: The name of the metric.
        seed: What the sample is drawn from.
        progress: Whether a bar is shown while the sample is profiled.

    Raises:
        ProfilerError: If there is no profiler, two have one name, they are not of one space, one learns during a
            search, or weights do not fit.
        ValueError: If `reference` or `seed` is out of range.

    References:
        Abdelfattah, Mehrotra, Dudziak, Lane, Zero-Cost Proxies for Lightweight NAS, ICLR 2021, let synflow, jacov and
        snip vote on pairs of networks. Ranks within a fixed sample make a number of each network by itself.

    Example:
        >>> from nasmw.testing import TableProfiler, toy_space
        >>> space = toy_space()
        >>> parts = [TableProfiler(space), TableProfiler(space, "other", seed=2)]
        >>> votes = RankEnsembleProfiler(parts, reference=100, progress=False)
        >>> low, high = parts[0].bounds().low_architecture, parts[0].bounds().high_architecture
        >>> votes.profile(low) < 0.1 < 0.9 < votes.profile(high)
        True
    """

    def __init__(
        self,
        profilers: Sequence[Profiler],
        *,
        weights: Sequence[float] | None = None,
        reference: int = 64,
        name: str = "proxy_rank",
        seed: int = 0,
        progress: bool = True,
    ) -> None:
        self._ranks = Ranks(type(self).__name__, profilers, reference, seed, progress)
        self.profilers = self._ranks.profilers
        super().__init__(
            name, space=self._ranks.space, kind="analytical" if all(one.fixed for one in self.profilers) else "measured"
        )
        self.weights = _weights(weights, len(self.profilers))
        self.reference = reference
        self.seed = seed

    @property
    def fixed(self) -> bool:
        """Whether all parts are fixed."""
        return all(profiler.fixed for profiler in self.profilers)

    @property
    def pure(self) -> bool:
        """Whether all parts are pure."""
        return all(profiler.pure for profiler in self.profilers)

    def _profile_batch(self, candidates: Candidates) -> Floats:
        total = np.zeros(len(candidates))
        for weight, profiler in zip(self.weights, self.profilers, strict=True):
            places = self._ranks.of(profiler, profiler.profile_batch(candidates))
            total += weight * places if weight > 0.0 else -weight * (1.0 - places)
        return total

    def _profile_model(self, model: nn.Module) -> float:
        total = 0.0
        for weight, profiler in zip(self.weights, self.profilers, strict=True):
            place = float(self._ranks.of(profiler, np.array([profiler.profile_model(model)]))[0])
            total += weight * place if weight > 0.0 else -weight * (1.0 - place)
        return total

    def __repr__(self) -> str:
        parts = ", ".join(
            f"{weight:.3g} of {profiler!r}" for weight, profiler in zip(self.weights, self.profilers, strict=True)
        )
        return f"<RankEnsembleProfiler {self.name!r}: {parts}; among {self.reference} drawn by seed {self.seed}>"


def _weights(weights: Sequence[float] | None, number: int) -> tuple[float, ...]:
    """Return one weight for each profiler, of sizes that add up to 1."""
    given = np.ones(number) if weights is None else np.asarray(tuple(weights), dtype=np.float64)
    if given.shape != (number,) or not np.isfinite(given).all() or not given.any():
        raise ProfilerError(
            f"RankEnsembleProfiler takes one finite weight for each of {number} profilers, not all 0, got {weights!r}"
        )
    return tuple((given / np.abs(given).sum()).tolist())


def proxy_encoding(
    profilers: Sequence[Profiler],
    *,
    name: str = "proxies",
    reference: int = 64,
    seed: int = 0,
    progress: bool = True,
) -> Given:
    """Return an encoding for learned profilers with one column for each proxy: its rank within a reference sample.

    Ranks, as `RankEnsembleProfiler` has them, are what is comparable: values of proxies span tens of decades, and those
    of networks without a finite score lie far off.

    Args:
        profilers: The proxies, of one space, with different names.
        name: By which texts and files call the encoding: an identifier.
        reference: How many architectures the sample has, at least 2.
        seed: What the sample is drawn from.
        progress: Whether a bar is shown while the sample is profiled.

    Raises:
        ProfilerError: If there is no profiler, two have one name, they are not of one space, or one learns during a
            search.
        ValueError: If `reference` or `seed` is out of range.

    Example:
        >>> from nasmw.testing import TableProfiler, toy_space
        >>> space = toy_space()
        >>> encoding = proxy_encoding([TableProfiler(space)], progress=False)
        >>> encoding.encode(space.sample(3, np.random.default_rng(0))).values.shape
        (3, 1)
    """
    ranks = Ranks("proxy_encoding", profilers, reference, seed, progress)
    return Given(name, _Columns(ranks), [profiler.name for profiler in ranks.profilers])


class _Columns:
    """Gives the ranks of candidates, ``(n, p)``; a class, so that encodings can be pickled."""

    def __init__(self, ranks: Ranks) -> None:
        self.ranks = ranks

    def __call__(self, candidates: Candidates) -> Floats:
        columns = [self.ranks.of(profiler, profiler.profile_batch(candidates)) for profiler in self.ranks.profilers]
        return np.stack(columns, axis=1)
