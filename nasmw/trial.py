"""Trial: one evaluation of one architecture, as the user's function sees it and as it travels to a worker and back."""

from __future__ import annotations

import contextlib
import math
import numbers
import os
import time
import traceback
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import attrs

from nasmw.candidates import Architecture, Status
from nasmw.errors import EvaluationError, LogError, TrialStopped

if TYPE_CHECKING:
    from torch import nn

    from nasmw.profiler import Profiler
    from nasmw.space import Space

__all__ = ["Evaluate", "Task", "TaskResult", "Trial", "run_task"]


@attrs.frozen(eq=False)
class Task:
    """What travels to a worker: one architecture to evaluate.

    Attributes:
        number: The number of the trial.
        architecture: One option for each active choice.
        seed: The seed of the trial, 63 bits.
        folder: The absolute path of the folder that `Trial.save` writes to; None where the run has no log.
        budget: How much the evaluation may spend; None where the strategy does not say.
        resume_from: The number of the trial that this one goes on from; None where it starts afresh.
        stop_below: For steps of reports, the least value that lets the trial go on.
        stop_above: For steps of reports, the greatest value that lets the trial go on.
    """

    number: int
    architecture: dict[str, Any]
    seed: int
    folder: str | None = None
    budget: float | None = None
    resume_from: int | None = None
    stop_below: Mapping[int, float] = attrs.field(factory=dict)
    stop_above: Mapping[int, float] = attrs.field(factory=dict)


@attrs.frozen(eq=False)
class TaskResult:
    """What comes back from a worker.

    Attributes:
        number: The number of the trial.
        status: `Status.COMPLETED`, `Status.FAILED` or `Status.STOPPED`.
        metrics: Finite floats by name; a single number that was returned stands under the name ``""``. None unless
            completed.
        reason: Why the trial failed or was stopped, in one line; empty where it completed.
        traceback: The full text of the traceback; empty where there is none.
        seconds: The wall time of the evaluation, in seconds.
        reports: What the evaluation reported, as pairs of step and value, in order.
        started: When the evaluation began, in seconds since the epoch.
    """

    number: int
    status: Status
    metrics: dict[str, float] | None
    reason: str
    traceback: str
    seconds: float
    reports: tuple[tuple[int, float], ...]
    started: float


