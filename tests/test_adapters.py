"""Strategies of other libraries: their contracts, limits, what cannot be mapped, and what is missing."""

from __future__ import annotations

import logging
import pickle
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nasmw import Chain, Filter, Penalize, Search, Trial
from nasmw.candidates import Candidates, Outcomes, Status
from nasmw.choice import Choice
from nasmw.errors import AdapterError, MissingExtraError
from nasmw.space import Space
from nasmw.strategies import Random
from nasmw.strategies.adapters import NevergradStrategy, OptunaStrategy, PymooStrategy
from nasmw.strategy import Strategy
from nasmw.testing import StrategyContract, TableProfiler, drive, scored, toy_space
from nasmw.testing.strategies import context_for

pytest.importorskip("optuna", reason="the extra `optuna` is not installed")
pytest.importorskip("nevergrad", reason="the extra `nevergrad` is not installed")
pytest.importorskip("pymoo", reason="the extra `pymoo` is not installed")

WIDE = Space([Choice(f"c{number}", tuple(range(6))) for number in range(10)])


class TestOptunaTPE(StrategyContract):
    def make(self) -> Strategy:
        return OptunaStrategy("TPESampler", n_startup_trials=5)


class TestOptunaNSGAII(StrategyContract):
    objectives = 2

    def make(self) -> Strategy:
        return OptunaStrategy("NSGAIISampler", population_size=8)


class TestNevergrad(StrategyContract):
    def make(self) -> Strategy:
        return NevergradStrategy("TwoPointsDE")


class TestNevergradOrdinal(StrategyContract):
    objectives = 2

    def make(self) -> Strategy:
        return NevergradStrategy("OnePlusOne", ordinal=True, workers=70)


class TestPymooNSGA2(StrategyContract):
    objectives = 2

    def make(self) -> Strategy:
        return PymooStrategy("NSGA2", pop_size=12)


class TestPymooDE(StrategyContract):
    def make(self) -> Strategy:
        return PymooStrategy("DE", pop_size=10)


ADAPTERS: list[Callable[[], Strategy]] = [
    lambda: OptunaStrategy("TPESampler"),
    lambda: NevergradStrategy("TwoPointsDE"),
    lambda: PymooStrategy("GA", pop_size=20),
]
each_adapter = pytest.mark.parametrize("make", ADAPTERS, ids=["optuna", "nevergrad", "pymoo"])


@pytest.mark.parametrize(
    "strategy",
    [
        OptunaStrategy("CmaEsSampler", ordinal=True),
        OptunaStrategy("QMCSampler", ordinal=True),
        OptunaStrategy("RandomSampler"),
        OptunaStrategy("NSGAIIISampler", population_size=8),
        NevergradStrategy("NGOpt", budget=60),
        NevergradStrategy("CMA"),
        NevergradStrategy("PSO"),
        NevergradStrategy("DiscreteOnePlusOne"),
        PymooStrategy("PSO", pop_size=8),
        PymooStrategy("CMAES"),
        PymooStrategy("NelderMead"),
        PymooStrategy("SPEA2", pop_size=8),
    ],
    ids=lambda strategy: repr(strategy).partition(",")[0].partition("=")[2],
)
def test_others_of_the_libraries_run(strategy: Strategy) -> None:
    """The same seed gives the same, twice, whatever the global generator says; nobody fails for want of scores."""
    space = toy_space()
    np.random.seed(1)
    first = drive(strategy, space, 24, n=3).codes
    np.random.seed(2)
    assert np.array_equal(first, drive(strategy, space, 24, n=3).codes)
    state = repr(np.random.get_state())

    def half(batch: Candidates) -> Outcomes:
        outcomes = scored(batch)
        fails = batch.ids % 2 == 0
        status = [Status.FAILED if fail else Status.COMPLETED for fail in fails]
        return outcomes.evolve(scores=np.where(fails[:, None], np.nan, outcomes.scores), status=status)

    assert len(drive(strategy, space, 24, n=3, outcomes=half))
    assert repr(np.random.get_state()) == state


