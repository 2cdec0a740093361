"""Short trainings on NAS-Bench-201: simulated seconds until a network within 1 % of the best accuracy was trained.

A training of 200 epochs, or one of 12 (a schedule of its own, not the beginning of the long one), takes as many seconds
as the table says for its epochs. Strategies that give budgets train for 12 epochs first; the others for 200 alone. Of
what was trained for 200 epochs by then, within the limit, the network with the best validation accuracy is selected;
counted are the seconds until its test accuracy is within 1 % of the best one's within the limit. Workers train at the
same time, and ask for more as soon as they are free.

    OMP_NUM_THREADS=1 python benchmarks/multi_fidelity_nb201.py --data folder      (or NASMW_DATA)
"""

from __future__ import annotations

import argparse
import heapq
import os
import sys
import time
from pathlib import Path

import numpy as np
from chosen import SHORT, short_strategies
from drawing import Curve, draw
from kept_runs import Kept, Unit, add_arguments, known, opened
from nb201_problems import UNLIMITED, problem
from strategies_nb201 import chained, versions
from table_search import Problem, Run, outcome_of
from tables import MissingDataError
from tables.files import DATASETS

from nasmw import Candidates, Strategy
from nasmw.candidates import BUDGET, TRIAL, Floats
from nasmw.context import Context
from nasmw.errors import DeadlockError

EPOCHS = (12, 200)
WORKERS = (1, 8)
WITHIN = 0.01


def simulated(where: Problem, chain: Strategy, limit_s: float, seed: int, workers: int = 1) -> Run:
    """Search until the simulated clock reaches a limit, or the strategy is exhausted; what is training then is lost."""
    columns = where.benchmark.columns
    start = time.process_time()
    chain.setup(Context(where.benchmark.space, where.objectives, seed))
    running: list[tuple[float, int, Candidates]] = []
    clock, asked = 0.0, 0
    rows, budgets, finished = [], [], []
    while True:
        while len(running) < workers and len(batch := chain.ask(1)):
            budget = float(batch.columns[BUDGET][0]) if BUDGET in batch.columns else float(EPOCHS[-1])
            seconds = float(columns["epoch_seconds"][where.benchmark.rows_of(batch)[0]]) * budget
            heapq.heappush(running, (clock + seconds, asked, batch))
            asked += 1
        if not running:
            if not chain.exhausted:
                raise DeadlockError(f"{chain!r} gave nothing, has been told everything, and is not exhausted")
            break
        clock, number, batch = heapq.heappop(running)
        if clock > limit_s:
            break
        row = where.benchmark.rows_of(batch)
        budget = float(batch.columns[BUDGET][0]) if BUDGET in batch.columns else float(EPOCHS[-1])
        if BUDGET in batch.columns:
            batch = batch.with_columns({TRIAL: [number]})
        score = columns[f"val{budget:.0f}"][row][:, None]
        chain.tell(outcome_of(where, batch, score, bool(where.inside[row[0]])))
        rows.append(int(row[0]))
        budgets.append(budget)
        finished.append(clock)
    cpu_s = time.process_time() - start
    return Run(np.array(rows, dtype=np.intp), cpu_s, chain.stages[0].given, 0, np.array(budgets), np.array(finished))


def seconds_to(where: Problem, run: Run, share: float = WITHIN) -> float:
    """Return the simulated seconds until the selected network is within a share of the best; inf where it never is."""
    test = where.benchmark.column("test200")
    wanted = (1.0 - share) * float(test[where.inside].max())
    best, chosen = -np.inf, -1
    for row, budget, clock in zip(run.rows.tolist(), run.budgets.tolist(), run.finished_s.tolist(), strict=True):
        if budget == EPOCHS[-1] and where.inside[row] and where.scores[row, 0] > best:
            best, chosen = where.scores[row, 0], row
        if chosen >= 0 and test[chosen] >= wanted:
            return float(clock)
    return float("inf")


def regrets_at(where: Problem, run: Run, clocks: Floats) -> Floats:
    """Return the regret on test of the network that is selected by each of some simulated seconds.

    As long as nothing within the limit was trained in full, it is that of the worst one within it.
    """
    test = where.benchmark.column("test200")
    full = (run.budgets == EPOCHS[-1]) & where.inside[run.rows]
    rows, finished = run.rows[full], run.finished_s[full]
    result = np.full(len(clocks), test[where.inside].min())
    for place, clock in enumerate(clocks):
        done = rows[finished <= clock]
        if len(done):
            result[place] = test[done[where.scores[done, 0].argmax()]]
    return test[where.inside].max() - result


