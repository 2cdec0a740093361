"""Whether mixtures may scale elastic channels where they are read alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call

from nasmw.nn import Gates
from nasmw.nn.elastic_module import ElasticModule
from nasmw.oneshot.data import moved
from nasmw.oneshot.training import Training, forked

__all__ = ["cut_where_read"]


def cut_where_read(training: Training) -> bool:
    """Return whether nothing but elastic layers reads elastic channels, so that `ModelSpace.mix` may scale them once.

    That is tried on a batch, with weights that are drawn: where each of two options of every size runs with all the
    weight on the first, the other one's channels make no difference, unless something else reads them. It is no
    statement about the weights of the supernet, and the same in every process.
    """
    space = training.supernet
    elastic = [module for module in space.modules() if isinstance(module, ElasticModule)]
    if not elastic or not all(module.scaled_once for module in elastic):
        return False
    try:
        with forked(training.device, 0):
            inputs, targets = next(iter(training.data.batches("train", torch.Generator().manual_seed(0))))
            weights = _drawn(training)
        batch = moved(inputs, training.device), moved(targets, training.device)
        for gates in _pairs(training):
            scaled, once = (_results(training, weights, batch, gates, once) for once in (False, True))
            if not all(map(_alike, scaled, once)):
                return False
    except Exception:  # what does not run for drawn weights may run in training, where channels are scaled everywhere
        return False
    return True


def _results(
    training: Training, weights: dict[str, Tensor], batch: tuple[Any, Any], gates: dict[str, Gates], once: bool
) -> list[Tensor]:
    """Return the loss of a mixture on a batch, and its outputs where these are a tensor."""
    space = training.supernet
    own = {name: buffer.clone() for name, buffer in space.named_buffers()}
    with torch.no_grad(), forked(training.device, 0), space.mix(gates, once=once), training.autocast():
        outputs = functional_call(space, {**weights, **own}, (batch[0],))
        loss = training.recipe.loss(outputs, batch[1])
    return [loss, outputs] if isinstance(outputs, Tensor) else [loss]


def _drawn(training: Training) -> dict[str, Tensor]:
    """Return weights for the supernet none of which is near 0 for a purpose."""
    found = {}
    for name, tensor in training.supernet.named_parameters():
        scale = (tensor.numel() / len(tensor)) ** -0.5 if tensor.dim() > 1 and tensor.numel() else 0.5
        found[name] = (tensor + scale * torch.randn(tensor.shape).to(tensor)).detach()
    return found


def _pairs(training: Training) -> Iterator[dict[str, Gates]]:
    """Yield mixtures: every option of a size beside the first and the last one, and all options of what is no size."""
    choices, elastic = training.supernet.choices, training.supernet.elastic
    for beside in (-1, 0):
        for number in range(max(len(choice.options) for choice in choices if choice.name in elastic)):
            gates = {}
            for choice in choices:
                options = len(choice.options)
                codes: Sequence[int] = range(options)
                weights = torch.full((options,), 1 / options, device=training.device)
                if choice.name in elastic:
                    codes = sorted({number % options, beside % options})
                    weights = torch.tensor([float(code == number % options) for code in codes], device=training.device)
                gates[choice.name] = Gates(codes, weights)
            yield gates


def _alike(first: Tensor, second: Tensor) -> bool:
    """Return whether two results are the same number for number, up to rounding, and there is a number."""
    finite = torch.isfinite(first)
    if not finite.any() or not torch.equal(finite, torch.isfinite(second)):
        return False
    return torch.allclose(first[finite].double(), second[finite].double(), rtol=1e-4, atol=1e-6)
