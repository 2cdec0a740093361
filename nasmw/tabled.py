"""TabledProfiler: a profiler that is a table, so that its bounds, expectation and feasible sets are exact."""

from __future__ import annotations

from nasmw.candidates import Architecture, Candidates, Floats
from nasmw.cost import CostTable, MaxTable, TableBase
from nasmw.profiler import Bounds, Kind, Profiler

__all__ = ["TabledProfiler"]


class TabledProfiler(Profiler):
    """A profiler whose values are those of a `CostTable` or a `MaxTable`.

    Ready profilers derive from it; with a table at hand it is complete as it stands. A limit on it is met by
    construction in strategies that draw from feasible sets.

    Args:
        table: The table, which also says what space the profiler is about.
        name: The name of the metric; that of the table by default.
        unit: The unit, as in ``"ms"``; empty for a plain count.
        kind: ``"analytical"`` (computed), ``"learned"`` (predicted) or ``"measured"``.
        device: What a latency is about; None where the device does not matter.

    Raises:
        TypeError: If `table` is no table.

    Example:
        >>> from nasmw import Choice, Space
        >>> from nasmw.cost import CostTable
        >>> space = Space([Choice("width", (8, 16)), Choice("depth", (1, 2))])
        >>> macs = TabledProfiler(CostTable(space, [(("width", "depth"), [[10, 20], [40, 80]])]), "macs")
        >>> macs.profile({"width": 16, "depth": 1}), macs.bounds().high
        (40.0, 80.0)
    """

    table: CostTable | MaxTable

    def __init__(
        self,
        table: CostTable | MaxTable,
        name: str | None = None,
        unit: str = "",
        *,
        kind: Kind = "analytical",
        device: str | None = None,
    ) -> None:
        if not isinstance(table, TableBase):
            raise TypeError(f"{type(self).__name__} takes a CostTable or a MaxTable first, got {type(table).__name__}")
        super().__init__(table.name if name is None else name, unit, space=table.space, kind=kind, device=device)
        self.table = table

    def _profile(self, architecture: Architecture) -> float:
        return self.table.value(architecture)

    def _profile_batch(self, candidates: Candidates) -> Floats:
        return self.table.evaluate(candidates)

    def bounds(self) -> Bounds:
        """Return the least and greatest value over the space, exactly."""
        return self.table.bounds()
