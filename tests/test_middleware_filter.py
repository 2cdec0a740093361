"""Filter: limits, callables, what is told, offers, patience and errors."""

from __future__ import annotations

import functools

import numpy as np
import pytest

from nasmw.candidates import Outcomes, Status
from nasmw.constraint import Constraint
from nasmw.context import Context, recorded
from nasmw.errors import ConstraintError, ProfilerError
from nasmw.middleware import Chain, Filter
from nasmw.objective import Objective
from nasmw.profiler import Profiler
from nasmw.testing import RecordingStrategy, TableProfiler, toy_space

SPACE = toy_space()
COST = TableProfiler(SPACE)
POOL = [{"width": width, "depth": 1, "block0.op": "pool"} for width in (4, 8, 12, 16)]
ONE = (Objective("accuracy"),)
COSTS = [COST.profile(architecture) for architecture in POOL]


class Counting(Profiler):
    """A profiler that counts what it was asked."""

    def __init__(self, name, kind="analytical", factor=1.0):
        super().__init__(name, "ms", space=SPACE, kind=kind)
        self.factor = factor
        self.seen = []

    def _profile(self, architecture):
        self.seen.append(architecture["width"])
        return self.factor * architecture["width"]


def start(*tests, pool=POOL, objectives=ONE, honours=False, **options):
    inner = RecordingStrategy(pool, honours=honours)
    stage = Filter(*tests, **options)
    chain = Chain(inner, stage)
    context = Context(SPACE, objectives)
    chain.setup(context)
    return chain, stage, inner, context


def widths(candidates):
    return [architecture["width"] for architecture in candidates]


def tell(chain, candidates, *scores):
    chain.tell(Outcomes(candidates, [Status.COMPLETED] * len(candidates), np.array(scores, dtype=float)))


def test_only_those_within_the_limit_pass():
    chain, _, inner, context = start(Counting("latency") <= 8)
    batch = chain.ask(4)
    assert widths(batch) == [4, 8]
    assert batch.ids.tolist() == [0, 1]
    assert batch.columns["latency"].tolist() == [4.0, 8.0]
    told = Outcomes.join(list(inner.told))
    assert told.ids.tolist() == [2, 3]
    assert set(told.status) == {Status.INFEASIBLE}
    assert told.reasons == ("latency = 12 > 8", "latency = 16 > 8")
    assert told.candidates.columns["latency"].tolist() == [12.0, 16.0]
    assert np.isnan(told.scores).all()
    assert dict(context.funnel.counts) == {("Filter", "infeasible", "latency <= 8"): 2}


def test_lower_limits_and_both():
    latency = Counting("latency")
    chain, _, inner, context = start((latency >= 5) & (latency <= 12))
    assert widths(chain.ask(4)) == [8, 12]
    assert Outcomes.join(list(inner.told)).reasons == ("latency = 4 < 5", "latency = 16 > 12")
    assert latency.seen == [4, 8, 12, 16], "a profiler in two limits is asked once per candidate"
    assert {cause for _, _, cause in context.funnel.counts} == {"latency >= 5", "latency <= 12"}


def test_values_that_look_like_the_limit_are_shown_in_full():
    chain, _, inner, _ = start(Counting("latency") < 8)
    assert widths(chain.ask(4)) == [4]
    assert inner.told[0].reasons[0] == "latency = 8.0 > 7.999999999999999"


def test_cheap_tests_run_first_and_spare_the_rest():
    analytical, learned, measured = Counting("a"), Counting("l", "learned"), Counting("m", "measured")
    seen = []

    def guard(architecture):
        seen.append(architecture["width"])
        return architecture["width"] < 12

    chain, _, inner, _ = start(measured <= 100, guard, learned <= 13, analytical <= 14)
    assert widths(chain.ask(4)) == [4, 8]
    assert analytical.seen == [4, 8, 12, 16]
    assert learned.seen == [4, 8, 12]
    assert seen == [4, 8, 12]
    assert measured.seen == [4, 8], "measured only where all else holds"
    assert {cause for outcomes in inner.told for cause in outcomes.reasons} == {"a = 16 > 14", "guard is False"}


def test_equal_kinds_keep_their_order():
    first, second = Counting("first"), Counting("second")
    chain, _, _, _ = start(first <= 8, second <= 4)
    assert widths(chain.ask(4)) == [4]
    assert sorted(second.seen) == [4, 8]


