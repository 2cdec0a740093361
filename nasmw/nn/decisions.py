"""LayerChoice, InputChoice, Repeat: modules that choose among modules, among inputs, and a depth."""

from __future__ import annotations

import copy
import itertools
import math
import operator
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from nasmw.errors import SpaceError, did_you_mean
from nasmw.nn.construction import Building, Construction, Key, current
from nasmw.nn.switch import Switch, total
from nasmw.nn.values import Value, ValueChoice, combinations, resolved

__all__ = ["Deciding", "InputChoice", "LayerChoice", "Reduction", "Repeat"]

Reduction = Literal["sum", "mean", "concat", "none"]
Maker = Callable[[], nn.Module]
MAX_SUBSETS = 4096


class Deciding(nn.Module):
    """A module that a choice decides on; `LayerChoice`, `InputChoice`, `Repeat` and `Cell`."""

    _path: str = ""
    _switch: Switch

    def __init__(self) -> None:
        super().__init__()
        self._switch = Switch()

    @abstractmethod
    def decided_by(self) -> Iterator[tuple[str, Value]]:
        """Yield the values that this module depends on, each with what it is to the module."""

    def branches(self) -> Iterator[tuple[str, nn.Module, Value | None, Callable[[Any], bool]]]:
        """Yield the children: name, module, and for which values of which value it runs; None: always."""
        for name, child in self._modules.items():
            if child is not None:
                yield name, child, None, bool

    @abstractmethod
    def inherit(self, built: nn.Module, value: Callable[[Value], Any]) -> Iterator[tuple[nn.Module, nn.Module]]:
        """Yield the children that a built network has, each with the module that was built for it.

        Args:
            built: What was built for this module.
            value: Gives the value that a value has in the architecture.
        """

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        return object.__new__, (type(self),), self.__dict__.copy()


def module_of(made: object, what: str) -> nn.Module:
    """Return a module, which something has to be.

    Raises:
        SpaceError: If it is none.
    """
    if isinstance(made, nn.Module):
        return made
    raise SpaceError(f"{what} is a torch.nn.Module, or a function without arguments that makes one, got {made!r}")


def _make(option: object, what: str) -> nn.Module:
    if not isinstance(option, nn.Module) and callable(option):
        return module_of(option(), f"what the function for {what} returns")
    return module_of(option, what)


