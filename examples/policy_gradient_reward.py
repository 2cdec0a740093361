"""Policy gradient with one reward of three numbers: accuracy x latency x memory of once-for-all networks.

    python examples/policy_gradient_reward.py [--trials 400] [--data FOLDER]

The reward is that of MnasNet (Tan et al., CVPR 2019, equation 2), with a factor for memory: the accuracy times
(latency / target) ^ -0.07 times (memory / target) ^ -0.07. Memory is that of the weights. A limit on it holds by
construction: the policy gives no probability to what is beyond it.

FOLDER holds ``ofa/``: the published predictor of accuracies and the table of latencies on a Galaxy Note10 (see
benchmarks/tables/README.md). Without it the accuracy is a formula of the multiply-adds, and the latency one
millisecond for 10 million of them.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from nasmw import Chain, Filter, Profiler, Reward, Search, Space, Trial
from nasmw.profilers import FlopsProfiler, ModelSizeProfiler
from nasmw.spaces import ofa_mobilenetv3
from nasmw.strategies import PolicyGradient

MILLISECONDS = 30.0
MIB = 24.0
LIMIT_MIB = 32.0
EXPONENT = -0.07


def reward(metrics: dict[str, float]) -> float:
    """Return the accuracy, discounted by what is slower and greater than wanted."""
    slower = metrics["latency_ms"] / MILLISECONDS
    greater = metrics["weights_mib"] / MIB
    return metrics["accuracy"] * slower**EXPONENT * greater**EXPONENT


def known(folder: str | None) -> tuple[Space, Callable[[Trial], float], Profiler]:
    """Return the space, what gives accuracies in percent, and the latency in milliseconds."""
    if folder is None:
        space = ofa_mobilenetv3(width=1.2, resolutions=range(160, 225, 16))
        macs = FlopsProfiler(space, torch.zeros(1, 3, 224, 224))
        latency = macs * 1e-7
        return space, lambda trial: 90.0 - 1e9 / macs.profile(trial.architecture), latency.named("latency_ms")
    sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks"))
    from tables.once_for_all import OnceForAll

    published = OnceForAll(folder=folder)
    return published.space, published.evaluate, published.latency


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=400, help="how many networks are evaluated")
    parser.add_argument("--data", default=os.environ.get("NASMW_DATA"), help="the folder of published arrays")
    chosen = parser.parse_args()
    print("accuracies and latencies: " + ("published" if chosen.data else "formulas; no --data, and no NASMW_DATA"))

    space, evaluate, latency = known(chosen.data)
    memory = (ModelSizeProfiler(space) * 2**-20).named("weights_mib")
    chain = Chain(PolicyGradient(), Filter(memory <= LIMIT_MIB), Reward(reward, latency, memory))
    result = Search(space, chain, evaluate, profilers=[latency, memory]).run(trials=chosen.trials)

    rewards = np.array([reward({**trial.metrics, **trial.columns}) for trial in result.completed])
    for part in np.array_split(np.arange(len(rewards)), 4):
        print(f"trials {part[0]:4} to {part[-1]:4}: mean reward {rewards[part].mean():.2f}")
    best = result.completed[int(rewards.argmax())]
    print(
        f"best: reward {rewards.max():.2f}, accuracy {best.metrics['accuracy']:.2f} %, "
        f"{best.columns['latency_ms']:.1f} ms, {best.columns['weights_mib']:.1f} MiB of weights"
    )


if __name__ == "__main__":
    main()
