"""A search from a TOML file with five profilers, one of which learns on the way; also run as a program, and killed."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import numpy as np

from nasmw import Chain, Filter, Penalize, Rank, Refit, Search
from nasmw.profilers import LearnedProfiler, from_config
from nasmw.result import Result
from nasmw.strategies import Evolution
from nasmw.testing import TableProfiler, toy_space

SPACE = toy_space()
COST = TableProfiler(SPACE)
TOML = """
title = "five profilers"

[profilers.latency_ms]
kind = "learned"
file = "latency.npz"
metric = "measured_ms"

[profilers.energy_mj]
kind = "learned"
store = "predictors"
device = "phone"
frozen = true

[profilers.memory_kb]
kind = "learned"
predictor = "gp"
parameters = { iterations = 5, learnt_on = 50 }
encoding = "counts + one_hot"
unit = "kB"
metric = "measured_kb"

[profilers.macs]
kind = "flops"
input = [1, 3, 8, 8]

[profilers.weights]
kind = "params"
"""
TRIALS = 60


def truth(architecture: dict[str, object]) -> float:
    """Return what the device says: half as much again as what the profiler has learnt from."""
    return 1.5 * COST.profile(architecture) + 3.0


def prepare(folder: Path) -> None:
    """Write the TOML file and what it names."""
    from nasmw.profilers import PredictorStore

    known = SPACE.sample(40, np.random.default_rng(0))
    values = COST.profile_batch(known)
    LearnedProfiler(SPACE, "ridge", "one_hot").fit(known, values).save(folder / "latency.npz")
    energy = LearnedProfiler(SPACE, "ridge", "counts", name="energy_mj", unit="mJ", device="phone")
    PredictorStore(folder / "predictors").save(energy.fit(known, 2 * values))
    (folder / "profilers.toml").write_text(TOML)


def evaluate(trial) -> dict[str, float]:
    """Return an accuracy and two measurements; end the process at once where the environment says so."""
    if trial.number == int(os.environ.get("KILL_AT", "-1")):
        os.kill(os.getpid(), signal.SIGKILL)
    cost = truth(trial.architecture)
    return {"accuracy": cost / (60 + cost), "measured_ms": cost, "measured_kb": cost**0.5}


def search(folder: Path, log: str) -> Search:
    """Return the search, with profilers as the file says."""
    profilers = from_config(SPACE, folder / "profilers.toml")
    memory = profilers["memory_kb"]
    known = SPACE.sample(20, np.random.default_rng(1))
    memory.fit(known, [truth(architecture) ** 0.5 for architecture in known])
    chain = Chain(
        Evolution(population=10),
        Filter(profilers["macs"] <= 400_000, profilers["energy_mj"] <= 150, profilers["latency_ms"] <= 100),
        Rank(profilers["weights"], groups_of=2, maximize=False),
        Penalize(memory, target=10.0),
        Refit(profilers["latency_ms"], memory, every=7),
    )
    return Search(SPACE, chain, evaluate, seed=3, log=folder / log, profilers=profilers.values(), progress=False)


def rows(result: Result) -> list[tuple[object, ...]]:
    """Return all that a run says of its trials, but for the clock."""
    return [(t.number, t.codes, sorted(t.columns.items()), sorted(t.metrics.items())) for t in result.trials]


if __name__ == "__main__":
    search(Path(sys.argv[1]), sys.argv[2]).run(trials=TRIALS)
