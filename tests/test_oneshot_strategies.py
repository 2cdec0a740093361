from __future__ import annotations

import itertools
import math
from typing import ClassVar

import numpy as np
import pytest
import torch
from supernets import CLASSES, FEATURES, QUICK, One, Tiny, Two, cost_of, points

from nasmw import Chain, FeasibleSet, Filter, Middleware, Penalize, Search, nn
from nasmw.context import Context
from nasmw.cost import MaxTable
from nasmw.errors import ConstraintError, OrderError, ProfilerError, SpaceError
from nasmw.oneshot import Recipe
from nasmw.penalty import Penalty
from nasmw.strategies import Random
from nasmw.strategies.oneshot import DARTS, Differentiable, GumbelDARTS, ProxylessNAS
from nasmw.strategies.oneshot.costs import Costs
from nasmw.strategies.oneshot.distribution import Distribution, surprise
from nasmw.strategy import Strategy
from nasmw.tabled import TabledProfiler
from nasmw.testing import StrategyContract, TableProfiler, drive, toy_space

SPACE = Tiny()  # making one draws its weights
ALL: tuple[type[Differentiable], ...] = (DARTS, GumbelDARTS, ProxylessNAS)


class OneShotContract(StrategyContract):
    kind: ClassVar[type[Differentiable]]

    def make(self) -> Strategy:
        return self.kind(points(), QUICK, architecture_rate=0.05)

    def make_space(self):
        return SPACE

    def test_ends_or_goes_on_in_a_tiny_space(self) -> None:
        codes = self._drive(self.make(), Two(), trials=50, n=4)
        assert sorted(codes[:, 0]) == [0, 1]

    def test_accepts_a_space_of_one(self) -> None:
        codes = self._drive(self.make(), One(), trials=10, n=2)
        assert len(codes) == 1


class TestDARTS(OneShotContract):
    kind = DARTS


class TestGumbelDARTS(OneShotContract):
    kind = GumbelDARTS


class TestBilevelGumbelDARTS(OneShotContract):
    def make(self) -> Strategy:
        return GumbelDARTS(points(), QUICK, bilevel=True, warmup=1, architecture_rate=0.05)


class TestProxylessNAS(OneShotContract):
    kind = ProxylessNAS


# -- the likeliest networks ------------------------------------------------------------------------------------


def logarithms(space, seed):
    rng = np.random.default_rng(seed)
    scores = {choice.name: rng.normal(size=len(choice.options)) for choice in space.choices}
    return {name: score - np.logaddexp.reduce(score) for name, score in scores.items()}


def best_draw(space, logs, row):
    """The likeliest draw of all choices that gives an architecture, by trying them all."""
    best = -math.inf
    for codes in itertools.product(*[range(len(choice.options)) for choice in space.choices]):
        if np.array_equal(space.canonical(np.array([codes], dtype=space.dtype))[0], row):
            best = max(best, sum(log[code] for log, code in zip(logs.values(), codes, strict=True)))
    return best


def test_surprise_is_that_of_the_likeliest_draw():
    space = Tiny()
    logs = logarithms(space, 0)
    rows = space.at(range(0, space.size, 7)).codes
    expected = [sum(log.max() for log in logs.values()) - best_draw(space, logs, row) for row in rows]
    np.testing.assert_allclose(surprise(space, logs).evaluate(rows), expected, atol=1e-12)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("space", [Tiny(), toy_space()], ids=["supernet", "toy"])
def test_likeliest_networks_are_those_of_enumeration(space, seed):
    table = surprise(space, logarithms(space, seed))
    rng = np.random.default_rng(seed)
    costs = surprise(space, logarithms(space, seed + 100)).named("cost")
    whole = TabledProfiler(costs, "cost")
    limit = float(np.quantile(whole.profile_batch(space.sample(500, rng)), 0.3))
    peak = TabledProfiler(MaxTable(space, [((c.name,), rng.random(len(c.options))) for c in space.choices]), "peak")
    feasible = FeasibleSet(space, whole <= limit, peak <= 0.97)
    everything = space.at(range(space.size))
    within = everything[feasible.holds(everything)]
    order = np.argsort(table.evaluate(within), kind="stable")
    assert 3 < len(within) < space.size
    found = list(itertools.islice(feasible.ascending(table), len(within) + 1))
    assert {one.codes.tobytes() for one in found} == set(within.row_keys())
    values = [float(table.evaluate(one)[0]) for one in found]
    np.testing.assert_allclose(values, table.evaluate(within)[order], atol=1e-9)


