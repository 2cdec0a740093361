"""What stages share that have one candidate evaluated several times: ids of their own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Generic, TypeVar

import numpy as np

from nasmw.candidates import Candidates, Outcomes, Status

__all__ = ["TURNED_AWAY", "Reissued", "under_id"]

State = TypeVar("State")
TURNED_AWAY = frozenset({Status.INFEASIBLE, Status.SKIPPED, Status.DUPLICATE})
"""The statuses of candidates that a stage above kept from training."""


class Reissued(Generic[State]):
    """Ids that a stage issues itself, each with what the stage knows of it until it is told."""

    def __init__(self) -> None:
        self._next = 0
        self._states: dict[int, State] = {}

    def issue(self, parts: Sequence[tuple[Candidates, State]]) -> Candidates:
        """Return candidates, one row each, in order, under new ids."""
        for place, (_, state) in enumerate(parts):
            self._states[self._next + place] = state
        ids = np.arange(self._next, self._next + len(parts), dtype=np.int64)
        self._next += len(parts)
        return Candidates.join([candidate for candidate, _ in parts]).with_ids(ids)

    def take(self, number: int) -> State:
        """Return what is known of an id, and forget it."""
        return self._states.pop(number)


def under_id(outcome: Outcomes, candidate: Candidates) -> Outcomes:
    """Return an outcome of one row under the id of another candidate, with the columns that it has."""
    return outcome.evolve(candidates=outcome.candidates.with_ids(candidate.ids))
