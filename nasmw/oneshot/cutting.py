"""Whether mixtures may scale elastic channels where they are read alone."""

from __future__ import annotations

from collections.abc import Iterator

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
    if not space.elastic or not all(
        module.scaled_once for module in space.modules() if isinstance(module, ElasticModule)
    ):
        return False
    with forked(training.device, 0):
        batch = next(iter(training.data.batches("train", torch.Generator().manual_seed(0))), None)
        weights = _drawn(training)
    if batch is None:
        return False
    inputs, targets = (moved(part, training.device) for part in batch)

    def seen(gates: dict[str, Gates], once: bool) -> list[Tensor]:
        own = {name: buffer.clone() for name, buffer in space.named_buffers()}
        with torch.no_grad(), forked(training.device, 0), space.mix(gates, once=once), training.autocast():
            outputs = functional_call(space, {**weights, **own}, (inputs,))
            loss = training.recipe.loss(outputs, targets)
        return [loss, outputs] if isinstance(outputs, Tensor) else [loss]

    try:
        return all(
            _alike(first, second)
            for gates in _pairs(training)
            for first, second in zip(seen(gates, once=False), seen(gates, once=True), strict=True)
        )
    except Exception:  # what does not run for drawn weights may run in training, where channels are scaled everywhere
        return False


def _drawn(training: Training) -> dict[str, Tensor]:
    """Return weights for the supernet none of which is near 0 for a purpose."""
    found = {}
    for name, tensor in training.supernet.named_parameters():
        scale = (tensor.numel() / len(tensor)) ** -0.5 if tensor.dim() > 1 and tensor.numel() else 0.5
        found[name] = (tensor + scale * torch.randn(tensor.shape).to(tensor)).detach()
    return found


def _pairs(training: Training) -> Iterator[dict[str, Gates]]:
    """Yield mixtures: every option of a size beside the first and the last one, and the options of others in turn."""
    space = training.supernet
    most = max(len(choice.options) for choice in space.choices)
    for beside in (-1, 0):
        for number in range(most):
            gates = {}
            for choice in space.choices:
                options = len(choice.options)
                one, other = number % options, beside % options
                codes = (one, other) if choice.name in space.elastic and one != other else (one,)
                weights = torch.tensor([1.0, 0.0], device=training.device)[: len(codes)]
                gates[choice.name] = Gates(codes, weights)
            yield gates


def _alike(first: Tensor, second: Tensor) -> bool:
    """Return whether two results are the same number for number, up to rounding, and there is a number."""
    finite = torch.isfinite(first)
    if not finite.any() or not torch.equal(finite, torch.isfinite(second)):
        return False
    return torch.allclose(first[finite].double(), second[finite].double(), rtol=1e-4, atol=1e-6)