def test_a_value_that_rides_along_is_not_computed_again():
    latency = Counting("latency")
    inner = RecordingStrategy(POOL)
    chain = Chain(inner, Filter(latency <= 12), Filter(latency >= 8))
    chain.setup(Context(SPACE))
    assert widths(chain.ask(4)) == [8, 12]
    assert sorted(latency.seen) == [4, 8, 12, 16]


def test_callables_take_mappings():
    chain, _, inner, context = start(lambda sample: COST.profile(sample) < COSTS[2])
    assert widths(chain.ask(4)) == [4, 8]
    assert dict(context.funnel.counts) == {("Filter", "infeasible", "<lambda>"): 2}
    assert inner.offered == ()


def test_two_callables_of_one_name_are_told_apart():
    chain, _, _, context = start(lambda a: a["width"] > 4, lambda a: a["width"] < 16)
    chain.ask(4)
    assert {cause for _, _, cause in context.funnel.counts} == {"<lambda>", "<lambda>#2"}


def test_recorded_callables_are_called_once_per_architecture():
    calls = []

    def proxy(architecture):
        calls.append(architecture["width"])
        return architecture["width"] <= 8

    chain, _, _, context = start(recorded(proxy), pool=POOL * 3)
    assert widths(chain.ask(12)) == [4, 8] * 3
    assert calls == [4, 8, 12, 16]
    assert ("Filter", "infeasible", "proxy") in context.funnel.counts


def test_shares_become_numbers_at_setup():
    _, stage, inner, _ = start(COST.at_most("25%"), honours=True)
    limit = inner.offered[0].high
    values = COST.profile_batch(SPACE.at(range(SPACE.size)))
    assert abs((values <= limit).mean() - 0.25) < 0.05
    assert stage.honoured == inner.offered


@pytest.mark.parametrize("scores", [[[0.5], [0.3]], [[0.3], [0.5]]])
def test_bad_score_is_the_worst_so_far(scores):
    first, second = POOL[:2], POOL[2:]
    chain, _, inner, _ = start(lambda a: a["width"] <= 8, pool=[second[0], *first, second[1]], tell="bad score")
    batch = chain.ask(2)
    assert np.isnan(inner.told[0].scores).all(), "nothing has been told yet"
    tell(chain, batch, *scores)
    assert len(chain.ask(1)) == 0
    assert inner.told[-1].status == (Status.INFEASIBLE,)
    assert inner.told[-1].scores.tolist() == [[0.3]]


def test_bad_score_is_the_worst_of_each_objective():
    objectives = (Objective("accuracy"), Objective("error", "minimize"))
    chain, _, inner, _ = start(lambda a: a["width"] <= 8, objectives=objectives, tell="bad score")
    batch = chain.ask(2)
    tell(chain, batch, [0.5, -3.0], [0.6, -9.0])
    chain.ask(2)
    assert inner.told[-1].scores.tolist() == [[0.5, -9.0]] or inner.told[-1].scores.tolist() == [[0.5, -9.0]] * 2


def test_bad_score_ignores_trials_without_one():
    chain, _, inner, _ = start(lambda a: a["width"] <= 8, tell="bad score")
    tell(chain, chain.ask(2), [np.nan], [0.4])
    chain.ask(1)
    assert inner.told[-1].scores.tolist()[0] == [0.4]


def test_a_number_is_told_as_it_is():
    chain, _, inner, _ = start(lambda a: False, tell=-1)
    chain.ask(4)
    assert Outcomes.join(list(inner.told)).scores.tolist() == [[-1.0]] * 4


@pytest.mark.parametrize("honours", [False, True])
def test_limits_are_offered_and_checked_all_the_same(honours):
    latency = Counting("latency")
    chain, stage, inner, _ = start((latency >= 5) & (latency <= 12), lambda a: True, honours=honours)
    assert [str(limit) for limit in inner.offered] == ["latency >= 5", "latency <= 12"]
    assert stage.honoured == (inner.offered if honours else ())
    assert widths(chain.ask(4)) == [8, 12]


@pytest.mark.parametrize("options", [{"pushdown": False}, {"tell": "bad score"}, {"tell": 0.0}])
def test_nothing_is_offered_where_the_strategy_is_to_learn(options):
    _, stage, inner, _ = start(COST <= 60, honours=True, **options)
    assert inner.offered == () and stage.honoured == ()


