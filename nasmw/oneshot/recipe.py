"""Recipe: how the weights of a supernet are trained."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Literal, get_args

import attrs
import torch
from torch import Tensor, nn

from nasmw.strategy import describe

__all__ = ["Precision", "Recipe", "accuracy"]

Precision = Literal["float32", "bfloat16", "float16"]
Optimizer = Callable[[Iterable[nn.Parameter], float], torch.optim.Optimizer]
Loss = Callable[[Tensor, Tensor], Tensor]
Metric = Callable[[Tensor, Tensor], Tensor]


def accuracy(outputs: Tensor, targets: Tensor) -> Tensor:
    """Return for each example whether the greatest of its outputs, ``(n, classes)``, is at the target, ``(n,)``."""
    return (outputs.argmax(dim=1) == targets).float()


@attrs.frozen(eq=False, repr=False)
class Recipe:
    """How the weights of a supernet are trained: for how long, by which optimizer, in which precision.

    The rate falls along half a cosine, from the first step to the last, to a hundredth.

    Attributes:
        epochs: How often all examples for training are gone through.
        rate: The learning rate at the start.
        momentum: Of stochastic gradient descent.
        decay: The weight decay.
        clip: The greatest norm that the gradient of all weights together may have; None for any.
        optimizer: Makes another optimizer from parameters and the rate, instead of stochastic gradient descent; a
            function that can be imported.
        loss: Takes outputs and targets, returns a tensor without dimensions; cross-entropy by default.
        metric: Takes outputs and targets, returns one number for each example, ``(n,)``, whose mean is maximised;
            accuracy by default.
        precision: ``"float32"``, or what `torch.autocast` computes in; gradients of float16 are scaled.
        device: Where to train, such as ``"cuda"``; None for the CPU.

    Raises:
        ValueError: If a number is out of range.

    Example:
        >>> Recipe(epochs=5, rate=0.1)
        Recipe(epochs=5, rate=0.1)
    """

    epochs: int = 20
    rate: float = 0.05
    momentum: float = 0.9
    decay: float = 3e-4
    clip: float | None = 5.0
    optimizer: Optimizer | None = None
    loss: Loss = nn.functional.cross_entropy
    metric: Metric = accuracy
    precision: Precision = "float32"
    device: str | None = None

    def __attrs_post_init__(self) -> None:
        if isinstance(self.epochs, bool) or not isinstance(self.epochs, int) or self.epochs < 1:
            raise ValueError(f"Recipe(epochs=...) takes a whole number of at least 1, got {self.epochs!r}")
        for name, value in (("rate", self.rate), ("clip", 1.0 if self.clip is None else self.clip)):
            if not (math.isfinite(value) and value > 0):
                raise ValueError(f"Recipe({name}=...) takes a number above 0, got {value!r}")
        if not 0 <= self.momentum < 1 or not 0 <= self.decay < math.inf:
            raise ValueError(
                f"Recipe takes a momentum from 0 to below 1 and a decay of at least 0, got {self.momentum!r} and "
                f"{self.decay!r}"
            )
        if self.precision not in get_args(Precision):
            raise ValueError(f"Recipe(precision=...) takes one of {get_args(Precision)}, got {self.precision!r}")

    def __repr__(self) -> str:
        own = ((field.name, getattr(self, field.name), field.default) for field in attrs.fields(Recipe))
        shown = (
            f"{name}={describe(value)}" for name, value, default in own if value is not default and value != default
        )
        return f"Recipe({', '.join(shown)})"

    def optimizer_of(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """Return the optimizer of parameters."""
        if self.optimizer is not None:
            return self.optimizer(parameters, self.rate)
        return torch.optim.SGD(parameters, lr=self.rate, momentum=self.momentum, weight_decay=self.decay)

    def rate_at(self, progress: float) -> float:
        """Return the share of the rate that is left after a share of all steps."""
        return 0.01 + 0.99 * 0.5 * (1.0 + math.cos(math.pi * min(progress, 1.0)))
