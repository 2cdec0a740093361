"""The loop: order, windows, replay after any interruption, warm restarts, and what it says of bad input."""

from __future__ import annotations

import logging
import math
import random
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nasmw import (
    Chain,
    Choice,
    Deduplicate,
    Filter,
    Middleware,
    Objective,
    Penalize,
    Rank,
    Search,
    Space,
    Strategy,
    Trial,
)
from nasmw.candidates import Candidates, Outcomes, Status
from nasmw.errors import (
    ConstraintError,
    DeadlockError,
    EvaluationError,
    LogInUseError,
    LogMismatchError,
    ProfilerError,
    SearchInterrupted,
)
from nasmw.executors import Processes
from nasmw.log import Log
from nasmw.profiler import Profiler
from nasmw.result import Result, load
from nasmw.strategies import Evolution, Grid, Random
from nasmw.strategy import batch_of_none
from nasmw.testing import RecordingStrategy, TableProfiler, toy_space


class Stopped(BaseException):
    """Ends the process, as far as the library can tell."""


def evaluate(trial: Trial) -> float:
    draw = random.Random(trial.seed).random()
    if draw < 0.1:
        raise ValueError("one in ten fails")
    return draw + trial.architecture["width"]


class Measured(Profiler):
    """Counts how often it measures, and says so in what it measures."""

    def __init__(self, space: Space) -> None:
        super().__init__("latency_ms", "ms", space=space, kind="measured")
        self.measured = 0
        self.stop_after = math.inf

    def _profile(self, architecture: Any) -> float:
        if self.measured >= self.stop_after:
            raise Stopped
        self.measured += 1
        return self.measured + architecture["width"]


def chain(space: Space, latency: Profiler) -> Strategy:
    return Chain(
        Evolution(population=6, tournament=3),
        Deduplicate(),
        Filter(TableProfiler(space) <= 80.0, latency >= 5.0),
        Rank(width_of, groups_of=2),
        Penalize(latency, target=10.0),
    )


def width_of(architecture: Any) -> float:
    return float(architecture["width"])


def is_narrow(architecture: Any) -> bool:
    return bool(architecture["width"] < 16)


def facts(result: Result) -> list[tuple[Any, ...]]:
    return [
        (
            trial.number,
            trial.codes,
            trial.candidate,
            dict(trial.columns),
            trial.status,
            dict(trial.metrics),
            trial.reason,
        )
        for trial in result.trials
    ]


def dump(path: Path) -> list[Any]:
    with Log(path, readonly=True) as log:
        return [
            (event.kind, event.number, event.data) for event in log.events() if event.kind in ("ask", "dry", "tell")
        ]


def test_runs_the_number_of_trials_and_finds_the_best() -> None:
    result = Search(toy_space(), Random(), lambda trial: float(trial.architecture["width"]), progress=False).run(
        trials=30
    )
    assert len(result.trials) == len(result.completed) == 30
    assert result.best.architecture["width"] == 16
    assert [trial.number for trial in result.trials] == list(range(30))
    assert result.ended == ""


@pytest.mark.parametrize("window", [1, 3, 8])
def test_a_candidate_is_asked_once_all_but_the_last_window_are_told(window: int) -> None:
    told_at_ask: list[int] = []

    class Watch(RecordingStrategy):
        told = 0

        def _ask(self, n: int) -> Candidates:
            told_at_ask.append(self.told)
            return super()._ask(n)

        def _tell(self, outcomes: Outcomes) -> None:
            self.told += len(outcomes)
            super()._tell(outcomes)

    Search(toy_space(), Watch(), evaluate, window=window, progress=False).run(trials=20)
    assert told_at_ask == [max(0, number - window + 1) for number in range(20)]


def test_results_do_not_depend_on_the_number_of_workers() -> None:
    space = toy_space()
    tables = []
    for executor in (None, Processes(workers=2)):
        strategy = Chain(Evolution(population=5, tournament=2), Deduplicate(), Filter(TableProfiler(space) <= 80.0))
        result = Search(space, strategy, evaluate, executor=executor, seed=3, progress=False).run(trials=40)
        tables.append((facts(result), str(result.funnel)))
    assert tables[0] == tables[1]


