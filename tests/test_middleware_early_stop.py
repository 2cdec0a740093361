"""EarlyStop: who is stopped, where, by what it was told; and that the schedule does not matter."""

from __future__ import annotations

import numpy as np
import pytest

from nasmw import Chain, Choice, EarlyStop, Objective, Search, Space
from nasmw.candidates import STOP_BELOW, Outcomes, Status
from nasmw.context import Context
from nasmw.strategies import Evolution, Random
from nasmw.testing import RecordingStrategy

SPACE = Space([Choice("quality", tuple(range(20)))], name="curves")
STEPS = 6


def curve(trial, step):
    return trial.architecture["quality"] / 20 * (step + 1) / STEPS


def rises(trial):
    for step in range(STEPS):
        trial.report(step, curve(trial, step))
    return curve(trial, STEPS - 1)


def falls(trial):
    for step in range(STEPS):
        trial.report(step, 1 - curve(trial, step))
    return 1 - curve(trial, STEPS - 1)


def run(evaluate=rises, stage=None, strategy=None, trials=40, **options):
    chain = Chain(strategy or Random(), stage or EarlyStop(min_trials=3))
    return Search(SPACE, chain, evaluate, progress=False, seed=1, **options).run(trials=trials)


@pytest.mark.parametrize(("evaluate", "direction"), [(rises, "maximize"), (falls, "minimize")])
def test_who_falls_behind_the_median_is_stopped(evaluate, direction):
    result = run(evaluate, objectives=Objective("accuracy", direction), window=1)
    means = []
    for trial in result.trials:
        quality = trial.architecture["quality"]
        behind = len(means) >= 3 and quality / 20 / STEPS < np.median(means)
        assert (trial.status is Status.STOPPED) == behind, (quality, means)
        if behind:
            assert len(trial.reports) == 1
            assert "stopped at step 0: the best value so far" in trial.reason
        else:
            means.append(quality / 20 / STEPS)
    assert any(trial.status is Status.STOPPED for trial in result.trials)


def test_the_mean_up_to_a_step_counts():
    inner = RecordingStrategy([{"quality": number} for number in range(8)])
    chain = Chain(inner, EarlyStop(min_trials=1, min_step=1))
    chain.setup(Context(SPACE))
    told = chain.ask(3)
    reports = (((0, 0.2), (1, 0.4), (2, 0.9)), ((0, 0.0), (1, 0.2)), ((0, 9.0), (1, 9.0)))
    status = [Status.COMPLETED, Status.COMPLETED, Status.FAILED]
    chain.tell(Outcomes(told, status, np.array([[0.9], [0.2], [np.nan]]), reports=reports))
    columns = {name: values.tolist() for name, values in chain.ask(1).columns.items()}
    assert columns == {f"{STOP_BELOW}1": [pytest.approx((0.3 + 0.1) / 2)], f"{STOP_BELOW}2": [pytest.approx(0.5)]}


def test_a_stopped_trial_tells_its_last_value():
    scores = []

    class Listens(Random):
        def _tell(self, outcomes):
            scores.extend(zip(outcomes.status, outcomes.scores[:, 0].tolist(), outcomes.reports, strict=True))
            super()._tell(outcomes)

    run(strategy=Listens(), window=1)
    stopped = [(score, reports) for status, score, reports in scores if status is Status.STOPPED]
    assert stopped
    assert all(score == reports[-1][1] for score, reports in stopped)


def test_only_some_steps():
    result = run(stage=EarlyStop(min_trials=2, steps=(2, 4)))
    lengths = {len(trial.reports) for trial in result.trials if trial.status is Status.STOPPED}
    assert lengths
    assert lengths <= {3, 5}


def test_workers_do_not_matter():
    def key(result):
        return [(trial.codes, trial.status, trial.reports, dict(trial.columns)) for trial in result.trials]

    alone = key(run(strategy=Evolution(population=5)))
    assert key(run(strategy=Evolution(population=5), executor=2)) == alone


def test_a_run_goes_on_where_it_was(tmp_path):
    whole = run()
    run(log=tmp_path / "run.db", trials=15)
    parts = run(log=tmp_path / "run.db")
    assert [(t.codes, t.status, t.reports) for t in parts.trials] == [
        (t.codes, t.status, t.reports) for t in whole.trials
    ]


def test_nan_is_behind_everybody():
    def diverges(trial):
        for step in range(STEPS):
            trial.report(step, float("nan") if trial.architecture["quality"] > 15 else curve(trial, step))
        return 0.5

    result = run(diverges, window=1)
    late = [trial for trial in result.trials[15:] if trial.architecture["quality"] > 15]
    assert late
    assert all(trial.status is Status.STOPPED for trial in late)


def test_several_objectives_need_a_name():
    both = (Objective("accuracy"), Objective("error", "minimize"))
    with pytest.raises(ValueError, match=r"needs objective=..., the name of the one of \['accuracy', 'error'\]"):
        run(lambda trial: {"accuracy": 1.0, "error": 0.0}, objectives=both)
    with pytest.raises(ValueError, match="the objectives here are"):
        run(stage=EarlyStop(objective="speed"))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"min_trials": 0}, ValueError, "at least 1"),
        ({"min_step": 0.5}, TypeError, r"EarlyStop\(min_step=...\) takes steps"),
        ({"steps": [1, "2"]}, TypeError, r"EarlyStop\(steps=...\) takes steps"),
    ],
)
def test_arguments_are_checked(arguments, error, message):
    with pytest.raises(error, match=message):
        EarlyStop(**arguments)
