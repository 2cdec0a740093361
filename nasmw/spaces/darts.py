"""The cell space of DARTS."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import attrs
import torch
from torch import Tensor, nn

from nasmw.choice import Choice
from nasmw.errors import SpaceError, did_you_mean
from nasmw.space import Space
from nasmw.spaces.family import Family, Part, positive
from nasmw.spaces.layers import Conv, Cost, GlobalPool, Linear, Placed, Size, strided

__all__ = ["darts"]

OPERATORS = (
    "max_pool_3x3",
    "avg_pool_3x3",
    "skip_connect",
    "sep_conv_3x3",
    "sep_conv_5x5",
    "dil_conv_3x3",
    "dil_conv_5x5",
)
INPUTS = 2
NODES = 4
STEM_MULTIPLIER = 3


def darts(
    num_classes: int = 10,
    input_size: int = 32,
    cells: int = 20,
    channels: int = 36,
    operators: Sequence[str] = OPERATORS,
) -> Space:
    """Return the space of DARTS on images of the size of CIFAR's.

    Two kinds of cells are chosen: normal ones, and reduction ones of stride 2 at one and two thirds of the depth. Each
    has two inputs (numbers 0 and 1, the outputs of the two cells before) and four nodes (2 to 5). Each node adds up two
    operators on two different inputs or earlier nodes; the output is all nodes, concatenated. Networks are those that
    are trained after the search, without the auxiliary classifier and without dropped paths.

    Choices, for each ``cell`` of ``"normal"`` and ``"reduce"`` and for nodes ``i`` from 2 to 5:

    - ``{cell}.node{i}.inputs``: an unordered pair of what the node reads, ``(0, 1)`` to ``(i - 2, i - 1)``; node 2 has
      one pair only, hence no such choice
    - ``{cell}.node{i}.op0``, ``{cell}.node{i}.op1``: the operators on the first and the second of the pair

    Operators: ``"max_pool_3x3"``, ``"avg_pool_3x3"``, ``"skip_connect"``, ``"sep_conv_3x3"``, ``"sep_conv_5x5"``,
    ``"dil_conv_3x3"``, ``"dil_conv_5x5"``.

    Size: (1 · 3 · 6 · 10 · 7^8)^2 = 1.08e18.

    Source: Liu, Simonyan, Yang, DARTS: Differentiable Architecture Search, ICLR 2019, sections 2.1 and 3.1, appendix A.

    Args:
        num_classes: Outputs of the classifier.
        input_size: Height and width of the images.
        cells: The number of cells.
        channels: Channels of the first cell's nodes; reduction cells double them.
        operators: The operators to choose from.

    Raises:
        SpaceError: If a number is not positive, `channels` is odd, or an operator is unknown.

    Example:
        >>> darts().size == (180 * 7**8) ** 2
        True
    """
    for operator in operators:
        if operator not in OPERATORS:
            raise SpaceError(f"DARTS has no operator {operator!r}{did_you_mean(operator, OPERATORS)}")
    positive("channels", channels)
    if channels % 2:
        raise SpaceError(f"`channels` must be even, since a reducing skip makes them of two halves; got {channels}")
    return _DARTS(num_classes, input_size, cells, channels, tuple(operators)).space()


@attrs.frozen
class FactorizedReduction:
    """ReLU, two 1x1 convolutions of stride 2 on grids shifted by one pixel, concatenation and batch norm."""

    inputs: int
    outputs: int

    @property
    def half(self) -> Conv:
        return Conv(self.inputs, self.outputs // 2, stride=2, norm=False)

    def module(self) -> nn.Module:
        return _ReductionModule(self.half, self.outputs)

    def cost(self, size: Size) -> Cost:
        return self.half.cost(size) + self.half.cost(size) + Cost(params=2 * self.outputs)


@attrs.frozen
class Pool:
    """The greatest value of windows of 3x3, or their mean, those at the border over fewer; it has no cost."""

    channels: int
    kind: str
    stride: int

    def module(self) -> nn.Module:
        if self.kind == "max":
            return nn.MaxPool2d(3, stride=self.stride, padding=1)
        return nn.AvgPool2d(3, stride=self.stride, padding=1, count_include_pad=False)

    def cost(self, size: Size) -> Cost:
        return Cost()


class _ReductionModule(nn.Module):
    def __init__(self, half: Conv, outputs: int) -> None:
        super().__init__()
        self.act = nn.ReLU()
        self.conv_1 = half.module()
        self.conv_2 = half.module()
        self.bn = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(x)
        shifted = nn.functional.pad(x[:, :, 1:, 1:], (0, 1, 0, 1))
        out: Tensor = self.bn(torch.cat([self.conv_1(x), self.conv_2(shifted)], dim=1))
        return out


def _layers(operator: str, channels: int, stride: int) -> list[Conv | FactorizedReduction | Pool]:
    """Describe an operator by its layers; none for a skip of stride 1."""
    if operator == "skip_connect":
        return [FactorizedReduction(channels, channels)] if stride > 1 else []
    if "pool" in operator:
        return [Pool(channels, operator[:3], stride)]
    kernel = int(operator[-1])
    dilation = 2 if operator.startswith("dil") else 1
    layers: list[Conv | FactorizedReduction | Pool] = []
    for each in (stride,) if dilation > 1 else (stride, 1):
        layers.append(_relu_conv(channels, channels, kernel, each, channels, dilation, norm=False))
        layers.append(Conv(channels, channels))
    return layers


def _relu_conv(
    inputs: int, outputs: int, kernel: int = 1, stride: int = 1, groups: int = 1, dilation: int = 1, norm: bool = True
) -> Conv:
    return Conv(inputs, outputs, kernel, stride, groups, dilation, norm=norm, activation="relu", preactivated=True)


def _operator(operator: str, channels: int, stride: int) -> nn.Module:
    if "pool" in operator:
        (pool,) = _layers(operator, channels, stride)
        return pool.module()
    return nn.Sequential(*(layer.module() for layer in _layers(operator, channels, stride)))


@attrs.frozen
class _Place:
    """A cell's place in the network.

    Attributes:
        reduction: Whether it is a reduction cell.
        after_reduction: Whether the cell before is one.
        channels: Of each of its nodes.
        inputs: Channels of its two inputs, the older one first.
        sizes: Their sizes.
    """

    reduction: bool
    after_reduction: bool
    channels: int
    inputs: tuple[int, int]
    sizes: tuple[Size, Size]

    @property
    def preparations(self) -> tuple[Conv | FactorizedReduction, Conv]:
        """What brings both inputs to the cell's channels and to the size of the second."""
        older, newer = self.inputs
        second = _relu_conv(newer, self.channels)
        if self.after_reduction:
            return FactorizedReduction(older, self.channels), second
        return _relu_conv(older, self.channels), second

    def stride(self, source: int) -> int:
        """Return the stride of an operator on an input or node."""
        return 2 if self.reduction and source < INPUTS else 1


