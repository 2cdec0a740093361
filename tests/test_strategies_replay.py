"""Every strategy takes the same course when a run is cut into parts, killed, or spread over workers."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from nasmw import Chain, Deduplicate, Filter, Objective, Search, Trial
from nasmw.strategies import (
    ASHA,
    NSGA2,
    TPE,
    Evolution,
    Hyperband,
    Islands,
    LocalSearch,
    PolicyGradient,
    PredictorGuided,
    SuccessiveHalving,
)
from nasmw.strategy import Strategy
from nasmw.testing import TableProfiler, toy_space

BUDGETS = (1, 3, 9)
EVERY = [
    Evolution(population=10, repeats=False),
    Islands(population=5, patience=1),
    LocalSearch(initial=3),
    LocalSearch(initial=1, steepest=True),
    TPE(startup=5),
    PredictorGuided(startup=5),
    PredictorGuided(startup=5, acquisition="thompson"),
    NSGA2(population=8),
    PolicyGradient(batch=4),
    PolicyGradient(batch=4, clip=0.2, epochs=2),
    SuccessiveHalving(BUDGETS),
    Hyperband(BUDGETS),
    ASHA(BUDGETS),
]
BENCHMARK = Path(__file__).parent.parent / "benchmarks" / "kill_resume.py"


def evaluate(trial: Trial) -> dict[str, float]:
    """Fail now and then; depend on nothing but architecture, budget and seed."""
    if trial.seed % 10 == 0:
        raise ValueError("one in ten fails")
    value = sum(number for number in trial.architecture.values() if isinstance(number, int))
    return {"accuracy": value + (trial.seed % 7) / 7 - 1.0 / (trial.budget or 9), "from": float(trial.resume_from or 0)}


def rows(strategy: Strategy, log: Path | None, *trials: int, workers: int | None = None) -> list[Any]:
    space = toy_space()
    chain = Chain(strategy, Deduplicate(), Filter(TableProfiler(space) <= 80))
    search = Search(space, chain, evaluate, seed=3, log=log, executor=workers, window=4, progress=False)
    for number in trials:
        result = search.run(trials=number)
    return [repr((trial.codes, trial.status, dict(trial.columns), dict(trial.metrics))) for trial in result.trials]


@pytest.mark.parametrize("strategy", EVERY, ids=repr)
def test_a_run_in_parts_equals_one_at_once(strategy: Strategy, tmp_path: Path) -> None:
    assert rows(strategy, tmp_path / "parts.db", 3, 17, 60) == rows(strategy, tmp_path / "whole.db", 60)


@pytest.mark.parametrize("strategy", [each for each in EVERY if not isinstance(each, PolicyGradient)], ids=repr)
def test_a_warm_restart_knows_what_was_tried(strategy: Strategy, tmp_path: Path) -> None:
    space = toy_space()
    for resume, number in (("replay", 30), ("warm", 60)):
        search = Search(space, strategy, evaluate, seed=3, log=tmp_path / "run.db", resume=resume, progress=False)  # type: ignore[arg-type]
        result = search.run(trials=number)
    keys = [(trial.codes, trial.columns.get("budget")) for trial in result.trials]
    assert len(set(keys)) == 60


@pytest.mark.slow
@pytest.mark.parametrize("strategy", EVERY, ids=repr)
def test_workers_change_nothing(strategy: Strategy) -> None:
    assert rows(strategy, None, 40, workers=2) == rows(strategy, None, 40)


@pytest.mark.slow
@pytest.mark.parametrize("strategy", sorted({type(each).__name__ for each in EVERY}))
def test_killed_and_resumed(strategy: str) -> None:
    settings = ["--kills", "1", "--trials", "60", "--workers", "0", "--strategy", strategy]
    done = subprocess.run([sys.executable, str(BENCHMARK), *settings], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1/1 equal" in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("library", ["optuna", "nevergrad", "pymoo"])
def test_strategies_of_other_libraries_are_killed_and_resumed(library: str) -> None:
    pytest.importorskip(library, reason=f"the extra `{library}` is not installed")
    test_killed_and_resumed(f"{library.capitalize()}Strategy")


def test_several_objectives_go_through_a_search() -> None:
    space = toy_space()
    cost = TableProfiler(space)
    search = Search(
        space, NSGA2(population=8), evaluate, objectives=[Objective("accuracy"), cost], seed=1, progress=False
    )
    result = search.run(trials=60)
    front = result.pareto()
    assert len(front) >= 3
    assert front[0].metrics["accuracy"] == max(trial.metrics["accuracy"] for trial in result.completed)
