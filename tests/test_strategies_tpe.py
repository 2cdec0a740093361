"""TPE: its contract, what it counts, conditional choices, limits, and against random search."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from nasmw import CostTable, TabledProfiler
from nasmw.candidates import Candidates, Outcomes, Status
from nasmw.choice import Choice
from nasmw.space import Space
from nasmw.strategies import TPE, Random
from nasmw.strategies.encoding import Options
from nasmw.strategy import Strategy
from nasmw.testing import StrategyContract, TableProfiler, drive, scored, toy_space
from nasmw.testing.strategies import context_for


class TestTPE(StrategyContract):
    def make(self) -> Strategy:
        return TPE(startup=8)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"startup": 0}, ValueError, "TPE: startup is at least 1, got 0"),
        ({"gamma": 1.5}, ValueError, "TPE: gamma is from 0 to 1, got 1.5"),
        ({"gamma": "much"}, TypeError, "TPE: gamma is a number from 0 to 1, got 'much'"),
        ({"most": 0}, ValueError, "TPE: most is at least 1"),
        ({"candidates": 2.5}, TypeError, "TPE: candidates is a whole number"),
        ({"prior": 0}, ValueError, "TPE: prior is finite and above 0, got 0"),
        ({"prior": float("inf")}, ValueError, "TPE: prior is finite and above 0, got inf"),
    ],
)
def test_arguments(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        TPE(**arguments)


def test_wants_one_objective() -> None:
    with pytest.raises(ValueError, match="TPE maximises one objective.*Reward"):
        TPE().setup(context_for(toy_space(), objectives=2))


def test_draws_are_in_proportion_to_weights() -> None:
    space = toy_space()
    options = Options(space)
    assert options.total == sum(len(choice.options) for choice in space.choices)
    weights = np.ones(options.total)
    weights[:4] = 1.0, 2.0, 3.0, 4.0  # width
    weights[4:7] = 0.0, 1.0, 0.0  # depth
    drawn = options.draw(weights, 5000, np.random.default_rng(0))
    assert np.array_equal(drawn, space.canonical(drawn))
    assert (drawn[:, 1] == 1).all()
    counts = np.bincount(drawn[:, 0], minlength=4)
    expected = 5000 * np.array([0.1, 0.2, 0.3, 0.4])
    assert ((counts - expected) ** 2 / expected).sum() < 16.3  # 0.1 % at 3 degrees of freedom


def test_numbers_and_ones_leave_inactive_choices_out() -> None:
    space = Space([Choice("a", (0, 1)), Choice("b", (0, 1, 2), when={"a": 1})])
    options = Options(space)
    codes = space.candidates([{"a": 0}, {"a": 1, "b": 0}, {"a": 1, "b": 2}]).codes
    assert options.numbers(codes).tolist() == [[0, 5], [1, 2], [1, 4]]
    assert options.ones(codes).tolist() == [[1, 0, 0, 0, 0], [0, 1, 1, 0, 0], [0, 1, 0, 0, 1]]
    assert options.sums(np.array([1.0, 2.0, 3.0, 4.0, 5.0])).tolist() == [3.0, 3.0, 12.0, 12.0, 12.0]


def test_prefers_what_good_ones_have() -> None:
    """After being told that one option is good and one bad, it asks for the good one nearly always."""
    space = Space([Choice("key", (0, 1, 2)), *(Choice(f"noise{i}", tuple(range(8))) for i in range(6))])

    def by_key(batch: Candidates) -> Outcomes:
        noise = np.random.default_rng(len(batch)).random(len(batch)) * 0.1
        return Outcomes(batch, [Status.COMPLETED] * len(batch), ((batch.codes[:, 0] == 1) + noise)[:, None])

    asked = drive(TPE(startup=30, gamma=0.2), space, 150, outcomes=by_key)
    assert (asked.codes[:30, 0] == 1).mean() < 0.6
    assert (asked.codes[60:, 0] == 1).mean() > 0.9


def test_learns_within_branches() -> None:
    """A conditional choice is counted where it is active only."""
    space = Space(
        [
            Choice("kind", ("conv", "pool")),
            *(Choice(f"k{i}", (1, 3, 5, 7), when={"kind": "conv"}) for i in range(5)),
            Choice("size", (2, 3, 4), when={"kind": "pool"}),
        ]
    )

    def value(batch: Candidates) -> Outcomes:
        score = np.where(batch.codes[:, 0] == 0, (batch.codes[:, 1:6] == 2).sum(axis=1), 0.0)
        return Outcomes(batch, [Status.COMPLETED] * len(batch), score[:, None].astype(float))

    found = [value(drive(TPE(), space, 150, seed=seed, outcomes=value)).scores.max() for seed in range(5)]
    assert min(found) == 5.0


def test_what_says_nothing_does_not_count() -> None:
    """Duplicates and skipped ones leave the counts as they were; failed ones count among the others."""
    space = toy_space()
    strategy = TPE(startup=4)
    strategy.setup(context_for(space))
    strategy.tell(scored(strategy.ask(4)))
    before = strategy._counts.copy()
    for status, changed in ((Status.DUPLICATE, False), (Status.SKIPPED, False), (Status.FAILED, True)):
        batch = strategy.ask(2)
        strategy.tell(Outcomes.turned_away(batch, status, ["no"] * 2, 1))
        assert (not np.array_equal(strategy._counts, before)) == changed


def test_limits_are_met() -> None:
    space = Space([Choice(f"c{number}", (0, 1, 2)) for number in range(10)])
    table = TabledProfiler(CostTable(space, [((f"c{i}",), [1, 2, 3]) for i in range(10)]), "sum")
    strategy = TPE(startup=10)
    strategy.setup(context_for(space))
    assert strategy.offer(table <= 15)
    best = 0.0
    for _ in range(150):
        batch = strategy.ask(1)
        assert table.profile_batch(batch)[0] <= 15
        weight = float((batch.codes * np.arange(1, 11)).sum())
        strategy.tell(Outcomes(batch, [Status.COMPLETED], np.array([[weight]])))
        best = max(best, weight)
    assert best >= 45.0  # of 46


def test_beats_random_search() -> None:
    space = Space([Choice(f"c{number}", tuple(range(6))) for number in range(16)])

    def best(strategy: Strategy, seed: int) -> float:
        return float(TableProfiler(space).profile_batch(drive(strategy, space, 300, seed=seed)).min())

    ours = [best(TPE(), seed) for seed in range(5)]
    theirs = [best(Random(), seed) for seed in range(5)]
    assert max(ours) < min(theirs)