@pytest.mark.slow
def test_gaussian_process_of_optuna() -> None:
    space = toy_space()
    first = drive(OptunaStrategy("GPSampler", n_startup_trials=5), space, 12).codes
    assert np.array_equal(first, drive(OptunaStrategy("GPSampler", n_startup_trials=5), space, 12).codes)


@pytest.mark.slow
@each_adapter
def test_beats_random_search(make: Callable[[], Strategy]) -> None:
    def best(strategy: Strategy, seed: int) -> float:
        return float(TableProfiler(WIDE).profile_batch(drive(strategy, WIDE, 160, n=8, seed=seed)).min())

    ours = [best(make(), seed) for seed in range(4)]
    theirs = [best(Random(), seed) for seed in range(4)]
    assert np.mean(ours) < np.mean(theirs)
    assert sum(mine < other for mine in ours for other in theirs) >= 13  # of 16: by chance once in 20 times


@each_adapter
def test_inactive_choices_are_left_out(make: Callable[[], Strategy]) -> None:
    """Two choices deep: what does not matter is 0, and what matters takes all options."""
    space = Space(
        [
            Choice("kind", ("conv", "pool")),
            Choice("kernel", (1, 3, 5), when={"kind": "conv"}),
            Choice("dilation", (1, 2), when={"kernel": (3, 5)}),
        ]
    )
    found = set(drive(make(), space, 200, n=4, outcomes=alike).row_keys())
    assert found == set(space.at(range(space.size)).row_keys())


def alike(batch: Candidates) -> Outcomes:
    return Outcomes(batch, [Status.COMPLETED] * len(batch), np.zeros((len(batch), 1)))


@pytest.mark.parametrize(
    "strategy",
    [
        OptunaStrategy("TPESampler", n_startup_trials=20),
        OptunaStrategy("NSGAIISampler", population_size=16),
        PymooStrategy("NSGA2", pop_size=16),
        NevergradStrategy("TwoPointsDE"),
    ],
    ids=["tpe", "nsgaii", "pymoo", "nevergrad"],
)
def test_learns_where_limits_are(strategy: Strategy) -> None:
    """Of candidates that are turned away by a limit it learns to ask for fewer, although they have no score."""
    space = WIDE
    cost = TableProfiler(space)
    asked: list[float] = []

    def evaluate(trial: Trial) -> float:
        return float(sum(trial.architecture.values()))

    def seen(batch: dict[str, Any]) -> bool:
        asked.append(cost.profile(batch))
        return True

    chain = Chain(strategy, Filter(seen), Filter(cost <= 120, pushdown=True))
    result = Search(space, chain, evaluate, seed=1, progress=False).run(trials=60)
    assert all(trial.columns["cost"] <= 120 for trial in result.trials)
    within = np.array(asked) <= 120
    half = len(within) // 2
    assert within[half:].mean() > within[:half].mean()


@pytest.mark.slow
@each_adapter
def test_runs_under_middleware_and_resumes(make: Callable[[], Strategy], tmp_path: Path) -> None:
    space = toy_space()
    cost = TableProfiler(space)

    def rows(log: Path, *trials: int) -> list[Any]:
        chain = Chain(make(), Filter(cost <= 150), Penalize(cost, target=60.0, weight=0.1))
        search = Search(space, chain, lambda trial: 1.0 + trial.architecture["width"], log=log, progress=False)
        for number in trials:
            result = search.run(trials=number)
        return [(trial.codes, trial.status, dict(trial.columns), dict(trial.metrics)) for trial in result.trials]

    assert rows(tmp_path / "parts.db", 5, 21, 40) == rows(tmp_path / "whole.db", 40)


@each_adapter
def test_adopts_what_an_earlier_run_found(make: Callable[[], Strategy]) -> None:
    """Optuna and Nevergrad go on from good trials of another run; pymoo takes no notice, and no harm."""
    strategy = make()
    strategy.setup(context_for(WIDE))
    foreign = WIDE.sample(100, np.random.default_rng(0))
    strategy.adopt(scored(foreign.with_ids(np.arange(100))))
    codes = []
    for _ in range(5):
        batch = strategy.ask(4)
        codes.append(batch)
        strategy.tell(scored(batch))
    if isinstance(strategy, OptunaStrategy):
        mean = TableProfiler(WIDE).profile_batch(Candidates.join(codes)).mean()
        assert mean < TableProfiler(WIDE).profile_batch(foreign).mean() - 15


