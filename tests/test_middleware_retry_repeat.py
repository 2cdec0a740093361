"""Retry and Repeat: how often a candidate becomes a trial, and what the strategy is told in the end."""

from __future__ import annotations

import math

import numpy as np
import pytest

from nasmw import Chain, Deduplicate, Filter, Repeat, Retry, Search
from nasmw.candidates import Outcomes, Status
from nasmw.choice import Choice
from nasmw.context import Context
from nasmw.space import Space
from nasmw.strategies import Random
from nasmw.testing import RecordingStrategy

SPACE = Space([Choice("a", (0, 1, 2)), Choice("b", (0, 1))], name="six")


def start(*stages, pool=((0, 0), (1, 0), (2, 1))):
    inner = RecordingStrategy([{"a": a, "b": b} for a, b in pool])
    chain = Chain(inner, *stages)
    chain.setup(Context(SPACE))
    return chain, inner


def come_back(chain, batch, *results):
    """Tell one result each: a score, or a status without one."""
    status = [Status.COMPLETED if isinstance(result, float) else Status(result) for result in results]
    scores = np.array([[result if isinstance(result, float) else math.nan] for result in results])
    reasons = [f"told {result}" for result in results]
    chain.tell(Outcomes(batch, status, scores, {"accuracy": scores[:, 0]}, reasons))


def told(inner):
    return [
        (number, str(status), score)
        for outcomes in inner.told
        for number, status, score in zip(
            outcomes.ids.tolist(), outcomes.status, outcomes.scores[:, 0].tolist(), strict=True
        )
    ]


def test_what_failed_is_tried_again_before_what_is_new():
    chain, inner = start(Retry(2))
    first = chain.ask(1)
    come_back(chain, first, "failed")
    assert not inner.told
    second = chain.ask(2)
    assert second.row_keys()[0] == first.row_keys()[0]
    assert second.ids.tolist() == [1, 2], "each try has an id of its own"
    come_back(chain, second, 0.25, 0.75)
    assert told(inner) == [(0, "completed", 0.25), (1, "completed", 0.75)]


def test_retry_gives_up():
    chain, inner = start(Retry(2), pool=[(0, 0)])
    for _ in range(3):
        come_back(chain, chain.ask(1), "failed")
    assert [(number, status) for number, status, _ in told(inner)] == [(0, "failed")]
    assert not len(chain.ask(1))
    assert chain.exhausted


def test_retry_is_not_exhausted_while_somebody_waits():
    chain, _ = start(Retry(), pool=[(0, 0)])
    come_back(chain, chain.ask(1), "failed")
    assert not chain.exhausted
    assert len(chain.ask(1)) == 1
    assert chain.exhausted


def test_retry_by_status():
    chain, inner = start(Retry(on="stopped"))
    come_back(chain, chain.ask(2), "failed", "stopped")
    assert [(number, status) for number, status, _ in told(inner)] == [(0, "failed")]
    assert chain.ask(1).row_keys() == SPACE.candidates([{"a": 1, "b": 0}]).row_keys()


def test_a_second_try_that_is_turned_away_leaves_the_first():
    chain, inner = start(Retry(2), Deduplicate(), pool=[(0, 0), (1, 1)])
    come_back(chain, chain.ask(1), "failed")
    chain.ask(1)
    assert [(number, status) for number, status, _ in told(inner)] == [(0, "failed")]
    assert inner.told[0].reasons == ("told failed",)


def test_each_try_has_a_seed_of_its_own():
    seeds = []

    def evaluate(trial):
        seeds.append(trial.seed)
        if len(seeds) < 3:
            raise RuntimeError("bad luck")
        return 0.5

    result = Search(SPACE, Chain(Random(), Retry(5)), evaluate, progress=False, window=1).run(trials=3)
    assert [str(trial.status) for trial in result.trials] == ["failed", "failed", "completed"]
    assert len({trial.codes for trial in result.trials}) == 1
    assert len(set(seeds)) == 3


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"times": 0}, ValueError, "at least 1"),
        ({"times": 1.5}, TypeError, "takes an integer"),
        ({"on": "infeasible"}, ValueError, "takes 'failed' and 'stopped', got 'infeasible'"),
        ({"on": ["faild"]}, ValueError, "did you mean 'failed'"),
        ({"on": []}, ValueError, "needs a status"),
    ],
)
def test_retry_checks_its_arguments(arguments, error, message):
    with pytest.raises(error, match=message):
        Retry(**arguments)


