"""Cache: what an earlier run has evaluated is told at once."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Hashable

import numpy as np

from nasmw.candidates import BUDGET, Candidates, Outcomes, Status
from nasmw.context import Context
from nasmw.errors import LogMismatchError
from nasmw.log import TrialRecord
from nasmw.middleware.values import check_count, evaluation_keys
from nasmw.result import Result, load
from nasmw.strategy import Middleware, Verdict

__all__ = ["Cache"]


class Cache(Middleware):
    """Tells the strategy what an earlier run on the same space has found, instead of evaluating it again.

    A candidate that is the network of a completed trial of the earlier run (equal rows, or equal by the space's
    `function_key`; with the same budget, where there are budgets) does not reach training: the strategy is told the
    scores and metrics of that trial, under the status of a duplicate. It is no trial of this run, so `Result.best` does
    not look at it. Where a network was evaluated several times, the first trial counts.

    Scores of the earlier run are told as they were logged. Stages that change scores (`Penalize`, `Reward`) therefore
    stand before it in a chain, so that they change these as well.

    Args:
        source: The log of the earlier run, or its `Result`. It is read once, here; its content is a part of what this
            run is, so that a run cannot go on after the log of the earlier one has grown.
        patience: How many known candidates in a row end the run with a message.

    Raises:
        LogError: If there is no log at `source`, or it is damaged.
        LogMismatchError: At setup, if the log is of another space, or none of its trials has what is scored here.
        TypeError: If `source` is neither a path nor a Result.
    """

    def __init__(self, source: Result | str | os.PathLike[str], patience: int = 1000) -> None:
        if not isinstance(source, (Result, str, os.PathLike)):
            raise TypeError(f"Cache takes the path of a log or a Result, got {source!r}")
        self.source = "a result" if isinstance(source, Result) else os.fspath(source)
        self.patience = check_count("Cache", "patience", patience)
        self._result = source if isinstance(source, Result) else None
        self._records = (self._result or load(self.source)).completed
        self.known = len(self._records)
        self.digest = _digest(self._records)

    def _setup(self, context: Context) -> None:
        if self._result is None:
            load(self.source, context.space)  # refuses the log of another space
        elif self._result.space.fingerprint != context.space.fingerprint:
            raise LogMismatchError(f"Cache has a result on {self._result.space!r}; this search is on {context.space!r}")
        names = [objective.name for objective in context.objectives]
        records = [record for record in self._records if all(name in record.values for name in names)]
        if self._records and not records:
            raise LogMismatchError(
                f"no trial of {self.source} has the metrics {names} that are scored here; its trials have "
                f"{sorted(self._records[0].values)}. Where a stage changes the objectives (Reward), Cache goes "
                "behind it"
            )
        codes = np.frombuffer(b"".join(record.codes for record in records), dtype=context.space.dtype)
        budgets = [record.columns.get(BUDGET, math.nan) for record in records]
        known = Candidates.of(context.space, codes.reshape(-1, len(context.space)), {BUDGET: budgets})
        self._known: dict[Hashable, TrialRecord] = {}
        for key, record in zip(evaluation_keys(context.space, known), records, strict=True):
            self._known.setdefault(key, record)

    def _screen(self, candidates: Candidates) -> Verdict:
        records = [self._known.get(key) for key in evaluation_keys(self.context.space, candidates)]
        passes = np.array([record is None for record in records], dtype=np.bool_)
        for row, record in enumerate(records):
            if record is not None:
                self.context.funnel.add(self.context.stage, str(Status.DUPLICATE), "evaluated in an earlier run")
                self.tell_inner(self._outcome(candidates[row], record))
        return Verdict(passes, held=~passes)

    def _outcome(self, candidate: Candidates, record: TrialRecord) -> Outcomes:
        values = record.values
        objectives = self.inner.context.objectives
        scores = np.array([[objective.score(values.get(objective.name, math.nan)) for objective in objectives]])
        metrics = {name: np.array([value]) for name, value in record.metrics.items()}
        return Outcomes(candidate, (Status.DUPLICATE,), scores, metrics, (f"trial {record.number} of {self.source}",))

    def _out_of_patience(self) -> str:
        return (
            f"{self.context.stage} knew {self._in_a_row} candidates in a row from {self.source}; the strategy proposes "
            f"little that is new. Stop here, or go on for longer with patience=... (now {self.patience})"
        )


def _digest(records: tuple[TrialRecord, ...]) -> str:
    """Return a short text that changes with what is known."""
    digest = hashlib.sha256()
    for record in records:
        digest.update(record.codes)
        digest.update(repr(sorted(record.values.items())).encode())
    return digest.hexdigest()[:12]
