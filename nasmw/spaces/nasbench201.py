"""The cell space of NAS-Bench-201, and its sibling over channels, the size space of NATS-Bench."""

from __future__ import annotations

import itertools
from collections import OrderedDict
from collections.abc import Hashable, Iterable, Iterator, Mapping
from functools import partial
from typing import Any

import attrs
from torch import Tensor, nn

from nasmw.choice import Choice
from nasmw.errors import SpaceError
from nasmw.space import Space
from nasmw.spaces.family import Family, Part, positive
from nasmw.spaces.layers import Conv, Cost, GlobalPool, Layer, Linear, Placed, Size, strided, total

__all__ = ["nasbench201", "nats_size"]

OPERATIONS = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
EDGES = ((0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3))
NODES = 4
STAGES = 3
NATS_CELL = {
    (0, 1): "nor_conv_3x3",
    (0, 2): "nor_conv_3x3",
    (1, 2): "nor_conv_3x3",
    (0, 3): "skip_connect",
    (1, 3): "nor_conv_3x3",
    (2, 3): "nor_conv_3x3",
}


def nasbench201(num_classes: int = 10, input_size: int = 32, channels: int = 16, cells: int = 5) -> Space:
    """Return the space of NAS-Bench-201, also the topology space of NATS-Bench.

    A cell has four nodes and an operation on each of its six edges; it is repeated in three stages, with residual
    blocks between them that halve the size and double the channels. Convolutions are ReLU, convolution, batch norm.
    Every edge is computed, even where its result is not used; the published costs count likewise. Their MACs add the
    biases of the classifier, which the table here leaves out.

    Choices, in the order of the benchmark's architecture strings: ``edge_0_1``, ``edge_0_2``, ``edge_1_2``,
    ``edge_0_3``, ``edge_1_3``, ``edge_2_3``, each ``"none"``, ``"skip_connect"``, ``"nor_conv_1x1"``,
    ``"nor_conv_3x3"`` or ``"avg_pool_3x3"``.

    Size: 5^6 = 15,625. `Space.function_keys` finds 4,930 functions among them, by these rules: a skip is its input,
    sums have no order, and nothing comes out of a node into which nothing goes (which neglects that batch norm may
    shift the zeros). The paper counts 6,466, since it keeps zeros in sums, and sums in sums, apart.

    Source: Dong, Yang, NAS-Bench-201: Extending the Scope of Reproducible Neural Architecture Search, ICLR 2020,
    section 2.1 and figure 1.

    Args:
        num_classes: Outputs of the classifier: 10 and 100 for CIFAR, 120 for ImageNet16-120.
        input_size: Height and width of the images: 32 for CIFAR, 16 for ImageNet16-120.
        channels: Channels of the first stage.
        cells: Cells per stage.

    Raises:
        SpaceError: If an argument is not a positive whole number.

    Example:
        >>> space = nasbench201()
        >>> params = space.tables["params"](space, None)
        >>> int(params.bounds().low), int(params.bounds().high)
        (73306, 1531546)
    """
    return _NASBench201(num_classes, input_size, channels, cells).space(function_key=_function_key)


def nats_size(num_classes: int = 10, input_size: int = 32, widths: Iterable[int] = range(8, 65, 8)) -> Space:
    """Return the size space of NATS-Bench: the channels of five layers around one fixed cell.

    The layers are a cell, a residual block of stride 2, a cell, a residual block of stride 2 and a cell. The stem has
    the channels of the first layer. The cell has 3x3 convolutions on all edges but a skip from its input to its output;
    where the channels change, the skip is a 1x1 convolution with batch norm.

    Choices: ``layer{i}.width`` for ``i`` from 0 to 4, each one of `widths`.

    Size: 8^5 = 32,768.

    Source: Dong, Liu, Musial, Gabrys, NATS-Bench: Benchmarking NAS Algorithms for Architecture Topology and Size,
    TPAMI 2021, section 3.1.

    Args:
        num_classes: Outputs of the classifier.
        input_size: Height and width of the images.
        widths: The numbers of channels to choose from.

    Raises:
        SpaceError: If an argument is not positive, or there is no width.

    Example:
        >>> nats_size().size
        32768
    """
    return _NATSSize(num_classes, input_size, tuple(widths)).space()


def _function_key(architecture: dict[str, Any]) -> Hashable:
    """Return what a cell sums up, as nested sorted tuples; empty where that is always zero."""
    sums: list[tuple[Any, ...]] = [("input",)]
    for node in range(1, NODES):
        terms: list[Any] = []
        for source in range(node):
            operation = architecture[f"edge_{source}_{node}"]
            if operation == "skip_connect":
                terms.extend(sums[source])
            elif operation != "none" and sums[source]:
                terms.append((operation, sums[source]))
        sums.append(tuple(sorted(terms, key=repr)))
    return sums[-1]