def test_networks_in_order_need_a_table_of_the_space():
    space = Tiny()
    with pytest.raises(TypeError, match="put in order by a CostTable"):
        next(FeasibleSet(space).ascending("macs"))
    with pytest.raises(ProfilerError, match="the feasible set is of"):
        next(FeasibleSet(toy_space()).ascending(surprise(space, logarithms(space, 0))))


@pytest.mark.parametrize("kind", ALL)
def test_asks_for_the_likeliest_networks_in_order(kind):
    space = Tiny()
    strategy = kind(points(), QUICK, architecture_rate=0.3)
    asked = drive(strategy, space, trials=10, n=3)
    logs = {name: np.log(values) for name, values in strategy.probabilities.items()}
    table = surprise(space, logs)
    values = table.evaluate(asked)
    assert values[0] == pytest.approx(0.0, abs=1e-9)
    np.testing.assert_allclose(values, np.sort(table.evaluate(space.at(range(space.size))))[:10], atol=1e-5)


class Neck(nn.ModelSpace):
    """Three networks: what they tell apart has to go through one, two or eight features."""

    def __init__(self):
        super().__init__()
        width = nn.choice("width", (1, 2, 8))
        self.layers = torch.nn.Sequential(nn.Linear(FEATURES, width), torch.nn.ReLU(), nn.Linear(width, CLASSES))

    def forward(self, x):
        return self.layers(x)


@pytest.mark.parametrize("kind", ALL)
def test_a_width_that_is_needed_becomes_likely(kind):
    """Scaled channels alone say nothing of widths: the layers that read them make up for it."""
    strategy = kind(points(96, 16), Recipe(epochs=30, rate=0.02), architecture_rate=0.03, warmup=5)
    Search(Neck(), strategy, lambda trial: 0.0, progress=False).run(trials=1)
    assert strategy.probabilities["width"][2] > 0.6


# -- limits ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ALL)
def test_twenty_limits_are_kept(kind):
    space = Tiny()
    cost = cost_of(space)
    bounds = cost.bounds()
    for limit in np.linspace(bounds.low, bounds.high, 20):
        strategy = Chain(kind(points(), Recipe(epochs=1, rate=0.1), architecture_rate=0.1), Filter(cost <= limit))
        asked = drive(strategy, space, trials=2)
        assert len(asked) and cost.profile_batch(asked).max() <= limit


@pytest.mark.parametrize("kind", ALL)
def test_multiplier_brings_the_likeliest_network_within_the_limit(kind):
    space = Tiny()
    cost = cost_of(space)
    strategy = kind(points(), Recipe(epochs=25, rate=0.05), architecture_rate=0.1, multiplier_rate=0.5)
    Search(space, Chain(strategy, Filter(cost <= 4)), lambda trial: 1.0).run(trials=1)
    likeliest = {name: values.argmax() for name, values in strategy.probabilities.items()}
    codes = space.canonical(np.array([list(likeliest.values())], dtype=space.dtype))
    assert cost.table.evaluate(codes)[0] <= 4
    assert any(record["multiplier of cost <= 4"] > 0 for record in strategy.history)
    assert "expected cost" in strategy.history[-1]


def test_lower_limit_pushes_upwards():
    """The likeliest network regardless of the limit is within it, which it would not be without."""
    space = Tiny()
    cost = cost_of(space)
    likeliest = []
    for stages in ((), (Filter((cost >= 18) & (cost <= 20)),)):
        strategy = DARTS(points(), Recipe(epochs=25, rate=0.05), architecture_rate=0.1, multiplier_rate=5.0)
        Search(space, Chain(strategy, *stages), lambda trial: 1.0).run(trials=1)
        codes = [[int(shares.argmax()) for shares in strategy.probabilities.values()]]
        likeliest.append(cost.table.evaluate(space.canonical(np.array(codes, dtype=space.dtype)))[0])
    assert likeliest[0] < 18 <= likeliest[1] <= 20
    assert max(record["multiplier of cost >= 18"] for record in strategy.history) > 0


