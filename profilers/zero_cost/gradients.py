"""Proxies that sum over gradients of weights: synflow, snip and grad_norm."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.utils import _pytree as pytree

from nasmw.candidates import Architecture
from nasmw.errors import ProfilerError
from nasmw.profilers.inputs import ExampleInput, ExampleLike
from nasmw.profilers.zero_cost.base import ZeroCostProfiler, logits, normalise_by_batch, weights_of
from nasmw.profilers.zero_cost.batches import TARGETS, digest, generator
from nasmw.space import Space

__all__ = ["GradNormProfiler", "SnipProfiler", "SynflowProfiler"]

NORMS = (_NormBase, nn.GroupNorm, nn.LayerNorm, nn.LocalResponseNorm, nn.RMSNorm)
LEAST_LOG = -745.0
Loss = Callable[[Tensor, Tensor], Tensor]


class SynflowProfiler(ZeroCostProfiler):
    """Natural logarithm of the synaptic flow: how much the paths from input to output carry, over all weights.

    All parameters are replaced by their absolute values, the input by one sample of ones; ``R`` is the sum of the
    outputs and the flow the sum of ``|w * dR/dw|`` over the weights. Normalisation layers pass their input on, and
    ReLU6 does not clip, as activations grow without norms; that holds for modules of `torch.nn`, functions run as
    they are. Everything is computed in double precision, whose range the flow of some hundred layers keeps within; the
    logarithm makes it a number to add and to encode.

    Needs weights, and layers that scale with their input: convolutions, linear layers, pooling, rectifiers, gates.
    Attention is none of them; without its norms its derivatives leave double precision, which is an error. Only the
    shape of the example input matters. The floor, -745, is the logarithm of the least double; it stands for a network
    in which no path reaches the output.

    Deviations: papers report the flow, not its logarithm, which has the same order.

    Args: as for `ZeroCostProfiler`.

    References:
        Tanaka, Kunin, Yamins, Ganguli, Pruning neural networks without any data by iteratively conserving synaptic
        flow, NeurIPS 2020, section 6. Abdelfattah, Mehrotra, Dudziak, Lane, Zero-Cost Proxies for Lightweight NAS,
        ICLR 2021, section 3, scores networks by its sum.

    Example:
        >>> import math, torch
        >>> model = torch.nn.Linear(2, 1, bias=False)
        >>> _ = torch.nn.init.constant_(model.weight, -3.0)
        >>> math.exp(SynflowProfiler(None, torch.zeros(1, 2)).profile_model(model))
        6.0
    """

    metric: ClassVar[str] = "synflow"
    reads_data: ClassVar[bool] = False

    @property
    def floor(self) -> float:
        """The logarithm of the least double."""
        return LEAST_LOG

    def _score(self, model: nn.Module, architecture: Architecture | None, repeat: int) -> float:
        model.double()
        with torch.no_grad():
            for tensor in (*model.parameters(), *model.buffers()):
                if tensor.is_floating_point():
                    tensor.abs_()
        for module in model.modules():
            if isinstance(module, NORMS):
                setattr(module, "forward", _passed_on)  # noqa: B010  mypy takes no assignment to a method
            elif isinstance(module, nn.Hardtanh):
                setattr(module, "forward", F.relu)  # noqa: B010
        flow = sum(
            float((weight * gradient).abs().sum())
            for weight, gradient in _gradients(model, logits(model, _ones(self.batch.shaped(architecture))).sum())
        )
        if not math.isfinite(flow):
            raise ProfilerError(
                f"the synaptic flow of a {type(model).__name__} is no number in double precision: without its norms "
                "its derivatives grow too much, as those of attention do; naswot, jacov and snip score such networks"
            )
        return math.log(flow) if flow > 0.0 else self.floor


def _passed_on(x: Tensor) -> Tensor:
    return x


def _ones(example: ExampleInput) -> ExampleInput:
    """Return one sample of ones in double precision for each tensor of floats, and the first of other tensors."""

    def one(leaf: Any) -> Any:
        if not isinstance(leaf, Tensor):
            return leaf
        first = leaf[:1] if leaf.ndim else leaf
        return torch.ones(first.shape, dtype=torch.float64) if leaf.is_floating_point() else first

    args, kwargs = pytree.tree_map(one, (example.args, example.kwargs))
    return ExampleInput(args, kwargs)


def _gradients(model: nn.Module, value: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Return the weights that a value depends on, each with the derivative of the value by it."""
    weights = weights_of(model)
    if not value.requires_grad:
        return []
    found = torch.autograd.grad(value, weights, allow_unused=True)
    return [
        (weight.detach(), gradient) for weight, gradient in zip(weights, found, strict=True) if gradient is not None
    ]


