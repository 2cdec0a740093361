"""ChainSampler: an Optuna study whose sampler is a chain."""

from __future__ import annotations

import copy
import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nasmw import Chain, Deduplicate, Filter, Penalize, Reward
from nasmw.candidates import Status
from nasmw.choice import Choice
from nasmw.errors import DeadlockError, MissingExtraError, OrderError, SpaceError
from nasmw.space import Space
from nasmw.strategies import ASHA, NSGA2, TPE, Evolution, Grid, LocalSearch, Random
from nasmw.strategies.adapters import ChainSampler, PymooStrategy, suggest
from nasmw.strategy import Strategy
from nasmw.testing import RecordingStrategy, TableProfiler, toy_space

optuna = pytest.importorskip("optuna", reason="the extra `optuna` is not installed")
SPACE = toy_space()
COST = TableProfiler(SPACE)


@pytest.fixture(autouse=True)
def silence() -> Any:
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    yield
    optuna.logging.set_verbosity(before)


def study_of(chain: Strategy, space: Space = SPACE, seed: int = 0, **settings: Any) -> Any:
    return optuna.create_study(sampler=ChainSampler(chain, space, seed), **{"direction": "minimize", **settings})


def cost(trial: Any) -> float:
    return COST.profile(suggest(trial, SPACE))


def architectures(study: Any) -> list[dict[str, Any]]:
    return [trial.params for trial in study.trials]


def test_is_a_sampler() -> None:
    sampler = ChainSampler(Random(), SPACE)
    assert isinstance(sampler, optuna.samplers.BaseSampler) and isinstance(sampler, ChainSampler)
    assert str(sampler) == "ChainSampler(Random(replacement=True))"


def test_trials_are_the_candidates_of_the_chain() -> None:
    """Every trial is what the chain asks for; limits and their stages hold; the same seed gives the same."""
    chain = Chain(Evolution(population=10), Deduplicate(), Filter(COST <= 100))
    study = study_of(chain, seed=5)
    study.optimize(cost, n_trials=60)
    assert max(study.trials[number].value for number in range(60)) <= 100
    assert len({tuple(sorted(each.items(), key=str)) for each in architectures(study)}) == 60
    again = study_of(Chain(Evolution(population=10), Deduplicate(), Filter(COST <= 100)), seed=5)
    again.optimize(cost, n_trials=60)
    assert architectures(again) == architectures(study)
    other = study_of(Chain(Evolution(population=10), Deduplicate(), Filter(COST <= 100)), seed=6)
    other.optimize(cost, n_trials=60)
    assert architectures(other) != architectures(study)


def test_the_chain_is_told_in_the_direction_of_the_study() -> None:
    """A minimised value is a negative score, so that the chain finds the cheap ones; against random ones."""

    def best(chain: Strategy) -> float:
        space = Space([Choice(f"c{number}", tuple(range(5))) for number in range(8)])
        price = TableProfiler(space)
        study = study_of(chain, space)
        study.optimize(lambda trial: price.profile(suggest(trial, space)), n_trials=120)
        return float(study.best_value)

    assert best(TPE()) < best(Random())


def test_several_objectives() -> None:
    strategy = RecordingStrategy()
    study = study_of(strategy, direction=None, directions=["minimize", "maximize"])
    study.optimize(lambda trial: (cost(trial), float(trial.params["width"])), n_trials=40)
    assert [outcomes.scores.shape for outcomes in strategy.told] == [(1, 2)] * 40
    first = study.trials[0]
    assert strategy.told[0].scores.tolist() == [[-first.values[0], first.values[1]]]


def test_statuses() -> None:
    strategy = RecordingStrategy()
    study = study_of(strategy, direction="maximize")

    def objective(trial: Any) -> float:
        suggest(trial, SPACE)
        if trial.number == 1:
            trial.report(0.25, 3)
            raise optuna.TrialPruned
        if trial.number == 2:
            raise optuna.TrialPruned
        if trial.number == 3:
            raise ValueError("broken")
        return 7.0

    study.optimize(objective, n_trials=5, catch=(ValueError,))
    told = [(each.status[0], each.scores[0, 0]) for each in strategy.told]
    expected = [
        (Status.COMPLETED, 7.0),
        (Status.STOPPED, 0.25),
        (Status.STOPPED, np.nan),
        (Status.FAILED, np.nan),
        (Status.COMPLETED, 7.0),
    ]
    assert str(told) == str([(status, np.float64(score)) for status, score in expected])


