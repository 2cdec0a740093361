"""Result: what a search found; the best trial, the Pareto front, the table of trials, the funnel."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import attrs
import numpy as np
import numpy.typing as npt

from nasmw.candidates import BUDGET, Candidates, Floats, Status
from nasmw.choice import Choice
from nasmw.errors import EvaluationError, LogError, LogMismatchError, ProfilerError, did_you_mean
from nasmw.log import Log, TrialRecord
from nasmw.objective import Objective, ObjectiveLike, as_objectives
from nasmw.profiler import Profiler
from nasmw.space import Space

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from nasmw.constraint import Constraint, Constraints
    from nasmw.devices.base import Device
    from nasmw.remeasure import Remeasured

__all__ = ["FunnelReport", "Result", "load", "pareto_front"]


def pareto_front(scores: npt.ArrayLike) -> npt.NDArray[np.bool_]:
    """Return which rows no other row dominates; equal rows do not dominate each other.

    Args:
        scores: ``(n, m)``, maximised; rows with NaN are never on the front.

    Returns:
        ``(n,)`` mask.

    Example:
        >>> pareto_front([[1, 1], [2, 0], [0, 0]]).tolist()
        [True, True, False]
    """
    table = np.asarray(scores, dtype=np.float64)
    if table.ndim != 2:
        raise ValueError(f"scores have the shape (n, m), got {table.shape}")
    front = np.zeros(len(table), dtype=np.bool_)
    usable = ~np.isnan(table).any(axis=1)
    # Each row once, as costs, the least first: what dominates a row stands before it.
    costs, places = np.unique(0.0 - table[usable], axis=0, return_inverse=True)
    best = np.ones(len(costs), dtype=np.bool_)
    if table.shape[1] == 2:
        best[1:] = costs[1:, 1] < np.minimum.accumulate(costs[:-1, 1])
    else:
        kept, many = np.empty_like(costs), 0
        for row, cost in enumerate(costs):
            best[row] = not (kept[:many] <= cost).all(axis=1).any()
            if best[row]:
                kept[many], many = cost, many + 1
    front[usable] = best[places.ravel()]
    return front


@attrs.frozen(eq=False)
class FunnelReport:
    """Who was turned away on the way to training, and what became of the rest.

    Attributes:
        stages: The stages of the chain, the strategy first, as they are written.
        turned_away: The number of candidates by (stage, status, cause).
        trials: The number of trials by status; unfinished ones under ``"unfinished"``.
    """

    stages: tuple[str, ...]
    turned_away: Mapping[tuple[str, str, str], int]
    trials: Mapping[str, int]

    @property
    def proposed(self) -> int:
        """The number of candidates that the strategy proposed."""
        return sum(self.turned_away.values()) + sum(self.trials.values())

    def __str__(self) -> str:
        rows: list[tuple[str, str, str, int]] = [("proposed", "", "", self.proposed)]
        names = list(dict.fromkeys(stage for stage, _, _ in self.turned_away))
        places = {name: place for place, name in enumerate(self._stage_names())}
        for name in sorted(names, key=lambda stage: places.get(stage, len(places))):
            causes = [(n, status, cause) for (stage, status, cause), n in self.turned_away.items() if stage == name]
            rows += [(name, status, cause, -n) for n, status, cause in sorted(causes, reverse=True)]
        rows.append(("trained", "", "", sum(self.trials.values())))
        rows += [("", status, "", number) for status, number in self.trials.items()]
        widths = [max(len(str(row[column])) for row in rows) for column in range(4)]
        return "\n".join(
            f"{stage:<{widths[0]}}  {status:<{widths[1]}}  {number:>{widths[3]}}  {cause}".rstrip()
            for stage, status, cause, number in rows
        )

    def _stage_names(self) -> list[str]:
        names: list[str] = []
        for stage in self.stages:
            name = stage.split("(", 1)[0]
            same = sum(other == name or other.startswith(f"{name}#") for other in names)
            names.append(name if not same else f"{name}#{same + 1}")
        return names


class Result:
    """What a search found.

    Attributes:
        space: The space that was searched.
        objectives: What was optimised.
        trials: Every trial, in asking order, finished or not.
        funnel: Who was turned away on the way to training; prints as a table.
        ended: Why the run ended before its number of trials; empty where it did not.
    """

    def __init__(
        self,
        space: Space,
        objectives: Sequence[Objective],
        trials: Sequence[TrialRecord],
        *,
        funnel: Mapping[tuple[str, str, str], int],
        stages: Sequence[str],
        ended: str = "",
        recorded: Mapping[str, Mapping[bytes, float]] | None = None,
        weights: str | None = None,
    ) -> None:
        self.space = space
        self.objectives = tuple(objectives)
        self.trials = tuple(trials)
        statuses = [str(trial.status or "unfinished") for trial in self.trials]
        self.funnel = FunnelReport(
            tuple(stages), dict(funnel), {status: statuses.count(status) for status in dict.fromkeys(statuses)}
        )
        self.ended = ended
        self._recorded = recorded or {}
        self._weights = weights

    def __repr__(self) -> str:
        names = ", ".join(map(str, self.objectives))
        return f"<Result of {len(self.trials)} trials on {self.space!r}: {names}>"

    @property
    def completed(self) -> tuple[TrialRecord, ...]:
        """The trials whose evaluation gave metrics."""
        return tuple(trial for trial in self.trials if trial.status is Status.COMPLETED)

    @property
    def candidates(self) -> Candidates:
        """The architectures of all trials, as a table; ids are trial numbers."""
        codes = np.frombuffer(b"".join(trial.codes for trial in self.trials), dtype=self.space.dtype)
        table = Candidates.of(self.space, codes.reshape(len(self.trials), len(self.space)))
        return table.with_ids(np.array([trial.number for trial in self.trials], dtype=np.int64))

    def values(self, metric: str | Profiler) -> Floats:
        """Return a metric of every trial, ``(n,)``; NaN where a trial has none.

        A profiler's values are those that were logged; where there are none, it is asked now. Recorded values, such as
        those of a scorer or the spread that `Repeat` records, are found under their names.

        Raises:
            ProfilerError: If no trial has such a metric, or a measuring profiler was not part of the run.
        """
        name = metric if isinstance(metric, str) else metric.name
        values = np.array([trial.values.get(name, np.nan) for trial in self.trials])
        if isinstance(metric, Profiler) and metric.pure and np.isnan(values).any() and self.trials:
            return metric.profile_batch(self.candidates)
        if name in self._recorded:
            recorded = self._recorded[name]
            values = np.array([recorded.get(trial.codes, trial.values.get(name, np.nan)) for trial in self.trials])
        if np.isnan(values).all() and self.completed:
            known = dict.fromkeys(key for trial in self.trials for key in trial.values)
            raise ProfilerError(f"no trial has a metric {name!r}{did_you_mean(name, known)}")
        return values

    def scores(self, *objectives: ObjectiveLike) -> Floats:
        """Return the scores of every trial, ``(n, m)``, maximised; NaN where a trial is not completed.

        Args:
            *objectives: Those of the search by default. A name means the objective of that name; a name of a
                profiler's column, or a profiler, is minimised; any other metric is maximised.
        """
        chosen = [self._objective(item) for item in as_objectives(objectives or self.objectives)]
        done = np.array([trial.status is Status.COMPLETED for trial in self.trials], dtype=np.bool_)
        columns = []
        for objective in chosen:
            values = self.values(objective.metric)
            columns.append(np.where(done, -values if objective.minimized else values, np.nan))
        return np.stack(columns, axis=1)

    def _objective(self, objective: Objective) -> Objective:
        if not isinstance(objective.metric, str) or objective.minimized:
            return objective
        for own in self.objectives:
            if own.name == objective.metric:
                return own
        if any(objective.metric in trial.columns for trial in self.trials):
            return Objective(objective.metric, "minimize")
        return objective

    def _comparable(self) -> npt.NDArray[np.bool_]:
        """Return which trials are compared, ``(n,)``: those without a budget, and those with the greatest completed."""
        budgets = np.array([trial.columns.get(BUDGET, np.nan) for trial in self.trials])
        greatest = max((trial.columns.get(BUDGET, -np.inf) for trial in self.completed), default=-np.inf)
        comparable: npt.NDArray[np.bool_] = np.isnan(budgets) | (budgets == greatest)
        return comparable

    @property
    def best(self) -> TrialRecord:
        """The completed trial with the best first objective; the first of equals.

        Where trials had budgets, only those with the greatest budget of a completed one are compared.

        Raises:
            EvaluationError: If no trial is completed; says why the last one failed.
        """
        if not self.completed:
            failed = [trial for trial in self.trials if trial.reason]
            why = f"; the last one: {failed[-1].reason}" if failed else ""
            raise EvaluationError(f"none of the {len(self.trials)} trials is completed{why}")
        return self.trials[int(np.nanargmax(np.where(self._comparable(), self.scores()[:, 0], np.nan)))]

    def pareto(self, *objectives: ObjectiveLike) -> list[TrialRecord]:
        """Return the completed trials that no other one dominates, best first objective first.

        Where trials had budgets, only those with the greatest budget of a completed one are compared.

        Args:
            *objectives: As for `scores`: ``result.pareto("accuracy", latency)``.
        """
        scores = np.where(self._comparable()[:, None], self.scores(*objectives), np.nan)
        rows = np.flatnonzero(pareto_front(scores))
        return [self.trials[row] for row in rows[np.argsort(-scores[rows, 0], kind="stable")]]

    def table(self) -> dict[str, list[Any]]:
        """Return all trials by columns: number, status, every choice, every metric; None where there is no value.

        A choice or metric whose name is taken already stands under ``"choice:<name>"`` or ``"metric:<name>"``.
        """
        names = dict.fromkeys(name for trial in self.trials for name in trial.values)
        columns: dict[str, list[Any]] = {
            "number": [trial.number for trial in self.trials],
            "status": [str(trial.status or "unfinished") for trial in self.trials],
        }
        for name in self.space.names:
            free = name if name not in columns else f"choice:{name}"
            columns[free] = [trial.architecture.get(name) for trial in self.trials]
        for name in names:
            free = name if name not in columns else f"metric:{name}"
            columns[free] = [trial.values.get(name) for trial in self.trials]
        return columns

    def remeasure(
        self,
        device: Device | str,
        top: int = 10,
        *,
        example_input: Tensor,
        limit: Constraint | Constraints | None = None,
        resolution: str | None = "resolution",
        rounds: int = 5,
        runs: int = 10,
        progress: bool = True,
    ) -> Remeasured:
        """Measure the best networks on a device, afresh and side by side, and compare with what was predicted of them.

        Of several trials of one architecture the best is taken.

        Args:
            device: The device, or the name of a registered one.
            top: How many networks, the best by the first objective.
            example_input: A tensor of the shape that the networks take, with the batch size to measure.
            limit: The limit in milliseconds that they should keep, such as ``latency <= 25.0``; what its profiler says
                of them is shown beside.
            resolution: The choice whose option is the height and width of the input, where the space has it.
            rounds: The undisturbed visits that each network is to have, see `nasmw.devices.measuring`.
            runs: The timed runs of a visit.
            progress: Whether to show a progress bar.

        Returns:
            What was found; it prints as a table.

        Raises:
            EvaluationError: If no trial is completed.
            DeviceError: If the device fails.
            ProfilerError: If the limit is not one on milliseconds.
        """
        from nasmw.remeasure import remeasure

        if isinstance(top, bool) or not isinstance(top, int) or top < 1:
            raise ValueError(f"remeasure(top=...) takes a number of networks of at least 1, got {top!r}")
        scores = np.where(self._comparable(), self.scores()[:, 0], np.nan)
        rows: dict[bytes, int] = {}
        for row in np.argsort(-scores, kind="stable")[: int((~np.isnan(scores)).sum())].tolist():
            rows.setdefault(self.trials[row].codes, row)
        if not rows:
            raise EvaluationError("no trial is completed, so there is nothing to measure again")
        chosen = list(rows.values())[:top]
        return remeasure(self, chosen, device, example_input, limit, resolution, rounds, runs, progress)

    def export(
        self,
        folder: str | os.PathLike[str],
        trial: TrialRecord | None = None,
        *,
        model: Any = None,
        example_input: Any = None,
    ) -> dict[str, Path]:
        """Write a trial's architecture, weights and ONNX file to a folder.

        Args:
            folder: Where to; made where it does not exist.
            trial: Which trial; the best by default.
            model: The trained `torch.nn.Module`; by default it is built anew and given the weights that the
                evaluation kept with `Trial.save`, where it did.
            example_input: A tensor or tuple that the network takes; without it no ONNX file is written.

        Returns:
            The paths that were written, by ``"architecture"``, ``"weights"`` and ``"onnx"``.

        Raises:
            MissingExtraError: If an ONNX file is asked for and the packages for it are missing.
            ExportError: If ONNX Runtime computes something else than PyTorch does.
        """
        from nasmw.export import export_trial

        return export_trial(
            self.space, trial or self.best, folder, weights=self._weights, model=model, example_input=example_input
        )


def load(path: str | os.PathLike[str], space: Space | None = None) -> Result:
    """Return the result that a log holds so far; the run may still be going on.

    Args:
        path: The log.
        space: The space of the run; without it, options are shown as the texts that describe them.

    Raises:
        LogError: If there is no log at `path`, or it is damaged.
        LogMismatchError: If the log is of another space.
    """
    with Log(path, readonly=True) as log:
        logged = [
            Choice(choice["name"], choice["options"], choice["when"] or None)
            for choice in json.loads(log.meta("choices") or "[]")
        ]
        begins = [event.data for event in log.events() if event.kind == "begin"]
        ends = [event.data.get("reason", "") for event in log.events() if event.kind == "end"]
        if not logged or not begins:
            raise LogError(f"{path} holds no run yet")
        if space is None:
            space = Space(logged, name=log.meta("name") or "space")
        elif space.fingerprint != log.meta("space"):
            raise LogMismatchError(f"{path} is the log of another space than {space!r}")
        return Result(
            space,
            [Objective(name, direction) for name, direction in begins[-1]["objectives"]],
            log.trials(space),
            funnel=log.funnel(),
            stages=begins[-1]["stages"],
            ended=ends[-1] if ends else "",
            recorded=log.recorded_values(),
            weights=f"{log.path}.weights",
        )
