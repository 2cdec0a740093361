"""ZeroCostProfiler: what proxies of accuracy have in common, from random weights to the value of last resort."""

from __future__ import annotations

import contextlib
import copy
import math
from abc import abstractmethod
from collections.abc import Iterator
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from nasmw.candidates import Architecture, Candidates, Codes
from nasmw.errors import NasmwError, ProfilerError
from nasmw.profiler import Profiler
from nasmw.profilers.inputs import ExampleInput, ExampleLike
from nasmw.profilers.zero_cost.batches import WEIGHTS, Batch, seed_of
from nasmw.space import Space

__all__ = ["ZeroCostProfiler", "check_whole", "logits", "normalise_by_batch", "weights_of"]

REMEMBERED = 65_536


class ZeroCostProfiler(Profiler):
    """A score of a network before training, the greater the better: a proxy of its accuracy.

    A network is built with random weights and run on one mini-batch, on the CPU. Weights are those that `build` gives
    it where PyTorch's generator starts at a seed that is the same for every architecture; PyTorch's random state stays
    as it is. Layers are in eval mode, so that nothing is dropped; batch norm normalises by the batch where the proxy
    says so.

    The mini-batch is the example input. A tensor of zeros stands for its shape: normal numbers, drawn from the seed,
    take its place. Real samples are used as they are; where a choice says another resolution they are interpolated.

    A value is a function of architecture, seed and batch, but for its last digits, which differ between machines,
    numbers of threads and versions of PyTorch; and it costs passes through a network. So the kind is ``"measured"``: a
    run computes a value once, records it and reads it back, and limits on it come after cheaper ones.

    A network for which the proxy gives no finite number (its output does not depend on its input, activations
    overflow) gets `floor`, the least value that the proxy can take. A kind of network that the proxy cannot score at
    all is an error.

    A subclass implements `_score` and sets `metric`.

    Args:
        space: The space whose architectures are profiled, made with a `build`; None to profile networks only.
        example_input: The mini-batch: a tensor, a tuple of arguments or a mapping of keyword arguments.
        name: The name of the metric; that of the proxy by default.
        seed: What weights, noise and labels are drawn from, at least 0.
        repeats: How many draws the value is the mean of. A network outside a space keeps its weights in all of them.
        resolution: The choice whose option is the height and width of the input; the default is taken where the space
            has such a choice. None keeps the example as it is.

    Raises:
        ProfilerError: If the space cannot build networks or the batch has fewer samples than the proxy compares; while
            profiling, if a network does not run on the batch, returns no single tensor, or lacks what is scored.
        TypeError: If the example input holds no tensor.
        ValueError: If a number is out of range.
    """

    metric: ClassVar[str]
    """The name of the metric, where no other is given."""
    least_batch: ClassVar[int] = 1
    """How many samples the proxy needs."""
    reads_data: ClassVar[bool] = True
    """Whether what the example input holds matters, or its shape alone."""

    def __init__(
        self,
        space: Space | None,
        example_input: ExampleLike,
        *,
        name: str | None = None,
        seed: int = 0,
        repeats: int = 1,
        resolution: str | None = "resolution",
    ) -> None:
        super().__init__(self.metric if name is None else name, space=space, kind="measured")
        if space is not None and not space.buildable:
            raise ProfilerError(
                f"{type(self).__name__} builds the networks of {space!r}, which was made without `build`; "
                "pass Space(choices, build=function)"
            )
        self.batch = Batch.of(example_input, space, resolution)
        if self.batch.size < self.least_batch:
            raise ProfilerError(
                f"{type(self).__name__} compares samples with each other, so the example input needs at least "
                f"{self.least_batch} of them (16 to 128 are common), got {self.batch.example.shapes()}"
            )
        self.seed = check_whole(type(self).__name__, "seed", seed, 0)
        self.repeats = check_whole(type(self).__name__, "repeats", repeats, 1)
        self._values: dict[bytes, float] = {}

    @property
    def floor(self) -> float:
        """What stands for a value that is no finite number: the least that the proxy can take."""
        return 0.0

    @abstractmethod
    def _score(self, model: nn.Module, architecture: Architecture | None, repeat: int) -> float:
        """Return the score of a network; it may be changed, and a score that is not finite becomes `floor`.

        Args:
            model: A network of its own for this call, in eval mode.
            architecture: The architecture that it was built from; None for a network outside any space.
            repeat: The number of the draw, from 0.
        """

    def inputs(self, architecture: Architecture | None, repeat: int) -> ExampleInput:
        """Return the mini-batch of one draw, as the arguments of a forward pass."""
        return self.batch.drawn(self.seed, repeat, architecture)

    def _value(self, row: Codes) -> float:
        key = row.tobytes()
        if key not in self._values:
            space = self._space()
            architecture = space.decode(row)
            total = 0.0
            for repeat in range(self.repeats):
                with _random(seed_of(self.seed, repeat, WEIGHTS)):
                    model = space.build(architecture)
                    total += self._finite(model, architecture, repeat)
            if len(self._values) >= REMEMBERED:
                del self._values[next(iter(self._values))]
            self._values[key] = total / self.repeats
        return self._values[key]

    def _profile(self, architecture: Architecture) -> float:
        return self._value(self._space().encode(architecture))

    def _profile_batch(self, candidates: Candidates) -> list[float]:
        return [self._value(row) for row in candidates.codes]

    def _profile_model(self, model: nn.Module) -> float:
        total = 0.0
        for repeat in range(self.repeats):
            with _random(seed_of(self.seed, repeat, WEIGHTS)):
                try:
                    own = copy.deepcopy(model)
                except Exception as error:
                    raise ProfilerError(
                        f"{self!r} scores a copy of the network, and copying a {type(model).__name__} raised "
                        f"{type(error).__name__}: {error}"
                    ) from error
                total += self._finite(own, None, repeat)
        return total / self.repeats

    def _finite(self, model: nn.Module, architecture: Architecture | None, repeat: int) -> float:
        """Return the score of a network, or `floor`."""
        try:
            model.cpu().eval().requires_grad_(True)
            value = float(self._score(model, architecture, repeat))
        except NasmwError:
            raise
        except Exception as error:
            what = f"a {type(model).__name__}" if architecture is None else f"the network of {dict(architecture)!r}"
            raise ProfilerError(
                f"{self!r} cannot score {what} on a batch of {self.batch.shaped(architecture).shapes()}: "
                f"{type(error).__name__}: {error}"
            ) from error
        return value if math.isfinite(value) else self.floor

    def _settings(self) -> list[str]:
        """Return what else the value depends on, as text."""
        return []

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_values": {}}  # what was computed can be computed again

    def __repr__(self) -> str:
        data = self.batch.describe() if self.reads_data else f"inputs {self.batch.example.shapes()}"
        draws = [f"seed {self.seed}"] + ([f"{self.repeats} repeats"] if self.repeats > 1 else [])
        details = ", ".join([data, *self._settings(), *draws])
        return f"<{type(self).__name__} {self.name!r}: {details}>"


