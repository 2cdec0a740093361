"""ParamsProfiler: the number of parameters of a network."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nasmw.candidates import Architecture
from nasmw.profilers.counting import count_parameters
from nasmw.profilers.network import NetworkProfiler
from nasmw.space import Space

if TYPE_CHECKING:
    from torch import nn

__all__ = ["ParamsProfiler"]


class ParamsProfiler(NetworkProfiler):
    """Number of parameters, counted from the tensors themselves; a tensor that modules share counts once.

    Args:
        space: The space whose architectures are profiled; None to profile networks only.
        name: The name of the metric.
        buffers: Whether the elements of buffers (running statistics, say) count as well.

    Example:
        >>> import torch
        >>> from nasmw import profile
        >>> profile(torch.nn.Linear(4, 2), [ParamsProfiler(None)])
        {'params': 10.0}
    """

    def __init__(self, space: Space | None, *, name: str = "params", buffers: bool = False) -> None:
        super().__init__(space, name)
        self.buffers = buffers

    def __repr__(self) -> str:
        return f"<ParamsProfiler {self.name!r}{' with buffers' if self.buffers else ''}>"

    def _measure(self, model: nn.Module, architecture: Architecture | None) -> float:
        return float(count_parameters(model, buffers=self.buffers))
