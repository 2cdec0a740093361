from __future__ import annotations

import contextlib
import functools
import os
import pickle
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from nasmw.candidates import Status
from nasmw.choice import Choice
from nasmw.errors import OrderError
from nasmw.executors import Executor, Processes, Serial
from nasmw.space import Space
from nasmw.trial import Task, TaskResult, Trial

TIMEOUT = 2.0
posix = pytest.mark.skipif(sys.platform == "win32", reason="signals and fork servers are those of POSIX")


def act(trial: Trial) -> object:
    """Do what the architecture says; imports no torch, so that workers start fast."""
    what = trial.architecture["do"]
    if what == "raise":
        raise ValueError("bad\nnews")
    if what == "system exit":
        sys.exit(3)
    if what == "exit":
        os._exit(3)
    if what == "exit 0":
        os._exit(0)
    if what == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if what == "segfault":
        os.kill(os.getpid(), signal.SIGSEGV)
    if what == "hang":
        time.sleep(600)
    if what == "report":
        trial.report(1, 0.5)
        trial.report(2, 0.75)
    if what == "nothing":
        return None
    if what == "interrupt":
        os.kill(os.getpid(), signal.SIGINT)
    if what == "pid":
        time.sleep(0.3)
        return {"pid": os.getpid(), "device": 0 if trial.device is None else int(trial.device.removeprefix("cpu:"))}
    return {"seed": trial.seed % 1000, "threads": int(os.environ.get("OMP_NUM_THREADS", "0"))}


DEEDS = (
    *("seed", "raise", "system exit", "exit", "exit 0", "kill", "segfault", "hang", "report", "nothing"),
    *("interrupt", "pid"),
)
SPACE = Space([Choice("do", DEEDS)])


def task(number: int, do: str = "seed", seed: int = 0) -> Task:
    return Task(number, {"do": do}, seed)


def run(executor: Executor, tasks: list[Task]) -> dict[int, TaskResult]:
    """Run tasks as the loop does; return the results by number."""
    left, results = list(tasks), []
    while left or len(results) < len(tasks):
        while left and executor.free:
            executor.submit(left.pop(0))
        results += executor.wait(60)
    assert len({result.number for result in results}) == len(results)
    return {result.number: result for result in results}


@pytest.fixture(scope="module")
def pool() -> Iterator[Processes]:
    with Processes(2, timeout=TIMEOUT, devices=["cpu:1", "cpu:2"]) as executor:
        executor.start(SPACE, act)
        yield executor


@pytest.fixture(scope="module")
def serial() -> Iterator[Serial]:
    with Serial() as executor:
        executor.start(SPACE, act)
        yield executor


@pytest.fixture(params=["serial", "pool"])
def executor(request: pytest.FixtureRequest) -> Executor:
    return request.getfixturevalue(request.param)


def test_results_come_back_under_their_numbers(executor: Executor) -> None:
    results = run(executor, [task(number, seed=number) for number in range(8)])
    assert [results[number].metrics["seed"] for number in range(8)] == list(range(8))
    assert all(result.status is Status.COMPLETED and not result.reason for result in results.values())
    assert all(0 <= result.seconds < 3 and abs(result.started - time.time()) < 60 for result in results.values())


def test_a_raised_exception_is_a_failed_trial_with_its_traceback(executor: Executor) -> None:
    result = run(executor, [task(5, "raise")])[5]
    assert (result.status, result.metrics, result.reason) == (Status.FAILED, None, "ValueError: bad news")
    assert 'raise ValueError("bad\\nnews")' in result.traceback


def test_sys_exit_is_a_failed_trial(executor: Executor) -> None:
    results = run(executor, [task(0, "system exit"), task(1)])
    assert results[0].reason == "SystemExit: 3"
    assert results[1].status is Status.COMPLETED


def test_reports_come_back(executor: Executor) -> None:
    assert run(executor, [task(0, "report")])[0].reports == ((1, 0.5), (2, 0.75))


def test_a_forgotten_return_is_a_failed_trial(executor: Executor) -> None:
    assert "is the `return` missing" in run(executor, [task(0, "nothing")])[0].reason


