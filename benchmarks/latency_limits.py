"""The most accurate network of NAS-Bench-201 within a latency limit of a new device, from twenty measurements.

    python benchmarks/latency_limits.py --data FOLDER [--seeds N] [--samples 20] [--out FILE]

FOLDER holds ``latency/*``, ``nb201/nb201_accuracy.npz`` and ``nb201/nb201_cost.npz`` of benchmarks/tables/README.md.

The limits are those of HELP (Lee et al., Hardware-Adaptive Efficient Latency Prediction for NAS via Meta-Learning,
NeurIPS 2021) for CIFAR-100. The sources are those of task ND, learnt from 900 networks; twenty networks are measured on
each device, chosen by `MultiSourceProfiler.to_measure` among 600 random ones, the same for all its limits.

- candidates: HELP's own 500, which MetaD2A proposed, in its order, and HELP's rule: of the first three of them that are
  predicted to keep the limit, the most accurate one. Accuracies are those of HELP's file. The optimum is the most
  accurate of all 500 whose true latency keeps the limit; by the rule with true latencies, what the rule can give.
- whole space: of all 15,625 networks predicted to keep the limit, the one of the greatest validation accuracy after 12
  epochs, which is what a search sees; true test accuracy after 200 epochs is reported. The optimum is that of the same
  rule with true latencies; a row of its own, not to be compared with the 500.

With a margin the upper end of the profiler's 80 % interval keeps the limit, not its value alone: nine of ten are to be
below it. Seconds are wall time after the sources are learnt: choosing the twenty, fitting, and predicting the
candidates; the measurements themselves, MetaD2A's generation of the candidates (117 s by HELP's file) and training of
the chosen network are not in them. To learn the sources is timed by itself, once for all devices.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import attrs
import numpy as np
import numpy.typing as npt
from few_shot.gp_methods import COSTS, POOL
from few_shot.runs import known_of, spearman
from few_shot.tasks import Task, published_tasks
from tables import NASBench201
from tables.files import arrays

from nasmw.candidates import Floats
from nasmw.profilers.learned.multi_source import MultiSourceProfiler
from nasmw.profilers.learned.source_devices import SourceDevices

LIMITS = {
    "pixel2": (14.0, 18.0, 22.0),
    "eyeriss": (5.0, 7.0, 9.0),
    "fpga": (5.0, 6.0, 7.0),
    "gold_6226": (8.0, 11.0, 14.0),
    "titan_rtx_256": (18.0, 21.0, 25.0),
}
PUBLISHED = {  # what HELP's README says that HELP chose: milliseconds and percent
    ("titan_rtx_256", 18.0): (17.8, 69.7),
    ("titan_rtx_256", 21.0): (18.9, 71.5),
    ("titan_rtx_256", 25.0): (24.2, 71.8),
    ("gold_6226", 8.0): (8.0, 67.3),
    ("gold_6226", 11.0): (10.7, 70.2),
    ("gold_6226", 14.0): (14.3, 72.1),
    ("pixel2", 14.0): (13.0, 69.7),
    ("pixel2", 18.0): (19.0, 71.8),
    ("pixel2", 22.0): (25.0, 73.2),
    ("eyeriss", 5.0): (3.9, 71.5),
    ("eyeriss", 7.0): (5.1, 71.8),
    ("eyeriss", 9.0): (9.1, 73.5),
    ("fpga", 5.0): (4.7, 71.8),
    ("fpga", 6.0): (5.9, 71.8),
    ("fpga", 7.0): (7.4, 73.5),
}
FIRST = 3
COVERAGE = 0.8
Rows = npt.NDArray[np.intp]
Report = Callable[[str], None]


def by_rule(latencies: Floats, accuracy: Floats, limit: float) -> int | None:
    """Return which of some candidates HELP's rule chooses; None if none keeps the limit."""
    kept = np.flatnonzero(latencies <= limit)[:FIRST]
    return int(kept[np.argmax(accuracy[kept])]) if len(kept) else None


def best(latencies: Floats, accuracy: Floats, limit: float) -> int | None:
    """Return the most accurate of those that keep the limit; None if none does."""
    kept = np.flatnonzero(latencies <= limit)
    return int(kept[np.argmax(accuracy[kept])]) if len(kept) else None


@attrs.frozen(eq=False)
class Device:
    """What is predicted of all networks on one device.

    Attributes:
        true: ``(n,)`` milliseconds.
        said: ``(n,)``, predicted.
        high: ``(n,)``, the upper ends of the intervals.
        few_s: Wall seconds to choose, fit and predict the 500 candidates.
        all_s: The same, and to predict the whole space.
    """

    true: Floats
    said: Floats
    high: Floats
    few_s: float
    all_s: float


def predicted(task: Task, sources: SourceDevices, name: str, few: Rows, samples: int, seed: int) -> Device:
    """Return what is predicted from some measurements."""
    networks, true = task.devices.candidates, task.devices.milliseconds[name]
    pool = np.random.default_rng([seed, 2]).choice(len(networks), POOL, replace=False)
    begin = time.perf_counter()
    profiler = MultiSourceProfiler(task.devices.space, sources, device=name)
    chosen = pool[profiler.to_measure(networks[pool], samples)]
    profiler.fit(networks[chosen], true[chosen])
    profiler.profile_batch(networks[few])
    few_s = time.perf_counter() - begin
    said = profiler.profile_batch(networks)
    _, high = profiler.interval(networks, COVERAGE)
    return Device(true, said, high, few_s, time.perf_counter() - begin)


Rule = Callable[[Floats, Floats, float], int | None]


