"""A search for once-for-all networks under a latency on this CPU that is learned from a dozen measurements.

    python examples/ofa_learned_latency.py [--networks 12] [--trials 400] [--data FOLDER]

Multiply-adds are known of every network; latencies of some that are measured here turn them into milliseconds. What is
learned is a table, so that the limit is met by construction; it is held with a margin, since of many networks a search
finds those whose latency is underestimated. The best ones are measured in the end.

FOLDER holds ``ofa/acc_predictor.npz``, the published predictor of accuracies (see benchmarks/tables/README.md). Without
it multiply-adds stand in for the accuracy.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from nasmw import Chain, Deduplicate, Filter, Search, Space, Trial
from nasmw.profilers import FlopsProfiler, TorchLatencyProfiler
from nasmw.profilers.learned.transfer import TransferProfiler
from nasmw.spaces import ofa_mobilenetv3
from nasmw.strategies import Evolution

POOL = 500
ONE_SIDED_90 = 1.28
MOST_MARGIN = 0.1


def accuracy_of(space: Space, macs: FlopsProfiler, folder: str | None) -> Callable[[Trial], float]:
    """Return what is to be greatest: the predicted accuracy in percent, or billions of multiply-adds."""
    if folder is None:
        return lambda trial: 1e-9 * macs.profile(trial.architecture)
    sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks"))
    from tables.once_for_all import AccuracyPredictor

    return AccuracyPredictor.load(space, folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", type=int, default=12, help="how many networks are measured to learn from")
    parser.add_argument("--trials", type=int, default=400, help="how many networks are evaluated")
    parser.add_argument("--data", default=os.environ.get("NASMW_DATA"), help="the folder of published arrays")
    chosen = parser.parse_args()
    space = ofa_mobilenetv3(width=1.0, resolutions=range(160, 225, 16))
    example = torch.zeros(1, 3, 224, 224)
    macs = FlopsProfiler(space, example)
    meter = TorchLatencyProfiler(space, example, name="measured_ms", warmup=2, rounds=10)

    latency = TransferProfiler(space, macs, device="this CPU")
    random = space.sample(POOL, np.random.default_rng(0))
    first = random[latency.to_measure(random, chosen.networks)]
    latency.fit(first, meter.profile_batch(first))
    print(f"learned from {len(first)} networks: {latency.chosen}")

    limit = float(np.quantile(latency.profile_batch(random), 0.4))
    # On a busy machine few measurements may be so noisy that the margin would leave nothing.
    margin = min(ONE_SIDED_90 * float(np.median(latency.std(random))), MOST_MARGIN * limit)
    latency.freeze()
    strategy = Chain(Evolution(population=50), Deduplicate(), Filter(latency <= limit - margin))
    result = Search(space, strategy, accuracy_of(space, macs, chosen.data), seed=0).run(trials=chosen.trials)
    what = "accuracy in percent, predicted" if chosen.data else "billions of multiply-adds"
    print(f"limit {limit:.2f} ms, held with a margin of {margin:.2f} ms; {what}:")
    for trial in sorted(result.completed, key=lambda trial: -trial.metrics["accuracy"])[:3]:
        said, measured = latency.profile(trial.architecture), meter.profile(trial.architecture)
        kept = "keeps the limit" if measured <= limit else f"exceeds it by {100 * (measured / limit - 1):.1f} %"
        print(f"{trial.metrics['accuracy']:.3f}: {said:.2f} ms predicted, {measured:.2f} ms measured, {kept}")


if __name__ == "__main__":
    main()
