"""Rank before strategies on NAS-Bench-201: evaluations until a network within 1 % of the best accuracy is found.

Each strategy searches in ``Chain(strategy, Deduplicate(), Filter(limit))``, and with a `Rank` behind it that passes the
best one of a group by a zero-cost proxy, or by the number of parameters. Proxies are the published values of every
network. A search is told validation accuracies; of what it evaluated, the best one on validation is selected; counted
are the evaluations until its test accuracy is within 1 % of the best one's within the limit.

    OMP_NUM_THREADS=1 python benchmarks/rank_nb201.py --data folder      (or NASMW_DATA)
"""

from __future__ import annotations

import argparse
import functools
import os
import sys

import numpy as np
from chosen import GROUPS, ranked_strategies
from kept_runs import Unit, add_arguments, known, opened
from nb201_problems import UNLIMITED, benchmark, problem
from strategies_nb201 import chained, versions
from table_search import Problem, Rows, Run, searched
from tables import ColumnProfiler, MissingDataError
from tables.files import DATASETS, arrays

from nasmw import Chain, Rank

WITHIN = 0.01
PROXIES = {"naswot": "naswot_logdet", "synflow": "synflow"}
SCORERS = ("none", "params", *PROXIES)


@functools.cache
def scorer(dataset: str, name: str) -> ColumnProfiler:
    """Return what ranks, as a profiler of a column; a value that is no number counts as the least."""
    table = benchmark(dataset)
    if name == "params":
        return table.profiler("params")
    values = arrays("nb201/nb201_proxies.npz")[f"{PROXIES[name]}__{dataset}"].astype(np.float64)
    finite = np.isfinite(values)
    return ColumnProfiler(table.index, table.space, np.where(finite, values, values[finite].min()), name)


def search(unit: Unit) -> Run:
    """Do one search."""
    where = problem(unit.setting)
    where.networks, where.inside  # noqa: B018  computed before the clock starts
    name, _, by = unit.method.partition(" ranked by ")
    chain = chained(ranked_strategies(where.benchmark)[name], where)
    if by != "none":
        chain = Chain(chain, Rank(scorer(unit.setting.split(", ")[0], by), groups_of=GROUPS))
    return searched(where, chain, int(unit.evaluations), unit.seed)


def evaluations_to(where: Problem, rows: Rows, share: float = WITHIN) -> float:
    """Return after how many evaluations the selected network is within a share of the best; inf where it never is."""
    test = where.benchmark.column("test200")
    wanted = (1.0 - share) * float(test[where.inside].max())
    score = np.where(where.inside[rows], where.scores[rows, 0], -np.inf)
    best = np.maximum.accumulate(np.append(-np.inf, score))
    better = score > best[:-1]  # where another network is selected
    selected = rows[np.maximum.accumulate(np.where(better, np.arange(len(rows)), 0))]
    good = np.flatnonzero((test[selected] >= wanted) & (best[1:] > -np.inf))
    return float(good[0] + 1) if len(good) else float("inf")


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_arguments(parser, seeds=20, evaluations=300)
    given = parser.parse_args()
    if given.data:
        os.environ["NASMW_DATA"] = given.data
    where = [f"{dataset}, {rest}" for dataset in DATASETS for rest in (UNLIMITED, "pixel3, 50 %")]
    try:
        problem(where[0])
        scorer(DATASETS[0], "naswot")
    except MissingDataError as error:
        sys.exit(f"skipped: {error}")
    strategies = ranked_strategies(problem(where[0]).benchmark)
    chosen = {
        f"{name} ranked by {by}": f"{strategies[name]!r}, best of {GROUPS} by {by}"
        if by != "none"
        else repr(strategies[name])
        for name in known("--methods", given.methods, strategies)
        for by in SCORERS
    }
    units = [
        Unit(name, what, setting, seed, given.evaluations)
        for seed in range(given.seeds)
        for name, what in chosen.items()
        for setting in where
    ]
    kept = opened(given, __file__)
    kept.complete(units, search, given.processes)
    print(f"seeds 0 to {given.seeds - 1}; {versions()}; Rank passes the best one of {GROUPS}")
    print(f"evaluations until within 1 % of the best, at most {given.evaluations}: median [90 % band]")
    for setting in where:
        print(f"\n{setting}\n{'ranked by':<24}" + "".join(f"{by:>22}" for by in SCORERS))
        for name in dict.fromkeys(method.partition(" ranked by ")[0] for method in chosen):
            cells = []
            for by in SCORERS:
                runs = [u for u in units if (u.method, u.setting) == (f"{name} ranked by {by}", setting)]
                needed = [evaluations_to(problem(setting), kept[unit].rows) for unit in runs]
                low, middle, high = np.quantile(needed, [0.05, 0.5, 0.95], method="inverted_cdf")
                cells.append(f"{f'{middle:.0f} [{low:.0f}, {high:.0f}]':>22}")
            print(f"{name:<24}{''.join(cells)}")


if __name__ == "__main__":
    main()
