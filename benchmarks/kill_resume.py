"""Kill a search with SIGKILL at random instants, resume it, and compare it with one that was never killed.

The chain measures: its latency profiler answers differently each time it is asked, since the answer depends on how many
measurements the log holds. A value that was not recorded before it was used, or not read back, changes the rows.
Trials, measurements, funnel and the order of events must be equal to the last row.

    python benchmarks/kill_resume.py --kills 50
    for strategy in LocalSearch TPE NSGA2; do python benchmarks/kill_resume.py --kills 10 --strategy $strategy; done

OptunaStrategy, NevergradStrategy and PymooStrategy are among the strategies where their libraries are installed.
"""

from __future__ import annotations

import argparse
import random
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from nasmw import Chain, Choice, Deduplicate, Filter, Penalize, Rank, Search, Space, Trial
from nasmw.executors import Processes
from nasmw.profiler import Profiler
from nasmw.strategies import (
    ASHA,
    NSGA2,
    TPE,
    Evolution,
    Grid,
    Hyperband,
    Islands,
    LocalSearch,
    PolicyGradient,
    PredictorGuided,
    Random,
    SuccessiveHalving,
)
from nasmw.strategies.adapters import NevergradStrategy, OptunaStrategy, PymooStrategy
from nasmw.strategy import Strategy

BUDGETS = (1, 3, 9)
STRATEGIES = {
    type(strategy).__name__: strategy
    for strategy in (
        Evolution(population=20, tournament=5),
        Random(replacement=False),
        Grid(shuffle=True),
        Islands(population=10, patience=2),
        LocalSearch(),
        TPE(),
        PredictorGuided(),
        NSGA2(population=20),
        PolicyGradient(),
        SuccessiveHalving(BUDGETS),
        Hyperband(BUDGETS),
        ASHA(BUDGETS),
    )
}
ADAPTERS: dict[str, Callable[[], Strategy]] = {
    "OptunaStrategy": lambda: OptunaStrategy("TPESampler"),
    "NevergradStrategy": lambda: NevergradStrategy("TwoPointsDE"),
    "PymooStrategy": lambda: PymooStrategy("GA", pop_size=20),
}
TABLES = {
    "trials": "SELECT number, candidate, hex(codes), columns, status, metrics, reason FROM trials ORDER BY number",
    "recorded": "SELECT name, hex(codes), value FROM recorded ORDER BY name, codes",
    "funnel": "SELECT stage, status, cause, number FROM funnel ORDER BY stage, status, cause",
    "events": "SELECT kind, number, data FROM (SELECT seq, kind, number, data FROM events "
    "UNION ALL SELECT seq, 'ask', number, trace FROM trials) WHERE kind NOT IN ('end', 'interrupted') ORDER BY seq",
}


class Moody(Profiler):
    """A device that never says the same thing twice."""

    def __init__(self, space: Space, log: Path) -> None:
        super().__init__("latency_ms", "ms", space=space, kind="measured", device="a moody one")
        self._log = log

    def _profile(self, architecture: Mapping[str, Any]) -> float:
        with closing(sqlite3.connect(f"{self._log.as_uri()}?mode=ro", uri=True)) as log:
            measured = log.execute("SELECT count(*) FROM recorded").fetchone()[0]
        time.sleep(0.001)
        return sum(architecture.values()) * (1.0 + random.Random(measured).random() / 10)


def evaluate(trial: Trial) -> dict[str, float]:
    """Take some milliseconds; fail now and then; depend on nothing but architecture and seed."""
    draw = random.Random(trial.seed)
    time.sleep(draw.uniform(0.001, 0.010))
    if draw.random() < 0.05:
        raise ValueError("one in twenty fails")
    return {"accuracy": draw.random() * sum(trial.architecture.values()), "seed": float(trial.seed % 997)}


def search(log: Path, trials: int, workers: int, strategy: str) -> None:
    """Run, or go on with, the search that is killed."""
    choices = [Choice("depth", (1, 2, 3, 4))]
    for block in range(4):
        when = {"depth": tuple(range(block + 1, 5))} if block else None
        choices += [
            Choice(f"block{block}.kernel", (3, 5, 7), when),
            Choice(f"block{block}.width", (8, 16, 24, 32), when),
        ]
    space = Space(choices)
    latency = Moody(space, log)
    chain = Chain(
        STRATEGIES[strategy] if strategy in STRATEGIES else ADAPTERS[strategy](),
        Deduplicate(action="replay"),
        Filter(latency <= 100.0),
        Rank(lambda architecture: len(architecture), groups_of=2),
        Penalize(latency, target=50.0, weight=0.07),
    )
    executor = Processes(workers=workers) if workers else None
    Search(space, chain, evaluate, seed=7, executor=executor, window=4, log=log, progress=False).run(trials=trials)


def rows(log: Path) -> dict[str, list[tuple[Any, ...]]]:
    """Return everything in a log that must not depend on when it was written."""
    with closing(sqlite3.connect(f"{log.as_uri()}?mode=ro", uri=True)) as db:
        return {name: db.execute(query).fetchall() for name, query in TABLES.items()}


def asked(log: Path) -> int:
    """Return how many trials a log holds; 0 where it is not there yet."""
    try:
        with closing(sqlite3.connect(f"{log.as_uri()}?mode=ro", uri=True)) as db:
            return int(db.execute("SELECT count(*) FROM trials").fetchone()[0])
    except sqlite3.OperationalError:
        return 0


def main() -> int:
    """Print how many of the killed and resumed runs equal the uninterrupted one."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--trials", type=int, default=150)
    parser.add_argument("--workers", type=int, default=2, help="worker processes; 0 runs in one process")
    parser.add_argument("--strategy", choices=[*STRATEGIES, *ADAPTERS], default="Evolution")
    parser.add_argument("--seed", type=int, default=0, help="of the instants")
    parser.add_argument("--log", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.log:
        search(given.log, given.trials, given.workers, given.strategy)
        return 0

    def command(log: Path) -> list[str]:
        settings = ["--trials", str(given.trials), "--workers", str(given.workers), "--strategy", given.strategy]
        return [sys.executable, str(Path(__file__).resolve()), "--log", str(log), *settings]

    instants = random.Random(given.seed)
    with tempfile.TemporaryDirectory() as folder:
        whole = Path(folder) / "whole.db"
        start = time.monotonic()
        subprocess.run(command(whole), check=True)
        duration = time.monotonic() - start
        expected = rows(whole)
        trials, measured = len(expected["trials"]), len(expected["recorded"])
        print(f"{given.strategy}, uninterrupted: {trials} trials, {measured} measurements, {duration:.1f} s")
        equal, kills, reached = 0, 0, []
        for number in range(given.kills):
            log = Path(folder) / f"{number}.db"
            process = subprocess.Popen(command(log), stderr=subprocess.DEVNULL)
            reach = instants.randrange(given.trials)
            while asked(log) < reach and process.poll() is None:
                time.sleep(0.001)
            time.sleep(instants.uniform(0.0, 0.02))
            kills += process.poll() is None
            process.kill()
            process.wait()
            reached.append(asked(log))
            subprocess.run(command(log), check=True, stderr=subprocess.DEVNULL)
            got = rows(log)
            differing = [name for name in TABLES if got[name] != expected[name]]
            equal += not differing
            if differing:
                print(f"run {number}, killed after {reached[-1]} trials, differs in {', '.join(differing)}")
        print(f"killed before the end: {kills}; trials asked at the kill: {sorted(reached)}")
    print(f"{equal}/{given.kills} equal")
    return int(equal < given.kills)


if __name__ == "__main__":
    sys.exit(main())
