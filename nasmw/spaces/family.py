"""Family: what a ready space is made of, namely its choices, its builder and the cost of each of its parts."""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import attrs
import numpy as np
import numpy.typing as npt
from torch import nn

from nasmw.choice import Choice
from nasmw.cost import CostTable
from nasmw.errors import SpaceError
from nasmw.space import Space
from nasmw.spaces.layers import Cost, Placed, Size, total

__all__ = ["Family", "Part", "positive", "tabulate"]


@attrs.frozen(eq=False)
class Part:
    """A part of a network whose cost depends on a few choices.

    Attributes:
        scope: The names of these choices; none for a part that every network has alike.
        cost: Takes one option of each of them, in order, and returns the cost for one input. Where one of the choices
            is inactive it is called with any of its options, so the choices that decide whether the part exists belong
            into the scope.
        layers: Takes the same and returns the layers that the part consists of, each where it is; None where they are
            not described.
    """

    scope: tuple[str, ...]
    cost: Callable[..., Cost]
    layers: Callable[..., Sequence[Placed]] | None = None

    @classmethod
    def of(cls, scope: tuple[str, ...], layers: Callable[..., Sequence[Placed]]) -> Part:
        """Return the part that consists of layers, whose costs add up to its cost."""
        return cls(scope, lambda *chosen: total(placed.cost() for placed in layers(*chosen)), layers)


class Family(ABC):
    """A ready space in the making. Subclasses are picklable values, and so is `Space` with their methods.

    A network and the cost that is declared for it follow from the same descriptions of layers: `build` makes modules
    of them, `parts` adds up their costs.
    """

    @property
    @abstractmethod
    def name(self) -> str:
        """The name of the space."""

    @property
    @abstractmethod
    def input_size(self) -> Size:
        """Height and width of the images that the networks are made for."""

    @abstractmethod
    def choices(self) -> Iterable[Choice]:
        """Return the choices of the space."""

    @abstractmethod
    def build(self, architecture: dict[str, Any]) -> nn.Module:
        """Return the network of an architecture."""

    @abstractmethod
    def parts(self, size: Size) -> Iterator[Part]:
        """Yield the parts whose costs add up to that of a network, on images of a size."""

    def space(self, **options: Any) -> Space:
        """Return the space; further options are those of `Space`."""
        tables = {"macs": self.macs, "params": self.params}
        return Space(self.choices(), self.build, name=self.name, tables=tables, parts=self.own_parts, **options)

    def own_parts(self) -> Iterator[Part]:
        """Yield the parts on images of the space's own size."""
        return self.parts(self.input_size)

    def macs(self, space: Space, input_shape: tuple[int, ...] | None = None) -> CostTable:
        """Return the multiply-adds for a batch of images of shape ``(n, 3, height, width)``, as an exact table.

        Raises:
            SpaceError: If the shape is that of no batch of images.
        """
        if input_shape is None:
            input_shape = (1, 3, *self.input_size)
        if len(input_shape) != 4 or input_shape[1] != 3 or min(input_shape) < 1:
            raise SpaceError(
                f"networks of {self.name!r} take images of shape (n, 3, height, width), got an input of shape "
                f"{tuple(input_shape)}"
            )
        batch, _, height, width = input_shape
        return self._table(space, "macs", (height, width)) * batch

    def params(self, space: Space, input_shape: tuple[int, ...] | None = None) -> CostTable:
        """Return the number of parameters as an exact table; it does not depend on the input."""
        return self._table(space, "params", self.input_size)

    def _table(self, space: Space, metric: str, size: Size) -> CostTable:
        def value(part: Part, *chosen: Any) -> int:
            number: int = getattr(part.cost(*chosen), metric)
            return number

        return CostTable(space, tabulate(space, self.parts(size), value, np.int64), name=metric)


def tabulate(
    space: Space, parts: Iterable[Part], value: Callable[..., float], dtype: npt.DTypeLike
) -> Iterator[tuple[tuple[str, ...], npt.NDArray[Any]]]:
    """Yield one term of a `CostTable` for each part, over those of its choices that it depends on.

    Args:
        space: The space that has the choices.
        parts: The parts of its networks.
        value: Takes a part and one option of each choice in its scope, returns a number.
        dtype: Of the numbers.
    """
    for part in parts:
        options = [space.choices[space.column(name)].options for name in part.scope]
        values = [value(part, *chosen) for chosen in itertools.product(*options)]
        table = np.array(values, dtype=dtype).reshape([len(some) for some in options])
        yield _without_constant_axes(part.scope, table)


def _without_constant_axes(scope: tuple[str, ...], table: npt.NDArray[Any]) -> tuple[tuple[str, ...], npt.NDArray[Any]]:
    """Return the table over those choices only that it depends on."""
    kept = []
    for axis, name in enumerate(scope):
        first = table.take([0], axis)
        if (table == first).all():
            table = first
        else:
            kept.append(name)
    return tuple(kept), table.reshape([n for n in table.shape if n > 1])


def positive(what: str, value: object) -> None:
    """Check that an argument of a ready space is a positive whole number.

    Raises:
        SpaceError: If it is not.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise SpaceError(f"`{what}` must be a positive whole number, got {value!r}")
