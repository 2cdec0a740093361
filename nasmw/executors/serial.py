"""Serial: evaluations one after another, in the process of the search."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nasmw.errors import OrderError
from nasmw.executors.base import Executor, check_evaluate
from nasmw.trial import Evaluate, Task, TaskResult, run_task

if TYPE_CHECKING:
    from nasmw.space import Space

__all__ = ["Serial"]


class Serial(Executor):
    """Runs evaluations one after another, in this process.

    An exception in an evaluation is a failed trial; a crash of the process is not survived, and nothing limits the
    time. `wait` runs the evaluation, whatever its timeout, and Ctrl-C passes through it.

    Args:
        device: The device that trials are told, such as ``"cuda:0"``.

    Example:
        >>> from nasmw import Choice, Space
        >>> with Serial() as executor:
        ...     executor.start(Space([Choice("width", (8, 16))]), lambda trial: trial.architecture["width"] / 16)
        ...     executor.submit(Task(0, {"width": 8}, seed=0))
        ...     executor.wait()[0].metrics
        {'': 0.5}
    """

    workers = 1

    def __init__(self, device: str | None = None) -> None:
        self.device = device
        self._job: tuple[Space, Evaluate] | None = None
        self._task: Task | None = None

    def __repr__(self) -> str:
        return "Serial()" if self.device is None else f"Serial(device={self.device!r})"

    def start(self, space: Space, evaluate: Evaluate) -> None:
        """Keep the space and the function."""
        if self._job is not None:
            raise OrderError(f"{self!r} is started already; close() it first")
        check_evaluate(evaluate)
        self._job = space, evaluate

    @property
    def free(self) -> int:
        """1 where no task waits, else 0."""
        return int(self._job is not None and self._task is None)

    def submit(self, task: Task) -> None:
        """Keep the task until `wait` runs it."""
        if not self.free:
            raise OrderError(f"{self!r} takes no task now: {'it has one' if self._job else 'it is not started'}")
        self._task = task

    def wait(self, timeout: float | None = None) -> list[TaskResult]:
        """Run the task that waits, and return its result."""
        if self._job is None or self._task is None:
            return []
        task, self._task = self._task, None
        return [run_task(task, *self._job, self.device)]

    def close(self, cancel: bool = False) -> None:
        """Forget the space, the function and a task that waits."""
        self._job = self._task = None