class Trial:
    """One evaluation of one architecture: what the function under search is given.

    Args:
        task: The architecture with its number, seed and folder.
        space: The space that builds the network.
        device: The device to evaluate on, such as ``"cuda:1"``; None where the executor names none.

    Attributes:
        number: The number of the trial within its run, from 0.
        architecture: One option for each active choice, a plain dict of this trial's own.
        seed: A 63-bit integer, a function of the run's seed and the number. An evaluation that draws all its random
            numbers from generators seeded with it gives the same result on any worker.
        device: The device to evaluate on, or None.
        budget: How much this evaluation may spend in all, in the unit of the strategy's budgets (epochs, say); None
            where the strategy does not say. Strategies such as `Hyperband` evaluate one architecture in several
            trials of growing budgets.
        resume_from: The number of the earlier trial of the same architecture that had the next smaller budget; `load`
            reads the weights that it saved. None where there is none.

    Example:
        >>> from nasmw import Choice, Space
        >>> space = Space([Choice("width", (8, 16))])
        >>> trial = Trial(Task(0, {"width": 8}, seed=7), space)
        >>> trial.architecture, trial.seed
        ({'width': 8}, 7)
    """

    def __init__(self, task: Task, space: Space, device: str | None = None) -> None:
        self.number = task.number
        self.architecture = dict(task.architecture)
        self.seed = task.seed
        self.device = device
        self.budget = task.budget
        self.resume_from = task.resume_from
        self._space = space
        self._folder = task.folder
        self._stop_below = task.stop_below
        self._stop_above = task.stop_above
        self._auditors: tuple[Profiler, ...] = ()
        self._built_from: Architecture = task.architecture
        self._reports: list[tuple[int, float]] = []

    def __repr__(self) -> str:
        return f"Trial({self.number}, {self.architecture!r})"

    @property
    def reports(self) -> tuple[tuple[int, float], ...]:
        """What was reported so far, as pairs of step and value."""
        return tuple(self._reports)

    def model(self) -> nn.Module:
        """Return the network of the architecture, on the CPU, with weights that the seed determines.

        torch's global generator is seeded with the trial's seed while the network is built and is as before
        afterwards. A second call builds a second network with equal weights. Profilers that answer from tables of
        networks count the network and compare; see `Profiler.audit`.

        Raises:
            BuildError: If the space cannot build the network.
            ProfilerError: If the network has another cost than a profiler of the search said.
        """
        import torch

        with torch.random.fork_rng(devices=()):
            # Not torch.manual_seed: it would also seed the generators of the accelerators, which are not restored.
            torch.default_generator.manual_seed(self.seed)
            model = self._space.build(self._built_from)
        for auditor in self._auditors:
            auditor.audit(model, self._built_from)
        return model

    def audit_by(self, auditors: tuple[Profiler, ...]) -> None:
        """Have the networks that `model` builds from now on audited by these profilers."""
        self._auditors = auditors

    def report(self, step: int, value: float) -> None:
        """Keep an intermediate value, such as the accuracy after an epoch, with the trial.

        Args:
            step: What the value is of: an epoch, a batch number.
            value: A number; NaN and infinities are kept as they are. Where an `EarlyStop` is in the chain, it is the
                objective's metric so far.

        Raises:
            EvaluationError: If the step is no integer or the value no number.
            TrialStopped: If an `EarlyStop` says that the trial is not worth going on with; let it pass.
        """
        if isinstance(step, bool) or not hasattr(step, "__index__"):
            raise EvaluationError(f"trial.report takes an integer step, got {step!r}")
        step = int(step)
        self._reports.append((step, _number("trial.report: the value", value)))
        values = [value for _, value in self._reports if not math.isnan(value)]
        for limits, best, word in ((self._stop_below, max, "below"), (self._stop_above, min, "above")):
            if step not in limits:
                continue
            so_far = best(values, default=math.nan)
            if math.isnan(so_far) or best(so_far, limits[step]) != so_far:
                raise TrialStopped(
                    f"stopped at step {step}: the best value so far, {so_far:.6g}, is {word} {limits[step]:.6g}"
                )

    def save(self, model: nn.Module) -> None:
        """Write the weights of a network next to the log, as ``<number>.pt``; a former file is replaced at once.

        The file holds ``model.state_dict()`` as `torch.save` writes it.

        Raises:
            TypeError: If `model` is no `torch.nn.Module`.
            LogError: If the run has no log, so that there is no place for files.
        """
        import torch

        if not isinstance(model, torch.nn.Module):
            raise TypeError(f"trial.save takes a torch.nn.Module, got {type(model).__name__}")
        if self._folder is None:
            raise LogError("trial.save needs a run with a log: pass Search(..., log='run.db'), or do not save")
        os.makedirs(self._folder, exist_ok=True)
        path = os.path.join(self._folder, f"{self.number}.pt")
        unfinished = f"{path}.tmp"
        try:
            torch.save(model.state_dict(), unfinished)
            os.replace(unfinished, path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.remove(unfinished)
            raise

    def load(self, model: nn.Module) -> bool:
        """Give a network the weights that the trial `resume_from` saved.

        Args:
            model: A network of the same architecture, as `model` returns it.

        Returns:
            Whether there were any; if not, the network stays as it is, and the training starts afresh.
        """
        import torch

        if self._folder is None or self.resume_from is None:
            return False
        path = os.path.join(self._folder, f"{self.resume_from}.pt")
        if not os.path.exists(path):
            return False
        model.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
        return True


Evaluate = Callable[[Trial], Any]
"""Takes a trial and returns a number, or a mapping of names to numbers."""


def run_task(task: Task, space: Space, evaluate: Evaluate, device: str | None = None) -> TaskResult:
    """Evaluate one architecture; what goes wrong is a failed result, not an exception.

    A value that cannot be the metrics of a trial (no number, a bool, NaN, infinite, an empty mapping) is a failure,
    and so is a `SystemExit`. Only what ends the whole process passes through: `KeyboardInterrupt`.

    Args:
        task: What to evaluate.
        space: The space that builds the network.
        evaluate: Takes the trial, returns its metric or metrics.
        device: The device that the trial is told.
    """
    trial = Trial(task, space, device)
    metrics: dict[str, float] | None = None
    status, reason, trace = Status.FAILED, "", ""
    started, begin = time.time(), time.perf_counter()
    try:
        metrics = _metrics(evaluate(trial))
        status = Status.COMPLETED
    except TrialStopped as stopped:
        status, reason = Status.STOPPED, str(stopped)
    except (Exception, SystemExit) as error:
        reason, trace = _explain(error)
    seconds = time.perf_counter() - begin
    return TaskResult(task.number, status, metrics, reason, trace, seconds, trial.reports, started)


def _explain(error: BaseException) -> tuple[str, str]:
    """Return one line on an exception, and its traceback without the frame of `run_task`."""
    raised = error.__traceback__.tb_next if error.__traceback__ else None
    # Unlike str(error), this copes with an exception that cannot be printed.
    described = traceback.TracebackException(type(error), error, raised)
    text = " ".join(str(described).split())
    reason = text if isinstance(error, EvaluationError) else f"{type(error).__name__}: {text}".removesuffix(": ")
    return _printable(reason), _printable("".join(described.format()))


def _printable(text: str) -> str:
    """Return a text that every log can hold: lone surrogates are written out."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _metrics(value: Any) -> dict[str, float]:
    """Return what an evaluation returned as finite floats by name."""
    if not isinstance(value, Mapping):
        return {"": _finite("evaluate returned", value)}
    if not value:
        raise EvaluationError("evaluate returned an empty mapping; it must return at least one metric")
    metrics = {}
    for name, number in value.items():
        if not isinstance(name, str) or not name:
            raise EvaluationError(f"evaluate returned a metric named {name!r}; names are non-empty strings")
        metrics[str(name)] = _finite(f"evaluate returned, as metric {name!r},", number)
    return metrics


def _finite(what: str, value: Any) -> float:
    number = _number(what, value)
    if not math.isfinite(number):
        raise EvaluationError(f"{what} {number}, which is not finite; did the training diverge?")
    return number


def _number(what: str, value: Any) -> float:
    """Return a real number as a float: Python's, numpy's, or an array or tensor without dimensions."""
    number = value.item() if getattr(value, "ndim", None) == 0 and hasattr(value, "item") else value
    if not isinstance(number, bool) and isinstance(number, numbers.Real):
        try:
            return float(number)
        except OverflowError:
            raise EvaluationError(f"{what} an integer that is too large for a float") from None
    raise EvaluationError(f"{what} {_shown(value)}; wanted is a number, or a mapping of metric names to numbers")


def _shown(value: Any) -> str:
    if value is None:
        return "None (is the `return` missing?)"
    if isinstance(value, bool):
        return f"the bool {value!r} (write float({value!r}) if it is meant as a number)"
    shape = getattr(value, "shape", None)
    kind = type(value).__name__
    return f"a {kind} of shape {tuple(shape)}" if isinstance(shape, tuple) and shape else f"the {kind} {value!r:.80}"
