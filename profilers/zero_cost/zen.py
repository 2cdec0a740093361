"""Zen: how much a network with normal weights changes its features where its input changes a little."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm, _NormBase
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from nasmw.candidates import Architecture
from nasmw.errors import ProfilerError
from nasmw.profilers.inputs import ExampleInput, ExampleLike
from nasmw.profilers.zero_cost.base import ZeroCostProfiler, logits, normalise_by_batch
from nasmw.profilers.zero_cost.batches import DRAWS, generator
from nasmw.space import Space

__all__ = ["ZenProfiler"]

OTHER_NORMS = (nn.GroupNorm, nn.LayerNorm, nn.LocalResponseNorm, nn.RMSNorm, _NormBase)
WEIGHTED = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
LEAST_LOG = -745.0
ROUNDING = 1e-12  # the variance that rounding leaves of numbers that are all equal, as a share of their squares


class ZenProfiler(ZeroCostProfiler):
    """Zen-score: logarithm of the change of the features by a small change of the input, without what norms take away.

    Weights are drawn from the normal distribution of variance 1, biases are 0, batch norms scale by 1 and normalise by
    the batch. With inputs ``x`` and ``e`` drawn likewise, the score is the logarithm of the mean over the samples of
    ``||f(x) - f(x + gamma * e)||``, plus, for every batch norm, the logarithm of the root of the mean over channels
    of the variance that it divides by. Where single precision is not enough, all is computed again in double precision.

    The features ``f`` are what goes into the last pooling over all positions; where there is none, what goes into
    the last linear layer or convolution. A batch norm whose input never varies takes no part.

    Needs a network whose norms are batch norms. Only the shape of the example input matters. The floor, -745, is the
    logarithm of the least double.

    Deviations: the published code sums absolute changes where the paper has the Euclidean norm, taken here, and takes
    running variances after one step of momentum 0.1 where the paper has the variances of the batch.

    Args, besides those of `ZeroCostProfiler`:
        gamma: The size of the change, above 0.

    References:
        Lin, Wang, Sun, Chen, Sun, Qian, Li, Jin, Zen-NAS: A Zero-Shot NAS for High-Performance Image Recognition,
        ICCV 2021, algorithm 1.

    Example:
        >>> from nasmw.testing import toy_space
        >>> ZenProfiler(toy_space(), torch.zeros(4, 3, 8, 8))
        <ZenProfiler 'zen': inputs (4, 3, 8, 8), gamma 0.01, seed 0>
    """

    metric: ClassVar[str] = "zen"
    reads_data: ClassVar[bool] = False

    def __init__(
        self,
        space: Space | None,
        example_input: ExampleLike,
        *,
        gamma: float = 0.01,
        name: str | None = None,
        seed: int = 0,
        repeats: int = 1,
        resolution: str | None = "resolution",
    ) -> None:
        super().__init__(space, example_input, name=name, seed=seed, repeats=repeats, resolution=resolution)
        if isinstance(gamma, bool) or not isinstance(gamma, (int, float)) or not 0.0 < gamma < math.inf:
            raise ValueError(f"ZenProfiler(gamma=...) takes a finite number above 0, got {gamma!r}")
        self.gamma = float(gamma)

    def _settings(self) -> list[str]:
        return [f"gamma {self.gamma:g}"]

    @property
    def floor(self) -> float:
        """The logarithm of the least double."""
        return LEAST_LOG

    def _score(self, model: nn.Module, architecture: Architecture | None, repeat: int) -> float:
        for path, module in model.named_modules():
            if isinstance(module, OTHER_NORMS) and not isinstance(module, _BatchNorm):
                raise ProfilerError(
                    f"zen takes networks whose norms are batch norms, for it adds up what they divide by; {path!r} of "
                    f"a {type(model).__name__} is a {type(module).__name__}"
                )
        random = generator(self.seed, repeat, DRAWS)
        normalise_by_batch(model)
        _draw_normal(model, random)
        example = self.batch.shaped(architecture)
        start = _normal(example, random)
        noise = _normal(example, random)
        score = math.nan
        for dtype in (torch.float32, torch.float64):
            if not math.isfinite(score):
                score = self._change(model.to(dtype), _to(start, dtype), _to(noise, dtype))
        return score

    def _change(self, model: nn.Module, start: ExampleInput, noise: ExampleInput) -> float:
        """Return the score of a network with its weights drawn; minus infinity where its features do not change."""
        with torch.no_grad():
            features, scales = _features(model, start)
            changed, _ = _features(model, _moved(start, noise, self.gamma))
        change = float(torch.linalg.vector_norm((features - changed).double().flatten(1), dim=1).mean())
        return math.log(change) + sum(scales) if change > 0.0 else -math.inf


def _draw_normal(model: nn.Module, random: torch.Generator) -> None:
    """Draw weights from the normal distribution; biases become 0, and batch norms the identity but for normalising."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1:
                nn.init.normal_(parameter, generator=random)
            elif name.rpartition(".")[2] == "bias":
                parameter.zero_()
        for module in model.modules():
            if isinstance(module, _BatchNorm):
                module.reset_parameters()


