"""Choosing the hyper-parameters on devices that are sources: held out in turn, and in fresh tasks."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np

from few_shot.gp_methods import Preparation, gaussian_process
from few_shot.methods import Method
from few_shot.runs import Score, known_of, run
from few_shot.tasks import Devices, Task
from nasmw.profilers.learned.device_split import split_devices
from nasmw.profilers.learned.multi_source import MultiSource

__all__ = ["fresh_tasks", "held_out", "select"]

FRESH = {"nb201": (12, 4, 3), "fbnet": (8, 3, 3)}
"""By space: how many devices each fresh task is made of, how many sources and targets are left of them."""
PARTITIONS = 4
SEED = 100
"""Far from the seeds of the runs on the tasks."""
PHONES = frozenset({"essential_ph_1", "pixel2", "samsung_a50", "samsung_s7"})
"""Devices that are measured in whole milliseconds."""
SAMPLES = 20
NETWORKS = 3000
WARPS = ((0.0,), (0.4,))
VARIANCES: dict[str, tuple[float, ...]] = {
    "source": (1.0,),
    "directions": (0.3,),
    "encodings": (1.0,),
    "wide": (0.05, 0.2),
    "curved": (0.3,),
    "noise": (0.1, 0.4),
    "width": (1.5,),
}
TRIED_SAMPLERS = ("random", "k-means")
ENCODINGS = ("structure + work", "structure + work + one_hot + blocks")


def fresh_tasks(found: Mapping[str, Task]) -> Iterator[Task]:
    """Yield tasks made of devices that are a target in none of those found."""
    for space, (drawn, sources, targets) in FRESH.items():
        devices = next(task.devices for task in found.values() if task.devices.name == space)
        taken = {target for task in found.values() if task.devices is devices for target in task.targets}
        free = [name for name in devices.milliseconds if name not in taken]
        for number in range(PARTITIONS):
            rng = np.random.default_rng([SEED, number])
            some = sorted(rng.choice(free, drawn, replace=False).tolist())
            split = split_devices(devices.matrix(some)[::5], sources, targets, rng)
            yield Task(
                f"fresh {space}",
                devices,
                tuple(some[column] for column in split.sources),
                tuple(some[column] for column in split.targets),
            )


def held_out(found: Mapping[str, Task]) -> Iterator[Task]:
    """Yield what is left of a task's sources with one of them as the target: every sixth one, and all phones."""
    for task in found.values():
        for number, source in enumerate(task.sources):
            phone = task.devices.name == "fbnet" and source in PHONES
            if phone or number % 6 == 1:
                rest = tuple(name for name in task.sources if name != source)
                yield Task(f"held out {'phones' if phone else task.devices.name}", task.devices, rest, (source,))


def fewer(task: Task) -> Task:
    """Return a task with some of its networks, for speed."""
    devices = task.devices
    rows = np.sort(np.random.default_rng(SEED).permutation(len(devices.candidates))[:NETWORKS])
    columns = {name: devices.milliseconds[name][rows] for name in (*task.sources, *task.targets)}
    return Task(task.name, Devices(devices.name, devices.candidates[rows], columns), task.sources, task.targets)


def variants() -> dict[str, dict[str, Any]]:
    """Return what is tried, by name: arguments of `gaussian_process`, the defaults first."""
    changes: dict[str, dict[str, Any]] = {"the defaults": {}}
    changes |= {f"warps {warps}": {"warps": warps} for warps in WARPS}
    for name, values in VARIANCES.items():
        changes |= {f"{name} {value}": {name: value} for value in values}
    found = {name: {"model": MultiSource(**change)} for name, change in changes.items()}
    found |= {f"sampler {name}": {"sampler": name} for name in TRIED_SAMPLERS}
    found |= {f"encoding {text}": {"encoding": text} for text in ENCODINGS}
    found["no sources"] = {"source_encoding": ""}
    return found


def select(report: Callable[[str], None], found: Mapping[str, Task], out: argparse.Namespace) -> None:
    """Run all variants on devices that are no target, and print their mean rank correlations by kind of task."""
    tasks = [fewer(task) for task in (*fresh_tasks(found), *held_out(found))]
    tried = variants()
    scores: dict[str, list[Score]] = {name: [] for name in tried}
    for task in tasks:
        known = known_of(task, SEED)
        preparation = Preparation(known)
        for name, arguments in tried.items():
            method = Method(name, True, partial(gaussian_process, preparation=preparation, **arguments))
            scores[name] += run(task, method, [SAMPLES], [SEED])
        print(f"{task.name}: {task.targets}", file=sys.stderr, flush=True)
    kinds = sorted({task.name for task in tasks})
    for kind in kinds:
        own = [task for task in tasks if task.name == kind]
        report(f"{kind}: {len(own)} tasks, {sum(len(task.targets) for task in own)} targets")
        for task in own:
            report(f"    {', '.join(task.sources)} -> {', '.join(task.targets)}")
    report("")
    report(
        f"gp-costs, {SAMPLES} samples, {NETWORKS} networks: mean rank correlation by kind of task; the mean of kinds"
    )
    report("with its difference from the defaults, and the standard error of that over targets")
    report(f"{'variant':44}" + "".join(f"{kind:>17}" for kind in kinds) + f"{'mean':>9}{'diff.':>9}")
    defaults = {(one.task, one.target, number): one.rho for number, one in enumerate(scores["the defaults"])}
    for name, got in scores.items():
        means, variances, differences = [], [], []
        for kind in kinds:
            own = [(number, one) for number, one in enumerate(got) if one.task == kind]
            gains = np.array([one.rho - defaults[one.task, one.target, number] for number, one in own])
            means.append(float(np.mean([one.rho for _, one in own])))
            differences.append(float(gains.mean()))
            variances.append(float(gains.var()) / len(gains))
        error = np.sqrt(np.sum(variances)) / len(kinds)
        report(
            f"{name:44}"
            + "".join(f"{mean:17.4f}" for mean in means)
            + f"{np.mean(means):9.4f}{np.mean(differences):+9.4f} ± {error:.4f}"
        )