@each_adapter
def test_says_nothing(make: Callable[[], Strategy], capfd: pytest.CaptureFixture[str]) -> None:
    """The libraries log and warn nothing, and logging is as it was."""
    levels = [logging.getLogger(name).level for name in ("optuna", "nevergrad", "pymoo")]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        drive(make(), toy_space(), 30, n=4)
    assert [logging.getLogger(name).level for name in ("optuna", "nevergrad", "pymoo")] == levels
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("make", "package"),
    [
        (lambda: OptunaStrategy("TPESampler"), "optuna"),
        (lambda: NevergradStrategy(), "nevergrad"),
        (lambda: PymooStrategy("GA"), "pymoo"),
    ],
    ids=["optuna", "nevergrad", "pymoo"],
)
def test_says_what_is_missing(make: Callable[[], Strategy], package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    strategy = make()
    monkeypatch.setitem(sys.modules, package, None)
    for call in (make, lambda: strategy.setup(context_for(toy_space()))):
        with pytest.raises(MissingExtraError, match=rf"'{package}', which is not installed.*nasmw\[{package}\]"):
            call()


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: OptunaStrategy("TPESampler", seed=3), TypeError, "seeds its sampler from the seed of the run"),
        (lambda: OptunaStrategy(3), TypeError, "takes the class or the name of a sampler"),  # type: ignore[arg-type]
        (lambda: OptunaStrategy("TPESampler", ordinal=1), TypeError, "ordinal is True or False"),  # type: ignore[arg-type]
        (lambda: NevergradStrategy(workers=0), ValueError, "NevergradStrategy: workers is at least 1"),
        (lambda: NevergradStrategy(budget=0.5), TypeError, "budget is a whole number"),  # type: ignore[arg-type]
        (lambda: PymooStrategy("GA", seed=1), TypeError, "seeds its algorithm from the seed of the run"),
        (lambda: PymooStrategy(object()), TypeError, "takes the class or the name of an algorithm"),  # type: ignore[arg-type]
    ],
)
def test_arguments(make: Callable[[], Strategy], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()


def test_wants_no_object_that_has_a_state() -> None:
    import optuna

    with pytest.raises(TypeError, match="every run starts afresh.*OptunaStrategy\\('TPESampler', multivariate=True\\)"):
        OptunaStrategy(optuna.samplers.TPESampler())  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("strategy", "objectives", "message"),
    [
        (OptunaStrategy("Bergstra"), 1, "optuna.samplers has no 'Bergstra'; it has .*TPESampler"),
        (OptunaStrategy("CmaEsSampler"), 1, "CmaEsSampler knows no categories.*ordinal=True"),
        (OptunaStrategy("BruteForceSampler"), 1, "ends studies on its own; take nasmw.strategies.Grid"),
        (OptunaStrategy("CmaEsSampler", ordinal=True), 2, "multi-objective optimization, CmaEsSampler cannot"),
        (NevergradStrategy("Darwin"), 1, "registry has no optimizer 'Darwin'"),
        (PymooStrategy("NSGA9"), 1, "pymoo has no algorithm 'NSGA9'.*give the class itself"),
        (PymooStrategy("GA"), 2, "GA takes one objective.*Reward"),
        (PymooStrategy("NSGA3"), 2, "NSGA3 cannot be made with the options \\[\\]: .*'ref_dirs'"),
        (PymooStrategy("NSGA3", ref_dirs=np.eye(3)), 2, "NSGA3 cannot be used here, with 2 objective.*3 != 2"),
        (PymooStrategy("SMSEMOA", pop_size=10), 1, "SMSEMOA cannot be used here, with 1 objective.*2 columns"),
        (PymooStrategy("DNSGA2"), 2, "DNSGA2 cannot be used here.*evaluates candidates on its own"),
    ],
)
def test_what_cannot_be_mapped(strategy: Strategy, objectives: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        strategy.setup(context_for(toy_space(), objectives=objectives))


def failing_later(seed: int) -> Any:
    import optuna

    class Failing(optuna.samplers.RandomSampler):
        def before_trial(self, study: Any, trial: Any) -> None:
            if trial.number == 5:
                raise KeyError("lost")

    return Failing(seed)


def test_names_the_library_that_fails_in_a_run() -> None:
    with pytest.raises(AdapterError, match="sampler=failing_later.*: optuna raised KeyError: 'lost'"):
        drive(OptunaStrategy(failing_later), toy_space(), 60)


def test_a_run_leaves_nothing_to_the_next() -> None:
    """Pymoo's default operators are shared between algorithms, and that of SPEA2 keeps the number of objectives."""
    first = drive(PymooStrategy("SPEA2", pop_size=8), toy_space(), 60, objectives=2).codes
    drive(PymooStrategy("SPEA2", pop_size=8), toy_space(), 60, objectives=1)
    assert np.array_equal(first, drive(PymooStrategy("SPEA2", pop_size=8), toy_space(), 60, objectives=2).codes)


@pytest.mark.parametrize("ordinal", [False, True])
@pytest.mark.parametrize("space", ["one choice", "strange names"])
def test_nevergrad_takes_any_space(space: str, ordinal: bool) -> None:
    """Names that are no Python names, choices of one option, and a single dimension, on which its CMA fails."""
    choices = {
        "one choice": [Choice("only", tuple(range(5)))],
        "strange names": [Choice("self", (1, 2)), Choice("a b/c", (None, "x", 0.5)), Choice("value", (1,))],
    }[space]
    strategy = NevergradStrategy("CMA", ordinal=ordinal)
    found = set(drive(strategy, Space(choices), 60, n=3, outcomes=alike).row_keys())
    assert len(found) > 1
    strategy.setup(context_for(Space(choices)))
    foreign = Space(choices).sample(20, np.random.default_rng(0))
    strategy.adopt(scored(foreign.with_ids(np.arange(20))))
    assert len(strategy.ask(1))


def made_by_hand(seed: int) -> Any:
    import optuna

    return optuna.samplers.PartialFixedSampler({"width": 2}, optuna.samplers.TPESampler(seed=seed))


def test_takes_classes_and_functions() -> None:
    import nevergrad
    import optuna
    from pymoo.algorithms.soo.nonconvex.ga import GA

    for strategy in (
        OptunaStrategy(optuna.samplers.TPESampler, multivariate=True),
        NevergradStrategy(nevergrad.optimizers.DE),
        NevergradStrategy(nevergrad.optimizers.ParametrizedOnePlusOne(mutation="discrete")),
        PymooStrategy(GA, pop_size=10),
    ):
        assert len(drive(strategy, toy_space(), 20)) == 20
        assert " at 0x" not in repr(strategy)
    fixed = drive(OptunaStrategy(made_by_hand), toy_space(), 20)
    assert set(fixed.codes[:, 0].tolist()) == {2}
    assert repr(pickle.loads(pickle.dumps(OptunaStrategy(made_by_hand)))) == repr(OptunaStrategy(made_by_hand))


def test_nevergrad_gives_no_more_than_it_has_workers() -> None:
    strategy = NevergradStrategy("OnePlusOne", workers=3)
    strategy.setup(context_for(toy_space()))
    batch = strategy.ask(10)
    assert len(batch) == 3
    assert not len(strategy.ask(1)) and not strategy.exhausted
    strategy.tell(scored(batch[:1]))
    assert len(strategy.ask(10)) == 1


def test_pymoo_hands_out_one_generation_at_a_time() -> None:
    strategy = PymooStrategy("GA", pop_size=6)
    strategy.setup(context_for(toy_space()))
    batch = strategy.ask(4)
    rest = strategy.ask(4)
    assert (len(batch), len(rest), len(strategy.ask(4))) == (4, 2, 0)
    strategy.tell(scored(batch))
    assert not len(strategy.ask(1)) and not strategy.exhausted
    strategy.tell(scored(rest))
    assert len(strategy.ask(10)) == 6
