"""What runs inside a worker process: evaluate tasks from a pipe until told to stop, or until the parent is gone."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import pickle
import signal
import sys
import threading
import traceback
from multiprocessing.connection import Connection

import attrs

from nasmw.trial import run_task

__all__ = ["Broken", "Ready", "serve", "thread_variables"]


@attrs.frozen
class Ready:
    """A worker's message: it can take tasks."""


@attrs.frozen
class Broken:
    """A worker's message: it cannot read the space or the function, and ends.

    Attributes:
        traceback: Why.
    """

    traceback: str


def thread_variables(threads: int) -> dict[str, str]:
    """Return the environment variables that numerical libraries read their number of threads from, with values."""
    return {name: str(threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}


def serve(pipe: Connection, job: bytes, device: str | None, threads: int) -> None:
    """Run a worker: say `Ready`, then answer each task with its result.

    Args:
        pipe: Brings tasks, and None to stop; takes messages and results.
        job: The pickled space and function.
        device: The device that trials are told.
        threads: How many threads numerical libraries may use.
    """
    _leave_signals_to_parent()
    threading.Thread(target=_end_with_parent, name="nasmw-parent-watch", daemon=True).start()
    os.environ.update(thread_variables(threads))
    try:
        space, evaluate = pickle.loads(job)
        if "torch" in sys.modules:
            sys.modules["torch"].set_num_threads(threads)
    except BaseException:
        pipe.send(Broken(traceback.format_exc()))
        return
    with contextlib.suppress(EOFError, OSError):  # the parent is gone, and so is whoever reads a traceback
        pipe.send(Ready())
        while (task := pipe.recv()) is not None:
            pipe.send(run_task(task, space, evaluate, device))


def _leave_signals_to_parent() -> None:
    """Ignore Ctrl-C, which the parent handles, and lead a process group, so that children can be ended as well."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.platform != "win32":
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        os.setpgid(0, 0)


def _end_with_parent() -> None:
    """Wait until the parent has died, and end this process and its children at once, whatever they do."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return
    parent.join()
    if sys.platform != "win32" and os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os._exit(1)
