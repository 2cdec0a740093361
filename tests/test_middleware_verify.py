"""Verify: who is measured, who is not, what is told, and what the log keeps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from nasmw import Chain, Filter, Search, Verify
from nasmw.candidates import Outcomes, Status
from nasmw.context import Context
from nasmw.cost import CostTable
from nasmw.errors import ConstraintError, DeviceError, ProfilerError
from nasmw.profiler import Profiler
from nasmw.strategies import Random
from nasmw.tabled import TabledProfiler
from nasmw.testing import RecordingStrategy, toy_space

SPACE = toy_space()
POOL = [{"width": width, "depth": 1, "block0.op": "pool"} for width in (4, 8, 12, 16)]


class Predicting(Profiler):
    """Predicts the width, with an error."""

    def __init__(self, std=1.0, name="predicted", kind="learned"):
        super().__init__(name, "ms", space=SPACE, kind=kind)
        self.error = std

    def _profile(self, architecture):
        return float(architecture["width"])

    def std(self, candidates):
        return None if self.error is None else np.full(len(candidates), self.error)


class Measuring(Profiler):
    """Measures the width and an offset; counts how often."""

    def __init__(self, offset=0.0, name="measured"):
        super().__init__(name, "ms", space=SPACE, kind="measured")
        self.offset = offset
        self.seen = []

    def _profile(self, architecture):
        self.seen.append(architecture["width"])
        return architecture["width"] + self.offset


class Relative(TabledProfiler):
    """Predicts with an error that is a share of the value."""

    def __init__(self, share):
        widths = np.array(SPACE.choices[0].options, dtype=float)
        super().__init__(CostTable(SPACE, [(("width",), widths)], name="predicted"), unit="ms", kind="learned")
        self.relative_error = share

    @property
    def fixed(self):
        return True

    def std(self, candidates):
        return self.relative_error * self.profile_batch(candidates)


def start(limit, measured, pool=POOL, honours=False, **options):
    inner = RecordingStrategy(pool, honours=honours)
    stage = Verify(limit, measured, **options)
    chain = Chain(inner, stage)
    context = Context(SPACE)
    chain.setup(context)
    return chain, stage, inner, context


def widths(candidates):
    return [architecture["width"] for architecture in candidates]


def test_only_who_straddles_the_limit_is_measured():
    measured = Measuring()
    chain, stage, inner, context = start(Predicting(2.0) <= 9.0, measured, margin=2.0)
    batch = chain.ask(4)
    assert measured.seen == [8, 12] and stage.measurements == 2
    assert widths(batch) == [4, 8]
    assert batch.columns["predicted"].tolist() == [4.0, 8.0]
    assert np.isnan(batch.columns["measured"][0]) and batch.columns["measured"][1] == 8.0
    told = Outcomes.join(list(inner.told))
    assert told.status == (Status.INFEASIBLE,) * 2
    assert told.reasons == ("measured = 12, the limit is <= 9", "predicted = 16 +- 4, the limit is <= 9")
    assert dict(context.funnel.counts) == {
        ("Verify", "infeasible", "measured beyond <= 9"): 1,
        ("Verify", "infeasible", "predicted beyond <= 9 by 2 std"): 1,
    }


def test_what_is_measured_decides_both_ways():
    chain, *_ = start(Predicting(1.0) <= 9.0, Measuring(offset=2.0))
    assert widths(chain.ask(4)) == [4], "8 is predicted and 10 measured"
    chain, *_ = start(Predicting(2.0) <= 9.0, Measuring(offset=-4.0))
    assert widths(chain.ask(4)) == [4, 8, 12], "12 is predicted and 8 measured"


def test_limits_from_below_and_both():
    measured = Measuring()
    predicted = Predicting(1.0)
    chain, *_ = start((predicted >= 5.0) & (predicted <= 13.0), measured)
    assert widths(chain.ask(4)) == [8, 12]
    assert measured.seen == [4, 12]


def test_each_is_measured_once_and_read_back():
    measured = Measuring()
    inner = RecordingStrategy([POOL[1], POOL[1], POOL[1]])
    chain = Chain(inner, Verify(Predicting() <= 9.0, measured), Verify(Predicting() <= 8.5, measured))
    chain.setup(Context(SPACE))
    assert len(chain.ask(3)) == 3 and measured.seen == [8]


def test_at_most_a_share_is_measured_and_the_rest_are_skipped():
    measured = Measuring()
    pool = [POOL[1], POOL[2]] * 20
    chain, stage, inner, context = start(Predicting(3.0) <= 9.0, measured, pool, at_most=0.1)
    passed = chain.ask(40)
    told = Outcomes.join(list(inner.told))
    skipped = [reason for status, reason in zip(told.status, told.reasons, strict=True) if status is Status.SKIPPED]
    assert stage.measurements <= 4 and len(passed) + len(told) == 40
    assert skipped[0] == "predicted = 8 +- 6 may be beyond <= 9; 4 of 40 are measured already"
    assert context.funnel.counts["Verify", "skipped", "not measured: at most 10 % are"] == len(skipped) == 36
    assert set(widths(passed)) <= {8}


def test_offers_what_no_interval_can_reach():
    _, _, inner, _ = start(Relative(0.1) <= 9.0, Measuring(), margin=2.0)
    (offered,) = inner.offered
    assert offered.high == pytest.approx(9.0 / 0.8) and offered.low == -np.inf
    _, _, inner, _ = start(Relative(0.1) >= 9.0, Measuring(), margin=2.0)
    assert inner.offered[0].low == pytest.approx(9.0 / 1.2)
    for options in ({"pushdown": False}, {"margin": 11.0}):
        assert start(Relative(0.1) <= 9.0, Measuring(), **options)[2].offered == ()
    assert start(Predicting() <= 9.0, Measuring())[2].offered == ()


def test_what_is_offered_loses_nobody():
    def passing(**options):
        chain, *_ = start(Relative(0.2) <= 9.0, Measuring(offset=-3.0), pool=POOL * 3, **options)
        return widths(chain.ask(12))

    assert passing() == passing(pushdown=False)


def test_ends_with_a_message_when_nobody_passes():
    chain, stage, *_ = start(Predicting() <= 9.0, Measuring(offset=10.0), [POOL[1]] * 50, patience=20)
    assert not len(chain.ask(30)) and chain.exhausted
    assert "turned away 30 candidates in a row: of 30 it measured 30, against predicted <= 9" in stage.message


def test_refusals():
    predicted = Predicting()
    with pytest.raises(TypeError, match="takes a limit such as"):
        Verify(predicted, Measuring())
    with pytest.raises(TypeError, match="Verify takes a Profiler"):
        Verify(predicted <= 9, len)
    with pytest.raises(ValueError, match="positive number of standard deviations"):
        Verify(predicted <= 9, Measuring(), margin=0)
    with pytest.raises(ValueError, match="a share above 0"):
        Verify(predicted <= 9, Measuring(), at_most=1.5)
    with pytest.raises(ProfilerError, match="both named 'predicted'"):
        Verify(predicted <= 9, Measuring(name="predicted"))
    with pytest.raises(ProfilerError, match="limits on one profiler"):
        Verify((predicted <= 9) & (Predicting(name="other") <= 9), Measuring())
    with pytest.raises(ProfilerError, match="states none"):
        start(Predicting(None) <= 9, Measuring())
    with pytest.raises(ProfilerError, match="its values are exact"):
        start(Predicting(None, kind="analytical") <= 9, Measuring())
    with pytest.raises(ConstraintError, match="no value of 'predicted' meets all"):
        start((predicted <= 9) & (predicted >= 10), Measuring())


def score(trial):
    return float(trial.architecture["width"])


def test_a_resumed_search_measures_nothing_again(tmp_path: Path):
    def search(measured):
        predicted = Relative(0.2)
        chain = Chain(Random(), Filter(predicted <= 12.0), Verify(predicted <= 12.0, measured))
        return Search(SPACE, chain, score, log=tmp_path / "run.db", progress=False)

    first = Measuring()
    before = search(first).run(trials=12)
    assert first.seen
    again = Measuring()
    after = search(again).run(trials=12)
    assert again.seen == []
    assert all("predicted" in trial.columns for trial in before.trials)
    assert [t.architecture for t in before.trials] == [t.architecture for t in after.trials]
    longer = search(again).run(trials=20)
    assert len(longer.trials) == 20 and longer.best.metrics["accuracy"] <= 12


class Noisy(Measuring):
    """Measures, and says how far a repetition may be off."""

    def std(self, candidates):
        return np.full(len(candidates), 1.0)


def test_a_guard_keeps_away_from_the_limit_by_the_error_of_measuring():
    for guard, passing in ((0.0, [4, 8]), (0.5, [4, 8]), (1.5, [4])):
        chain, _, inner, _ = start(Predicting(2.0) <= 9.0, Noisy(), guard=guard)
        assert widths(chain.ask(4)) == passing
    assert inner.told[0].reasons[0] == "measured = 8 +- 1.5, the limit is <= 9"
    with pytest.raises(ValueError, match="at least 0 standard deviations"):
        Verify(Predicting() <= 9.0, Noisy(), guard=-1.0)
    with pytest.raises(ProfilerError, match="states none"):
        start(Predicting(2.0) <= 9.0, Measuring(), guard=1.0)[0].ask(4)


class Failing(Measuring):
    """Fails on some widths."""

    def __init__(self, *widths):
        super().__init__()
        self.failing = widths

    def _profile(self, architecture):
        value = super()._profile(architecture)
        if architecture["width"] in self.failing:
            raise DeviceError("the device was ended\nwith a traceback")
        return value


def test_a_device_that_fails_costs_a_candidate_and_the_search_goes_on():
    measured = Failing(8)
    chain, _, inner, context = start(Predicting(3.0) <= 13.0, measured, [POOL[1], POOL[2], POOL[1]])
    assert widths(chain.ask(3)) == [12]
    assert measured.seen == [8, 12], "what failed once is known to"
    (told,) = inner.told
    assert set(told.status) == {Status.FAILED} and told.reasons == ("the device was ended",) * 2
    assert context.funnel.counts["Verify", "failed", "measured cannot be measured"] == 2


def test_a_device_that_always_fails_ends_the_search():
    pool = [{**POOL[1], "block0.op": "conv", "block0.kernel": k, "block0.expand": e} for k in (1, 3, 5) for e in (1, 2)]
    chain, *_ = start(Predicting() <= 9.0, Failing(8), pool)
    with pytest.raises(DeviceError, match="the device was ended"):
        chain.ask(6)


def test_failures_are_known_to_a_replay(tmp_path: Path):
    def search(measured):
        predicted = Relative(0.2)
        chain = Chain(Random(), Verify(predicted <= 12.0, measured))
        return Search(SPACE, chain, score, log=tmp_path / "run.db", progress=False)

    before = search(Failing(12)).run(trials=8)
    again = Failing()
    after = search(again).run(trials=8)
    assert again.seen == [] and [t.architecture for t in before.trials] == [t.architecture for t in after.trials]
    assert all(trial.architecture["width"] != 12 for trial in after.trials)


def test_a_filter_goes_on_where_the_device_fails_on_some():
    measured = Failing(8)
    inner = RecordingStrategy([POOL[0], POOL[1], POOL[2]])
    chain = Chain(inner, Filter(measured <= 9.0))
    context = Context(SPACE)
    chain.setup(context)
    assert widths(chain.ask(3)) == [4]
    told = {status: reason for one in inner.told for status, reason in zip(one.status, one.reasons, strict=True)}
    assert told[Status.FAILED] == "the device was ended" and "measured" in told[Status.INFEASIBLE]
    assert context.funnel.counts["Filter", "failed", "measured cannot be measured"] == 1


def test_a_filter_ends_where_the_device_always_fails():
    pool = [{**POOL[1], "block0.op": "conv", "block0.kernel": k, "block0.expand": e} for k in (1, 3, 5) for e in (1, 2)]
    chain = Chain(RecordingStrategy(pool), Filter(Failing(8) <= 9.0))
    chain.setup(Context(SPACE))
    with pytest.raises(DeviceError, match="the device was ended"):
        chain.ask(6)
