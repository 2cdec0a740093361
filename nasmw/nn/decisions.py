"""LayerChoice, InputChoice: modules that choose among modules and among inputs."""

from __future__ import annotations

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
from nasmw.nn.construction import Building, current
from nasmw.nn.switch import Switch, total
from nasmw.nn.values import Value, ValueChoice

__all__ = ["Deciding", "InputChoice", "LayerChoice", "Reduction", "made", "module_of"]

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


def made(option: object, what: str) -> nn.Module:
    """Return a module, or what the function that stands in its place makes."""
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
                return made(named[option], f"option {option!r} of {what}")
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
                self._modules[child_name(option)] = made(module, f"option {option!r} of {what}")

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
        if name in ("", "training"):
            raise SpaceError(f"no option of {what} can be called {name!r}: PyTorch allows no module of that name")
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
