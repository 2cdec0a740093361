"""Fronts of accuracy, latency and energy on NAS-Bench-201: the share of the true front's hypervolume that is found.

Three devices of HW-NAS-Bench (CIFAR-10), each with every network that was measured, and with the latencies that half of
them keep. What was not measured is beyond the limit in both. A search is told the validation accuracy after 200 epochs,
latency and energy; what it found is the front of all that it evaluated within the limit, in these three, and of the
same networks' test accuracies. The reference point is the median validation accuracy of the networks within the limit,
their greatest latency and their greatest energy; each objective counts in units of its range from there to the best.

Modes are as in `strategies_nb201.py`: *alone* and *bare* evaluate what they are given, *chain* and *checked* turn away
what is beyond the limit or known before it is evaluated. Cells that are one function were measured with other
latencies and trained with other accuracies, and the front has several of them; so only the same cell counts as known.

    OMP_NUM_THREADS=1 python benchmarks/pareto_nb201.py --data folder      (or NASMW_DATA)
"""

from __future__ import annotations

import argparse
import functools
import importlib.metadata
import importlib.util
import os
import sys
from pathlib import Path

import numpy as np
from chosen import FRONT_PEERS, front_strategies
from drawing import Curve, draw
from kept_runs import Kept, Unit, add_arguments, known, opened
from nb201_problems import benchmark
from peers import LOOP, bare_search, checked_search
from strategies_nb201 import chained, versions
from table_search import Problem, Rows, Run, band, searched, wasted
from tables import MissingDataError

from nasmw.candidates import Floats

AT = (50, 100, 300)
DEVICES = ("edgegpu", "fpga", "eyeriss")
LIMITS = ("measured", "50 %")


@functools.cache
def problem(setting: str) -> Problem:
    """Return what a setting searches."""
    device, share = setting.split(", ")
    table = benchmark("cifar10")
    latency, energy = (table.hardware(f"{device}_{what}") for what in ("latency", "energy"))
    every = table.space.candidates(table.codes)
    for profiler in (latency, energy):
        table.columns[profiler.name] = profiler.profile_batch(every)
    values = table.columns[latency.name][latency.measured & energy.measured]
    limit = float(np.quantile(values, 1.0 if share == "measured" else 0.5, method="inverted_cdf"))
    told = ("val200", latency.name, energy.name)
    return Problem(setting, table, told, (latency <= limit,), frozenset(told[1:]), same="architecture")


def hypervolume(points: Floats) -> float:
    """Return the volume between the origin and ``(n, 3)`` points, maximised; what is not above the origin adds none."""
    points = points[(points > 0.0).all(axis=1)]
    points = points[np.argsort(-points[:, 2], kind="stable")]
    total = 0.0
    for number, height in enumerate(points[:, 2].tolist(), start=1):
        below = points[number, 2] if number < len(points) else 0.0
        if height > below:
            base = points[:number][np.argsort(-points[:number, 0], kind="stable")]
            widths = base[:, 0] - np.append(base[1:, 0], 0.0)
            total += float((widths * np.maximum.accumulate(base[:, 1])).sum()) * (height - float(below))
    return total


def front(scores: Floats) -> Rows:
    """Return the places of ``(n, m)`` scores that no other dominates, the first of equal ones."""
    _, first = np.unique(scores, axis=0, return_index=True)
    kept = scores[first]
    order = np.argsort(-kept.sum(axis=1), kind="stable")
    found: list[int] = []
    for place in order.tolist():
        if not any((kept[other] >= kept[place]).all() for other in found):
            found.append(place)
    return np.sort(first[found])


class Scale:
    """What a setting's hypervolumes are measured with.

    Args:
        where: The setting.
        accuracy: The column of accuracies that counts.
    """

    def __init__(self, where: Problem, accuracy: str) -> None:
        self._scores = where.scores.copy()
        self._scores[:, 0] = where.benchmark.column(accuracy)
        self._where = where
        within = self._scores[where.inside]
        reference = within.min(axis=0)
        reference[0] = float(np.median(where.scores[where.inside, 0]))
        self._reference, self._range = reference, within.max(axis=0) - reference
        every = np.flatnonzero(where.inside)
        self.true_front = every[front(self._scores[every])]
        self._whole = hypervolume(self._scaled(self.true_front))

    def _scaled(self, rows: Rows) -> Floats:
        return (self._scores[rows] - self._reference) / self._range

    def share(self, rows: Rows) -> float:
        """Return the share of the true front's hypervolume that the front of what was evaluated has.

        The front is that of what was told; networks beyond the limit are not in it.
        """
        rows = rows[self._where.inside[rows]]
        if not len(rows):
            return 0.0
        return hypervolume(self._scaled(rows[front(self._where.scores[rows])])) / self._whole


@functools.cache
def scale(setting: str, accuracy: str) -> Scale:
    """Return the scale of a setting."""
    return Scale(problem(setting), accuracy)


