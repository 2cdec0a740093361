"""TimeLimit: after some seconds nothing new is proposed."""

from __future__ import annotations

import time

import numpy as np

from nasmw.candidates import Candidates, Floats, Status
from nasmw.context import Context
from nasmw.middleware.values import check_number
from nasmw.strategy import Middleware, Verdict

__all__ = ["TimeLimit"]


class TimeLimit(Middleware):
    """Ends the run once it has lasted some seconds of wall time; trials that are under way are finished.

    The clock starts at the first candidate, is read at each further one, and stands still while the run is not
    running. Every reading goes to the log before it is used, so that a run that was stopped or killed goes on with the
    time that was left at its last candidate. ``Search.run(seconds=
    ...)`` limits one call instead, and the next call has as many seconds again.

    Args:
        seconds: How long, above 0.

    Raises:
        TypeError: If `seconds` is no number.
        ValueError: If it is not above 0, or not finite.

    Example:
        >>> TimeLimit(3600)
        TimeLimit(seconds=3600.0)
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = check_number("TimeLimit", "seconds", seconds)
        if self.seconds <= 0:
            raise ValueError(f"TimeLimit(seconds=...) takes a number above 0, got {seconds}")

    def _setup(self, context: Context) -> None:
        self._readings = 0
        self._elapsed = 0.0
        self._read_at = time.monotonic()

    def _screen(self, candidates: Candidates) -> Verdict:
        if not self._readings:
            self._read_at = time.monotonic()
        name = f"{self.context.stage} seconds, reading {self._readings}"
        self._readings += 1
        self._elapsed = float(self.context.recorded(name, candidates[:1], self._clock)[0])
        self._read_at = time.monotonic()
        n = len(candidates)
        if self._elapsed <= self.seconds:
            return Verdict(np.ones(n, dtype=np.bool_))
        self._end(f"{self.context.stage}: {self.seconds:g} seconds have passed")
        return Verdict(np.zeros(n, dtype=np.bool_), ["the time is up"] * n, status=Status.SKIPPED)

    def _clock(self, _: Candidates) -> Floats:
        return np.array([self._elapsed + time.monotonic() - self._read_at])