class LayerChoice(Deciding):
    """One of several modules.

    Args:
        options: The modules: by name in a dictionary, or in a list, where their numbers are their names. In the place
            of a module may stand a function without arguments that makes it: a network that is built then makes none
            of the others.
        label: The name of the choice; layer choices with one label and the same names choose together. None: it is
            called by its path.

    Raises:
        SpaceError: If there is no option, one is no module, or it is made outside a model space.

    Example:
        >>> import torch
        >>> from nasmw.nn import ModelSpace
        >>> class Net(ModelSpace):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.layer = LayerChoice({"linear": torch.nn.Linear(4, 4), "skip": torch.nn.Identity()}, label="op")
        ...
        ...     def forward(self, x):
        ...         return self.layer(x)
        >>> space = Net()
        >>> space.choices[0].options
        ('linear', 'skip')
        >>> space.build({"op": "skip"}).layer
        Identity()
    """

    def __new__(
        cls,
        options: Mapping[str, nn.Module | Maker] | Iterable[nn.Module | Maker],
        *,
        label: str | None = None,
        chosen: Any = None,
    ) -> Any:
        """Return the module, or the chosen one where an architecture is built."""
        what = f"the layer choice {label!r}" if label else "a layer choice"
        construction = current(what)
        named = _named(options, what)
        if isinstance(construction, Building):
            at = construction.key()
            option = construction.option(label, tuple(named)) if chosen is None else chosen
            with construction.within(at, option):
                return _make(named[option], f"option {option!r} of {what}")
        return super().__new__(cls)

    def __init__(
        self,
        options: Mapping[str, nn.Module | Maker] | Iterable[nn.Module | Maker],
        *,
        label: str | None = None,
        chosen: Any = None,
    ) -> None:
        super().__init__()
        what = f"the layer choice {label!r}" if label else "a layer choice"
        construction = current(what)
        named = _named(options, what)
        at = construction.key()
        self.choice: ValueChoice = ValueChoice(tuple(named), label=label) if chosen is None else chosen
        for option, module in named.items():
            with construction.within(at, option):
                self._modules[child_name(option)] = _make(module, f"option {option!r} of {what}")

    @property
    def label(self) -> str | None:
        """The name of the choice."""
        return self.choice.label

    @property
    def options(self) -> tuple[Any, ...]:
        """The names of the options."""
        return self.choice.options

    def __getitem__(self, option: Any) -> nn.Module:
        """Return the module of an option."""
        module = self._modules.get(child_name(option)) if option in self.options else None
        if module is None:
            raise KeyError(
                f"the layer choice {self._path!r} has no option {option!r}{did_you_mean(option, self.options)}"
            )
        return module

    def __len__(self) -> int:
        return len(self.options)

    def decided_by(self) -> Iterator[tuple[str, Value]]:
        """Yield the choice."""
        yield "", self.choice

    def branches(self) -> Iterator[tuple[str, nn.Module, Value | None, Callable[[Any], bool]]]:
        """Yield the options, each under the condition that it is chosen."""
        for option in self.options:
            yield child_name(option), self[option], self.choice, partial(operator.eq, option)

    def inherit(self, built: nn.Module, value: Callable[[Value], Any]) -> Iterator[tuple[nn.Module, nn.Module]]:
        """Yield the chosen module."""
        yield self[value(self.choice)], built

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Run the chosen module, or a mixture of them."""
        runs = self._switch.combinations(self.choice)
        what = f"the layer choice {self._path!r}"
        return total(((run.weight, self[run.chosen[self.choice.identity]](*args, **kwargs)) for run in runs), what)

    def extra_repr(self) -> str:
        """Return the label."""
        return f"label={self.label!r}"


def child_name(option: object) -> str:
    """Return the name of the child module of an option."""
    return str(option).replace(".", "_")


def _named(options: Any, what: str) -> dict[Any, Any]:
    if isinstance(options, (Mapping, nn.ModuleDict)):
        named: dict[Any, Any] = dict(options.items())
    elif isinstance(options, Iterable) and not isinstance(options, (str, bytes)):
        named = dict(enumerate(options))
    else:
        raise SpaceError(f"{what} takes a dictionary or a list of modules, got {options!r}")
    if not named:
        raise SpaceError(f"{what} has no options; give at least one module")
    for name in named:
        if not isinstance(name, (str, int)) or len({child_name(other) for other in named}) < len(named):
            raise SpaceError(f"the options of {what} are named by distinct strings, got {list(named)}")
    for name, option in named.items():
        if not callable(option):
            module_of(option, f"option {name!r} of {what}")
    return named


class InputChoice(Deciding):
    """One or several of some inputs.

    `forward` takes the list of the inputs.

    Args:
        n_candidates: The number of inputs.
        n_chosen: How many of them are chosen; None: any number, one at least.
        reduction: What is done with several: ``"sum"``, ``"mean"``, ``"concat"`` (along axis 1) or ``"none"``, which
            returns the list of them. A single input is returned as it is, unless the reduction is ``"none"``.
        label: The name of the choice; None: it is called by its path.

    The options are numbers of inputs where one is chosen, and tuples of numbers, in ascending order, otherwise.

    Raises:
        SpaceError: If the numbers do not fit, there are very many subsets, the reduction is unknown, or it is made
            outside a model space.
    """

    def __new__(
        cls,
        n_candidates: int,
        n_chosen: int | None = 1,
        reduction: Reduction = "sum",
        *,
        label: str | None = None,
        chosen: Any = None,
    ) -> Any:
        """Return the module, or one that takes the chosen inputs where an architecture is built."""
        construction = current(f"the input choice {label!r}" if label else "an input choice")
        options = _subsets(n_candidates, n_chosen, reduction)
        if isinstance(construction, Building):
            option = construction.option(label, options) if chosen is None else chosen
            return ChosenInputs(option if isinstance(option, tuple) else (option,), reduction)
        return super().__new__(cls)

    def __init__(
        self,
        n_candidates: int,
        n_chosen: int | None = 1,
        reduction: Reduction = "sum",
        *,
        label: str | None = None,
        chosen: Any = None,
    ) -> None:
        super().__init__()
        options = _subsets(n_candidates, n_chosen, reduction)
        self.n_candidates = n_candidates
        self.reduction: Reduction = reduction
        self.choice: ValueChoice = ValueChoice(options, label=label) if chosen is None else chosen

    @property
    def label(self) -> str | None:
        """The name of the choice."""
        return self.choice.label

    @property
    def options(self) -> tuple[Any, ...]:
        """The numbers of inputs, or the tuples of them."""
        return self.choice.options

    def decided_by(self) -> Iterator[tuple[str, Value]]:
        """Yield the choice."""
        yield "", self.choice

    def inherit(self, built: nn.Module, value: Callable[[Value], Any]) -> Iterator[tuple[nn.Module, nn.Module]]:
        """Yield nothing: there are no weights."""
        yield from ()

    def forward(self, inputs: Sequence[Any]) -> Any:
        """Return the chosen inputs, or a mixture of them.

        Args:
            inputs: All inputs.
        """
        _check_number(inputs, self.n_candidates)
        runs = self._switch.combinations(self.choice)
        options = [run.chosen[self.choice.identity] for run in runs]
        indices = [option if isinstance(option, tuple) else (option,) for option in options]
        outputs = (
            (run.weight, reduced([inputs[at] for at in chosen], self.reduction))
            for run, chosen in zip(runs, indices, strict=True)
        )
        return total(outputs, f"the input choice {self._path!r}")

    def extra_repr(self) -> str:
        """Return the number of inputs, the reduction and the label."""
        return f"n_candidates={self.n_candidates}, reduction={self.reduction!r}, label={self.label!r}"


def _subsets(n: int, chosen: int | None, reduction: str) -> tuple[Any, ...]:
    if isinstance(n, bool) or not isinstance(n, int) or n < 1:
        raise SpaceError(f"an input choice is among a number of inputs, got n_candidates={n!r}")
    if chosen is not None and (isinstance(chosen, bool) or not isinstance(chosen, int) or not 1 <= chosen <= n):
        raise SpaceError(f"an input choice takes 1 to {n} of {n} inputs, got n_chosen={chosen!r}")
    if reduction not in get_args(Reduction):
        raise SpaceError(f"`reduction` is one of {get_args(Reduction)}, got {reduction!r}")
    if chosen == 1:
        return tuple(range(n))
    number = 2**n - 1 if chosen is None else math.comb(n, chosen)
    if number > MAX_SUBSETS:
        raise SpaceError(
            f"{number} sets of inputs can be chosen, the limit is {MAX_SUBSETS}; make an input choice of one input "
            "several times, or choose for each input between nn.Identity and nothing"
        )
    counts = range(1, n + 1) if chosen is None else [chosen]
    return tuple(subset for count in counts for subset in itertools.combinations(range(n), count))


def _check_number(inputs: Sequence[Any], wanted: int) -> None:
    if len(inputs) != wanted:
        raise SpaceError(f"an input choice among {wanted} inputs was given {len(inputs)}")


def reduced(inputs: list[Any], reduction: str) -> Any:
    """Return inputs as one tensor, or as the list that they are."""
    if reduction == "none":
        return inputs
    if len(inputs) == 1:
        return inputs[0]
    if reduction == "concat":
        return torch.cat(inputs, 1)
    summed: Tensor = inputs[0]
    for other in inputs[1:]:
        summed = summed + other
    return summed / len(inputs) if reduction == "mean" else summed


class ChosenInputs(nn.Module):
    """Some of the inputs that it is given, as a built network takes them.

    Args:
        indices: The numbers of the inputs.
        reduction: As for `InputChoice`.
    """

    def __init__(self, indices: tuple[int, ...], reduction: str) -> None:
        super().__init__()
        self.indices = indices
        self.reduction = reduction

    def forward(self, inputs: Sequence[Any]) -> Any:
        """Return the inputs, reduced."""
        return reduced([inputs[at] for at in self.indices], self.reduction)

    def extra_repr(self) -> str:
        """Return the numbers of the inputs and the reduction."""
        return f"indices={self.indices}, reduction={self.reduction!r}"


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
            return _make(blocks[index], of)
        if callable(blocks):
            return module_of(blocks(index), f"what the function for {of} returns")
    raise SpaceError(f"{what} repeats a function of the position, a list of modules or a module, got {blocks!r}")
