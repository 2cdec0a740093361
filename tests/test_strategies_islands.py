"""Islands: small populations, when they rest, how they are merged, and what they find."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from nasmw import CostTable, TabledProfiler
from nasmw.candidates import Candidates, Outcomes, Status
from nasmw.choice import Choice
from nasmw.space import Space
from nasmw.strategies import Evolution, Islands
from nasmw.strategy import Strategy
from nasmw.testing import StrategyContract, TableProfiler, drive, scored, toy_space
from nasmw.testing.strategies import context_for


class TestIslands(StrategyContract):
    def make(self) -> Strategy:
        return Islands(population=6, patience=2)


class TestIslandsWithMutation(StrategyContract):
    def make(self) -> Strategy:
        return Islands(population=4, patience=1, crossover=0.3, mutation_probability=0.3)


def flat_space(choices: int = 12, options: int = 4) -> Space:
    return Space([Choice(f"c{number}", tuple(range(options))) for number in range(choices)])


def told(batch: Candidates, scores: Any) -> Outcomes:
    return Outcomes(batch, [Status.COMPLETED] * len(batch), np.asarray(scores, dtype=float).reshape(len(batch), 1))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"population": 1}, ValueError, "Islands: population is at least 2, got 1"),
        ({"patience": 0}, ValueError, "Islands: patience is at least 1, got 0"),
        ({"crossover": 1.1}, ValueError, "Islands: crossover is from 0 to 1, got 1.1"),
        ({"mutation_probability": "x"}, TypeError, "mutation_probability is a number from 0 to 1, got 'x'"),
    ],
)
def test_arguments(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        Islands(**arguments)


def test_wants_one_objective() -> None:
    with pytest.raises(ValueError, match=r"Islands maximises one objective.*Reward"):
        Islands().setup(context_for(toy_space(), objectives=2))


def test_waits_for_its_first_members() -> None:
    strategy = Islands(population=5)
    strategy.setup(context_for(flat_space()))
    batch = strategy.ask(8)
    assert len(batch) == 5
    assert not len(strategy.ask(1))
    strategy.tell(scored(batch[:4]))
    assert not len(strategy.ask(1))
    strategy.tell(Outcomes.turned_away(batch[4:], Status.FAILED, ["no"], 1))
    again = strategy.ask(8)
    assert len(again) == 1  # in place of that which failed
    strategy.tell(scored(again))
    assert len(strategy.ask(8)) == 8


def test_the_best_survive() -> None:
    space = flat_space()
    asked = drive(strategy := Islands(population=7, patience=1000), space, 300, n=20)
    costs = TableProfiler(space).profile_batch(asked)
    best = asked.codes[np.argsort(costs, kind="stable")[:7]]
    assert {member.tobytes() for member in strategy._living.members} == {row.tobytes() for row in best}


@pytest.mark.parametrize("n", [1, 60])
def test_children_of_two_parents_stay_as_they_are_where_they_are_new(n: int) -> None:
    space = flat_space(20, 50)
    strategy = Islands(population=2, crossover=1.0, patience=1000)
    strategy.setup(context_for(space))
    parents = strategy.ask(2)
    strategy.tell(scored(parents))
    first, second = parents.codes
    children = np.concatenate([strategy.ask(n).codes for _ in range(120 // n)])
    strange = ((children != first) & (children != second)).sum(axis=1)
    both = np.array([(child == first).any() and (child == second).any() for child in children])
    assert (strange == 0).sum() > 40  # of half of the pairs, which are not one parent twice
    assert set(strange[~both]) <= {1, 2}


def test_populations_rest_and_are_merged_as_digits_of_a_counter() -> None:
    """With equal scores nothing is ever better: each population rests as soon as it may."""
    space = flat_space()
    strategy = Islands(population=4, patience=2)
    strategy.setup(context_for(space))
    seen = []
    for _ in range(400):
        batch = strategy.ask(4)
        strategy.tell(told(batch, np.zeros(len(batch))))
        state = [each.parts for each in strategy._resting], strategy._living.parts
        if not seen or seen[-1] != state:
            seen.append(state)
    first_eight = [
        ([], 1),
        ([1], 1),
        ([], 2),
        ([2], 1),
        ([2, 1], 1),
        ([2], 2),
        ([], 4),
        ([4], 1),
    ]
    assert seen[:8] == first_eight
    assert len(strategy._living.members) <= 4 * strategy._living.parts


def test_a_merged_population_is_both() -> None:
    space = flat_space()
    strategy = Islands(population=4, patience=1)
    strategy.setup(context_for(space))
    while strategy._living.parts == 1:
        before = [*strategy._resting, strategy._living]
        batch = strategy.ask(4)
        strategy.tell(told(batch, np.full(len(batch), -float(batch.ids[0]))))  # ever worse
    union = {row.tobytes() for each in before for row in each.members}
    assert {row.tobytes() for row in strategy._living.members} == union
    assert len(union) == 8


def test_children_of_a_population_that_rests_do_not_join_the_next() -> None:
    space = flat_space()
    strategy = Islands(population=4, patience=1)
    strategy.setup(context_for(space))
    strategy.tell(told(first := strategy.ask(4), np.zeros(len(first))))
    late, children = strategy.ask(3), strategy.ask(4)
    strategy.tell(told(children, np.zeros(4)))  # now it rests
    assert [each.parts for each in strategy._resting] == [1] and not strategy._living.members
    strategy.tell(told(late, np.full(3, 1e9)))
    assert not strategy._living.members
    assert len(strategy.ask(9)) == 4


def test_what_is_adopted_is_the_first_population() -> None:
    space = toy_space()
    strategy = Islands(population=6)
    strategy.setup(context_for(space))
    known = space.at(range(100))
    strategy.adopt(scored(known))
    best = np.argsort(TableProfiler(space).profile_batch(known), kind="stable")[:6]
    assert {row.tobytes() for row in strategy._living.members} == {known.codes[place].tobytes() for place in best}
    asked = strategy.ask(50)
    assert len(asked) == 50
    assert not set(asked.row_keys()) & set(known.row_keys())


@pytest.mark.parametrize("n", [3, 30])
def test_asks_for_everything_once(n: int) -> None:
    space = Space([Choice("a", (0, 1, 2)), Choice("b", tuple(range(9)), when={"a": (1, 2)}), Choice("c", (0, 1, 2))])
    strategy = Islands(population=5, patience=2)
    asked = drive(strategy, space, 1000, n=n)
    assert len(asked) == len(set(asked.row_keys())) == space.size == 57
    assert strategy.exhausted


@pytest.mark.parametrize("n", [1, 40])
def test_keeps_limits(n: int) -> None:
    space = flat_space(10, 3)
    table = TabledProfiler(CostTable(space, [((f"c{i}",), [1, 2, 3]) for i in range(10)]), "sum")
    strategy = Islands(population=10)
    strategy.setup(context_for(space))
    assert strategy.offer(table <= 15)
    best = 0.0
    for _ in range(400 // n):
        batch = strategy.ask(n)
        assert table.profile_batch(batch).max() <= 15
        weight = (batch.codes * np.arange(1, 11)).sum(axis=1)
        strategy.tell(told(batch, weight))
        best = max(best, float(weight.max()))
    # Five units to give away, at most two to a choice: 10 + 10 + 9 + 9 + 8.
    assert best == 46.0


def rugged(batch: Candidates) -> Outcomes:
    """Five traps of four choices each: all at option 3 is best, and else the fewer ups the better."""
    ups = (batch.codes.reshape(len(batch), 5, 4) == 3).sum(axis=2)
    return told(batch, np.where(ups == 4, 5, 3 - ups).sum(axis=1))


def test_beats_one_population_where_there_are_local_optima() -> None:
    space = flat_space(20, 4)

    def best(strategy: Strategy) -> float:
        found = []
        for seed in range(6):
            asked = drive(strategy, space, 6000, n=50, seed=seed, outcomes=rugged)
            found.append(float(rugged(asked.with_ids(np.arange(len(asked)))).scores.max()))
        return float(np.mean(found))

    ours = best(Islands(population=20))
    assert ours > best(Islands(population=20, patience=10**6)) + 1.0
    assert ours > best(Evolution(population=100, crossover=0.9, repeats=False)) + 1.0
