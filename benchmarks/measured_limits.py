"""A search under a latency limit that comes from a measured table: how many of its best networks keep the limit?

The space is once-for-all's. A block table is built on a device; the limit is what a share of random networks keep by
that table. A trial's accuracy is what once-for-all's published predictor says. Every search is an evolution within the
limit, of which of ten candidates the one with the best predicted accuracy passes; its ten best networks are measured
again, afresh and side by side. The searches differ in what guards the limit:

- nothing but the table's value
- a margin: the value and twice the table's own error are within the limit
- Verify: a candidate whose value, plus and minus twice the error, straddles the limit is measured
- both: a margin of one error, and Verify

    python benchmarks/measured_limits.py --data folder         (or NASMW_DATA; it holds ofa/acc_predictor.npz)
    python benchmarks/measured_limits.py --table table.json    (a table that was built before, by --save)
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from tables import AccuracyPredictor, MissingDataError

from nasmw import Chain, Filter, Rank, Search, Space, Verify, devices
from nasmw.profilers import DeviceProfiler, LatencyTable, LookupTableProfiler, build_latency_table
from nasmw.spaces import ofa_mobilenetv3
from nasmw.strategies import Evolution

EXAMPLE = torch.zeros(1, 3, 224, 224)


def stages(
    space: Space, latency: LookupTableProfiler, limit: float, measured: DeviceProfiler
) -> Mapping[str, Callable[[], tuple[Filter, tuple[Verify, ...]]]]:
    """Return what guards the limit, by name."""
    return {
        "the table's value": lambda: (Filter(latency <= limit), ()),
        "margin of 2": lambda: (Filter(latency <= limit, margin=2.0), ()),
        "Verify": lambda: (Filter(latency <= limit), (Verify(latency <= limit, measured, guard=2.0),)),
        "margin of 1, Verify": lambda: (
            Filter(latency <= limit, margin=1.0),
            (Verify(latency <= limit, measured, guard=2.0),),
        ),
    }


def main() -> None:
    """Build or load the table, search in each way, measure the best again."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="the folder of the data; what NASMW_DATA names without it")
    parser.add_argument("--device", default="onnxruntime")
    parser.add_argument("--table", help="a table that was built before")
    parser.add_argument("--save", help="where to save the table that is built")
    parser.add_argument("--share", type=float, default=0.3, help="of random networks that keep the limit")
    parser.add_argument("--trials", type=int, default=60)
    parser.add_argument("--top", type=int, default=10)
    parser.add_argument("--calibration", type=int, default=40)
    parser.add_argument("--resolutions", nargs="+", type=int, default=[160, 176, 192, 208, 224])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    space = ofa_mobilenetv3(width=1.2, resolutions=arguments.resolutions)
    try:
        accuracy = AccuracyPredictor.load(space, arguments.data)
    except MissingDataError as error:
        sys.exit(str(error))
    device = devices.get(arguments.device)
    if arguments.table:
        table = LatencyTable.load(arguments.table)
    else:
        begin = time.monotonic()
        table = build_latency_table(
            space, device, EXAMPLE, networks=arguments.calibration, rounds=arguments.rounds, store=False
        )
        print(f"table built in {time.monotonic() - begin:.0f} s")
    if arguments.save:
        table.save(arguments.save)
    latency = LookupTableProfiler(space, table)
    sample = latency.profile_batch(space.sample(10_000, np.random.default_rng(0)))
    limit = round(float(np.quantile(sample, arguments.share)), 2)
    print(f"{device.key}; the table's error is {100 * (latency.relative_error or 0.0):.2f} %; limit {limit} ms")
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name in stages(space, latency, limit, DeviceProfiler(None, device, EXAMPLE, store=False)):
            measured = DeviceProfiler(
                space, device, EXAMPLE, name="measured_ms", rounds=arguments.rounds, store=Path(folder) / "measured.db"
            )
            filtering, verifying = stages(space, latency, limit, measured)[name]()
            chain = Chain(
                Evolution(population=30),
                filtering,
                Rank(accuracy.predict, groups_of=10),
                *verifying,
            )
            begin = time.monotonic()
            result = Search(space, chain, accuracy, seed=arguments.seed).run(trials=arguments.trials)
            seconds = time.monotonic() - begin
            measured.close()
            again = result.remeasure(device, arguments.top, example_input=EXAMPLE, limit=latency <= limit)
            print(f"\n{name}\n{again}")
            asked = sum(stage.measurements for stage in verifying)
            rows.append(
                f"{name:<22}{again.kept:>4} of {len(again):<3}{again.scores.max():>9.2f}"
                f"{again.measured.max() / limit:>12.3f}{asked:>10} of {result.funnel.proposed:<7}{seconds:>8.0f}"
            )
    print(f"\n{'':<22}{'keep the limit':<11}{'best %':>8}{'worst/limit':>12}{'measured of proposed':>21}{'seconds':>8}")
    print("\n".join(rows))


if __name__ == "__main__":
    main()
