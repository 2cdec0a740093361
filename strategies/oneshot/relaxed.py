"""Relaxed: what strategies have in common that draw mixtures at a temperature."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor
from torch.nn import functional as F

from nasmw.oneshot import Data, Hook, Recipe
from nasmw.strategies.arguments import positive
from nasmw.strategies.oneshot.base import Differentiable

__all__ = ["Relaxed"]


class Relaxed(Differentiable):
    """Draws the weights of a mixture: the softmax of scores and Gumbel noise over a temperature, which falls.

    At a low temperature nearly one option has all the weight, and it is drawn with its probability.

    Args:
        data: The examples for training and validation.
        recipe: How the weights are trained.
        temperature: The temperature at the start and at the end; it falls by the same factor in every epoch.
        architecture_rate: The rate of Adam for the scores of options.
        architecture_decay: The weight decay of the scores.
        warmup: For how many epochs only weights are trained.
        multiplier_rate: By how much the multiplier of a limit grows in one step while the likeliest network is beyond
            it by the whole range of the cost.
        hooks: Called as the training goes on.
    """

    def __init__(
        self,
        data: Data,
        recipe: Recipe | None = None,
        *,
        temperature: Sequence[float] = (2.0, 0.2),
        architecture_rate: float = 3e-3,
        architecture_decay: float = 1e-3,
        warmup: int = 0,
        multiplier_rate: float = 0.1,
        hooks: Sequence[Hook] = (),
    ) -> None:
        super().__init__(
            data,
            recipe,
            architecture_rate=architecture_rate,
            architecture_decay=architecture_decay,
            warmup=warmup,
            multiplier_rate=multiplier_rate,
            hooks=hooks,
        )
        name = type(self).__name__
        given = list(temperature) if isinstance(temperature, Sequence) else []
        if len(given) != 2:
            raise TypeError(f"{name}: temperature is a pair, at the start and at the end, got {temperature!r}")
        start, end = (positive(name, "temperature", value) for value in given)
        if end > start:
            raise ValueError(f"{name}: the temperature falls from the first to the second, got {temperature!r}")
        self.temperature = (start, end)

    def _drawn(self, choice: str) -> Tensor:
        """Return the weights of a choice's options, ``(options,)``, drawn afresh; differentiable."""
        start, end = self.temperature
        last = max(self.recipe.epochs - 1, 1)
        now = start * (end / start) ** (min(self._trained.epochs, last) / last)
        return F.gumbel_softmax(self._distribution.scores[choice], tau=now, dim=0)
