"""The once-for-all space of MobileNetV3 networks, and its coupled subspaces."""

from __future__ import annotations

import itertools
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from functools import cache, partial
from typing import Any, Literal

import attrs
from torch import nn

from nasmw.choice import Choice
from nasmw.errors import SpaceError
from nasmw.space import Space
from nasmw.spaces.family import Family, Part, positive
from nasmw.spaces.layers import Conv, GlobalPool, InvertedResidual, Linear, Placed, Size, divisible, strided

__all__ = ["compofa", "ofa_mobilenetv3"]

BASE_WIDTHS = (16, 16, 24, 40, 80, 112, 160, 960, 1280)
"""Of the stem, the first block, the five stages, the last expansion and the feature mix."""
STRIDES = (2, 2, 2, 1, 2)
ACTIVATIONS = ("relu", "relu", "h_swish", "h_swish", "h_swish")
SQUEEZES = (False, True, False, True, True)
DEPTHS = (2, 3, 4)
KERNELS = (3, 5, 7)
EXPANDS = (3, 4, 6)
RESOLUTIONS = range(128, 225, 4)
COUPLED_EXPANDS = {2: 3, 3: 4, 4: 6}
FIXED_KERNELS = (3, 5, 3, 3, 5)


def ofa_mobilenetv3(width: float = 1.0, resolutions: Iterable[int] = RESOLUTIONS, num_classes: int = 1000) -> Space:
    """Return the once-for-all space of MobileNetV3 networks.

    Five stages of two to four inverted residual blocks, each block with its own kernel and expansion, on images of
    several sizes. Published weights fit: see `load_ofa_weights`.

    Choices, for stages ``s`` from 0 to 4 and blocks ``b`` from 0 to 3:

    - ``resolution``: as given; the networks run on images of any size, the choice says which is meant
    - ``stage{s}.depth``: 2, 3, 4
    - ``stage{s}.block{b}.kernel``: 3, 5, 7, where the depth exceeds ``b``
    - ``stage{s}.block{b}.expand``: 3, 4, 6, likewise

    Size: 7371^5 = 2.18e19 networks per resolution, (9^2 + 9^3 + 9^4) of each stage; 5.44e20 with the 25 resolutions.

    Source: Cai, Gan, Wang, Zhang, Han, Once-for-All: Train One Network and Specialize it for Efficient Deployment,
    ICLR 2020, section 4.1 and appendix A; the backbone is MobileNetV3-Large (Howard et al., Searching for MobileNetV3,
    ICCV 2019, table 1).

    Args:
        width: Multiplies all channels, which are then rounded to multiples of 8; weights are published for 1.0 and 1.2.
        resolutions: Heights (and widths) of the images.
        num_classes: Outputs of the classifier.

    Raises:
        SpaceError: If an argument is not positive, or there is no resolution.

    Example:
        >>> space = ofa_mobilenetv3(width=1.2, resolutions=range(160, 225, 16))
        >>> space.size == 5 * 7371**5
        True
        >>> macs = space.tables["macs"](space, None)
        >>> macs.bounds().low, macs.bounds().low_architecture["resolution"]
        (100320888.0, 160)
    """
    return _OnceForAll(width, _resolutions(resolutions), num_classes).space()


def compofa(
    kernel: Literal["fixed", "elastic"] = "fixed",
    width: float = 1.0,
    resolutions: Iterable[int] = RESOLUTIONS,
    num_classes: int = 1000,
) -> Space:
    """Return the once-for-all space in which a stage's depth and expansion are coupled.

    A stage of depth 2, 3 or 4 has the expansion 3, 4 or 6 in all its blocks. Networks are those of `ofa_mobilenetv3`.

    Choices, for stages ``s`` from 0 to 4 and blocks ``b`` from 0 to 3:

    - ``resolution``: as given
    - ``stage{s}.depth``: 2, 3, 4
    - ``stage{s}.block{b}.kernel``: 3, 5, 7, where the depth exceeds ``b``; only with elastic kernels. Fixed ones are
      3, 5, 3, 3, 5 by stage.

    Size: 3^5 = 243 networks per resolution with fixed kernels, (3^2 + 3^3 + 3^4)^5 = 117^5 = 2.19e10 with elastic ones.

    Source: Sahni, Varshini, Khare, Tumanov, CompOFA: Compound Once-for-All Networks for Faster Multi-Platform
    Deployment, ICLR 2021, section 3.

    Args:
        kernel: ``"fixed"`` or ``"elastic"``.
        width: As for `ofa_mobilenetv3`.
        resolutions: As for `ofa_mobilenetv3`.
        num_classes: As for `ofa_mobilenetv3`.

    Raises:
        SpaceError: If an argument is not positive, there is no resolution, or `kernel` is another word.

    Example:
        >>> compofa(resolutions=[224]).size
        243
    """
    if kernel not in ("fixed", "elastic"):
        raise SpaceError(f"`kernel` must be 'fixed' or 'elastic', got {kernel!r}")
    return _CompOFA(width, _resolutions(resolutions), num_classes, elastic=kernel == "elastic").space()


def _resolutions(values: Iterable[int]) -> tuple[int, ...]:
    resolutions = tuple(values)
    if not resolutions:
        raise SpaceError("`resolutions` is empty; give at least one height in pixels")
    for value in resolutions:
        positive("resolutions", value)
    return resolutions


@cache
def _widths(width: float) -> tuple[int, ...]:
    return tuple(divisible(base * width) for base in BASE_WIDTHS)


@cache
def _sizes(resolution: int) -> tuple[Size, ...]:
    """Return the size of the feature map before each stage, and after the last one."""
    return tuple(itertools.accumulate(STRIDES, strided, initial=strided((resolution, resolution), 2)))