def test_other_seeds_give_other_trials() -> None:
    runs = [Search(toy_space(), Random(), evaluate, seed=seed, progress=False).run(trials=10) for seed in (0, 1)]
    assert facts(runs[0]) != facts(runs[1])


@pytest.mark.parametrize("stop_after", range(0, 41, 4))
def test_stopped_in_an_evaluation_and_resumed_equals_never_stopped(stop_after: int, tmp_path: Path) -> None:
    space = toy_space()
    whole = Search(space, chain(space, Measured(space)), evaluate, log=tmp_path / "whole.db", progress=False).run(40)
    calls = 0

    def stopping(trial: Trial) -> float:
        nonlocal calls
        if calls == stop_after:
            raise Stopped
        calls += 1
        return evaluate(trial)

    latency = Measured(space)
    path = tmp_path / "run.db"
    if stop_after < 40:
        with pytest.raises(Stopped):
            Search(space, chain(space, latency), stopping, log=path, progress=False).run(trials=40)
    latency.stop_after = math.inf
    result = Search(space, chain(space, latency), evaluate, log=path, progress=False).run(trials=40)
    assert facts(result) == facts(whole)
    assert str(result.funnel) == str(whole.funnel)
    assert dump(path) == dump(tmp_path / "whole.db")


@pytest.mark.parametrize("stop_after", range(1, 60, 7))
def test_stopped_in_a_measurement_and_resumed_measures_nothing_twice(stop_after: int, tmp_path: Path) -> None:
    space = toy_space()
    straight = Measured(space)
    whole = Search(space, chain(space, straight), evaluate, log=tmp_path / "whole.db", progress=False).run(trials=40)
    latency = Measured(space)
    latency.stop_after = min(stop_after, straight.measured - 1)
    path = tmp_path / "run.db"
    with pytest.raises(Stopped):
        Search(space, chain(space, latency), evaluate, log=path, progress=False).run(trials=40)
    latency.stop_after = math.inf
    result = Search(space, chain(space, latency), evaluate, log=path, progress=False).run(trials=40)
    assert latency.measured == straight.measured
    assert facts(result) == facts(whole)
    assert dump(path) == dump(tmp_path / "whole.db")


def test_finished_order_can_be_resumed(tmp_path: Path) -> None:
    space = toy_space()
    path = tmp_path / "run.db"

    def search() -> Search:
        strategy = Chain(Evolution(population=5, tournament=2), Deduplicate())
        return Search(space, strategy, evaluate, order="finished", executor=Processes(2), log=path, progress=False)

    first = search().run(trials=15)
    second = search().run(trials=30)
    assert facts(second)[:15] == facts(first)
    assert len(second.trials) == 30


