"""What the loop costs: microseconds a trial for ask, four middlewares, log and tell.

The evaluation returns at once, so everything that is measured is the library. Random draws and Evolution mutates on a
space of 46 choices (once-for-all's MobileNetV3 choices, without networks); windows and strategies are interleaved over
the repetitions, and the median is printed.

    python benchmarks/overhead.py --trials 10000 --repeats 3
"""

from __future__ import annotations

import argparse
import platform
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from nasmw import Chain, Choice, Deduplicate, Filter, Penalize, Rank, Search, Space, Strategy, Trial
from nasmw.candidates import Candidates, Floats
from nasmw.profiler import Profiler
from nasmw.strategies import Evolution, Random


def space_of_46_choices() -> Space:
    """Return the choices of once-for-all's MobileNetV3 space: a resolution, and 5 stages of 2 to 4 blocks."""
    choices = [Choice("resolution", tuple(range(128, 225, 4)))]
    for stage in range(5):
        depth = f"stage{stage}.depth"
        choices.append(Choice(depth, (2, 3, 4)))
        for block in range(4):
            when = {depth: tuple(range(block + 1, 5))} if block > 1 else None
            choices.append(Choice(f"stage{stage}.block{block}.kernel", (3, 5, 7), when))
            choices.append(Choice(f"stage{stage}.block{block}.expand", (3, 4, 6), when))
    return Space(choices, name="46 choices")


class Weighted(Profiler):
    """A sum of weights over the chosen options: what a cheap profiler costs."""

    def __init__(self, space: Space, name: str, seed: int) -> None:
        super().__init__(name, space=space)
        rng = np.random.default_rng(seed)
        sizes = [len(choice.options) for choice in space.choices]
        self._weights = rng.random(sum(sizes))
        self._first = np.cumsum([0, *sizes[:-1]])

    def _profile_batch(self, candidates: Candidates) -> Floats:
        return self._weights[self._first + candidates.codes].sum(axis=1)


def evaluate(trial: Trial) -> float:
    """Return at once."""
    return float(trial.seed % 1000)


def microseconds(strategy: Strategy, space: Space, window: int, trials: int, log: Path | None) -> float:
    """Return the microseconds that a trial takes, the middle of a whole run."""
    cost, proxy = Weighted(space, "cost", 0), Weighted(space, "proxy", 1)
    chain = Chain(
        strategy,
        Deduplicate(),
        Filter(cost <= 30.0),
        Rank(proxy, groups_of=2),
        Penalize(cost, target=20.0, weight=0.07),
    )
    search = Search(space, chain, evaluate, seed=0, window=window, log=log, progress=False)
    start = time.perf_counter()
    result = search.run(trials=trials)
    seconds = time.perf_counter() - start
    assert len(result.completed) == trials
    return 1e6 * seconds / trials


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=10_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="where the logs are written (a fresh temporary folder by default)")
    given = parser.parse_args()
    space = space_of_46_choices()
    cases = [
        (name, window, on_disk)
        for name in ("Random", "Evolution")
        for window in (1, 8, 64)
        for on_disk in (True, False)
    ]
    times: dict[tuple[str, int, bool], list[float]] = {case: [] for case in cases}
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        for repeat in range(given.repeats):
            for number, (name, window, on_disk) in enumerate(cases):
                strategy = Random() if name == "Random" else Evolution(population=100, tournament=25)
                log = Path(folder) / f"{repeat}-{number}.db" if on_disk else None
                times[name, window, on_disk].append(microseconds(strategy, space, window, given.trials, log))
    print(
        f"{given.trials} trials, {given.repeats} repeats, seed 0, serial; Python {platform.python_version()}, "
        f"numpy {np.__version__}, {platform.machine()}, {sys.platform}"
    )
    print(f"{'chain of 4 middlewares around':<32}{'window':>8}{'log':>10}{'µs a trial':>12}{'min':>8}{'max':>8}")
    for (name, window, on_disk), values in times.items():
        where = "on disk" if on_disk else "none"
        print(
            f"{name:<32}{window:>8}{where:>10}{statistics.median(values):>12.0f}{min(values):>8.0f}{max(values):>8.0f}"
        )


if __name__ == "__main__":
    main()
