"""The mini-batch that a proxy runs networks on: given or drawn, in the size that an architecture wants."""

from __future__ import annotations

import hashlib
from typing import Any

import attrs
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils import _pytree as pytree

from nasmw.candidates import Architecture
from nasmw.errors import ProfilerError
from nasmw.profilers.inputs import ExampleInput, ExampleLike, check_resolution
from nasmw.space import Space

__all__ = ["WEIGHTS", "Batch", "digest", "generator", "seed_of"]

WEIGHTS, INPUTS, TARGETS, DRAWS = range(4)
"""What random numbers are for; each has a stream of its own."""


def seed_of(seed: int, repeat: int, stream: int) -> int:
    """Return the seed of one stream of random numbers of one repeat."""
    return int(np.random.SeedSequence((seed, repeat, stream)).generate_state(1, np.uint64)[0] >> 1)


def generator(seed: int, repeat: int, stream: int) -> torch.Generator:
    """Return a generator of its own for one stream of one repeat."""
    return torch.Generator().manual_seed(seed_of(seed, repeat, stream))


def digest(tensor: Tensor) -> str:
    """Return some letters that tell the values of a tensor from others."""
    values = tensor.detach().cpu().contiguous()
    return hashlib.sha256(f"{values.dtype}{tuple(values.shape)}".encode() + values.numpy().tobytes()).hexdigest()[:8]


def _is_noise(leaf: Any) -> bool:
    """Return whether a tensor stands for its shape alone."""
    return isinstance(leaf, Tensor) and leaf.is_floating_point() and not bool(leaf.any())


@attrs.frozen(eq=False)
class Batch:
    """One mini-batch: what is given, with tensors of zeros as the place of normal numbers.

    Attributes:
        example: The arguments of a forward pass.
        resolution: The choice whose option is the height and width of the images, or None.
        size: The number of samples: the first axis of the first tensor.
    """

    example: ExampleInput
    resolution: str | None
    size: int

    @classmethod
    def of(cls, example: ExampleLike, space: Space | None, resolution: str | None) -> Batch:
        """Return the batch that a user's example stands for.

        Raises:
            ProfilerError: If the first tensor has no axis or no samples, or no tensor holds floats.
            TypeError: If the example holds no tensor.
        """
        made = ExampleInput.of(example)
        tensors = made.tensors()
        if not tensors[0].ndim or not len(tensors[0]):
            raise ProfilerError(f"a mini-batch has at least one sample, got tensors of the shapes {made.shapes()}")
        if not any(tensor.is_floating_point() for tensor in tensors):
            raise ProfilerError(f"a mini-batch needs a tensor of floats, got {made.describe()}")
        args, kwargs = pytree.tree_map(_kept, (made.args, made.kwargs))
        return cls(ExampleInput(args, kwargs), check_resolution(space, resolution), len(tensors[0]))

    def drawn(self, seed: int, repeat: int, architecture: Architecture | None) -> ExampleInput:
        """Return the arguments of a forward pass: given images in the size wanted, normal numbers for zeros.

        Args:
            seed: The seed of the profiler.
            repeat: Which draw it is.
            architecture: The architecture, which may say the size; None for a network outside any space.
        """
        random = generator(seed, repeat, INPUTS)
        example = self.shaped(architecture)

        def filled(leaf: Any) -> Any:
            return torch.randn(leaf.shape, generator=random, dtype=leaf.dtype) if _is_noise(leaf) else leaf

        args, kwargs = pytree.tree_map(filled, (example.args, example.kwargs))
        return ExampleInput(args, kwargs)

    def shaped(self, architecture: Architecture | None) -> ExampleInput:
        """Return the arguments in the size that an architecture says."""
        if architecture is None or self.resolution is None:
            return self.example
        wanted = architecture[self.resolution]
        size = (wanted, wanted) if isinstance(wanted, int) else tuple(wanted)
        placed = pytree.tree_leaves((self.example.at(size).args, self.example.at(size).kwargs))
        leaves, structure = pytree.tree_flatten((self.example.args, self.example.kwargs))
        args, kwargs = pytree.tree_unflatten(
            [_resized(leaf, place, size) for leaf, place in zip(leaves, placed, strict=True)], structure
        )
        return ExampleInput(args, kwargs)

    def describe(self) -> str:
        """Return shapes and origin of the batch as text."""
        return ", ".join(
            f"{tuple(tensor.shape)} {'noise' if _is_noise(tensor) else f'data {digest(tensor)}'}"
            for tensor in self.example.tensors()
        )


def _kept(leaf: Any) -> Any:
    return leaf.detach().cpu().clone() if isinstance(leaf, Tensor) else leaf


def _resized(leaf: Any, place: Any, size: tuple[int, ...]) -> Any:
    """Return a given image in another size, by interpolation; zeros stay zeros."""
    if leaf is place or not isinstance(leaf, Tensor):
        return leaf
    if leaf.shape == place.shape or _is_noise(leaf) or leaf.ndim != 4 or not leaf.is_floating_point():
        return place
    return F.interpolate(leaf, size=size, mode="bilinear", antialias=True)