def methods() -> dict[str, str]:
    """Return every method by name, and how it is configured."""
    found = {}
    for name, strategy in front_strategies().items():
        found[f"{name}, alone"] = repr(strategy)
        found[f"{name}, chain"] = f"Chain({strategy!r}, Deduplicate(same='architecture'), Filter())"
    for name, made in FRONT_PEERS.items():
        package = name.split()[0].lower()
        if importlib.util.find_spec(package) is None:
            continue
        for how in ("bare", "checked"):
            what = f"{made!r}, {package} {importlib.metadata.version(package)}"
            found[f"{name}, {how}"] = f"{what}, {LOOP}" if how == "checked" else what
    return found


def search(unit: Unit) -> Run:
    """Do one search."""
    where = problem(unit.setting)
    where.networks, where.inside  # noqa: B018  computed before the clock starts
    name, _, how = unit.method.rpartition(", ")
    evaluations = int(unit.evaluations)
    if how in ("alone", "chain"):
        strategy = front_strategies()[name]
        return searched(where, strategy if how == "alone" else chained(strategy, where), evaluations, unit.seed)
    return (bare_search if how == "bare" else checked_search)(where, FRONT_PEERS[name], evaluations, unit.seed)


def report(kept: Kept, units: list[Unit], at: tuple[int, ...]) -> None:
    """Print a table for each setting."""
    for setting in dict.fromkeys(unit.setting for unit in units):
        where = problem(setting)
        sizes = [len(scale(setting, accuracy).true_front) for accuracy in ("val200", "test200")]
        print(
            f"\n{setting}: {where.limits[0]}, {int(where.inside.sum())} networks; the true front has {sizes[0]} "
            f"on validation, {sizes[1]} on test\n{'':<28}"
            + "".join(f"{f'{n} evaluations':>24}" for n in at)
            + f"{'on test':>24}{'wasted':>8}{'CPU s':>8}"
        )
        for method in dict.fromkeys(unit.method for unit in units):
            runs = [kept[unit] for unit in units if (unit.method, unit.setting) == (method, setting)]
            cells = [band([scale(setting, "val200").share(run.rows[:n]) for run in runs]) for n in at]
            cells.append(band([scale(setting, "test200").share(run.rows[: at[-1]]) for run in runs]))
            lost = np.mean([sum(wasted(where, run.rows)) for run in runs])
            seconds = np.mean([run.cpu_s for run in runs])
            print(
                f"{method:<28}"
                + "".join(f"{f'{m:.3f} [{a:.3f}, {b:.3f}]':>24}" for m, a, b in cells)
                + f"{lost:>8.1%}{seconds:>8.2f}"
            )


def figure(kept: Kept, units: list[Unit], path: Path) -> None:
    """Draw the share of the hypervolume over evaluations, a panel for each setting."""
    at = np.unique(np.linspace(10, max(unit.evaluations for unit in units), 15).astype(int))
    panels: dict[str, dict[str, Curve]] = {}
    for setting, method in dict.fromkeys((unit.setting, unit.method) for unit in units):
        runs = [kept[unit] for unit in units if (unit.setting, unit.method) == (setting, method)]
        found = np.array([[scale(setting, "val200").share(run.rows[:n]) for n in at] for run in runs])
        panels.setdefault(setting, {})[method] = Curve(at, found, "-" if method.endswith(("chain", "checked")) else ":")
    draw(path, panels, "evaluations", "share of the true front's hypervolume: median and 90 % band")


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_arguments(parser, seeds=50, evaluations=AT[-1])
    parser.add_argument("--figure", type=Path, help="where to draw the medians")
    given = parser.parse_args()
    if given.data:
        os.environ["NASMW_DATA"] = given.data
    where = [f"{device}, {limit}" for device in DEVICES for limit in LIMITS]
    for name in FRONT_PEERS:
        if importlib.util.find_spec(name.split()[0].lower()) is None:
            print(f"skipped: {name}, since {name.split()[0].lower()} is not installed")
    try:
        problem(where[0])
    except MissingDataError as error:
        sys.exit(f"skipped: {error}")
    chosen = methods()
    chosen = {name: chosen[name] for name in known("--methods", given.methods, chosen)}
    units = [
        Unit(name, what, setting, seed, given.evaluations)
        for seed in range(given.seeds)
        for name, what in chosen.items()
        for setting in where
    ]
    kept = opened(given, __file__)
    kept.complete(units, search, given.processes)
    print(f"seeds 0 to {given.seeds - 1}; {versions()}")
    for name, what in chosen.items():
        print(f"  {name}: {what}")
    print("\nshare of the true front's hypervolume: median [90 % band]; on test after the last evaluation")
    report(kept, units, (*(n for n in AT if n < given.evaluations), given.evaluations))
    if given.figure:
        figure(kept, units, given.figure)
        print(f"\nfigure: {given.figure.name}")


if __name__ == "__main__":
    main()
