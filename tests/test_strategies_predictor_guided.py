"""PredictorGuided: its contract, the Gaussian process against its definition, limits, and against random search."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from nasmw import Choice, CostTable, Profiler, Space, TabledProfiler
from nasmw.candidates import Candidates, Floats, Outcomes, Status
from nasmw.strategies import PredictorGuided, Random
from nasmw.strategies.gaussian import GaussianProcess, normal_scores
from nasmw.strategy import Strategy
from nasmw.testing import StrategyContract, TableProfiler, drive, toy_space
from nasmw.testing.strategies import context_for


class TestPredictorGuided(StrategyContract):
    def make(self) -> Strategy:
        return PredictorGuided(startup=6, candidates=30)


class TestPredictorGuidedByThompsonSampling(StrategyContract):
    def make(self) -> Strategy:
        return PredictorGuided(startup=2, candidates=12, parents=3, acquisition="thompson", observations=8)


class Sum(Profiler):
    """The sum of the codes, of any space."""

    def _profile_batch(self, candidates: Candidates) -> Floats:
        return candidates.codes.sum(axis=1).astype(float)


class TestPredictorGuidedWithFeatures(StrategyContract):
    def make(self) -> Strategy:
        return PredictorGuided(startup=4, candidates=20, features=[Sum("sum")])


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"startup": 0}, ValueError, "PredictorGuided: startup is at least 1, got 0"),
        ({"candidates": 0}, ValueError, "PredictorGuided: candidates is at least 1"),
        ({"parents": 1.0}, TypeError, "PredictorGuided: parents is a whole number, got 1.0"),
        ({"observations": 1}, ValueError, "PredictorGuided: observations is at least 2, got 1"),
        ({"acquisition": "luck"}, ValueError, "'improvement' or 'thompson', got 'luck'"),
    ],
)
def test_arguments(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        PredictorGuided(**arguments)


def test_wants_one_objective() -> None:
    with pytest.raises(ValueError, match="PredictorGuided maximises one objective"):
        PredictorGuided().setup(context_for(toy_space(), objectives=2))


def test_features_are_fixed_profilers() -> None:
    measured = TableProfiler(toy_space(), "latency")
    measured.kind = "measured"
    with pytest.raises(ValueError, match="'latency'.* is measured, not fixed.*Rank"):
        PredictorGuided(features=[measured])
    with pytest.raises(TypeError, match="expected a Profiler, got 'params'"):
        PredictorGuided(features=["params"])  # type: ignore[list-item]
    profiler = TableProfiler(toy_space(), "cost")
    assert PredictorGuided(features=profiler).profilers == (profiler,)


def test_a_feature_that_says_it_all_helps() -> None:
    """Where scores follow from a cost that no choice decides on alone, knowing the cost leads to the best."""
    space = Space([Choice(f"c{number}", tuple(range(4))) for number in range(6)])
    costs = np.random.default_rng(5).permutation(4**6).reshape((4,) * 6).astype(float)
    cost = TabledProfiler(CostTable(space, [(space.names, costs)]), "cost")

    def told(batch: Candidates) -> Outcomes:
        return Outcomes(batch, [Status.COMPLETED] * len(batch), cost.profile_batch(batch)[:, None])

    with_cost = drive(PredictorGuided(features=cost), space, 60, outcomes=told)
    without = drive(PredictorGuided(), space, 60, outcomes=told)
    assert cost.profile_batch(with_cost)[40:].mean() > cost.profile_batch(without)[40:].mean() + 500


def test_normal_scores_look_at_ranks_alone() -> None:
    values = np.array([3.0, -1e9, 5.0, 3.0, 4.0])
    scores = normal_scores(values)
    assert scores[0] == scores[3]
    assert list(np.argsort(scores, kind="stable")) == [1, 0, 3, 4, 2]
    assert np.array_equal(scores, normal_scores(np.exp(np.minimum(values, 5.0)) + 7.0))
    assert normal_scores(np.array([2.0])).tolist() == pytest.approx([0.0])


def process_of(features: np.ndarray, scores: np.ndarray, most: int, step: int = 1) -> GaussianProcess:
    process = GaussianProcess(most, features.shape[1])
    for start in range(0, len(scores), step):
        for row in range(start, min(start + step, len(scores))):
            process.add(features[row], float(scores[row]))
        process.update()
    return process


def test_the_process_is_what_its_formula_says() -> None:
    """Grown one by one, it predicts as the closed formula does with the same scale and noise."""
    rng = np.random.default_rng(0)
    features = rng.integers(0, 2, (40, 12)).astype(float)
    scores = features @ rng.normal(size=12)
    process = process_of(features, scores, most=100)
    others = rng.integers(0, 2, (15, 12)).astype(float)
    mean, spread = process.predict(others)

    def kernel(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return np.exp(-((a[:, None] - b[None]) ** 2).sum(axis=2) / (2 * process._scale**2))

    inverse = np.linalg.inv(kernel(features, features) + process._noise * np.eye(40))
    targets = normal_scores(scores)
    variance = targets @ inverse @ targets / 40
    across = kernel(others, features)
    assert mean == pytest.approx(across @ inverse @ targets, abs=1e-8)
    expected = variance * (1 - np.einsum("ij,jk,ik->i", across, inverse, across))
    assert spread**2 == pytest.approx(expected, abs=1e-7)


def test_the_process_ranks_what_it_has_not_seen() -> None:
    rng = np.random.default_rng(1)
    features = rng.integers(0, 2, (150, 15)).astype(float)
    scores = features @ rng.normal(size=15) + 2.0 * features[:, 0] * features[:, 1]
    process = process_of(features[:100], scores[:100], most=300)
    mean, spread = process.predict(features[100:])
    order = np.corrcoef(np.argsort(np.argsort(mean)), np.argsort(np.argsort(scores[100:])))[0, 1]
    assert order > 0.9
    _, at_known = process.predict(features[:100])
    assert at_known.mean() < spread.mean()


def test_observations_are_bounded() -> None:
    """The best stay, whatever came after them, and so do the latest."""
    rng = np.random.default_rng(2)
    features = rng.random((400, 5))
    scores = rng.random(400)
    process = process_of(features, scores, most=40, step=7)
    assert len(process) == 400
    assert len(process._used) <= 40 + 64
    assert {int(i) for i in np.argsort(-scores)[:20] if i < 330} <= set(process._used.tolist())
    assert process.top(3) == np.argsort(-scores)[:3].tolist()
    assert np.isfinite(process.predict(features)[0]).all()


def test_limits_are_met() -> None:
    space = Space([Choice(f"c{number}", (0, 1, 2)) for number in range(10)])
    table = TabledProfiler(CostTable(space, [((f"c{i}",), [1, 2, 3]) for i in range(10)]), "sum")
    strategy = PredictorGuided(startup=10)
    strategy.setup(context_for(space))
    assert strategy.offer(table <= 15)
    best = 0.0
    for _ in range(80):
        batch = strategy.ask(1)
        assert table.profile_batch(batch)[0] <= 15
        weight = float((batch.codes * np.arange(1, 11)).sum())
        strategy.tell(Outcomes(batch, [Status.COMPLETED], np.array([[weight]])))
        best = max(best, weight)
    assert best == 46.0


@pytest.mark.parametrize("acquisition", ["improvement", "thompson"])
def test_beats_random_search(acquisition: Any) -> None:
    space = Space([Choice(f"c{number}", tuple(range(6))) for number in range(16)])

    def best(strategy: Strategy, seed: int) -> float:
        return float(TableProfiler(space).profile_batch(drive(strategy, space, 150, seed=seed)).min())

    ours = [best(PredictorGuided(acquisition=acquisition), seed) for seed in range(4)]
    theirs = [best(Random(), seed) for seed in range(4)]
    assert max(ours) < min(theirs)
