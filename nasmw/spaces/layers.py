"""Layers described once: the module that is built and the cost that is declared follow from one description."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from typing import Any, Protocol

import attrs
from torch import Tensor, nn

__all__ = [
    "Conv",
    "Cost",
    "GlobalPool",
    "InvertedResidual",
    "Layer",
    "Linear",
    "Placed",
    "Size",
    "divisible",
    "strided",
    "total",
]

Size = tuple[int, int]
"""Height and width of a feature map."""

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "relu6": nn.ReLU6,
    "h_swish": nn.Hardswish,
}


@attrs.frozen
class Cost:
    """What a layer costs, exactly.

    Attributes:
        macs: Multiply-adds of convolutions, linear layers and matrix products for one input, each counted once,
            without biases, normalisation and activations.
        params: Elements of all trainable tensors, biases and normalisation included.
    """

    macs: int = 0
    params: int = 0

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.macs + other.macs, self.params + other.params)


def total(costs: Iterable[Cost]) -> Cost:
    """Return the sum of costs."""
    return sum(costs, Cost())


def divisible(width: float, divisor: int = 8) -> int:
    """Return the multiple of `divisor` nearest to a width, not under 90 % of it; the rule of the MobileNet papers."""
    nearest = max(divisor, int(width + divisor / 2) // divisor * divisor)
    return nearest + divisor if nearest < 0.9 * width else nearest


def strided(size: Size, stride: int) -> Size:
    """Return the size after a padded convolution of odd kernel with a stride."""
    return (size[0] - 1) // stride + 1, (size[1] - 1) // stride + 1


class Layer(Protocol):
    """The description of a layer: a frozen attrs class whose attributes decide on module and cost."""

    def module(self) -> nn.Module:
        """Return the layer."""

    def cost(self, at: Any, /) -> Cost:
        """Return the cost on what the layer is applied to."""


@attrs.frozen
class Placed:
    """A layer and what it is applied to: what its latency depends on.

    Attributes:
        layer: The description of the layer.
        at: Height and width of the feature map that comes in, or a number of tokens.
        image: Height and width of the network's image.

    Example:
        >>> placed = Placed(InvertedResidual(24, 32, 72, 3, 2), (80, 80), (160, 160))
        >>> placed.key
        'InvertedResidual(inputs=24, outputs=32, hidden=72, kernel=3, stride=2) on 80x80'
        >>> placed.image_key
        'InvertedResidual(inputs=24, outputs=32, hidden=72, kernel=3, stride=2) on 80x80 in 160x160'
    """

    layer: Layer
    at: Size | int
    image: Size

    @property
    def key(self) -> str:
        """Under what tables of latencies have the layer: its class, its attributes that are no defaults, and `at`."""
        kind: Any = type(self.layer)
        given = (
            f"{field.name}={value!r}"
            for field in attrs.fields(kind)
            if (value := getattr(self.layer, field.name)) != field.default
        )
        at = self.at if isinstance(self.at, int) else f"{self.at[0]}x{self.at[1]}"
        return f"{kind.__name__}({', '.join(given)}) on {at}"

    @property
    def image_key(self) -> str:
        """The key in tables that were measured for each size of images apart."""
        return f"{self.key} in {self.image[0]}x{self.image[1]}"

    def cost(self) -> Cost:
        """Return the cost of the layer where it is."""
        return self.layer.cost(self.at)


@attrs.frozen
class Conv:
    """A padded convolution with an odd kernel, then batch norm and an activation where wanted.

    Attributes:
        inputs: Channels in.
        outputs: Channels out.
        kernel: The side of the kernel, odd.
        stride: Of both axes.
        groups: Groups of channels; `inputs` of them make it depthwise.
        dilation: Of both axes.
        bias: Whether the convolution has a bias.
        norm: Whether batch norm follows.
        activation: A name in `ACTIVATIONS`, or None.
        preactivated: Whether the activation comes first instead of last.
    """

    inputs: int
    outputs: int
    kernel: int = 1
    stride: int = 1
    groups: int = 1
    dilation: int = 1
    bias: bool = False
    norm: bool = True
    activation: str | None = None
    preactivated: bool = False

    def module(self) -> nn.Sequential:
        """Return the layer as a sequence of ``conv``, ``bn`` and ``act``, as far as they exist."""
        parts: OrderedDict[str, nn.Module] = OrderedDict()
        if self.activation and self.preactivated:
            parts["act"] = ACTIVATIONS[self.activation]()
        parts["conv"] = nn.Conv2d(
            self.inputs,
            self.outputs,
            self.kernel,
            stride=self.stride,
            padding=self.dilation * (self.kernel - 1) // 2,
            dilation=self.dilation,
            groups=self.groups,
            bias=self.bias,
        )
        if self.norm:
            parts["bn"] = nn.BatchNorm2d(self.outputs)
        if self.activation and not self.preactivated:
            parts["act"] = ACTIVATIONS[self.activation]()
        return nn.Sequential(parts)

    def cost(self, size: Size) -> Cost:
        """Return the cost on a feature map of a size."""
        height, width = strided(size, self.stride)
        weights = self.inputs // self.groups * self.outputs * self.kernel**2
        return Cost(weights * height * width, weights + self.outputs * self.bias + 2 * self.outputs * self.norm)


@attrs.frozen
class Linear:
    """A linear layer with a bias, applied to a number of tokens."""

    inputs: int
    outputs: int

    def module(self) -> nn.Linear:
        """Return the layer."""
        return nn.Linear(self.inputs, self.outputs)

    def cost(self, tokens: int = 1) -> Cost:
        """Return the cost of applying it to a number of tokens."""
        weights = self.inputs * self.outputs
        return Cost(weights * tokens, weights + self.outputs)


@attrs.frozen
class GlobalPool:
    """The mean over height and width; it has no multiply-adds and no parameters."""

    channels: int

    def module(self) -> nn.AdaptiveAvgPool2d:
        """Return the layer."""
        return nn.AdaptiveAvgPool2d(1)

    def cost(self, size: Size) -> Cost:
        """Return no cost."""
        return Cost()


class SqueezeExcite(nn.Module):
    """Scales channels by gates computed from their means (Hu et al., Squeeze-and-Excitation Networks, 2018).

    Args:
        channels: Channels in and out.
        squeezed: Channels in between.
    """

    def __init__(self, channels: int, squeezed: int) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.reduce = nn.Conv2d(channels, squeezed, 1)
        self.act = nn.ReLU()
        self.expand = nn.Conv2d(squeezed, channels, 1)
        self.gate = nn.Hardsigmoid()

    def forward(self, x: Tensor) -> Tensor:
        """Return the input with its channels scaled."""
        gates: Tensor = self.gate(self.expand(self.act(self.reduce(self.pool(x)))))
        return x * gates


@attrs.frozen
class InvertedResidual:
    """An inverted residual block: expand by 1x1, depthwise, squeeze-and-excite where wanted, project by 1x1.

    Sandler et al., MobileNetV2, 2018; with squeeze-and-excite Howard et al., Searching for MobileNetV3, 2019. The
    input is added where the stride is 1 and the channels stay.

    Attributes:
        inputs: Channels in.
        outputs: Channels out.
        hidden: Channels in between.
        kernel: The side of the depthwise kernel.
        stride: Of the depthwise convolution.
        activation: Of the first two convolutions; the last one has none.
        squeeze: Whether squeeze-and-excite follows the depthwise convolution, with a quarter of its channels.
        expand: Whether there is a 1x1 convolution before the depthwise one.
        groups: Groups of the 1x1 convolutions; with several, channels are shuffled after the first one.
    """

    inputs: int
    outputs: int
    hidden: int
    kernel: int
    stride: int = 1
    activation: str = "relu"
    squeeze: bool = False
    expand: bool = True
    groups: int = 1

    @property
    def shortcut(self) -> bool:
        """Whether the input is added to the output."""
        return self.stride == 1 and self.inputs == self.outputs

    @property
    def expansion(self) -> Conv:
        """The first 1x1 convolution."""
        return Conv(self.inputs, self.hidden, groups=self.groups, activation=self.activation)

    @property
    def depthwise(self) -> Conv:
        """The depthwise convolution."""
        return Conv(self.hidden, self.hidden, self.kernel, self.stride, self.hidden, activation=self.activation)

    @property
    def gates(self) -> tuple[Conv, Conv]:
        """The two convolutions of squeeze-and-excite."""
        squeezed = divisible(self.hidden // 4)
        return Conv(self.hidden, squeezed, bias=True, norm=False), Conv(squeezed, self.hidden, bias=True, norm=False)

    @property
    def projection(self) -> Conv:
        """The last 1x1 convolution."""
        return Conv(self.hidden, self.outputs, groups=self.groups)

    def module(self) -> nn.Module:
        """Return the block: ``inverted_bottleneck``, ``depth_conv`` (with ``se``), ``point_linear``."""
        parts: OrderedDict[str, nn.Module] = OrderedDict()
        if self.expand:
            parts["inverted_bottleneck"] = self.expansion.module()
            if self.groups > 1:
                parts["inverted_bottleneck"].add_module("shuffle", nn.ChannelShuffle(self.groups))
        parts["depth_conv"] = self.depthwise.module()
        if self.squeeze:
            reduce, _ = self.gates
            parts["depth_conv"].add_module("se", SqueezeExcite(self.hidden, reduce.outputs))
        parts["point_linear"] = self.projection.module()
        return _Residual(parts) if self.shortcut else nn.Sequential(parts)

    def cost(self, size: Size) -> Cost:
        """Return the cost on a feature map of a size."""
        small = strided(size, self.stride)
        cost = self.depthwise.cost(size) + self.projection.cost(small)
        if self.expand:
            cost += self.expansion.cost(size)
        if self.squeeze:
            cost += total(conv.cost((1, 1)) for conv in self.gates)
        return cost


class _Residual(nn.Sequential):
    """A sequence whose input is added to its output."""

    def forward(self, x: Tensor) -> Tensor:
        out = x
        for part in self:
            out = part(out)
        return x + out