class _Node(nn.Module):
    """Adds up two operators on two of the values before it."""

    def __init__(self, place: _Place, pair: tuple[int, int], operators: Sequence[str]) -> None:
        super().__init__()
        self.pair = pair
        self.op0, self.op1 = (
            _operator(operator, place.channels, place.stride(source))
            for source, operator in zip(pair, operators, strict=True)
        )

    def forward(self, values: list[Tensor]) -> Tensor:
        first, second = self.pair
        out: Tensor = self.op0(values[first]) + self.op1(values[second])
        return out


class _Cell(nn.Module):
    def __init__(self, place: _Place, nodes: Sequence[_Node]) -> None:
        super().__init__()
        self.prepare = nn.ModuleList(layer.module() for layer in place.preparations)
        self.nodes = nn.ModuleList(nodes)

    def forward(self, older: Tensor, newer: Tensor) -> Tensor:
        values = [prepare(x) for prepare, x in zip(self.prepare, (older, newer), strict=True)]
        for node in self.nodes:
            values.append(node(values))
        return torch.cat(values[INPUTS:], dim=1)


class _Network(nn.Module):
    def __init__(self, stem: nn.Module, cells: Sequence[nn.Module], classifier: nn.Module) -> None:
        super().__init__()
        self.stem = stem
        self.cells = nn.ModuleList(cells)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = classifier

    def forward(self, x: Tensor) -> Tensor:
        older = newer = self.stem(x)
        for cell in self.cells:
            older, newer = newer, cell(older, newer)
        scores: Tensor = self.classifier(self.pool(newer).flatten(1))
        return scores


