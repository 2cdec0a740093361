"""Recalibration: statistics of batch normalisation for a network with weights that it inherits."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from nasmw.oneshot.data import moved

__all__ = ["recalibrate"]


def recalibrate(model: nn.Module, batches: Iterable[Any], device: torch.device | str = "cpu") -> int:
    """Give the batch normalisations of a network the statistics of its own activations, and set it to evaluation.

    The statistics of a supernet are those of many networks together; a network that inherits its weights needs others.
    They become the plain averages over the batches; nothing else is changed.

    Args:
        model: The network, on the device.
        batches: Inputs, ``(n, ...)``.
        device: Where the network is.

    Returns:
        The number of batch normalisations.

    Reference: Guo, Zhang, Mu, Heng, Liu, Wei, Sun, Single Path One-Shot Neural Architecture Search with Uniform
    Sampling, ECCV 2020, section 3.4; Yu et al., BigNAS, ECCV 2020, section 3.2.
    """
    model.eval()
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm) and module.track_running_stats]
    if not norms:
        return 0
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the plain average
        norm.train()
    with torch.no_grad():
        for inputs in batches:
            model(moved(inputs, torch.device(device)))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
        norm.eval()
    return len(norms)
