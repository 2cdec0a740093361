"""Audits of trials: the networks that an evaluation builds are compared with what the profilers of the run say."""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Iterable
from typing import Any

from nasmw.profiler import Profiler
from nasmw.trial import Evaluate, Trial

__all__ = ["audited"]


def audited(evaluate: Evaluate, profilers: Iterable[Profiler]) -> Evaluate:
    """Return an evaluation whose trials have their networks audited by the profilers; the same one if none audits.

    Args:
        evaluate: Takes a trial.
        profilers: The profilers of the run; see `Profiler.auditors`.
    """
    auditors = {id(auditor): auditor for profiler in profilers for auditor in profiler.auditors}
    return _Audited(evaluate, tuple(auditors.values())) if auditors else evaluate


class _Audited:
    """Hands the auditors to each trial, and evaluates it.

    On the way to a worker an auditor that cannot be pickled is left out, with a warning.
    """

    def __init__(self, evaluate: Evaluate, auditors: tuple[Profiler, ...]) -> None:
        self.evaluate = evaluate
        self.auditors = auditors

    def __call__(self, trial: Trial) -> Any:
        trial.audit_by(self.auditors)
        return self.evaluate(trial)

    def __getstate__(self) -> dict[str, Any]:
        return {"evaluate": self.evaluate, "auditors": tuple(filter(_can_travel, self.auditors))}


def _can_travel(auditor: Profiler) -> bool:
    try:
        pickle.dumps(auditor)
    except Exception as error:
        warnings.warn(
            f"{auditor!r} cannot be sent to workers ({type(error).__name__}: {error}), so the networks that trials "
            "build are not compared with what it says",
            stacklevel=2,
        )
        return False
    return True
