"""What strategies and peers are run with: chosen by `strategy_choices.py` on other tables than those that judge."""

from __future__ import annotations

from typing import Any

import peers
from tables import Benchmark

from nasmw.strategies import (
    ASHA,
    NSGA2,
    TPE,
    Evolution,
    Hyperband,
    LocalSearch,
    PolicyGradient,
    PredictorGuided,
    Random,
    SuccessiveHalving,
)
from nasmw.strategy import Strategy

__all__ = [
    "BEST",
    "FRONT_PEERS",
    "GROUPS",
    "OURS",
    "PEERS",
    "SHORT",
    "front_strategies",
    "nni_options",
    "ranked_strategies",
    "short_strategies",
    "strategy",
]

BEST = "PredictorGuided, params"
"""Which of ours is the one that is compared with the peers."""
OURS = (
    "Random",
    "Random, no repeats",
    "Evolution",
    "LocalSearch",
    "TPE",
    "NSGA2",
    "PolicyGradient",
    "PredictorGuided",
    BEST,
)
SHORT = ("SuccessiveHalving", "Hyperband", "ASHA")
"""Which strategies train for a small budget first."""
GROUPS = 2
"""Of how many candidates `Rank` passes one."""
PEERS: dict[str, peers.Made] = {
    "Optuna TPE": peers.Made(peers.OptunaPeer, {"sampler": "TPESampler", "told": False}),
    "Optuna NSGA-II": peers.Made(peers.OptunaPeer, {"sampler": "NSGAIISampler", "population_size": 10, "told": False}),
    "Nevergrad DiscreteOnePlusOne": peers.Made(peers.NevergradPeer, {"optimizer": "DiscreteOnePlusOne", "told": False}),
    "Nevergrad DiscreteDE": peers.Made(peers.NevergradPeer, {"optimizer": "DiscreteDE", "told": False}),
}
FRONT_PEERS: dict[str, peers.Made] = {
    "Optuna NSGA-II": PEERS["Optuna NSGA-II"],
    "pymoo NSGA-II": peers.Made(peers.PymooPeer, {"population_size": 20}),
}
nni_options: dict[str, Any] = {"population_size": 20, "sample_size": 5, "mutation_prob": 0.05}


def strategy(name: str, benchmark: Benchmark) -> Strategy:
    """Return one of `OURS`, made afresh for a benchmark."""
    made: dict[str, Strategy] = {
        "Random": Random(),
        "Random, no repeats": Random(replacement=False),
        "Evolution": Evolution(population=20, tournament=10, repeats=False),
        "LocalSearch": LocalSearch(),
        "TPE": TPE(prior=0.5),
        "NSGA2": NSGA2(population=10),
        "PolicyGradient": PolicyGradient(learning_rate=0.05),
        "PredictorGuided": PredictorGuided(),
        BEST: PredictorGuided(features=(benchmark.profiler("params"),)),
    }
    return made[name]


def front_strategies() -> dict[str, Strategy]:
    """Return the strategies for several objectives by name, made afresh."""
    return {"Random": Random(replacement=False), "NSGA2": NSGA2(population=20)}


def short_strategies(benchmark: Benchmark) -> dict[str, Strategy]:
    """Return the strategies that are compared on simulated time by name, made afresh."""
    budgets = (12, 200)
    return {
        "Random": Random(replacement=False),
        "Evolution": strategy("Evolution", benchmark),
        "PredictorGuided": strategy("PredictorGuided", benchmark),
        BEST: strategy(BEST, benchmark),
        "SuccessiveHalving": SuccessiveHalving(budgets, networks=9),
        "Hyperband": Hyperband(budgets),
        "ASHA": ASHA(budgets),
    }


def ranked_strategies(benchmark: Benchmark) -> dict[str, Strategy]:
    """Return the strategies that `Rank` is tried behind by name, made afresh."""
    names = ("Random, no repeats", "Evolution", "LocalSearch", "TPE", "PredictorGuided")
    return {name: strategy(name, benchmark) for name in names}
