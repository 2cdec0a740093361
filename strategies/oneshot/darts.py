"""DARTS: mixtures of all options, weighted by probabilities."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from nasmw.strategies.oneshot.relaxed import Relaxed

__all__ = ["DARTS"]


class DARTS(Relaxed):
    """Differentiable search: a layer is the sum of its options, weighted by probabilities that are learnt.

    By turns, the weights take a step on a batch for training, and the scores of options one on a batch for validation,
    as if the weights were the best ones for them. A `LayerChoice` runs as the weighted sum of its options, a `Repeat`
    as that over its depths. Layers with value choices run with weights that are scaled, and a scale that stays the
    same says nothing of sizes: the weights make up for it. So for these choices what the options weigh is drawn afresh
    for each batch, as in `GumbelDARTS`.

    Args:
        data: The examples for training and validation.
        recipe: How the weights are trained.
        temperature: Of the weights that are drawn for value choices, at the start and at the end; it falls by the
            same factor in every epoch.
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
    terms of the loss; a ``none`` option is not left out; value choices, which the paper has none of, are drawn as in
    Wan et al., FBNetV2, CVPR 2020, figure 2.

    Example:
        >>> import torch
        >>> from nasmw.oneshot import Recipe, TensorData
        >>> digits = torch.zeros(8, 4), torch.zeros(8, dtype=torch.long)
        >>> DARTS(TensorData(digits, digits, batch=4), Recipe(epochs=2)).warmup
        0
    """

    def _learn(self, batch: tuple[Any, Any], held: Iterator[tuple[Any, Any]]) -> float:
        if self._warm:
            self._score_step(self._mixed_loss(self._mixture(), next(held)))
        with torch.no_grad():
            weights = self._mixture()
        loss = self._mixed_loss(weights, batch)
        self._trained.backward(loss)
        return float(loss.detach())

    def _mixture(self) -> dict[str, Tensor]:
        found = self._distribution.probabilities()
        return found | {choice: self._drawn(choice) for choice in sorted(self._space.elastic)}