def test_says_from_which_trial_it_goes_on(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "run.db"
    Search(toy_space(), Random(), evaluate, log=path, progress=False).run(trials=5)
    with caplog.at_level(logging.WARNING, "nasmw"):
        Search(toy_space(), Random(), evaluate, log=path, progress=False).run(trials=6)
    assert "goes on from trial 5" in caplog.text


def test_a_finished_run_evaluates_nothing_again(tmp_path: Path) -> None:
    path = tmp_path / "run.db"
    first = Search(toy_space(), Random(), evaluate, log=path, progress=False).run(trials=5)

    def never(trial: Trial) -> float:
        raise AssertionError("evaluated again")

    second = Search(toy_space(), Random(), never, log=path, progress=False).run(trials=5)
    assert facts(first) == facts(second)


def test_a_run_that_goes_on_for_longer_equals_one_that_did_so_at_once(tmp_path: Path) -> None:
    space = toy_space()
    whole = Search(space, chain(space, Measured(space)), evaluate, log=tmp_path / "whole.db", progress=False).run(40)
    latency = Measured(space)
    for trials in (1, 12, 12, 13, 30, 40):
        search = Search(space, chain(space, latency), evaluate, log=tmp_path / "run.db", progress=False)
        result = search.run(trials=trials)
    assert facts(result) == facts(whole)
    assert str(result.funnel) == str(whole.funnel)
    assert dump(tmp_path / "run.db") == dump(tmp_path / "whole.db")


def test_seconds_end_a_run_that_can_be_gone_on_with(tmp_path: Path) -> None:
    path = tmp_path / "run.db"

    def slow(trial: Trial) -> float:
        time.sleep(0.02)
        return 1.0

    result = Search(toy_space(), Random(), slow, log=path, progress=False).run(seconds=0.2)
    assert "0.2 seconds have passed" in result.ended
    assert 0 < len(result.completed) < 40
    more = Search(toy_space(), Random(), slow, log=path, progress=False).run(trials=len(result.trials) + 5)
    assert facts(more)[: len(result.completed)] == facts(result)[: len(result.completed)]
    assert [trial.codes for trial in more.trials][: len(result.trials)] == [trial.codes for trial in result.trials]
    assert len(more.completed) == len(result.trials) + 5


def test_ctrl_c_says_how_to_go_on(tmp_path: Path) -> None:
    path = tmp_path / "run.db"
    calls = 0

    def interrupted(trial: Trial) -> float:
        nonlocal calls
        calls += 1
        if calls == 4:
            raise KeyboardInterrupt
        return evaluate(trial)

    with pytest.raises(SearchInterrupted, match=r"after 3 finished trials; start it again with log=.*run\.db"):
        Search(toy_space(), Random(), interrupted, log=path, progress=False).run(trials=10)
    result = Search(toy_space(), Random(), evaluate, log=path, progress=False).run(trials=10)
    assert facts(result) == facts(Search(toy_space(), Random(), evaluate, progress=False).run(trials=10))


class TestMismatch:
    def run(self, path: Path, **changes: Any) -> Result:
        space = changes.pop("space", toy_space())
        strategy = changes.pop("strategy", Chain(Random(), Filter(is_narrow)))
        trials = changes.pop("trials", 6)
        return Search(space, strategy, evaluate, log=path, progress=False, **changes).run(trials=trials)

    def test_another_space(self, tmp_path: Path) -> None:
        self.run(tmp_path / "run.db")
        other = Space([Choice("width", (1, 2))])
        with pytest.raises(LogMismatchError, match="log of another space .*choices that only one of them has: block0"):
            self.run(tmp_path / "run.db", space=other)

    def test_another_chain(self, tmp_path: Path) -> None:
        self.run(tmp_path / "run.db")
        with pytest.raises(LogMismatchError, match=r"other stages: it has .*Filter.*resume='warm'"):
            self.run(tmp_path / "run.db", strategy=Random())

    def test_another_seed(self, tmp_path: Path) -> None:
        self.run(tmp_path / "run.db")
        with pytest.raises(LogMismatchError, match="other seed: it has 0, this run has 1"):
            self.run(tmp_path / "run.db", seed=1)

    def test_edited_middleware_is_named_with_the_trial(self, tmp_path: Path) -> None:
        limit = 0

        def test(architecture: Any) -> bool:
            return bool(architecture["width"] > limit)

        self.run(tmp_path / "run.db", strategy=Chain(Random(), Filter(test)))
        limit = 8
        with pytest.raises(LogMismatchError, match=r"at trial \d+, in stage Filter: the log has .* the chain asked"):
            self.run(tmp_path / "run.db", strategy=Chain(Random(), Filter(test)))

    def test_edited_strategy_is_named(self, tmp_path: Path) -> None:
        space = toy_space()
        rows = list(space.at(range(20)))
        strategy = RecordingStrategy(rows)
        self.run(tmp_path / "run.db", strategy=Chain(strategy, Filter(is_narrow)), space=space)

        class Edited(RecordingStrategy):
            def _ask(self, n: int) -> Candidates:
                return self.context.space.at([1000])

        Edited.__name__ = "RecordingStrategy"
        with pytest.raises(LogMismatchError, match="in stage RecordingStrategy"):
            self.run(tmp_path / "run.db", strategy=Chain(Edited(rows), Filter(is_narrow)), space=space)

    def test_warm_keeps_the_trials_and_tells_them(self, tmp_path: Path) -> None:
        path = tmp_path / "run.db"
        first = self.run(path)
        strategy = RecordingStrategy()
        second = self.run(path, strategy=Chain(strategy, Deduplicate()), resume="warm", trials=12)
        assert facts(second)[:6] == facts(first)
        assert len(second.trials) == 12
        assert len({trial.codes for trial in second.trials[:6]} & {trial.codes for trial in second.trials[6:]}) == 0
        third = self.run(path, strategy=Chain(RecordingStrategy(), Deduplicate()), trials=15)
        assert facts(third)[:12] == facts(second)

    def test_warm_closes_what_was_left_open(self, tmp_path: Path) -> None:
        path = tmp_path / "run.db"

        def stopping(trial: Trial) -> float:
            if trial.number == 3:
                raise Stopped
            return 1.0

        with pytest.raises(Stopped):
            Search(toy_space(), Random(), stopping, log=path, progress=False).run(trials=10)
        result = Search(toy_space(), Grid(), evaluate, log=path, resume="warm", progress=False).run(trials=20)
        left = [trial.number for trial in result.trials if trial.status is Status.STOPPED]
        assert left == list(range(3, 3 + len(left)))
        assert left
        again = Search(toy_space(), Grid(), evaluate, log=path, progress=False).run(trials=25)
        assert facts(again)[:20] == facts(result)


def test_two_runs_on_one_log(tmp_path: Path) -> None:
    with Log(tmp_path / "run.db"):
        with pytest.raises(LogInUseError, match=r"is in use by process \d+ on "):
            Search(toy_space(), Random(), evaluate, log=tmp_path / "run.db").run(trials=1)


def test_a_failing_evaluation_costs_its_trial_only() -> None:
    result = Search(toy_space(), Random(), evaluate, progress=False).run(trials=60)
    failed = [trial for trial in result.trials if trial.status is Status.FAILED]
    assert failed
    assert failed[0].reason == "ValueError: one in ten fails"
    assert "in evaluate" in failed[0].traceback
    assert len(result.completed) == 60 - len(failed)


def test_nan_from_an_evaluation_is_a_failed_trial() -> None:
    result = Search(toy_space(), Random(), lambda trial: math.nan, progress=False).run(trials=3)
    assert [trial.status for trial in result.trials] == [Status.FAILED] * 3
    with pytest.raises(EvaluationError, match="none of the 3 trials is completed; the last one: .*nan"):
        _ = result.best


def test_nan_from_a_profiler_ends_the_run_and_keeps_the_log(tmp_path: Path) -> None:
    space = toy_space()

    class Broken(Profiler):
        def _profile(self, architecture: Any) -> float:
            seen.append(architecture)
            return math.nan if len(seen) > 5 else 1.0

    seen: list[Any] = []

    path = tmp_path / "run.db"
    with pytest.raises(ProfilerError, match="gave nan for .*must give (a )?finite number"):
        Search(space, Chain(Random(), Filter(Broken("b", space=space) <= 2)), evaluate, log=path).run(trials=50)
    assert len(load(path, space).trials) > 0


def test_metrics_and_objectives_must_fit() -> None:
    space = toy_space()
    with pytest.raises(EvaluationError, match=r"returned the metrics \['f1'\], which lack \['accuracy'\]"):
        Search(space, Random(), lambda trial: {"f1": 1.0}, progress=False).run(trials=3)
    with pytest.raises(EvaluationError, match="evaluate must return a dict"):
        Search(space, Random(), lambda trial: 1.0, objectives=["a", "b"], progress=False).run(trials=3)
    cost = TableProfiler(space)
    with pytest.raises(EvaluationError, match=r"\['cost'\], which are names of profilers"):
        Search(space, Random(), lambda trial: {"accuracy": 1.0, "cost": 2.0}, profilers=[cost], progress=False).run(
            trials=3
        )


def test_a_profiler_can_be_an_objective() -> None:
    space = toy_space()
    cost = TableProfiler(space)
    result = Search(space, Random(), evaluate, objectives=["accuracy", cost], progress=False).run(trials=40)
    assert [trial.columns["cost"] for trial in result.trials] == cost.profile_batch(result.candidates).tolist()
    scores = result.scores()
    assert np.nanmax(scores[:, 1]) <= 0
    assert {trial.number for trial in result.pareto()} == {trial.number for trial in result.pareto("accuracy", cost)}


def test_a_minimised_objective_finds_the_least() -> None:
    result = Search(
        toy_space(),
        Random(),
        lambda trial: trial.architecture["width"],
        objectives=Objective("error", "minimize"),
        progress=False,
    ).run(trials=30)
    assert result.best.metrics["error"] == 4


def test_duplicate_profiler_names() -> None:
    space = toy_space()
    limits = (TableProfiler(space) <= 80.0, TableProfiler(space, seed=2) <= 80.0)
    with pytest.raises(ProfilerError, match="two profilers are named 'cost'"):
        Search(space, Chain(Random(), Filter(*limits)), evaluate)


def test_a_strategy_that_waits_for_nothing_is_a_deadlock() -> None:
    class Shy(RecordingStrategy):
        def _ask(self, n: int) -> Candidates:
            return batch_of_none(self.context.space)

    with pytest.raises(DeadlockError, match="stage Shy gives no candidate"):
        Search(toy_space(), Chain(Shy(), Deduplicate()), evaluate, progress=False).run(trials=3)

    class Hoard(Middleware):
        def _ask(self, n: int) -> Candidates:
            self.inner.ask(n)
            return batch_of_none(self.context.space)

    with pytest.raises(DeadlockError, match="stage Hoard gives no candidate"):
        Search(toy_space(), Chain(Random(), Hoard(), Deduplicate()), evaluate, progress=False).run(trials=3)


def test_an_exhausted_strategy_ends_the_run(tmp_path: Path) -> None:
    space = Space([Choice("width", (1, 2, 3))])
    for _ in range(2):
        result = Search(space, Grid(), evaluate_width, log=tmp_path / "run.db", progress=False).run(trials=10)
        assert len(result.trials) == 3
        assert "exhausted" in result.ended


def evaluate_width(trial: Trial) -> float:
    return float(trial.architecture["width"])


def test_a_filter_that_lets_nothing_through_is_an_error() -> None:
    strategy = Chain(Random(), Filter(lambda architecture: False, patience=50))
    with pytest.raises(ConstraintError, match="ended before its first trial: .*50"):
        Search(toy_space(), strategy, evaluate, progress=False).run(trials=3)


@pytest.mark.parametrize(
    ("changes", "error", "text"),
    [
        ({"window": 0}, ValueError, "window must be an integer of at least 1"),
        ({"seed": -1}, ValueError, "seed must be"),
        ({"seed": 1.5}, ValueError, "seed must be"),
        ({"order": "any"}, ValueError, "'asked' or 'finished'"),
        ({"resume": "hot"}, ValueError, "'replay' or 'warm'"),
        ({"executor": "fast"}, TypeError, "an Executor or a number of workers"),
        ({"objectives": []}, ValueError, "one or several objectives"),
        ({"objectives": ["a", "a"]}, ValueError, "different metrics"),
    ],
)
def test_bad_arguments(changes: dict[str, Any], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        Search(toy_space(), Random(), evaluate, **changes)


def test_bad_positional_arguments() -> None:
    with pytest.raises(TypeError, match="Search takes a Space first"):
        Search(Random(), toy_space(), evaluate)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="a strategy or a Chain second"):
        Search(toy_space(), Random, evaluate)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="run needs a limit"):
        Search(toy_space(), Random(), evaluate).run()
    with pytest.raises(ValueError, match="trials must be an integer of at least 1"):
        Search(toy_space(), Random(), evaluate).run(trials=0)
    with pytest.raises(ValueError, match="seconds must be above 0"):
        Search(toy_space(), Random(), evaluate).run(seconds=0)
