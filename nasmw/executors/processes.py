"""Processes: evaluations in worker processes, where a crash or a hang costs one trial."""

from __future__ import annotations

import atexit
import collections
import contextlib
import multiprocessing
import multiprocessing.connection
import os
import pickle
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import TYPE_CHECKING, Any

import attrs

from nasmw.candidates import Status
from nasmw.errors import OrderError
from nasmw.executors.base import Executor, check_evaluate
from nasmw.executors.worker import Broken, Ready, serve, thread_variables
from nasmw.interrupts import uninterrupted
from nasmw.trial import Evaluate, Task, TaskResult

if TYPE_CHECKING:
    from nasmw.space import Space

__all__ = ["Processes"]

METHODS = ("spawn", "forkserver")
FALSE_STARTS = 3  # so many workers in a row may die as they start, once one has started
LOOK_AGAIN = 1.0  # seconds; children of a dead worker can hold its pipe open, so its end is also looked for
GRACE = 5.0  # seconds that close() leaves an evaluation
GUARD = (
    "Worker processes import the script that started them: what starts the search must stand under "
    "`if __name__ == '__main__':`, and the space's build function and evaluate must be importable from a module "
    "(not defined in a notebook or an interactive session)"
)


@attrs.define(eq=False)
class _Worker:
    """One worker process, and what it does now."""

    place: int
    process: BaseProcess
    pipe: Connection
    ready: bool = False
    task: Task | None = None
    begin: float = 0.0  # on the monotonic clock
    started: float = 0.0  # since the epoch

    def kill(self) -> None:
        """End the process and its children at once."""
        if self.ready and sys.platform != "win32" and self.process.pid is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.process.pid, signal.SIGKILL)
        self.process.kill()
        self.process.join()
        self.pipe.close()

    def failed(self, reason: str) -> TaskResult:
        """Return the result of the task that this worker did not finish."""
        assert self.task is not None
        seconds = time.monotonic() - self.begin
        return TaskResult(self.task.number, Status.FAILED, None, reason, "", seconds, (), self.started)


