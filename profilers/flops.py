"""FlopsProfiler: the multiply-adds of a network."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, get_args

from nasmw.candidates import Architecture
from nasmw.errors import ProfilerError
from nasmw.profilers.counting import Count, Uncounted, count, report_uncounted
from nasmw.profilers.inputs import ExampleInput, ExampleLike
from nasmw.profilers.network import Method, NetworkProfiler
from nasmw.profilers.shapes import trace
from nasmw.space import Space

if TYPE_CHECKING:
    from torch import nn

__all__ = ["FlopsProfiler"]


class FlopsProfiler(NetworkProfiler):
    """Multiply-adds (MACs) of one forward pass on an example input; one multiply-add counts once.

    What the tables of this field call FLOPs are these MACs. They are those of convolutions, linear layers, matrix
    products, einsum, attention and recurrent layers; biases, activations, normalisation and pooling are not among
    them, and neither is what no output of the network depends on: an exported network lacks it. Networks are run in
    eval mode and stay as they are.

    Args:
        space: The space whose architectures are profiled; None to profile networks only.
        example_input: What the networks are run on: a tensor, a tuple of arguments or a mapping of keyword arguments,
            with the batch size to count for, usually 1.
        name: The name of the metric.
        resolution: The choice whose option is the height and width of the input; the default is taken where the space
            has such a choice. None keeps the example as it is.
        uncounted: What to do about operators that nothing is known about: ``"warn"`` (once for each), ``"error"`` or
            ``"ignore"``.
        method: ``"auto"``, ``"probe"`` or ``"count"``; see `NetworkProfiler`.
        progress: Whether a bar is shown while tables are made.

    Raises:
        ProfilerError: If a network of the space does not run on the example input, returns no tensor, or has an
            operator that cannot be counted and `uncounted` is ``"error"``.
        TypeError: If the example input holds no tensor.

    Example:
        >>> import torch
        >>> from nasmw import profile
        >>> profile(torch.nn.Conv2d(3, 8, 3, bias=False), [FlopsProfiler(None, torch.zeros(1, 3, 6, 6))])
        {'macs': 3456.0}
    """

    metric = "macs"
    example_input: ExampleInput

    def __init__(
        self,
        space: Space | None,
        example_input: ExampleLike,
        *,
        name: str = "macs",
        resolution: str | None = "resolution",
        uncounted: Uncounted = "warn",
        method: Method = "auto",
        progress: bool = True,
    ) -> None:
        if uncounted not in get_args(Uncounted):
            raise ProfilerError(f"`uncounted` is one of {get_args(Uncounted)}, got {uncounted!r}")
        self.uncounted: Uncounted = uncounted
        self._told: set[str] = set()
        super().__init__(
            space,
            name,
            example_input=example_input,
            resolution=resolution,
            method=method,
            progress=progress,
        )

    def count(self, model: nn.Module, architecture: Architecture | None = None) -> Count:
        """Return the MACs of a network by kinds of operators, and what could not be counted.

        Args:
            model: The network.
            architecture: The architecture that it was built from; its resolution is the one that is counted for.
        """
        example, what = self.example_input, f"a {type(model).__name__}"
        if architecture is not None:
            example = example.for_architecture(architecture, self.resolution)
            what = f"the network of {dict(architecture)!r}"
        return count(model, example, what=what)

    def _count(self, model: nn.Module, architecture: Architecture | None) -> float:
        counted = self.count(model, architecture)
        report_uncounted(counted.uncounted, self.uncounted, f"{self.name}: a {type(model).__name__}", self._told)
        return float(counted.macs)

    def _note_uncounted(self, names: Iterable[str]) -> None:
        what = f"{self.name}: networks of {self.space!r}"
        report_uncounted(dict.fromkeys(names, 0), self.uncounted, what, self._told)

    def _recount(self, model: nn.Module, architecture: Architecture) -> float:
        example = self.example_input.for_architecture(architecture, self.resolution)
        try:
            return float(trace(model, example).macs)
        except ProfilerError:  # the network asks for values
            return self._count(model, architecture)
