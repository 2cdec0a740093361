"""Block tables of a device: how well they predict networks that nobody has measured, and from when on they pay.

For each space a table is built on a device: each distinct layer once, by itself, and some whole networks, to which it
is fitted. Then random networks, none of them among those, are measured as wholes and compared with what the table, the
sum of the layers by themselves, multiply-adds, parameters and, where it is installed, nn-Meter (built on the same
device) say. Multiply-adds and parameters, which are no milliseconds, get the factor that suits the table's own networks
best. What no predictor can exceed is how well the measurements agree with themselves: the ceiling.

Measured on one CPU by one runtime; it says nothing of other devices. Keep the machine quiet.

    python benchmarks/device_tables.py                                  (all of it)
    python benchmarks/device_tables.py --spaces nasbench201 --networks 30 --calibration 15 --rounds 3    (a quick look)
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from nasmw import Candidates, Space, devices
from nasmw.candidates import Floats
from nasmw.devices import Device, Measurements, measure, noise_report, rank_agreement
from nasmw.devices.networks import network_of
from nasmw.errors import MissingExtraError
from nasmw.profilers import (
    FlopsProfiler,
    LatencyTable,
    LookupTableProfiler,
    NnMeterProfiler,
    ParamsProfiler,
    build_latency_table,
    build_nn_meter,
    required_layers,
)
from nasmw.profilers.device_meter import Meter
from nasmw.profilers.lookup_samples import draw
from nasmw.spaces import nasbench201, ofa_mobilenetv3

AT_ONCE = 20


def spaces(resolutions: list[int]) -> Mapping[str, tuple[Space, torch.Tensor]]:
    """Return the spaces and what their networks are run on."""
    return {
        "nasbench201": (nasbench201(), torch.zeros(1, 3, 32, 32)),
        "ofa_mobilenetv3": (ofa_mobilenetv3(resolutions=resolutions), torch.zeros(1, 3, 224, 224)),
    }


def measured(space: Space, device: Device, sample: Candidates, example: torch.Tensor, rounds: int) -> Measurements:
    """Return the measurements of networks, some at a time in one process."""
    parts: list[Measurements] = []
    with device.open() as session:
        for begin in range(0, len(sample), AT_ONCE):
            artifacts = {
                f"network {begin + number}": {device.name: device.export(*network_of(space, architecture, example))}
                for number, architecture in enumerate(sample[begin : begin + AT_ONCE])
            }
            reference = {device.name: float(parts[-1].reference_ms[0])} if parts else None
            parts.append(measure(artifacts, [session], rounds=rounds, reference=reference, seed=begin))
    return Measurements.join(parts)


def unseen(space: Space, n: int, seen: Candidates, seed: int) -> Candidates:
    """Return random architectures that are not among others."""
    known = set(seen.row_keys())
    drawn = draw(space, n + len(seen), "random", torch.zeros(1), np.random.default_rng(seed))
    return drawn[[row for row, key in enumerate(drawn.row_keys()) if key not in known][:n]]


def line(name: str, predicted: Floats, latencies: Floats, ceiling: float) -> str:
    """Return a line of the table of predictors."""
    error = predicted / latencies - 1.0
    rank = rank_agreement(predicted, latencies)
    return (
        f"  {name:<44}{rank:>9.4f}{rank / ceiling:>12.3f}{100 * np.abs(error).mean():>9.2f}"
        f"{100 * np.sqrt((error**2).mean()):>9.2f}{100 * error.mean():>+9.2f}"
    )


def run(name: str, space: Space, example: torch.Tensor, device: Device, arguments: argparse.Namespace) -> None:
    """Build the table of one space, measure networks, and print how they compare."""
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder) / "measurements.db"
        begin = time.monotonic()
        options = {"rounds": arguments.rounds, "store": store}
        table = build_latency_table(
            space, device, example, networks=arguments.calibration, seed=arguments.seed, **options
        )
        built = time.monotonic() - begin
        meter = Meter(space, device, example, **options)
        own = draw(space, arguments.calibration, "stratified by MACs", example, np.random.default_rng(arguments.seed))
        calibration = np.array([one.latency_ms for one in meter.networks(own)])
        alone = {key: one.latency_ms for key, one in meter.layers(list(required_layers(space))).items()}
        meter.close()
    sample = unseen(space, arguments.networks, own, arguments.seed + 1)
    begin = time.monotonic()
    found = measured(space, device, sample, example, arguments.rounds)
    each = (time.monotonic() - begin) / len(sample)
    latencies = found.latency_ms[0]
    noise = noise_report(found)
    ceiling = noise[device.name].whole

    latency = LookupTableProfiler(space, table)
    print(f"\n{name}: {len(table.layers)} distinct layers, fitted to {len(own)} networks: {table.notes['fit']}")
    print(f"  {len(sample)} unseen networks from {latencies.min():.2f} to {latencies.max():.2f} ms on {table.device}")
    print(f"  {'':<44}{'Spearman':>9}{'of ceiling':>12}{'MAPE %':>9}{'RMSPE %':>9}{'bias %':>9}")
    print(line("block table", latency.profile_batch(sample), latencies, ceiling))
    plain = LookupTableProfiler(space, LatencyTable(table.device, alone))
    print(line("layers by themselves, added up", plain.profile_batch(sample), latencies, ceiling))
    for profiler in (FlopsProfiler(space, example, progress=False), ParamsProfiler(space)):
        factor = float(np.exp(np.mean(np.log(calibration / profiler.profile_batch(own)))))
        print(line(f"{profiler.name} times a factor", factor * profiler.profile_batch(sample), latencies, ceiling))
    if not arguments.no_nn_meter:
        print(nn_meter(space, device, example, sample, latencies, ceiling, arguments))
    print(f"  {'the ceiling: measurements, by themselves':<44}{ceiling:>9.4f}{1.0:>12.3f}")
    print(f"  the table's own error, cross-validated: {100 * (table.relative_error or 0.0):.2f} % RMSPE")
    print(f"  built in {built:.0f} s, a network measured in {each:.2f} s: it pays from {built / each:.0f} networks on")
    print("  " + str(noise).replace("\n", "\n  "))


def nn_meter(
    space: Space,
    device: Device,
    example: torch.Tensor,
    sample: Candidates,
    latencies: Floats,
    ceiling: float,
    arguments: argparse.Namespace,
) -> str:
    """Return the line of nn-Meter, built and calibrated on the same device; or why there is none."""
    begin = time.monotonic()
    try:
        predictor = build_nn_meter(
            space,
            device,
            example_input=example,
            kernels=arguments.kernels,
            networks=arguments.calibration,
            rounds=arguments.rounds,
            seed=arguments.seed,
        )
    except MissingExtraError as error:
        return f"  nn-Meter is left out: {error}"
    predicted = NnMeterProfiler(space, predictor, example, progress=False).profile_batch(sample)
    return line(f"nn-Meter, calibrated, built in {time.monotonic() - begin:.0f} s", predicted, latencies, ceiling)


def main() -> None:
    """Read the arguments and go through the spaces."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--spaces", nargs="+", default=["nasbench201", "ofa_mobilenetv3"])
    parser.add_argument("--device", default="onnxruntime")
    parser.add_argument("--networks", type=int, default=100, help="unseen networks that are measured")
    parser.add_argument("--calibration", type=int, default=40, help="networks that the table is fitted to")
    parser.add_argument("--kernels", type=int, default=150, help="kernels that nn-Meter measures")
    parser.add_argument("--resolutions", nargs="+", type=int, default=[160, 176, 192, 208, 224])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--no-nn-meter", action="store_true")
    arguments = parser.parse_args()
    device = devices.get(arguments.device)
    print(f"{device.key}, batch 1, {arguments.rounds} rounds")
    known = spaces(arguments.resolutions)
    for name in arguments.spaces:
        run(name, *known[name], device, arguments)


if __name__ == "__main__":
    main()