def test_middleware_sees_values_and_attributes() -> None:
    strategy = RecordingStrategy()

    def reward(metrics: dict[str, float]) -> float:
        return metrics["accuracy"] * metrics["cost"] + metrics["bytes"]

    study = study_of(Chain(strategy, Reward(reward, COST)), direction="maximize")
    with pytest.warns(optuna.exceptions.ExperimentalWarning):
        study.set_metric_names(["accuracy"])

    def objective(trial: Any) -> float:
        trial.set_user_attr("bytes", 0.5)
        trial.set_user_attr("note", "a text is no metric")
        suggest(trial, SPACE)
        return 2.0

    study.optimize(objective, n_trials=3)
    for outcomes in strategy.told:
        assert outcomes.scores[0, 0] == 2.0 * COST.profile_batch(outcomes.candidates)[0] + 0.5


def test_penalties_are_told_and_not_recorded() -> None:
    strategy = RecordingStrategy()
    study = study_of(Chain(strategy, Penalize(COST, target=20.0, weight=0.5)), direction="maximize")
    study.optimize(lambda trial: cost(trial) and 1.0, n_trials=5)
    assert [trial.value for trial in study.trials] == [1.0] * 5
    assert any(outcomes.scores[0, 0] != 1.0 for outcomes in strategy.told)


def test_stops_the_study_once_exhausted() -> None:
    space = Space([Choice("a", (0, 1, 2))])
    study = study_of(Grid(), space)
    study.optimize(lambda trial: trial.suggest_categorical("a", (0, 1, 2)), n_trials=100)
    assert [trial.params["a"] for trial in study.trials] == [0, 1, 2]
    with pytest.raises(DeadlockError, match="has no candidate for trial 3: it is exhausted"):
        study.ask()


def test_ask_and_tell_and_waiting() -> None:
    study = study_of(PymooStrategy("GA", pop_size=3))
    trials = [study.ask() for _ in range(3)]
    with pytest.raises(DeadlockError, match="waits for the outcomes of 3 trials; run fewer at a time"):
        study.ask()
    for trial in trials:
        study.tell(trial, cost(trial))
    assert cost(study.ask()) > 0


def test_threads_share_one_chain() -> None:
    study = study_of(Chain(Random(), Deduplicate()))
    study.optimize(cost, n_trials=40, n_jobs=3)
    assert len({str(sorted(each.items(), key=str)) for each in architectures(study)}) == 40


def test_enqueued_trials_and_those_of_another_sampler_are_adopted() -> None:
    strategy = RecordingStrategy()
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    study.optimize(cost, n_trials=4)
    study.add_trial(optuna.trial.create_trial(value=1.0))
    study.sampler = ChainSampler(strategy, SPACE)
    enqueued = {"width": 8, "depth": 1, "block0.op": "pool"}
    study.enqueue_trial(enqueued)
    study.optimize(cost, n_trials=2)
    assert [adopted.scores[0, 0] for adopted in strategy.adopted] == [
        *(-trial.value for trial in study.trials[:4]),
        -COST.profile(enqueued),
    ]
    assert [outcomes.status[0] for outcomes in strategy.told] == [Status.SKIPPED, Status.COMPLETED]
    assert study.trials[5].params == enqueued


def test_numbers_may_be_suggested_as_numbers() -> None:
    space = Space([Choice("lr", (0.1, 0.2)), Choice("depth", (1, 2, 3))])
    study = study_of(Random(), space)
    study.optimize(lambda t: t.suggest_float("lr", 0.0, 1.0) + t.suggest_int("depth", 1, 3), n_trials=10)
    assert {trial.params["lr"] for trial in study.trials} == {0.1, 0.2}


