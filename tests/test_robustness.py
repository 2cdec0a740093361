"""Misuse and bad luck: what must not hang, lose a trial, poison a log or give a wrong number in silence."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nasmw import Chain, Deduplicate, Filter, Rank, Search, Space, Trial, load, recorded
from nasmw.candidates import Outcomes, Status
from nasmw.choice import Choice
from nasmw.errors import (
    ConstraintError,
    EvaluationError,
    LogError,
    LogMismatchError,
    ProfilerError,
    SearchInterrupted,
    SpaceError,
)
from nasmw.executors import Processes
from nasmw.interrupts import uninterrupted
from nasmw.log import Log
from nasmw.profiler import Profiler
from nasmw.result import Result, pareto_front
from nasmw.strategies import Grid, Random
from nasmw.strategy import Strategy
from nasmw.testing import RecordingStrategy, TableProfiler, toy_space


def width(trial: Trial) -> float:
    return float(trial.architecture["width"])


def rows(result: Result) -> list[bytes]:
    return [trial.codes for trial in result.trials]


def search(path: Path | None, strategy: Strategy, evaluate: Callable[[Trial], Any] = width, **options: Any) -> Search:
    return Search(toy_space(), strategy, evaluate, log=path, progress=False, **options)


class TestAStartThatComesToNothing:
    def test_a_refused_limit_can_be_mended_on_the_same_log(self, tmp_path: Path) -> None:
        cost = TableProfiler(toy_space())
        path = tmp_path / "run.db"
        with pytest.raises(ConstraintError, match="nothing in the space meets"):
            search(path, Chain(Random(), Filter(cost <= -1))).run(trials=5)
        result = search(path, Chain(Random(), Filter(cost <= 40))).run(trials=5)
        assert len(result.completed) == 5

    def test_a_filter_that_nothing_passed_can_be_edited(self, tmp_path: Path) -> None:
        path = tmp_path / "run.db"
        with pytest.raises(ConstraintError, match="turned away 50 candidates"):
            search(path, Chain(Random(), Filter(lambda a: False, patience=50))).run(trials=5)
        result = search(path, Chain(Random(), Filter(lambda a: True, patience=50))).run(trials=5)
        assert result.funnel.proposed == 5  # what the first start turned away is no part of this run

    def test_another_space_may_take_the_log_over_without_old_values(self, tmp_path: Path) -> None:
        path = tmp_path / "run.db"
        one, two = Space([Choice("a", (1, 2))]), Space([Choice("a", (3, 4))])

        def value(architecture: dict[str, Any]) -> float:
            return float(architecture["a"] > 2)

        with pytest.raises(ConstraintError, match="before its first trial"):
            Search(one, Chain(Grid(), Filter(recorded(value))), lambda trial: 1.0, log=path).run(trials=2)
        result = Search(two, Chain(Grid(), Filter(recorded(value))), lambda trial: 1.0, log=path).run(trials=2)
        assert len(result.trials) == 2

    def test_a_chain_that_refuses_a_warm_restart_leaves_the_log_to_the_former_one(self, tmp_path: Path) -> None:
        cost = TableProfiler(toy_space())
        path = tmp_path / "run.db"
        search(path, Random()).run(trials=5)
        with pytest.raises(ConstraintError):
            search(path, Chain(Random(), Filter(cost <= -1)), resume="warm").run(trials=8)
        assert len(search(path, Random()).run(trials=8).trials) == 8

    def test_a_small_space_that_a_filter_empties_tells_of_the_nearest_miss(self) -> None:
        class Unbounded(TableProfiler):
            def bounds(self) -> None:
                return None

        cost = Unbounded(toy_space())
        with pytest.raises(ConstraintError, match=r"1596 by cost <= 0\.5\. The nearest miss: cost = 15 .*that limit$"):
            search(None, Chain(Grid(), Filter(cost <= 0.5, pushdown=False))).run(trials=5)


class TestWarmRestarts:
    def test_it_does_not_ask_again_what_the_first_start_asked(self, tmp_path: Path) -> None:
        path = tmp_path / "run.db"
        first = search(path, Random()).run(trials=10)
        more = search(path, Random(), resume="warm").run(trials=20)
        assert rows(more)[:10] == rows(first)
        assert rows(more)[10:] != rows(first)
        again = search(path, Random()).run(trials=25)
        assert rows(again)[:20] == rows(more)

    def test_what_was_left_open_may_be_asked_again_after_every_restart(self, tmp_path: Path) -> None:
        path = tmp_path / "run.db"

        def ends(trial: Trial) -> float:
            if trial.number == 2:
                raise KeyboardInterrupt
            return 1.0

        with pytest.raises(SearchInterrupted):
            search(path, Chain(Grid(), Deduplicate()), ends, window=4).run(trials=9)
        for trials in (8, 10):
            strategy = RecordingStrategy()
            search(path, Chain(strategy, Deduplicate()), resume="warm").run(trials=trials)
            told = [str(status) for outcomes in strategy.adopted for status in outcomes.status]
            assert "stopped" not in told

    def test_a_kill_meanwhile_leaves_the_log_as_it_was(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        path = tmp_path / "run.db"

        def ends(trial: Trial) -> float:
            if trial.number == 2:
                raise KeyboardInterrupt
            return 1.0

        with pytest.raises(SearchInterrupted):
            search(path, Random(), ends, window=4).run(trials=9)
        before = [(trial.number, trial.status) for trial in load(path).trials]
        seen = []
        original = Log.event

        def killed(log: Log, kind: str, *rest: Any) -> None:
            if kind == "begin":  # another process sees what a kill would leave
                seen.append([(trial.number, trial.status) for trial in load(path).trials])
            original(log, kind, *rest)

        monkeypatch.setattr(Log, "event", killed)
        search(path, Random(), resume="warm").run(trials=9)
        assert seen == [before]

    def test_a_metric_that_the_trials_lack_is_named(self, tmp_path: Path) -> None:
        path = tmp_path / "run.db"
        search(path, Random()).run(trials=3)
        with pytest.raises(LogMismatchError, match=r"\['accuracy'\], and this search optimises \['f1'\]"):
            search(path, Random(), objectives="f1", resume="warm").run(trials=5)

    def test_a_profiler_that_the_trials_lack_is_asked(self, tmp_path: Path) -> None:
        path = tmp_path / "run.db"
        cost = TableProfiler(toy_space())
        search(path, Random()).run(trials=3)
        search(path, Random(), objectives=["accuracy", cost], resume="warm").run(trials=5)
        result = search(path, Random(), objectives=["accuracy", cost]).run(trials=7)
        assert not np.isnan(result.scores()).any()


class Remembers(RecordingStrategy):
    """Keeps the columns that came back with each outcome."""

    def _tell(self, outcomes: Outcomes) -> None:
        super()._tell(outcomes)
        self._columns = [*getattr(self, "_columns", []), sorted(outcomes.candidates.columns)]


def test_a_replay_tells_the_same_columns(tmp_path: Path) -> None:
    cost = TableProfiler(toy_space())
    path = tmp_path / "run.db"
    search(path, Remembers(), profilers=[cost]).run(trials=4)
    strategy = Remembers()
    search(path, strategy, profilers=cost).run(trials=6)
    assert strategy._columns == [["cost"]] * 6


class TestTheClock:
    def test_what_has_not_started_is_left_for_later(self) -> None:
        def slow(trial: Trial) -> float:
            time.sleep(0.2)
            return 1.0

        begin = time.monotonic()
        result = search(None, Random(), slow, window=50).run(seconds=0.3)
        assert time.monotonic() - begin < 2.0
        assert result.ended == "0.3 seconds have passed"
        assert len(result.completed) == 2
        assert len(result.trials) > 40

    def test_waiting_for_the_last_trials_takes_no_processor_time(self) -> None:
        begin = time.process_time()
        result = search(None, Random(), _sleeps, executor=Processes(1), window=1).run(seconds=0.5)
        assert len(result.completed) == 1
        assert time.process_time() - begin < 1.0


def _sleeps(trial: Trial) -> float:
    time.sleep(3.0)
    return 1.0


def test_one_bad_result_loses_no_other_that_came_with_it(tmp_path: Path) -> None:
    from nasmw.executors.base import Executor
    from nasmw.trial import Task, TaskResult

    class Together(Executor):
        workers = 4

        def start(self, space: Space, evaluate: Any) -> None:
            self._tasks: list[Task] = []

        @property
        def free(self) -> int:
            return self.workers - len(self._tasks)

        def submit(self, task: Task) -> None:
            self._tasks.append(task)

        def wait(self, timeout: float | None = None) -> list[TaskResult]:
            tasks, self._tasks = self._tasks, []
            return [
                TaskResult(t.number, Status.COMPLETED, {"acc" if t.number == 1 else "accuracy": 1.0}, "", "", 0, (), 0)
                for t in tasks
            ]

        def close(self, cancel: bool = False) -> None:
            pass

    path = tmp_path / "run.db"
    with pytest.raises(EvaluationError, match=r"lack \['accuracy'\]"):
        search(path, Random(), executor=Together(), window=4).run(trials=4)
    assert [trial.number for trial in load(path).completed] == [0, 2, 3]


class TestNames:
    def test_two_sources_of_recorded_values_under_one_name_are_refused(self) -> None:
        chain = Chain(
            Random(),
            Filter(recorded(lambda architecture: True, name="proxy")),
            Rank(recorded(lambda architecture: -7.0, name="proxy"), groups_of=2),
        )
        with pytest.raises(ProfilerError, match="two sources of recorded values are named 'proxy'"):
            search(None, chain).run(trials=2)

    def test_one_function_may_be_recorded_in_two_stages(self) -> None:
        def proxy(architecture: dict[str, Any]) -> float:
            return 1.0

        chain = Chain(Random(), Filter(recorded(proxy)), Rank(recorded(proxy), groups_of=2))
        assert len(search(None, chain).run(trials=2).trials) == 2

    def test_an_objective_may_not_have_the_name_of_a_profiler(self) -> None:
        cost = TableProfiler(toy_space())
        with pytest.raises(ProfilerError, match="the objective 'cost' is what evaluate returns"):
            search(None, Chain(Random(), Filter(cost <= 40)), objectives="cost")

    def test_a_metric_does_not_replace_a_scorer_of_its_name(self) -> None:
        def accuracy(architecture: dict[str, Any]) -> float:
            return 0.0

        with pytest.raises(EvaluationError, match=r"\['accuracy'\], which are names of profilers or scorers"):
            search(None, Chain(Random(), Rank(accuracy, groups_of=2))).run(trials=2)

    def test_a_table_keeps_columns_of_one_name_apart(self) -> None:
        space = Space([Choice("depth", (1, 2)), Choice("number", (7,))])
        result = Search(space, Grid(), lambda trial: {"accuracy": 1.0, "depth": 9.0}).run(trials=2)
        table = result.table()
        assert (table["number"], table["choice:number"]) == ([0, 1], [7, 7])
        assert (table["depth"], table["metric:depth"]) == ([1, 2], [9.0, 9.0])


class TestSpaces:
    def test_options_have_an_order(self) -> None:
        with pytest.raises(SpaceError, match="have an order"):
            Choice("op", {"conv", "pool"})  # type: ignore[arg-type]

    def test_options_are_equal_to_themselves(self) -> None:
        with pytest.raises(SpaceError, match="not equal to itself"):
            Choice("rate", (0.1, float("nan")))

    def test_bytes_are_no_options(self) -> None:
        with pytest.raises(SpaceError, match="a sequence of values"):
            Choice("op", b"conv")  # type: ignore[arg-type]

    def test_a_set_as_condition_gives_one_fingerprint(self) -> None:
        names = [f"op{number}" for number in range(8)]
        first = Space([Choice("op", names), Choice("k", (3, 5), when={"op": set(names[:6])})])
        second = Space([Choice("op", names), Choice("k", (3, 5), when={"op": names[5::-1]})])
        assert first.fingerprint == second.fingerprint

    def test_a_condition_that_cannot_be_hashed_is_named(self) -> None:
        with pytest.raises(SpaceError, match=r"'k' depends on 'op' being \[1\], which is no option"):
            Space([Choice("op", (1, 2)), Choice("k", (3, 5), when={"op": [[1]]})])

    def test_a_space_of_ten_to_the_4515_can_be_shown(self) -> None:
        space = Space([Choice(f"c{number}", (0, 1)) for number in range(15_000)])
        assert "about 10^4515 architectures" in repr(space)

    @pytest.mark.parametrize("choices", [None, Choice("a", (1, 2))])
    def test_choices_are_a_list(self, choices: Any) -> None:
        with pytest.raises(SpaceError, match="a list of Choice objects"):
            Space(choices)

    @pytest.mark.parametrize("key", [lambda a: [1], lambda a: a["none"]])
    def test_a_bad_function_key_is_named(self, key: Callable[[Any], Any]) -> None:
        space = Space([Choice("a", (1, 2))], function_key=key)
        with pytest.raises(SpaceError, match="function_key of .* must return something hashable"):
            Search(space, Chain(Random(), Deduplicate()), lambda trial: 1.0).run(trials=2)

    def test_a_log_refuses_options_that_it_could_not_recognise(self, tmp_path: Path) -> None:
        space = Space([Choice("activation", (width, rows))])
        with pytest.raises(SpaceError, match="another one in each process"):
            Search(space, Random(), lambda trial: 1.0, log=tmp_path / "run.db").run(trials=2)
        assert len(Search(space, Random(), lambda trial: 1.0).run(trials=2).trials) == 2


class TestArguments:
    @pytest.mark.parametrize("objectives", [None, {"error": "minimize"}, 3])
    def test_objectives(self, objectives: Any) -> None:
        with pytest.raises(TypeError, match=r"objectives are one or several names"):
            search(None, Random(), objectives=objectives)

    def test_numbers_of_numpy(self) -> None:
        found = search(None, Random(), window=np.int64(3), executor=np.int64(1), seed=np.int64(2))
        assert (found.window, type(found.window), found.executor.workers) == (3, int, 1)

    def test_seconds_are_a_number(self) -> None:
        with pytest.raises(ValueError, match="seconds must be above 0 and a number, got '5'"):
            search(None, Random()).run(seconds="5")  # type: ignore[arg-type]

    def test_a_log_is_a_file(self, tmp_path: Path) -> None:
        with pytest.raises(LogError, match="is a folder; name a file in it"):
            search(tmp_path, Random()).run(trials=1)
        with pytest.raises(TypeError, match="log must be the path of a file"):
            search(5, Random())  # type: ignore[arg-type]

    def test_objectives_that_are_all_profilers(self) -> None:
        with pytest.raises(EvaluationError, match="a dict that names its metric, which is no objective"):
            search(None, Random(), objectives=[TableProfiler(toy_space())]).run(trials=1)

    def test_a_profiler_that_raises_is_named(self) -> None:
        class Broken(Profiler):
            def _profile(self, architecture: Any) -> float:
                raise KeyError("no such layer")

        broken = Broken("latency", "ms", space=toy_space())
        with pytest.raises(ProfilerError, match=r"<Broken 'latency' \[ms\]> failed on .*KeyError: 'no such layer'"):
            search(None, Chain(Random(), Filter(broken <= 3.0))).run(trials=1)


@pytest.mark.parametrize("objectives", [1, 2, 3, 4])
def test_pareto_front_of_many_equal_or_good_rows(objectives: int) -> None:
    rng = np.random.default_rng(objectives)
    for _ in range(40):
        scores = rng.integers(-2, 3, (rng.integers(0, 20), objectives)).astype(float)
        scores[rng.random(scores.shape) < 0.05] = np.nan
        scores[rng.random(scores.shape) < 0.05] = -np.inf
        scores[rng.random(scores.shape) < 0.05] = -0.0
        usable = ~np.isnan(scores).any(axis=1)
        expected = [
            bool(usable[row])
            and not any((other >= scores[row]).all() and (other > scores[row]).any() for other in scores)
            for row in range(len(scores))
        ]
        assert pareto_front(scores).tolist() == expected


def test_a_finished_log_in_a_folder_that_may_only_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "run.db"
    search(path, Random()).run(trials=3)
    monkeypatch.setattr(os, "access", lambda *arguments: False)
    before = sorted(os.listdir(tmp_path))
    with Log(path, readonly=True) as log:
        assert len(log.trials(toy_space())) == 3
        assert sorted(os.listdir(tmp_path)) == before  # nothing beside the log, not even for a moment


class TestInterrupts:
    def test_during_replay(self, tmp_path: Path) -> None:
        path = tmp_path / "run.db"
        search(path, Chain(Random(), Filter(narrow))).run(trials=6)
        counts = load(path).funnel.turned_away
        calls = 0

        def interrupted(architecture: dict[str, Any]) -> bool:
            nonlocal calls
            calls += 1
            if calls == 3:
                raise KeyboardInterrupt
            return narrow(architecture)

        interrupted.__qualname__ = interrupted.__name__ = "narrow"
        with pytest.raises(SearchInterrupted, match="after 6 finished trials; start it again"):
            search(path, Chain(Random(), Filter(interrupted))).run(trials=9)
        assert load(path).funnel.turned_away == counts

    def test_are_ignored_only_meanwhile(self) -> None:
        handler = signal.getsignal(signal.SIGINT)
        with uninterrupted():
            signal.raise_signal(signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) is handler
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)

    def test_in_another_thread_nothing_is_touched(self) -> None:
        seen: list[Any] = []

        def work() -> None:
            with uninterrupted():
                seen.append(signal.getsignal(signal.SIGINT))

        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        assert seen == [signal.getsignal(signal.SIGINT)]

    @pytest.mark.skipif(sys.platform == "win32", reason="process groups")
    @pytest.mark.parametrize("pause", [0.0, 0.001, 0.01])
    def test_two_in_a_row_leave_no_worker(self, tmp_path: Path, pause: float) -> None:
        script = tmp_path / "script.py"
        script.write_text(
            "import time\n"
            "from nasmw import Search\n"
            "from nasmw.strategies import Random\n"
            "from nasmw.testing import toy_space\n"
            "def slow(trial):\n"
            "    print('at work', flush=True)\n"
            "    time.sleep(60)\n"
            "if __name__ == '__main__':\n"
            "    Search(toy_space(), Random(), slow, executor=2, log='run.db').run(trials=9)\n"
        )
        process = subprocess.Popen(
            [sys.executable, str(script)], cwd=tmp_path, start_new_session=True, stdout=subprocess.PIPE, stderr=-3
        )
        assert process.stdout is not None
        try:
            process.stdout.readline()
            os.killpg(process.pid, signal.SIGINT)
            time.sleep(pause)
            os.killpg(process.pid, signal.SIGINT)
            assert process.wait(timeout=20) != 0
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.stdout.close()


def narrow(architecture: dict[str, Any]) -> bool:
    return bool(architecture["width"] <= 8)


def test_no_child_outlives_a_search() -> None:
    search(None, Random(), executor=2).run(trials=3)
    assert not [child for child in multiprocessing.active_children() if child.name.startswith("nasmw-worker")]
