"""Mobile networks in which every layer is one of a few operators: FBNet and ProxylessNAS."""

from __future__ import annotations

from abc import abstractmethod
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import attrs
from torch import nn

from nasmw.choice import Choice
from nasmw.errors import SpaceError
from nasmw.space import Space
from nasmw.spaces.family import Family, Part, positive
from nasmw.spaces.layers import Conv, GlobalPool, InvertedResidual, Linear, Placed, Size, strided

__all__ = ["fbnet", "proxylessnas"]

FBNET_OPERATORS = {
    "k3_e1": (3, 1, 1),
    "k3_e1_g2": (3, 1, 2),
    "k3_e3": (3, 3, 1),
    "k3_e6": (3, 6, 1),
    "k5_e1": (5, 1, 1),
    "k5_e1_g2": (5, 1, 2),
    "k5_e3": (5, 3, 1),
    "k5_e6": (5, 6, 1),
}
"""Kernel, expansion and groups of the 1x1 convolutions."""
FBNET_STAGES = ((16, 1), (24, 4), (32, 4), (64, 4), (112, 4), (184, 4), (352, 1))
"""Channels and layers."""
FBNET_STRIDES = (2, 1, 2, 2, 2, 1, 2, 1)
"""Of the first convolution, then of the first layer of each stage."""
PROXYLESS_OPERATORS = {f"k{kernel}_e{expand}": (kernel, expand, 1) for expand in (3, 6) for kernel in (3, 5, 7)}
PROXYLESS_WIDTHS = (24, 40, 80, 96, 192, 320)
PROXYLESS_STAGES = ((4, 2), (4, 2), (4, 2), (4, 1), (4, 2), (1, 1))
"""Layers and the stride of the first one."""
SKIP = "skip"


def fbnet(
    num_classes: int = 1000, input_size: int = 224, head: int = 1984, strides: Sequence[int] = FBNET_STRIDES
) -> Space:
    """Return the space of FBNet: 22 layers, each one of nine operators.

    Operators are inverted residual blocks with ReLU, always with a 1x1 convolution first; ``g2`` means grouped 1x1
    convolutions with a channel shuffle after the first. ``"skip"`` passes its input on; in a layer that changes size or
    channels it is a 1x1 convolution of the layer's stride with batch norm and ReLU.

    Choices: ``layer{i}.op`` for ``i`` from 0 to 21, each ``"k3_e1"``, ``"k3_e1_g2"``, ``"k3_e3"``, ``"k3_e6"``,
    ``"k5_e1"``, ``"k5_e1_g2"``, ``"k5_e3"``, ``"k5_e6"`` (kernel and expansion) or ``"skip"``.

    Size: 9^22 = 9.85e20.

    Source: Wu et al., FBNet: Hardware-Aware Efficient ConvNet Design via Differentiable Neural Architecture Search,
    CVPR 2019, tables 1 and 2.

    Args:
        num_classes: Outputs of the classifier.
        input_size: Height and width of the images.
        head: Channels of the last 1x1 convolution.
        strides: Of the first convolution, then of the first layer of each of the seven stages. HW-NAS-Bench measures
            images of 32 pixels with ``(1, 1, 1, 2, 2, 1, 2, 1)``, 100 classes and a head of 1504.

    Raises:
        SpaceError: If an argument is not a positive whole number, or there are not eight strides.

    Example:
        >>> fbnet().size == 9**22
        True
    """
    positive("head", head)
    if len(strides) != len(FBNET_STRIDES):
        raise SpaceError(f"FBNet has {len(FBNET_STRIDES)} strides, got {len(strides)}: {list(strides)}")
    for stride in strides:
        positive("strides", stride)
    slots: list[_Slot] = []
    inputs = FBNET_STAGES[0][0]
    for (outputs, layers), stride in zip(FBNET_STAGES, strides[1:], strict=True):
        for number in range(layers):
            options = (*FBNET_OPERATORS, SKIP)
            slots.append(_Slot(f"layer{len(slots)}.op", inputs, outputs, 1 if number else stride, options))
            inputs = outputs
    return _FBNet(tuple(slots), head, num_classes, input_size, strides[0]).space()


