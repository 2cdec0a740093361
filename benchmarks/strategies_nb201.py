"""What strategies find on NAS-Bench-201 under limits on latency, beside other libraries' optimizers.

Nine settings: three devices, each with the latencies that at least 25, 50 and 75 % of the networks keep; and one
without a limit. A search is told validation accuracies of 200 epochs, selects the best network within the limit on
them, and is judged by its test accuracy: regret is how far that is below the best one within the limit, in percentage
points. Whoever finds the best on validation has a regret on test above 0, so that small differences there are luck; the
comparison states regrets on validation as well.

- *alone* or *bare*: every network that is asked for is evaluated, and costs an evaluation, whether it is beyond the
  limit or was evaluated before. Our strategies are then told that it is infeasible; Optuna and Nevergrad are told its
  accuracy and by how much it is beyond the limit, as they have it; NNI gets no metric.
- *chain*: ``Chain(strategy, Deduplicate(), Filter(latency <= limit))``. *checked*: the same check in a loop around a
  peer (`peers.py`); NNI's own Filter makes it. Both know which cells are one function. Where a peer gives nothing new
  for long, the loop evaluates a random network in its place: the share of these is in the table.

Left out is Optuna's GPSampler: in the loop it takes two CPU minutes for 100 evaluations.

Peers that are not installed are left out, and named. Runs are kept in a file: an interrupted benchmark goes on.

    OMP_NUM_THREADS=1 python benchmarks/strategies_nb201.py --data folder      (or NASMW_DATA)
"""

from __future__ import annotations

import argparse
import functools
import importlib.metadata
import importlib.util
import os
import platform
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from chosen import BEST, OURS, PEERS, nni_options, strategy
from drawing import Curve, draw
from kept_runs import Kept, Unit, add_arguments, known, opened
from nb201_problems import problem, settings
from peers import LOOP, bare_search, checked_search, nni_search
from table_search import Problem, Run, band, regrets, searched, wasted
from tables import MissingDataError
from tables.files import DATASETS

from nasmw import Chain, Deduplicate, Filter, Strategy
from nasmw.candidates import Floats

AT = (50, 100, 300)
NNI = "NNI RegularizedEvolution"
SLOW = ("PolicyGradient", "Optuna TPE", "Nevergrad DiscreteOnePlusOne")
"""Methods that take many seconds a run; they search with a fifth of the seeds."""
OTHERS = (*PEERS, NNI)
PACKAGES = {"Optuna": "optuna", "Nevergrad": "nevergrad", "NNI": "nni"}


def methods(where: Problem) -> dict[str, str]:
    """Return every method by name, and how it is configured."""
    found = {}
    for name in OURS:
        made = strategy(name, where.benchmark)
        found[f"{name}, alone"] = repr(made)
        found[f"{name}, chain"] = f"Chain({made!r}, Deduplicate(), Filter())"
    for name in OTHERS:
        package = PACKAGES[name.split()[0]]
        if importlib.util.find_spec(package) is None:
            continue
        what = repr(PEERS[name]) if name in PEERS else repr(nni_options)
        for how in ("bare", "checked"):
            version = f"{what}, {package} {importlib.metadata.version(package)}"
            found[f"{name}, {how}"] = f"{version}, {LOOP}" if how == "checked" and name != NNI else version
    return found


def chained(inner: Strategy, where: Problem) -> Chain:
    """Return the chain that never evaluates a network twice, nor one beyond the limits."""
    limits = [Filter(*where.limits)] if where.limits else []
    return Chain(inner, Deduplicate(same=where.same), *limits)


def search(unit: Unit) -> Run:
    """Do one search."""
    where = problem(unit.setting)
    where.networks, where.inside  # noqa: B018  computed before the clock starts
    name, _, how = unit.method.rpartition(", ")
    evaluations = int(unit.evaluations)
    if name in OURS:
        made = strategy(name, where.benchmark)
        return searched(where, made if how == "alone" else chained(made, where), evaluations, unit.seed)
    if name == NNI:
        return nni_search(where, evaluations, unit.seed, checked=how == "checked", **nni_options)
    return (bare_search if how == "bare" else checked_search)(where, PEERS[name], evaluations, unit.seed)


