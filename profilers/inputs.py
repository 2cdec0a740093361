"""Example inputs: what a network is run on to be counted, and how it follows a choice of the resolution."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

import attrs
import torch
from torch.utils import _pytree as pytree

from nasmw.candidates import Architecture
from nasmw.errors import ProfilerError
from nasmw.space import Space

__all__ = ["ExampleInput", "ExampleLike", "check_resolution"]

ExampleLike: TypeAlias = "ExampleInput | torch.Tensor | tuple[Any, ...] | list[Any] | Mapping[str, Any]"


@attrs.frozen(eq=False, repr=False)
class ExampleInput:
    """The arguments of one forward pass.

    Attributes:
        args: The positional arguments.
        kwargs: The keyword arguments.
    """

    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    @classmethod
    def of(cls, example: ExampleLike) -> ExampleInput:
        """Return the arguments that a user's example stands for.

        Args:
            example: A tensor (the only argument), a tuple or list (the positional arguments) or a mapping (the keyword
                arguments). Only shapes and kinds matter; the batch size is the one that is counted.

        Raises:
            TypeError: If it is none of these, or holds no tensor.
        """
        if isinstance(example, ExampleInput):
            return example
        if isinstance(example, torch.Tensor):
            made = cls((example,), {})
        elif isinstance(example, (tuple, list)):
            made = cls(tuple(example), {})
        elif isinstance(example, Mapping) and all(isinstance(name, str) for name in example):
            made = cls((), dict(example))
        else:
            raise TypeError(
                "an example input is a tensor, a tuple of arguments or a mapping of keyword arguments, got "
                f"{type(example).__name__}"
            )
        if not made.tensors():
            raise TypeError("an example input needs at least one tensor, for instance torch.zeros(1, 3, 224, 224)")
        return made

    def tensors(self) -> list[torch.Tensor]:
        """Return the tensors among the arguments, those in nested tuples, lists and dictionaries included."""
        leaves = pytree.tree_leaves((self.args, self.kwargs))
        return [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]

    def at(self, resolution: int | tuple[int, int]) -> ExampleInput:
        """Return the same arguments with images of another size.

        The tensors with the most axes (three at least) are taken as images: their last two axes change, and what they
        hold becomes zeros.

        Args:
            resolution: Height and width, or one number for both, in pixels.
        """
        size = (resolution, resolution) if isinstance(resolution, int) else tuple(resolution)
        axes = max(tensor.ndim for tensor in self.tensors())
        if axes < 3:
            raise ProfilerError(
                f"cannot give the example input a resolution of {size}: its tensors have the shapes {self.shapes()}, "
                "and an image has three axes or more; pass resolution=None if that choice does not resize the input"
            )

        def resized(leaf: Any) -> Any:
            if isinstance(leaf, torch.Tensor) and leaf.ndim == axes and tuple(leaf.shape[-2:]) != size:
                return leaf.new_zeros((*leaf.shape[:-2], *size))
            return leaf

        args, kwargs = pytree.tree_map(resized, (self.args, self.kwargs))
        return ExampleInput(args, kwargs)

    def shapes(self) -> str:
        """Return the shapes of the tensors as text, for messages."""
        return ", ".join(str(tuple(tensor.shape)) for tensor in self.tensors())

    def describe(self) -> str:
        """Return the structure of the arguments as text, with shapes and dtypes for the tensors."""

        def shown(leaf: Any) -> str:
            return f"{leaf.dtype}{tuple(leaf.shape)}" if isinstance(leaf, torch.Tensor) else repr(leaf)

        return repr(pytree.tree_map(shown, (self.args, self.kwargs)))

    def __repr__(self) -> str:
        return f"<ExampleInput {self.shapes()}>"

    def for_architecture(self, architecture: Architecture, resolution: str | None) -> ExampleInput:
        """Return the arguments for one architecture, resized where a choice says how."""
        return self if resolution is None else self.at(architecture[resolution])


def check_resolution(space: Space | None, resolution: str | None) -> str | None:
    """Return the name of the choice that resizes the example input, or None where there is none.

    Args:
        space: The space, or None.
        resolution: The name of a choice; ``"resolution"`` is taken only where the space has a choice of that name.

    Raises:
        ProfilerError: If the choice's options are no sizes, or it is not always active.
        SpaceError: If the space has no such choice.
    """
    if space is None or resolution is None or (resolution == "resolution" and resolution not in space.names):
        return None
    choice = space.choices[space.column(resolution)]
    for option in choice.options:
        sizes = option if isinstance(option, tuple) else (option, option)
        if len(sizes) != 2 or not all(isinstance(size, int) and size > 0 for size in sizes):
            raise ProfilerError(
                f"choice {resolution!r} is to resize the example input, and its option {option!r} is no size in pixels "
                "(a number, or height and width); pass resolution=None if it means something else"
            )
    if choice.when:
        raise ProfilerError(f"choice {resolution!r} is to resize the example input, so it may have no condition")
    return resolution