def proxylessnas(
    num_classes: int = 1000, input_size: int = 224, widths: Sequence[int] = PROXYLESS_WIDTHS, head: int = 1280
) -> Space:
    """Return the space of ProxylessNAS: 21 layers, each one of six operators, or left out.

    Operators are inverted residual blocks with ReLU6. The first layer of a stage cannot be left out.

    Choices: ``stage{s}.block{b}.op`` for stages ``s`` from 0 to 5 and blocks ``b`` from 0 to 3 (stage 5 has block 0
    only), each ``"k3_e3"``, ``"k5_e3"``, ``"k7_e3"``, ``"k3_e6"``, ``"k5_e6"`` or ``"k7_e6"`` (kernel and expansion),
    and ``"skip"`` in blocks 1 to 3.

    Size: 6^6 7^15 = 2.22e17.

    Source: Cai, Zhu, Han, ProxylessNAS: Direct Neural Architecture Search on Target Task and Hardware, ICLR 2019,
    section 4.2.

    Args:
        num_classes: Outputs of the classifier.
        input_size: Height and width of the images.
        widths: Channels of the six stages; the published network for mobile phones has 32, 40, 80, 96, 192, 320.
        head: Channels of the last 1x1 convolution.

    Raises:
        SpaceError: If an argument is not positive, or there are not six widths.

    Example:
        >>> proxylessnas().size == 6**6 * 7**15
        True
    """
    positive("head", head)
    if len(widths) != len(PROXYLESS_STAGES):
        raise SpaceError(f"`widths` needs {len(PROXYLESS_STAGES)} numbers of channels, one per stage, got {widths!r}")
    slots: list[_Slot] = []
    inputs = _ProxylessNAS.first_block.outputs
    for stage, (outputs, (layers, stride)) in enumerate(zip(widths, PROXYLESS_STAGES, strict=True)):
        positive("widths", outputs)
        for number in range(layers):
            options = (*PROXYLESS_OPERATORS, SKIP) if number else tuple(PROXYLESS_OPERATORS)
            slots.append(_Slot(f"stage{stage}.block{number}.op", inputs, outputs, 1 if number else stride, options))
            inputs = outputs
    return _ProxylessNAS(tuple(slots), head, num_classes, input_size).space()


@attrs.frozen
class _Slot:
    """A layer to be chosen."""

    choice: str
    inputs: int
    outputs: int
    stride: int
    options: tuple[str, ...]


@attrs.frozen
class _Layerwise(Family):
    slots: tuple[_Slot, ...]
    head: int
    num_classes: int
    size: int

    def __attrs_post_init__(self) -> None:
        positive("num_classes", self.num_classes)
        positive("input_size", self.size)

    @property
    def input_size(self) -> Size:
        return self.size, self.size

    def choices(self) -> Iterator[Choice]:
        return (Choice(slot.choice, slot.options) for slot in self.slots)

    @property
    @abstractmethod
    def start(self) -> tuple[Conv | InvertedResidual, ...]:
        """The layers before the first slot."""

    @property
    @abstractmethod
    def activation(self) -> str:
        """The activation of all layers."""

    @abstractmethod
    def setting(self, operator: str) -> tuple[int, int, int]:
        """Return kernel, expansion and groups of an operator."""

    def layer(self, slot: _Slot, operator: str) -> Conv | InvertedResidual | None:
        """Describe a layer; None where it passes its input on."""
        if operator != SKIP:
            kernel, expand, groups = self.setting(operator)
            hidden = slot.inputs * expand
            return InvertedResidual(
                slot.inputs, slot.outputs, hidden, kernel, slot.stride, self.activation, groups=groups
            )
        if slot.stride == 1 and slot.inputs == slot.outputs:
            return None
        return Conv(slot.inputs, slot.outputs, stride=slot.stride, activation=self.activation)

    @property
    def end(self) -> Conv:
        return Conv(self.slots[-1].outputs, self.head, activation=self.activation)

    @property
    def pool(self) -> GlobalPool:
        return GlobalPool(self.head)

    @property
    def classifier(self) -> Linear:
        return Linear(self.head, self.num_classes)

    def build(self, architecture: dict[str, Any]) -> nn.Module:
        layers = (self.layer(slot, architecture[slot.choice]) for slot in self.slots)
        return nn.Sequential(
            OrderedDict(
                start=nn.Sequential(*(layer.module() for layer in self.start)),
                layers=nn.Sequential(*(layer.module() if layer else nn.Identity() for layer in layers)),
                end=self.end.module(),
                pool=self.pool.module(),
                flatten=nn.Flatten(),
                classifier=self.classifier.module(),
            )
        )

    def parts(self, size: Size) -> Iterator[Part]:
        image = size
        fixed = []
        for layer in self.start:
            fixed.append(Placed(layer, size, image))
            size = strided(size, layer.stride)
        for slot in self.slots:
            yield Part.of((slot.choice,), partial(self.slot_layers, slot, size, image))
            size = strided(size, slot.stride)
        fixed += [Placed(self.end, size, image), Placed(self.pool, size, image), Placed(self.classifier, 1, image)]
        yield Part.of((), lambda: fixed)

    def slot_layers(self, slot: _Slot, size: Size, image: Size, operator: str) -> list[Placed]:
        """Return an operator where it is, nothing where it passes its input on."""
        layer = self.layer(slot, operator)
        return [Placed(layer, size, image)] if layer else []


@attrs.frozen
class _FBNet(_Layerwise):
    name = "fbnet"
    activation = "relu"
    first_stride: int

    @property
    def start(self) -> tuple[Conv, ...]:
        return (Conv(3, FBNET_STAGES[0][0], 3, self.first_stride, activation="relu"),)

    def setting(self, operator: str) -> tuple[int, int, int]:
        return FBNET_OPERATORS[operator]


class _ProxylessNAS(_Layerwise):
    name = "proxylessnas"
    activation = "relu6"
    first_block = InvertedResidual(32, 16, 32, 3, activation="relu6", expand=False)
    start = (Conv(3, 32, 3, 2, activation="relu6"), first_block)

    def setting(self, operator: str) -> tuple[int, int, int]:
        return PROXYLESS_OPERATORS[operator]
