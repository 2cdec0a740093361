"""Measures NAS-Bench-201 cells on every runtime that is installed: a data set of latencies, and how repeatable it is.

    python benchmarks/measure_devices.py [--networks 600] [--core 1] [--devices onnxruntime-fp32 ...]

All devices are one CPU under several runtimes, and no latency here says anything about another piece of hardware.

The networks are a seeded sample of distinct cells whose output depends on the input, for CIFAR images, batch 1, with
random weights that keep activations at an ordinary size. They are measured in chunks by the protocol that
`nasmw.devices.measuring` describes; one that has been measured is kept beside the result, and the same command goes on
where another was interrupted. In the end some networks are measured once more, in new processes.

Written are ``benchmarks/data/nasbench201_devices.npz`` (architectures, wall and processor time visit by visit, and the
machine, versions, date and protocol) and ``benchmarks/results/measure_devices.txt`` (the noise report, and how the
devices rank alike).
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import multiprocessing
import os
import shutil
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch

from nasmw import Candidates, Space, devices
from nasmw.devices import Artifact, Device, Measurements, Session, measure, noise_report, rank_agreement
from nasmw.profilers import FlopsProfiler, ParamsProfiler
from nasmw.spaces import nasbench201

HERE = Path(__file__).parent
EXAMPLE = torch.zeros(1, 3, 32, 32)
BUSY = 0.3  # processes that want to run, beyond which the machine is no quiet one
PILOT = 2
PREFACE = "one CPU under several runtimes: not several pieces of hardware"


def chosen_devices(wanted: Sequence[str], core: int | None) -> list[Device]:
    """Return the devices to measure on; says which are left out, and which precision is the real one."""
    common: dict[str, Any] = {"core": core}
    candidates = {
        "onnxruntime-fp32": ("onnxruntime", {"precision": "fp32"}),
        "onnxruntime-int8": ("onnxruntime", {"precision": "int8"}),
        "openvino": ("openvino", {"precision": "bf16"}),
        "ncnn": ("ncnn", {}),
        "torch-eager": ("torch", {"mode": "eager"}),
    }
    missing = {known.name: known.missing for known in devices.list()}
    chosen = []
    for name, (kind, arguments) in candidates.items():
        if wanted and name not in wanted:
            continue
        if missing.get(kind, "is not a device of this version"):
            print(f"left out: {name}: {missing.get(kind)}")
            continue
        device = devices.get(kind, **arguments, **common)
        if kind == "openvino":
            with device.open() as session:
                precision = session.describe()["precision"]
            if precision != "bf16":
                print(f"openvino: this processor has no instructions for bf16, so it is measured in {precision}")
                device = devices.get(kind, precision="f32", **common)
        chosen.append(device)
    return chosen


def sampled(space: Space, number: int, seed: int) -> Candidates:
    """Return distinct architectures whose output depends on the input."""
    rng = np.random.default_rng(seed)
    drawn = space.at([int(rank) for rank in rng.permutation(space.size)])
    connected = [key != () for key in space.function_keys(drawn)]
    return drawn[np.flatnonzero(connected)[:number]]


def name_of(architecture: Mapping[str, Any]) -> str:
    """Return an architecture as the benchmark writes it."""
    nodes = [[f"{architecture[f'edge_{source}_{node}']}~{source}" for source in range(node)] for node in range(1, 4)]
    return "+".join(f"|{'|'.join(edges)}|" for edges in nodes)


_targets: list[Device] = []


def _begin(targets: list[Device]) -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:  # one that is killed takes this process with it
        threading.Thread(target=lambda: (parent.join(), os._exit(1)), daemon=True).start()
    torch.set_num_threads(1)
    _targets.extend(targets)


def exported(architecture: dict[str, Any], seed: int) -> dict[str, Artifact]:
    """Return one network in the form of each device; runs in a process of its own."""
    model = devices.sensible_weights(nasbench201().build(architecture), EXAMPLE, seed=seed)
    return {device.name: device.export(model, EXAMPLE) for device in _targets}


def estimate(
    networks: Mapping[str, Mapping[str, Artifact]],
    sessions: Sequence[Session],
    count: int,
    settings: argparse.Namespace,
) -> float:
    """Return the minutes that loading and measuring take, by what a few networks take; prints them for each device."""
    whole = 0.0
    for session in sessions:
        load, visits = 0.0, []
        for name, artifacts in networks.items():
            load += session.prepare(name, artifacts[session.device.name]) / len(networks)
            session.measure(name, 1)
            begin = time.perf_counter()
            session.measure(name, settings.runs, settings.warmup)
            visits.append(time.perf_counter() - begin)
            session.forget(name)
        visit = float(np.mean(visits))
        minutes = count * (load + settings.rounds * visit) / 60
        whole += minutes
        name, load_ms, visit_ms = session.device.name, 1e3 * load, 1e3 * visit
        print(f"  {name:<18}{load_ms:6.0f} ms to load, {visit_ms:6.0f} ms a visit: {minutes:5.1f} min")
    return whole


def summary(found: Measurements, candidates: Candidates, again: Measurements | None) -> str:
    """Return the noise report, and how devices, multiply-adds and parameters rank the networks alike."""
    space = nasbench201()
    lines = [str(noise_report(found)), ""]
    columns = {
        **{name: found.latency_ms[row] for row, name in enumerate(found.devices)},
        "macs": FlopsProfiler(space, EXAMPLE).profile_batch(candidates),
        "params": ParamsProfiler(space).profile_batch(candidates),
    }
    width = max(map(len, columns))
    lines.append("rank agreement (Spearman) of the latencies, and with multiply-adds and parameters:")
    lines.append(" " * width + "".join(f"  {name:>16}" for name in columns))
    for name, values in columns.items():
        row = "".join(f"  {rank_agreement(values, others):>16.3f}" for others in columns.values())
        lines.append(f"{name:<{width}}{row}")
    lines += ["", "latencies in milliseconds: least, median, greatest"]
    for row, name in enumerate(found.devices):
        low, middle, high = np.quantile(found.latency_ms[row], (0, 0.5, 1))
        lines.append(f"{name:<{width}}  {low:8.3f}  {middle:8.3f}  {high:8.3f}")
    if again is not None:
        lines += [
            "",
            f"{len(again.names)} of them measured again in new processes: rank agreement, median of new / old",
        ]
        places = [found.names.index(name) for name in again.names]
        for row, name in enumerate(found.devices):
            old, new = found.latency_ms[row, places], again.latency_ms[row]
            lines.append(f"{name:<{width}}  {rank_agreement(old, new):6.3f}  {np.median(new / old):6.3f}")
    return "\n".join(lines)


def measured(
    candidates: Candidates, kind: str, folder: Path, pool: ProcessPoolExecutor, settings: argparse.Namespace
) -> Measurements:
    """Measure candidates part by part; a part that is on the disk already is read.

    Args:
        candidates: The architectures.
        kind: What the files of the parts are called.
        folder: Where they stand.
        pool: The processes that export.
        settings: The command line.
    """
    parts: list[Measurements] = []
    with contextlib.ExitStack() as stack:
        sessions = [stack.enter_context(device.open()) for device in settings.chosen]
        for begin in range(0, len(candidates), settings.chunk):
            path = folder / f"{kind}{begin:05d}.npz"
            if not path.is_file():
                mappings = [dict(architecture) for architecture in candidates[begin : begin + settings.chunk]]
                networks = pool.map(exported, mappings, range(begin, begin + len(mappings)))
                lowest = np.min([part.reference_ms for part in parts], axis=0) if parts else []
                measure(
                    dict(zip(map(name_of, mappings), networks, strict=True)),
                    sessions,
                    rounds=settings.rounds,
                    repeats=settings.repeats,
                    runs=settings.runs,
                    warmup=settings.warmup,
                    reference={device.name: ms for device, ms in zip(settings.chosen, lowest, strict=False)},
                    seed=settings.seed + begin + (kind == "again"),  # another order
                ).save(path)
            parts.append(Measurements.load(path))
            print(f"{kind}: {sum(len(part.names) for part in parts)} of {len(candidates)}: {parts[-1]!r}", flush=True)
    return Measurements.join(parts)


def parts_folder(settings: argparse.Namespace, candidates: Candidates) -> Path:
    """Return the folder of the parts; ends the program if those that stand there are of something else."""
    folder = settings.output.with_suffix(".parts")
    about = {
        "networks": hashlib.sha256(candidates.codes.tobytes()).hexdigest(),
        "devices": [device.key for device in settings.chosen],
        "numbers": [settings.chunk, settings.rounds, settings.repeats, settings.runs, settings.warmup, settings.seed],
    }
    description = folder / "about.json"
    if description.is_file() and json.loads(description.read_text()) != about:
        sys.exit(f"{folder} holds parts of another measurement ({description}); remove it, or give the same arguments")
    folder.mkdir(parents=True, exist_ok=True)
    description.write_text(json.dumps(about, indent=2) + "\n")
    return folder


def arguments() -> argparse.Namespace:
    """Return the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--networks", type=int, default=600)
    parser.add_argument("--again", type=int, default=40, help="how many are measured once more, in new processes")
    parser.add_argument("--devices", nargs="*", default=(), help="all that are installed without it")
    parser.add_argument("--core", type=int, help="the core to measure on; the last one without it")
    parser.add_argument("--chunk", type=int, default=60, help="how many networks are loaded at a time")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--runs", type=int, default=8)
    parser.add_argument("--warmup", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=HERE / "data/nasbench201_devices.npz")
    parser.add_argument("--report", type=Path, default=HERE / "results/measure_devices.txt")
    parser.add_argument("--estimate", action="store_true", help="say what it would take, and measure nothing")
    return parser.parse_args()


