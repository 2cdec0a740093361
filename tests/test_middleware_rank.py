"""Rank: who passes, in which order, what the rest are told, and errors."""

from __future__ import annotations

import math

import numpy as np
import pytest

from nasmw.candidates import Outcomes, Status
from nasmw.context import Context, recorded
from nasmw.errors import ProfilerError
from nasmw.middleware import Chain, Filter, Rank
from nasmw.profiler import Profiler
from nasmw.strategy import Strategy
from nasmw.testing import RecordingStrategy, TableProfiler, toy_space

SPACE = toy_space()
COST = TableProfiler(SPACE)


class Width(Profiler):
    def __init__(self, name="width", factor=1.0):
        super().__init__(name, space=SPACE)
        self.factor = factor

    def _profile(self, architecture):
        return self.factor * architecture["width"]


def net(width, expand=1):
    return {"width": width, "depth": 1, "block0.op": "conv", "block0.kernel": 1, "block0.expand": expand}


def start(pool, *scorers, **options):
    inner = RecordingStrategy(pool)
    chain = Chain(inner, Rank(*scorers, **options))
    context = Context(SPACE)
    chain.setup(context)
    return chain, inner, context


def widths(candidates):
    return [architecture["width"] for architecture in candidates]


def test_the_best_of_each_group_passes():
    chain, inner, context = start([net(w) for w in (4, 12, 8, 16, 8, 4)], Width(), groups_of=3)
    batch = chain.ask(2)
    assert widths(batch) == [12, 16]
    assert batch.ids.tolist() == [1, 3]
    assert batch.columns["width"].tolist() == [12.0, 16.0]
    told = inner.told[0]
    assert widths(told.candidates) == [8, 4]
    assert told.status == (Status.SKIPPED,) * 2
    assert told.reasons == ("rank 2 of 3, sum 8", "rank 3 of 3, sum 4")
    assert told.candidates.columns["width"].tolist() == [8.0, 4.0]
    assert np.isnan(told.scores).all()
    assert dict(context.funnel.counts) == {("Rank", "skipped", "not among the best 1 of 3"): 4}


def test_less_may_be_better():
    chain, _, _ = start([net(w) for w in (8, 4, 12)], Width(), groups_of=3, maximize=False)
    assert widths(chain.ask(1)) == [4]
    chain, _, _ = start([net(w) for w in (8, 4, 12)], Width(), groups_of=3, weights=[-1])
    assert widths(chain.ask(1)) == [4]


def test_of_equals_the_first_asked_wins():
    chain, _, _ = start([net(w) for w in (4, 8, 8, 4)], Width(), groups_of=4, keep=2)
    assert chain.ask(2).ids.tolist() == [1, 2]
    chain, _, _ = start([net(w) for w in (8, 4, 4, 8)], Width(), groups_of=4, keep=2, maximize=False)
    assert chain.ask(2).ids.tolist() == [1, 2]


def test_several_pass_best_first_and_wait():
    chain, inner, _ = start([net(w) for w in (4, 12, 16, 8)], Width(), groups_of=4, keep=3)
    assert widths(chain.ask(1)) == [16]
    assert not chain.exhausted, "two more wait"
    assert inner.exhausted
    assert widths(chain.ask(5)) == [12, 8]
    assert chain.exhausted


def test_weighted_values_and_rank_sums_by_hand():
    pool = [net(4, 2), net(8, 1), net(16, 1)]
    score = {"expand": lambda a: a["block0.expand"]}
    # values: 4 + 5 * 2 = 14, 8 + 5 = 13, 16 + 5 = 21
    chain, inner, _ = start(pool, Width(), score["expand"], groups_of=3, keep=2, weights=(1, 5))
    assert widths(chain.ask(2)) == [16, 4]
    assert inner.told[0].reasons == ("rank 3 of 3, sum 13",)
    # ranks: width 1 2 3, expand 3 1.5 1.5; sums with weights 1 and 5: 16, 9.5, 10.5
    chain, inner, _ = start(pool, Width(), score["expand"], groups_of=3, keep=2, weights=(1, 5), by="rank")
    assert widths(chain.ask(2)) == [4, 16]
    assert inner.told[0].reasons == ("rank 3 of 3, rank sum 9.5",)


