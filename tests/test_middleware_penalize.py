"""Penalize and Reward: the numbers by hand, whom they touch, and errors."""

from __future__ import annotations

import math

import numpy as np
import pytest

from nasmw.candidates import Outcomes, Status
from nasmw.context import Context
from nasmw.errors import EvaluationError, ProfilerError
from nasmw.middleware import Chain, Filter, Penalize, Reward
from nasmw.objective import Objective
from nasmw.profiler import Profiler
from nasmw.testing import RecordingStrategy, TableProfiler, toy_space

SPACE = toy_space()
COST = TableProfiler(SPACE)
POOL = [{"width": width, "depth": 1, "block0.op": "pool"} for width in (4, 8, 12, 16)]
ACCURACY = Objective("accuracy")
ERROR = Objective("error", "minimize")


class Width(Profiler):
    """The width, in milliseconds; remembers whom it was asked about."""

    def __init__(self, name="latency", kind="analytical", shift=0.0):
        super().__init__(name, "ms", space=SPACE, kind=kind)
        self.shift = shift
        self.seen = []

    def _profile(self, architecture):
        self.seen.append(architecture["width"])
        return architecture["width"] + self.shift


def start(*stages, objectives=(ACCURACY,)):
    inner = RecordingStrategy(POOL)
    chain = Chain(inner, *stages)
    chain.setup(Context(SPACE, objectives))
    return chain, inner


def told(chain, inner, scores, status=Status.COMPLETED, metrics=None):
    batch = chain.ask(4)
    status = [status] * len(batch) if isinstance(status, Status) else status
    scores = np.array(scores, dtype=float).reshape(len(batch), -1)
    chain.tell(Outcomes(batch, status, scores, metrics or {}))
    return inner.told[-1].scores


@pytest.mark.parametrize(
    ("form", "expected"),
    [
        ("absolute", [0.9 - 0.1 * 0.5, 0.9, 0.9 - 0.1 * 0.5, 0.9 - 0.1 * 1.0]),
        ("hinge", [0.9, 0.9, 0.9 - 0.1 * 0.5, 0.9 - 0.1 * 1.0]),
        ("power", [0.9 * 0.5**-0.1, 0.9, 0.9 * 1.5**-0.1, 0.9 * 2.0**-0.1]),
    ],
)
def test_forms_by_hand(form, expected):
    chain, inner = start(Penalize(Width(), target=8, weight=0.1, form=form))
    assert told(chain, inner, [0.9] * 4)[:, 0] == pytest.approx(expected, abs=1e-15)


def test_mnasnet_by_hand():
    assert Penalize(Width(), 80.0, form="power").penalised(0.752, 160.0) == pytest.approx(0.752 * 0.952638, rel=1e-6)


def test_without_a_score_nothing_is_penalised_or_measured():
    latency = Width(kind="measured")
    chain, inner = start(Penalize(latency, target=8))
    status = [Status.FAILED, Status.STOPPED, Status.INFEASIBLE, Status.DUPLICATE]
    scores = told(chain, inner, [math.nan, 0.5, math.nan, 0.7], status)
    assert np.isnan(scores[[0, 2], 0]).all()
    assert scores[[1, 3], 0] == pytest.approx([0.5, 0.7 - 0.07])
    assert latency.seen == [8, 16]


def test_a_bad_score_from_above_is_passed_on_as_it_is():
    latency = Width(kind="measured")
    chain, inner = start(Penalize(latency, target=8, form="power"), Filter(lambda a: False, tell=-1.0))
    assert len(chain.ask(4)) == 0
    assert Outcomes.join(list(inner.told)).scores.tolist() == [[-1.0]] * 4
    assert latency.seen == []


def test_the_value_that_rides_along_is_used():
    latency = Width()
    chain, inner = start(Filter(latency <= 100), Penalize(latency, target=8))
    told(chain, inner, [0.9] * 4)
    assert sorted(latency.seen) == [4, 8, 12, 16]


def test_a_value_missing_among_those_that_ride_along_is_computed():
    latency = Width(shift=4.0)
    inner = RecordingStrategy(POOL)
    chain = Chain(inner, Penalize(latency, target=8, weight=1.0))
    chain.setup(Context(SPACE))
    batch = chain.ask(2).with_columns({"latency": np.array([8.0, np.nan])})
    chain.tell(Outcomes(batch, [Status.COMPLETED] * 2, np.array([[0.9], [0.9]])))
    assert inner.told[-1].scores[:, 0] == pytest.approx([0.9, 0.4])
    assert latency.seen == [8]


def test_one_of_several_objectives():
    chain, inner = start(Penalize(Width(), 8, 0.1, objective="error"), objectives=(ACCURACY, ERROR))
    scores = told(chain, inner, [[0.9, -0.1]] * 4)
    assert scores[:, 0].tolist() == [0.9] * 4
    assert scores[:, 1] == pytest.approx([-0.15, -0.1, -0.15, -0.2])


def test_the_objective_is_to_be_named_and_known():
    with pytest.raises(ValueError, match=r"needs objective=.*'accuracy', 'error'"):
        start(Penalize(COST, 8), objectives=(ACCURACY, ERROR))
    with pytest.raises(ValueError, match=r"no objective 'acuracy'.*did you mean 'accuracy'"):
        start(Penalize(COST, 8, objective="acuracy"))