@attrs.frozen
class _DARTS(Family):
    num_classes: int
    size: int
    cells: int
    channels: int
    operators: tuple[str, ...]

    def __attrs_post_init__(self) -> None:
        positive("num_classes", self.num_classes)
        positive("input_size", self.size)
        positive("cells", self.cells)

    @property
    def name(self) -> str:
        return "darts"

    @property
    def input_size(self) -> Size:
        return self.size, self.size

    def choices(self) -> Iterator[Choice]:
        for cell, node in itertools.product(("normal", "reduce"), range(INPUTS, INPUTS + NODES)):
            if len(self.pairs(node)) > 1:
                yield Choice(f"{cell}.node{node}.inputs", self.pairs(node))
            for number in range(2):
                yield Choice(f"{cell}.node{node}.op{number}", self.operators)

    def pairs(self, node: int) -> tuple[tuple[int, int], ...]:
        """Return the pairs of what a node can read."""
        return tuple(itertools.combinations(range(node), 2))

    @property
    def stem(self) -> Conv:
        return Conv(3, STEM_MULTIPLIER * self.channels, 3)

    def places(self, size: Size) -> Iterator[_Place]:
        """Yield the place of each cell."""
        channels = self.channels
        inputs = (self.stem.outputs, self.stem.outputs)
        sizes = (size, size)
        reduction = False
        for number in range(self.cells):
            before, reduction = reduction, number in (self.cells // 3, 2 * self.cells // 3)
            channels *= 1 + reduction
            yield _Place(reduction, before, channels, inputs, sizes)
            inputs = (inputs[1], NODES * channels)
            sizes = (sizes[1], strided(sizes[1], 1 + reduction))

    def classifier(self, size: Size) -> Linear:
        *_, last = self.places(size)
        return Linear(NODES * last.channels, self.num_classes)

    def build(self, architecture: dict[str, Any]) -> nn.Module:
        cells = []
        for place in self.places(self.input_size):
            kind = "reduce" if place.reduction else "normal"
            nodes = []
            for node in range(INPUTS, INPUTS + NODES):
                pair = architecture.get(f"{kind}.node{node}.inputs", self.pairs(node)[0])
                operators = [architecture[f"{kind}.node{node}.op{number}"] for number in range(2)]
                nodes.append(_Node(place, pair, operators))
            cells.append(_Cell(place, nodes))
        return _Network(self.stem.module(), cells, self.classifier(self.input_size).module())

    def parts(self, size: Size) -> Iterator[Part]:
        places = list(self.places(size))
        classifier = self.classifier(size)
        last = strided(places[-1].sizes[1], 1 + places[-1].reduction)
        fixed = [
            Placed(self.stem, size, size),
            *(Placed(layer, at, size) for p in places for layer, at in zip(p.preparations, p.sizes, strict=True)),
            Placed(GlobalPool(classifier.inputs), last, size),
            Placed(classifier, 1, size),
        ]
        yield Part.of((), lambda: fixed)
        for kind, node in itertools.product(("normal", "reduce"), range(INPUTS, INPUTS + NODES)):
            own = [place for place in places if place.reduction == (kind == "reduce")]
            for number in range(2):
                scope: tuple[str, ...] = (f"{kind}.node{node}.op{number}",)
                layers = partial(self.edge_layers, size, own, number)
                if len(self.pairs(node)) > 1:
                    yield Part.of((f"{kind}.node{node}.inputs", *scope), layers)
                else:
                    yield Part.of(scope, partial(layers, self.pairs(node)[0]))

    def edge_layers(
        self, image: Size, places: list[_Place], number: int, pair: tuple[int, int], operator: str
    ) -> list[Placed]:
        """Return the layers of an operator in all cells of a kind."""
        source = pair[number]
        return [placed for place in places for placed in self.operator_layers(image, place, source, operator)]

    def operator_layers(self, image: Size, place: _Place, source: int, operator: str) -> list[Placed]:
        """Return the layers of an operator in one cell."""
        stride = place.stride(source)
        size = place.sizes[1] if source < INPUTS else strided(place.sizes[1], 1 + place.reduction)
        return [
            Placed(layer, strided(size, stride) if number else size, image)
            for number, layer in enumerate(_layers(operator, place.channels, stride))
        ]