@attrs.frozen
class _OnceForAll(Family):
    width: float
    resolutions: tuple[int, ...]
    num_classes: int

    def __attrs_post_init__(self) -> None:
        if not self.width > 0:
            raise SpaceError(f"`width` must be positive, got {self.width!r}")
        positive("num_classes", self.num_classes)

    @property
    def name(self) -> str:
        return f"ofa_mobilenetv3_w{self.width:g}"

    @property
    def input_size(self) -> Size:
        return max(self.resolutions), max(self.resolutions)

    @property
    def widths(self) -> tuple[int, ...]:
        return _widths(self.width)

    def choices(self) -> Iterator[Choice]:
        yield Choice("resolution", self.resolutions)
        for stage in range(len(STRIDES)):
            yield Choice(f"stage{stage}.depth", DEPTHS)
            for number in range(max(DEPTHS)):
                deeper = tuple(depth for depth in DEPTHS if depth > number)
                when = {} if deeper == DEPTHS else {f"stage{stage}.depth": deeper}
                for choice, options in self.decisions(stage, number).items():
                    yield Choice(choice, options, when)

    def decisions(self, stage: int, number: int) -> dict[str, tuple[int, ...]]:
        """Return the names and options of what is chosen for one block."""
        block = f"stage{stage}.block{number}"
        return {f"{block}.kernel": KERNELS, f"{block}.expand": EXPANDS}

    def setting(self, stage: int, depth: int, *chosen: int) -> tuple[int, int]:
        """Return the kernel and expansion of a block of a stage of some depth, from what was chosen for it."""
        kernel, expand = chosen
        return kernel, expand

    def block(self, stage: int, number: int, kernel: int, expand: int) -> InvertedResidual:
        """Describe one block."""
        inputs, outputs = self.widths[stage + 1 : stage + 3]
        if number:
            inputs = outputs
        return InvertedResidual(
            inputs,
            outputs,
            inputs * expand,
            kernel,
            1 if number else STRIDES[stage],
            ACTIVATIONS[stage],
            SQUEEZES[stage],
        )

    @property
    def first_conv(self) -> Conv:
        return Conv(3, self.widths[0], 3, 2, activation="h_swish")

    @property
    def first_block(self) -> InvertedResidual:
        return InvertedResidual(self.widths[0], self.widths[1], self.widths[0], 3, expand=False)

    @property
    def final_expand_layer(self) -> Conv:
        return Conv(self.widths[-3], self.widths[-2], activation="h_swish")

    @property
    def pool(self) -> GlobalPool:
        return GlobalPool(self.widths[-2])

    @property
    def feature_mix_layer(self) -> Conv:
        return Conv(self.widths[-2], self.widths[-1], norm=False, activation="h_swish")

    @property
    def classifier(self) -> Linear:
        return Linear(self.widths[-1], self.num_classes)

    def build(self, architecture: dict[str, Any]) -> nn.Module:
        stages = []
        for stage in range(len(STRIDES)):
            depth = architecture[f"stage{stage}.depth"]
            blocks = []
            for number in range(depth):
                chosen = [architecture[name] for name in self.decisions(stage, number)]
                blocks.append(self.block(stage, number, *self.setting(stage, depth, *chosen)).module())
            stages.append(nn.Sequential(*blocks))
        return nn.Sequential(
            OrderedDict(
                first_conv=self.first_conv.module(),
                first_block=self.first_block.module(),
                stages=nn.Sequential(*stages),
                final_expand_layer=self.final_expand_layer.module(),
                pool=self.pool.module(),
                feature_mix_layer=self.feature_mix_layer.module(),
                flatten=nn.Flatten(),
                classifier=self.classifier.module(),
            )
        )

    def parts(self, size: Size) -> Iterator[Part]:
        yield Part.of(("resolution",), self.end_layers)
        for stage, number in itertools.product(range(len(STRIDES)), range(max(DEPTHS))):
            scope = ("resolution", f"stage{stage}.depth", *self.decisions(stage, number))
            yield Part.of(scope, partial(self.block_layers, stage, number))

    def block_layers(self, stage: int, number: int, resolution: int, depth: int, *chosen: int) -> list[Placed]:
        """Return a block where it is, nothing where the stage is not that deep."""
        if depth <= number:
            return []
        block = self.block(stage, number, *self.setting(stage, depth, *chosen))
        return [Placed(block, _sizes(resolution)[stage + bool(number)], (resolution, resolution))]

    def end_layers(self, resolution: int) -> list[Placed]:
        """Return what comes before and after the stages."""
        image = resolution, resolution
        sizes = _sizes(resolution)
        return [
            Placed(self.first_conv, image, image),
            Placed(self.first_block, sizes[0], image),
            Placed(self.final_expand_layer, sizes[-1], image),
            Placed(self.pool, sizes[-1], image),
            Placed(self.feature_mix_layer, (1, 1), image),
            Placed(self.classifier, 1, image),
        ]


@attrs.frozen
class _CompOFA(_OnceForAll):
    elastic: bool = attrs.field(kw_only=True)

    @property
    def name(self) -> str:
        return f"compofa_{'elastic' if self.elastic else 'fixed'}_w{self.width:g}"

    def decisions(self, stage: int, number: int) -> dict[str, tuple[int, ...]]:
        return {f"stage{stage}.block{number}.kernel": KERNELS} if self.elastic else {}

    def setting(self, stage: int, depth: int, *chosen: int) -> tuple[int, int]:
        kernel = chosen[0] if self.elastic else FIXED_KERNELS[stage]
        return kernel, COUPLED_EXPANDS[depth]
