"""Costs: penalties and limits as terms of the loss that probabilities are learnt by."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import attrs
from torch import Tensor

from nasmw.candidates import Architecture
from nasmw.constraint import Constraint, exactly
from nasmw.cost import CostTable
from nasmw.penalty import Penalty

__all__ = ["Costs"]


@attrs.define(eq=False)
class _Multiplier:
    """What one side of a limit costs: grows as long as the derived network is beyond it, shrinks where it is within."""

    name: str
    text: str
    table: CostTable
    bound: float
    span: float  # the range of the table; negative for a lower limit
    value: float = 0.0

    def beyond(self, value: Any) -> Any:
        """Return by how much a value is beyond the limit, negative within, as a share of the table's range."""
        return (value - self.bound) / self.span


class Costs:
    """Penalties, and limits with adapted multipliers, on exact expectations.

    Where each choice is drawn independently, the expected cost is known exactly from the cost's table, and so is its
    gradient. A penalty takes that expectation in place of the value. A limit adds its multiplier times how far the
    expectation is beyond it; the multiplier follows the network that is derived now: it grows where that is beyond the
    limit, and shrinks, to 0, where it is within (the method of multipliers, by subgradients of the dual).

    Args:
        penalties: The penalties, on profilers with a `CostTable`.
        limits: The limits; those on profilers with a `CostTable` become terms.
        rate: By how much a multiplier grows in one step, for a network that is beyond the limit by the whole range of
            the cost.
    """

    def __init__(self, penalties: Sequence[Penalty], limits: Sequence[Constraint], rate: float) -> None:
        self._penalties = tuple(penalties)
        self._rate = rate
        self._multipliers: list[_Multiplier] = []
        for limit in limits:
            table = limit.profiler.table
            if isinstance(table, CostTable):
                bounds = table.bounds()
                span = (bounds.high - bounds.low) or 1.0
                for bound, sign, word in ((limit.high, 1, "<="), (limit.low, -1, ">=")):
                    if not math.isinf(bound):
                        text = f"{limit.profiler.name} {word} {exactly(bound)}"
                        self._multipliers.append(_Multiplier(limit.profiler.name, text, table, bound, sign * span))

    def __bool__(self) -> bool:
        return bool(self._penalties or self._multipliers)

    def dear(self, history: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
        """Return, as text, the terms that made layers dear: penalties, and upper limits whose multiplier was above 0.

        Args:
            history: The records of all epochs, with what `report` returns.
        """
        upper = [multiplier.text for multiplier in self._multipliers if multiplier.span > 0]
        felt = [text for text in upper if any(record.get(f"multiplier of {text}", 0.0) > 0 for record in history)]
        return (*map(repr, self._penalties), *felt)

    def added(self, loss: Tensor, probabilities: Mapping[str, Tensor]) -> Tensor:
        """Return a loss with all terms, in float32."""
        loss = loss.float()
        for penalty in self._penalties:
            loss = penalty.loss(loss, penalty.profiler.table.expectation(probabilities))
        for multiplier in self._multipliers:
            if multiplier.value:
                loss = loss + multiplier.value * multiplier.beyond(multiplier.table.expectation(probabilities))
        return loss

    def adapt(self, derived: Architecture) -> None:
        """Let the multipliers follow the network that would be derived now."""
        for multiplier in self._multipliers:
            beyond = multiplier.beyond(multiplier.table.value(derived))
            multiplier.value = max(0.0, multiplier.value + self._rate * beyond)

    def report(self, probabilities: Mapping[str, Tensor]) -> dict[str, float]:
        """Return expected costs and multipliers by name, for the log."""
        found = {
            f"expected {penalty.profiler.name}": float(penalty.profiler.table.expectation(probabilities))
            for penalty in self._penalties
        }
        for multiplier in self._multipliers:
            found[f"expected {multiplier.name}"] = float(multiplier.table.expectation(probabilities))
            found[f"multiplier of {multiplier.text}"] = multiplier.value
        return found

    def state_dict(self) -> dict[str, Any]:
        """Return the multipliers."""
        return {"multipliers": [multiplier.value for multiplier in self._multipliers]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take multipliers back."""
        for multiplier, value in zip(self._multipliers, state["multipliers"], strict=True):
            multiplier.value = value
