"""Repeat: modules one after the other, a chosen number of them."""

from __future__ import annotations

import copy
import operator
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from torch import nn

from nasmw.errors import SpaceError
from nasmw.nn.construction import Building, Construction, Key, current
from nasmw.nn.decisions import Deciding, made, module_of
from nasmw.nn.switch import total
from nasmw.nn.values import Value, ValueChoice, combinations, resolved

__all__ = ["Repeat"]


class Repeat(Deciding):
    """Modules one after the other, a chosen number of them; a built network has a `torch.nn.Sequential` there.

    Args:
        blocks: What is repeated: a function of the position that makes a module, a list of modules or functions
            without arguments, one for each position, or one module, which is copied (the choices in it are then made
            together).
        depth: The number of modules: a pair of the least and the greatest number, a list of three numbers or more, an
            integer, or a value that is chosen.
        label: The name of the choice of a depth; None: it is called by its path, with ``.depth``.

    What a block chooses matters only where the block is there.

    Raises:
        SpaceError: If the depth is no such thing, there are too few blocks, one is no module, or it is made outside a
            model space.

    Example:
        >>> from nasmw.nn import LayerChoice, Linear, ModelSpace
        >>> class Net(ModelSpace):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.blocks = Repeat(lambda at: LayerChoice([Linear(4, 4), Linear(4, 4, bias=False)]), (1, 3))
        ...
        ...     def forward(self, x):
        ...         return self.blocks(x)
        >>> space = Net()
        >>> space.size, space.names
        (14, ('blocks.depth', 'blocks.0', 'blocks.1', 'blocks.2'))
        >>> dict(space.choices[3].when)
        {'blocks.depth': (3,)}
    """

    def __new__(cls, blocks: Any, depth: Any, *, label: str | None = None) -> Any:
        """Return the module, or the blocks of the chosen depth where an architecture is built."""
        what = f"the repetition {label!r}" if label else "a repetition"
        construction = current(what)
        if isinstance(construction, Building):
            at = construction.key()
            options = _depths(depth, what)
            number: int = depth if options is None else construction.option(label, options)
            return nn.Sequential(*[_block(blocks, index, construction, at, what) for index in range(number)])
        return super().__new__(cls)

    def __init__(self, blocks: Any, depth: Any, *, label: str | None = None) -> None:
        super().__init__()
        what = f"the repetition {label!r}" if label else "a repetition"
        construction = current(what)
        at = construction.key()
        options = _depths(depth, what)
        if options is None and label is not None:
            raise SpaceError(f"{what} has a depth with a name of its own, or a fixed one; give no label")
        self.depth: Value | int = depth if options is None else ValueChoice(options, label=label)
        for index in range(max(self._possible(what))):
            self._modules[str(index)] = _block(blocks, index, construction, at, what)

    def _possible(self, what: str) -> list[int]:
        if not isinstance(self.depth, Value):
            return [self.depth]
        numbers = [resolved(self.depth, chosen) for chosen in combinations(self.depth, f"the depth of {what}")]
        for number in numbers:
            _check_depth(number, what)
        return numbers

    @property
    def blocks(self) -> list[nn.Module]:
        """The blocks of the greatest depth."""
        return [block for block in self._modules.values() if block is not None]

    def decided_by(self) -> Iterator[tuple[str, Value]]:
        """Yield the depth."""
        if isinstance(self.depth, Value):
            yield "depth", self.depth

    def branches(self) -> Iterator[tuple[str, nn.Module, Value | None, Callable[[Any], bool]]]:
        """Yield the blocks, each under the condition that the depth reaches it."""
        depth = self.depth if isinstance(self.depth, Value) else None
        for index, block in enumerate(self.blocks):
            yield str(index), block, depth, partial(operator.lt, index)

    def inherit(self, built: nn.Module, value: Callable[[Value], Any]) -> Iterator[tuple[nn.Module, nn.Module]]:
        """Yield the blocks that are there."""
        yield from zip(self.blocks, built._modules.values(), strict=False)

    def forward(self, x: Any) -> Any:
        """Run the blocks of the chosen depth, or a mixture of the outputs after several depths."""
        runs = self._switch.combinations(self.depth)
        depths = [resolved(self.depth, run.chosen) for run in runs]
        outputs = [x]
        for block in self.blocks[: max(depths)]:
            outputs.append(block(outputs[-1]))
        mixed = ((run.weight, outputs[depth]) for run, depth in zip(runs, depths, strict=True))
        return total(mixed, f"the repetition {self._path!r}")

    def extra_repr(self) -> str:
        """Return the depth."""
        return f"depth={self.depth!r}"


def _check_depth(depth: object, what: str) -> None:
    if isinstance(depth, bool) or not isinstance(depth, int) or depth < 0:
        raise SpaceError(f"the depth of {what} is a number of blocks, 0 or more, got {depth!r}")


def _depths(depth: Any, what: str) -> tuple[int, ...] | None:
    """Return the depths to choose from, or None where the depth is a number or a value already."""
    if isinstance(depth, Value):
        return None
    if not isinstance(depth, (tuple, list, range)):
        _check_depth(depth, what)
        return None
    for number in depth:
        _check_depth(number, what)
    if len(depth) == 2 and depth[0] <= depth[1]:
        return tuple(range(depth[0], depth[1] + 1))
    if not len(depth) or len(set(depth)) < len(depth):
        raise SpaceError(f"the depth of {what} is a pair of the least and the greatest number of blocks, got {depth!r}")
    return tuple(depth)


def _block(blocks: Any, index: int, construction: Construction, at: Key, what: str) -> nn.Module:
    of = f"block {index} of {what}"
    if isinstance(blocks, nn.Module) and not isinstance(blocks, nn.ModuleList):
        return copy.deepcopy(blocks)
    with construction.within(at, index):
        if isinstance(blocks, (list, tuple, nn.ModuleList)):
            if index >= len(blocks):
                raise SpaceError(f"{what} needs a block for each depth and has {len(blocks)} of them")
            return made(blocks[index], of)
        if callable(blocks):
            return module_of(blocks(index), f"what the function for {of} returns")
    raise SpaceError(f"{what} repeats a function of the position, a list of modules or a module, got {blocks!r}")