@contextlib.contextmanager
def _random(seed: int) -> Iterator[None]:
    """Run what follows with gradients and under another random state of PyTorch."""
    with torch.inference_mode(False), torch.enable_grad(), torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield


def check_whole(owner: str, argument: str, value: object, least: int) -> int:
    """Return a whole number.

    Raises:
        ValueError: If it is none, or below `least`.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"{owner}({argument}=...) takes a whole number of at least {least}, got {value!r}")
    return value


def normalise_by_batch(model: nn.Module) -> None:
    """Let batch norm take mean and variance from the batch, as in training."""
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            module.train()


def logits(model: nn.Module, example: ExampleInput) -> Tensor:
    """Return what a network makes of a batch.

    Raises:
        ProfilerError: If it is not one tensor of floats.
    """
    output = model(*example.args, **example.kwargs)
    if not isinstance(output, Tensor) or not output.is_floating_point():
        raise ProfilerError(
            f"zero-cost proxies score networks that return one tensor of floats, and a {type(model).__name__} returned "
            f"{f'{output.dtype} numbers' if isinstance(output, Tensor) else f'a {type(output).__name__}'}; let `build` "
            "wrap it in a module that returns the logits"
        )
    return output


def weights_of(model: nn.Module) -> list[nn.Parameter]:
    """Return the weights of a network: its parameters with two axes or more, so no biases and no norms.

    Raises:
        ProfilerError: If there are none.
    """
    found = [weight for weight in model.parameters() if weight.ndim > 1 and weight.is_floating_point()]
    if not found:
        raise ProfilerError(
            f"this proxy sums over weights, and a {type(model).__name__} has no parameter with two axes"
        )
    return found