def relu_conv(inputs: int, outputs: int, kernel: int, stride: int = 1) -> Conv:
    """Describe ReLU, convolution and batch norm."""
    return Conv(inputs, outputs, kernel, stride, activation="relu", preactivated=True)


class _Zero(nn.Module):
    """Gives zeros, whatever comes in."""

    def forward(self, x: Tensor) -> Tensor:
        return x * 0.0


@attrs.frozen
class Zero:
    """Zeros in place of what comes in."""

    channels: int

    def module(self) -> nn.Module:
        """Return the layer."""
        return _Zero()

    def cost(self, size: Size) -> Cost:
        """Return no cost: there are no multiply-adds and no parameters."""
        return Cost()


@attrs.frozen
class AvgPool:
    """The mean over windows of 3x3, those at the border over fewer."""

    channels: int

    def module(self) -> nn.AvgPool2d:
        """Return the layer."""
        return nn.AvgPool2d(3, stride=1, padding=1, count_include_pad=False)

    def cost(self, size: Size) -> Cost:
        """Return no cost: there are no multiply-adds and no parameters."""
        return Cost()


@attrs.frozen
class BatchNorm:
    """Batch norm by itself."""

    channels: int

    def module(self) -> nn.BatchNorm2d:
        """Return the layer."""
        return nn.BatchNorm2d(self.channels)

    def cost(self, size: Size) -> Cost:
        """Return its parameters."""
        return Cost(params=2 * self.channels)


def _operation(name: str, inputs: int, outputs: int) -> Layer | None:
    """Describe the operation of an edge; None where it passes its input on."""
    if name == "nor_conv_1x1":
        return relu_conv(inputs, outputs, 1)
    if name == "nor_conv_3x3":
        return relu_conv(inputs, outputs, 3)
    if name == "avg_pool_3x3":
        return AvgPool(inputs)
    if name == "none":
        return Zero(inputs)
    return Conv(inputs, outputs) if inputs != outputs else None


def _operation_module(name: str, inputs: int, outputs: int) -> nn.Module:
    layer = _operation(name, inputs, outputs)
    return layer.module() if layer else nn.Identity()


class _Cell(nn.Module):
    """A cell: the value of a node is the sum of what its edges make of earlier nodes."""

    def __init__(self, operations: Mapping[tuple[int, int], str], inputs: int, outputs: int) -> None:
        super().__init__()
        self.edges = nn.ModuleDict(
            {
                f"edge_{source}_{node}": _operation_module(name, outputs if source else inputs, outputs)
                for (source, node), name in operations.items()
            }
        )

    def forward(self, x: Tensor) -> Tensor:
        values = [x]
        for node in range(1, NODES):
            value: Tensor = self.edges[f"edge_0_{node}"](x)
            for source in range(1, node):
                value = value + self.edges[f"edge_{source}_{node}"](values[source])
            values.append(value)
        return values[-1]


@attrs.frozen
class Reduction:
    """A residual block of stride 2: two 3x3 convolutions beside an average pooling and a 1x1 convolution."""

    inputs: int
    outputs: int

    @property
    def convs(self) -> tuple[Conv, Conv, Conv]:
        first = relu_conv(self.inputs, self.outputs, 3, 2)
        return first, relu_conv(self.outputs, self.outputs, 3), Conv(self.inputs, self.outputs, norm=False)

    def module(self) -> nn.Module:
        return _ReductionBlock(*(conv.module() for conv in self.convs))

    def cost(self, size: Size) -> Cost:
        first, *others = self.convs
        return first.cost(size) + total(conv.cost(strided(size, 2)) for conv in others)


class _ReductionBlock(nn.Module):
    def __init__(self, conv_a: nn.Module, conv_b: nn.Module, downsample: nn.Module) -> None:
        super().__init__()
        self.conv_a = conv_a
        self.conv_b = conv_b
        self.downsample = nn.Sequential(nn.AvgPool2d(2, stride=2, ceil_mode=True), downsample)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv_b(self.conv_a(x)) + self.downsample(x)
        return out


def _network(stem: Conv, layers: Iterable[nn.Module], channels: int, classifier: Linear) -> nn.Module:
    return nn.Sequential(
        OrderedDict(
            stem=stem.module(),
            layers=nn.Sequential(*layers),
            bn=BatchNorm(channels).module(),
            act=nn.ReLU(),
            pool=GlobalPool(channels).module(),
            flatten=nn.Flatten(),
            classifier=classifier.module(),
        )
    )