def full_training(where: Problem) -> float:
    """Return the mean seconds of a training of 200 epochs within the limit."""
    return float(where.benchmark.column("epoch_seconds")[where.inside].mean()) * EPOCHS[-1]


def search(unit: Unit) -> Run:
    """Do one search; the evaluations of the unit are full trainings that the clock allows for."""
    where = problem(unit.setting)
    where.networks, where.inside  # noqa: B018  computed before the clock starts
    name, workers = unit.method.rsplit(", ", 1)
    chain = chained(short_strategies(where.benchmark)[name], where)
    return simulated(where, chain, unit.evaluations * full_training(where), unit.seed, int(workers.split()[0]))


def figure(kept: Kept, units: list[Unit], path: Path) -> None:
    """Draw the regret over the simulated time of one worker and of several, a panel for each setting."""
    panels: dict[str, dict[str, Curve]] = {}
    at = np.geomspace(1.0, max(unit.evaluations for unit in units), 40)
    for method, setting in dict.fromkeys((unit.method, unit.setting) for unit in units):
        where = problem(setting)
        runs = [kept[unit] for unit in units if (unit.method, unit.setting) == (method, setting)]
        found = np.array([regrets_at(where, run, at * full_training(where)) for run in runs])
        name, workers = method.rsplit(", ", 1)
        panels.setdefault(f"{setting}, {workers}", {})[name] = Curve(at, found, "--" if name in SHORT else "-")
    upward = "regret on test, percentage points: median and 90 % band"
    draw(path, panels, "simulated time, in full trainings", upward, x="log", y="symlog")


def quantiles(values: Floats) -> str:
    """Return median and 90 % band in full trainings; those never reached are infinite."""
    low, middle, high = np.quantile(values, [0.05, 0.5, 0.95], method="inverted_cdf")
    return f"{middle:.1f} [{low:.1f}, {high:.1f}]"


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_arguments(parser, seeds=20, evaluations=100)
    parser.add_argument("--figure", type=Path, help="where to draw the median regrets")
    given = parser.parse_args()
    if given.data:
        os.environ["NASMW_DATA"] = given.data
    where = [f"{dataset}, {rest}" for dataset in DATASETS for rest in (UNLIMITED, "pixel3, 50 %")]
    try:
        problem(where[0])
    except MissingDataError as error:
        sys.exit(f"skipped: {error}")
    strategies = short_strategies(problem(where[0]).benchmark)
    strategies = {name: strategies[name] for name in known("--methods", given.methods, strategies)}
    chosen = {
        f"{name}, {number} workers": repr(strategy) for number in WORKERS for name, strategy in strategies.items()
    }
    units = [
        Unit(name, what, setting, seed, given.evaluations)
        for seed in range(given.seeds)
        for name, what in chosen.items()
        for setting in where
    ]
    kept = opened(given, __file__)
    kept.complete(units, search, given.processes)
    print(
        f"seeds 0 to {given.seeds - 1}; {versions()}\neach strategy in Chain(strategy, Deduplicate(), Filter(limit)), "
        f"for {given.evaluations} full trainings of simulated time; those marked * train for 12 epochs first"
    )
    for name, strategy in strategies.items():
        print(f"  {name}{'*' if name in SHORT else ''}: {strategy!r}")
    for setting in where:
        unit_s = full_training(problem(setting))
        print(
            f"\n{setting}: time until within 1 % of the best, in full trainings of {unit_s:,.0f} s each: median and "
            f"90 % band; seconds of the median\n{'':<24}" + "".join(f"{f'{n} workers':>36}" for n in WORKERS)
        )
        for name in dict.fromkeys(method.rsplit(", ", 1)[0] for method in chosen):
            cells = []
            for number in WORKERS:
                runs = [u for u in units if (u.method, u.setting) == (f"{name}, {number} workers", setting)]
                seconds = np.array([seconds_to(problem(setting), kept[unit]) for unit in runs])
                middle = float(np.quantile(seconds, 0.5, method="inverted_cdf"))
                cells.append(f"{f'{quantiles(seconds / unit_s)}  {middle:,.0f} s':>36}")
            print(f"{name + ('*' if name in SHORT else ''):<24}{''.join(cells)}")
    if given.figure:
        figure(kept, units, given.figure)
        print(f"\nfigure: {given.figure.name}")


if __name__ == "__main__":
    main()
