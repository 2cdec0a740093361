"""Executor: what runs evaluations, and what the loop may expect of it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from types import TracebackType
from typing import TYPE_CHECKING

from nasmw.trial import Evaluate, Task, TaskResult

if TYPE_CHECKING:
    from typing_extensions import Self

    from nasmw.space import Space

__all__ = ["Executor"]


class Executor(ABC):
    """Runs evaluations; says nothing about which ones.

    The loop calls `start` once, then `submit` while `free` is positive and `wait` for results, and `close` at the end.
    An executor may be started again after it was closed. Every task that was submitted gives exactly one result,
    unless the executor is closed before: an evaluation that raises, crashes or hangs is a failed result. Results come
    in the order in which they finish. A result must not depend on which worker gave it.

    Attributes:
        workers: How many evaluations run at once.
    """

    workers: int

    @abstractmethod
    def start(self, space: Space, evaluate: Evaluate) -> None:
        """Get ready to evaluate architectures of one space with one function.

        Raises:
            TypeError: If `evaluate` is no function, or something that must travel to a worker cannot.
            OrderError: If the executor is started already.
        """

    @property
    @abstractmethod
    def free(self) -> int:
        """How many tasks `submit` takes at this moment."""

    @abstractmethod
    def submit(self, task: Task) -> None:
        """Take a task; does not wait for its evaluation.

        Raises:
            OrderError: If the executor is not started, or nothing is free.
        """

    @abstractmethod
    def wait(self, timeout: float | None = None) -> list[TaskResult]:
        """Wait until at least one task has finished, and return what has.

        Args:
            timeout: The most seconds to wait; None for any time.

        Returns:
            The results; none after `timeout` seconds without any, and none at once where no task is submitted.
        """

    @abstractmethod
    def close(self, cancel: bool = False) -> None:
        """Stop the workers; tasks that have not finished give no result. Closing twice is no error.

        Args:
            cancel: Whether running evaluations are stopped at once, not given a moment to finish.
        """

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close(cancel=kind is not None)


def check_evaluate(evaluate: Evaluate) -> None:
    """Raise a TypeError unless `evaluate` can be called."""
    if not callable(evaluate):
        raise TypeError(f"evaluate must be a function of a trial, got {evaluate!r}")
