"""ParamsProfiler and ModelSizeProfiler: how many parameters a network has, and how many bytes they take."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nasmw.candidates import Architecture
from nasmw.errors import ProfilerError
from nasmw.profilers.bits import Bits, BitsLike, report_unused
from nasmw.profilers.counting import count_parameters
from nasmw.profilers.network import Method, NetworkProfiler
from nasmw.profilers.probe import Layer, Metric, Pool, Sample, layers
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
    """Bytes that the parameters of a network take, at one number of bits or at bits that are choices.

    With one number every element takes so many bits. With bits by layer (a choice, patterns, a function) these are the
    bits of the weights: the parameters with two axes or more. Biases and the like take `other_bits`, as do layers
    without bits of their own. Nothing is added for scales and zero points.

    Args:
        space: The space whose architectures are profiled; None to profile networks only.
        bits: A number of bits of each element: 32 for float32, 8 for int8. Or the bits of each layer's weights: the
            name of a choice, ``"{layer}.bits"``, a mapping of patterns or a function; see
            `nasmw.profilers.bits.Bits`. The choices may be unknown to `build`.
        other_bits: Bits of the elements of what has no bits by layer.
        name: The name of the metric.
        buffers: Whether buffers (running statistics, say) are stored as well.
        method: ``"auto"``, ``"probe"`` or ``"count"``; see `NetworkProfiler`.
        progress: Whether a bar is shown while tables are made.

    Raises:
        ProfilerError: If `bits` is not positive, or choices have options that are no bits.
        SpaceError: If the space has no such choice.

    References:
        Wang, Liu, Lin, Lin, Han, HAQ: Hardware-Aware Automated Quantization with Mixed Precision, CVPR 2019, sizes
        networks so: the sum over layers of weights times their bits.

    Example:
        >>> import torch
        >>> from nasmw import Choice, Space, profile
        >>> profile(torch.nn.Linear(4, 2), [ModelSizeProfiler(None, bits=8)])
        {'model_bytes': 10.0}
        >>> net = torch.nn.Sequential(torch.nn.Linear(4, 2, bias=False))
        >>> space = Space([Choice("0.bits", (2, 4))], build=lambda architecture: net)
        >>> ModelSizeProfiler(space, bits="{layer}.bits", progress=False).profile({"0.bits": 4})
        4.0
    """

    def __init__(
        self,
        space: Space | None,
        *,
        bits: float | BitsLike = 32,
        other_bits: int = 32,
        name: str = "model_bytes",
        buffers: bool = False,
        method: Method = "auto",
        progress: bool = True,
    ) -> None:
        self.buffers = buffers
        self.base: Metric = "elements" if buffers else "params"
        self.bits: float | Bits
        if isinstance(bits, (int, float)) and not isinstance(bits, bool):
            if not bits > 0:
                raise ProfilerError(f"`bits` is a positive number of bits for each element, got {bits!r}")
            self.bits = float(bits)
            self.metric: Metric = self.base
            self.factor = self.bits / 8
        else:
            self.bits = Bits(bits, space, other=other_bits)
            self.metric = "weight_bits"
            self.factor = 1 / 8
        super().__init__(space, name, "B", method=method, progress=progress)

    def _details(self) -> tuple[object, ...] | None:
        if not isinstance(self.bits, Bits):
            return ()
        described = self.bits.describe()
        return None if described is None else (self.base, described)

    def _weighed(self, sample: Sample) -> Sample:
        if not isinstance(self.bits, Bits):
            return sample
        bits, architecture = self.bits, self._space().decode(sample.codes)
        return sample.times(self.base, self.metric, lambda layer: (_bits_of(layer, bits, architecture),))

    def _after_probing(self, pool: Pool) -> None:
        if isinstance(self.bits, Bits):
            report_unused(self.bits, len(pool))

    def _count(self, model: nn.Module, architecture: Architecture | None) -> float:
        if not isinstance(self.bits, Bits):
            return count_parameters(model, buffers=self.buffers) * self.factor
        found = layers(model, None, self.base, {})
        return sum(layer.cost * _bits_of(layer, self.bits, architecture) for layer in found) * self.factor

    def __repr__(self) -> str:
        bits = "bits by layer" if isinstance(self.bits, Bits) else f"{self.bits:g} bits"
        return f"{super().__repr__()[:-1]}, {bits}>"


def _bits_of(layer: Layer, bits: Bits, architecture: Architecture | None) -> int:
    """Return the bits of the elements of a tensor."""
    return bits.of(architecture, layer.path) if layer.weights and len(layer.groups[0]) > 1 else bits.other
