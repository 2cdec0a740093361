"""GumbelDARTS: mixtures that become nearly single options as a temperature falls."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from torch import Tensor

from nasmw.oneshot import Data, Hook, Recipe
from nasmw.strategies.arguments import flag
from nasmw.strategies.oneshot.relaxed import Relaxed

__all__ = ["GumbelDARTS"]


class GumbelDARTS(Relaxed):
    """Stochastic search: every choice is a mixture that is drawn afresh for each batch, from a relaxed distribution.

    The weights of a mixture are the softmax of scores and Gumbel noise over a temperature; at a low temperature nearly
    one option has all the weight, and it is drawn with its probability. So what is trained comes close to what is
    derived. Weights and scores take their steps together, on the same batch, unless `bilevel` is given.

    Args:
        data: The examples for training and validation.
        recipe: How the weights are trained.
        temperature: The temperature at the start and at the end; it falls by the same factor in every epoch.
        bilevel: Whether scores learn from the validation data, as in `DARTS`.
        architecture_rate: The rate of Adam for the scores of options.
        architecture_decay: The weight decay of the scores.
        warmup: For how many epochs only weights are trained.
        multiplier_rate: By how much the multiplier of a limit grows in one step while the likeliest network is beyond
            it by the whole range of the cost.
        hooks: Called as the training goes on.

    Raises:
        TypeError: If an argument is of the wrong kind.
        ValueError: If a number is out of range, or the temperature rises; at `setup` if there are several objectives.
        SpaceError: At `setup`, if the space is no `nasmw.nn.ModelSpace`, or something in it cannot be mixed.

    Reference: Xie, Zheng, Liu, Lin, SNAS: Stochastic Neural Architecture Search, ICLR 2019, section 2.3. Deviations:
    the cost is an exact expectation instead of one over samples; `bilevel` is that of Wu et al., FBNet, CVPR 2019.

    Example:
        >>> import torch
        >>> from nasmw.oneshot import TensorData
        >>> digits = torch.zeros(8, 4), torch.zeros(8, dtype=torch.long)
        >>> GumbelDARTS(TensorData(digits, digits, batch=4), temperature=(5.0, 0.5)).temperature
        (5.0, 0.5)
    """

    def __init__(
        self,
        data: Data,
        recipe: Recipe | None = None,
        *,
        temperature: Sequence[float] = (2.0, 0.2),
        bilevel: bool = False,
        architecture_rate: float = 3e-3,
        architecture_decay: float = 1e-3,
        warmup: int = 0,
        multiplier_rate: float = 0.1,
        hooks: Sequence[Hook] = (),
    ) -> None:
        super().__init__(
            data,
            recipe,
            temperature=temperature,
            architecture_rate=architecture_rate,
            architecture_decay=architecture_decay,
            warmup=warmup,
            multiplier_rate=multiplier_rate,
            hooks=hooks,
        )
        self.bilevel = flag("GumbelDARTS", "bilevel", bilevel)

    def _learn(self, batch: tuple[Any, Any], held: Iterator[tuple[Any, Any]]) -> float:
        if self._warm and self.bilevel:
            self._score_step(self._mixed_loss(self._mixture(), next(held)))
        loss = self._mixed_loss(self._mixture(), batch)
        if self._warm and not self.bilevel:
            self._joint_step(loss)
        else:
            self._trained.backward(loss)
        return float(loss.detach())

    def _mixture(self) -> dict[str, Tensor]:
        return {choice: self._drawn(choice) for choice in self._distribution.scores}
