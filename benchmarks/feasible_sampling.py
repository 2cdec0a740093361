"""Feasible sets: build time, accepted samples a second, accepted share, count; beside rejection, and in a search.

The limits are those that 10 %, 10^-3, 10^-6 and 10^-9 of a space meet; with two limits, each one by itself leaves that
share. Rejection is timed in the same run: drawing from the space and checking, a second, times the share. Where the
package ConfigSpace is installed, its sampler is timed on the once-for-all space, too: it knows conditions, but no limit
on a sum, so it rejects as well; what it counts is the product of all options, inactive choices included.

Seconds are of processor time, so that other work on the machine does not count.

    python benchmarks/feasible_sampling.py --data folder        (or NASMW_DATA; it holds ofa/note10_lut.npz)
"""

from __future__ import annotations

import argparse
import os
import platform
import resource
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nasmw import Chain, Choice, Constraint, Context, Filter, Outcomes, Profiler, Space, Status
from nasmw.cost import CostTable
from nasmw.feasible import FeasibleSet
from nasmw.spaces import autoformer, mobilenetv3, ofa_mobilenetv3
from nasmw.strategies import Evolution
from nasmw.tabled import TabledProfiler

SHARES = (0.1, 1e-3, 1e-6, 1e-9)


def note10(space: Space, data: Path) -> TabledProfiler:
    """Return the latency on a Galaxy Note10, in ms: a sum over the blocks that exist."""
    with np.load(data / "ofa" / "note10_lut.npz") as file:
        fixed, blocks = file["fixed_ms"], file["block_ms"]
    terms: list[tuple[tuple[str, ...], Any]] = [(("resolution",), fixed)]
    for slot in range(20):
        stage, block = divmod(slot, 4)
        exists = np.array([depth > block for depth in (2, 3, 4)])[None, :, None, None]
        depth, own = f"stage{stage}.depth", f"stage{stage}.block{block}"
        terms.append((("resolution", depth, f"{own}.kernel", f"{own}.expand"), blocks[:, slot][:, None] * exists))
    return TabledProfiler(CostTable(space, terms, name="latency"), unit="ms")


def ready(space: Space, *metrics: str) -> list[TabledProfiler]:
    """Return profilers of the costs that a ready space declares."""
    return [TabledProfiler(space.tables[metric](space), metric) for metric in metrics]