def test_limits_without_a_table_are_met_by_the_filter():
    space = Tiny()
    plain = TableProfiler(space, "plain")
    chain = Chain(DARTS(points(), QUICK), Filter(plain <= 20))
    asked = drive(chain, space, trials=100, n=2)
    assert 0 < len(asked) < space.size
    assert plain.profile_batch(asked).max() <= 20


def test_limits_come_too_late_after_training():
    space = Tiny()
    cost = cost_of(space)
    strategy = DARTS(points(), QUICK)
    strategy.setup(Context(space))
    strategy.ask(1)
    assert not strategy.offer(cost <= 5)
    assert not strategy.offer(Penalty(cost, 5.0, 0.1))


def test_limits_that_leave_nothing_are_refused_before_training():
    space = Tiny()
    cost = cost_of(space)
    strategy = DARTS(points(), QUICK)
    strategy.setup(Context(space))
    assert strategy.offer(cost <= -5)
    with pytest.raises(ConstraintError, match="cost"):
        strategy.train(strategy.context)


# -- penalties -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["absolute", "hinge", "power"])
@pytest.mark.parametrize("kind", ALL)
def test_penalty_lowers_the_expected_cost(kind, form):
    space = Tiny()
    cost = cost_of(space)
    expected = []
    for weight in (0.0, 20.0):
        strategy = kind(points(), Recipe(epochs=6, rate=0.05), architecture_rate=0.1)
        chain = Chain(strategy, Penalize(cost, target=3.0, weight=weight, form=form))
        Search(space, chain, lambda trial: 1.0).run(trials=1)
        expected.append(strategy.history[-1]["expected cost"])
    assert expected[1] < expected[0] - 1


class Opaque(Middleware):
    transparent = False


def test_penalty_reaches_the_strategy_through_stages_that_pass_candidates_on():
    space = Tiny()
    cost = cost_of(space)
    strategy = DARTS(points(), QUICK)
    drive(Chain(strategy, Filter(cost <= 15), Penalize(cost, target=9.0)), space, trials=1)
    assert "expected cost" in strategy.history[-1] and "multiplier of cost <= 15" in strategy.history[-1]
    strategy = DARTS(points(), QUICK)
    drive(Chain(strategy, Opaque(), Penalize(cost, target=9.0)), space, trials=1)
    assert "expected cost" not in strategy.history[-1]


@pytest.mark.parametrize("form", ["absolute", "hinge", "power"])
def test_penalty_on_a_loss_is_that_of_a_score_with_the_sign_turned(form):
    penalty = Penalty(TableProfiler(toy_space()), 20.0, 0.07, form)
    loss = float(penalty.loss(torch.tensor(0.9), torch.tensor(30.0)))
    if form == "power":
        assert loss == pytest.approx(0.9 * 1.5**0.07) and penalty.score(0.9, 30.0) == pytest.approx(0.9 * 1.5**-0.07)
    else:
        assert loss - 0.9 == pytest.approx(0.9 - penalty.score(0.9, 30.0))


def test_penalty_without_a_table_is_refused():
    space = Tiny()
    chain = Chain(DARTS(points(), QUICK), Penalize(TableProfiler(space), target=9.0))
    with pytest.raises(ProfilerError, match="exact expectation, which is known from a CostTable.*LookupTableProfiler"):
        drive(chain, space, trials=1)


@pytest.mark.parametrize(
    ("wrong", "text"), [({"target": 0.0}, "target"), ({"weight": -1.0}, "weight"), ({"form": "log"}, "form")]
)
def test_penalty_checks_its_numbers(wrong, text):
    given = {"target": 1.0, "weight": 0.1, "form": "hinge", **wrong}
    with pytest.raises(ValueError, match=f"the {text} of a penalty"):
        Penalty(TableProfiler(toy_space()), **given)


def test_other_strategies_leave_penalties_to_what_they_are_told():
    strategy = Random()
    strategy.setup(Context(toy_space()))
    assert not strategy.offer(Penalty(TableProfiler(toy_space()), 5.0, 0.1))


