"""Search: asks a chain for candidates, has them evaluated, tells the outcomes, and logs all of it."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Literal

import numpy as np

from nasmw.candidates import BUDGET, RESUME_FROM, TRIAL
from nasmw.errors import ProfilerError
from nasmw.executors import Executor, Processes, Serial
from nasmw.log import Log
from nasmw.objective import ObjectiveLike, as_objectives
from nasmw.profiler import Profiler, check_names
from nasmw.result import Result
from nasmw.run import Run
from nasmw.space import Space
from nasmw.strategy import Strategy
from nasmw.trial import Trial

__all__ = ["Search"]

logger = logging.getLogger("nasmw")
Order = Literal["asked", "finished"]
Resume = Literal["replay", "warm"]


class Search:
    """Finds the best architectures of a space within a number of trials or seconds.

    The results do not depend on the number of workers: candidate *i* is asked for once every trial up to
    *i - window* has been told, in asking order. ``order="finished"`` tells results as they arrive instead: nobody
    waits, the run can be resumed, but its course depends on the schedule.

    Args:
        space: What is searched.
        strategy: A strategy, or a `Chain` of a strategy and middleware.
        evaluate: Takes a `Trial`, returns the metric of the objective as a float, or a dict of metrics. What it raises
            fails that trial, with the traceback in the log, and the search goes on. An `Evaluator` is prepared first.
        objectives: One or several of: a metric's name (maximised), a profiler (minimised), an `Objective`.
        seed: From which every random number of the run follows.
        executor: Where trials run: an `Executor`, or a number of worker processes; in this process by default.
        window: How many trials may be open at a time, at least 1; part of the identity of a run.
        order: ``"asked"`` or ``"finished"``.
        log: The file that holds the run; where it exists, the run goes on. None keeps nothing.
        resume: ``"replay"`` goes on exactly where the log ends, and refuses a log that another chain or seed wrote;
            ``"warm"`` keeps all trials of the log and goes on from a fresh state that has been told them.
        profilers: Further profilers whose values are kept with each trial.
        progress: Whether to show a progress bar; None shows it on a terminal.

    Raises:
        ProfilerError: If two profilers have one name, or one is about another space.
        TypeError, ValueError: If an argument is of the wrong kind.

    Example:
        >>> from nasmw import Choice, Search, Space
        >>> from nasmw.strategies import Random
        >>> space = Space([Choice("width", (8, 16, 32))])
        >>> result = Search(space, Random(), lambda trial: trial.architecture["width"] / 32).run(trials=20)
        >>> result.best.architecture
        {'width': 32}
    """

    def __init__(
        self,
        space: Space,
        strategy: Strategy,
        evaluate: Callable[[Trial], Any],
        *,
        objectives: ObjectiveLike | Iterable[ObjectiveLike] = "accuracy",
        seed: int = 0,
        executor: Executor | int | None = None,
        window: int = 8,
        order: Order = "asked",
        log: str | os.PathLike[str] | None = None,
        resume: Resume = "replay",
        profilers: Iterable[Profiler] = (),
        progress: bool | None = None,
    ) -> None:
        if not isinstance(space, Space):
            raise TypeError(f"Search takes a Space first, got {type(space).__name__}")
        if not isinstance(strategy, Strategy):
            raise TypeError(f"Search takes a strategy or a Chain second, got {strategy!r}")
        if not callable(evaluate):
            raise TypeError(f"evaluate must be a function of a trial, got {evaluate!r}")
        if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or seed < 0:
            raise ValueError(f"seed must be an integer of at least 0, got {seed!r}")
        if isinstance(window, bool) or not isinstance(window, (int, np.integer)) or window < 1:
            raise ValueError(f"window must be an integer of at least 1, got {window!r}")
        if order not in ("asked", "finished"):
            raise ValueError(f"order must be 'asked' or 'finished', got {order!r}")
        if resume not in ("replay", "warm"):
            raise ValueError(f"resume must be 'replay' or 'warm', got {resume!r}")
        if executor is None:
            executor = Serial()
        elif isinstance(executor, (int, np.integer)):
            executor = Processes(workers=executor if isinstance(executor, bool) else int(executor))
        elif not isinstance(executor, Executor):
            raise TypeError(f"executor must be an Executor or a number of workers, got {executor!r}")
        self.space = space
        self.strategy = strategy
        self.evaluate = evaluate
        self.objectives = as_objectives(objectives)
        self.seed = int(seed)
        self.executor = executor
        self.window = int(window)
        self.order: Order = order
        if log is not None and not isinstance(log, (str, os.PathLike)):
            raise TypeError(f"log must be the path of a file, or None, got {log!r}")
        self.log = None if log is None else Path(log).absolute()
        self.resume: Resume = resume
        self.profilers = (profilers,) if isinstance(profilers, Profiler) else tuple(profilers)
        self.progress = progress
        minimised = [objective.profiler for objective in self.objectives if objective.profiler is not None]
        self.columns = tuple(check_names([*minimised, *self.profilers]).values())
        self.wanted = tuple(check_names([*self.strategy.profilers, *self.columns]).values())
        for profiler in self.wanted:
            if profiler.name in (BUDGET, RESUME_FROM, TRIAL):
                raise ProfilerError(f"the column {profiler.name!r} is for strategies; give {profiler!r} another name")
            if profiler.space is not None and profiler.space.fingerprint != space.fingerprint:
                raise ProfilerError(f"{profiler!r} is about {profiler.space!r}; this search is on {space!r}")
            if any(objective.metric == profiler.name for objective in self.objectives):
                raise ProfilerError(
                    f"the objective {profiler.name!r} is what evaluate returns, and {profiler!r} has the same name; "
                    "give the profiler itself as the objective, or one of them another name"
                )

    def describe(self) -> dict[str, Any]:
        """Return what identifies a run besides its space, as JSON-able values."""
        return {
            "stages": [repr(stage) for stage in self.strategy.stages],
            "objectives": [[objective.name, objective.direction] for objective in self.objectives],
            "profilers": [repr(profiler) for profiler in self.columns],
            "seed": self.seed,
            "window": self.window,
            "order": self.order,
        }

    def run(self, trials: int | None = None, seconds: float | None = None) -> Result:
        """Search until there are `trials` trials in all, those of the log included, or `seconds` have passed.

        Args:
            trials: The number of trials; None for no limit.
            seconds: Wall-clock seconds of this call, after which nothing more is started; what runs is finished. Trials
                that were asked and not started stay open, and a log goes on with them.

        Returns:
            What was found.

        Raises:
            ConstraintError: If the run ended before its first trial, since a limit let nothing through.
            DeadlockError: If nothing was asked, nothing is pending and the strategy is not exhausted.
            EvaluationError: If an evaluation lacks the metric of an objective.
            LogError: If the log cannot be used; finished trials stay in it.
            SearchInterrupted: On Ctrl-C; finished trials are in the log.
        """
        if trials is None and seconds is None:
            raise ValueError("run needs a limit: run(trials=500), run(seconds=3600), or both")
        if trials is not None and (isinstance(trials, bool) or not isinstance(trials, (int, np.integer)) or trials < 1):
            raise ValueError(f"trials must be an integer of at least 1, got {trials!r}")
        if seconds is not None and not (isinstance(seconds, (int, float)) and seconds > 0):
            raise ValueError(f"seconds must be above 0 and a number, got {seconds!r}")
        with Log(self.log) as log:
            return Run(self, log, math.inf if trials is None else int(trials), seconds or math.inf).result()
