"""A Nevergrad optimizer under Filter: once-for-all networks of at most 250 million multiply-adds.

    python examples/nevergrad_under_a_limit.py [--optimizer TwoPointsDE] [--trials 300] [--data FOLDER]

Nevergrad knows nothing of the limit: what is beyond it is turned away before it would be trained, and told as a
violation. FOLDER holds ``ofa/acc_predictor.npz``, the published predictor of accuracies (see
benchmarks/tables/README.md). Without it the number of parameters in millions stands in for the accuracy.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path

import torch

from nasmw import Chain, Deduplicate, Filter, Search, Space, Trial
from nasmw.profilers import FlopsProfiler, ParamsProfiler
from nasmw.spaces import ofa_mobilenetv3
from nasmw.strategies.adapters import NevergradStrategy

LIMIT = 250e6


def evaluation(space: Space, folder: str | None) -> Callable[[Trial], float]:
    """Return what is to be greatest: the predicted accuracy in percent, or millions of parameters."""
    if folder is None:
        params = ParamsProfiler(space)
        return lambda trial: 1e-6 * params.profile(trial.architecture)
    sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks"))
    from tables.once_for_all import AccuracyPredictor

    return AccuracyPredictor.load(space, folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--optimizer", default="TwoPointsDE", help="a name in Nevergrad's registry")
    parser.add_argument("--trials", type=int, default=300, help="how many networks are evaluated")
    parser.add_argument("--data", default=os.environ.get("NASMW_DATA"), help="the folder of published arrays")
    chosen = parser.parse_args()
    print("accuracies: " + ("as predicted" if chosen.data else "millions of parameters; no --data, and no NASMW_DATA"))

    space = ofa_mobilenetv3(width=1.2, resolutions=range(160, 225, 16))
    macs = FlopsProfiler(space, torch.zeros(1, 3, 224, 224))
    strategy = NevergradStrategy(chosen.optimizer, budget=4 * chosen.trials)  # those turned away count
    chain = Chain(strategy, Deduplicate(), Filter(macs <= LIMIT))
    result = Search(space, chain, evaluation(space, chosen.data), profilers=[macs]).run(trials=chosen.trials)

    print(result.funnel)
    best = result.best
    print(f"best: {best.metrics['accuracy']:.2f} with {best.columns[macs.name] / 1e6:.0f} million multiply-adds")
    print(f"best of the first {chosen.trials // 4}: ", end="")
    print(f"{max(trial.metrics['accuracy'] for trial in result.completed[: chosen.trials // 4]):.2f}")


if __name__ == "__main__":
    main()
