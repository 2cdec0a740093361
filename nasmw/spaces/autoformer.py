"""The space of vision transformers of AutoFormer."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Literal

import attrs
import torch
from torch import Tensor, nn

from nasmw.choice import Choice
from nasmw.errors import SpaceError, did_you_mean
from nasmw.space import Space
from nasmw.spaces.family import Family, Part, positive
from nasmw.spaces.layers import Cost, Layer, Linear, Placed, Size, total

__all__ = ["autoformer"]

PATCH = 16
HEAD_CHANNELS = 64


@attrs.frozen
class _Preset:
    embeddings: tuple[int, ...]
    heads: tuple[int, ...]
    depths: tuple[int, ...]
    ratios: tuple[float, ...] = (3.0, 3.5, 4.0)


PRESETS = {
    "tiny": _Preset((192, 216, 240), (3, 4), (12, 13, 14)),
    "small": _Preset((320, 384, 448), (5, 6, 7), (12, 13, 14)),
    "base": _Preset((528, 576, 624), (8, 9, 10), (14, 15, 16)),
}


def autoformer(
    preset: Literal["tiny", "small", "base"] = "tiny", num_classes: int = 1000, input_size: int = 224
) -> Space:
    """Return a space of vision transformers, as AutoFormer searches them.

    Patches of 16 pixels, a class token and learned positions; blocks of attention, with 64 channels a head and learned
    relative positions for keys and values, and of two linear layers with GELU, with layer norm before each; a
    classifier on the mean over the patches.

    Choices, for blocks ``i`` from 0 to the greatest depth less one:

    - ``embed_dim``: 192, 216, 240 (tiny); 320, 384, 448 (small); 528, 576, 624 (base)
    - ``depth``: 12, 13, 14 (tiny, small); 14, 15, 16 (base)
    - ``block{i}.num_heads``: 3, 4 (tiny); 5, 6, 7 (small); 8, 9, 10 (base), where the depth exceeds ``i``
    - ``block{i}.mlp_ratio``: 3.0, 3.5, 4.0, likewise; the paper's table has 3.5 and 4.0 for tiny, but its tiny network
      has 3.0 as well

    Size: 2.81e11 (tiny), 7.71e13 (small), 6.25e15 (base).

    Source: Chen, Peng, Fu, Ling, AutoFormer: Searching Transformers for Visual Recognition, ICCV 2021, table 1.
    Relative positions: Shaw, Uszkoreit, Vaswani, Self-Attention with Relative Position Representations, NAACL 2018.

    Args:
        preset: ``"tiny"``, ``"small"`` or ``"base"``.
        num_classes: Outputs of the classifier.
        input_size: Height and width of the images, a multiple of 16. The positions fix it: networks and tables take no
            other size.

    Raises:
        SpaceError: If there is no such preset, a number is not positive, or `input_size` is no multiple of 16.

    Example:
        >>> space = autoformer("tiny")
        >>> space.size == 3 * (6**12 + 6**13 + 6**14)
        True
    """
    if preset not in PRESETS:
        raise SpaceError(f"AutoFormer has no preset {preset!r}{did_you_mean(preset, PRESETS)}")
    positive("input_size", input_size)
    if input_size % PATCH:
        raise SpaceError(f"`input_size` must be a multiple of {PATCH}, the side of a patch, got {input_size}")
    return _AutoFormer(preset, num_classes, input_size).space()


def _relative_positions(side: int) -> Tensor:
    """Return the numbers of vertical and horizontal distances between tokens, ``(2, tokens, tokens)``.

    0 is for the class token; patches at a distance of ``d`` have the number ``side + 1 + d``.
    """
    row, column = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    places = torch.stack([row.flatten(), column.flatten()])
    numbers = places[:, None, :] - places[:, :, None] + side + 1
    return nn.functional.pad(numbers, (1, 0, 1, 0))


class _RelativePosition(nn.Module):
    """Learned vectors for the relative positions of tokens: a sum of a vertical and a horizontal part."""

    def __init__(self, side: int) -> None:
        super().__init__()
        self.vertical = nn.Parameter(torch.empty(2 * side + 2, HEAD_CHANNELS))
        self.horizontal = nn.Parameter(torch.empty(2 * side + 2, HEAD_CHANNELS))
        nn.init.trunc_normal_(self.vertical, std=0.02)
        nn.init.trunc_normal_(self.horizontal, std=0.02)

    def forward(self, numbers: Tensor) -> Tensor:
        return self.vertical[numbers[0]] + self.horizontal[numbers[1]]


class _Attention(nn.Module):
    numbers: Tensor

    def __init__(self, channels: int, heads: int, side: int) -> None:
        super().__init__()
        self.heads = heads
        self.register_buffer("numbers", _relative_positions(side), persistent=False)
        self.query, self.key, self.value = (layer.module() for layer in _projections(channels, heads)[:3])
        self.projection = _projections(channels, heads)[3].module()
        self.relative_key = _RelativePosition(side)
        self.relative_value = _RelativePosition(side)

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, _ = x.shape
        numbers = self.numbers
        query, key, value = (
            layer(x).view(batch, tokens, self.heads, HEAD_CHANNELS).transpose(1, 2)
            for layer in (self.query, self.key, self.value)
        )
        # Relative positions belong to a query and a key: one matrix per query, for all images and heads at once.
        queries = query.permute(2, 0, 1, 3).flatten(1, 2)
        relative = (queries @ self.relative_key(numbers).transpose(1, 2)).transpose(0, 1)
        scores = query @ key.transpose(2, 3) + relative.reshape(batch, self.heads, tokens, tokens)
        weights = (scores * HEAD_CHANNELS**-0.5).softmax(dim=-1)
        mixed = weights @ value
        relative = (weights.permute(2, 0, 1, 3).flatten(1, 2) @ self.relative_value(numbers)).transpose(0, 1)
        mixed = mixed + relative.reshape(mixed.shape)
        out: Tensor = self.projection(mixed.transpose(1, 2).flatten(2))
        return out


class _Added(nn.Module):
    """Adds what a module makes of the normalised input to the input."""

    def __init__(self, channels: int, inside: nn.Module) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.inside = inside

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.inside(self.norm(x))
        return out


class _Embed(nn.Module):
    def __init__(self, channels: int, side: int) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, channels, PATCH, stride=PATCH)
        self.class_token = nn.Parameter(torch.empty(1, 1, channels))
        self.positions = nn.Parameter(torch.empty(1, side**2 + 1, channels))
        nn.init.trunc_normal_(self.class_token, std=0.02)
        nn.init.trunc_normal_(self.positions, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        return torch.cat([self.class_token.expand(x.shape[0], -1, -1), x], dim=1) + self.positions


class _Classify(nn.Module):
    def __init__(self, channels: int, classifier: nn.Module) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.classifier = classifier

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.classifier(self.norm(x)[:, 1:].mean(dim=1))
        return scores


class _VisionTransformer(nn.Sequential):
    """The layers of a network, one after the other."""


@attrs.frozen
class Embedding:
    """Patches of RGB images, a class token before them and learned positions.

    Attributes:
        inputs: Channels of the image, 3.
        outputs: Channels of a token.
        side: Patches along one side of the image.
    """

    inputs: int
    outputs: int
    side: int

    def module(self) -> nn.Module:
        """Return the layer."""
        return _Embed(self.outputs, self.side)

    def cost(self, size: Size) -> Cost:
        """Return the cost on an image."""
        patches = self.side**2
        tokens = Cost(params=self.outputs + (patches + 1) * self.outputs)
        return Linear(self.inputs * PATCH**2, self.outputs).cost(patches) + tokens


@attrs.frozen
class Attention:
    """Attention with relative positions after layer norm, added to its input.

    Attributes:
        channels: Of a token.
        heads: Of 64 channels each.
        side: Patches along one side of the image.
    """

    channels: int
    heads: int
    side: int

    def module(self) -> nn.Module:
        """Return the layer."""
        return _Added(self.channels, _Attention(self.channels, self.heads, self.side))

    def cost(self, tokens: int) -> Cost:
        """Return the cost on a number of tokens."""
        # Queries meet keys and relative keys; weights meet values and relative values.
        products = Cost(macs=4 * self.heads * HEAD_CHANNELS * tokens**2)
        norm_and_relative = Cost(params=2 * self.channels + 2 * 2 * (2 * self.side + 2) * HEAD_CHANNELS)
        linear = total(layer.cost(tokens) for layer in _projections(self.channels, self.heads))
        return linear + products + norm_and_relative


@attrs.frozen
class Mlp:
    """Two linear layers with GELU between them after layer norm, added to their input."""

    channels: int
    hidden: int

    @property
    def layers(self) -> tuple[Linear, Linear]:
        """The two linear layers."""
        return Linear(self.channels, self.hidden), Linear(self.hidden, self.channels)

    def module(self) -> nn.Module:
        """Return the layer."""
        first, second = self.layers
        return _Added(self.channels, nn.Sequential(first.module(), nn.GELU(), second.module()))

    def cost(self, tokens: int) -> Cost:
        """Return the cost on a number of tokens."""
        return total(layer.cost(tokens) for layer in self.layers) + Cost(params=2 * self.channels)


@attrs.frozen
class Classifier:
    """Layer norm, the mean over the patches and a linear layer."""

    channels: int
    classes: int

    def module(self) -> nn.Module:
        """Return the layer."""
        return _Classify(self.channels, Linear(self.channels, self.classes).module())

    def cost(self, tokens: int) -> Cost:
        """Return the cost, which does not depend on the number of tokens."""
        return Linear(self.channels, self.classes).cost() + Cost(params=2 * self.channels)


def _projections(channels: int, heads: int) -> list[Linear]:
    """Describe the linear layers of attention: query, key, value and output."""
    inner = heads * HEAD_CHANNELS
    return [Linear(channels, inner)] * 3 + [Linear(inner, channels)]


@attrs.frozen
class _AutoFormer(Family):
    preset: str
    num_classes: int
    size: int

    def __attrs_post_init__(self) -> None:
        positive("num_classes", self.num_classes)

    @property
    def name(self) -> str:
        return f"autoformer_{self.preset}"

    @property
    def input_size(self) -> Size:
        return self.size, self.size

    @property
    def side(self) -> int:
        """Patches along one side of the image."""
        return self.size // PATCH

    def choices(self) -> Iterator[Choice]:
        preset = PRESETS[self.preset]
        yield Choice("embed_dim", preset.embeddings)
        yield Choice("depth", preset.depths)
        for number in range(max(preset.depths)):
            deeper = tuple(depth for depth in preset.depths if depth > number)
            when = {} if deeper == preset.depths else {"depth": deeper}
            yield Choice(f"block{number}.num_heads", preset.heads, when)
            yield Choice(f"block{number}.mlp_ratio", preset.ratios, when)

    def build(self, architecture: dict[str, Any]) -> nn.Module:
        channels = architecture["embed_dim"]
        blocks = [
            nn.Sequential(
                OrderedDict(
                    attention=self.attention(channels, architecture[f"block{i}.num_heads"]).module(),
                    mlp=self.mlp(channels, architecture[f"block{i}.mlp_ratio"]).module(),
                )
            )
            for i in range(architecture["depth"])
        ]
        embedding, classifier = self.ends(channels)
        return _VisionTransformer(
            OrderedDict(embedding=embedding.module(), blocks=nn.Sequential(*blocks), classifier=classifier.module())
        )

    @property
    def tokens(self) -> int:
        """The patches and the class token."""
        return self.side**2 + 1

    def attention(self, channels: int, heads: int) -> Attention:
        """Describe the first half of a block."""
        return Attention(channels, heads, self.side)

    def mlp(self, channels: int, ratio: float) -> Mlp:
        """Describe the second half of a block."""
        return Mlp(channels, int(channels * ratio))

    def ends(self, channels: int) -> tuple[Embedding, Classifier]:
        """Describe what comes before and after the blocks."""
        return Embedding(3, channels, self.side), Classifier(channels, self.num_classes)

    def parts(self, size: Size) -> Iterator[Part]:
        if size != self.input_size:
            raise SpaceError(
                f"networks of {self.name!r} take images of {self.size} x {self.size} only, got {size[0]} x {size[1]}; "
                "give autoformer(input_size=...) another size"
            )
        yield Part.of(("embed_dim",), self.ends_layers)
        for number in range(max(PRESETS[self.preset].depths)):
            for choice, describe in (("num_heads", self.attention), ("mlp_ratio", self.mlp)):
                layers = partial(self.block_layers, describe, number)
                yield Part.of(("depth", "embed_dim", f"block{number}.{choice}"), layers)

    def ends_layers(self, channels: int) -> list[Placed]:
        """Return what comes before and after the blocks, where it is."""
        embedding, classifier = self.ends(channels)
        image = self.input_size
        return [Placed(embedding, image, image), Placed(classifier, self.tokens, image)]

    def block_layers(
        self, describe: Callable[..., Layer], number: int, depth: int, channels: int, chosen: float
    ) -> list[Placed]:
        """Return one half of a block where it is, nothing where the network is not that deep."""
        return [Placed(describe(channels, chosen), self.tokens, self.input_size)] if depth > number else []
