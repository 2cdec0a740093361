"""What strategies cost: microseconds for an ask and for a tell after 100, 1,000 and 10,000 trials, and memory.

Each strategy runs in a process of its own on the space of 46 choices of `overhead.py`, asked for one candidate at a
time; scores are a sum of weights, told at once. Times are those of the processor, the mean over the last tenth of the
trials up to each number; memory is by how much the process grew from its start to the last trial.

    OMP_NUM_THREADS=1 python benchmarks/strategy_cost.py --trials 100 1000 10000
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import platform
import resource
import sys
import time

import numpy as np
from overhead import Weighted, space_of_46_choices

from nasmw import Objective, Outcomes, Status, Strategy
from nasmw.context import Context
from nasmw.strategies import (
    ASHA,
    NSGA2,
    TPE,
    Evolution,
    Grid,
    Hyperband,
    LocalSearch,
    PolicyGradient,
    PredictorGuided,
    Random,
    SuccessiveHalving,
)

STRATEGIES: dict[str, Strategy] = {
    "Random": Random(),
    "Random, no replacement": Random(replacement=False),
    "Grid, shuffled": Grid(shuffle=True),
    "Evolution": Evolution(),
    "Evolution, no repeats": Evolution(repeats=False),
    "LocalSearch": LocalSearch(),
    "TPE": TPE(),
    "PredictorGuided": PredictorGuided(),
    "NSGA2, two objectives": NSGA2(),
    "PolicyGradient": PolicyGradient(),
    "SuccessiveHalving": SuccessiveHalving(),
    "Hyperband": Hyperband(),
    "ASHA": ASHA(),
}


def memory() -> float:
    """Return the most memory that this process has had, in MiB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10


def measure(name: str, numbers: list[int], seed: int) -> tuple[list[tuple[float, float]], float]:
    """Return the microseconds for an ask and a tell after each number of trials, and the MiB that the process grew."""
    strategy = STRATEGIES[name]
    space = space_of_46_choices()
    objectives = 2 if "two objectives" in name else 1
    metrics = [Weighted(space, f"score{number}", number) for number in range(objectives)]
    strategy.setup(Context(space, tuple(Objective(metric.name) for metric in metrics), seed))
    before = memory()
    asks, tells = [], []
    for _ in range(numbers[-1]):
        start = time.process_time()
        batch = strategy.ask(1)
        asks.append(time.process_time() - start)
        scores = np.stack([metric.profile_batch(batch) for metric in metrics], axis=1)
        outcomes = Outcomes(batch, [Status.COMPLETED], scores)
        start = time.process_time()
        strategy.tell(outcomes)
        tells.append(time.process_time() - start)
    last = [slice(number - max(number // 10, 1), number) for number in numbers]
    return [(1e6 * float(np.mean(asks[part])), 1e6 * float(np.mean(tells[part]))) for part in last], memory() - before


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("strategies", nargs="*", help="names of strategies; all by default")
    parser.add_argument("--trials", type=int, nargs="+", default=[100, 1000, 10_000])
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    if unknown := set(given.strategies) - STRATEGIES.keys():
        parser.error(f"no such strategy: {', '.join(sorted(unknown))}; there are {'; '.join(STRATEGIES)}")
    numbers = sorted(given.trials)
    print(
        f"seed {given.seed}; Python {platform.python_version()}, numpy {np.__version__}, {platform.machine()}, "
        f"{os.environ.get('OMP_NUM_THREADS', 'default')} threads, load {os.getloadavg()[0]:.1f}"
    )
    heads = "".join(f"{f'ask, {number}':>12}{'tell':>8}" for number in numbers)
    print(f"{'µs after so many trials':<26}{heads}{'MiB':>8}")
    for name in given.strategies or STRATEGIES:
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            times, grown = pool.apply(measure, (name, numbers, given.seed))
        cells = "".join(f"{ask:>12.0f}{tell:>8.0f}" for ask, tell in times)
        print(f"{name:<26}{cells}{grown:>8.1f}", flush=True)


if __name__ == "__main__":
    main()
