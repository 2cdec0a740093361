"""Weights with which a network takes as long as a trained one would."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["sensible_weights"]

LEAST_BATCH = 8  # a variance needs several values, also where an image has shrunk to one
BIAS = 0.01
LEAST_VARIANCE = 1e-2  # what never varies, zeros for instance, is not blown up


def sensible_weights(model: nn.Module, example: Tensor | None = None, *, seed: int = 0) -> nn.Module:
    """Give a network weights with which its activations keep an ordinary size, in place, and return it.

    With default weights some networks have activations that grow to infinity or shrink to denormal numbers from layer
    to layer. Processors compute with the latter many times slower, and 8 bits hold neither, so both would say nothing
    about trained networks. Every weight with two axes or more is drawn as by He et al. (2015, Delving Deep into
    Rectifiers, section 2.2), biases beside them are small, batch norm scales by one and shifts by nothing. With an
    example, batch norm's running statistics are those of one batch of normal numbers, as training would leave them, or
    of zeros and ones where the example is of whole numbers.

    Args:
        model: The network; it is left in evaluation mode. PyTorch's random state stays as it is.
        example: A tensor of the shape that it takes; None leaves means of 0 and variances of 1.
        seed: What weights and numbers are drawn from.
    """
    import torch
    from torch import nn
    from torch.nn.modules.batchnorm import _BatchNorm

    generator = torch.Generator().manual_seed(seed)
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    model.eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1 and parameter.is_floating_point():
                nn.init.kaiming_normal_(parameter, generator=generator)
        for module in model.modules():
            weight, bias = getattr(module, "weight", None), getattr(module, "bias", None)
            if isinstance(weight, nn.Parameter) and weight.ndim > 1 and isinstance(bias, nn.Parameter):
                nn.init.normal_(bias, std=BIAS, generator=generator)
        for norm in norms:
            norm.reset_parameters()
        if example is None or not norms:
            return model
        momenta = [norm.momentum for norm in norms]
        for norm in norms:
            norm.train()
            norm.momentum = None  # takes the statistics as they are
        shape = (max(LEAST_BATCH, example.shape[0]), *example.shape[1:])
        if example.is_floating_point():
            batch = torch.randn(shape, generator=generator).to(example)
        else:
            batch = torch.randint(0, 2, shape, generator=generator).to(example)
        try:
            model(batch)
        finally:
            for norm, momentum in zip(norms, momenta, strict=True):
                norm.momentum = momentum
                norm.eval()
        for norm in norms:
            if norm.running_var is not None:
                norm.running_var.clamp_(min=LEAST_VARIANCE)
    return model