@pytest.mark.parametrize(
    ("objective", "error", "message"),
    [
        (lambda trial: trial.suggest_categorical("wdth", (4, 8)), SpaceError, "no choice 'wdth'; did you mean 'width'"),
        (lambda trial: trial.suggest_categorical("width", (5, 7)), ValueError, "does not have; suggest it with the"),
        (lambda trial: trial.suggest_int("width", 100, 101), ValueError, "does not have; suggest it with the"),
        (
            lambda trial: trial.suggest_categorical("block2.expand", (1, 2)),
            ValueError,
            "suggests 'block2.expand', which does not matter",
        ),
        (lambda trial: trial.suggest_categorical("width", (4, 8, 12, 16)), SpaceError, "lacks choice 'depth'"),
    ],
)
def test_objectives_that_do_not_fit(objective: Callable[[Any], Any], error: type[Exception], message: str) -> None:
    study = study_of(RecordingStrategy([{"width": 8, "depth": 1, "block0.op": "pool"}]))
    with pytest.raises(error, match=message):
        study.optimize(objective, n_trials=1)


def test_one_sampler_for_each_study() -> None:
    sampler = ChainSampler(Random(), SPACE)
    optuna.create_study(sampler=sampler, study_name="first").optimize(cost, n_trials=1)
    with pytest.raises(OrderError, match="belongs to the study 'first'; make one for each study"):
        optuna.create_study(sampler=sampler, study_name="second").optimize(cost, n_trials=1)


def test_arguments() -> None:
    with pytest.raises(TypeError, match="takes a strategy or a Chain first, got 'TPE'"):
        ChainSampler("TPE", SPACE)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="takes a Space second"):
        ChainSampler(Random(), [1, 2])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="seed is at least 0"):
        ChainSampler(Random(), SPACE, -1)
    tuples = Space([Choice("a", ((1, 2), (3, 4)))])
    with pytest.raises(SpaceError, match=r"choice 'a' has the option \(1, 2\)"):
        study_of(Random(), tuples).optimize(lambda trial: len(suggest(trial, tuples)), n_trials=1)


def test_is_neither_pickled_nor_copied() -> None:
    study = study_of(Random())
    for call in (pickle.dumps, copy.deepcopy):
        with pytest.raises(TypeError, match="cannot be pickled or copied; keep the study in a storage"):
            call(study)


def test_a_stored_study_goes_on_with_a_new_sampler(tmp_path: Path) -> None:
    """Trials of before are known, enqueued ones are evaluated as they are, in full or in part."""
    arguments: dict[str, Any] = {
        "storage": f"sqlite:///{tmp_path}/study.db",
        "study_name": "stored",
        "load_if_exists": True,
    }
    enqueued = list(SPACE.sample(3, np.random.default_rng(0)))
    for number in range(3):
        study = study_of(Chain(Evolution(population=5), Deduplicate(), Filter(COST <= 150)), seed=number, **arguments)
        study.enqueue_trial(enqueued[number])
        study.enqueue_trial({"width": 4})
        study.optimize(cost, n_trials=8)
        assert study.trials[8 * number].params == enqueued[number]
        assert study.trials[8 * number + 1].params["width"] == 4
    tried = architectures(study)
    assert all(tried[place] not in tried[:place] for place in range(24) if place % 8 > 1)


@pytest.mark.parametrize("make", [Random, LocalSearch, lambda: NSGA2(population=6), lambda: ASHA((1, 3))])
def test_trials_may_end_in_any_way(make: Callable[[], Strategy]) -> None:
    """Pruned with and without a value, failed, NaN, completed."""

    def objective(trial: Any) -> float:
        value = cost(trial)
        if trial.number % 5 == 1:
            trial.report(value, 0)
        if trial.number % 5 in (1, 2):
            raise optuna.TrialPruned
        if trial.number % 5 == 3:
            raise ValueError("one in five")
        return float("nan") if trial.number % 5 == 4 else value

    study = study_of(Chain(make(), Deduplicate(), Filter(COST <= 150)))
    study.optimize(objective, n_trials=40, catch=(ValueError,))
    assert {trial.state.name for trial in study.trials} == {"COMPLETE", "PRUNED", "FAIL"}


def test_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(MissingExtraError, match=r"'optuna', which is not installed.*nasmw\[optuna\]"):
        ChainSampler(Random(), SPACE)