class Processes(Executor):
    """Runs evaluations in worker processes.

    A worker that crashes, is killed for memory, or takes too long costs the one trial that it ran, which is failed
    with the reason; another worker takes its place. Workers ignore Ctrl-C, and end when this process ends, even when
    it is killed. They are new processes, not forks, so the space and `evaluate` travel by pickle, and a script that
    runs a search needs the guard ``if __name__ == "__main__":``.

    Args:
        workers: How many processes.
        timeout: The most seconds that an evaluation may take, start-up of the worker apart; None for no limit.
        threads: How many threads torch (and numpy) use in each worker. One is the fastest where there are as many
            workers as cores, and keeps results independent of how many there are.
        devices: One device for each worker, such as ``["cuda:0", "cuda:1"]``: the `Trial.device` of its trials.
            ``CUDA_VISIBLE_DEVICES`` is not touched.
        start_method: ``"spawn"``, or ``"forkserver"`` (not on Windows), which starts further workers faster.

    Raises:
        ValueError: If a number is not positive, devices are not as many as workers, or the start method is unknown.

    Example:
        >>> Processes(workers=2, timeout=600.0, devices=["cuda:0", "cuda:1"])
        Processes(workers=2, timeout=600.0, threads=1, devices=['cuda:0', 'cuda:1'], start_method='spawn')
    """

    def __init__(
        self,
        workers: int = 2,
        *,
        timeout: float | None = None,
        threads: int = 1,
        devices: Sequence[str] | None = None,
        start_method: str = "spawn",
    ) -> None:
        for name, value in (("workers", workers), ("threads", threads)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"Processes needs {name} as an integer of at least 1, got {value!r}")
        if timeout is not None and not (isinstance(timeout, (int, float)) and timeout > 0):
            raise ValueError(f"Processes needs timeout as a positive number of seconds, or None, got {timeout!r}")
        if isinstance(devices, str) or (devices is not None and len(devices) != workers):
            raise ValueError(
                f"Processes needs one device for each of its {workers} workers, as a list, got {devices!r}; "
                "name a device twice for two workers on it"
            )
        if start_method not in METHODS or start_method not in multiprocessing.get_all_start_methods():
            raise ValueError(
                "Processes needs start_method as 'spawn' or, where the system has it, 'forkserver', "
                f"got {start_method!r}"
            )
        self.workers = workers
        self.timeout = timeout
        self.threads = threads
        self.devices = None if devices is None else list(devices)
        self.start_method = start_method
        self._context: Any = multiprocessing.get_context(start_method)
        self._job: bytes | None = None
        self._pool: list[_Worker] = []
        self._queue: collections.deque[Task] = collections.deque()
        self._any_ready = False
        self._false_starts = 0

    def __repr__(self) -> str:
        return (
            f"Processes(workers={self.workers}, timeout={self.timeout!r}, threads={self.threads}, "
            f"devices={self.devices!r}, start_method={self.start_method!r})"
        )

    def start(self, space: Space, evaluate: Evaluate) -> None:
        """Start the workers; does not wait until they are ready.

        Raises:
            TypeError: If `evaluate` is no function, or the space or `evaluate` cannot be pickled; names which part.
            OrderError: If the executor is started already.
            RuntimeError: If this process is itself a worker that is just importing the script.
        """
        if self._job is not None:
            raise OrderError(f"{self!r} is started already; close() it first")
        check_evaluate(evaluate)
        if getattr(multiprocessing.current_process(), "_inheriting", False):
            raise RuntimeError(f"a worker process would start workers of its own. {GUARD}.")
        self._job = _pickled(space, evaluate)
        self._any_ready = False
        self._false_starts = 0
        # Registered after multiprocessing's own handler, so it runs before that one waits for the workers.
        atexit.register(self.close, cancel=True)
        try:
            for place in range(self.workers):
                self._pool.append(self._hire(place))
        except BaseException:
            self.close(cancel=True)
            raise

    @property
    def free(self) -> int:
        """How many workers have no task, those that are still starting among them."""
        busy = len(self._queue) + sum(worker.task is not None for worker in self._pool)
        return self.workers - busy if self._job is not None else 0

    def submit(self, task: Task) -> None:
        """Hand a task to a worker, or keep it until one is ready."""
        if not self.free:
            raise OrderError(
                f"{self!r} takes no task now: {'every worker has one' if self._job else 'it is not started'}"
            )
        self._queue.append(task)
        self._hand_out()

    def wait(self, timeout: float | None = None) -> list[TaskResult]:
        """Wait until at least one task has finished, has crashed its worker or has run out of time.

        Raises:
            RuntimeError: If workers cannot start: the script has no ``__main__`` guard, or an import fails.
        """
        results: list[TaskResult] = []
        end = None if timeout is None else time.monotonic() + timeout
        while self._queue or any(worker.task for worker in self._pool):
            self._look(end)
            for place, worker in enumerate(self._pool):
                results += self._serve(place, worker)
            self._hand_out()
            if results or (end is not None and time.monotonic() >= end):
                break
        return results

    def close(self, cancel: bool = False) -> None:
        """Stop the workers.

        Args:
            cancel: Whether running evaluations are stopped at once; else they have five seconds to finish.
        """
        self._job = None
        self._queue.clear()
        deadline = time.monotonic() + GRACE
        try:
            if not cancel:
                for worker in self._pool:
                    with contextlib.suppress(OSError):
                        worker.pipe.send(None)
                for worker in self._pool:
                    # One that is still starting has nothing to finish.
                    if worker.ready:
                        worker.process.join(max(0.0, deadline - time.monotonic()))
        finally:
            with uninterrupted():  # a worker that is left behind would keep this process from ending
                while self._pool:
                    self._pool.pop().kill()
                atexit.unregister(self.close)

    # -- inside ---------------------------------------------------------------------------------------------------

    def _hire(self, place: int) -> _Worker:
        """Start the worker of one place."""
        ours, theirs = self._context.Pipe()
        device = None if self.devices is None else self.devices[place]
        process = self._context.Process(  # not a daemon: an evaluation may start processes, to load data, say
            target=serve, args=(theirs, self._job, device, self.threads), name=f"nasmw-worker-{place}"
        )
        try:
            with _environment(thread_variables(self.threads)), _no_interrupt():
                process.start()
        except (EOFError, ConnectionError) as error:
            raise RuntimeError(f"the fork server ended as it imported the script. {GUARD}.") from error
        finally:
            theirs.close()
        return _Worker(place, process, ours)

    def _hand_out(self) -> None:
        for worker in self._pool:
            if self._queue and worker.ready and worker.task is None:
                try:
                    worker.pipe.send(self._queue[0])
                except OSError:  # it died while it had nothing to do; _serve replaces it
                    continue
                worker.task, worker.begin, worker.started = self._queue.popleft(), time.monotonic(), time.time()

    def _look(self, end: float | None) -> None:
        """Wait for a sign of life or death from any worker, for `end`, or for the next time-out."""
        times = [time.monotonic() + LOOK_AGAIN]
        if end is not None:
            times.append(end)
        if self.timeout is not None:
            times += [worker.begin + self.timeout for worker in self._pool if worker.task]
        signs: list[Any] = [sign for worker in self._pool for sign in (worker.pipe, worker.process.sentinel)]
        multiprocessing.connection.wait(signs, max(0.0, min(times) - time.monotonic()))

    def _serve(self, place: int, worker: _Worker) -> Iterator[TaskResult]:
        """Read what a worker has sent; replace it if it is dead or too slow."""
        dead = not worker.process.is_alive()  # before reading: what it sent with its last breath counts
        try:
            while worker.pipe.poll():
                message = worker.pipe.recv()
                if isinstance(message, TaskResult):
                    worker.task = None
                    yield message
                elif isinstance(message, Ready):
                    worker.ready = self._any_ready = True
                    self._false_starts = 0
                elif isinstance(message, Broken):
                    self.close(cancel=True)
                    raise RuntimeError(
                        f"a worker process cannot read the space or evaluate:\n{message.traceback}\n{GUARD}."
                    )
        except (EOFError, OSError):
            dead = True
        late = self.timeout is not None and worker.task is not None
        late = late and time.monotonic() - worker.begin >= (self.timeout or 0.0)
        if not dead and not late:
            return
        if dead:
            worker.process.join(LOOK_AGAIN)  # the pipe may close a moment before the process has an exit code
        code = worker.process.exitcode
        worker.kill()
        if worker.task is not None:
            yield worker.failed(_obituary(code) if dead else f"timed out after {self.timeout:g} s")
        elif not worker.ready:
            self._count_false_start(code)
        self._pool[place] = self._hire(place)

    def _count_false_start(self, code: int | None) -> None:
        self._false_starts += 1
        if self._any_ready and self._false_starts < FALSE_STARTS:
            return
        self.close(cancel=True)
        raise RuntimeError(f"{_obituary(code)} before it was ready; its own message stands above, on stderr. {GUARD}.")