# -- the expectation -------------------------------------------------------------------------------------------


def test_expectation_is_the_mean_of_samples():
    space = Tiny()
    table = cost_of(space, integer=False).table
    rng = np.random.default_rng(0)
    logs = logarithms(space, 3)
    drawn = np.stack([rng.choice(len(log), size=100_000, p=np.exp(log)) for log in logs.values()], axis=1)
    values = table.evaluate(space.canonical(drawn.astype(space.dtype)))
    expected = float(table.expectation({name: torch.tensor(np.exp(log)) for name, log in logs.items()}))
    assert abs(values.mean() - expected) < 4 * values.std() / math.sqrt(len(values))


def test_gradient_of_the_expectation_is_that_of_finite_differences():
    space = Tiny()
    table = cost_of(space, integer=False).table
    rng = np.random.default_rng(0)
    scores = {c.name: torch.tensor(rng.normal(size=len(c.options)), requires_grad=True) for c in space.choices}

    def expected(given):
        return table.expectation({name: torch.softmax(score, dim=0) for name, score in given.items()})

    expected(scores).backward()
    for name, score in scores.items():
        for option in range(len(score)):
            ends = []
            for step in (1e-6, -1e-6):
                moved = {key: value.detach().clone() for key, value in scores.items()}
                moved[name][option] += step
                ends.append(float(expected(moved)))
            slope = 0.0 if score.grad is None else float(score.grad[option])
            assert (ends[0] - ends[1]) / 2e-6 == pytest.approx(slope, abs=1e-7)


def test_multipliers_follow_the_derived_network():
    space = Tiny()
    cost = cost_of(space)
    costs = Costs([], [cost <= 5], rate=1.0)
    big, small = cost.bounds().high_architecture, cost.bounds().low_architecture
    (multiplier,) = costs._multipliers
    costs.adapt(big)
    grown = multiplier.value
    assert grown == pytest.approx((cost.bounds().high - 5) / (cost.bounds().high - cost.bounds().low))
    costs.adapt(small)
    assert multiplier.value < grown
    for _ in range(50):
        costs.adapt(small)
    assert multiplier.value == 0.0


def test_distribution_draws_by_its_probabilities():
    space = Tiny()
    distribution = Distribution(space, np.random.default_rng(0), torch.device("cpu"))
    with torch.no_grad():
        distribution.scores["act"].copy_(torch.tensor([0.0, math.log(3.0)]))
    rng = np.random.default_rng(1)
    share = np.mean([distribution.drawn(rng)["act"] for _ in range(2000)])
    assert abs(share - 0.75) < 0.04
    assert 0.9 < distribution.entropy() <= 1.0


# -- errors ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ALL)
def test_space_without_modules_is_refused(kind):
    with pytest.raises(SpaceError, match=f"{kind.__name__} trains the weights of a supernet.*nasmw.nn.ModelSpace"):
        kind(points(), QUICK).setup(Context(toy_space()))


def test_results_are_there_after_training_only():
    strategy = DARTS(points(), QUICK)
    strategy.setup(Context(Tiny()))
    for name in ("supernet", "history", "probabilities"):
        with pytest.raises(OrderError, match="not trained yet"):
            getattr(strategy, name)


@pytest.mark.parametrize(
    ("make", "error", "text"),
    [
        (lambda: DARTS("digits"), TypeError, "takes data that give batches"),
        (lambda: DARTS(points(), {"epochs": 3}), TypeError, "takes a Recipe"),
        (lambda: DARTS(points(), architecture_rate=0), ValueError, "architecture_rate is finite and above 0"),
        (lambda: DARTS(points(), warmup=-1), ValueError, "warmup is at least 0"),
        (lambda: GumbelDARTS(points(), temperature=(0.1, 2.0)), ValueError, "the temperature falls"),
        (lambda: GumbelDARTS(points(), temperature=1.0), TypeError, "temperature is a pair"),
        (lambda: GumbelDARTS(points(), bilevel=1), TypeError, "bilevel is True or False"),
    ],
)
def test_arguments_are_checked(make, error, text):
    with pytest.raises(error, match=text):
        make()
