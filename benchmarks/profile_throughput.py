"""How long profilers take to be made and to answer, over every ready space; beside them, counting network by network.

    python benchmarks/profile_throughput.py [--probe] [space ...]

For each space: the seconds to make `FlopsProfiler` from declared tables (or, with --probe, by probing and then from the
disk), the microseconds for one mapping, the architectures a second in batches of 10^3 and 10^6, and, in the same run,
the milliseconds to build one network and count it with fvcore. Where `nni` is importable, its FlopsProfiler answers for
its own spaces of the same families, one mapping at a time, as it does.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch

from nasmw import Space, spaces
from nasmw.profilers import FlopsProfiler, count

SPACES: dict[str, tuple[Callable[[], Space], int]] = {
    "ofa_mobilenetv3": (spaces.ofa_mobilenetv3, 224),
    "compofa": (lambda: spaces.compofa("elastic"), 224),
    "nasbench201": (spaces.nasbench201, 32),
    "nats_size": (spaces.nats_size, 32),
    "fbnet": (spaces.fbnet, 224),
    "proxylessnas": (spaces.proxylessnas, 224),
    "mobilenetv3": (spaces.mobilenetv3, 224),
    "autoformer": (spaces.autoformer, 224),
    "darts": (spaces.darts, 32),
}
NNI_SPACES = ("MobileNetV3Space", "ProxylessNAS", "ShuffleNetSpace", "AutoFormer")


def seconds(function: Callable[[], Any], repeats: int = 1) -> tuple[float, Any]:
    """Return the median time of some calls, and what the last one returned."""
    taken = []
    result = None
    for _ in range(repeats):
        start = time.perf_counter()
        result = function()
        taken.append(time.perf_counter() - start)
    return statistics.median(taken), result


def report(name: str, probe: bool) -> None:
    """Print one line about a space."""
    make_space, size = SPACES[name]
    space = make_space()
    example = torch.zeros(1, 3, size, size)

    def make() -> FlopsProfiler:
        return FlopsProfiler(space, example, method="probe" if probe else "auto", uncounted="ignore")

    first, profiler = seconds(make)
    again, _ = seconds(make)
    rng = np.random.default_rng(0)
    thousand = space.sample(1000, rng)
    mappings = list(thousand)
    one, _ = seconds(lambda: [profiler.profile(mapping) for mapping in mappings], 5)
    small, _ = seconds(lambda: profiler.profile_batch(thousand), 20)
    million = space.sample(10**6, rng)
    large, _ = seconds(lambda: profiler.profile_batch(million), 3)

    def directly() -> list[int]:
        found = []
        for mapping in mappings[:3]:
            resized = profiler.example_input.for_architecture(mapping, profiler.resolution)
            found.append(count(space.build(mapping), resized).macs)
        return found

    direct, counted = seconds(directly)
    equal = counted == [int(profiler.profile(mapping)) for mapping in mappings[:3]]
    tables = f"{first:9.2f}{again:9.2f}{1e3 * one:10.1f}{1e-3 / small:10.2f}{1 / large:10.2f}"
    counting = f"{1e3 * direct / 3:12.0f}{direct / 3 / (one / 1e3):12,.0f}"
    print(f"{name:16}{tables}{counting}{'' if equal else '  DIFFERS'}", flush=True)


def report_nni() -> None:
    """Print how long NNI's profiler takes, where it is installed."""
    try:
        import nni.nas.hub.pytorch as hub
        from nni.nas.profiler.pytorch.flops import FlopsProfiler as NniProfiler
    except Exception as error:  # an import that fails in any way means that there is nothing to compare with
        print(f"\nnni is not importable here ({type(error).__name__}: {error})")
        return
    print(f"\n{'nni space':20}{'made s':>9}{'one us':>12}")
    for name in NNI_SPACES:
        made, profiler = seconds(partial(NniProfiler, space := getattr(hub, name)(), torch.zeros(1, 3, 224, 224)))
        random = np.random.RandomState(0)
        samples: list[dict[str, Any]] = [{} for _ in range(20)]
        for sample in samples:
            for mutable in space.simplify().values():
                mutable.random(memo=sample, random_state=random)
        start = time.perf_counter()
        for sample in samples:
            profiler.profile(sample)
        taken = time.perf_counter() - start
        print(f"{name:20}{made:9.2f}{1e6 * taken / len(samples):12.1f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("spaces", nargs="*", help="names of ready spaces; all by default")
    parser.add_argument("--probe", action="store_true", help="find the tables by probing")
    chosen = parser.parse_args()
    names = chosen.spaces or list(SPACES)
    if unknown := set(names) - SPACES.keys():
        parser.error(f"no such space: {', '.join(sorted(unknown))}; there are {', '.join(SPACES)}")
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    print(f"torch {torch.__version__}, numpy {np.__version__}, one thread, load {os.getloadavg()[0]:.1f}")
    heads = ("made s", "again s", "one us", "10^3 M/s", "10^6 M/s", "fvcore ms", "times")
    widths = (9, 9, 10, 10, 10, 12, 12)
    print(f"{'space':16}" + "".join(f"{head:>{width}}" for head, width in zip(heads, widths, strict=True)))
    with tempfile.TemporaryDirectory() as folder:
        os.environ["NASMW_CACHE"] = folder
        for name in names:
            report(name, chosen.probe)
    report_nni()
    print(f"\npeak memory of the process: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10:.0f} MiB")


if __name__ == "__main__":
    main()