def test_nothing_submitted_is_nothing_to_wait_for(executor: Executor) -> None:
    assert executor.wait() == []
    assert executor.free == executor.workers


def test_more_tasks_than_free_are_refused(executor: Executor) -> None:
    free = executor.free
    for number in range(free):
        executor.submit(task(number))
    assert executor.free == 0
    with pytest.raises(OrderError, match="takes no task now"):
        executor.submit(task(free))
    results: list[TaskResult] = []
    while len(results) < free:
        results += executor.wait()


def test_starting_twice_is_refused(executor: Executor) -> None:
    with pytest.raises(OrderError, match="started already"):
        executor.start(SPACE, act)


@pytest.mark.parametrize("executor", [Serial(), Processes(1)])
def test_submitting_before_the_start_is_refused(executor: Executor) -> None:
    assert executor.free == 0
    with pytest.raises(OrderError, match="not started"):
        executor.submit(task(0))


@pytest.mark.parametrize("executor", [Serial(), Processes(1)])
def test_evaluate_must_be_callable(executor: Executor) -> None:
    with pytest.raises(TypeError, match="evaluate must be a function of a trial, got 3"):
        executor.start(SPACE, 3)  # type: ignore[arg-type]


def test_ctrl_c_passes_through_serial() -> None:
    def interrupt(trial: Trial) -> float:
        raise KeyboardInterrupt

    with Serial() as executor:
        executor.start(SPACE, interrupt)
        executor.submit(task(0))
        with pytest.raises(KeyboardInterrupt):
            executor.wait()
        assert executor.free == 1


# -- processes ------------------------------------------------------------------------------------------------------


@posix
def test_crashes_cost_one_trial_each_and_later_tasks_succeed(pool: Processes) -> None:
    tasks = [task(0, "exit"), task(1, "kill"), task(2, "segfault"), task(3, "exit 0"), task(4), task(5), task(6)]
    results = run(pool, tasks)
    assert results[0].reason == "worker died (exit code 3)"
    assert results[1].reason == "worker died (signal 9, SIGKILL, out of memory?)"
    assert results[2].reason == "worker died (signal 11, SIGSEGV)"
    assert results[3].reason == "worker died (exit code 0)"
    assert all(results[number].status is Status.FAILED and results[number].metrics is None for number in range(4))
    assert all(results[number].status is Status.COMPLETED for number in range(4, 7))


def test_a_hang_is_timed_out_while_the_other_worker_goes_on(pool: Processes) -> None:
    results = run(pool, [task(0, "hang"), *(task(number) for number in range(1, 6))])
    assert results[0].reason == "timed out after 2 s"
    assert TIMEOUT <= results[0].seconds < TIMEOUT + 2
    assert all(results[number].status is Status.COMPLETED for number in range(1, 6))


def test_wait_ends_after_its_timeout(pool: Processes) -> None:
    pool.submit(task(0, "pid"))
    begin = time.monotonic()
    assert pool.wait(0.0) == []
    assert time.monotonic() - begin < 0.25
    assert [result.number for result in pool.wait()] == [0]


def test_each_worker_has_its_own_device(pool: Processes) -> None:
    results = run(pool, [task(number, "pid") for number in range(6)])
    pairs = {(result.metrics["pid"], result.metrics["device"]) for result in results.values()}
    assert sorted(device for _, device in pairs) == [1, 2]


@posix
def test_a_replaced_worker_keeps_its_device(pool: Processes) -> None:
    run(pool, [task(0, "kill"), task(1, "kill")])
    results = run(pool, [task(number, "pid") for number in range(6)])
    assert {result.metrics["device"] for result in results.values()} == {1, 2}


@posix
def test_an_idle_worker_that_dies_costs_no_trial(pool: Processes) -> None:
    results = run(pool, [task(number, "pid") for number in range(4)])
    for pid in {int(result.metrics["pid"]) for result in results.values()}:
        os.kill(pid, signal.SIGKILL)
    time.sleep(0.2)
    results = run(pool, [task(number) for number in range(4)])
    assert all(result.status is Status.COMPLETED for result in results.values())


@posix
def test_workers_ignore_ctrl_c(pool: Processes) -> None:
    assert run(pool, [task(0, "interrupt")])[0].status is Status.COMPLETED