@pytest.mark.parametrize(("by", "score"), [("mean", 0.5), ("median", 0.4)])
def test_several_evaluations_make_one_score(by, score):
    chain, inner = start(Repeat(3, by=by), pool=[(0, 0)])
    batch = chain.ask(5)
    assert len(set(batch.row_keys())) == 1
    assert len(batch) == 3
    assert not inner.told
    come_back(chain, batch, 0.3, 0.8, 0.4)
    assert told(inner) == [(0, "completed", pytest.approx(score))]
    assert inner.told[0].metrics["accuracy"].tolist() == [pytest.approx(score)]
    spread = chain.context.recorded("accuracy_spread", inner.context.space.candidates([{"a": 0, "b": 0}]), None)
    assert spread.tolist() == [pytest.approx(np.std([0.3, 0.8, 0.4], ddof=1))]


def test_evaluations_that_fail_do_not_count():
    chain, inner = start(Repeat(3), pool=[(0, 0), (1, 0), (2, 0)])
    come_back(chain, chain.ask(3), 0.5, "failed", 0.7)
    come_back(chain, chain.ask(3), "failed", "duplicate", "failed")
    come_back(chain, chain.ask(3), "infeasible", "infeasible", "infeasible")
    assert told(inner)[0] == (0, "completed", pytest.approx(0.6))
    assert [(number, status) for number, status, _ in told(inner)[1:]] == [(1, "failed"), (2, "infeasible")]


def test_evaluations_come_back_in_any_order():
    chain, inner = start(Repeat(2), pool=[(0, 0), (1, 0)])
    batch = chain.ask(4)
    come_back(chain, batch[[3]], 0.8)
    come_back(chain, batch[[0]], 0.1)
    come_back(chain, batch[[2]], 0.6)
    assert told(inner) == [(1, "completed", pytest.approx(0.7))]
    come_back(chain, batch[[1]], 0.3)
    assert told(inner)[1] == (0, "completed", pytest.approx(0.2))


def test_one_can_ask_for_less_than_a_group():
    chain, _ = start(Repeat(3), pool=[(0, 0), (1, 0)])
    batches = [chain.ask(1) for _ in range(4)]
    assert [len(set(batch.row_keys()) & set(batches[0].row_keys())) for batch in batches] == [1, 1, 1, 0]
    assert not chain.exhausted, "two evaluations of the second candidate are still to come"
    assert len(chain.ask(9)) == 2
    assert chain.exhausted


def test_the_spread_is_in_the_result(tmp_path):
    def evaluate(trial):
        return (trial.seed % 1000) / 1000

    log = tmp_path / "run.db"
    result = Search(SPACE, Chain(Random(), Deduplicate(), Repeat(4)), evaluate, log=log, progress=False).run(trials=8)
    spreads = result.values("accuracy_spread").reshape(2, 4)
    scores = result.values("accuracy").reshape(2, 4)
    assert spreads[:, 0] == pytest.approx(scores.std(axis=1, ddof=1))
    assert (spreads == spreads[:, :1]).all()


def test_limits_pass_through_both():
    def heavy(architecture):
        return architecture["a"] < 2

    chain, _ = start(Retry(), Repeat(2), Filter(heavy))
    rows = list(chain.ask(4))
    assert rows == [{"a": 0, "b": 0}] * 2 + [{"a": 1, "b": 0}] * 2


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"times": 1}, ValueError, "at least 2"),
        ({"times": "3"}, TypeError, "takes an integer"),
        ({"by": "max"}, ValueError, "takes 'mean' or 'median'"),
    ],
)
def test_repeat_checks_its_arguments(arguments, error, message):
    with pytest.raises(error, match=message):
        Repeat(**arguments)