def main() -> None:
    """Measure, save and report."""
    settings = arguments()
    settings.chosen = chosen_devices(settings.devices, settings.core)
    if not settings.chosen:
        sys.exit("none of the devices is installed")
    space = nasbench201()
    candidates = sampled(space, settings.networks, settings.seed)
    print(f"{len(candidates)} networks on {', '.join(device.name for device in settings.chosen)}: {PREFACE}")
    if hasattr(os, "getloadavg") and os.getloadavg()[0] > BUSY:
        print(f"this machine is not quiet: its load average is {os.getloadavg()[0]:.1f}")
    begin = time.monotonic()
    workers = os.cpu_count() or 1
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, spawn, initializer=_begin, initargs=(settings.chosen,)) as pool:
        pilots = [dict(architecture) for architecture in candidates[: PILOT * workers]]
        list(pool.map(exported, pilots, range(len(pilots))))  # the first ones import PyTorch and the runtimes
        start = time.perf_counter()
        networks = dict(enumerate(pool.map(exported, pilots, range(len(pilots)))))
        minutes = len(candidates) * (time.perf_counter() - start) / len(pilots) / 60
        print(f"what it takes:\n  {'export':<18}{minutes:5.1f} min in {workers} processes")
        with contextlib.ExitStack() as stack:
            sessions = [stack.enter_context(device.open()) for device in settings.chosen]
            named = {str(number): artifacts for number, artifacts in networks.items()}
            minutes += estimate(named, sessions, len(candidates), settings)
        print(f"  together {minutes:.0f} min; anchors and what is disturbed add to it", flush=True)
        if settings.estimate:
            return
        folder = parts_folder(settings, candidates)
        found = measured(candidates, "part", folder, pool, settings)
        again = measured(candidates[: settings.again], "again", folder, pool, settings) if settings.again else None
    taken = (time.monotonic() - begin) / 60
    text = "\n".join(
        [
            f"$ {' '.join(['python benchmarks/measure_devices.py', *sys.argv[1:]])}",
            f"{len(candidates)} cells of NAS-Bench-201, 32x32 images, batch 1, random weights",
            f"on {PREFACE}",
            *(about["key"] for about in found.environment["devices"].values()),
            f"{found.environment['begin']} to {found.environment['end']}, {taken:.0f} minutes in the last run",
            f"protocol {found.protocol}",
            "",
            summary(found, candidates, again),
        ]
    )
    print(f"\n{text}")
    for path in (settings.output, settings.report):
        path.parent.mkdir(parents=True, exist_ok=True)
    found.save(
        settings.output,
        codes=candidates.codes,
        choices=np.array(space.names),
        options=np.array([[str(option) for option in choice.options] for choice in space.choices]),
        note=PREFACE,
        **({"again_names": np.array(again.names), "again_latency_ms": again.latency_ms} if again else {}),
    )
    settings.report.write_text(text + "\n")
    shutil.rmtree(folder)
    print(f"\nwritten: {settings.output}, {settings.report}")


if __name__ == "__main__":
    main()