def test_workers_use_one_thread_and_the_environment_here_is_left_alone(pool: Processes) -> None:
    before = dict(os.environ)
    assert run(pool, [task(0)])[0].metrics["threads"] == 1
    assert dict(os.environ) == before


def threads_of_torch(trial: Trial) -> int:
    import torch

    return torch.get_num_threads()


@pytest.mark.parametrize("method", ["spawn", pytest.param("forkserver", marks=posix)])
def test_torch_in_a_worker_has_as_many_threads_as_asked(method: str) -> None:
    with Processes(1, threads=2, start_method=method) as executor:
        executor.start(SPACE, threads_of_torch)
        assert run(executor, [task(0)])[0].metrics == {"": 2.0}


@posix
def test_forkserver_survives_crashes_too() -> None:
    with Processes(1, start_method="forkserver", timeout=TIMEOUT) as executor:
        executor.start(SPACE, act)
        results = run(executor, [task(0, "kill"), task(1, "exit"), task(2, "hang"), task(3)])
    assert [results[number].reason for number in range(4)] == [
        "worker died (signal 9, SIGKILL, out of memory?)",
        "worker died (exit code 3)",
        "timed out after 2 s",
        "",
    ]


def test_a_closed_pool_can_be_started_again() -> None:
    executor = Processes(1)
    for _ in range(2):
        executor.start(SPACE, act)
        assert run(executor, [task(0)])[0].status is Status.COMPLETED
        executor.close()
        assert executor.free == 0
        executor.close()


def test_cancelling_does_not_wait_for_running_evaluations() -> None:
    executor = Processes(1)
    executor.start(SPACE, act)
    run(executor, [task(0)])
    executor.submit(task(1, "hang"))
    begin = time.monotonic()
    executor.close(cancel=True)
    assert time.monotonic() - begin < 2


class Unreadable:
    """An evaluate that can be pickled and not read back."""

    def __call__(self, trial: Trial) -> float:
        return 0.0

    def __reduce__(self) -> tuple[object, ...]:
        return _refuse, ()


def _refuse() -> None:
    raise ImportError("no such module here")


def test_a_function_that_a_worker_cannot_read_ends_the_run_with_the_workers_traceback() -> None:
    with Processes(2) as executor:
        executor.start(SPACE, Unreadable())
        executor.submit(task(0))
        with pytest.raises(RuntimeError, match=r"(?s)cannot read.*_refuse.*no such module here.*__main__"):
            executor.wait()
        assert executor.free == 0


def test_what_cannot_travel_is_named_before_anything_runs() -> None:
    executor = Processes(1)
    with pytest.raises(TypeError, match=r"^evaluate cannot be sent to worker processes.*lambda.*functools.partial"):
        executor.start(SPACE, lambda trial: 0.0)
    with pytest.raises(TypeError, match=r"^the space's build function cannot be sent"):
        executor.start(Space([Choice("do", DEEDS)], lambda architecture: None), act)  # type: ignore[arg-type,return-value]
    with pytest.raises(TypeError, match=r"^the space's function_key cannot be sent"):
        executor.start(Space([Choice("do", DEEDS)], function_key=lambda architecture: 0), act)
    assert executor.free == 0


