"""An Optuna study whose sampler is a chain: evolution of NAS-Bench-201 cells under a limit on their multiply-adds.

    python examples/optuna_with_a_chain.py [--trials 100] [--data FOLDER]

The objective is an Optuna objective, and the study an Optuna study, with its storages, dashboards and callbacks; which
networks are tried is up to the chain. FOLDER holds ``nb201/``, the published accuracies after 200 epochs (see
benchmarks/tables/README.md). Without it a formula stands in for them: what convolutions are worth less the more there
are of them.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import torch

from nasmw import Chain, Deduplicate, Filter
from nasmw.profilers import FlopsProfiler
from nasmw.spaces import nasbench201
from nasmw.strategies import Evolution
from nasmw.strategies.adapters import ChainSampler, suggest

LIMIT = 60e6
WORTH = {"none": 0.0, "skip_connect": 0.3, "avg_pool_3x3": 0.1, "nor_conv_1x1": 0.6, "nor_conv_3x3": 1.0}


def accuracies(folder: str | None) -> Callable[[dict[str, Any]], float]:
    """Return what gives the accuracy of a cell in percent."""
    if folder is None:
        return lambda cell: 95.0 - 60.0 * 0.5 ** sum(WORTH[operation] for operation in cell.values())
    sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks"))
    from tables.nasbench201 import NASBench201

    return NASBench201("cifar10", folder).profiler("val200").profile


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=100, help="how many cells are tried")
    parser.add_argument("--data", default=os.environ.get("NASMW_DATA"), help="the folder of published arrays")
    chosen = parser.parse_args()
    print("accuracies: " + ("as published" if chosen.data else "a formula; no --data, and no NASMW_DATA"))

    space = nasbench201()
    macs = FlopsProfiler(space, torch.zeros(1, 3, 32, 32))
    accuracy = accuracies(chosen.data)

    def objective(trial: optuna.Trial) -> float:
        return accuracy(suggest(trial, space))

    chain = Chain(Evolution(population=20), Deduplicate(), Filter(macs <= LIMIT))
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction="maximize", sampler=ChainSampler(chain, space, seed=0))
    study.optimize(objective, n_trials=chosen.trials)

    most = max(macs.profile(trial.params) for trial in study.trials)
    print(f"{len(study.trials)} trials, all of at most {most / 1e6:.1f} million multiply-adds")
    print(f"best: {study.best_value:.2f} % with {macs.profile(study.best_params) / 1e6:.1f} million")
    print(study.best_params)


if __name__ == "__main__":
    main()
