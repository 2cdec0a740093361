"""Networks of a space, ready to be exported and measured."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nasmw.devices.weights import sensible_weights
from nasmw.errors import DeviceError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from nasmw.candidates import Architecture
    from nasmw.space import Space

__all__ = ["check_network", "input_of", "network_of"]


def check_network(model: nn.Module, example: Tensor) -> None:
    """Check that a network and its example are something that can be exported for any device.

    Raises:
        TypeError: If they are no network and no tensor.
        DeviceError: If weights have no shape or no numbers yet, or are not in single precision: what a device computes
            in is its own business.
    """
    import torch
    from torch import nn

    if not isinstance(model, nn.Module):
        raise TypeError(f"a device takes a network, an nn.Module, got {type(model).__name__}")
    if not isinstance(example, torch.Tensor):
        raise TypeError(f"a device takes one tensor as the example of its input, got {type(example).__name__}")
    name = type(model).__name__
    for where, tensor in [*model.named_parameters(), *model.named_buffers(), ("the example", example)]:
        if isinstance(tensor, (nn.UninitializedParameter, nn.UninitializedBuffer)) or tensor.is_meta:
            raise DeviceError(f"{name} cannot be exported: {where} has no numbers yet; run the network once before")
        if tensor.is_floating_point() and tensor.dtype != torch.float32:
            raise DeviceError(
                f"{name} cannot be exported: {where} is {tensor.dtype}, and devices take single precision, whatever "
                "they compute in; pass model.float() and example.float()"
            )


def network_of(
    space: Space, architecture: Architecture, example_input: Tensor, resolution: str | None = "resolution"
) -> tuple[nn.Module, Tensor]:
    """Return the network of an architecture, with weights as measurements want them, and what to run it on.

    An architecture gives the same weights each time, and PyTorch's random state stays as it is.

    Args:
        space: The space.
        architecture: The architecture.
        example_input: A tensor of the shape that the networks take, with the batch size to measure.
        resolution: The choice whose option is the height and width of the input, where the space has it.

    Raises:
        BuildError: If the space cannot build it.
        DeviceError: If the network does not run on the input.
    """
    import torch

    complete = space.decode(space.encode(architecture))
    example = input_of(space, complete, example_input, resolution)
    with torch.random.fork_rng(devices=()):
        torch.default_generator.manual_seed(0)
        model = space.build(complete)
        try:
            return sensible_weights(model, example), example
        except Exception as error:
            raise DeviceError(
                f"the network of {complete!r} does not run on an input of shape {tuple(example.shape)}: "
                f"{type(error).__name__}: {error}"
            ) from error


def input_of(space: Space, architecture: Architecture, example_input: Tensor, resolution: str | None) -> Tensor:
    """Return the example input for an architecture: zeros of another size where a choice says so."""
    if resolution is None or resolution not in space.names:
        return example_input
    size = architecture[resolution]
    height, width = size if isinstance(size, tuple) else (size, size)
    return example_input.new_zeros((*example_input.shape[:-2], height, width))
