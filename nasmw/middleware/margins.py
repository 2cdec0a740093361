"""Margins: how far a value stays from its limit, in standard deviations of the profiler's own error."""

from __future__ import annotations

import math

import numpy as np

from nasmw.candidates import Candidates, Floats
from nasmw.constraint import Constraint, exactly
from nasmw.context import Context
from nasmw.errors import ConstraintError, ProfilerError
from nasmw.profiler import Profiler

__all__ = ["knows_error", "std_of", "tightened", "with_margin"]


def with_margin(limit: Constraint, margin: float) -> str:
    """Return the text of a limit that is to hold with a margin."""
    name = limit.profiler.name
    if math.isinf(limit.low):
        return f"{name} + {margin:g} std <= {exactly(limit.high)}"
    if math.isinf(limit.high):
        return f"{name} - {margin:g} std >= {exactly(limit.low)}"
    return f"{exactly(limit.low)} <= {name} +- {margin:g} std <= {exactly(limit.high)}"


def knows_error(stage: str, profiler: Profiler, context: Context) -> bool:
    """Return whether a profiler states an error; one that computes exact values need not.

    Args:
        stage: Who asks, for the message.
        profiler: The profiler.
        context: Of the stage.

    Raises:
        ProfilerError: If it predicts, and states no error.
    """
    if not profiler.pure:
        return True  # asking it would measure; whether it states an error shows with the first value
    if profiler.std(context.space.sample(1, np.random.default_rng(0))) is not None:
        return True
    if profiler.kind == "analytical":
        return False
    raise ProfilerError(
        f"{stage} needs the error of {profiler!r}, which states none (its std is None). A table of latencies states "
        "`relative_error`; without an error, write a lower limit instead of a margin"
    )


def std_of(stage: str, context: Context, profiler: Profiler, candidates: Candidates) -> Floats:
    """Return the standard deviation of a profiler's values, ``(n,)``, through the log where it measures.

    Raises:
        ProfilerError: If it states none.
    """

    def compute(batch: Candidates) -> Floats:
        std = profiler.std(batch)
        if std is None:
            raise ProfilerError(f"{stage} needs the error of {profiler!r}, which states none (its std is None)")
        return std

    if profiler.pure:
        return compute(candidates)
    return context.recorded(f"std of {profiler.name}", candidates, compute)


def tightened(limit: Constraint, margin: float) -> Constraint | None:
    """Return the limit on the value alone that says the same as one with a margin, or None where there is none.

    There is one where the standard deviation is a fixed share of the value.

    Raises:
        ConstraintError: If the margin leaves no value.
    """
    share = limit.profiler.relative_error
    if share is None:
        return None
    text = with_margin(limit, margin)
    high = limit.high / (1.0 + margin * share) if limit.high > 0 else limit.high
    low = limit.low
    if low > 0:
        if margin * share >= 1.0:
            raise ConstraintError(
                f"no value of {limit.profiler.name!r} meets {text!r}: its error is {100 * share:.3g} % of the value, "
                f"and {margin:g} times that is all of it"
            )
        low /= 1.0 - margin * share
    if low > high:
        raise ConstraintError(
            f"no value of {limit.profiler.name!r} meets {text!r}: with an error of {100 * share:.3g} % it would be at "
            f"least {low:.6g} and at most {high:.6g}; take a smaller margin"
        )
    return Constraint(limit.profiler, low, high, text=text)
