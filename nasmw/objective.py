"""Objective: a metric with a direction."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal

import attrs

from nasmw.profiler import Profiler

__all__ = ["Objective"]

Direction = Literal["maximize", "minimize"]


@attrs.frozen(eq=False)
class Objective:
    """A metric of a trial with a direction; scores are always maximised.

    Args:
        metric: The name of a metric that the evaluation returns, or a profiler, whose value is taken.
        direction: ``"maximize"`` or ``"minimize"``.

    Example:
        >>> Objective("error", "minimize").score(0.25)
        -0.25
    """

    metric: str | Profiler = attrs.field()
    direction: Direction = "maximize"

    def __attrs_post_init__(self) -> None:
        if not isinstance(self.metric, (str, Profiler)) or not self.metric:
            raise TypeError(f"an objective is a metric's name or a profiler, got {self.metric!r}")
        if self.direction not in ("maximize", "minimize"):
            raise ValueError(f"the direction of an objective is 'maximize' or 'minimize', got {self.direction!r}")

    @property
    def name(self) -> str:
        """The name of the metric."""
        return self.metric.name if isinstance(self.metric, Profiler) else self.metric

    @property
    def profiler(self) -> Profiler | None:
        """The profiler that gives the metric, or None where the evaluation does."""
        return self.metric if isinstance(self.metric, Profiler) else None

    @property
    def minimized(self) -> bool:
        """Whether less is better."""
        return self.direction == "minimize"

    def score(self, value: float) -> float:
        """Return the value as a score, which is maximised."""
        return -value if self.minimized else value

    def __str__(self) -> str:
        return f"{self.direction} {self.name}"


ObjectiveLike = str | Profiler | Objective


def as_objectives(objectives: ObjectiveLike | Iterable[ObjectiveLike]) -> tuple[Objective, ...]:
    """Return objectives from names, profilers (which are minimised) and objectives.

    Raises:
        TypeError: If it is nothing of the kind.
        ValueError: If there is none, or one metric occurs twice.
    """
    if isinstance(objectives, Mapping) or not isinstance(objectives, (str, Profiler, Objective, Iterable)):
        raise TypeError(
            "objectives are one or several names of metrics, profilers, or Objective('error', 'minimize'), "
            f"got {objectives!r}"
        )
    given = [objectives] if isinstance(objectives, (str, Profiler, Objective)) else list(objectives)
    result = tuple(
        item
        if isinstance(item, Objective)
        else Objective(item, "minimize" if isinstance(item, Profiler) else "maximize")
        for item in given
    )
    names = [objective.name for objective in result]
    if not names or len(set(names)) < len(names):
        raise ValueError(f"a search needs one or several objectives on different metrics, got {names}")
    return result