def _pickled(space: Space, evaluate: Evaluate) -> bytes:
    """Return the space and the function as bytes; says which part cannot travel."""
    parts = {
        "the space's build function": getattr(space, "_build", None),
        "the space's function_key": getattr(space, "_function_key", None),
        "the space": space,
        "evaluate": evaluate,
    }
    try:
        return pickle.dumps((space, evaluate))
    except Exception as error:
        culprit = next((name for name, part in parts.items() if not _can_travel(part)), "the space or evaluate")
        raise TypeError(
            f"{culprit} cannot be sent to worker processes: {error}. Write it as a function at the top level of a "
            "module, not as a lambda or a function within a function; fixed arguments go into functools.partial. "
            "Serial() has no such need"
        ) from error


def _can_travel(part: Any) -> bool:
    try:
        pickle.dumps(part)
    except Exception:
        return False
    return True


def _obituary(code: int | None) -> str:
    """Return what is known of a process that has died, in one line."""
    if code is None:
        return "worker died (it closed its pipe)"
    if code >= 0:
        return f"worker died (exit code {code})"
    try:
        name = f", {signal.Signals(-code).name}"
    except ValueError:
        name = ""
    return f"worker died (signal {-code}{name}{', out of memory?' if code == -9 else ''})"


@contextlib.contextmanager
def _environment(variables: dict[str, str]) -> Iterator[None]:
    """Set environment variables for processes that start meanwhile; libraries read some as they are imported."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextlib.contextmanager
def _no_interrupt() -> Iterator[None]:
    """Hold Ctrl-C back; processes that start meanwhile hold it back until they have said that they ignore it."""
    if sys.platform == "win32":
        yield
        return
    from multiprocessing import resource_tracker

    resource_tracker.ensure_running()  # it unblocks signals as it starts, so it starts before they are blocked
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
