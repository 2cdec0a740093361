"""NSGA2: its contract, fronts and crowding by definition, limits by dominance, and against random search."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nasmw import Chain, Choice, CostTable, Filter, Search, Space, TabledProfiler, Trial
from nasmw.candidates import Candidates, Floats
from nasmw.profiler import Profiler
from nasmw.result import pareto_front
from nasmw.strategies import NSGA2, Random
from nasmw.strategies.nsga2 import crowding, ranks
from nasmw.strategy import Strategy
from nasmw.testing import StrategyContract, drive, scored, toy_space
from nasmw.testing.strategies import context_for


class TestNSGA2(StrategyContract):
    def make(self) -> Strategy:
        return NSGA2(population=8)


class TestNSGA2WithTwoObjectives(StrategyContract):
    objectives = 2

    def make(self) -> Strategy:
        return NSGA2(population=8, crossover=0.5, mutation_probability=0.2)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"population": 1}, ValueError, "NSGA2: population is at least 2, got 1"),
        ({"population": "many"}, TypeError, "NSGA2: population is a whole number, got 'many'"),
        ({"crossover": 2}, ValueError, "NSGA2: crossover is from 0 to 1, got 2"),
        ({"mutation_probability": -0.5}, ValueError, "NSGA2: mutation_probability is from 0 to 1"),
    ],
)
def test_arguments(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        NSGA2(**arguments)


small = st.integers(0, 3).map(float)


@given(st.lists(st.tuples(small, small, st.sampled_from([0.0, 0.0, 0.5, 1.0])), min_size=1, max_size=25))
def test_ranks_are_fronts_that_are_peeled_off(members: list[tuple[float, float, float]]) -> None:
    scores, violations = np.array([m[:2] for m in members]), np.array([m[2] for m in members])
    found = ranks(scores, violations)

    def dominates(i: int, j: int) -> bool:
        if violations[i] != violations[j]:
            return bool(violations[i] < violations[j])
        if violations[i] > 0:
            return False
        return bool((scores[i] >= scores[j]).all() and (scores[i] > scores[j]).any())

    left = set(range(len(members)))
    front = 0
    while left:
        now = {j for j in left if not any(dominates(i, j) for i in left)}
        assert now == {j for j in range(len(members)) if found[j] == front}
        left -= now
        front += 1


def test_the_first_front_is_the_pareto_front() -> None:
    scores = np.random.default_rng(0).random((60, 3))
    assert np.array_equal(ranks(scores, np.zeros(60)) == 0, pareto_front(scores))


def test_crowding_is_the_size_of_the_gap() -> None:
    scores = np.array([[0.0, 4.0], [1.0, 3.0], [2.0, 1.0], [4.0, 0.0], [9.0, 9.0]])
    fronts = np.array([0, 0, 0, 0, 1])
    found = crowding(scores, fronts)
    assert np.isinf(found[[0, 3, 4]]).all()
    assert found[1:3] == pytest.approx([2 / 4 + 3 / 4, 3 / 4 + 3 / 4])
    assert crowding(np.full((2, 1), np.nan), np.zeros(2, dtype=int)).tolist() == [0.0, 0.0]


def test_survivors_are_the_best_fronts() -> None:
    space = toy_space()
    strategy = NSGA2(population=10)
    strategy.setup(context_for(space, objectives=2))
    told: list[Floats] = []
    for _ in range(3):
        batch = strategy.ask(10)
        outcomes = scored(batch, 2)
        strategy.tell(outcomes)
        told.append(outcomes.scores)
        assert len(strategy._codes) == 10
    both = np.concatenate(told)
    front = {tuple(row) for row in both[pareto_front(both)].tolist()}
    kept = {tuple(row) for row in strategy._scores.tolist()}
    assert kept <= front or front <= kept


def hypervolume(points: Floats) -> float:
    """The area that costs of two kinds dominate, up to (200, 200)."""
    order = points[np.lexsort((points[:, 1], points[:, 0]))]
    area, height = 0.0, 200.0
    for first, second in order.tolist():
        if second < height:
            area += max(200.0 - first, 0.0) * (height - second)
            height = second
    return area


def test_beats_random_search_in_hypervolume() -> None:
    space = Space([Choice(f"c{number}", tuple(range(6))) for number in range(10)])

    def volume(strategy: Strategy, seed: int) -> float:
        asked = drive(strategy, space, 400, seed=seed, objectives=2)
        return hypervolume(-scored(asked, 2).scores)

    ours = [volume(NSGA2(population=30), seed) for seed in range(5)]
    theirs = [volume(Random(), seed) for seed in range(5)]
    assert min(ours) > max(theirs)


class WithoutTable(Profiler):
    """A cost without a table, so that no strategy can promise to keep a limit on it."""

    def __init__(self, space: Space) -> None:
        super().__init__("sum", space=space)

    def _profile_batch(self, candidates: Candidates) -> Floats:
        return candidates.codes.sum(axis=1).astype(np.float64)


def weight(trial: Trial) -> float:
    return float(sum((number + 1) * value for number, value in enumerate(trial.architecture.values())))


def turned_away(strategy: Strategy) -> int:
    space = Space([Choice(f"c{number}", (0, 1, 2, 3)) for number in range(12)])
    chain = Chain(strategy, Filter(WithoutTable(space) <= 8.0))
    result = Search(space, chain, weight, progress=False).run(trials=20)
    assert all(sum(trial.architecture.values()) <= 8 for trial in result.trials)
    return sum(result.funnel.turned_away.values())


def test_violations_lead_towards_what_is_feasible() -> None:
    """Fewer than one in a hundred is within the limit; who violates it less has children."""
    assert turned_away(NSGA2(population=10)) * 5 < turned_away(Random(replacement=False))


def test_limits_with_tables_are_met_by_construction() -> None:
    space = Space([Choice(f"c{number}", (0, 1, 2)) for number in range(10)])
    table = TabledProfiler(CostTable(space, [((f"c{i}",), [1, 2, 3]) for i in range(10)]), "sum")
    strategy = NSGA2(population=10)
    strategy.setup(context_for(space))
    assert strategy.offer(table <= 15)
    assert not strategy.offer(WithoutTable(space) <= 4)
    for _ in range(60):
        batch = strategy.ask(1)
        assert table.profile_batch(batch)[0] <= 15
        strategy.tell(scored(batch))
