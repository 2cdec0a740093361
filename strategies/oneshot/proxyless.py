"""ProxylessNAS: two options of each choice at a time, one of them with all the weight."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nasmw.nn import Gates
from nasmw.oneshot import Data, Hook, Recipe
from nasmw.strategies.oneshot.base import Differentiable

__all__ = ["ProxylessNAS"]


class ProxylessNAS(Differentiable):
    """Search by binary gates: the weights train one path at a time, the scores compare two options of each choice.

    By turns, a path is drawn by the probabilities and its weights take a step on a batch for training; and two options
    of each choice are drawn, one of them is let through, and the scores take a step on a batch for validation, by the
    gradient that the two gates have. No more than two options are in memory at a time. The step leaves the
    probabilities of the options that were not drawn as they are, apart from the costs.

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

    Reference: Cai, Zhu, Han, ProxylessNAS: Direct Neural Architecture Search on Target Task and Hardware, ICLR 2019,
    section 3.2 (two paths) and equation 4. Deviations: choices of sizes and depths have gates, too, those of widths
    where the channels are read; the cost is a term with a weight, or has a multiplier, as for all strategies here.

    Example:
        >>> import torch
        >>> from nasmw.oneshot import TensorData
        >>> digits = torch.zeros(8, 4), torch.zeros(8, dtype=torch.long)
        >>> ProxylessNAS(TensorData(digits, digits, batch=4), warmup=1).warmup
        1
    """

    betas = (0.0, 0.999)  # what was not drawn stays as it is

    def __init__(
        self,
        data: Data,
        recipe: Recipe | None = None,
        *,
        architecture_rate: float = 3e-3,
        architecture_decay: float = 0.0,
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

    def _learn(self, batch: tuple[Any, Any], held: Iterator[tuple[Any, Any]]) -> float:
        training = self._trained
        if self._warm:
            gates, pairs = self._gates()
            before = self._mass(pairs)
            self._score_step(self._mixed_loss(gates, next(held)))
            if not self._costs:
                self._restore(pairs, before)
        path = self._distribution.drawn(training.rng)
        with training.supernet.activate(path), training.autocast():
            loss = self.recipe.loss(training.supernet(batch[0]), batch[1])
        training.backward(loss)
        return float(loss.detach())

    def _gates(self) -> tuple[dict[str, Gates], dict[str, list[int]]]:
        """Return gates of two options for each choice, one of which is let through, and the options."""
        rng = self._trained.rng
        gates: dict[str, Gates] = {}
        pairs: dict[str, list[int]] = {}
        for name, log in self._distribution.numbers().items():
            # The greatest sums of logarithms and Gumbel noise are a draw without replacement.
            pair = np.argsort(-(log + rng.gumbel(size=len(log))), kind="stable")[:2].tolist()
            score = self._distribution.scores[name]
            share = torch.softmax(score[pair], dim=0)
            through = torch.zeros_like(share)
            through[int(len(pair) > 1 and rng.random() >= float(share[0].detach()))] = 1.0
            gates[name] = Gates(pair, through + share - share.detach())
            pairs[name] = pair
        return gates, pairs

    def _mass(self, pairs: dict[str, list[int]]) -> dict[str, Tensor]:
        """Return the logarithm of what two options of each choice weigh together."""
        return {name: self._distribution.scores[name].detach()[pair].logsumexp(0) for name, pair in pairs.items()}

    def _restore(self, pairs: dict[str, list[int]], before: dict[str, Tensor]) -> None:
        """Let two options of each choice weigh together what they did before the step."""
        with torch.no_grad():
            for name, pair in pairs.items():
                score = self._distribution.scores[name]
                score[pair] += before[name] - score[pair].logsumexp(0)
