"""PolicyGradient: its contract, what limits leave of the policy, its gradient, and against random search."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from nasmw import Chain, CostTable, Filter, Reward, Search, TabledProfiler, Trial
from nasmw.candidates import Candidates, Outcomes, Status
from nasmw.choice import Choice
from nasmw.errors import ConstraintError
from nasmw.space import Space
from nasmw.strategies import PolicyGradient, Random
from nasmw.strategies.controller import Course
from nasmw.strategy import Strategy
from nasmw.testing import StrategyContract, TableProfiler, drive, scored, toy_space
from nasmw.testing.strategies import context_for

TINY = Space(
    [
        Choice("kind", ("conv", "pool")),
        Choice("width", (1, 2, 3)),
        Choice("kernel", (1, 3, 5), when={"kind": "conv"}),
    ]
)
SIZE = TabledProfiler(
    CostTable(TINY, [(("kind", "kernel"), [[1, 3, 5], [0, 0, 0]]), (("width",), [1, 2, 4])]), name="size"
)
LOAD = TabledProfiler(CostTable(TINY, [(("kind",), [0.5, 2.5]), (("width",), [3.1, 1.7, 0.2])]), name="load")


class TestPolicyGradient(StrategyContract):
    def make(self) -> Strategy:
        return PolicyGradient(batch=4, learning_rate=0.02)


class TestPolicyGradientClipped(StrategyContract):
    def make(self) -> Strategy:
        return PolicyGradient(batch=6, clip=0.2, epochs=3, hidden=16)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"batch": 0}, ValueError, "PolicyGradient: batch is at least 1, got 0"),
        ({"learning_rate": 0.0}, ValueError, "PolicyGradient: learning_rate is finite and above 0"),
        ({"entropy": "much"}, TypeError, "PolicyGradient: entropy is a number from 0 to 1"),
        ({"baseline": 2}, ValueError, "PolicyGradient: baseline is from 0 to 1, got 2"),
        ({"clip": -0.2}, ValueError, "PolicyGradient: clip is finite and above 0"),
        ({"epochs": 3}, ValueError, "several epochs go far.*give clip=0.2 as well, or epochs=1, got 3"),
        ({"hidden": 1.5}, TypeError, "PolicyGradient: hidden is a whole number"),
    ],
)
def test_arguments(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        PolicyGradient(**arguments)


def test_wants_one_objective() -> None:
    with pytest.raises(ValueError, match="PolicyGradient maximises one objective.*Reward"):
        PolicyGradient().setup(context_for(toy_space(), objectives=2))


def started(*terms: Any, learned: int = 0, **settings: Any) -> PolicyGradient:
    """Return a strategy in the tiny space, with weights that are not those of the start."""
    strategy = PolicyGradient(**{"hidden": 4, "batch": 4, "learning_rate": 0.1, **settings})
    strategy.setup(context_for(TINY))
    for term in terms:
        assert strategy.offer(term)
    for _ in range(learned):
        strategy.tell(scored(strategy.ask(4)))
    return strategy


def everything(strategy: PolicyGradient) -> Iterator[Course]:
    """Yield the courses to all architectures that the policy can give."""
    waiting: list[list[int]] = [[]]
    while waiting:
        places = waiting.pop()
        made: list[int] = []

        def decide(_: int, options: Any, probabilities: Any, places: list[int] = places, made: list[int] = made) -> int:
            if len(made) == len(places):
                waiting.extend([*places, *made[len(places) :], place] for place in range(1, len(options)))
                places.append(0)
            made.append(places[len(made)])
            return made[-1]

        yield strategy._course(decide)


@pytest.mark.parametrize(
    "terms",
    [(), (SIZE <= 5,), (LOAD <= 3.0,), (SIZE <= 6, LOAD <= 3.0), (SIZE >= 4, SIZE <= 6)],
    ids=["no limit", "whole", "fractions", "two", "between"],
)
def test_the_policy_is_a_distribution_over_the_feasible(terms: tuple[Any, ...]) -> None:
    """All feasible architectures, none else, have probabilities that sum to one; so often are they drawn."""
    strategy = started(*terms, learned=20)
    courses = list(everything(strategy))
    space = TINY.at(range(TINY.size))
    held = np.ones(len(space), dtype=bool)
    for term in terms:
        held &= term.holds(term.profiler.profile_batch(space))
    keys = [course.codes.astype(TINY.dtype).tobytes() for course in courses]
    assert len(keys) == len(set(keys)) and set(keys) == {
        row.tobytes() for row in np.ascontiguousarray(space.codes[held])
    }
    probabilities = strategy._controller.read(courses)[0].exp().detach().numpy()
    assert math.isclose(probabilities.sum(), 1.0, rel_tol=1e-12)
    assert np.allclose(probabilities, [math.exp(course.log_probability) for course in courses], rtol=1e-10)
    drawn = strategy.ask(3000).row_keys()
    expected = 3000 * probabilities
    counts = np.array([drawn.count(key) for key in keys])
    common = expected > 5
    chi_square = ((counts - expected) ** 2 / expected)[common].sum()
    assert counts.sum() == 3000
    assert chi_square < 35  # below 0.1 % at 12 degrees of freedom


@pytest.mark.parametrize("terms", [(), (SIZE <= 5, LOAD <= 4.0)], ids=["no limit", "two limits"])
@pytest.mark.parametrize("clip", [None, 0.2])
def test_gradient_is_that_of_the_expected_score(terms: tuple[Any, ...], clip: float | None) -> None:
    """The mean of the estimate over the policy is the derivative of the exact expected score, by finite differences."""
    strategy = started(*terms, learned=3, clip=clip)
    courses = list(everything(strategy))
    scores = [math.sin(7.0 * number) for number in range(len(courses))]
    parameters = strategy._controller.parameters

    def expected() -> float:
        with torch.no_grad():
            probabilities = strategy._controller.read(courses)[0].exp()
        return float((probabilities * torch.tensor(scores)).sum())

    probabilities = [math.exp(course.log_probability) for course in courses]
    estimate = [torch.zeros_like(parameter) for parameter in parameters]
    for course, score, probability in zip(courses, scores, probabilities, strict=True):
        gain, _ = strategy._gain([course], [score - 0.3])  # any baseline
        gradients = torch.autograd.grad(gain.sum(), parameters, allow_unused=True)
        for total, gradient in zip(estimate, gradients, strict=True):
            total += 0.0 if gradient is None else probability * gradient
    rng = np.random.default_rng(0)
    checked = 0
    for parameter, total in zip(parameters, estimate, strict=True):
        for place in rng.choice(parameter.numel(), min(6, parameter.numel()), replace=False).tolist():
            values = parameter.data.view(-1)
            kept = values[place].item()
            values[place] = kept + 1e-5
            above = expected()
            values[place] = kept - 1e-5
            below = expected()
            values[place] = kept
            assert math.isclose(total.view(-1)[place].item(), (above - below) / 2e-5, rel_tol=1e-4, abs_tol=1e-9)
            checked += abs(above - below) > 1e-9
    assert checked > 10


def test_advantages_are_relative_to_what_was_told_before() -> None:
    strategy = started(baseline=0.5)
    assert strategy._advantages([1.0, 3.0]) == [-2.0, 2.0]  # each against the other, in deviations of 1
    assert strategy._advantages([4.0, 2.0]) == [2.0, 0.0]  # against the mean of 2, whatever the scores now are
    assert strategy._advantages([2.5]) == [0.0]
    assert strategy._advantages([2.5])[0] == 0.0
    assert started()._advantages([5.0, 5.0]) == [0.0, 0.0]


def test_what_has_no_score_teaches_nothing() -> None:
    """Failures leave the policy as it is, and so do scores of another run."""
    strategy = started()

    def policy() -> list[float]:
        return [course.log_probability for course in everything(strategy)]

    before = policy()
    for _ in range(10):
        batch = strategy.ask(2)
        strategy.tell(Outcomes.turned_away(batch, Status.FAILED, ["no"] * 2, 1))
        strategy.tell(Outcomes.turned_away(strategy.ask(1), Status.INFEASIBLE, ["no"], 1, -math.inf))
    strategy.adopt(scored(TINY.sample(20, np.random.default_rng(0)).with_ids(np.arange(20))))
    assert policy() == before
    strategy.tell(scored(strategy.ask(4)))
    assert policy() != before


def test_entropy_keeps_it_exploring() -> None:
    def spread(entropy: float) -> int:
        space = Space([Choice(f"c{number}", (0, 1, 2)) for number in range(4)])
        return len(set(drive(PolicyGradient(entropy=entropy), space, 200).row_keys()[-80:]))

    assert spread(1.0) > 2 * spread(0.0)


def test_limits_are_met_and_learned_within() -> None:
    space = Space([Choice(f"c{number}", (0, 1, 2)) for number in range(10)])
    table = TabledProfiler(CostTable(space, [((f"c{i}",), [1, 2, 3]) for i in range(10)]), "sum")
    strategy = PolicyGradient()
    strategy.setup(context_for(space))
    assert strategy.offer(table <= 15)
    weights: list[float] = []
    for _ in range(60):
        batch = strategy.ask(8)
        assert (table.profile_batch(batch) <= 15).all()
        weights += (batch.codes * np.arange(1, 11)).sum(axis=1).tolist()
        strategy.tell(Outcomes(batch, [Status.COMPLETED] * 8, np.array(weights[-8:])[:, None]))
    assert np.mean(weights[-80:]) > np.mean(weights[:80]) + 8
    assert not strategy.offer(table <= 14)  # too late: candidates beyond it are on their way


def test_limits_that_leave_nothing() -> None:
    strategy = started(SIZE <= 0)
    with pytest.raises(ConstraintError, match="No architecture meets size <= 0"):
        strategy.ask(1)


def test_measured_limits_are_not_promised() -> None:
    strategy = started()
    assert not strategy.offer(TableProfiler(TINY) <= 5)


def test_beats_random_search() -> None:
    space = Space([Choice(f"c{number}", tuple(range(6))) for number in range(10)])

    def best(strategy: Strategy, seed: int) -> float:
        return float(TableProfiler(space).profile_batch(drive(strategy, space, 300, n=8, seed=seed)).min())

    ours = [best(PolicyGradient(), seed) for seed in range(4)]
    theirs = [best(Random(), seed) for seed in range(4)]
    assert max(ours) < min(theirs)  # by chance once in 70 times


def test_learns_when_told_late() -> None:
    """Candidates that were drawn some steps of learning ago still point the right way."""
    space = Space([Choice(f"c{number}", tuple(range(4))) for number in range(6)])
    strategy = PolicyGradient()
    strategy.setup(context_for(space))
    waiting: list[Candidates] = []
    values: list[float] = []
    for _ in range(70):
        waiting.append(strategy.ask(8))
        values += TableProfiler(space).profile_batch(waiting[-1]).tolist()
        if len(waiting) > 4:
            strategy.tell(scored(waiting.pop(0)))
    assert np.mean(values[-80:]) < np.mean(values[:80]) - 10


def test_learns_what_several_metrics_are_worth() -> None:
    space = toy_space()
    cost = TableProfiler(space)

    def evaluate(trial: Trial) -> float:
        return float(trial.architecture["width"])

    def worth(metrics: dict[str, float]) -> float:
        return metrics["accuracy"] * (metrics["cost"] / 20) ** -1.0

    chain = Chain(PolicyGradient(), Filter(cost <= 60), Reward(worth, cost))
    result = Search(space, chain, evaluate, profilers=[cost], progress=False).run(trials=160)
    values = [worth({**trial.metrics, **trial.columns}) for trial in result.trials]
    assert np.mean(values[-40:]) > 1.2 * np.mean(values[:40])
    assert all(trial.columns["cost"] <= 60 for trial in result.trials)
