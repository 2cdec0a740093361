"""Few-shot transfer of latencies: the twelve published tasks, beside the figures published for them.

    python benchmarks/latency_tasks.py --data FOLDER [--only SECTION ...] [--methods NAME ...] [--seeds N] [--out FILE]
    python benchmarks/latency_tasks.py --data FOLDER --select

Sections: tasks, eagle, ablations; and only where they are named crossed: the process without costs, each supplementary
encoding with each sampler (proxies have MACs and parameters among them), and graph: the switches of the graph network,
at most 3 seeds, for ``--tasks`` and for those of ``--methods`` that begin with graph (or all of them), minutes each.
FOLDER holds the arrays that benchmarks/tables/README.md lists (``latency/*``, for the proxies ``nb201/*``).

A method learns the sources of a task from 900 networks (NAS-Bench-201) or 800 (FBNet), drawn anew for each seed and
measured on all sources; then it chooses 5, 10 or 20 networks to measure on a target, and predicts all. The score is
Spearman's rank correlation over every network that is measured on the target, those 20 included, as published; the mean
over the targets of a task, then over seeds, with the standard error over seeds. 341 networks of NAS-Bench-201 that have
no path from input to output are measured on HELP's devices only; how the published figures treat them on the others is
not known. Of task N4 one source is missing, whose table is not to be had.

The published figures are reconstructed from the plotting scripts of the authors of NASFLAT (Akhauri and Abdelfattah, On
Latency Predictors for Neural Architecture Search, MLSys 2024): means over three seeds with 20 samples, without errors.
None of the published methods is told what networks cost; methods that are have a section of their own.

What was chosen, and on what: ``--select`` runs no task on its targets. It holds out sources of a task in turn (each
sixth, and all phones), one of them being the target of the others; some are targets in another of the twelve. And it
makes fresh tasks by `split_devices` from devices that are a target in none of the twelve.
benchmarks/results/latency_tasks_choices.txt says what was tried in such trials, and what was chosen by them; the
targets of the tasks were run after that, once.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TextIO

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from few_shot import gp_methods, graph_methods
from few_shot.methods import METHODS, Method
from few_shot.runs import Score, mean_and_error, over_seeds, run, spearman
from few_shot.selection import select
from few_shot.tasks import Task, devices_of, published_tasks

from nasmw.profilers.learned.source_devices import SourceDevices

SAMPLES = (5, 10, 20)
PUBLISHED = {  # HELP, MultiPredict, NASFLAT
    "ND": (0.948, 0.930, 0.959),
    "N1": (0.604, 0.907, 0.967),
    "N2": (0.509, 0.757, 0.857),
    "N3": (0.729, 0.947, 0.962),
    "N4": (0.746, 0.952, 0.959),
    "NA": (0.410, 0.820, 0.893),
    "FD": (0.910, 0.960, 0.961),
    "F1": (0.793, 0.756, 0.809),
    "F2": (0.543, 0.567, 0.871),
    "F3": (0.413, 0.434, 0.814),
    "F4": (0.799, 0.763, 0.734),
    "FA": (0.370, 0.450, 0.577),
}
FAMILIES = {"N": "NAS-Bench-201", "F": "FBNet"}
OWN_SAMPLES = 1500
EAGLE_SAMPLES = 100
ABLATED = ("N2", "NA", "F1", "F3", "F4", "FA")


class Report:
    """Prints lines, and writes them to a file as well where one is given."""

    def __init__(self, out: TextIO | None) -> None:
        self.out = out

    def __call__(self, line: str = "") -> None:
        print(line, flush=True)
        if self.out is not None:
            print(line, file=self.out, flush=True)


Section = Callable[[Report, Mapping[str, Task], Sequence[Method], argparse.Namespace], None]


def geometric(values: Sequence[float]) -> float:
    return float(np.exp(np.mean(np.log(np.maximum(values, 1e-3)))))


def tasks(report: Report, found: Mapping[str, Task], methods: Sequence[Method], arguments: argparse.Namespace) -> None:
    scores: list[Score] = []
    for task in found.values():
        for method in methods:
            begin = time.process_time()
            scores += run(task, method, SAMPLES, range(arguments.seeds))
            print(f"{task.name} {method.name}: {time.process_time() - begin:.0f} s of CPU", file=sys.stderr, flush=True)
    for costs, title in ((False, "Not told what networks cost"), (True, "Told what networks cost")):
        own = [method for method in methods if method.costs is costs]
        if not own:
            continue
        for count in SAMPLES:
            report(f"{title}: {count} samples, mean ± standard error over {arguments.seeds} seeds")
            heads = "".join(f"{method.name:>16}" for method in own)
            report(f"{'task':6}{heads}{'HELP*':>9}{'MultiP.*':>9}{'NASFLAT*':>9}   * published, with 20 samples")
            means: dict[str, dict[str, float]] = {method.name: {} for method in own}
            for name in found:
                cells = []
                for method in own:
                    mean, error = mean_and_error(over_seeds(_of(scores, name, method.name, count)))
                    means[method.name][name] = mean
                    cells.append(f"{mean:.3f} ± {error:.3f}".rjust(16))
                report(f"{name:6}{''.join(cells)}" + "".join(f"{value:9.3f}" for value in PUBLISHED[name]))
            for letter, family in FAMILIES.items():
                names = [name for name in found if name.startswith(letter)]
                if names:
                    cells = [f"{geometric([means[method.name][name] for name in names]):>8.3f}{'':8}" for method in own]
                    known = [geometric([PUBLISHED[name][number] for name in names]) for number in range(3)]
                    report(
                        f"{letter + ' geo.':6}{''.join(cells)}"
                        + "".join(f"{value:9.3f}" for value in known)
                        + f"   geometric mean, {family}"
                    )
            report()
    report(
        "CPU seconds: to learn the sources, then for each target with 20 samples (choose, fit, predict all networks),"
    )
    report("and for the whole task; the worst seed in brackets")
    report(f"{'task':6}" + "".join(f"{method.name:>34}" for method in methods))
    for name, task in found.items():
        cells = []
        for method in methods:
            of_task = _of(scores, name, method.name, SAMPLES[-1])
            by_seed = [[one for one in of_task if one.seed == seed] for seed in range(arguments.seeds)]
            train = [own[0].train_s for own in by_seed]
            target = [np.mean([one.target_s for one in own]) for own in by_seed]
            total = [own[0].train_s + sum(one.target_s for one in own) for own in by_seed]
            cells.append(
                f"{np.mean(train):.2f}  {np.mean(target):.2f}  {np.mean(total):.2f} ({max(total):.2f})".rjust(34)
            )
        report(f"{name:6}{''.join(cells)}   {len(task.sources)} sources, {len(task.targets)} targets")
    report()
    _by_target(report, found, methods, scores)


def _of(scores: Sequence[Score], task: str, method: str, samples: int) -> list[Score]:
    return [one for one in scores if (one.task, one.method, one.samples) == (task, method, samples)]


def _by_target(report: Report, found: Mapping[str, Task], methods: Sequence[Method], scores: Sequence[Score]) -> None:
    report(f"By target, {SAMPLES[-1]} samples: rank correlation; own: learnt from {OWN_SAMPLES} networks of the target")
    report("itself by the same process that learns sources, tested on the others: what noise leaves (first seed)")
    report(f"{'task':6}{'target':44}" + "".join(f"{method.name:>16}" for method in methods) + f"{'own':>8}")
    own: dict[tuple[str, str], float] = {}
    for name, task in found.items():
        for target in task.targets:
            key = task.devices.name, target
            if key not in own:
                own[key] = ceiling(task, target)[0]
            got = {method.name: _of(scores, name, method.name, SAMPLES[-1]) for method in methods}
            means = [np.mean([one.rho for one in of_all if one.target == target]) for of_all in got.values()]
            cells = "".join(f"{mean:16.3f}" for mean in means)
            report(f"{name:6}{target:44}{cells}{own[key]:8.3f}")
        mean = float(np.mean([own[task.devices.name, target] for target in task.targets]))
        report(f"{name:6}{'mean':44}{'':{16 * len(methods)}}{mean:8.3f}")
    report()


def ceiling(task: Task, target: str) -> tuple[float, float]:
    """Return rank correlation and share within 10 % of what is learnt from many networks of a target itself."""
    measured = task.devices.milliseconds[target]
    rows = np.random.default_rng(0).permutation(np.flatnonzero(np.isfinite(measured)))
    learnt, rest = rows[:OWN_SAMPLES], rows[OWN_SAMPLES:]
    networks = task.devices.candidates
    own = SourceDevices(task.devices.space, [target], gp_methods.COSTS).fit(networks[learnt], measured[learnt][:, None])
    said = own.values(networks[rest])[:, 0]
    return spearman(said, measured[rest]), float(np.mean(np.abs(said / measured[rest] - 1.0) <= 0.1))


def eagle(report: Report, found: Mapping[str, Task], methods: Sequence[Method], arguments: argparse.Namespace) -> None:
    devices = devices_of("nb201", arguments.data)
    task = Task("EAGLE", devices, found["ND"].sources, devices.eagle)
    report(f"{EAGLE_SAMPLES} samples on EAGLE's devices, from the sources of ND (none of them is EAGLE's), 5 seeds;")
    report(
        f"own: from {OWN_SAMPLES} networks of the device itself; share: of that rank correlation; 10 %: the share of"
    )
    report("predictions to within 10 % of the measurement")
    report(f"{'target':46}{'method':16}{'rho':>15}{'own':>8}{'share':>8}{'10 %':>7}{'own 10 %':>9}")
    shares: dict[str, list[float]] = {}
    for target in task.targets:
        best, best_within = ceiling(task, target)
        for method in methods:
            only = Task(task.name, devices, task.sources, (target,))
            got = list(run(only, method, [EAGLE_SAMPLES], range(min(arguments.seeds, 5))))
            mean, error = mean_and_error([one.rho for one in got])
            within = np.mean([one.within for one in got])
            shares.setdefault(method.name, []).append(mean / best)
            report(
                f"{target:46}{method.name:16}{mean:8.4f} ± {error:.4f}{best:8.4f}{100 * mean / best:7.1f}%"
                f"{100 * within:6.1f}%{100 * best_within:8.1f}%"
            )
    for name, own in shares.items():
        report(f"{name}: mean share {100 * np.mean(own):.2f} %, least {100 * min(own):.2f} %")
    report()


def ablations(
    report: Report, found: Mapping[str, Task], methods: Sequence[Method], arguments: argparse.Namespace
) -> None:
    compared(report, found, gp_methods.ablations(), arguments)


def crossed(
    report: Report, found: Mapping[str, Task], methods: Sequence[Method], arguments: argparse.Namespace
) -> None:
    compared(report, found, gp_methods.crossed(), arguments)


def compared(
    report: Report, found: Mapping[str, Task], variants: Mapping[str, Method], arguments: argparse.Namespace
) -> None:
    """Print what variants get on some of the tasks, and their differences from the first one."""
    seeds = min(arguments.seeds, 3)
    own = {name: found[name] for name in ABLATED if name in found}
    first = next(iter(variants))
    report(f"20 samples, {seeds} seeds: rank correlation; the mean over tasks and its difference from {first!r}")
    report(f"{'what':44}" + "".join(f"{name:>8}" for name in own) + f"{'mean':>8}{'diff.':>8}")
    whole = 0.0
    for name, method in variants.items():
        values = [
            float(np.mean([one.rho for one in run(task, method, SAMPLES[-1:], range(seeds))])) for task in own.values()
        ]
        mean = float(np.mean(values))
        whole = whole or mean
        report(f"{name:44}" + "".join(f"{value:8.3f}" for value in values) + f"{mean:8.3f}{mean - whole:+8.3f}")
    report()


def graph(report: Report, found: Mapping[str, Task], methods: Sequence[Method], arguments: argparse.Namespace) -> None:
    names = [method.name for method in methods if method.name.startswith("graph")]
    graph_methods.compare(report, found, min(arguments.seeds, 3), names)
    report()


SECTIONS: dict[str, Section] = {
    "tasks": tasks,
    "eagle": eagle,
    "ablations": ablations,
    "crossed": crossed,
    "graph": graph,
}
SLOW = {"crossed", "graph"}


def main() -> None:
    """Run the sections."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default=os.environ.get("NASMW_DATA"), help="the data folder; NASMW_DATA by default")
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=[name for name in SECTIONS if name not in SLOW])
    parser.add_argument("--tasks", nargs="+", default=list(PUBLISHED), choices=list(PUBLISHED))
    parser.add_argument("--methods", nargs="+", help="by default all but the slow ones")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--select", action="store_true", help="only sources, held out, and fresh tasks; see above")
    parser.add_argument("--out", help="a file that gets the same lines")
    arguments = parser.parse_args()
    if not arguments.data:
        sys.exit("name the data folder by --data or by NASMW_DATA")
    os.environ["NASMW_DATA"] = arguments.data
    names = arguments.methods or [name for name, method in METHODS.items() if not method.slow]
    if unknown := sorted(set(names) - set(METHODS)):
        sys.exit(f"there is no method {unknown[0]!r}; there are {', '.join(METHODS)}")
    every = published_tasks(arguments.data)
    out = open(arguments.out, "w") if arguments.out else None  # noqa: SIM115
    try:
        report = Report(out)
        begin = time.perf_counter()
        if arguments.select:
            select(report, every, arguments)
        else:
            found = {name: every[name] for name in arguments.tasks}
            report(f"seeds 0 to {arguments.seeds - 1}; sources are learnt from 900 networks (N) or 800 (F)")
            report()
            for name in arguments.only:
                SECTIONS[name](report, found, [METHODS[name] for name in names], arguments)
        report(f"{time.perf_counter() - begin:.0f} s")
    finally:
        if out is not None:
            out.close()


if __name__ == "__main__":
    main()
