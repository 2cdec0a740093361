"""ActivationsProfiler and PeakMemoryProfiler: what the operators of a network write, and what must be in memory."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from nasmw.candidates import Architecture
from nasmw.errors import ProfilerError
from nasmw.profilers.inputs import ExampleInput, ExampleLike
from nasmw.profilers.network import Method, NetworkProfiler
from nasmw.profilers.probe import Pool, shared_pool
from nasmw.profilers.shapes import Trace, trace
from nasmw.space import Space

if TYPE_CHECKING:
    from torch import nn

__all__ = ["ActivationsProfiler", "PeakMemoryProfiler"]


class _TracingProfiler(NetworkProfiler):
    """Common to profilers that look at the shapes of a forward pass."""

    example_input: ExampleInput
    float_bytes: int | None = None

    def _trace(self, model: nn.Module, architecture: Architecture | None) -> Trace:
        example = self.example_input
        if architecture is not None:
            example = example.for_architecture(architecture, self.resolution)
        return trace(model, example, live=self.metric == "memory", float_bytes=self.float_bytes)

    def _pool(self, space: Space) -> Pool:
        return shared_pool(space, self.example_input, self.resolution, float_bytes=self.float_bytes)


class ActivationsProfiler(_TracingProfiler):
    """Number of elements that the operators of one forward pass write, in eval mode.

    Every operator counts that writes a tensor: convolutions as well as normalisation, activations (in place or not),
    additions and pooling. Views, such as a reshape that copies nothing, write none. Runtimes that fuse operators write
    less.

    Args:
        space: The space whose architectures are profiled; None to profile networks only.
        example_input: As for `FlopsProfiler`.
        name: The name of the metric.
        resolution: As for `FlopsProfiler`.
        method: ``"auto"``, ``"probe"`` or ``"count"``; see `NetworkProfiler`.
        progress: Whether a bar is shown while tables are made.

    Example:
        >>> import torch
        >>> from nasmw import profile
        >>> layers = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 1), torch.nn.ReLU(), torch.nn.Flatten())
        >>> profile(layers, [ActivationsProfiler(None, torch.zeros(1, 3, 4, 4))])
        {'activations': 256.0}
    """

    metric = "activations"

    def __init__(
        self,
        space: Space | None,
        example_input: ExampleLike,
        *,
        name: str = "activations",
        resolution: str | None = "resolution",
        method: Method = "auto",
        progress: bool = True,
    ) -> None:
        super().__init__(
            space, name, example_input=example_input, resolution=resolution, method=method, progress=progress
        )

    def _count(self, model: nn.Module, architecture: Architecture | None) -> float:
        operations = self._trace(model, architecture).operations
        return float(sum(math.prod(shape) for operation in operations for shape in operation.written))


class PeakMemoryProfiler(_TracingProfiler):
    """Bytes of the largest set of activations that must be in memory at once, in one forward pass in eval mode.

    A tensor is in memory from the operator that writes it, or from the start if it is an input, to the last operator
    that reads it; outputs stay. Operators run in the order of the program, one at a time, and are not fused. Parameters
    and the working memory inside operators do not count.

    Args:
        space: The space whose architectures are profiled; None to profile networks only.
        example_input: As for `FlopsProfiler`; its batch size is the one that is meant.
        float_bytes: Bytes of an element of floating point, whatever the dtype of the networks; None takes theirs.
        name: The name of the metric.
        resolution: As for `FlopsProfiler`.
        method: ``"auto"``, ``"probe"`` or ``"count"``; see `NetworkProfiler`.
        progress: Whether a bar is shown while tables are made.

    Raises:
        ProfilerError: If `float_bytes` is not positive.

    Example:
        >>> import torch
        >>> from nasmw import profile
        >>> layers = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 1), torch.nn.ReLU(), torch.nn.Flatten())
        >>> profile(layers, [PeakMemoryProfiler(None, torch.zeros(1, 3, 4, 4))])
        {'peak_bytes': 1024.0}
    """

    metric = "memory"

    def __init__(
        self,
        space: Space | None,
        example_input: ExampleLike,
        *,
        float_bytes: int | None = None,
        name: str = "peak_bytes",
        resolution: str | None = "resolution",
        method: Method = "auto",
        progress: bool = True,
    ) -> None:
        if float_bytes is not None and (isinstance(float_bytes, bool) or float_bytes < 1):
            raise ProfilerError(f"`float_bytes` is a positive number of bytes or None, got {float_bytes!r}")
        self.float_bytes = float_bytes
        super().__init__(
            space, name, "B", example_input=example_input, resolution=resolution, method=method, progress=progress
        )

    def _details(self) -> tuple[object, ...]:
        return (self.float_bytes,)

    def _count(self, model: nn.Module, architecture: Architecture | None) -> float:
        operations = self._trace(model, architecture).operations
        return float(max((sum(map(math.prod, operation.live)) for operation in operations), default=0))