def test_a_limit_out_of_reach_is_refused_at_setup():
    low = COST.bounds()
    with pytest.raises(ConstraintError, match=f"least cost is {low.low:.6g}.*'width': {low.low_architecture['width']}"):
        start(low.low - 1 >= COST)
    with pytest.raises(ConstraintError, match=f"greatest cost is {low.high:.6g}"):
        start(low.high + 1 <= COST)
    start(low.low >= COST)


def test_contradictory_limits_are_refused_at_once():
    with pytest.raises(ConstraintError, match="'cost >= 25' and 'cost <= 5'"):
        Filter(COST >= 25, COST <= 5)
    with pytest.raises(ConstraintError, match="contradict"):
        Filter((COST >= 25) & (COST <= 30), COST < 25)
    Filter(COST >= 25, COST <= 25)


def test_contradictory_shares_are_refused_at_setup():
    with pytest.raises(ConstraintError, match="contradict"):
        start(COST.at_most("10%"), COST.at_least("10%"))


def test_patience_ends_with_counts_and_the_nearest_miss():
    latency = Counting("latency")
    chain, _, _, _ = start(latency <= 3, lambda a: False, pool=POOL * 10, patience=7)
    assert len(chain.ask(1)) == 0
    assert chain.exhausted
    assert chain.message == (
        "Filter turned away 7 candidates in a row, 7 in all: 7 by latency <= 3. The nearest miss: latency = 4 > 3, "
        "beyond 'latency <= 3' by 1 ms (33.3 % of the limit). Loosen that limit, or go on for longer with "
        "patience=... (now 7)"
    )
    chain.setup(Context(SPACE))
    assert not chain.exhausted and chain.message == ""


def test_patience_counts_in_a_row_only():
    chain, _, _, _ = start(lambda a: a["width"] == 4, pool=POOL * 10, patience=4)
    assert len(chain.ask(10)) == 10
    assert chain.message == ""


def test_patience_without_limits_points_to_the_tests():
    chain, _, _, _ = start(lambda a: False, patience=2)
    chain.ask(1)
    assert "2 in all: 2 by <lambda>. Check the tests on a few architectures" in chain.message


@pytest.mark.parametrize("wrong", [5, True, np.bool_(True), "macs", None, COST, Filter])
def test_what_is_no_test_is_refused(wrong):
    with pytest.raises(TypeError, match="Filter takes limits"):
        Filter(wrong)


def test_hints_name_the_usual_mistakes():
    with pytest.raises(TypeError, match="compare the profiler itself"):
        Filter(COST.profile(POOL[0]) < 300)
    with pytest.raises(TypeError, match="write cost <= limit"):
        Filter(COST)
    with pytest.raises(TypeError, match="at least one test"):
        Filter()
    with pytest.raises(TypeError, match=r"\(latency >= 5\) & \(latency <= 25\)"):
        Filter(5 <= COST <= 25)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"tell": "worst"}, ValueError),
        ({"tell": True}, TypeError),
        ({"tell": [1.0]}, TypeError),
        ({"tell": float("nan")}, ValueError),
        ({"patience": 0}, ValueError),
        ({"patience": 2.5}, TypeError),
        ({"pushdown": 1}, TypeError),
    ],
)
def test_wrong_options_are_refused(options, error):
    with pytest.raises(error, match="Filter"):
        Filter(COST <= 60, **options)


def test_a_callable_that_raises_is_named_with_the_architecture():
    def broken(architecture):
        return architecture["no such choice"]

    chain, _, _, _ = start(broken)
    with pytest.raises(ProfilerError, match=r"'broken' of Filter failed on \{'width': 4.*KeyError") as caught:
        chain.ask(1)
    assert isinstance(caught.value.__cause__, KeyError)


@pytest.mark.parametrize("answer", [None, 12.5, "yes"])
def test_a_callable_that_gives_no_bool_is_refused(answer):
    chain, _, _, _ = start(functools.partial(lambda architecture, given: given, given=answer))
    with pytest.raises(ProfilerError, match="must return True or False"):
        chain.ask(1)


def test_a_profiler_that_gives_nan_is_an_error():
    chain, _, _, _ = start(Counting("latency", factor=float("nan")) <= 5)
    with pytest.raises(ProfilerError, match="gave nan"):
        chain.ask(1)


def test_profilers_are_listed_once():
    other = TableProfiler(SPACE, name="other", seed=1)
    assert Filter((COST >= 5) & (COST <= 50), other <= 60, lambda a: True).profilers == (COST, other)