class _LossProfiler(ZeroCostProfiler):
    """Sums something over the gradients of the loss of one mini-batch.

    Args:
        targets: What the loss compares the outputs with: class numbers ``(n,)``. None for classes drawn from the seed,
            each equally likely.
        loss: Takes outputs and targets, returns one number; cross-entropy by default.
    """

    def __init__(
        self,
        space: Space | None,
        example_input: ExampleLike,
        targets: Tensor | None = None,
        *,
        loss: Loss | None = None,
        name: str | None = None,
        seed: int = 0,
        repeats: int = 1,
        resolution: str | None = "resolution",
    ) -> None:
        super().__init__(space, example_input, name=name, seed=seed, repeats=repeats, resolution=resolution)
        if targets is not None and not isinstance(targets, Tensor):
            raise TypeError(f"{type(self).__name__} takes a tensor of class numbers as targets, got {targets!r}")
        if targets is not None and (not targets.ndim or len(targets) != self.batch.size):
            raise ProfilerError(
                f"{type(self).__name__} takes one target for each of the {self.batch.size} samples, got targets of "
                f"shape {tuple(targets.shape)}"
            )
        if loss is not None and not callable(loss):
            raise TypeError(f"{type(self).__name__}(loss=...) takes a function of outputs and targets, got {loss!r}")
        self.targets = None if targets is None else targets.detach().cpu().clone()
        self.loss = loss

    @abstractmethod
    def _of(self, weight: Tensor, gradient: Tensor) -> Tensor:
        """Return what one weight tensor adds to the score, from its values and the gradient of the loss."""

    def _score(self, model: nn.Module, architecture: Architecture | None, repeat: int) -> float:
        normalise_by_batch(model)
        outputs = logits(model, self.inputs(architecture, repeat))
        if outputs.ndim < 2 and (self.targets is None or self.loss is None):
            raise ProfilerError(
                f"{type(self).__name__} takes networks that return (n, classes) logits, and a {type(model).__name__} "
                f"returned {tuple(outputs.shape)}; pass targets and a loss that fit"
            )
        targets = self.targets
        if targets is None:
            shape = (outputs.shape[0], *outputs.shape[2:])
            targets = torch.randint(outputs.shape[1], shape, generator=generator(self.seed, repeat, TARGETS))
        value = F.cross_entropy(outputs, targets) if self.loss is None else self.loss(outputs, targets)
        return sum(float(self._of(weight, gradient)) for weight, gradient in _gradients(model, value))

    def _settings(self) -> list[str]:
        targets = "random targets" if self.targets is None else f"targets {digest(self.targets)}"
        if self.loss is None:
            return [targets]
        return [targets, f"loss {getattr(self.loss, '__qualname__', type(self.loss).__name__)}"]


class SnipProfiler(_LossProfiler):
    """Sum of ``|w * dL/dw|`` over the weights: how much the loss ``L`` of a mini-batch would change without them.

    Batch norm normalises by the batch. Needs weights and ``(n, classes)`` logits, or a loss that fits. Without targets
    these are drawn, classes equally likely. The floor is 0.

    Deviations: connection sensitivity divides by the sum, for it ranks the weights of one network; the sum itself is
    what compares networks (Abdelfattah et al.). Biases and norms are left out.

    Args, besides those of `ZeroCostProfiler`:
        targets: Class numbers ``(n,)`` of the samples, or what else `loss` takes; None for random classes.
        loss: Takes outputs and targets, returns one number; cross-entropy by default.

    References:
        Lee, Ajanthan, Torr, SNIP: Single-shot Network Pruning based on Connection Sensitivity, ICLR 2019, section 4.1.
        Abdelfattah, Mehrotra, Dudziak, Lane, Zero-Cost Proxies for Lightweight NAS, ICLR 2021, section 3.

    Example:
        >>> from nasmw.testing import toy_space
        >>> SnipProfiler(toy_space(), torch.zeros(4, 3, 8, 8))
        <SnipProfiler 'snip': (4, 3, 8, 8) noise, random targets, seed 0>
    """

    metric: ClassVar[str] = "snip"

    def _of(self, weight: Tensor, gradient: Tensor) -> Tensor:
        return (weight * gradient).abs().sum()


class GradNormProfiler(_LossProfiler):
    """Sum over weight tensors of the Euclidean norm of the gradient of the loss of a mini-batch.

    Batch norm normalises by the batch. Needs weights and ``(n, classes)`` logits, or a loss that fits. Without targets
    these are drawn, classes equally likely. The floor is 0.

    Args, besides those of `ZeroCostProfiler`:
        targets: Class numbers ``(n,)`` of the samples, or what else `loss` takes; None for random classes.
        loss: Takes outputs and targets, returns one number; cross-entropy by default.

    References:
        Abdelfattah, Mehrotra, Dudziak, Lane, Zero-Cost Proxies for Lightweight NAS, ICLR 2021, section 3. As in its
        published code, norms are taken of each weight tensor and added, biases and norms left out.

    Example:
        >>> from nasmw.testing import toy_space
        >>> GradNormProfiler(toy_space(), torch.zeros(4, 3, 8, 8), seed=7)
        <GradNormProfiler 'grad_norm': (4, 3, 8, 8) noise, random targets, seed 7>
    """

    metric: ClassVar[str] = "grad_norm"

    def _of(self, weight: Tensor, gradient: Tensor) -> Tensor:
        norm: Tensor = torch.linalg.vector_norm(gradient)
        return norm
