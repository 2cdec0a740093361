"""Proxies that compare the samples of a mini-batch with each other: naswot and jacov."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from nasmw.candidates import Architecture, Floats
from nasmw.errors import ProfilerError
from nasmw.profilers.inputs import ExampleInput
from nasmw.profilers.zero_cost.base import ZeroCostProfiler, logits, normalise_by_batch

__all__ = ["JacovProfiler", "NaswotProfiler"]

RECTIFIERS = frozenset(
    ("relu", "hardtanh", "leaky_relu", "prelu", "_prelu_kernel", "elu", "silu", "gelu", "mish", "hardswish")
)
"""The operators that count as rectifiers; ReLU6 is a hardtanh, and SELU and CELU are ELUs."""
SMOOTH = frozenset(("tanh", "sigmoid", "hardsigmoid", "softplus", "log_sigmoid_forward", "_softmax"))
"""Other operators that are not linear, and are neither open nor closed."""
COLUMNS = 2**20  # sums of so many ones are exact in single precision
STABLE = 1e-5


class NaswotProfiler(ZeroCostProfiler):
    """Logarithm of the determinant of how alike the samples of a mini-batch are to the rectifiers of a network.

    A rectifier is open or closed for a sample, as its input is positive or not. Entry ``(i, j)`` of the kernel is the
    number of rectifiers that are in the same state for samples ``i`` and ``j``, over all rectifiers of the network,
    whatever module or function they are called by. Batch norm normalises by the batch.

    Needs two samples at least, and rectifiers: ReLU, ReLU6, LeakyReLU, PReLU, ELU, SELU, CELU, SiLU, GELU, Mish or
    Hardswish. The kernel consists of whole numbers, so its determinant is 0 or at least 1; the floor, 0, stands for a
    kernel that is singular, as where two samples open the same rectifiers, or the network is linear.

    Deviations: the paper has ReLU only. Values of batches of different sizes cannot be compared.

    Args: as for `ZeroCostProfiler`.

    References:
        Mellor, Turner, Storkey, Crowley, Neural Architecture Search without Training, ICML 2021, section 3, equation 2.

    Example:
        >>> from nasmw.testing import toy_space
        >>> NaswotProfiler(toy_space(), torch.zeros(4, 3, 8, 8))
        <NaswotProfiler 'naswot': (4, 3, 8, 8) noise, seed 0>
    """

    metric: ClassVar[str] = "naswot"
    least_batch: ClassVar[int] = 2

    def _score(self, model: nn.Module, architecture: Architecture | None, repeat: int) -> float:
        normalise_by_batch(model)
        kernel = _Kernel(self.batch.size)
        with torch.no_grad(), kernel:
            logits(model, self.inputs(architecture, repeat))
        if kernel.smooth and not kernel.rectifiers:
            raise ProfilerError(
                "naswot looks at rectifiers (ReLU, ReLU6, LeakyReLU, PReLU, ELU, SELU, CELU, SiLU, GELU, Mish, "
                f"Hardswish), and a {type(model).__name__} has {', '.join(sorted(kernel.smooth))} instead; jacov "
                "scores networks without rectifiers"
            )
        sign, logarithm = np.linalg.slogdet(kernel.values)
        return max(float(logarithm), 0.0) if sign > 0.0 else 0.0


class _Kernel(TorchDispatchMode):
    """Adds up, over the rectifiers that run meanwhile, for which pairs of samples they are in the same state."""

    def __init__(self, samples: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.values: Floats = np.zeros((samples, samples))
        self.rectifiers = 0
        self.smooth: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        if name.removesuffix("_") in RECTIFIERS:
            self._add(args[0])
        elif name.removesuffix("_") in SMOOTH:
            self.smooth.add(name)
        return func(*args, **(kwargs or {}))

    def _add(self, x: Tensor) -> None:
        samples = len(self.values)
        if not x.ndim or len(x) % samples:
            raise ProfilerError(
                f"naswot wants the samples of the batch, {samples}, along the first axis of what rectifiers see, and "
                f"one of them sees {tuple(x.shape)}"
            )
        states = x.detach().reshape(samples, -1) > 0
        for part in states.split(COLUMNS, dim=1):
            number = part.float()
            both = (number @ number.T).double().numpy()
            opened = both.diagonal()
            # Two samples agree on what both open and on what neither opens.
            self.values += number.shape[1] - opened[:, None] - opened[None, :] + 2.0 * both
        self.rectifiers += states.shape[1]


class JacovProfiler(ZeroCostProfiler):
    """How little the Jacobians of a network at the samples of a mini-batch resemble each other.

    The Jacobian at a sample is the gradient of the sum of its outputs by its input. ``v`` being the eigenvalues of the
    correlations between the samples' Jacobians, the score is minus the sum of ``log(v + k) + 1 / (v + k)``, with
    ``k = 1e-5``. Batch norm normalises by the batch.

    Needs two samples at least. Where an output does not depend on the input, correlations are undefined; the floor
    stands for it, the score of Jacobians that are all alike. Its number depends on the size of the batch.

    Args: as for `ZeroCostProfiler`.

    References:
        Mellor, Turner, Storkey, Crowley, Neural Architecture Search without Training, arXiv:2006.04647v1, 2020,
        section 3: the first version, whose score is another one than that of 2021 (`NaswotProfiler`).

    Example:
        >>> from nasmw.testing import toy_space
        >>> JacovProfiler(toy_space(), torch.zeros(4, 3, 8, 8))
        <JacovProfiler 'jacov': (4, 3, 8, 8) noise, seed 0>
    """

    metric: ClassVar[str] = "jacov"
    least_batch: ClassVar[int] = 2

    @property
    def floor(self) -> float:
        """The score of Jacobians that are all alike."""
        return _spread(np.array([float(self.batch.size)] + [0.0] * (self.batch.size - 1)))

    def _score(self, model: nn.Module, architecture: Architecture | None, repeat: int) -> float:
        normalise_by_batch(model)
        model.requires_grad_(False)
        leaves, structure = pytree.tree_flatten(_parts(self.inputs(architecture, repeat)))
        leaves = [_differentiable(leaf) for leaf in leaves]
        args, kwargs = pytree.tree_unflatten(leaves, structure)
        total = logits(model, ExampleInput(args, kwargs)).sum()
        inputs = [leaf for leaf in leaves if isinstance(leaf, Tensor) and leaf.requires_grad]
        found = torch.autograd.grad(total, inputs, allow_unused=True) if total.requires_grad else ()
        samples = self.batch.size
        rows = [gradient.reshape(samples, -1).double() for gradient in found if gradient is not None]
        jacobian = torch.cat(rows, dim=1).numpy() if rows else np.zeros((samples, 1))
        if not np.isfinite(jacobian).all():
            return self.floor
        centred = jacobian - jacobian.mean(axis=1, keepdims=True)
        lengths = np.linalg.norm(centred, axis=1, keepdims=True)
        if not (lengths > 0.0).all():
            return self.floor
        directions = centred / lengths
        return _spread(np.linalg.eigvalsh(directions @ directions.T).clip(min=0.0))


def _parts(example: ExampleInput) -> tuple[Any, Any]:
    return example.args, example.kwargs


def _differentiable(leaf: Any) -> Any:
    if isinstance(leaf, Tensor) and leaf.is_floating_point():
        return leaf.detach().clone().requires_grad_(True)
    return leaf


def _spread(eigenvalues: Floats) -> float:
    """Return the score of the eigenvalues of the correlations."""
    return -float(np.sum(np.log(eigenvalues + STABLE) + 1.0 / (eigenvalues + STABLE)))
