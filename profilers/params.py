"""ParamsProfiler and ModelSizeProfiler: how many parameters a network has, and how many bytes they take."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nasmw.candidates import Architecture
from nasmw.cost import CostTable, MaxTable
from nasmw.errors import ProfilerError
from nasmw.profilers.counting import count_parameters
from nasmw.profilers.network import Method, NetworkProfiler
from nasmw.profilers.probe import Metric
from nasmw.space import Space

if TYPE_CHECKING:
    from torch import nn

__all__ = ["ModelSizeProfiler", "ParamsProfiler"]


class ParamsProfiler(NetworkProfiler):
    """Number of parameters, counted from the tensors themselves; a tensor that modules share counts once.

    Args:
        space: The space whose architectures are profiled; None to profile networks only.
        name: The name of the metric.
        buffers: Whether the elements of buffers (running statistics, say) count as well.
        method: ``"auto"``, ``"probe"`` or ``"count"``; see `NetworkProfiler`.
        progress: Whether a bar is shown while tables are made.

    Example:
        >>> import torch
        >>> from nasmw import profile
        >>> profile(torch.nn.Linear(4, 2), [ParamsProfiler(None)])
        {'params': 10.0}
    """

    def __init__(
        self,
        space: Space | None,
        *,
        name: str = "params",
        buffers: bool = False,
        method: Method = "auto",
        progress: bool = True,
    ) -> None:
        self.buffers = buffers
        self.metric: Metric = "elements" if buffers else "params"
        super().__init__(space, name, method=method, progress=progress)

    def _count(self, model: nn.Module, architecture: Architecture | None) -> float:
        return float(count_parameters(model, buffers=self.buffers))


class ModelSizeProfiler(NetworkProfiler):
    """Bytes that the parameters of a network take, all at one number of bits.

    Args:
        space: The space whose architectures are profiled; None to profile networks only.
        bits: Bits of each element: 32 for float32, 8 for int8.
        name: The name of the metric.
        buffers: Whether buffers (running statistics, say) are stored as well.
        method: ``"auto"``, ``"probe"`` or ``"count"``; see `NetworkProfiler`.
        progress: Whether a bar is shown while tables are made.

    Raises:
        ProfilerError: If `bits` is not positive.

    Example:
        >>> import torch
        >>> from nasmw import profile
        >>> profile(torch.nn.Linear(4, 2), [ModelSizeProfiler(None, bits=8)])
        {'model_bytes': 10.0}
    """

    def __init__(
        self,
        space: Space | None,
        *,
        bits: float = 32,
        name: str = "model_bytes",
        buffers: bool = False,
        method: Method = "auto",
        progress: bool = True,
    ) -> None:
        if not bits > 0:
            raise ProfilerError(f"`bits` is a positive number of bits for each element, got {bits!r}")
        self.bits = float(bits)
        self.buffers = buffers
        self.metric: Metric = "elements" if buffers else "params"
        super().__init__(space, name, "B", method=method, progress=progress)

    def _scaled(self, table: CostTable | MaxTable) -> CostTable | MaxTable:
        return table * (self.bits / 8)

    def _count(self, model: nn.Module, architecture: Architecture | None) -> float:
        return count_parameters(model, buffers=self.buffers) * (self.bits / 8)

    def __repr__(self) -> str:
        return f"{super().__repr__()[:-1]}, {self.bits:g} bits>"
