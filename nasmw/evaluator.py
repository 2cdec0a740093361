"""Evaluator: an evaluation that has to be prepared once, before the first trial."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from nasmw.context import Context
from nasmw.trial import Trial

__all__ = ["Evaluator"]


class Evaluator(ABC):
    """An evaluation that is prepared once, in the process of the search, before trials run: a supernet is trained, say.

    A function is all that a `Search` needs. An evaluation that derives from this class is prepared besides: once in
    each call of `Search.run`, after the chain is set up and before workers start, so that what it has learnt travels to
    them. What `prepare` does must follow from the evaluator, the seed and the limits of the context; what takes long
    is written to `Context.folder` and noted, so that a run that is gone on with finds it there.
    """

    @abstractmethod
    def prepare(self, context: Context) -> None:
        """Do what must be done once before the first trial.

        Args:
            context: The run's space, seed, folder and recorder; `limits` holds those that the chain keeps.
        """

    @abstractmethod
    def __call__(self, trial: Trial) -> Any:
        """Return the metric of a trial, or several by name, as any evaluation does."""
