"""Cache, Tap and TimeLimit: what is known is not evaluated, what passes is seen, what takes too long ends."""

from __future__ import annotations

import time

import numpy as np
import pytest

from nasmw import Cache, Chain, Choice, Reward, Search, Space, Tap, TimeLimit
from nasmw.errors import LogError, LogMismatchError
from nasmw.strategies import Grid, Random
from nasmw.testing import RecordingStrategy, toy_space

SPACE = Space([Choice("a", (0, 1, 2)), Choice("b", (0, 1))], name="six")


def score(trial):
    return trial.architecture["a"] / 4 + trial.architecture["b"] / 16


def earlier(log, trials=3, space=SPACE, evaluate=score):
    return Search(space, Grid(), evaluate, log=log, progress=False).run(trials=trials)


def known_scores(inner):
    return [
        (str(outcomes.status[0]), outcomes.scores[0, 0], outcomes.reasons[0])
        for outcomes in inner.told
        if str(outcomes.status[0]) == "duplicate"
    ]


@pytest.mark.parametrize("from_log", [True, False])
def test_known_trials_are_told_and_not_evaluated(tmp_path, from_log):
    log = tmp_path / "old.db"
    result = earlier(log)
    source = log if from_log else result
    known = {trial.codes for trial in result.trials}
    inner = RecordingStrategy([dict(row) for row in SPACE.sample(40, np.random.default_rng(0))])
    again = Search(SPACE, Chain(inner, Cache(source)), score, progress=False).run(trials=10)
    assert not known & {trial.codes for trial in again.trials}
    told = known_scores(inner)
    assert told
    for status, value, reason in told:
        number = int(reason.split()[1])
        assert (status, value) == ("duplicate", result.trials[number].metrics["accuracy"])
    assert again.funnel.turned_away["Cache", "duplicate", "evaluated in an earlier run"] == len(told)


def test_cache_ends_where_all_is_known(tmp_path):
    log = tmp_path / "old.db"
    earlier(log, trials=6)
    with pytest.raises(Exception, match="knew 50 candidates in a row from .*old.db"):
        Search(SPACE, Chain(Random(), Cache(log, patience=50)), score, progress=False).run(trials=5)


def test_cache_refuses_what_does_not_fit(tmp_path):
    log = tmp_path / "old.db"
    earlier(log)
    with pytest.raises(LogMismatchError, match="log of another space"):
        Search(toy_space(), Chain(Random(), Cache(log)), score, progress=False).run(trials=1)
    with pytest.raises(LogMismatchError, match="no trial of .* has the metrics \\['error'\\]"):
        Search(SPACE, Chain(Random(), Cache(log)), score, objectives="error", progress=False).run(trials=1)
    with pytest.raises(LogMismatchError, match=r"changes the objectives \(Reward\), Cache goes behind it"):
        chain = Chain(Random(), Cache(log), Reward(lambda metrics: metrics["accuracy"]))
        Search(SPACE, chain, score, progress=False).run(trials=1)
    with pytest.raises(LogError):
        Cache(tmp_path / "missing.db")
    with pytest.raises(TypeError, match="path of a log or a Result, got 3"):
        Cache(3)


def test_a_run_is_bound_to_what_its_cache_held(tmp_path):
    old, new = tmp_path / "old.db", tmp_path / "new.db"
    earlier(old, trials=2)
    Search(SPACE, Chain(Random(), Cache(old)), score, log=new, progress=False).run(trials=2)
    earlier(old, trials=4)
    with pytest.raises(LogMismatchError, match="other stages"):
        Search(SPACE, Chain(Random(), Cache(old)), score, log=new, progress=False).run(trials=3)


def test_tap_sees_what_passes():
    asked, told = [], []
    chain = Chain(Random(), Tap(asked.append, told.append))
    Search(SPACE, chain, score, progress=False).run(trials=5)
    assert sum(map(len, asked)) == sum(map(len, told)) == 5
    assert [row for outcomes in told for row in outcomes.candidates] == [row for batch in asked for row in batch]


def test_what_a_tap_raises_ends_the_run_and_keeps_the_log(tmp_path):
    def sees(outcomes):
        if outcomes.scores[0, 0] > 0.4:
            raise RuntimeError("stop here")

    log = tmp_path / "run.db"
    with pytest.raises(RuntimeError, match="stop here"):
        Search(SPACE, Chain(Grid(), Tap(told=sees)), score, log=log, progress=False, window=1).run(trials=6)
    result = Search(SPACE, Chain(Grid(), Tap(told=len)), score, log=log, progress=False, resume="warm").run(trials=6)
    assert len(result.completed) == 6


def test_tap_checks_its_arguments():
    with pytest.raises(TypeError, match="needs a callback"):
        Tap()
    with pytest.raises(TypeError, match=r"Tap\(told=...\) takes a callable, got 3"):
        Tap(told=3)


def test_the_time_limit_ends_a_run():
    def slow(trial):
        time.sleep(0.02)
        return 0.5

    result = Search(SPACE, Chain(Random(), TimeLimit(0.1)), slow, progress=False, window=1).run(trials=1000)
    assert 1 <= len(result.completed) < 100
    assert result.ended == "TimeLimit: 0.1 seconds have passed"


def test_the_time_limit_goes_on_where_it_was(tmp_path, monkeypatch):
    now = [1000.0]
    monkeypatch.setattr("nasmw.middleware.time_limit.time.monotonic", lambda: now[0])

    def second(trial):
        now[0] += 1.0
        return 0.5

    def search(log):
        return Search(SPACE, Chain(Random(), TimeLimit(9.5)), second, log=log, progress=False, window=1)

    whole = search(tmp_path / "whole.db").run(trials=100)
    assert len(whole.completed) == 10, "the first is asked for after 0 seconds, the tenth after 9"
    search(tmp_path / "parts.db").run(trials=4)
    now[0] += 5000.0  # while nothing runs, the clock stands still
    parts = search(tmp_path / "parts.db").run(trials=100)
    assert len(parts.completed) == 11, "the trial that ran last before the stop is on no clock"
    assert [trial.codes for trial in parts.trials[:10]] == [trial.codes for trial in whole.trials]


@pytest.mark.parametrize(
    ("seconds", "error"), [(0, ValueError), (-1, ValueError), ("1", TypeError), (float("inf"), ValueError)]
)
def test_the_time_limit_checks_its_argument(seconds, error):
    with pytest.raises(error, match=r"TimeLimit\(seconds=...\)"):
        TimeLimit(seconds)