def width_per_block(stages: int = 4) -> tuple[Space, list[TabledProfiler]]:
    """Return a space with a width and a kernel for each of up to four blocks of a stage, with MACs and parameters."""
    widths = (0.5, 0.75, 1.0, 1.25, 1.5, 2.0)
    choices = [Choice("resolution", tuple(range(160, 257, 16)))]
    for stage in range(stages):
        choices.append(Choice(f"s{stage}.depth", (1, 2, 3, 4)))
        for block in range(4):
            when = {f"s{stage}.depth": tuple(range(block + 1, 5))} if block else None
            choices.append(Choice(f"s{stage}.b{block}.width", widths, when))
            choices.append(Choice(f"s{stage}.b{block}.kernel", (3, 5, 7), when))
    space = Space(choices, name="width per block")

    def last(stage: int) -> tuple[str, ...]:
        return (f"s{stage}.depth", *(f"s{stage}.b{block}.width" for block in range(4)))

    def channels(stage: int, width: Any) -> Any:
        return np.rint(32 * 2**stage * width).astype(np.int64)

    def table(before: int | None, stage: int, block: int, cost: Callable[..., Any]) -> tuple[tuple[str, ...], Any]:
        own = np.array(widths)
        if block:
            names = (f"s{stage}.depth", f"s{stage}.b{block - 1}.width", f"s{stage}.b{block}.width")
            exists = (np.arange(1, 5) > block).astype(np.int64)[:, None, None, None]
            value = exists * cost(channels(stage, own)[:, None, None], channels(stage, own)[:, None], stage)[None]
        elif before is None:
            names, value = (f"s{stage}.b0.width",), cost(3, channels(stage, own)[:, None], stage)
        else:
            names = (*last(before), f"s{stage}.b0.width")
            into = np.stack(
                [np.moveaxis(np.broadcast_to(own, (6,) * 4), -1, depth) for depth in range(4)]
            )  # the width of the last block that exists
            value = cost(channels(before, into)[..., None, None], channels(stage, own)[:, None], stage)
        return (*names, f"s{stage}.b{block}.kernel"), value

    kernels = np.array((3, 5, 7))

    def params(into: Any, out: Any, stage: int) -> Any:
        return into * kernels**2 + into * out

    found = []
    for name in ("macs", "params"):
        terms = []
        for stage in range(stages):
            for block in range(4):
                names, value = table(stage - 1 if stage else None, stage, block, params)
                if name == "macs":
                    sides = np.array([(r // 2 ** (stage + 1)) ** 2 for r in range(160, 257, 16)])
                    names, value = ("resolution", *names), np.multiply.outer(sides, value)
                terms.append((names, value))
        found.append(TabledProfiler(CostTable(space, terms, name=name)))
    return space, found


def limit_at(space: Space, profiler: TabledProfiler, share: float) -> Constraint:
    """Return the upper limit that about a share of the space meets."""
    bounds = profiler.table.bounds()
    low, high = bounds.low, bounds.high
    for _ in range(40):
        middle = (low + high) / 2
        count = FeasibleSet(space, profiler <= middle, bins=1000).count()
        found = (count.low + count.high) / 2 / space.size
        low, high = (middle, high) if found < share else (low, middle)
        if 0.9 < found / share < 1.1:
            break
    return profiler <= middle


def timed(function: Callable[[], Any]) -> tuple[Any, float]:
    started = time.process_time()
    result = function()
    return result, time.process_time() - started


def rejection(space: Space, limits: Sequence[Constraint]) -> float:
    """Return how many draws from the space are made and checked a second."""
    rng = np.random.default_rng(0)

    def draw() -> None:
        batch = space.sample(50_000, rng)
        for limit in limits:
            limit.holds(limit.profiler.profile_batch(batch))

    return 50_000 / timed(draw)[1]


def cases(data: Path) -> Iterator[tuple[str, Space, list[TabledProfiler]]]:
    space = ofa_mobilenetv3(width=1.2, resolutions=range(160, 225, 4))
    latency = note10(space, data)
    yield "once-for-all, latency", space, [latency]
    yield "once-for-all, latency and MACs", space, [latency, *ready(space, "macs")]
    for other in (mobilenetv3(), autoformer("small")):
        yield f"{other.name}, MACs", other, ready(other, "macs")
        yield f"{other.name}, MACs and parameters", other, ready(other, "macs", "params")
    space, profilers = width_per_block()
    yield "width per block with depth, MACs", space, profilers[:1]
    yield "width per block with depth, MACs and parameters", space, profilers


def searched(space: Space, limits: Sequence[Constraint], candidates: int = 2000) -> float:
    """Return the candidates a second that pass Chain(Evolution(), Filter(limits))."""
    chain = Chain(Evolution(), Filter(*limits))
    chain.setup(Context(space))
    first: Profiler = limits[0].profiler
    started, passed = time.process_time(), 0
    while passed < candidates:
        batch = chain.ask(8)
        passed += len(batch)
        scores = first.profile_batch(batch)[:, None]  # the best networks are at the limit, as in earnest
        chain.tell(Outcomes(batch, [Status.COMPLETED] * len(batch), scores))
    return passed / (time.process_time() - started)


def config_space(space: Space, shares: Sequence[float]) -> None:
    """Print how fast ConfigSpace draws from the once-for-all space."""
    try:
        import ConfigSpace
    except ImportError:
        print("\nConfigSpace is not installed; pip install ConfigSpace adds it to this comparison.")
        return
    peer = ConfigSpace.ConfigurationSpace(seed=0)
    made = {choice.name: ConfigSpace.CategoricalHyperparameter(choice.name, choice.options) for choice in space.choices}
    peer.add(*made.values())
    peer.add(
        *(
            ConfigSpace.InCondition(made[choice.name], made[gate], list(options))
            for choice in space.choices
            for gate, options in choice.when.items()
            if set(options) < set(made[gate].choices)
        )
    )
    drawn, seconds = timed(lambda: peer.sample_configuration(5000))
    rate = len(drawn) / seconds
    accepted = ", ".join(f"{rate * share:.3g}" for share in shares)
    print(
        f"\nConfigSpace {ConfigSpace.__version__} draws {rate:,.0f} configurations a second; by rejection {accepted} "
        f"accepted a second. Its estimate of the size is {peer.estimate_size():.3g}, "
        f"the space has {space.size:.3g} architectures."
    )


def line(space: Space, profilers: Sequence[TabledProfiler], share: float, samples: int) -> str:
    limits = [limit_at(space, profiler, share) for profiler in profilers]
    feasible, build = timed(lambda: FeasibleSet(space, *limits))
    if not feasible.share:
        return f"{share:8.0e} nothing is left"
    _, seconds = timed(lambda: feasible.sample(samples, np.random.default_rng(0)))
    bins = " x ".join(map(str, feasible.bins))
    return (
        f"{share:8.0e} {build:8.3f} {feasible.bytes / 2**20:6.1f} {feasible.states:7d} {bins:>12} "
        f"{feasible.accepted:8.1%} {samples / seconds:10,.0f} {rejection(space, limits) * feasible.share:11.3g} "
        f"{searched(space, limits):8,.0f}  {feasible.count()}"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default=os.environ.get("NASMW_DATA"), help="the folder with ofa/note10_lut.npz")
    parser.add_argument("--samples", type=int, default=50_000, help="how many samples are timed")
    options = parser.parse_args()
    if not options.data or not (Path(options.data) / "ofa" / "note10_lut.npz").is_file():
        print("feasible_sampling needs --data or NASMW_DATA: a folder with ofa/note10_lut.npz", file=sys.stderr)
        return 2
    print(f"Python {platform.python_version()}, numpy {np.__version__}, {platform.machine()}, one process")
    for title, space, profilers in cases(Path(options.data)):
        print(f"\n{title}: {len(space)} choices, {space.size:.3g} architectures")
        print(
            f"{'share':>8} {'build s':>8} {'MiB':>6} {'states':>7} {'bins':>12} {'accepted':>8} {'samples/s':>10} "
            f"{'rejection/s':>11} {'search/s':>8}  count"
        )
        for share in SHARES:
            print(line(space, profilers, share, options.samples))
    config_space(ofa_mobilenetv3(width=1.2, resolutions=range(160, 225, 4)), SHARES)
    print(f"\npeak memory of the process: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
