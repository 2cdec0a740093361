"""Remeasured: the best networks of a search, measured again on a device, beside what was predicted of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import attrs
import numpy as np
import numpy.typing as npt

from nasmw.candidates import Floats
from nasmw.constraint import Constraint, Constraints
from nasmw.errors import ConstraintError, DeviceError, ProfilerError
from nasmw.log import TrialRecord

if TYPE_CHECKING:
    from torch import Tensor

    from nasmw.devices.base import Device
    from nasmw.result import Result

__all__ = ["Remeasured", "remeasure"]


@attrs.frozen(eq=False, repr=False)
class Remeasured:
    """What the best networks of a search take on a device; printed as a table.

    Attributes:
        device: The name of the device.
        trials: The trials, the best first.
        scores: ``(n,)`` the first objective, as it was evaluated.
        objective: Its name.
        predicted: ``(n,)`` milliseconds as the limit's profiler has them; NaN where there is no limit.
        measured: ``(n,)`` milliseconds.
        spread: ``(n,)`` the interquartile range of the visits, milliseconds.
        limit: The limit as text; empty where there is none.
        keeps: ``(n,)`` whether what was measured keeps the limit; all of them where there is none.
    """

    device: str
    trials: tuple[TrialRecord, ...]
    scores: Floats
    objective: str
    predicted: Floats
    measured: Floats
    spread: Floats
    limit: str
    keeps: npt.NDArray[np.bool_]

    @property
    def kept(self) -> int:
        """How many keep the limit."""
        return int(self.keeps.sum())

    def __len__(self) -> int:
        return len(self.trials)

    def __repr__(self) -> str:
        kept = f", {self.kept} keep {self.limit}" if self.limit else ""
        return f"<Remeasured: {len(self)} networks on {self.device}{kept}>"

    def __str__(self) -> str:
        head = ["trial", self.objective, "measured ms", "spread"]
        rows = [
            [str(trial.number), f"{score:.4g}", f"{ms:.3f}", f"{spread:.3f}"]
            for trial, score, ms, spread in zip(self.trials, self.scores, self.measured, self.spread, strict=True)
        ]
        if self.limit:
            head[2:2] = ["predicted ms"]
            head.append(self.limit)
            for row, predicted, keeps in zip(rows, self.predicted, self.keeps, strict=True):
                row[2:2] = [f"{predicted:.3f}"]
                row.append("yes" if keeps else "no")
        widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
        lines = [
            "  ".join(f"{text:>{width}}" for text, width in zip(row, widths, strict=True)) for row in [head, *rows]
        ]
        if self.limit:
            lines.append(f"{self.kept} of {len(self)} keep {self.limit} on {self.device}")
        return "\n".join(lines)


def remeasure(
    result: Result,
    rows: Sequence[int],
    device: Device | str,
    example_input: Tensor,
    limit: Constraint | Constraints | None,
    resolution: str | None,
    rounds: int,
    runs: int,
    progress: bool,
) -> Remeasured:
    """Measure some trials of a result, given by their rows; see `Result.remeasure`."""
    from nasmw.devices.measuring import measure
    from nasmw.devices.networks import network_of
    from nasmw.profilers.device_meter import as_device, one_tensor
    from nasmw.profilers.inputs import check_resolution

    limits = _limits(limit)
    device, example = as_device(device), one_tensor(example_input)
    resolution = check_resolution(result.space, resolution)
    trials = tuple(result.trials[row] for row in rows)
    artifacts = {}
    for trial in trials:
        network = network_of(result.space, trial.architecture, example, resolution)
        try:
            artifacts[str(trial.number)] = {device.name: device.export(*network)}
        except DeviceError as error:
            raise DeviceError(f"the network of trial {trial.number}: {error}") from error
    found = measure(artifacts, [device], rounds=rounds, runs=runs, progress=progress)
    measured = found.latency_ms[0]
    objective = result.objectives[0]
    return Remeasured(
        device.name,
        trials,
        result.values(objective.metric)[list(rows)],
        objective.name,
        result.values(limits[0].profiler)[list(rows)] if limits else np.full(len(rows), np.nan),
        measured,
        found.spread_ms[0],
        " and ".join(map(str, limits)),
        np.all([part.holds(measured) for part in limits], axis=0) if limits else np.ones(len(rows), dtype=np.bool_),
    )


def _limits(limit: Constraint | Constraints | None) -> Sequence[Constraint]:
    if limit is None:
        return ()
    if not isinstance(limit, (Constraint, Constraints)):
        raise TypeError(f"remeasure(limit=...) takes a limit such as latency <= 25.0, got {limit!r}")
    limits = tuple(limit) if isinstance(limit, Constraints) else (limit,)
    if not all(part.resolved for part in limits):
        raise ConstraintError(f"remeasure(limit=...) takes a number as the limit, got {limits[0]!r}")
    if len({part.profiler.name for part in limits}) > 1:
        raise ProfilerError("remeasure(limit=...) takes limits on one latency; measure for each of them")
    if limits[0].profiler.unit != "ms":
        raise ProfilerError(f"what is measured again is milliseconds, and {limits[0].profiler!r} is not")
    return limits