def test_the_power_form_refuses_what_it_would_turn_round():
    with pytest.raises(ValueError, match="'error', which is minimised"):
        start(Penalize(COST, 8, form="power"), objectives=(ERROR,))
    chain, inner = start(Penalize(COST, 8, form="power"))
    with pytest.raises(EvaluationError, match=r"scores of at least 0, got -0.5; use form='absolute'"):
        told(chain, inner, [-0.5] * 4)
    chain, inner = start(Penalize(Width(shift=-4.0), 8, form="power"))
    with pytest.raises(ProfilerError, match="needs values above 0"):
        told(chain, inner, [0.5] * 4)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((len, 8), TypeError, "takes a Profiler.*subclass of nasmw.Profiler"),
        (("latency", 8), TypeError, "takes a Profiler"),
        ((COST, 0), ValueError, "number above 0"),
        ((COST, "8"), TypeError, "target.*takes a number"),
        ((COST, math.inf), ValueError, "finite"),
        ((COST, 8, -0.07), ValueError, "have the minus sign"),
        ((COST, 8, 0.07, "soft"), ValueError, "'absolute', 'hinge', 'power'"),
        ((COST, 8, 0.07, "hinge", 1), TypeError, "name of an objective"),
    ],
)
def test_penalize_refuses(arguments, error, message):
    with pytest.raises(error, match=message):
        Penalize(*arguments)


def test_reward_combines_metrics_and_values():
    chain, inner = start(Reward(lambda m: 2 * m["accuracy"] - m["latency"] / 10, Width()), objectives=(ACCURACY, ERROR))
    metrics = {"accuracy": np.array([0.1, 0.2, 0.3, 0.4]), "error": np.full(4, 0.5)}
    scores = np.stack([metrics["accuracy"], -metrics["error"]], axis=1)
    assert told(chain, inner, scores, metrics=metrics)[:, 0] == pytest.approx([-0.2, -0.4, -0.6, -0.8])
    assert [objective.name for objective in inner.context.objectives] == ["reward"]
    assert inner.told[-1].metrics["accuracy"].tolist() == [0.1, 0.2, 0.3, 0.4]


def test_reward_only_where_there_is_a_score():
    latency = Width(kind="measured")
    given = []

    def combine(metrics):
        given.append(metrics)
        return 1.0

    chain, inner = start(Reward(combine, latency))
    status = [Status.FAILED, Status.COMPLETED, Status.INFEASIBLE, Status.DUPLICATE]
    metrics = {"accuracy": np.array([math.nan, 0.5, math.nan, math.nan])}
    scores = told(chain, inner, [math.nan, 0.5, math.nan, math.nan], status, metrics)
    assert np.array_equal(scores[:, 0], [math.nan, 1.0, math.nan, math.nan], equal_nan=True)
    assert given == [{"accuracy": 0.5, "latency": 8.0}]
    assert latency.seen == [8]


def test_reward_of_a_stopped_trial_is_that_of_its_last_report():
    chain, inner = start(Reward(lambda m: 2 * m["accuracy"] - m["error"]), objectives=(ACCURACY, ERROR))
    status = [Status.STOPPED, Status.COMPLETED, Status.COMPLETED, Status.COMPLETED]
    metrics = {"accuracy": np.array([math.nan, 0.2, 0.3, 0.4]), "error": np.full(4, 0.5)}
    scores = np.stack([[0.1, 0.2, 0.3, 0.4], -metrics["error"]], axis=1)
    assert told(chain, inner, scores, status, metrics)[:, 0] == pytest.approx([-0.3, -0.1, 0.1, 0.3])


@pytest.mark.parametrize("result", [math.nan, math.inf, None, "0.5", True])
def test_reward_refuses_what_is_no_finite_number(result):
    chain, inner = start(Reward(lambda metrics: result))
    with pytest.raises(EvaluationError, match=r"must return a finite number, got .*'accuracy'"):
        told(chain, inner, [0.5] * 4, metrics={"accuracy": np.full(4, 0.5)})


def test_reward_names_a_function_that_raises():
    def combine(metrics):
        return metrics["acuracy"]

    chain, inner = start(Reward(combine))
    with pytest.raises(EvaluationError, match=r"'combine' of Reward raised KeyError.*'accuracy': 0.5") as caught:
        told(chain, inner, [0.5] * 4, metrics={"accuracy": np.full(4, 0.5)})
    assert isinstance(caught.value.__cause__, KeyError)


def test_reward_accepts_numbers_of_other_libraries():
    chain, inner = start(Reward(lambda metrics: np.float32(0.5)))
    assert told(chain, inner, [0.1] * 4).tolist() == [[0.5]] * 4


def test_reward_refuses_wrong_arguments():
    with pytest.raises(TypeError, match="function of a dict"):
        Reward(COST)
    with pytest.raises(TypeError, match="takes a Profiler"):
        Reward(max, len)
    with pytest.raises(ProfilerError, match="two profilers are named 'cost'"):
        Reward(max, COST, TableProfiler(SPACE))


def test_penalize_below_reward_sees_the_reward():
    chain, inner = start(
        Penalize(Width(), 8, 0.1, objective="reward"), Reward(lambda m: 1.0), objectives=(ACCURACY, ERROR)
    )
    assert told(chain, inner, [[0.5, -0.5]] * 4)[:, 0] == pytest.approx([0.95, 1.0, 0.95, 0.9])