def test_a_space_travels_whole() -> None:
    space = Space([Choice("depth", (1, 2)), Choice("kernel", ((3, 3), (5, 5)), when={"depth": 2})], name="small")
    back = pickle.loads(pickle.dumps(space))
    assert (back.fingerprint, back.size, back.name) == (space.fingerprint, space.size, "small")
    assert back.decode(space.encode({"depth": 2, "kernel": (5, 5)})) == {"depth": 2, "kernel": (5, 5)}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"workers": 0}, "workers as an integer of at least 1, got 0"),
        ({"workers": -1}, "workers as an integer of at least 1, got -1"),
        ({"workers": True}, "workers as an integer of at least 1, got True"),
        ({"workers": 2, "threads": 0}, "threads as an integer of at least 1, got 0"),
        ({"timeout": 0}, "timeout as a positive number of seconds, or None, got 0"),
        ({"timeout": -1.0}, "timeout as a positive"),
        ({"timeout": float("nan")}, "timeout as a positive"),
        ({"timeout": "30"}, "timeout as a positive"),
        ({"workers": 2, "devices": ["cpu"]}, r"one device for each of its 2 workers, as a list, got \['cpu'\]"),
        ({"workers": 3, "devices": "cpu"}, "as a list, got 'cpu'"),
        ({"start_method": "fork"}, "start_method as 'spawn' or.*, got 'fork'"),
    ],
)
def test_bad_settings(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Processes(**arguments)  # type: ignore[arg-type]


def test_the_settings_show() -> None:
    assert repr(Serial("cpu")) == "Serial(device='cpu')"
    assert repr(Processes(1)) == ("Processes(workers=1, timeout=None, threads=1, devices=None, start_method='spawn')")


def scaled(trial: Trial, factor: float) -> float:
    return trial.seed * factor


def test_a_partial_travels() -> None:
    with Processes(1) as executor:
        executor.start(SPACE, functools.partial(scaled, factor=0.5))
        assert run(executor, [task(0, seed=3)])[0].metrics == {"": 1.5}


# -- whole programs -------------------------------------------------------------------------------------------------

HEAD = """
import os, subprocess, sys, time
from nasmw import Choice, Space
from nasmw.executors import Processes
from nasmw.trial import Task

space = Space([Choice("width", (8, 16))])

def evaluate(trial):
    subprocess.Popen(["sleep", "600"])  # holds stdout open as well
    print("evaluating", flush=True)
    time.sleep(600)

def main():
    with Processes(2) as executor:
        executor.start(space, evaluate)
        print("started", flush=True)
        for number in range(2):
            executor.submit(Task(number, {"width": 8}, 0))
        executor.wait()
"""


@contextlib.contextmanager
def program(folder: Path, tail: str) -> Iterator[subprocess.Popen[str]]:
    """Run a script in a session of its own; it is over at the end, even where the test fails."""
    script = folder / "script.py"
    script.write_text(HEAD + textwrap.dedent(tail))
    process = subprocess.Popen(
        [sys.executable, str(script)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


GUARDED = """
if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        print("interrupted")
"""
SLOW_IMPORT = """
if __name__ != "__main__":
    print("importing", flush=True)
    time.sleep(1)
"""


@posix
def test_workers_and_their_children_die_with_a_killed_parent(tmp_path: Path) -> None:
    with program(tmp_path, GUARDED) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline().strip() for _ in range(3)]
        assert lines == ["started", "evaluating", "evaluating"]
        process.kill()
        process.communicate(timeout=20)  # the pipe ends when the last process that holds it has died


@posix
@pytest.mark.parametrize("starting", [True, False])
def test_ctrl_c_reaches_the_parent_alone(tmp_path: Path, starting: bool) -> None:
    with program(tmp_path, SLOW_IMPORT * starting + GUARDED) as process:
        assert process.stdout is not None
        for _ in range(3):
            process.stdout.readline()
        os.killpg(process.pid, signal.SIGINT)
        output, errors = process.communicate(timeout=20)
    assert output.splitlines()[-1:] == ["interrupted"]
    assert errors == ""
    assert process.returncode == 0


def test_a_program_that_forgets_to_close_still_ends(tmp_path: Path) -> None:
    tail = """
    if __name__ == "__main__":
        executor = Processes(1)
        executor.start(space, evaluate)
        executor.submit(Task(0, {"width": 8}, 0))
        executor.wait(0.5)
    """
    with program(tmp_path, tail) as process:
        _, errors = process.communicate(timeout=20)
    assert (errors, process.returncode) == ("", 0)


@pytest.mark.parametrize("method", ["spawn", pytest.param("forkserver", marks=posix)])
def test_a_script_without_guard_is_told_so(tmp_path: Path, method: str) -> None:
    tail = f"""
    with Processes(2, start_method={method!r}) as executor:
        executor.start(space, evaluate)
        executor.submit(Task(0, {{"width": 8}}, 0))
        executor.wait()
    """
    with program(tmp_path, tail) as process:
        _, errors = process.communicate(timeout=30)
    assert process.returncode == 1
    assert "if __name__ == '__main__':" in errors.splitlines()[-1]
    assert errors.splitlines()[-1].startswith("RuntimeError: ")