class Results:
    """The figures of merit of all runs.

    Args:
        kept: The runs.
        units: Which of them count.
        at: After how many evaluations.
    """

    def __init__(self, kept: Kept, units: Sequence[Unit], at: Sequence[int]) -> None:
        self.at = tuple(at)
        self.methods = tuple(dict.fromkeys(unit.method for unit in units))
        self.settings = tuple(dict.fromkeys(unit.setting for unit in units))
        self._kept = kept
        self._units = units

    @functools.cache  # noqa: B019  lives as long as the script
    def runs(self, method: str, setting: str) -> list[Run]:
        """Return the runs of a method in a setting, by seed."""
        return [self._kept[unit] for unit in self._units if (unit.method, unit.setting) == (method, setting)]

    @functools.cache  # noqa: B019
    def regrets(self, method: str, setting: str, column: str = "test200") -> Floats:
        """Return ``(seeds, len(at))`` regrets."""
        where = problem(setting)
        return np.array([regrets(where, run.rows, column, self.at) for run in self.runs(method, setting)])

    def medians(self, method: str, column: str = "test200") -> Floats:
        """Return ``(settings, len(at))`` medians over seeds."""
        return np.array([np.median(self.regrets(method, setting, column), axis=0) for setting in self.settings])

    def wasted(self, method: str) -> tuple[float, float]:
        """Return the shares of evaluations beyond limits and repeated, over all runs."""
        shares = [wasted(problem(s), run.rows) for s in self.settings for run in self.runs(method, s)]
        beyond, again = np.mean(shares, axis=0)
        return float(beyond), float(again)

    def every(self, method: str) -> list[Run]:
        """Return all runs of a method."""
        return [run for setting in self.settings for run in self.runs(method, setting)]


def difference(first: Floats, second: Floats, draws: int = 2000) -> tuple[Floats, Floats, Floats]:
    """Return the difference of the medians of two methods, and its 95 % bootstrap interval over seeds.

    Args:
        first: ``(seeds, k)``.
        second: ``(seeds, k)``; the numbers of seeds may differ.
        draws: How many.
    """
    rng = np.random.default_rng(0)
    drawn = [
        np.median(values[rng.integers(len(values), size=(draws, len(values)))], axis=1) for values in (first, second)
    ]
    low, high = np.quantile(drawn[0] - drawn[1], [0.025, 0.975], axis=0)
    return np.median(first, axis=0) - np.median(second, axis=0), low, high


def summary(results: Results) -> None:
    """Print one line a method, over all settings."""
    print(
        f"\nOver the {len(results.settings)} settings: median of the median regrets, and the greatest of them, after "
        f"{', '.join(map(str, results.at))} evaluations;\nthe least number of evaluations of a run; shares of them: "
        "beyond the limit, repeated, random ones in the place of the peer's; CPU seconds a run; seeds"
    )
    numbers = "".join(f"{number:>15}" for number in results.at)
    print(f"{'':<40}{numbers}{'done':>6}{'beyond':>9}{'repeated':>9}{'random':>8}{'CPU s':>8}{'seeds':>6}")
    for method in results.methods:
        medians = results.medians(method)
        cells = "".join(f"{f'{np.median(m):.2f} ({m.max():.2f})':>15}" for m in medians.T)
        beyond, again = results.wasted(method)
        runs = results.every(method)
        random = np.mean([run.substitutes / len(run.rows) for run in runs])
        print(
            f"{method:<40}{cells}{min(len(run.rows) for run in runs):>6}{beyond:>9.1%}{again:>9.1%}{random:>8.1%}"
            f"{np.mean([run.cpu_s for run in runs]):>8.2f}{len(runs) // len(results.settings):>6}"
        )


def details(results: Results) -> None:
    """Print the median and the 90 % band of each method in each setting."""
    for setting in results.settings:
        where = problem(setting)
        every = np.flatnonzero(where.inside)
        floor = regrets(where, every, "test200", [len(every)])[0]
        limit = f"{where.limits[0]}, " if where.limits else ""
        print(
            f"\n{setting}: {limit}{len(every)} networks, {len(np.unique(where.networks[every]))} functions; "
            f"whoever selects the best validation accuracy of all has a regret of {floor:.2f}"
        )
        for method in results.methods:
            cells = [band(values) for values in results.regrets(method, setting).T]
            print(f"  {method:<40}" + "".join(f"{f'{m:.2f} [{a:.2f}, {b:.2f}]':>22}" for m, a, b in cells))


