"""How long profilers take to be made and to answer, over every ready space; beside them, counting network by network.

    python benchmarks/profile_throughput.py [--probe] [--seed 0] [space ...]

One mapping at a time, for each space: the seconds to make `FlopsProfiler` (and to make it again), the microseconds for
one mapping, and, in the same run, the milliseconds to build one network and count it with fvcore. With --probe the
tables are found by building networks, and come from the disk the second time. Then the same of NNI's FlopsProfiler over
its own spaces of the same families, where `nni` is importable; it answers one at a time.

Batches: architectures a second in batches of 10^3 and 10^6.

Discovery: the seconds to find the tables of the once-for-all space (46 choices) as if it declared none, those of a
second and a third profiler, and those of the first one with the tables on the disk.
"""

from __future__ import annotations

import argparse
import logging
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

import attrs
import numpy as np
import torch

from nasmw import Space, spaces
from nasmw.profilers import ActivationsProfiler, FlopsProfiler, ParamsProfiler, count
from nasmw.profilers.network import Method

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
COUNTED = 3
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


@attrs.frozen
class Row:
    """What was measured of one space.

    Attributes:
        made: Seconds to make the profiler.
        again: Seconds to make it a second time.
        one: Seconds for one mapping.
        small: Architectures a second in batches of 10^3.
        large: Architectures a second in batches of 10^6.
        direct: Seconds to build one network and count it with fvcore.
        equal: Whether these counts are what the profiler says.
    """

    made: float
    again: float
    one: float
    small: float
    large: float
    direct: float
    equal: bool


def measure(name: str, probe: bool, seed: int) -> Row:
    """Measure one space."""
    make_space, size = SPACES[name]
    example = torch.zeros(1, 3, size, size)

    def make(space: Space) -> FlopsProfiler:
        method: Method = "probe" if probe else "auto"
        return FlopsProfiler(space, example, method=method, uncounted="ignore", progress=False)

    made, profiler = seconds(partial(make, make_space()))
    again, _ = seconds(partial(make, space := make_space()))  # a new space: what profilers of one space share is gone
    rng = np.random.default_rng(seed)
    thousand = space.sample(1000, rng)
    mappings = list(thousand)
    one, _ = seconds(lambda: [profiler.profile(mapping) for mapping in mappings], 9)
    small, _ = seconds(lambda: profiler.profile_batch(thousand), 20)
    million = space.sample(10**6, rng)
    large, _ = seconds(lambda: profiler.profile_batch(million), 3)

    def directly() -> list[int]:
        found = []
        for mapping in mappings[:COUNTED]:
            resized = profiler.example_input.for_architecture(mapping, profiler.resolution)
            found.append(count(space.build(mapping), resized).macs)
        return found

    direct, counted = seconds(directly)
    equal = counted == [int(profiler.profile(mapping)) for mapping in mappings[:COUNTED]]
    return Row(made, again, one / 1e3, 1e3 / small, 1e6 / large, direct / COUNTED, equal)


def report_single(name: str, row: Row) -> None:
    """Print what one mapping takes."""
    times = f"{row.made:9.2f}{row.again:9.2f}{1e6 * row.one:10.1f}{1e3 * row.direct:12.0f}{row.direct / row.one:12,.0f}"
    print(f"{name:20}{times}{'' if row.equal else '  DIFFERS'}", flush=True)


def report_nni(seed: int) -> None:
    """Print how long NNI's profiler takes, where it is installed."""
    try:
        logging.disable(logging.WARNING)
        import nni.nas.hub.pytorch as hub
        from nni.nas.profiler.pytorch.flops import FlopsProfiler as NniProfiler
    except Exception as error:  # an import that fails in any way means that there is nothing to compare with
        print(f"skipped: nni is not importable here ({type(error).__name__}: {error}); pip install nni==3.0 brings it")
        return
    for name in NNI_SPACES:
        space = getattr(hub, name)()
        made, profiler = seconds(partial(NniProfiler, space, torch.zeros(1, 3, 224, 224)))
        random = np.random.RandomState(seed)
        samples: list[dict[str, Any]] = [{} for _ in range(50)]
        for sample in samples:
            for mutable in space.simplify().values():
                mutable.random(memo=sample, random_state=random)
        taken, _ = seconds(lambda: [profiler.profile(sample) for sample in samples], 3)  # noqa: B023 (used at once)
        print(f"nni {name:16}{made:9.2f}{'':9}{1e6 * taken / len(samples):10.1f}", flush=True)


def report_discovery() -> None:
    """Print how long it takes to find tables by building networks."""
    example = torch.zeros(1, 3, 224, 224)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["NASMW_CACHE"] = folder
        for where in ("by building networks", "from the disk"):
            space = spaces.ofa_mobilenetv3()
            flops, first = seconds(partial(FlopsProfiler, space, example, method="probe", progress=False))
            params, _ = seconds(partial(ParamsProfiler, space, method="probe", progress=False))
            written, _ = seconds(partial(ActivationsProfiler, space, example, progress=False))
            exact = equal_to_declared(space, first)
            print(f"{where:22}{flops:8.2f}{params:10.2f}{written:14.2f}{'' if exact else '  DIFFERS'}", flush=True)


def equal_to_declared(space: Space, profiler: FlopsProfiler) -> bool:
    """Return whether a profiler says the same of 10^5 architectures as the tables that the space declares."""
    batch = space.sample(100_000, np.random.default_rng(1))
    return bool((space.tables["macs"](space, None).evaluate(batch) == profiler.profile_batch(batch)).all())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("spaces", nargs="*", help="names of ready spaces; all by default")
    parser.add_argument("--probe", action="store_true", help="find the tables by probing")
    parser.add_argument("--seed", type=int, default=0, help="of the random architectures")
    chosen = parser.parse_args()
    names = chosen.spaces or list(SPACES)
    if unknown := set(names) - SPACES.keys():
        parser.error(f"no such space: {', '.join(sorted(unknown))}; there are {', '.join(SPACES)}")
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    print(f"torch {torch.__version__}, numpy {np.__version__}, one thread, load {os.getloadavg()[0]:.1f}")
    count(torch.nn.Identity(), torch.zeros(1))  # imports what it needs
    print(f"\n{'one at a time':20}{'made s':>9}{'again s':>9}{'one us':>10}{'fvcore ms':>12}{'times':>12}")
    rows = {}
    with tempfile.TemporaryDirectory() as folder:
        os.environ["NASMW_CACHE"] = folder
        for name in names:
            rows[name] = measure(name, chosen.probe, chosen.seed)
            report_single(name, rows[name])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    print(f"\n{'batches, 10^6/s':20}{'of 10^3':>9}{'of 10^6':>9}")
    for name, row in rows.items():
        print(f"{name:20}{1e-6 * row.small:9.2f}{1e-6 * row.large:9.2f}")
    print(f"\n{'discovery, s':22}{'macs':>8}{'params':>10}{'activations':>14}")
    report_discovery()
    print(f"\npeak memory of the process: {peak:.0f} MiB with ready spaces, ", end="")
    print(f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10:.0f} MiB with discovery", flush=True)
    print(f"\n{'one at a time':20}{'made s':>9}{'':9}{'one us':>10}")
    report_nni(chosen.seed)


if __name__ == "__main__":
    main()
