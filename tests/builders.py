"""Four builders of one kind each, whose costs depend on choices in ways that are easily missed."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from nasmw import Choice, Space

IMAGE = torch.zeros(1, 3, 32, 32)
WIDTHS = (8, 12, 16, 24)


def conv(inputs, outputs, kernel=3, stride=1, groups=1):
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


class Residual(nn.Module):
    def __init__(self, inputs, outputs, kernel, stride, expand):
        super().__init__()
        hidden = inputs * expand
        self.body = nn.Sequential(
            conv(inputs, hidden, 1), conv(hidden, hidden, kernel, stride, hidden), nn.Conv2d(hidden, outputs, 1)
        )
        self.shortcut = stride == 1 and inputs == outputs

    def forward(self, x):
        return x + self.body(x) if self.shortcut else self.body(x)


def build_stages(architecture):
    """A width per stage: the first block of a stage joins two of them."""
    width = architecture["stem"]
    stages = [conv(3, width, stride=2)]
    for stage in range(3):
        blocks = []
        wide = architecture[f"stage{stage}.width"]
        for number in range(architecture[f"stage{stage}.depth"]):
            kernel = architecture[f"stage{stage}.block{number}.kernel"]
            expand = architecture[f"stage{stage}.block{number}.expand"]
            blocks.append(Residual(width, wide, kernel, 1 if number else 2, expand))
            width = wide
        stages.append(nn.Sequential(*blocks))
    return nn.Sequential(*stages, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 10))


def stages_space():
    choices = [Choice("resolution", (24, 32, 40)), Choice("stem", (8, 16))]
    for stage in range(3):
        choices += [Choice(f"stage{stage}.width", WIDTHS), Choice(f"stage{stage}.depth", (1, 2, 3))]
        for number in range(3):
            when = {f"stage{stage}.depth": tuple(range(number + 1, 4))} if number else None
            choices.append(Choice(f"stage{stage}.block{number}.kernel", (3, 5, 7), when))
            choices.append(Choice(f"stage{stage}.block{number}.expand", (1, 2, 3), when))
    return Space(choices, build_stages, name="stages")


class Adapted(nn.Module):
    """A block whose shortcut needs an adapter where widths differ."""

    def __init__(self, inputs, outputs):
        super().__init__()
        self.body = conv(inputs, outputs)
        self.adapter = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()

    def forward(self, x):
        return self.body(x) + self.adapter(x)


class Adapting(nn.Module):
    def __init__(self, architecture):
        super().__init__()
        self.stem = conv(3, 8, stride=2)
        width = 8
        self.stages = nn.ModuleList()
        for stage in range(2):
            blocks = nn.ModuleList()
            for number in range(architecture[f"stage{stage}.depth"]):
                wide = architecture[f"stage{stage}.block{number}.width"]
                blocks.append(Adapted(width, wide))
                width = wide
            self.stages.append(blocks)
        self.head = nn.Linear(width, 10)

    def forward(self, x):
        x = self.stem(x)
        for blocks in self.stages:
            for block in blocks:
                x = block(x)
            x = F.max_pool2d(x, 2)
        return self.head(x.mean((2, 3)))


def build_adapting(architecture):
    """A width per block: what comes before a block depends on which block is the last one before it."""
    return Adapting(architecture)


def adapting_space():
    choices = []
    for stage in range(2):
        choices.append(Choice(f"stage{stage}.depth", (1, 2, 3, 4)))
        for number in range(4):
            when = {f"stage{stage}.depth": tuple(range(number + 1, 5))} if number else None
            choices.append(Choice(f"stage{stage}.block{number}.width", WIDTHS, when))
    return Space(choices, build_adapting, name="adapting")


def build_flat(architecture):
    """One flat Sequential: where a layer stands depends on all choices before it."""
    layers = [nn.Conv2d(3, 16, 3, 2, 1)]
    for block in range(5):
        operator = architecture[f"op{block}"]
        if operator == "none":
            continue
        if operator == "pool":
            layers.append(nn.AvgPool2d(3, 1, 1))
        else:
            for _ in range(architecture[f"repeat{block}"]):
                layers += [nn.Conv2d(16, 16, int(operator), padding=int(operator) // 2), nn.BatchNorm2d(16), nn.SiLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10))


def flat_space():
    choices = []
    for block in range(5):
        choices.append(Choice(f"op{block}", ("none", "pool", "3", "5")))
        choices.append(Choice(f"repeat{block}", (1, 2, 3), {f"op{block}": ("3", "5")}))
    return Space(choices, build_flat, name="flat")


class Attention(nn.Module):
    def __init__(self, width, heads, size):
        super().__init__()
        self.heads, self.size = heads, size
        self.qkv = nn.Linear(width, 3 * heads * size)
        self.out = nn.Linear(heads * size, width)

    def forward(self, x):
        batch, tokens, _ = x.shape
        q, k, v = self.qkv(x).reshape(batch, tokens, 3, self.heads, self.size).permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(q, k, v)
        return self.out(attended.transpose(1, 2).reshape(batch, tokens, -1))


class Encoder(nn.Module):
    def __init__(self, architecture, block):
        super().__init__()
        width = architecture["width"]
        self.attention = Attention(width, architecture[f"block{block}.heads"], 8)
        hidden = width * architecture[f"block{block}.ratio"]
        self.mlp = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))
        self.norm = nn.LayerNorm(width)

    def forward(self, x):
        x = x + self.attention(self.norm(x))
        return x + self.mlp(x)


class Transformer(nn.Module):
    def __init__(self, architecture):
        super().__init__()
        width, patch = architecture["width"], architecture["patch"]
        self.patches = nn.Conv2d(3, width, patch, patch)
        self.token = nn.Parameter(torch.zeros(1, 1, width))
        self.position = nn.Parameter(torch.randn(1, (32 // patch) ** 2 + 1, width))
        self.rates = [rate.item() for rate in torch.linspace(0, 0.1, architecture["depth"])]
        self.blocks = nn.ModuleList(Encoder(architecture, block) for block in range(architecture["depth"]))
        self.head = nn.Linear(width, 10)

    def forward(self, x):
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(len(x), -1, -1), x], dim=1) + self.position
        for block in self.blocks:
            x = block(x)
        return self.head(x[:, 0])


def build_transformer(architecture):
    """A vision transformer; the values of a tensor are asked for while it is built."""
    return Transformer(architecture)


def transformer_space():
    choices = [Choice("width", (16, 24, 32)), Choice("patch", (4, 8)), Choice("depth", (1, 2, 3))]
    for block in range(3):
        when = {"depth": tuple(range(block + 1, 4))} if block else None
        choices += [Choice(f"block{block}.heads", (1, 2, 4), when), Choice(f"block{block}.ratio", (2, 4), when)]
    return Space(choices, build_transformer, name="transformer")


SPACES = {"stages": stages_space, "adapting": adapting_space, "flat": flat_space, "transformer": transformer_space}
