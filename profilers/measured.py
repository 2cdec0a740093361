"""TorchLatencyProfiler: how long a network takes on this CPU, measured."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.utils import _pytree as pytree

from nasmw.candidates import Architecture
from nasmw.devices.weights import sensible_weights
from nasmw.errors import ProfilerError
from nasmw.profiler import Profiler
from nasmw.profilers.counting import untouched
from nasmw.profilers.inputs import ExampleInput, ExampleLike, check_resolution

if TYPE_CHECKING:
    from nasmw.space import Space

__all__ = ["TorchLatencyProfiler"]


class TorchLatencyProfiler(Profiler):
    """Milliseconds that PyTorch needs on this CPU for one forward pass of an example input, as it is run eagerly.

    The quick way, with nothing to install: it measures in this process, whatever arguments the networks take, one
    network after the other, and keeps values for this run only. `DeviceProfiler` measures by a protocol that stands
    up to a busy machine, on runtimes that networks are deployed with, in a process of their own, and keeps its values.

    The network runs in eval mode without gradients, first to warm up, then once a round; the value is the minimum
    over the rounds, since whatever else the machine does can only make a round longer. Rounds are timed one by one,
    so on a busy machine one of them is likely to be undisturbed, as long as a pass is shorter than the time that the
    system gives a process at once (a few milliseconds).

    Networks that are built for an architecture get the weights of `nasmw.devices.sensible_weights`, and tensors of
    zeros in the example random values: both keep activations away from denormal numbers, which would slow a processor
    down and say nothing about trained networks. PyTorch's random state stays as it is.

    Values differ from call to call, so a run records them in its log; a value is measured once in a run. A limit on
    this profiler belongs behind cheap ones, and behind a `Rank`.

    Args:
        space: The space whose architectures are measured, made with a `build`; None to measure networks only.
        example_input: What the networks are run on: a tensor, a tuple of arguments or a mapping of keyword arguments,
            with the batch size to measure.
        name: The name of the metric.
        resolution: The choice whose option is the height and width of the input; the default is taken where the space
            has such a choice. None keeps the example as it is.
        threads: The number of threads that PyTorch uses for an operator.
        warmup: The number of passes that are not timed, at least 1.
        rounds: The number of passes that are timed, at least 1.

    Raises:
        ProfilerError: If the space cannot build networks; while profiling, if a network does not run on the example.
        TypeError: If the example input holds no tensor.
        ValueError: If a number is below 1.

    Example:
        >>> latency = TorchLatencyProfiler(None, torch.zeros(1, 8))
        >>> 0 < latency.profile_model(nn.Linear(8, 8)) < 1000
        True
    """

    def __init__(
        self,
        space: Space | None,
        example_input: ExampleLike,
        *,
        name: str = "latency_ms",
        resolution: str | None = "resolution",
        threads: int = 1,
        warmup: int = 5,
        rounds: int = 50,
    ) -> None:
        for argument, value in (("threads", threads), ("warmup", warmup), ("rounds", rounds)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(
                    f"TorchLatencyProfiler({argument}=...) takes a whole number of at least 1, got {value!r}"
                )
        super().__init__(
            name, "ms", space=space, kind="measured", device=f"this CPU, {threads} thread{'s' if threads > 1 else ''}"
        )
        if space is not None and not space.buildable:
            raise ProfilerError(
                f"TorchLatencyProfiler builds the networks of {space!r}, which was made without `build`; "
                "pass Space(choices, build=function)"
            )
        self.example_input = ExampleInput.of(example_input)
        self.resolution = check_resolution(space, resolution)
        self.threads = threads
        self.warmup = warmup
        self.rounds = rounds

    def __repr__(self) -> str:
        return f"<TorchLatencyProfiler {self.name!r} [ms] on {self.device}, of inputs {self.example_input.shapes()}>"

    def _profile(self, architecture: Architecture) -> float:
        space = self._space()
        complete = space.decode(space.encode(architecture))
        with torch.random.fork_rng(devices=()):
            torch.default_generator.manual_seed(0)
            model = space.build(complete)
            sensible_weights(model)
            example = _random(self.example_input.for_architecture(complete, self.resolution))
        return self._milliseconds(model, example, f"the network of {complete!r}")

    def _profile_model(self, model: nn.Module) -> float:
        with torch.random.fork_rng(devices=()):
            torch.default_generator.manual_seed(0)
            example = _random(self.example_input)
        return self._milliseconds(model, example, f"a {type(model).__name__}")

    def _milliseconds(self, model: nn.Module, example: ExampleInput, what: str) -> float:
        def run() -> None:
            model(*example.args, **example.kwargs)

        with untouched(model), torch.inference_mode(), _threads(self.threads):
            try:
                return 1e3 * _least_seconds(run, self.warmup, self.rounds)
            except Exception as error:
                raise ProfilerError(
                    f"{what} does not run on an example input of shape {example.shapes()}: "
                    f"{type(error).__name__}: {error}"
                ) from error


def _least_seconds(run: Callable[[], None], warmup: int, rounds: int) -> float:
    """Return the shortest time of some calls, after others that are not timed."""
    for _ in range(warmup):
        run()
    least = math.inf
    for _ in range(rounds):
        begin = time.perf_counter()
        run()
        least = min(least, time.perf_counter() - begin)
    return least


def _random(example: ExampleInput) -> ExampleInput:
    """Return the arguments with random numbers in place of tensors of zeros."""

    def filled(leaf: Any) -> Any:
        if isinstance(leaf, torch.Tensor) and leaf.is_floating_point() and not leaf.any():
            return torch.randn_like(leaf)
        return leaf

    args, kwargs = pytree.tree_map(filled, (example.args, example.kwargs))
    return ExampleInput(args, kwargs)


@contextlib.contextmanager
def _threads(number: int) -> Iterator[None]:
    """Have PyTorch use a number of threads for an operator meanwhile."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)
