"""SuccessiveHalving, Hyperband and ASHA: contracts, who goes on, budgets in trials, weights that are gone on with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nasmw import Cache, Chain, Choice, CostTable, Deduplicate, Filter, Rank, Search, Space, TabledProfiler, Trial
from nasmw.candidates import Candidates, Outcomes, Status
from nasmw.errors import ProfilerError
from nasmw.strategies import ASHA, Hyperband, Random, SuccessiveHalving, rungs
from nasmw.strategy import Strategy
from nasmw.testing import StrategyContract, drive, scored, toy_space
from nasmw.testing.strategies import context_for

BUDGETS = (1, 3, 9)
EVERY = [ASHA(BUDGETS), Hyperband(BUDGETS), SuccessiveHalving(BUDGETS)]


class TestASHA(StrategyContract):
    def make(self) -> Strategy:
        return ASHA(BUDGETS)


class TestHyperband(StrategyContract):
    def make(self) -> Strategy:
        return Hyperband(BUDGETS)


class TestSuccessiveHalving(StrategyContract):
    def make(self) -> Strategy:
        return SuccessiveHalving(BUDGETS, networks=7, eta=2)


@pytest.mark.parametrize("kind", [ASHA, Hyperband, SuccessiveHalving])
@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"budgets": ()}, ValueError, "budgets are numbers that rise, at least one"),
        ({"budgets": (1, 1)}, ValueError, r"numbers that rise, at least one, got \(1, 1\)"),
        ({"budgets": (0, 1)}, ValueError, "budgets is finite and above 0, got 0"),
        ({"budgets": "many"}, TypeError, r"numbers such as \(1, 3, 9\), got 'many'"),
        ({"budgets": 9}, TypeError, "numbers such as"),
        ({"eta": 1}, ValueError, "eta is above 1, got 1"),
        ({"eta": None}, TypeError, "eta is a number above 0, got None"),
    ],
)
def test_arguments(kind: Any, arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=f"{kind.__name__}.*{message}"):
        kind(**arguments)


def test_numbers_of_networks() -> None:
    assert SuccessiveHalving(BUDGETS).networks == 9
    with pytest.raises(ValueError, match="networks is at least 1, got 0"):
        SuccessiveHalving(BUDGETS, networks=0)


@pytest.mark.parametrize("strategy", EVERY, ids=lambda each: type(each).__name__)
def test_wants_one_objective(strategy: Strategy) -> None:
    with pytest.raises(ValueError, match="maximises one objective"):
        strategy.setup(context_for(toy_space(), objectives=2))


def test_rungs() -> None:
    assert rungs(1, 81) == (1, 3, 9, 27, 81)
    assert rungs(2, 81) == (3, 9, 27, 81)
    assert rungs(4, 4) == (4,)
    assert all(isinstance(budget, int) for budget in rungs(1, 243))
    with pytest.raises(ValueError, match="at most the greatest budget 3, got 5"):
        rungs(5, 3)
    with pytest.raises(ValueError, match="eta is above 1"):
        rungs(1, 9, eta=0.5)


def test_the_plan_of_the_paper() -> None:
    """Li et al., JMLR 2018, table 1: R = 81, eta = 3."""
    assert Hyperband(rungs(1, 81)).plan == ((81, 1), (34, 3), (15, 9), (8, 27), (5, 81))


def budgets(asked: Candidates) -> list[float]:
    return asked.columns["budget"].tolist()


def test_halving_keeps_the_best_of_each_eta() -> None:
    space = toy_space()
    asked = drive(SuccessiveHalving(BUDGETS), space, 13 * 2)
    assert budgets(asked) == ([1.0] * 9 + [3.0] * 3 + [9.0]) * 2
    scores = scored(asked).scores[:, 0]
    for start in (0, 13):
        keys = asked.row_keys()[start : start + 13]
        best = sorted(range(9), key=lambda place: -scores[start + place])
        assert keys[9:12] == [keys[place] for place in best[:3]]
        assert keys[12] == keys[best[0]]
    assert len(set(asked.row_keys())) == 18


def test_hyperband_goes_round() -> None:
    asked = drive(Hyperband(BUDGETS), toy_space(), 22 + 13)
    one_round = [1.0] * 9 + [3.0] * 3 + [9.0] + [3.0] * 5 + [9.0] + [9.0] * 3
    assert budgets(asked) == [*one_round, *one_round[:13]]


def test_brackets_overlap_while_one_waits() -> None:
    strategy = SuccessiveHalving(BUDGETS)
    strategy.setup(context_for(toy_space()))
    first = strategy.ask(12)
    assert budgets(first) == [1.0] * 12
    strategy.tell(scored(first[:9]))
    assert budgets(strategy.ask(4)) == [3.0, 3.0, 3.0, 1.0]  # the older bracket comes first


def test_asha_promotes_at_once() -> None:
    """Algorithm 2: whenever one is among the best third of its rung, it goes on; from the top down."""
    space = toy_space()
    strategy = ASHA(BUDGETS)
    asked = drive(strategy, space, 120)
    scores = scored(asked).scores[:, 0]
    keys = asked.row_keys()
    told: dict[int, list[tuple[float, int, bytes]]] = {0: [], 1: [], 2: []}
    gone: dict[int, set[bytes]] = {0: set(), 1: set(), 2: set()}
    for place, budget in enumerate(budgets(asked)):
        expected = None
        for rung in (1, 0):
            best = sorted(told[rung], key=lambda each: (-each[0], each[1]))[: len(told[rung]) // 3]
            waiting = [key for _, _, key in best if key not in gone[rung]]
            if waiting:
                expected = waiting[0], BUDGETS[rung + 1]
                gone[rung].add(waiting[0])
                break
        if expected is None:
            assert budget == 1.0
            assert keys[place] not in keys[:place]
        else:
            assert (keys[place], budget) == expected
        told[BUDGETS.index(int(budget))].append((scores[place], place, keys[place]))
    assert budgets(asked).count(9.0) > 5


@pytest.mark.parametrize("strategy", EVERY, ids=lambda each: type(each).__name__)
def test_nobody_goes_on_without_a_score(strategy: Strategy) -> None:
    def none(batch: Candidates) -> Outcomes:
        return Outcomes.turned_away(batch, Status.FAILED, ["no"] * len(batch), 1)

    asked = drive(strategy, toy_space(), 60, outcomes=none)
    keys = asked.row_keys()
    assert len(set(keys)) == 60


def test_who_is_turned_away_is_replaced() -> None:
    strategy = SuccessiveHalving(BUDGETS)
    strategy.setup(context_for(toy_space()))
    batch = strategy.ask(9)
    strategy.tell(Outcomes.turned_away(batch[:2], Status.INFEASIBLE, ["no"] * 2, 1))
    strategy.tell(scored(batch[2:]))
    rest = strategy.ask(2)
    assert budgets(rest) == [1.0, 1.0]
    strategy.tell(scored(rest))
    assert budgets(strategy.ask(3)) == [3.0] * 3


@pytest.mark.parametrize("strategy", EVERY, ids=lambda each: type(each).__name__)
def test_a_space_smaller_than_the_population(strategy: Strategy) -> None:
    """Everything begins once, the best go on, and then it is exhausted."""
    space = Space([Choice("a", (0, 1, 2, 3, 4))])
    asked = drive(strategy, space, 100)
    assert strategy.exhausted
    first = [place for place, budget in enumerate(budgets(asked)) if budget == 1.0]
    assert len({asked.row_keys()[place] for place in first}) == 5
    assert len(asked) > 5


def test_asha_adopts_trials_of_an_earlier_run() -> None:
    space = toy_space()
    earlier = space.sample(6, np.random.default_rng(0)).with_columns({"budget": [1.0] * 6, "trial": np.arange(6.0)})
    outcomes = scored(earlier)
    strategy = ASHA(BUDGETS)
    strategy.setup(context_for(space))
    strategy.adopt(outcomes)
    best = np.argsort(-outcomes.scores[:, 0], kind="stable")
    # The best of them was gone on with already.
    more = earlier[[int(best[0])]].with_columns({"budget": [3.0], "trial": [6.0]})
    strategy.adopt(scored(more))
    batch = strategy.ask(1)
    assert budgets(batch) == [3.0]
    assert batch.row_keys()[0] == earlier.row_keys()[int(best[1])]
    assert batch.columns["resume_from"].tolist() == [float(best[1])]
    assert budgets(strategy.ask(1)) == [1.0]


# -- in a search --------------------------------------------------------------------------------------------------


def curve(trial: Trial) -> dict[str, float]:
    """A learning curve: the final accuracy minus what training lacks."""
    assert trial.budget is not None
    final = sum(value for value in trial.architecture.values()) / 30
    resumed = -1.0 if trial.resume_from is None else float(trial.resume_from)
    return {"accuracy": final - 1.0 / trial.budget, "resumed": resumed}


def ten_choices() -> Space:
    return Space([Choice(f"c{number}", (0, 1, 2, 3)) for number in range(10)])


@pytest.mark.parametrize("strategy", EVERY, ids=lambda each: type(each).__name__)
def test_trials_have_budgets_and_know_what_they_go_on_from(strategy: Strategy) -> None:
    result = Search(ten_choices(), strategy, curve, progress=False).run(trials=60)
    former: dict[bytes, int] = {}
    for trial in result.trials:
        budget = trial.columns["budget"]
        assert trial.metrics["resumed"] == former.get(trial.codes, -1)
        former[trial.codes] = trial.number
        assert budget in BUDGETS
    assert result.best.columns["budget"] == 9.0
    full = [trial for trial in result.trials if trial.columns["budget"] == 9.0]
    assert result.best.metrics["accuracy"] == max(trial.metrics["accuracy"] for trial in full)
    assert {trial.columns["budget"] for trial in result.pareto("accuracy")} == {9.0}


@pytest.mark.parametrize("strategy", EVERY, ids=lambda each: type(each).__name__)
def test_a_run_that_is_gone_on_with_equals_one_at_once(strategy: Strategy, tmp_path: Path) -> None:
    def rows(log: Path, *trials: int) -> list[Any]:
        for number in trials:
            result = Search(ten_choices(), strategy, curve, log=log, seed=3, progress=False).run(trials=number)
        return [(trial.codes, dict(trial.columns), dict(trial.metrics)) for trial in result.trials]

    assert repr(rows(tmp_path / "parts.db", 7, 20, 41)) == repr(rows(tmp_path / "whole.db", 41))


def test_duplicates_are_of_the_same_budget() -> None:
    chain = Chain(SuccessiveHalving(BUDGETS), Deduplicate())
    result = Search(ten_choices(), chain, curve, progress=False).run(trials=26)
    assert not result.funnel.turned_away
    small = Chain(SuccessiveHalving(BUDGETS), Deduplicate())
    space = Space([Choice("a", tuple(range(9)))])
    result = Search(space, small, curve, progress=False).run(trials=100)
    assert sorted(trial.columns["budget"] for trial in result.trials) == [1.0] * 9 + [3.0] * 3 + [9.0]
    assert "exhausted" in result.ended


def test_what_an_earlier_run_knows_is_told_for_the_same_budget() -> None:
    space = ten_choices()
    earlier = Search(space, SuccessiveHalving(BUDGETS), curve, seed=4, window=1, progress=False).run(trials=10)
    assert [trial.columns["budget"] for trial in earlier.trials] == [1.0] * 9 + [3.0]
    chain = Chain(SuccessiveHalving(BUDGETS), Cache(earlier))
    result = Search(space, chain, curve, seed=4, window=1, progress=False).run(trials=3)
    assert sum(result.funnel.turned_away.values()) == 10
    assert [trial.columns["budget"] for trial in result.trials] == [3.0, 3.0, 9.0]
    assert all(trial.metrics["resumed"] < 0 for trial in result.trials[:2])


def test_limits_are_met_by_construction() -> None:
    space = ten_choices()
    table = TabledProfiler(CostTable(space, [((f"c{i}",), [1, 2, 3, 4]) for i in range(10)]), "sum")
    for strategy in EVERY:
        result = Search(space, Chain(strategy, Filter(table <= 14)), curve, progress=False).run(trials=40)
        assert not result.funnel.turned_away


def trained(trial: Trial) -> dict[str, float]:
    """One number as the network's only weight, which grows by one with each unit of budget."""
    model = trial.model()
    before = float(model[0].bias.detach()[0]) if trial.load(model) else 0.0
    former = {None: 0.0}.get(trial.resume_from, 1.0 if trial.budget == 3.0 else 3.0)
    assert before == former
    model[0].bias.data.fill_(float(trial.budget or 0))
    trial.save(model)
    return {"accuracy": sum(len(str(value)) for value in trial.architecture.values()) + before}