def test_a_group_that_cannot_be_filled_is_ranked_as_it_is():
    chain, inner, _ = start([net(w) for w in (4, 8)], Width(), groups_of=5)
    assert widths(chain.ask(3)) == [8]
    assert inner.told[0].reasons == ("rank 2 of 2, sum 4",)
    assert chain.exhausted


class OneAtATime(Strategy):
    """Gives one candidate, and the next one only after it was told."""

    def _setup(self, context):
        self._free = True

    def _ask(self, n):
        number, self._free = int(self._free), False
        return self.context.space.sample(number, self.context.rng)

    def _tell(self, outcomes):
        self._free = True


def test_no_deadlock_with_a_strategy_that_waits():
    chain = Chain(OneAtATime(), Rank(COST, groups_of=4))
    chain.setup(Context(SPACE))
    for _ in range(5):
        batch = chain.ask(4)
        assert len(batch) == 1
        assert len(chain.ask(1)) == 0 and not chain.exhausted
        chain.tell(Outcomes(batch, [Status.COMPLETED], np.array([[0.5]])))


def test_callables_ride_along_where_they_have_a_name():
    def width(architecture):
        return architecture["width"]

    chain, _, _ = start([net(4), net(8)], width, lambda a: 0, groups_of=2)
    assert dict(chain.ask(1).columns) == {"width": np.array([8.0])}


def test_recorded_scorers_are_called_once_per_architecture():
    calls = []

    def proxy(architecture):
        calls.append(architecture["width"])
        return architecture["width"]

    chain, _, _ = start([net(4), net(8)] * 3, recorded(proxy), groups_of=2)
    assert widths(chain.ask(3)) == [8, 8, 8]
    assert calls == [4, 8]


def test_limits_from_above_reach_the_strategy():
    inner = RecordingStrategy(honours=True)
    limit = COST <= 60
    chain = Chain(inner, Rank(Width(), groups_of=2), Filter(limit))
    chain.setup(Context(SPACE))
    assert inner.offered == (limit,)


@pytest.mark.parametrize("value", [math.nan, math.inf, "high", None])
def test_a_scorer_that_gives_no_number_is_named(value):
    def proxy(architecture):
        return value

    chain, _, _ = start([net(4), net(8)], proxy, groups_of=2)
    with pytest.raises(ProfilerError, match=r"scorer 'proxy' of Rank failed on \{'width': 4"):
        chain.ask(1)


@pytest.mark.parametrize(
    ("scorers", "options", "error", "message"),
    [
        ((), {"groups_of": 4}, TypeError, "at least one scorer"),
        ((5,), {"groups_of": 4}, TypeError, "profilers and callables"),
        ((Width,), {"groups_of": 4}, TypeError, "profilers and callables"),
        ((COST,), {"groups_of": 2.5}, TypeError, "integer"),
        ((COST,), {"groups_of": 1}, ValueError, "fewer than it compares"),
        ((COST,), {"groups_of": 4, "keep": 4}, ValueError, "fewer than it compares"),
        ((COST,), {"groups_of": 4, "keep": 0}, ValueError, "at least 1"),
        ((COST,), {"groups_of": 4, "weights": (1, 2)}, ValueError, "one weight per scorer"),
        ((COST,), {"groups_of": 4, "weights": ("a",)}, TypeError, "takes a number"),
        ((COST,), {"groups_of": 4, "by": "votes"}, ValueError, "'value' or 'rank'"),
        ((COST,), {"groups_of": 4, "maximize": "no"}, TypeError, "True or False"),
        ((COST, TableProfiler(SPACE)), {"groups_of": 4}, ProfilerError, "two profilers"),
        ((len, len), {"groups_of": 4}, ValueError, "different names"),
    ],
)
def test_wrong_arguments_are_refused(scorers, options, error, message):
    with pytest.raises(error, match=message):
        Rank(*scorers, **options)
