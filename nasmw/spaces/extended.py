"""A space with further choices that its networks do not depend on: bits of layers, settings of the training."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import Any

import attrs
from torch import nn

from nasmw.choice import Choice
from nasmw.errors import SpaceError
from nasmw.space import Space

__all__ = ["extended"]


def extended(space: Space, choices: Iterable[Choice], *, name: str | None = None) -> Space:
    """Return a space with further choices, which its networks are built without.

    Declared tables and descriptions of layers stay, so profilers of the space are made as fast as before. What the
    further choices say is for `evaluate` to read, and for profilers such as `ModelSizeProfiler` and `BitOpsProfiler`.

    Args:
        space: The space.
        choices: The further choices; their conditions may name choices of the space.
        name: How messages and logs call the new space; None takes the name of the old one.

    Raises:
        SpaceError: If there is no further choice, or it has the name of another one.

    Example:
        >>> from nasmw import Choice
        >>> from nasmw.spaces import proxylessnas
        >>> space = proxylessnas()
        >>> mixed = extended(space, [Choice("classifier.bits", (4, 8))])
        >>> mixed.size // space.size
        2
    """
    if not isinstance(space, Space):
        raise TypeError(f"`extended` takes a Space first, got {type(space).__name__}")
    further = tuple(choices)
    if not further:
        raise SpaceError(f"`extended` needs at least one further choice for {space!r}")
    inner = _Inner(space, frozenset(choice.name for choice in further if isinstance(choice, Choice)))
    return Space(
        [*space.choices, *further],
        inner.build if space.buildable else None,
        name=space.name if name is None else name,
        function_key=inner.function_key,
        tables=space.tables,
        parts=space.parts,
    )


@attrs.frozen
class _Inner:
    """The space without the further choices."""

    space: Space
    further: frozenset[str]

    def build(self, architecture: dict[str, Any]) -> nn.Module:
        """Return the network of an architecture; what notes reads of it goes on noting them."""
        own = dict(architecture)
        for name in self.further & own.keys():
            del own[name]
            del architecture[name]
        return self.space.build(own, seen_as=lambda complete: architecture)

    def function_key(self, architecture: dict[str, Any]) -> Hashable:
        """Return the key of the network, and the options of the further choices."""
        own = {name: option for name, option in architecture.items() if name not in self.further}
        options = tuple(sorted((name, repr(architecture[name])) for name in self.further & architecture.keys()))
        return self.space.function_keys(self.space.candidates([own]))[0], options
