"""A tiny supernet, and data for it, that training takes milliseconds on."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from nasmw.cost import CostTable
from nasmw.nn import BatchNorm1d, LayerChoice, Linear, ModelSpace, Repeat, choice
from nasmw.oneshot import Recipe, TensorData
from nasmw.tabled import TabledProfiler

FEATURES, CLASSES = 6, 3


class Block(nn.Module):
    def __init__(self, width: int, number: int) -> None:
        super().__init__()
        self.op = LayerChoice(
            {"linear": nn.Linear(width, width), "skip": nn.Identity(), "tanh": nn.Tanh()}, label=f"op{number}"
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.op(x)


class Tiny(ModelSpace):
    """156 networks: a width, one to three blocks, each of three kinds, and an activation."""

    def __init__(self) -> None:
        super().__init__()
        hidden = choice("hidden", (2, 4))
        self.stem = Linear(FEATURES, hidden)
        self.norm = BatchNorm1d(hidden)
        self.act = LayerChoice([nn.ReLU(), nn.Sigmoid()], label="act")
        self.neck = Linear(hidden, 5)
        self.blocks = Repeat(lambda number: Block(5, number), choice("depth", (1, 2, 3)))
        self.head = nn.Linear(5, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.blocks(self.neck(self.act(self.norm(self.stem(x))))))


class Two(ModelSpace):
    """Two networks."""

    def __init__(self) -> None:
        super().__init__()
        self.act = LayerChoice([nn.ReLU(), nn.Tanh()], label="act")
        self.head = nn.Linear(FEATURES, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.act(x))


class One(ModelSpace):
    """One network."""

    def __init__(self) -> None:
        super().__init__()
        self.act = LayerChoice([nn.ReLU()], label="act")
        self.head = nn.Linear(FEATURES, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.act(x))


def points(n: int = 24, batch: int = 8, seed: int = 0) -> TensorData:
    """Points of three classes."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(2 * n) % CLASSES
    inputs = torch.randn(2 * n, FEATURES, generator=generator) + nn.functional.one_hot(labels, FEATURES)
    return TensorData((inputs[:n], labels[:n]), (inputs[n:], labels[n:]), batch=batch)


QUICK = Recipe(epochs=2, rate=0.1)


def cost_of(space: ModelSpace, name: str = "cost", *, integer: bool = True) -> TabledProfiler:
    """A cost with a table: the width, the depth, and what each block is."""
    scale = 1 if integer else 0.37
    prices: list[tuple[list[str], Any]] = [(["hidden"], [scale * 2, scale * 4]), (["depth"], [0, scale, scale * 2])]
    prices += [([f"op{number}"], [scale * 5, 0, scale]) for number in range(3)]
    return TabledProfiler(CostTable(space, prices, name=name))
