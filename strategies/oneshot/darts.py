"""DARTS: mixtures of all options, weighted by probabilities."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from nasmw.strategies.oneshot.base import Differentiable

__all__ = ["DARTS"]


class DARTS(Differentiable):
    """Differentiable search: every choice is the sum of its options, weighted by probabilities that are learnt.

    By turns, the weights take a step on a batch for training, and the scores of options one on a batch for validation,
    as if the weights were the best ones for them. A layer with value choices runs with the expected weights, a
    `Repeat` as the sum over its depths.

    Args:
        data: The examples for training and validation.
        recipe: How the weights are trained.
        architecture_rate: The rate of Adam for the scores of options.
        architecture_decay: The weight decay of the scores.
        warmup: For how many epochs only weights are trained.
        multiplier_rate: By how much the multiplier of a limit grows in one step while the likeliest network is beyond
            it by the whole range of the cost.
        hooks: Called as the training goes on.

    Raises:
        TypeError: If an argument is of the wrong kind.
        ValueError: If a number is out of range; at `setup` if there are several objectives.
        SpaceError: At `setup`, if the space is no `nasmw.nn.ModelSpace`, or something in it cannot be mixed.

    Reference: Liu, Simonyan, Yang, DARTS: Differentiable Architecture Search, ICLR 2019, algorithm 1 with the
    first-order gradient. Deviations: the likeliest network is taken among those within the limits; expected costs are
    terms of the loss; a ``none`` option is not left out.

    Example:
        >>> import torch
        >>> from nasmw.oneshot import Recipe, TensorData
        >>> digits = torch.zeros(8, 4), torch.zeros(8, dtype=torch.long)
        >>> DARTS(TensorData(digits, digits, batch=4), Recipe(epochs=2)).warmup
        0
    """

    def _learn(self, batch: tuple[Any, Any], held: Iterator[tuple[Any, Any]]) -> float:
        if self._warm:
            self._score_step(self._mixed_loss(self._distribution.probabilities(), next(held)))
        with torch.no_grad():
            weights = self._distribution.probabilities()
        loss = self._mixed_loss(weights, batch)
        self._trained.backward(loss)
        return float(loss.detach())