def comparison(results: Results, own: str, column: str) -> None:
    """Print how one of ours stands beside each peer."""
    own = f"{own}, chain"
    peers = [method for method in results.methods if method.rpartition(", ")[0] not in OURS]
    if own not in results.methods or not peers:
        return
    where = "validation" if column.startswith("val") else "test"
    print(
        f"\n{own}, beside each peer, on {where}: median over settings of the median regrets, ours and theirs; in how\n"
        "many settings our median is lower, equal, higher; in how many lower and higher with a 95 % bootstrap\n"
        "interval over seeds that excludes 0; in how many above their 90 % band"
    )
    middle = np.median(results.medians(own, column), axis=0)
    for method in peers:
        theirs = np.median(results.medians(method, column), axis=0)
        pairs = [(results.regrets(own, s, column), results.regrets(method, s, column)) for s in results.settings]
        gaps, lows, highs = (np.array(parts) for parts in zip(*(difference(*pair) for pair in pairs), strict=True))
        tops = np.array([np.quantile(others, 0.95, axis=0) for _, others in pairs])
        above = results.medians(own, column) > tops + 1e-9
        print(f"  {method} ({len(pairs[0][1])} seeds)")
        for place, number in enumerate(results.at):
            gap = gaps[:, place]
            counts = f"{(gap < -1e-9).sum()}, {(abs(gap) <= 1e-9).sum()}, {(gap > 1e-9).sum()}"
            clear = f"{int((highs[:, place] < -1e-9).sum())}, {int((lows[:, place] > 1e-9).sum())}"
            print(
                f"    {number:>4} evaluations: {middle[place]:.2f} and {theirs[place]:.2f}; {counts}; {clear}; "
                f"{int(above[:, place].sum())}"
            )


def figure(results: Results, path: Path, shown: Sequence[str]) -> None:
    """Draw the regret over evaluations, a panel for each setting."""
    at = np.unique(np.geomspace(5, results.at[-1], 40).astype(int))
    panels = {
        setting: {
            method: Curve(
                at, np.array([regrets(problem(setting), r.rows, "test200", at) for r in results.runs(method, setting)])
            )
            for method in shown
        }
        for setting in results.settings
    }
    upward = "regret on test, percentage points: median and 90 % band"
    draw(path, panels, "evaluations", upward, x="log", y="symlog")


def versions() -> str:
    """Return what the run was made with."""
    packages = ("numpy", "torch", *PACKAGES.values())
    found = [f"{name} {importlib.metadata.version(name)}" for name in packages if importlib.util.find_spec(name)]
    threads = os.environ.get("OMP_NUM_THREADS", "not set")
    return f"Python {platform.python_version()}, {', '.join(found)}, {platform.machine()}, OMP_NUM_THREADS {threads}"


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_arguments(parser, seeds=50, evaluations=AT[-1])
    parser.add_argument("--dataset", default="cifar10", choices=DATASETS)
    parser.add_argument("--settings", nargs="*", help="names of settings; all by default")
    parser.add_argument("--figure", type=Path, help="where to draw the median regrets")
    given = parser.parse_args()
    if given.data:
        os.environ["NASMW_DATA"] = given.data
    where = known("--settings", given.settings, settings(given.dataset))
    try:
        for setting in where:
            problem(setting)
    except MissingDataError as error:
        sys.exit(f"skipped: {error}")
    chosen = methods(problem(where[0]))
    chosen = {name: chosen[name] for name in known("--methods", given.methods, chosen)}
    for name, package in PACKAGES.items():
        if importlib.util.find_spec(package) is None:
            print(f"skipped: {name}, since {package} is not installed")
    units = [
        Unit(name, what, setting, seed, given.evaluations)
        for seed in range(given.seeds)
        for name, what in chosen.items()
        for setting in where
        if seed < (max(given.seeds // 5, 1) if name.startswith(SLOW) else given.seeds)
    ]
    kept = opened(given, __file__)
    kept.complete(units, search, given.processes)
    results = Results(kept, units, [number for number in AT if number < given.evaluations] + [given.evaluations])
    print(f"seeds 0 to {given.seeds - 1}; {versions()}, {given.processes} processes")
    for name, what in chosen.items():
        print(f"  {name}: {what}")
    summary(results)
    for own, column in ((BEST, "test200"), (BEST, "val200"), ("PredictorGuided", "test200")):
        comparison(results, own, column)
    details(results)
    if given.figure:
        shown = [f"{BEST}, chain", "Random, no repeats, chain", *(f"{name}, checked" for name in OTHERS)]
        figure(results, given.figure, [name for name in shown if name in results.methods])
        print(f"\nfigure: {given.figure.name}")


if __name__ == "__main__":
    main()