def test_weights_are_gone_on_with(tmp_path: Path) -> None:
    search = Search(toy_space(), SuccessiveHalving(BUDGETS), trained, log=tmp_path / "run.db", progress=False)
    result = search.run(trials=13)
    assert len(result.completed) == 13


def test_load_without_an_earlier_trial_says_no(tmp_path: Path) -> None:
    def evaluate(trial: Trial) -> float:
        assert trial.budget is None and trial.resume_from is None
        return float(trial.load(trial.model()))

    result = Search(toy_space(), Random(), evaluate, log=tmp_path / "run.db", progress=False).run(trials=2)
    assert [trial.metrics["accuracy"] for trial in result.trials] == [0.0, 0.0]


def test_columns_of_strategies_are_no_names_of_profilers() -> None:
    space = ten_choices()
    table = TabledProfiler(CostTable(space, [(("c0",), [1, 2, 3, 4])]), "budget")
    with pytest.raises(ProfilerError, match="the column 'budget' is for strategies"):
        Search(space, Random(), curve, profilers=[table])


@pytest.mark.parametrize(
    "strategy",
    [ASHA(rungs(1, 27)), Hyperband(rungs(1, 27)), SuccessiveHalving(rungs(1, 27))],
    ids=lambda each: type(each).__name__,
)
def test_beats_random_search_at_equal_cost(strategy: Strategy) -> None:
    """What full trainings of as much budget find, on curves whose order is nearly known early."""

    def best(search: Strategy, seed: int, spend: float) -> float:
        space = ten_choices()
        search.setup(context_for(space, seed=seed))
        found = -np.inf
        while spend > 0:
            batch = search.ask(1)
            budget = float(batch.columns["budget"][0]) if "budget" in batch.columns else 27.0
            final = float(batch.codes.sum())
            early = final + 2.0 * (1.0 - budget / 27.0) * float(np.sin(batch.codes @ np.arange(10.0)).item())
            search.tell(Outcomes(batch, [Status.COMPLETED], np.array([[early]])))
            found = max(found, final if budget == 27.0 else -np.inf)
            spend -= budget
        return found

    ours = [best(strategy, seed, 30 * 27.0) for seed in range(10)]
    theirs = [best(Random(), seed, 30 * 27.0) for seed in range(10)]
    assert np.mean(ours) > np.mean(theirs) + 1.0


def test_who_goes_on_is_not_ranked_again() -> None:
    space = ten_choices()
    first = TabledProfiler(CostTable(space, [(("c0",), [0.0, 1.0, 2.0, 3.0])]), "first")
    for strategy in EVERY:
        result = Search(space, Chain(strategy, Rank(first, groups_of=4)), curve, progress=False).run(trials=60)
        resumed = [trial for trial in result.trials if trial.metrics["resumed"] >= 0]
        assert len(resumed) >= 8
        assert all(trial.columns["first"] == trial.architecture["c0"] for trial in result.trials)
        ranked = [trial.architecture["c0"] for trial in result.trials if trial.metrics["resumed"] < 0]
        assert np.mean(ranked) > 2.0  # 1.5 without a Rank