class Unsure(Counting):
    """A profiler with an error of its own."""

    def __init__(self, std=1.0, kind="learned", name="latency"):
        super().__init__(name, kind)
        self.error = std

    def std(self, candidates):
        return None if self.error is None else np.full(len(candidates), self.error)


class Share(Unsure):
    """A profiler whose error is a share of its values."""

    def __init__(self, share):
        super().__init__()
        self.relative_error = share

    def std(self, candidates):
        return self.relative_error * self.profile_batch(candidates)


def test_margin_keeps_away_from_the_limit_by_the_profilers_own_error():
    chain, _, inner, context = start(Unsure(2.0) <= 13, margin=2.0)
    assert widths(chain.ask(4)) == [4, 8]
    assert Outcomes.join(list(inner.told)).reasons == ("latency + 2 std = 16 > 13", "latency + 2 std = 20 > 13")
    assert dict(context.funnel.counts) == {("Filter", "infeasible", "latency + 2 std <= 13"): 2}
    chain, _, inner, _ = start((Unsure(2.0) >= 7) & (Unsure(1.5) <= 15), margin=2.0)
    assert widths(chain.ask(4)) == [12]
    assert inner.told[0].reasons[0] == "latency - 2 std = 0 < 7"


def test_margin_of_a_share_is_a_lower_limit_and_is_offered_as_such():
    chain, stage, inner, context = start(Share(0.1) <= 13, margin=2.0, honours=True)
    assert widths(chain.ask(4)) == [4, 8]
    (offered,) = inner.offered
    assert offered.high == pytest.approx(13 / 1.2) and stage.honoured == (offered,)
    assert dict(context.funnel.counts) == {("Filter", "infeasible", "latency + 2 std <= 13"): 2}
    _, _, inner, _ = start(Share(0.1) >= 8, margin=2.0)
    assert inner.offered[0].low == pytest.approx(10)


def test_margin_of_another_error_offers_the_limit_itself_and_checks():
    chain, _, inner, _ = start(Unsure(2.0) <= 13, margin=2.0, honours=True)
    assert inner.offered[0].high == 13
    assert widths(chain.ask(4)) == [4, 8]


def test_margin_agrees_with_a_check_by_hand():
    values = np.array([4.0, 8.0, 12.0, 16.0])
    for share in (0.02, 0.1, 0.4):
        for margin in (0.5, 1.0, 2.0):
            for limit in (7.0, 12.0, 13.0):
                try:
                    chain, *_ = start(Share(share) <= limit, margin=margin)
                except ConstraintError:
                    passing = []
                else:
                    passing = widths(chain.ask(4))
                assert passing == values[values + margin * share * values <= limit].tolist()


def test_margin_leaves_exact_values_alone():
    chain, *_ = start(TableProfiler(SPACE) <= COSTS[1], Unsure(1.0) <= 100, margin=2.0)
    assert widths(chain.ask(4)) == [4, 8]


def test_margin_of_a_measuring_profiler_is_recorded():
    latency = Unsure(2.0, kind="measured")
    asked = []
    latency.std = lambda candidates: asked.append(len(candidates)) or np.full(len(candidates), 2.0)
    inner = RecordingStrategy([POOL[0], POOL[1], POOL[1]])
    chain = Chain(inner, Filter(latency <= 13, margin=2.0))
    chain.setup(Context(SPACE))
    assert widths(chain.ask(3)) == [4, 8, 8]
    assert asked == [1, 1] and latency.seen == [4, 8]


def test_margin_without_an_error_is_refused():
    with pytest.raises(ProfilerError, match="states none"):
        start(Unsure(None) <= 13, margin=2.0)
    with pytest.raises(ProfilerError, match="states none"):
        start(Unsure(None, kind="measured") <= 13, margin=2.0)[0].ask(1)
    with pytest.raises(ProfilerError, match="all its profilers are exact: cost"):
        start(COST <= 100, margin=2.0)
    with pytest.raises(ValueError, match="this Filter has none"):
        Filter(callable, margin=1.0)
    with pytest.raises(ValueError, match="at least 0 standard deviations"):
        Filter(COST <= 100, margin=-1.0)
    with pytest.raises(ConstraintError, match="that is all of it"):
        start(Share(0.6) >= 8, margin=2.0)
    with pytest.raises(ConstraintError, match="take a smaller margin"):
        start((Share(0.1) >= 8) & (Share(0.1) <= 100), margin=2.0) and start(
            Constraint(Share(0.1), 8.0, 9.0), margin=2.0
        )
