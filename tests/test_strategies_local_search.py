"""LocalSearch: its contract, the algorithm, restarts, limits, and against random search."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from nasmw import CostTable, TabledProfiler
from nasmw.candidates import Candidates, Outcomes, Status
from nasmw.choice import Choice
from nasmw.space import Space
from nasmw.strategies import LocalSearch, Random
from nasmw.strategy import Strategy
from nasmw.testing import StrategyContract, TableProfiler, drive, scored, toy_space
from nasmw.testing.strategies import context_for


class TestLocalSearch(StrategyContract):
    def make(self) -> Strategy:
        return LocalSearch(initial=4)


class TestLocalSearchSteepest(StrategyContract):
    def make(self) -> Strategy:
        return LocalSearch(initial=1, steepest=True)


def flat_space(choices: int = 8, options: int = 3) -> Space:
    return Space([Choice(f"c{number}", tuple(range(options))) for number in range(choices)])


def costs(space: Space, asked: Candidates) -> np.ndarray:
    return TableProfiler(space).profile_batch(asked)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"initial": 0}, ValueError, "LocalSearch: initial is at least 1, got 0"),
        ({"initial": 1.5}, TypeError, "LocalSearch: initial is a whole number, got 1.5"),
        ({"steepest": 1}, TypeError, "LocalSearch: steepest is True or False, got 1"),
    ],
)
def test_arguments(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        LocalSearch(**arguments)


def test_wants_one_objective() -> None:
    with pytest.raises(ValueError, match=r"LocalSearch maximises one objective.*score1.*Reward"):
        LocalSearch().setup(context_for(toy_space(), objectives=2))


def test_steepest_follows_the_algorithm() -> None:
    """All neighbours of a centre are asked for, then it moves to the best one, until none is better."""
    space = flat_space()
    asked = drive(LocalSearch(initial=1, steepest=True), space, 200, seed=1)
    cost = costs(space, asked)
    centre, step = 0, 1
    moves = 0
    known = {asked.codes[0].tobytes()}
    while step < 200:
        near = [row for row in space.neighbours(asked.codes[centre]).codes if row.tobytes() not in known]
        block = asked.codes[step : step + len(near)]
        if len(block) < len(near):
            break
        assert {row.tobytes() for row in block} == {row.tobytes() for row in near}
        known |= {row.tobytes() for row in near}
        neighbours = {row.tobytes() for row in space.neighbours(asked.codes[centre]).codes}
        rows = [place for place in range(step + len(near)) if asked.codes[place].tobytes() in neighbours]
        best = min(rows, key=lambda place: cost[place])
        step += len(near)
        if cost[best] >= cost[centre]:
            break
        centre, moves = best, moves + 1
    assert moves >= 3
    assert cost[centre] == cost.min() == TableProfiler(space).bounds().low


def test_moves_to_the_first_that_is_better() -> None:
    space = flat_space()
    asked = drive(LocalSearch(initial=1), space, 60, seed=3)
    cost = costs(space, asked)
    centre = 0
    for place in range(1, 60):
        distance = int((asked.codes[place] != asked.codes[centre]).sum())
        if distance != 1:
            assert cost[centre] == TableProfiler(space).bounds().low  # it started again
            break
        if cost[place] < cost[centre]:
            centre = place
    assert centre


def test_starts_again_from_a_local_optimum() -> None:
    """With scores that are all equal, nothing is better: a start, its neighbours, a start, its neighbours."""
    space = flat_space(4, 3)

    def equal(batch: Candidates) -> Outcomes:
        return Outcomes(batch, [Status.COMPLETED] * len(batch), np.zeros((len(batch), 1)))

    asked = drive(LocalSearch(initial=1), space, 1000, outcomes=equal)
    assert len(asked) == len(set(asked.row_keys())) == space.size == 81
    distances = (asked.codes[1:9] != asked.codes[0]).sum(axis=1)
    assert (distances == 1).all()


def test_starts_from_the_best_of_several() -> None:
    space = flat_space(12, 4)
    asked = drive(LocalSearch(initial=10), space, 11)
    best = int(costs(space, asked[:10]).argmin())
    assert (asked.codes[10] != asked.codes[best]).sum() == 1


def test_waits_for_its_start() -> None:
    space = flat_space()
    strategy = LocalSearch(initial=3)
    strategy.setup(context_for(space))
    batch = strategy.ask(8)
    assert len(batch) == 3
    assert not len(strategy.ask(1))
    strategy.tell(scored(batch[:2]))
    assert not len(strategy.ask(1))
    strategy.tell(Outcomes.turned_away(batch[2:], Status.FAILED, ["no"], 1))
    assert len(strategy.ask(8)) == 1  # one in place of that which failed


def test_neighbours_keep_limits() -> None:
    space = flat_space(10, 3)
    table = TabledProfiler(CostTable(space, [((f"c{i}",), [1, 2, 3]) for i in range(10)]), "sum")
    strategy = LocalSearch(initial=2)
    strategy.setup(context_for(space))
    assert strategy.offer(table <= 15)
    asked = []
    for _ in range(150):
        batch = strategy.ask(1)
        # More is better, so that the best are at the limit, where single changes do not fit.
        values = table.profile_batch(batch)
        assert values[0] <= 15
        weight = (batch.codes * np.arange(1, 11)).sum(axis=1)
        strategy.tell(Outcomes(batch, [Status.COMPLETED], weight[:, None].astype(float)))
        asked.append(float(weight[0]))
    # Five units to give away, at most two to a choice: 10 + 10 + 9 + 9 + 8.
    assert max(asked) == 46.0


def test_beats_random_search() -> None:
    space = Space([Choice(f"c{number}", tuple(range(6))) for number in range(16)])
    ours = [costs(space, drive(LocalSearch(), space, 400, seed=seed)).min() for seed in range(5)]
    theirs = [costs(space, drive(Random(), space, 400, seed=seed)).min() for seed in range(5)]
    assert max(ours) < min(theirs)
