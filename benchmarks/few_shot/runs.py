"""Runs of methods on tasks, and how they are scored."""

from __future__ import annotations

import time
import zlib
from collections.abc import Iterable, Iterator, Sequence

import attrs
import numpy as np

from few_shot.methods import Known, Method
from few_shot.tasks import Task
from nasmw.candidates import Floats

__all__ = ["Score", "known_of", "mean_and_error", "over_seeds", "run", "spearman"]

WITHIN = 0.1


@attrs.frozen
class Score:
    """What one method got on one target with one seed.

    Attributes:
        task: The name of the task.
        method: The name of the method.
        target: The device.
        samples: How many networks were measured on it.
        seed: The seed.
        rho: Spearman's rank correlation over all networks that are measured on the target, the samples included.
        within: The share of these that were predicted to within 10 %.
        train_s: CPU seconds to learn the sources, once for all targets of the task.
        target_s: CPU seconds to choose, fit and predict all networks.
    """

    task: str
    method: str
    target: str
    samples: int
    seed: int
    rho: float
    within: float
    train_s: float
    target_s: float


def ranks(values: Floats) -> Floats:
    """Return the rank of each value, equal ones sharing the mean of theirs."""
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    return np.asarray((np.cumsum(counts) - (counts - 1) / 2.0)[places])


def spearman(first: Floats, second: Floats) -> float:
    """Return Spearman's rank correlation; 0 where all values of one are equal."""
    if np.ptp(first) == 0 or np.ptp(second) == 0:
        return 0.0
    return float(np.corrcoef(ranks(first), ranks(second))[0, 1])


def known_of(task: Task, seed: int) -> Known:
    """Return what is known of a task before a target is measured."""
    rows = task.source_rows(seed)
    return Known(task.devices.candidates, rows, task.devices.matrix(task.sources)[rows], task.sources)


def run(task: Task, method: Method, samples: Iterable[int], seeds: Iterable[int]) -> Iterator[Score]:
    """Learn the sources for each seed, then transfer to each target with each number of samples."""
    for seed in seeds:
        known = known_of(task, seed)
        begin = time.process_time()
        trained = method.train(known, seed)
        train_s = time.process_time() - begin
        for target in task.targets:
            measured = task.devices.milliseconds[target]
            allowed = np.flatnonzero(np.isfinite(measured))
            for count in samples:
                rng = np.random.default_rng([seed, count, zlib.crc32(target.encode())])
                begin = time.process_time()
                chosen = trained.choose(allowed, count, rng)
                said = trained.predict(chosen, measured[chosen], rng)
                target_s = time.process_time() - begin
                said, true = said[allowed], measured[allowed]
                within = float(np.mean(np.abs(said / true - 1.0) <= WITHIN))
                rho = spearman(said, true)
                yield Score(task.name, method.name, target, count, seed, rho, within, train_s, target_s)


def over_seeds(scores: Sequence[Score]) -> Floats:
    """Return the mean over targets for each seed."""
    seeds = sorted({score.seed for score in scores})
    return np.array([np.mean([score.rho for score in scores if score.seed == seed]) for seed in seeds])


def mean_and_error(values: Sequence[float] | Floats) -> tuple[float, float]:
    """Return the mean and its standard error, 0 for a single value."""
    array = np.asarray(values)
    error = float(array.std(ddof=1) / np.sqrt(len(array))) if len(array) > 1 else 0.0
    return float(array.mean()), error
