"""NoiseReport: how far measurements agree with themselves."""

from __future__ import annotations

import attrs
import numpy as np
import numpy.typing as npt

from nasmw.candidates import Floats
from nasmw.devices.measurements import Measurements, quantiles

__all__ = ["DeviceNoise", "NoiseReport", "noise_report", "rank_agreement"]

FEWEST = 3  # networks that a rank agreement is about


@attrs.frozen
class DeviceNoise:
    """How repeatable the measurements of one device are.

    Attributes:
        device: Its name.
        networks: The networks with two visits or more that count.
        visits: The visits that a latency is taken from, in the median.
        disturbed: The share of visits that were disturbed.
        unsettled: The networks of which every visit was.
        spread: The median of spread divided by latency.
        halves: Spearman's rank correlation of the latencies from two halves of each network's visits, averaged over
            random halves; NaN where fewer than three networks have two visits that count.
        whole: What `halves` would be for two full sets of visits, by Spearman and Brown: 2r / (1 + r); NaN where
            `halves` is negative, for that formula is about agreement.
    """

    device: str
    networks: int
    visits: float
    disturbed: float
    unsettled: int
    spread: float
    halves: float
    whole: float


@attrs.frozen
class NoiseReport:
    """The repeatability of measurements, device by device; printed as a table.

    The rank agreement of two halves is what one measurement says of another. No predictor that is judged by these
    measurements can be expected to agree with them better than they agree with a repetition of themselves (`whole`). It
    is an estimate from one run of the protocol: what another process or another day changes is not in it.
    """

    devices: tuple[DeviceNoise, ...]

    def __getitem__(self, device: str) -> DeviceNoise:
        for row in self.devices:
            if row.device == device:
                return row
        raise KeyError(device)

    def __str__(self) -> str:
        width = max(len("device"), *(len(row.device) for row in self.devices))
        lines = [f"{'device':<{width}}  networks  visits  disturbed  unsettled  spread  halves   whole"]
        lines += [
            f"{row.device:<{width}}  {row.networks:>8}  {row.visits:>6.1f}  {row.disturbed:>9.1%}  {row.unsettled:>9}  "
            f"{row.spread:>6.1%}  {row.halves:>6.3f}  {row.whole:>6.3f}"
            for row in self.devices
        ]
        return "\n".join(lines)


def noise_report(measurements: Measurements, *, splits: int = 20, seed: int = 0) -> NoiseReport:
    """Return how repeatable measurements are: the rank agreement of two halves of them.

    Args:
        measurements: What `measure` found.
        splits: How many random halves are averaged over, at least 1.
        seed: What the halves are drawn from.

    Raises:
        ValueError: If there are no splits.
    """
    if splits < 1:
        raise ValueError(f"noise_report takes splits of at least 1, got {splits}")
    rng = np.random.default_rng(seed)
    rows = []
    for number, device in enumerate(measurements.devices):
        wall, used = measurements.wall_ms[number], measurements.used[number]
        several = used.sum(axis=1) >= 2
        halves = float("nan")
        if several.sum() >= FEWEST:
            quantile = measurements.protocol["quantile"]
            halves = float(np.mean([_halves(wall[several], used[several], quantile, rng) for _ in range(splits)]))
        visited = ~np.isnan(wall)
        rows.append(
            DeviceNoise(
                device,
                int(several.sum()),
                float(np.median(used.sum(axis=1))),
                float(measurements.rejected[number].sum() / visited.sum()),
                int(measurements.unsettled[number].sum()),
                float(np.median(measurements.spread_ms[number] / measurements.latency_ms[number])),
                halves,
                2.0 * halves / (1.0 + halves) if halves >= 0.0 else float("nan"),
            )
        )
    return NoiseReport(tuple(rows))


def _halves(wall: Floats, used: npt.NDArray[np.bool_], quantile: float, rng: np.random.Generator) -> float:
    """Return the rank agreement of the latencies from one random half of each row's visits and from the other."""
    drawn = np.where(used, rng.random(wall.shape), np.inf)
    place = drawn.argsort(axis=1).argsort(axis=1)
    half = used.sum(axis=1, keepdims=True) // 2
    parts = (place < half, (place >= half) & (place < 2 * half))
    return rank_agreement(*(quantiles(wall, part, quantile) for part in parts))


def rank_agreement(first: npt.ArrayLike, second: npt.ArrayLike) -> float:
    """Return Spearman's rank correlation of two lists of numbers, equal ones with the mean of their ranks.

    Returns:
        From -1 to 1; NaN if the numbers of one list are all equal.

    Example:
        >>> rank_agreement([1.0, 2.0, 3.0], [10.0, 20.0, 15.0])
        0.5
    """
    ranks = []
    for values in (first, second):
        _, place, count = np.unique(np.asarray(values, dtype=np.float64), return_inverse=True, return_counts=True)
        ranks.append((np.cumsum(count) - (count - 1) / 2.0)[place.reshape(-1)])
    x, y = (rank - rank.mean() for rank in ranks)
    norm = float(np.sqrt((x @ x) * (y @ y)))
    return float(x @ y) / norm if norm else float("nan")
