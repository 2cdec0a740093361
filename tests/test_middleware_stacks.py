"""Any stack of middleware over any strategy: same course for any number of workers, and after any interruption."""

from __future__ import annotations

import importlib.util
import random
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nasmw import (
    Cache,
    Chain,
    Deduplicate,
    EarlyStop,
    Filter,
    Penalize,
    Rank,
    Repeat,
    Retry,
    Reward,
    Search,
    Tap,
    TimeLimit,
    Verify,
    recorded,
)
from nasmw.errors import SearchInterrupted
from nasmw.executors.base import Executor
from nasmw.strategies import (
    ASHA,
    NSGA2,
    TPE,
    Evolution,
    Grid,
    Hyperband,
    LocalSearch,
    PolicyGradient,
    PredictorGuided,
    Random,
    SuccessiveHalving,
)
from nasmw.strategies.adapters import NevergradStrategy, OptunaStrategy, PymooStrategy
from nasmw.testing import TableProfiler, toy_space
from nasmw.trial import run_task

SPACE = toy_space()
COST = TableProfiler(SPACE)
OTHER = TableProfiler(SPACE, name="other", seed=1)
GUESS = TableProfiler(SPACE, name="guess", std=10.0)
EARLIER = Search(SPACE, Random(), lambda trial: 0.25, seed=9, progress=False).run(trials=20)


def proxy(architecture):
    return float(len(architecture))


def weighted(metrics):
    return metrics["accuracy"] - 0.001 * metrics["cost"]


STRATEGIES = (
    Random,
    Grid,
    lambda: Evolution(population=6),
    lambda: LocalSearch(initial=2),
    lambda: TPE(startup=5),
    lambda: PredictorGuided(startup=5, candidates=20),
    lambda: NSGA2(population=6),
    lambda: PolicyGradient(batch=4, hidden=8),
    lambda: SuccessiveHalving((1, 3)),
    lambda: Hyperband((1, 3)),
    lambda: ASHA((1, 3)),
)
ADAPTED = (
    lambda: OptunaStrategy("TPESampler", n_startup_trials=4),
    lambda: NevergradStrategy("TwoPointsDE"),
    lambda: PymooStrategy("GA", pop_size=6),
)
if all(importlib.util.find_spec(library) for library in ("optuna", "nevergrad", "pymoo")):
    STRATEGIES += ADAPTED
STAGES = (
    lambda: Cache(EARLIER),
    Deduplicate,
    lambda: Deduplicate("replay"),
    lambda: EarlyStop(min_trials=2),
    lambda: Filter(COST.at_most("70%")),
    lambda: Filter(OTHER.at_most("80%"), tell="bad score"),
    lambda: Penalize(COST, target=30),
    lambda: Rank(COST, groups_of=3, maximize=False),
    lambda: Rank(recorded(proxy), groups_of=4, keep=2),
    lambda: Repeat(2),
    lambda: Repeat(3, by="median"),
    lambda: Retry(2),
    lambda: Reward(weighted, COST),
    lambda: Tap(asked=len),
    lambda: TimeLimit(1e6),
    lambda: Verify(GUESS <= 100, OTHER),
)


def cache_is_behind_reward(stages):
    """A log has no rewards, so that Cache refuses to stand where the score is one."""
    kinds = [type(stage()) for stage in stages]
    return Cache not in kinds or Reward not in kinds[kinds.index(Cache) :]


stacks = st.tuples(
    st.sampled_from(STRATEGIES),
    st.lists(st.sampled_from(STAGES), min_size=1, max_size=6).filter(cache_is_behind_reward),
)


def evaluate(trial):
    if trial.seed % 5 == 0:
        raise RuntimeError("one in five fails")
    score = COST.profile(trial.architecture) / 100 + (trial.seed % 97) / 1000
    for step in range(3):
        trial.report(step, score * step / 2)
    return score


class Shuffled(Executor):
    """Several workers that finish in any order."""

    def __init__(self, workers, seed):
        self.workers = workers
        self._random = random.Random(seed)

    def start(self, space, evaluate):
        self._space, self._evaluate, self._tasks = space, evaluate, []

    @property
    def free(self):
        return self.workers - len(self._tasks)

    def submit(self, task):
        self._tasks.append(task)

    def wait(self, timeout=None):
        done = self._random.sample(self._tasks, self._random.randint(1, len(self._tasks)))
        self._tasks = [task for task in self._tasks if task not in done]
        return [run_task(task, self._space, self._evaluate) for task in done]

    def close(self, cancel=False):
        pass


def search(stack, log=None, executor=None, evaluate=evaluate):
    strategy, stages = stack
    chain = Chain(strategy(), *(stage() for stage in stages))
    return Search(SPACE, chain, evaluate, log=log, executor=executor, seed=3, progress=False)


def course(result):
    """What became of a run; times and tracebacks are another matter."""
    rows = [
        (
            trial.number,
            trial.codes,
            trial.candidate,
            repr(dict(trial.columns)),  # NaN is equal to NaN
            trial.status,
            dict(trial.metrics),
            trial.reason,
        )
        for trial in result.trials
    ]
    return rows, dict(result.funnel.turned_away), result.ended


@pytest.mark.filterwarnings("ignore")
@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
@given(stacks, st.integers(1, 4), st.integers(0, 999))
def test_any_stack_takes_one_course(stack, workers, seed):
    alone = course(search(stack).run(trials=40))
    assert alone[0]
    assert course(search(stack, executor=Shuffled(workers, seed)).run(trials=40)) == alone


@pytest.mark.filterwarnings("ignore")
@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
@given(stacks, st.lists(st.integers(1, 15), min_size=1, max_size=3))
def test_any_stack_is_replayed(stack, interruptions):
    whole = course(search(stack).run(trials=40))
    left = 0

    def interrupted(trial):
        nonlocal left
        left -= 1
        if not left:
            raise KeyboardInterrupt
        return evaluate(trial)

    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "run.db"
        for trials in interruptions:
            left = trials
            try:
                search(stack, log, evaluate=interrupted).run(trials=40)
            except SearchInterrupted:
                continue
        assert course(search(stack, log).run(trials=40)) == whole
