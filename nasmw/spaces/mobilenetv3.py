"""The space of networks like MobileNetV3 in which the channels of each stage are chosen too."""

from __future__ import annotations

import itertools
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
from nasmw.spaces.layers import Conv, GlobalPool, InvertedResidual, Linear, Placed, Size, divisible, strided

__all__ = ["mobilenetv3"]

BASE_WIDTHS = (16, 16, 32, 64, 128, 256, 512, 1024)
MULTIPLIERS = (0.5, 0.625, 0.75, 1.0, 1.25, 1.5, 2.0)
KERNELS = (3, 5, 7)
EXPANDS = (1, 2, 3, 4, 5, 6)
DEPTHS = (1, 2, 3, 4)
STRIDES = (1, 2, 2, 2, 1, 2)
ACTIVATIONS = ("relu", "relu", "relu", "h_swish", "h_swish", "h_swish")
SQUEEZES = (False, False, True, False, True, True)


def mobilenetv3(
    num_classes: int = 1000,
    input_size: int = 224,
    base_widths: Sequence[int] = BASE_WIDTHS,
    multipliers: Sequence[float] = MULTIPLIERS,
    expands: Sequence[float] = EXPANDS,
) -> Space:
    """Return the largest space of TuNAS: MobileNetV3 with searched channels.

    A stem, a separable block (stage 0), five stages of one to four inverted residual blocks, two 1x1 convolutions
    around the global pooling, a classifier. Blocks of expansion 1 have no 1x1 convolution before the depthwise one.

    Choices, for stages ``s`` from 1 to 5 and blocks ``b`` from 0 to 3:

    - ``stem.kernel``: 3, 5
    - ``stage0.width``, ``stage{s}.width``, ``head0.width``, ``head1.width``: the base width times each multiplier,
      rounded to multiples of 8, each number once; the stem has the channels of stage 0
    - ``stage0.kernel``: 3, 5, 7
    - ``stage{s}.depth``: 1, 2, 3, 4
    - ``stage{s}.block{b}.kernel``: 3, 5, 7, where the depth exceeds ``b``
    - ``stage{s}.block{b}.expand``: 1 to 6, likewise
    - ``stage{s}.block{b}.se``: False, True, likewise; in stages 2, 4 and 5 only

    Size: 6.17e35 with the default arguments.

    Source: Bender et al., Can Weight Sharing Outperform Random Architecture Search? An Investigation With TuNAS, CVPR
    2020, section 3 (MobileNetV3-like); the blocks are those of Howard et al., Searching for MobileNetV3, ICCV 2019,
    table 1.

    Args:
        num_classes: Outputs of the classifier.
        input_size: Height and width of the images.
        base_widths: Channels of stages 0 to 5 and of the two 1x1 convolutions of the head.
        multipliers: What the base widths are multiplied by.
        expands: The expansions to choose from; hidden channels are rounded to multiples of 8.

    Raises:
        SpaceError: If an argument is not positive, or there are not eight base widths.

    Example:
        >>> space = mobilenetv3()
        >>> space.choices[space.column("stage1.width")].options
        (8, 16, 24, 32)
    """
    if len(base_widths) != len(STRIDES) + 2:
        raise SpaceError(f"`base_widths` needs {len(STRIDES) + 2} numbers of channels, got {base_widths!r}")
    for what, values in (("base_widths", base_widths), ("multipliers", multipliers), ("expands", expands)):
        if not values or min(values) <= 0:
            raise SpaceError(f"`{what}` must be positive numbers, at least one, got {values!r}")
    widths = tuple(
        tuple(dict.fromkeys(divisible(base * multiplier) for multiplier in multipliers)) for base in base_widths
    )
    return _MobileNetV3(widths, tuple(expands), num_classes, input_size).space()


