"""Penalty: what a cost takes from a score, or adds to a loss, as a value."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal, get_args

import attrs

from nasmw.errors import EvaluationError, ProfilerError
from nasmw.profiler import Profiler

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Form", "Penalty"]

Form = Literal["absolute", "hinge", "power"]


@attrs.frozen(eq=False, repr=False)
class Penalty:
    """What a cost is paid for with: a value, which `Penalize` applies to scores and offers to the stages below.

    Attributes:
        profiler: The cost.
        target: Its target, above 0, in the profiler's unit.
        weight: How much a cost of twice the target costs, at least 0.
        form: ``"absolute"``, ``"hinge"`` or ``"power"``; `Penalize` has the formulas.

    Raises:
        ValueError: If a number is out of range, or the form unknown.

    Example:
        >>> from nasmw.testing import TableProfiler, toy_space
        >>> Penalty(TableProfiler(toy_space()), target=20.0, weight=0.07).score(0.9, 30.0)
        0.865
    """

    profiler: Profiler
    target: float
    weight: float
    form: Form = "absolute"

    def __attrs_post_init__(self) -> None:
        if not (math.isfinite(self.target) and self.target > 0):
            raise ValueError(f"the target of a penalty is a number above 0, got {self.target!r}")
        if not (math.isfinite(self.weight) and self.weight >= 0):
            raise ValueError(f"the weight of a penalty is a number of at least 0, got {self.weight!r}")
        if self.form not in get_args(Form):
            raise ValueError(f"the form of a penalty is one of {get_args(Form)}, got {self.form!r}")

    def __repr__(self) -> str:
        return f"<Penalty {self.form} on {self.profiler.name}, target {self.target:g}, weight {self.weight:g}>"

    def score(self, score: float, value: float) -> float:
        """Return what is left of a score, which is maximised, for a value of the profiler.

        Raises:
            EvaluationError: If the power form meets a score below 0.
            ProfilerError: If it meets a value of at most 0.
        """
        ratio = value / self.target
        if self.form == "absolute":
            return score - self.weight * abs(ratio - 1.0)
        if self.form == "hinge":
            return score - self.weight * max(0.0, ratio - 1.0)
        if score < 0:
            raise EvaluationError(
                f"the power form of Penalize needs scores of at least 0, got {score:.6g}; "
                "use form='absolute' or form='hinge', or shift the metric"
            )
        if ratio <= 0:
            raise ProfilerError(
                f"the power form of Penalize needs values above 0, {self.profiler!r} gave {value:.6g}; "
                "use form='absolute' or form='hinge'"
            )
        return float(score * ratio**-self.weight)

    def loss(self, loss: Tensor, value: Tensor) -> Tensor:
        """Return what becomes of a loss, which is minimised, for a value of the profiler; differentiable in both.

        Args:
            loss: A tensor without dimensions.
            value: The expected value, without dimensions; above 0 for the power form.
        """
        ratio = value / self.target
        if self.form == "absolute":
            return loss + self.weight * (ratio - 1.0).abs()
        if self.form == "hinge":
            return loss + self.weight * (ratio - 1.0).clamp(min=0.0)
        return loss * ratio**self.weight
