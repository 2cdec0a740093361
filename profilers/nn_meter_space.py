"""The kernels of a space: of its parts, where fusion stays within them, else of whole networks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterator, Mapping
from functools import lru_cache
from typing import Any

import attrs
import numpy as np
import torch
from tqdm import tqdm

from nasmw.candidates import Architecture
from nasmw.devices.networks import input_of
from nasmw.errors import ProfilerError
from nasmw.profilers.inputs import ExampleInput, ExampleLike, check_resolution
from nasmw.profilers.lookup import required_layers
from nasmw.profilers.nn_meter_kernels import Kernel, kernels_of
from nasmw.space import Space
from nasmw.spaces.layers import Placed, Size

__all__ = ["Networks", "Parts", "parts_of"]

CHECKED = 6
Rules = Mapping[str, Any]


@attrs.frozen(eq=False)
class Networks:
    """The networks of a space, each with the image that it is run on.

    Attributes:
        space: The space, which builds networks.
        example: What they are run on; None takes an image of the size that the space describes.
        resolution: The choice that resizes the example, or None.
    """

    space: Space
    example: torch.Tensor | None
    resolution: str | None

    @classmethod
    def of(cls, space: Space, example_input: ExampleLike | None, resolution: str | None) -> Networks:
        """Return the networks of a space.

        Raises:
            ProfilerError: If the space builds none, or neither it nor the example says what they are run on.
        """
        if not isinstance(space, Space):
            raise TypeError(f"nn-Meter's profiler takes a Space first, got {type(space).__name__}")
        if not space.buildable:
            raise ProfilerError(f"nn-Meter looks into networks, and {space!r} was made without `build`")
        if example_input is None:
            if not described(space):
                raise ProfilerError(
                    f"{space!r} does not describe its layers, so say what its networks are run on: "
                    "example_input=torch.zeros(1, 3, 224, 224), for instance"
                )
            return cls(space, None, None)
        example = ExampleInput.of(example_input)
        if len(example.args) != 1 or example.kwargs or not isinstance(example.args[0], torch.Tensor):
            raise ProfilerError(f"nn-Meter knows networks with one input, got an example of {example.shapes()}")
        return cls(space, example.args[0], check_resolution(space, resolution))

    def input(self, architecture: Architecture) -> torch.Tensor:
        """Return what the network of an architecture is run on."""
        if self.example is None:
            return torch.zeros(1, 3, *next(self.layers(architecture)).image)
        return input_of(self.space, architecture, self.example, self.resolution)

    def layers(self, architecture: Architecture) -> Iterator[Placed]:
        """Yield the layers that the space describes of one architecture."""
        codes = self.space.encode(architecture)
        for part in self.space.parts() if self.space.parts else ():
            columns = [self.space.column(name) for name in part.scope]
            chosen = [self.space.choices[column].options[codes[column]] for column in columns]
            if part.layers is not None:
                yield from part.layers(*chosen)

    def kernels(self, architecture: Architecture, rules: Rules) -> list[Kernel]:
        """Return the kernels of the network of an architecture."""
        complete = self.space.decode(self.space.encode(architecture))
        with torch.random.fork_rng(devices=[]):
            return kernels_of(self.space.build(complete), self.input(complete), rules)


def described(space: Space) -> bool:
    """Return whether a space describes the layers of all its parts."""
    parts = list(space.parts()) if space.parts else []
    return bool(parts) and all(part.layers is not None for part in parts)


@attrs.frozen(eq=False)
class Parts:
    """The kernels of a space whose layers keep theirs to themselves.

    Attributes:
        kernels: The kernels of each layer where it is.
        rest: The kernels between the layers, the same ones in every network.
    """

    kernels: Mapping[Placed, tuple[Kernel, ...]]
    rest: tuple[Kernel, ...]

    @property
    def distinct(self) -> dict[Kernel, None]:
        """Each kernel that some network has, once."""
        return dict.fromkeys([*(kernel for found in self.kernels.values() for kernel in found), *self.rest])


def parts_of(networks: Networks, rules: Rules, *, seed: int = 0, progress: bool = True) -> Parts | None:
    """Return the kernels of the parts of a space.

    A few random networks are taken apart as wholes, and what they have beyond the kernels of their layers is compared.

    Args:
        networks: The networks of the space.
        rules: What is fused.
        seed: What those networks are drawn from.
        progress: Whether to show a progress bar.

    Returns:
        None where the space does not describe its layers, or where kernels reach from one layer into another: where
        networks differ in what they have beyond the kernels of their layers, or lack some of these.
    """
    space = networks.space
    if not described(space):
        return None
    kernels = {}
    layers = required_layers(space)
    for placed in tqdm(layers, desc="kernels of layers", unit=" layers", disable=not progress, delay=1.0):
        kernels[placed] = _of_layer(placed, rules)
    rests = []
    for architecture in space.sample(CHECKED, np.random.default_rng(seed)):
        rest = Counter(networks.kernels(architecture, rules))
        rest.subtract(Counter(kernel for placed in networks.layers(architecture) for kernel in kernels[placed]))
        rests.append({kernel: number for kernel, number in rest.items() if number})
    if any(rest != rests[0] for rest in rests) or any(number < 0 for number in rests[0].values()):
        return None
    return Parts(kernels, tuple(Counter(rests[0]).elements()))


def _of_layer(placed: Placed, rules: Rules) -> tuple[Kernel, ...]:
    layer: Any = placed.layer
    return _kernels(layer, placed.at, tuple(sorted(rules.items())))


@lru_cache(maxsize=1 << 16)
def _kernels(layer: Hashable, at: Size | int, rules: tuple[tuple[str, Any], ...]) -> tuple[Kernel, ...]:
    made: Any = layer
    channels = getattr(layer, "inputs", None) or getattr(layer, "channels", None)
    if channels is None:
        raise ProfilerError(f"{layer!r} says neither `inputs` nor `channels`, so what it is run on is not known")
    shape = (1, channels, *at) if isinstance(at, tuple) else (1, *([at] if at > 1 else []), channels)
    with torch.random.fork_rng(devices=[]):
        return tuple(kernels_of(made.module(), torch.zeros(shape), dict(rules)))