@attrs.frozen
class _MobileNetV3(Family):
    widths: tuple[tuple[int, ...], ...]
    expands: tuple[float, ...]
    num_classes: int
    size: int

    def __attrs_post_init__(self) -> None:
        positive("num_classes", self.num_classes)
        positive("input_size", self.size)

    @property
    def name(self) -> str:
        return "mobilenetv3"

    @property
    def input_size(self) -> Size:
        return self.size, self.size

    def choices(self) -> Iterator[Choice]:
        yield Choice("stem.kernel", KERNELS[:2])
        yield Choice("stage0.width", self.widths[0])
        yield Choice("stage0.kernel", KERNELS)
        for stage in range(1, len(STRIDES)):
            yield Choice(f"stage{stage}.width", self.widths[stage])
            yield Choice(f"stage{stage}.depth", DEPTHS)
            for number in range(max(DEPTHS)):
                deeper = tuple(depth for depth in DEPTHS if depth > number)
                when = {f"stage{stage}.depth": deeper} if number else {}
                for choice, options in self.decisions(stage, number).items():
                    yield Choice(choice, options, when)
        for number, widths in enumerate(self.widths[len(STRIDES) :]):
            yield Choice(f"head{number}.width", widths)

    def decisions(self, stage: int, number: int) -> dict[str, tuple[Any, ...]]:
        """Return the names and options of what is chosen for one block."""
        block = f"stage{stage}.block{number}"
        decisions: dict[str, tuple[Any, ...]] = {f"{block}.kernel": KERNELS, f"{block}.expand": self.expands}
        if SQUEEZES[stage]:
            decisions[f"{block}.se"] = (False, True)
        return decisions

    def start(self, stem_kernel: int, width: int, kernel: int) -> tuple[Conv, InvertedResidual]:
        """Describe the stem and stage 0."""
        stem = Conv(3, width, stem_kernel, 2, activation="h_swish")
        return stem, InvertedResidual(width, width, width, kernel, STRIDES[0], ACTIVATIONS[0], expand=False)

    def block(
        self, stage: int, number: int, inputs: int, outputs: int, kernel: int, expand: float, squeeze: bool = False
    ) -> InvertedResidual:
        """Describe one block."""
        return InvertedResidual(
            inputs,
            outputs,
            divisible(inputs * expand),
            kernel,
            1 if number else STRIDES[stage],
            ACTIVATIONS[stage],
            squeeze,
            expand != 1,
        )

    def last_conv(self, inputs: int, outputs: int) -> Conv:
        """Describe the convolution before the global pooling."""
        return Conv(inputs, outputs, activation="h_swish")

    def mix(self, inputs: int, outputs: int) -> tuple[Conv, Linear]:
        """Describe the convolution after the global pooling, and the classifier."""
        conv = Conv(inputs, outputs, bias=True, norm=False, activation="h_swish")
        return conv, Linear(outputs, self.num_classes)

    def build(self, architecture: dict[str, Any]) -> nn.Module:
        width = architecture["stage0.width"]
        stem, first = self.start(architecture["stem.kernel"], width, architecture["stage0.kernel"])
        stages: list[nn.Module] = [first.module()]
        for stage in range(1, len(STRIDES)):
            blocks = []
            for number in range(architecture[f"stage{stage}.depth"]):
                chosen = [architecture[name] for name in self.decisions(stage, number)]
                outputs = architecture[f"stage{stage}.width"]
                blocks.append(self.block(stage, number, width, outputs, *chosen).module())
                width = outputs
            stages.append(nn.Sequential(*blocks))
        last_width = architecture["head0.width"]
        mix, classifier = self.mix(last_width, architecture["head1.width"])
        return nn.Sequential(
            OrderedDict(
                stem=stem.module(),
                stages=nn.Sequential(*stages),
                head0=self.last_conv(width, last_width).module(),
                pool=GlobalPool(last_width).module(),
                head1=mix.module(),
                flatten=nn.Flatten(),
                classifier=classifier.module(),
            )
        )

    def parts(self, size: Size) -> Iterator[Part]:
        yield Part.of(("stem.kernel", "stage0.width", "stage0.kernel"), partial(self.start_layers, size))
        sizes = list(itertools.accumulate(STRIDES, strided, initial=strided(size, 2)))
        for stage in range(1, len(STRIDES)):
            width = f"stage{stage}.width"
            first = (f"stage{stage - 1}.width", width, *self.decisions(stage, 0))
            yield Part.of(first, partial(self.first_layers, stage, sizes[stage], size))
            for number in range(1, max(DEPTHS)):
                scope = (f"stage{stage}.depth", width, *self.decisions(stage, number))
                yield Part.of(scope, partial(self.later_layers, stage, number, sizes[stage + 1], size))
        scope = (f"stage{len(STRIDES) - 1}.width", "head0.width")
        yield Part.of(scope, lambda inputs, outputs: [Placed(self.last_conv(inputs, outputs), sizes[-1], size)])
        yield Part.of(("head0.width", "head1.width"), partial(self.end_layers, sizes[-1], size))

    def start_layers(self, image: Size, stem_kernel: int, width: int, kernel: int) -> list[Placed]:
        stem, block = self.start(stem_kernel, width, kernel)
        return [Placed(stem, image, image), Placed(block, strided(image, stem.stride), image)]

    def first_layers(
        self, stage: int, size: Size, image: Size, inputs: int, outputs: int, *chosen: Any
    ) -> list[Placed]:
        return [Placed(self.block(stage, 0, inputs, outputs, *chosen), size, image)]

    def later_layers(
        self, stage: int, number: int, size: Size, image: Size, depth: int, width: int, *chosen: Any
    ) -> list[Placed]:
        return [Placed(self.block(stage, number, width, width, *chosen), size, image)] if depth > number else []

    def end_layers(self, size: Size, image: Size, inputs: int, outputs: int) -> list[Placed]:
        conv, classifier = self.mix(inputs, outputs)
        return [
            Placed(GlobalPool(inputs), size, image),
            Placed(conv, (1, 1), image),
            Placed(classifier, 1, image),
        ]
