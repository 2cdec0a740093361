"""Attempts: measuring candidates one by one, where a device may fail on some of them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from nasmw.candidates import Candidates
from nasmw.context import Context
from nasmw.errors import BuildError, DeviceError
from nasmw.middleware.values import profiled
from nasmw.profiler import Profiler

__all__ = ["Attempts"]

FAILURES = 5
"""So many candidates in a row on which the device fails are the device's fault, and end the search with its error."""


class Attempts:
    """Which candidates a measuring profiler can measure; the answers go through the log, so that a replay knows them.

    Args:
        context: Of the stage that measures.
        profiler: The profiler that measures.
    """

    def __init__(self, context: Context, profiler: Profiler) -> None:
        self.context = context
        self.profiler = profiler
        self.cause = f"{profiler.name} cannot be measured"
        self._in_a_row = 0
        self._errors: dict[bytes, str] = {}

    def measurable(self, candidates: Candidates) -> npt.NDArray[np.bool_]:
        """Measure candidates; return for which that worked, ``(n,)``.

        Raises:
            DeviceError: If the device fails on five candidates in a row.
            BuildError: If the last of five such candidates cannot be built.
        """
        return np.array([self._worked(candidates[row]) for row in range(len(candidates))], dtype=np.bool_)

    def reasons(self, candidates: Candidates) -> list[str]:
        """Return why each of these candidates could not be measured; what a replay read from the log has no details."""
        return [self._errors.get(key, self.cause) for key in candidates.row_keys()]

    def _worked(self, candidate: Candidates) -> bool:
        def compute(one: Candidates) -> list[float]:
            try:
                profiled(self.context, self.profiler, one)
            except (DeviceError, BuildError) as error:
                if self._in_a_row + 1 >= FAILURES:
                    raise
                self._errors[one.row_keys()[0]] = (str(error) or type(error).__name__).splitlines()[0]
                return [0.0]
            return [1.0]

        name = f"whether {self.profiler.name} can be measured"
        worked = bool(self.context.recorded(name, candidate, compute)[0])
        self._in_a_row = 0 if worked else self._in_a_row + 1
        return worked