def table(
    report: Report,
    title: str,
    rule: Rule,
    devices: Mapping[tuple[str, int], Device],
    rows: Rows,
    seen: Floats,
    shown: Floats,
    published: bool,
) -> None:
    """Print what a rule chooses among some networks.

    Args:
        report: Takes the lines.
        title: What is printed above them.
        rule: Chooses by latencies, accuracies and a limit.
        devices: What was predicted, by device and seed.
        rows: ``(m,)``, the networks.
        seen: ``(m,)``, accuracies that the rule is shown.
        shown: ``(m,)``, accuracies that are printed.
        published: Whether HELP's choices are printed beside.
    """
    seeds = sorted({seed for _, seed in devices})
    report(title)
    heads = "".join(f"{head:>26}" for head in ("by value: ms, %, kept", "with margin: ms, %, kept"))
    report(f"{'device':15}{'limit':>6}{heads}{'rule, true: ms, %':>19}{'best: ms, %':>15}" + "   HELP" * published)
    kept_of_all: dict[bool, list[bool]] = {False: [], True: []}
    for name, limits in LIMITS.items():
        true = devices[name, seeds[0]].true[rows]
        for limit in limits:
            cells = []
            for margin in (False, True):
                found = []
                for seed in seeds:
                    device = devices[name, seed]
                    found.append(rule((device.high if margin else device.said)[rows], seen, limit))
                chosen = np.array([place for place in found if place is not None], dtype=np.intp)
                kept = true[chosen] <= limit
                kept_of_all[margin] += kept.tolist()
                none = f" ({len(found) - len(chosen)} none)" if len(chosen) < len(found) else ""
                if not len(chosen):
                    cells.append(f"{'none':>26}")
                    continue
                numbers = f"{true[chosen].mean():.2f} {shown[chosen].mean():6.2f} {kept.sum():3}/{len(chosen)}{none}"
                cells.append(f"{numbers:>26}")
            known = rule(true, seen, limit)
            optimum = best(true, shown, limit)
            for place, wide in ((known, 19), (optimum, 15)):
                cells.append(f"{'none' if place is None else f'{true[place]:.2f} {shown[place]:6.2f}':>{wide}}")
            if published:
                cells.append(f"   {PUBLISHED[name, limit][0]:.1f} {PUBLISHED[name, limit][1]:.1f}")
            report(f"{name:15}{limit:6g}{''.join(cells)}")
    for margin, kept in kept_of_all.items():
        report(f"limits kept {'with margin' if margin else 'by value'}: {sum(kept)} of {len(kept)}")
    report("")


def run(data: str, seeds: int, samples: int, report: Report) -> None:
    """Print the choices for each device and limit, and what they cost."""
    task = published_tasks(data)["ND"]
    told = arrays("latency/nb201_metad2a_candidates.npz", data)
    few, accuracy = told["index"].astype(np.intp), told["cifar100_accuracy"].astype(np.float64)
    space = NASBench201("cifar100", data)
    learnt = []
    devices: dict[tuple[str, int], Device] = {}
    for seed in range(seeds):
        known = known_of(task, seed)
        begin = time.perf_counter()
        sources = SourceDevices(task.devices.space, task.sources, COSTS).fit(known.measured, known.milliseconds)
        learnt.append(time.perf_counter() - begin)
        for name in LIMITS:
            devices[name, seed] = predicted(task, sources, name, few, samples, seed)
    report(f"{samples} measured networks a device, seeds 0 to {seeds - 1}; ms is the true latency of the choice, % its")
    report("true accuracy, means over seeds; kept: how many choices have a true latency within the limit; with margin:")
    report(f"the upper end of the {100 * COVERAGE:.0f} % interval keeps the limit")
    report("")
    title = "HELP's 500 candidates and rule: the most accurate of the first three that are predicted to keep the limit"
    table(report, title, by_rule, devices, few, accuracy, accuracy, True)
    every = np.arange(len(space.codes))
    title = "The whole space: the best validation accuracy after 12 epochs; % is test accuracy after 200 epochs"
    table(report, title, best, devices, every, space.column("val12"), space.column("test200"), False)
    report("Rank correlation, share within 10 %, and seconds to choose the samples, fit and predict:")
    report(f"{'device':15}{'rho of 500':>12}{'of all':>8}{'within 10 %':>13}{'s, 500':>8}{'s, all':>8}")
    for name in LIMITS:
        own = [devices[name, seed] for seed in range(seeds)]
        of_few = np.mean([spearman(device.said[few], device.true[few]) for device in own])
        of_all = np.mean([spearman(device.said, device.true) for device in own])
        within = np.mean([np.mean(np.abs(device.said / device.true - 1.0) <= 0.1) for device in own])
        seconds = np.mean([device.few_s for device in own]), np.mean([device.all_s for device in own])
        report(f"{name:15}{of_few:12.3f}{of_all:8.3f}{100 * within:12.1f}%{seconds[0]:8.2f}{seconds[1]:8.2f}")
    report(f"To learn the {len(task.sources)} sources, once for all devices: {np.mean(learnt):.2f} s.")
    report("HELP's own figures: 125 s in all, of which its candidates are no part (117 s by its file).")


def main() -> None:
    """Run, print, and write to a file where one is named."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default=os.environ.get("NASMW_DATA"), help="the data folder; NASMW_DATA by default")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--samples", type=int, default=20)
    parser.add_argument("--out", help="a file that gets the same lines")
    arguments = parser.parse_args()
    if not arguments.data:
        sys.exit("name the data folder by --data or by NASMW_DATA")
    lines: list[str] = []

    def report(line: str) -> None:
        print(line, flush=True)
        lines.append(line)

    run(arguments.data, arguments.seeds, arguments.samples, report)
    if arguments.out:
        Path(arguments.out).write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