def _normal(example: ExampleInput, random: torch.Generator) -> ExampleInput:
    """Return normal numbers for each tensor of floats."""

    def drawn(leaf: Any) -> Any:
        if isinstance(leaf, Tensor) and leaf.is_floating_point():
            return torch.randn(leaf.shape, generator=random)
        return leaf

    args, kwargs = pytree.tree_map(drawn, (example.args, example.kwargs))
    return ExampleInput(args, kwargs)


def _to(example: ExampleInput, dtype: torch.dtype) -> ExampleInput:
    """Return the same arguments with floats of another precision."""

    def cast(leaf: Any) -> Any:
        return leaf.to(dtype) if isinstance(leaf, Tensor) and leaf.is_floating_point() else leaf

    args, kwargs = pytree.tree_map(cast, (example.args, example.kwargs))
    return ExampleInput(args, kwargs)


def _moved(start: ExampleInput, noise: ExampleInput, gamma: float) -> ExampleInput:
    def moved(leaf: Any, change: Any) -> Any:
        return leaf + gamma * change if isinstance(leaf, Tensor) and leaf.is_floating_point() else leaf

    leaves, structure = pytree.tree_flatten((start.args, start.kwargs))
    changes = pytree.tree_leaves((noise.args, noise.kwargs))
    args, kwargs = pytree.tree_unflatten(list(map(moved, leaves, changes)), structure)
    return ExampleInput(args, kwargs)


def _features(model: nn.Module, example: ExampleInput) -> tuple[Tensor, list[float]]:
    """Return the features of a batch, and the logarithms of what the batch norms divided by."""
    scales: list[float] = []
    into_layer: list[Tensor] = []

    def note_scale(module: nn.Module, args: Sequence[Tensor]) -> None:
        x = args[0]
        variances, means = torch.var_mean(x, dim=(0, *range(2, x.ndim)), correction=0)
        variance = float(variances.double().mean())
        if variance > ROUNDING * float(means.double().square().mean()):
            scales.append(0.5 * math.log(variance))

    def note_input(module: nn.Module, args: Sequence[Tensor]) -> None:
        into_layer[:] = args[:1]

    hooks = [
        module.register_forward_pre_hook(note_scale if isinstance(module, _BatchNorm) else note_input)
        for module in model.modules()
        if isinstance(module, (_BatchNorm, *WEIGHTED))
    ]
    pooled = _LastPooling()
    try:
        with pooled:
            output = logits(model, example)
    finally:
        for hook in hooks:
            hook.remove()
    if pooled.input is not None:
        return pooled.input, scales
    return (into_layer[0] if into_layer else output), scales


class _LastPooling(TorchDispatchMode):
    """Keeps the last tensor that was pooled over all its positions, be they of images or of sequences."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.input: Tensor | None = None

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        if name in ("mean", "amax") or "pool" in name:
            x, y = args[0], pytree.tree_leaves(result)[0]
            channels = (x.shape[1], x.shape[-1]) if x.ndim > 2 else ()
            if y.numel() < x.numel() and y.numel() in [x.shape[0] * number for number in channels]:
                self.input = x
        return result
