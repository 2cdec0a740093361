"""Values of profilers and callables, as the stages of a chain read them."""

from __future__ import annotations

import functools
import math
import numbers
from collections.abc import Hashable
from typing import Any, Literal

import numpy as np

from nasmw.candidates import BUDGET, Candidates, Floats, Status
from nasmw.context import Context, Recorded
from nasmw.profiler import Profiler
from nasmw.space import Space

__all__ = ["TRIED", "check_count", "check_number", "check_profiler", "evaluation_keys", "name_of", "profiled"]

TRIED = frozenset({Status.COMPLETED, Status.DUPLICATE, Status.STOPPED})
"""The statuses of outcomes that may have the scores of a trial."""


def evaluation_keys(
    space: Space, candidates: Candidates, same: Literal["function", "architecture"] = "function"
) -> list[Hashable]:
    """Return one key per candidate: equal where two are the same, with the same budget if they have one."""
    keys: list[Hashable] = space.function_keys(candidates) if same == "function" else [*candidates.row_keys()]
    if BUDGET not in candidates.columns:
        return keys
    budgets = candidates.columns[BUDGET].tolist()
    return [key if budget != budget else (key, budget) for key, budget in zip(keys, budgets, strict=True)]


def profiled(context: Context, profiler: Profiler, candidates: Candidates) -> Floats:
    """Return a profiler's values, ``(n,)``: those that ride along under its name, else those it gives now."""
    riding = candidates.columns.get(profiler.name)
    if riding is None:
        return context.profile(profiler, candidates)
    if len(riding) == 1 and riding[0] == riding[0]:
        return riding
    missing = np.isnan(riding)
    if not missing.any():
        return riding
    values = riding.copy()
    values[missing] = context.profile(profiler, candidates[missing])
    return values


def name_of(function: Any) -> str:
    """Return how messages call a callable: its own name, or that of what it wraps."""
    if isinstance(function, Recorded):
        return function.name
    if isinstance(function, functools.partial):
        return name_of(function.func)
    return str(getattr(function, "__name__", type(function).__name__))


def check_profiler(stage: str, profiler: object) -> Profiler:
    """Return the profiler.

    Raises:
        TypeError: If it is none.
    """
    if not isinstance(profiler, Profiler):
        hint = "; a callable becomes one in a subclass of nasmw.Profiler" if callable(profiler) else ""
        raise TypeError(f"{stage} takes a Profiler, got {profiler!r}{hint}")
    return profiler


def check_number(stage: str, name: str, value: object) -> float:
    """Return a finite number.

    Raises:
        TypeError: If it is no number.
        ValueError: If it is not finite.
    """
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{stage}({name}=...) takes a number, got {value!r}")
    if not math.isfinite(value):
        raise ValueError(f"{stage}({name}=...) takes a finite number, got {value}")
    return float(value)


def check_count(stage: str, name: str, value: object) -> int:
    """Return a number of candidates.

    Raises:
        TypeError: If it is no integer.
        ValueError: If it is below 1.
    """
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise TypeError(f"{stage}({name}=...) takes an integer, got {value!r}")
    if value < 1:
        raise ValueError(f"{stage}({name}=...) takes an integer of at least 1, got {value}")
    return int(value)