@attrs.frozen
class _NASBench201(Family):
    num_classes: int
    size: int
    channels: int
    cells: int

    def __attrs_post_init__(self) -> None:
        arguments = (self.num_classes, self.size, self.channels, self.cells)
        for what, value in zip(("num_classes", "input_size", "channels", "cells"), arguments, strict=True):
            positive(what, value)

    @property
    def name(self) -> str:
        return "nasbench201"

    @property
    def input_size(self) -> Size:
        return self.size, self.size

    def choices(self) -> Iterator[Choice]:
        return (Choice(f"edge_{source}_{node}", OPERATIONS) for source, node in EDGES)

    @property
    def widths(self) -> list[int]:
        """The channels of each stage."""
        return [self.channels * 2**stage for stage in range(STAGES)]

    @property
    def stem(self) -> Conv:
        return Conv(3, self.channels, 3)

    @property
    def classifier(self) -> Linear:
        return Linear(self.widths[-1], self.num_classes)

    def build(self, architecture: dict[str, Any]) -> nn.Module:
        operations = {(source, node): architecture[f"edge_{source}_{node}"] for source, node in EDGES}
        layers: list[nn.Module] = []
        for stage, width in enumerate(self.widths):
            if stage:
                layers.append(Reduction(self.widths[stage - 1], width).module())
            layers.extend(_Cell(operations, width, width) for _ in range(self.cells))
        return _network(self.stem, layers, self.widths[-1], self.classifier)

    def parts(self, size: Size) -> Iterator[Part]:
        places = list(zip(self.widths, itertools.accumulate([2] * (STAGES - 1), strided, initial=size), strict=True))
        width, last = places[-1]
        fixed = [
            Placed(self.stem, size, size),
            *(Placed(Reduction(width, 2 * width), at, size) for width, at in places[:-1]),
            Placed(BatchNorm(width), last, size),
            Placed(GlobalPool(width), last, size),
            Placed(self.classifier, 1, size),
        ]
        yield Part.of((), lambda: fixed)

        def edge(name: str) -> list[Placed]:
            operations = ((_operation(name, width, width), at) for width, at in places)
            return [Placed(layer, at, size) for layer, at in operations if layer] * self.cells

        for source, node in EDGES:
            yield Part.of((f"edge_{source}_{node}",), edge)


@attrs.frozen
class _NATSSize(Family):
    num_classes: int
    size: int
    widths: tuple[int, ...]

    def __attrs_post_init__(self) -> None:
        positive("num_classes", self.num_classes)
        positive("input_size", self.size)
        if not self.widths:
            raise SpaceError("`widths` is empty; give at least one number of channels")
        for width in self.widths:
            positive("widths", width)

    @property
    def name(self) -> str:
        return "nats_size"

    @property
    def input_size(self) -> Size:
        return self.size, self.size

    def choices(self) -> Iterator[Choice]:
        return (Choice(f"layer{number}.width", self.widths) for number in range(2 * STAGES - 1))

    def build(self, architecture: dict[str, Any]) -> nn.Module:
        widths = [architecture[f"layer{number}.width"] for number in range(2 * STAGES - 1)]
        layers: list[nn.Module] = []
        for number, (inputs, outputs) in enumerate(zip(widths[:1] + widths, widths, strict=False)):
            layers.append(Reduction(inputs, outputs).module() if number % 2 else _Cell(NATS_CELL, inputs, outputs))
        return _network(Conv(3, widths[0], 3), layers, widths[-1], Linear(widths[-1], self.num_classes))

    def parts(self, size: Size) -> Iterator[Part]:
        names = [f"layer{number}.width" for number in range(2 * STAGES - 1)]
        image = size
        yield Part.of((names[0],), partial(_nats_start, image))
        for number, scope in enumerate(itertools.pairwise(names), start=1):
            yield Part.of(scope, partial(_reduction if number % 2 else _nats_cell, size, image))
            if number % 2:
                size = strided(size, 2)
        yield Part.of((names[-1],), partial(self._end, size, image))

    def _end(self, size: Size, image: Size, width: int) -> list[Placed]:
        return [
            Placed(BatchNorm(width), size, image),
            Placed(GlobalPool(width), size, image),
            Placed(Linear(width, self.num_classes), 1, image),
        ]


def _nats_start(image: Size, width: int) -> list[Placed]:
    return [Placed(Conv(3, width, 3), image, image), *_nats_cell(image, image, width, width)]


def _reduction(size: Size, image: Size, inputs: int, outputs: int) -> list[Placed]:
    return [Placed(Reduction(inputs, outputs), size, image)]


def _nats_cell(size: Size, image: Size, inputs: int, outputs: int) -> list[Placed]:
    described = (_operation(name, outputs if source else inputs, outputs) for (source, _), name in NATS_CELL.items())
    return [Placed(layer, size, image) for layer in described if layer]
