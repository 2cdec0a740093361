"""Checks of what strategies are constructed with."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable
from numbers import Integral, Real

from nasmw.context import Context

__all__ = ["flag", "one_objective", "positive", "rising", "share", "whole"]


def whole(stage: str, name: str, value: object, least: int = 1) -> int:
    """Return a whole number of at least `least`.

    Raises:
        TypeError: If it is no whole number.
        ValueError: If it is less.
    """
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"{stage}: {name} is a whole number, got {value!r}")
    if value < least:
        raise ValueError(f"{stage}: {name} is at least {least}, got {value!r}")
    return int(value)


def share(stage: str, name: str, value: object) -> float:
    """Return a number from 0 to 1.

    Raises:
        TypeError: If it is no number.
        ValueError: If it is out of range.
    """
    number = _real(stage, name, value, "a number from 0 to 1")
    if not 0.0 <= number <= 1.0:
        raise ValueError(f"{stage}: {name} is from 0 to 1, got {value!r}")
    return number


def positive(stage: str, name: str, value: object) -> float:
    """Return a finite number above 0.

    Raises:
        TypeError: If it is no number.
        ValueError: If it is out of range.
    """
    number = _real(stage, name, value, "a number above 0")
    if not (math.isfinite(number) and number > 0.0):
        raise ValueError(f"{stage}: {name} is finite and above 0, got {value!r}")
    return number


def flag(stage: str, name: str, value: object) -> bool:
    """Return a bool.

    Raises:
        TypeError: If it is none.
    """
    if not isinstance(value, bool):
        raise TypeError(f"{stage}: {name} is True or False, got {value!r}")
    return value


def rising(stage: str, name: str, values: object) -> tuple[float, ...]:
    """Return positive numbers, each greater than the one before; whole ones as integers.

    Raises:
        TypeError: If they are no numbers.
        ValueError: If there is none, or they do not rise.
    """
    if isinstance(values, (str, bytes)) or not isinstance(values, Iterable):
        raise TypeError(f"{stage}: {name} are numbers such as (1, 3, 9), got {values!r}")
    given = [positive(stage, name, value) for value in values]
    if not given or any(later <= earlier for earlier, later in itertools.pairwise(given)):
        raise ValueError(f"{stage}: {name} are numbers that rise, at least one, got {values!r}")
    return tuple(int(value) if value.is_integer() else value for value in given)


def one_objective(stage: str, context: Context) -> None:
    """Refuse several objectives.

    Raises:
        ValueError: If there are several.
    """
    if len(context.objectives) > 1:
        raise ValueError(
            f"{stage} maximises one objective, and this search has {[str(each) for each in context.objectives]}; "
            "join them to one score with the middleware Reward"
        )


def _real(stage: str, name: str, value: object, wanted: str) -> float:
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{stage}: {name} is {wanted}, got {value!r}")
    return float(value)
