"""BitOpsProfiler: the bit operations of a network whose layers are quantised each in its own way."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, get_args

from nasmw.candidates import Architecture
from nasmw.errors import ProfilerError
from nasmw.profilers.bits import Bits, BitsLike, report_unused
from nasmw.profilers.counting import Uncounted, report_uncounted
from nasmw.profilers.inputs import ExampleInput, ExampleLike
from nasmw.profilers.network import Method, NetworkProfiler
from nasmw.profilers.probe import Layer, Pool, Sample, layers
from nasmw.profilers.shapes import trace
from nasmw.space import Space

if TYPE_CHECKING:
    from torch import nn

__all__ = ["BitOpsProfiler"]


class BitOpsProfiler(NetworkProfiler):
    """Bit operations of one forward pass: the MACs of each layer times the bits of its weights and of its inputs.

    MACs are those of `FlopsProfiler`. Where a layer multiplies activations by activations, as attention does, the bits
    of the activations count twice. A layer is called by the path of the module that runs the operator.

    Args:
        space: The space whose architectures are profiled; None to profile networks only.
        example_input: As for `FlopsProfiler`.
        bits: The bits of weights, by layer: a whole number, the name of a choice, ``"{layer}.bits"``, a mapping of
            patterns or a function; see `nasmw.profilers.bits.Bits`. The choices may be unknown to `build`.
        activation_bits: The bits of what a layer is applied to, given likewise; None takes those of the weights.
        other_bits: The bits of layers that have none by these.
        name: The name of the metric.
        resolution: As for `FlopsProfiler`.
        uncounted: As for `FlopsProfiler`.
        method: ``"auto"``, ``"probe"`` or ``"count"``; see `NetworkProfiler`.
        progress: Whether a bar is shown while tables are made.

    Raises:
        ProfilerError: If bits are no whole numbers above 0, or a network does not run on the example input.
        SpaceError: If the space has no such choice.
        TypeError: If the example input holds no tensor.

    References:
        Guo, Zhang, Mu, Heng, Liu, Wei, Sun, Single Path One-Shot Neural Architecture Search with Uniform Sampling,
        ECCV 2020, searches the bits of weights and activations under a limit of bit operations. Wang, Liu, Lin, Lin,
        Han, HAQ: Hardware-Aware Automated Quantization with Mixed Precision, CVPR 2019, has both by layer as well.

    Example:
        >>> import torch
        >>> from nasmw import profile
        >>> layer = torch.nn.Conv2d(3, 8, 3, bias=False)
        >>> profile(layer, [BitOpsProfiler(None, torch.zeros(1, 3, 6, 6), bits=4, activation_bits=8)])
        {'bit_operations': 110592.0}
    """

    metric = "bit_operations"
    example_input: ExampleInput

    def __init__(
        self,
        space: Space | None,
        example_input: ExampleLike,
        *,
        bits: BitsLike,
        activation_bits: BitsLike | None = None,
        other_bits: int = 32,
        name: str = "bit_operations",
        resolution: str | None = "resolution",
        uncounted: Uncounted = "warn",
        method: Method = "auto",
        progress: bool = True,
    ) -> None:
        if uncounted not in get_args(Uncounted):
            raise ProfilerError(f"`uncounted` is one of {get_args(Uncounted)}, got {uncounted!r}")
        self.uncounted: Uncounted = uncounted
        self.bits = Bits(bits, space, other=other_bits)
        self.activation_bits = (
            self.bits
            if activation_bits is None
            else Bits(activation_bits, space, other=other_bits, what="activation_bits")
        )
        self._told: set[str] = set()
        super().__init__(
            space, name, example_input=example_input, resolution=resolution, method=method, progress=progress
        )

    def _details(self) -> tuple[object, ...] | None:
        described = self.bits.describe(), self.activation_bits.describe()
        return None if None in described else described

    def _factors(self, layer: Layer, architecture: Architecture | None) -> tuple[int, int]:
        activations = self.activation_bits.of(architecture, layer.path)
        return (self.bits.of(architecture, layer.path) if layer.weights else activations), activations

    def _weighed(self, sample: Sample) -> Sample:
        architecture = self._space().decode(sample.codes)
        return sample.times("macs", self.metric, lambda layer: self._factors(layer, architecture))

    def _after_probing(self, pool: Pool) -> None:
        for bits in dict.fromkeys((self.bits, self.activation_bits)):
            report_unused(bits, len(pool))

    def _note_uncounted(self, names: Iterable[str]) -> None:
        what = f"{self.name}: networks of {self.space!r}"
        report_uncounted(dict.fromkeys(names, 0), self.uncounted, what, self._told)

    def _count(self, model: nn.Module, architecture: Architecture | None) -> float:
        example = self.example_input
        if architecture is not None:
            example = example.for_architecture(architecture, self.resolution)
        traced = trace(model, example)
        unknown = dict.fromkeys(traced.uncounted, 0)
        report_uncounted(unknown, self.uncounted, f"{self.name}: a {type(model).__name__}", self._told)
        total = 0
        for layer in layers(model, traced, "macs", {}):
            weights, activations = self._factors(layer, architecture)
            total += layer.cost * weights * activations
        return float(total)
