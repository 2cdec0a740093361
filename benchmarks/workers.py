"""Do results depend on the number of workers, and what does waiting in order cost?

First, the trial tables of one search with 1, 2 and 4 worker processes are compared. Then the share of their time that
workers spend evaluating is shown for both orders, with evaluation times spread fivefold.

    python benchmarks/workers.py --trials 2000
"""

from __future__ import annotations

import argparse
import random
import sys
import time

from nasmw import Chain, Choice, Deduplicate, Filter, Rank, Search, Space, Trial
from nasmw.executors import Processes
from nasmw.result import Result
from nasmw.strategies import Evolution


def quick(trial: Trial) -> float:
    """Depend on architecture and seed, and return at once."""
    draw = random.Random(trial.seed)
    if draw.random() < 0.02:
        raise ValueError("one in fifty fails")
    return sum(trial.architecture.values()) + draw.random()


def slow(trial: Trial) -> float:
    """Take 20 to 100 ms, evenly spread."""
    draw = random.Random(trial.seed)
    time.sleep(draw.uniform(0.020, 0.100))
    return sum(trial.architecture.values()) + draw.random()


def search(evaluate: object, workers: int, trials: int, order: str, window: int) -> tuple[Result, float]:
    """Return the result, and the share of the workers' time that went into evaluations."""
    space = Space([Choice(f"choice{number}", tuple(range(6))) for number in range(12)])
    chain = Chain(
        Evolution(population=50, tournament=10),
        Deduplicate(),
        Filter(lambda architecture: sum(architecture.values()) < 45),
        Rank(lambda architecture: architecture["choice0"], groups_of=2),
    )
    run = Search(
        space, chain, evaluate, seed=3, executor=Processes(workers=workers), window=window, order=order, progress=False
    )
    result = run.run(trials=trials)
    first = min(trial.started for trial in result.trials)
    last = max(trial.started + trial.seconds for trial in result.trials)
    busy = sum(trial.seconds for trial in result.trials) / (workers * (last - first))
    return result, busy


def main() -> int:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=2000)
    parser.add_argument("--slow-trials", type=int, default=200)
    given = parser.parse_args()
    tables = {}
    for workers in (1, 2, 4):
        result, _ = search(quick, workers, given.trials, "asked", 8)
        tables[workers] = (result.table(), [trial.reason for trial in result.trials], str(result.funnel))
        print(f"{workers} workers: {len(result.trials)} trials, best {result.best.metrics['accuracy']:.6f}")
    same = all(table == tables[1] for table in tables.values())
    print(f"the trial tables of 1, 2 and 4 workers are {'identical' if same else 'DIFFERENT'}")

    print(f"\n{given.slow_trials} evaluations of 20 to 100 ms")
    print(f"{'order':<10}{'window':>8}{'workers':>9}{'busy':>8}")
    for workers in (2, 4):
        for order, window in (("finished", 8), ("asked", workers), ("asked", 8), ("asked", 16)):
            _, busy = search(slow, workers, given.slow_trials, order, window)
            print(f"{order:<10}{window:>8}{workers:>9}{busy:>8.1%}")
    return int(not same)


if __name__ == "__main__":
    sys.exit(main())
