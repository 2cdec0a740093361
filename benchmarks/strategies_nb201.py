"""What strategies find on NAS-Bench-201 under limits on latency, beside other libraries' optimizers.

Nine settings: three devices, each with the latencies that 25, 50 and 75 % of the networks keep; and one without a
limit. A search is told validation accuracies of 200 epochs, selects the best network within the limit on them, and is
judged by its test accuracy: regret is how far that is below the best one within the limit, in percentage points.

- *alone* or *bare*: every network that is asked for is evaluated, and costs an evaluation, whether it is beyond the
  limit or was evaluated before. Our strategies are then told that it is infeasible; Optuna and Nevergrad are told its
  accuracy and by how much it is beyond the limit, as they have it; NNI gets no metric.
- *chain*: ``Chain(strategy, Deduplicate(), Filter(latency <= limit))``. *checked*: the same check in a loop around a
  peer; NNI's own Filter makes it. Both know which cells are one function.

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
from kept_runs import Kept, Unit, add_arguments, opened
from nb201_problems import problem, settings
from peers import LOOP, bare_search, checked_search, nni_search
from table_search import Problem, Run, band, regrets, searched, wasted
from tables import MissingDataError
from tables.files import DATASETS

from nasmw import Chain, Deduplicate, Filter, Strategy
from nasmw.candidates import Floats

AT = (50, 100, 300)
NNI = "NNI RegularizedEvolution"
SLOW = ("PolicyGradient", "Optuna TPE", "Nevergrad")
"""Methods that take seconds a run; they search with a tenth of the seeds."""
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
    """

    def __init__(self, kept: Kept, units: Sequence[Unit]) -> None:
        self.methods = tuple(dict.fromkeys(unit.method for unit in units))
        self.settings = tuple(dict.fromkeys(unit.setting for unit in units))
        self._kept = kept
        self._units = units

    @functools.cache  # noqa: B019  lives as long as the script
    def runs(self, method: str, setting: str) -> list[Run]:
        """Return the runs of a method in a setting, by seed."""
        return [self._kept[unit] for unit in self._units if (unit.method, unit.setting) == (method, setting)]

    @functools.cache  # noqa: B019
    def regrets(self, method: str, setting: str) -> Floats:
        """Return ``(seeds, len(AT))`` regrets on test."""
        where = problem(setting)
        return np.array([regrets(where, run.rows, "test200", AT) for run in self.runs(method, setting)])

    def medians(self, method: str) -> Floats:
        """Return ``(settings, len(AT))`` medians over seeds."""
        return np.array([np.median(self.regrets(method, setting), axis=0) for setting in self.settings])

    def wasted(self, method: str) -> tuple[float, float]:
        """Return the shares of evaluations beyond limits and repeated, over all runs."""
        shares = [wasted(problem(s), run.rows) for s in self.settings for run in self.runs(method, s)]
        beyond, again = np.mean(shares, axis=0)
        return float(beyond), float(again)

    def seconds(self, method: str) -> float:
        """Return the mean CPU seconds of a run."""
        return float(np.mean([run.cpu_s for s in self.settings for run in self.runs(method, s)]))


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
        f"{', '.join(map(str, AT))} evaluations;\nshares of evaluations wasted; CPU seconds a run; seeds"
    )
    print(f"{'':<40}{'50':>15}{'100':>15}{'300':>15}{'beyond':>9}{'repeated':>9}{'CPU s':>8}{'seeds':>6}")
    for method in results.methods:
        medians = results.medians(method)
        cells = "".join(f"{f'{np.median(m):.2f} ({m.max():.2f})':>15}" for m in medians.T)
        beyond, again = results.wasted(method)
        seeds = min(len(results.runs(method, setting)) for setting in results.settings)
        print(f"{method:<40}{cells}{beyond:>9.1%}{again:>9.1%}{results.seconds(method):>8.2f}{seeds:>6}")


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


