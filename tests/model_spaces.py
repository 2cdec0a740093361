"""Model spaces that several test modules look at; at the top level of a module, so that they can be pickled."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from nasmw import nn


class Inverted(nn.Module):
    """An inverted bottleneck whose arguments may be value choices."""

    def __init__(self, inputs: Any, outputs: Any, kernel: Any, expansion: Any) -> None:
        super().__init__()
        hidden = inputs * expansion
        self.expand = nn.Sequential(nn.Conv2d(inputs, hidden, 1, bias=False), nn.BatchNorm2d(hidden), nn.ReLU())
        self.depthwise = nn.Conv2d(hidden, hidden, kernel, padding=kernel // 2, groups=hidden, bias=False)
        self.norm = nn.BatchNorm2d(hidden)
        self.project = nn.Conv2d(hidden, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.project(self.norm(self.depthwise(self.expand(x))))


class Rich(nn.ModelSpace):
    """Kernels, widths, depths, layers within layers: 3 · (...) networks of images."""

    def __init__(self, classes: int = 5) -> None:
        super().__init__()
        width = nn.choice("width", (4, 8))
        self.stem = nn.Conv2d(3, width, 3, stride=2, padding=1)
        self.blocks = nn.Repeat(lambda at: self.block(at, width), (1, 3), label="depth")
        self.norm = nn.GroupNorm(2, width)
        self.act = nn.LayerChoice([nn.ReLU(), nn.SiLU(), nn.Identity()])
        self.head = nn.Linear(width * 4, classes)

    @staticmethod
    def block(at: int, width: Any) -> Any:
        kernel = nn.choice(f"kernel{at}", (3, 5, 7))
        options = {
            "inverted": Inverted(width, width, kernel, nn.choice(f"expansion{at}", (1, 2, 3))),
            "conv": nn.Conv2d(width, width, kernel, padding="same"),
            "pool": nn.MaxPool2d(3, stride=1, padding=1),
            "skip": nn.Identity(),
        }
        return nn.LayerChoice(options, label=f"op{at}")

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.norm(self.blocks(self.stem(x))))
        return self.head(nn.functional.adaptive_avg_pool2d(x, 2).flatten(1))


class Attention(nn.ModelSpace):
    """A transformer of a chosen width, number of heads, ratio and depth."""

    def __init__(self) -> None:
        super().__init__()
        width = nn.choice("width", (8, 16))
        self.embed = nn.Linear(6, width)
        self.blocks = nn.Repeat(lambda at: Encoder(width, at), (1, 2), label="depth")
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(self.blocks(self.embed(x))).mean(1))


class Encoder(nn.Module):
    def __init__(self, width: Any, at: int) -> None:
        super().__init__()
        ratio = nn.choice(f"ratio{at}", (1, 2, 3))
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(width, nn.choice(f"heads{at}", (1, 2, 4)), batch_first=True)
        self.inner, self.outer = nn.Linear(width, width * ratio), nn.Linear(width * ratio, width)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm1(x)
        x = x + self.attention(y, y, y, need_weights=False)[0]
        return x + self.outer(nn.functional.gelu(self.inner(self.norm2(x))))


class Cells(nn.ModelSpace):
    """Two cells of one label, then an input choice and one of another kind of merge."""

    def __init__(self, merge: Any = "all") -> None:
        super().__init__()
        operators = {
            "conv": lambda node, number, source: nn.Conv1d(4, 4, 3, padding=1),
            "skip": nn.Identity(),
            "pool": nn.AvgPool1d(3, stride=1, padding=1),
        }
        self.first = nn.Cell(operators, num_nodes=2, num_ops_per_node=2, num_predecessors=2, label="cell")
        self.reduce = nn.Conv1d(8, 4, 1)
        self.second = nn.Cell(operators, num_nodes=2, num_ops_per_node=2, num_predecessors=2, label="cell")
        self.last = nn.Cell(operators, num_nodes=2, num_ops_per_node=1, num_predecessors=1, merge_op=merge)
        self.inputs = nn.InputChoice(3, 2, reduction="mean", label="inputs")

    def forward(self, x: Tensor) -> Tensor:
        y = self.reduce(self.first(x, x))
        z = self.reduce(self.second([x, y]))
        return self.last(self.inputs([x, y, z])).sum(1)


class Attributes(nn.ModelSpace):
    """Values that `forward` uses, and a module of one's own with a hook."""

    def __init__(self) -> None:
        super().__init__()
        self.groups = nn.choice("groups", (1, 2, 4))
        self.scales = [nn.choice("scale", (0.5, 2.0)), 1.0]
        self.table = nn.elastic(Table)(nn.choice("rows", (2, 3)), width=8)
        self.pool = nn.MaxPool1d(nn.choice("window", (1, 2)))

    def forward(self, x: Tensor) -> Tensor:
        x = x.unflatten(1, (self.groups, -1)).transpose(1, 2).flatten(1)
        return self.pool(self.table(x) * self.scales[0] + self.scales[1])


class Table(torch.nn.Module):
    """A module of one's own that needs numbers."""

    def __init__(self, rows: int, width: int) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.randn(rows, width))
        self.register_buffer("offsets", torch.arange(rows, dtype=torch.float32))

    def forward(self, x: Tensor) -> Tensor:
        return x[:, None] * self.weight + self.offsets[:, None]