def comparison(results: Results) -> None:
    """Print how the best of ours stands beside each peer."""
    best = f"{BEST}, chain"
    if best not in results.methods:
        return
    own = np.median(results.medians(best), axis=0)
    print(
        f"\n{best} beside each peer: median over settings of the median regrets, ours and theirs; in how many settings "
        "our median is\nlower, equal, higher; in how many higher with a 95 % bootstrap interval that excludes 0; in "
        "how many above their 90 % band"
    )
    for method in results.methods:
        if method.rpartition(", ")[0] in OURS:
            continue
        print(f"  {method}")
        theirs = np.median(results.medians(method), axis=0)
        stands = [difference(results.regrets(best, s), results.regrets(method, s)) for s in results.settings]
        gaps, lows = np.array([stand[0] for stand in stands]), np.array([stand[1] for stand in stands])
        tops = np.array([np.quantile(results.regrets(method, s), 0.95, axis=0) for s in results.settings])
        above = results.medians(best) > tops + 1e-9
        for place, number in enumerate(AT):
            gap = gaps[:, place]
            counts = f"{(gap < -1e-9).sum()}, {(abs(gap) <= 1e-9).sum()}, {(gap > 1e-9).sum()}"
            print(
                f"    {number:>4} evaluations: {own[place]:.2f} and {theirs[place]:.2f}; {counts}; "
                f"{int((lows[:, place] > 1e-9).sum())}; {int(above[:, place].sum())}"
            )


def figure(results: Results, path: Path, shown: Sequence[str]) -> None:
    """Draw the median regret over evaluations, a panel for each setting."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    columns = 3
    rows = -(-len(results.settings) // columns)
    picture, panels = pyplot.subplots(rows, columns, figsize=(4.2 * columns, 3.0 * rows), sharex=True, squeeze=False)
    at = np.unique(np.geomspace(5, AT[-1], 40).astype(int))
    for panel, setting in zip(panels.flat, results.settings, strict=False):
        where = problem(setting)
        for method in shown:
            found = np.array([regrets(where, run.rows, "test200", at) for run in results.runs(method, setting)])
            low, middle, high = np.quantile(found, [0.05, 0.5, 0.95], axis=0)
            (line,) = panel.plot(at, middle, label=method)
            panel.fill_between(at, low, high, alpha=0.08, color=line.get_color(), linewidth=0)
        panel.set_title(setting, fontsize=9)
        panel.set_yscale("symlog", linthresh=0.1)
        panel.set_xscale("log")
    for panel in panels.flat[len(results.settings) :]:
        panel.axis("off")
    handles, labels = panels.flat[0].get_legend_handles_labels()
    picture.legend(handles, labels, loc="lower right", fontsize=8)
    picture.supxlabel("evaluations")
    picture.supylabel("regret on test, percentage points: median and 90 % band")
    picture.tight_layout()
    picture.savefig(path, dpi=110)


def versions() -> str:
    """Return what the run was made with."""
    packages = ("numpy", "torch", *PACKAGES.values())
    found = [f"{name} {importlib.metadata.version(name)}" for name in packages if importlib.util.find_spec(name)]
    return f"Python {platform.python_version()}, {', '.join(found)}, {platform.machine()}"


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
    where = given.settings or settings(given.dataset)
    try:
        problem(where[0])
    except MissingDataError as error:
        sys.exit(f"skipped: {error}")
    chosen = {
        name: what for name, what in methods(problem(where[0])).items() if not given.methods or name in given.methods
    }
    for name, package in PACKAGES.items():
        if importlib.util.find_spec(package) is None:
            print(f"skipped: {name}, since {package} is not installed")
    units = [
        Unit(name, what, setting, seed, given.evaluations)
        for seed in range(given.seeds)
        for name, what in chosen.items()
        for setting in where
        if seed < (max(given.seeds // 10, 1) if name.startswith(SLOW) else given.seeds)
    ]
    kept = opened(given, __file__)
    kept.complete(units, search, given.processes)
    results = Results(kept, units)
    print(f"seeds 0 to {given.seeds - 1}; {versions()}, one thread a process, {given.processes} processes")
    for name, what in chosen.items():
        print(f"  {name}: {what}")
    summary(results)
    comparison(results)
    details(results)
    if given.figure:
        shown = [f"{BEST}, chain", "Random, no repeats, chain", *(f"{name}, checked" for name in OTHERS)]
        figure(results, given.figure, [name for name in shown if name in results.methods])
        print(f"\nfigure: {given.figure.name}")


if __name__ == "__main__":
    main()
