"""Value choices: numbers and other values that are chosen, and what is computed from them."""

from __future__ import annotations

import itertools
import math
import operator
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from typing import Any, NoReturn, TypeVar

import torch

from nasmw.choice import Choice
from nasmw.errors import SpaceError
from nasmw.nn.construction import Building, Drafting, Key, current

__all__ = ["Value", "ValueChoice", "choice", "derive", "maximum", "minimum"]

T = TypeVar("T")
MAX_COMBINATIONS = 50_000


class OpenValueError(SpaceError):
    """A value was asked for where it is still open, or several are mixed."""


class Value:
    """A value that is chosen, or computed from such values.

    It may be an argument of the layers of `nasmw.nn`, the depth of a `Repeat`, or an attribute of a module. ``+``,
    ``-``, ``*``, ``/``, ``//``, ``%``, ``**`` with numbers and other values give values; `maximum`, `minimum` and
    `derive` do the rest. It has no size while a space is drafted: comparing it, or asking whether it is true, is an
    error.
    """

    leaves: tuple[ValueChoice, ...]

    def evaluate(self, chosen: Mapping[Hashable, Any]) -> Any:
        """Return the value.

        Args:
            chosen: The option of each choice by its identity.

        Raises:
            KeyError: If a choice is missing.
        """
        return self._evaluate(chosen, {})

    def _evaluate(self, chosen: Mapping[Hashable, Any], known: dict[int, Any]) -> Any:
        raise NotImplementedError

    def __add__(self, other: Any) -> Value:
        return Computed(operator.add, self, other)

    def __radd__(self, other: Any) -> Value:
        return Computed(operator.add, other, self)

    def __sub__(self, other: Any) -> Value:
        return Computed(operator.sub, self, other)

    def __rsub__(self, other: Any) -> Value:
        return Computed(operator.sub, other, self)

    def __mul__(self, other: Any) -> Value:
        return Computed(operator.mul, self, other)

    def __rmul__(self, other: Any) -> Value:
        return Computed(operator.mul, other, self)

    def __truediv__(self, other: Any) -> Value:
        return Computed(operator.truediv, self, other)

    def __rtruediv__(self, other: Any) -> Value:
        return Computed(operator.truediv, other, self)

    def __floordiv__(self, other: Any) -> Value:
        return Computed(operator.floordiv, self, other)

    def __rfloordiv__(self, other: Any) -> Value:
        return Computed(operator.floordiv, other, self)

    def __mod__(self, other: Any) -> Value:
        return Computed(operator.mod, self, other)

    def __rmod__(self, other: Any) -> Value:
        return Computed(operator.mod, other, self)

    def __pow__(self, other: Any) -> Value:
        return Computed(operator.pow, self, other)

    def __rpow__(self, other: Any) -> Value:
        return Computed(operator.pow, other, self)

    def __neg__(self) -> Value:
        return Computed(operator.neg, self)

    def __abs__(self) -> Value:
        return Computed(abs, self)

    def __round__(self, *digits: int) -> Value:
        return Computed(round, self, *digits)

    def __floor__(self) -> Value:
        return Computed(math.floor, self)

    def __ceil__(self) -> Value:
        return Computed(math.ceil, self)

    def __trunc__(self) -> Value:
        return Computed(math.trunc, self)

    def __getitem__(self, at: Any) -> Value:
        return Computed(operator.getitem, self, at)

    __iter__ = None  # with `__getitem__` alone, it would be iterated over without end

    def _refuse(self, what: str) -> NoReturn:
        raise OpenValueError(
            f"{what} was asked of {self!r}, which is open until an architecture is chosen; compute with it by "
            "arithmetic, nasmw.nn.maximum, nasmw.nn.minimum or nasmw.nn.derive(function, value), and let a "
            "nasmw.nn.LayerChoice decide between layers"
        )

    def __bool__(self) -> bool:
        self._refuse("whether it is true")

    def __int__(self) -> int:
        self._refuse("its integer")

    def __index__(self) -> int:
        self._refuse("its integer")

    def __float__(self) -> float:
        self._refuse("its number")

    def __lt__(self, other: object) -> bool:
        self._refuse("a comparison")

    __le__ = __gt__ = __ge__ = __lt__

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        self._refuse("a comparison")

    def __ne__(self, other: object) -> bool:
        if self is other:
            return False
        self._refuse("a comparison")

    __hash__ = object.__hash__


class ValueChoice(Value):
    """A value that is chosen from some options.

    Args:
        options: The values to choose from.
        label: The name of the choice; values with one label are chosen together. None: it is called by the path of the
            module that uses it, and the argument.

    Raises:
        SpaceError: If there is no option, or it is made outside a model space.
    """

    def __new__(cls, options: Iterable[Any] = (), *, label: str | None = None) -> Any:
        """Return the choice, or the chosen value where an architecture is built."""
        construction = current(f"the value choice {label!r}" if label else "a value choice")
        checked = Choice(label or "value", options)
        if isinstance(construction, Building):
            return construction.option(label, checked.options)
        made = super().__new__(cls)
        made.label = label
        made.options = checked.options
        made.key = construction.key()
        made.leaves = (made,)
        if isinstance(construction, Drafting):
            construction.values[made.identity] = made
        return made

    label: str | None
    options: tuple[Any, ...]
    key: Key

    def __deepcopy__(self, memo: dict[int, Any]) -> ValueChoice:
        return self  # copies of a module choose together

    def __reduce__(self) -> tuple[Any, ...]:
        return _restored, (self.label, self.options, self.key)

    @property
    def identity(self) -> Hashable:
        """What choices that are made together have in common."""
        return self.key if self.label is None else self.label

    def _evaluate(self, chosen: Mapping[Hashable, Any], known: dict[int, Any]) -> Any:
        return chosen[self.identity]

    def __repr__(self) -> str:
        return f"the choice {self.label!r} of {self.options!r}" if self.label else f"the choice of {self.options!r}"


def _restored(label: str | None, options: tuple[Any, ...], key: Key) -> ValueChoice:
    made = object.__new__(ValueChoice)
    made.label, made.options, made.key = label, options, key
    made.leaves = (made,)
    return made


class Computed(Value):
    """What a function gives for values.

    Args:
        function: The function.
        operands: Its arguments, values among them.
    """

    def __init__(self, function: Callable[..., Any], *operands: Any) -> None:
        if any(isinstance(operand, torch.Tensor) for operand in operands):
            value = next(operand for operand in operands if isinstance(operand, Value))
            value._refuse("a product or sum with a tensor")
        self.function = function
        self.operands = operands
        self.leaves = distinct(leaf for operand in operands for leaf in leaves_of(operand))

    def _evaluate(self, chosen: Mapping[Hashable, Any], known: dict[int, Any]) -> Any:
        if id(self) not in known:
            known[id(self)] = self.function(*[_resolved(operand, chosen, known) for operand in self.operands])
        return known[id(self)]

    def __repr__(self) -> str:
        return f"{getattr(self.function, '__name__', 'a function')}({', '.join(map(repr, self.operands))})"


def choice(label: str, options: Iterable[Any]) -> Any:
    """Return a value that is chosen from some options.

    Args:
        label: The name of the choice; values with one label are chosen together.
        options: The values to choose from.

    Raises:
        SpaceError: If there is no option, or it is made outside a model space.

    Example:
        >>> from nasmw.nn import Linear, ModelSpace
        >>> class Net(ModelSpace):
        ...     def __init__(self):
        ...         super().__init__()
        ...         hidden = choice("hidden", (8, 16))
        ...         self.inner = Linear(4, hidden)
        ...         self.outer = Linear(hidden, 2)
        ...
        ...     def forward(self, x):
        ...         return self.outer(self.inner(x))
        >>> Net().build({"hidden": 16}).outer
        Linear(in_features=16, out_features=2, bias=True)
    """
    if not isinstance(label, str):
        raise SpaceError(f"choice takes a label first and then the options, got {label!r}")
    return ValueChoice(options, label=label)


def derive(function: Callable[..., Any], *values: Any) -> Any:
    """Return what a function gives for values that are chosen.

    Args:
        function: The function; to be used by worker processes it must be importable (no lambda).
        values: Its arguments, some of which may be values that are chosen.
    """
    return Computed(function, *values) if is_open(values) else function(*values)


def maximum(*values: Any) -> Any:
    """Return the greatest of values, some of which may be values that are chosen."""
    return derive(max, *values)


def minimum(*values: Any) -> Any:
    """Return the least of values, some of which may be values that are chosen."""
    return derive(min, *values)


def leaves_of(template: Any) -> Iterator[ValueChoice]:
    """Yield the choices that a value depends on, or those of the values in a tuple, list or dictionary."""
    if isinstance(template, Value):
        yield from template.leaves
    elif isinstance(template, (tuple, list)):
        for item in template:
            yield from leaves_of(item)
    elif isinstance(template, dict):
        for item in template.values():
            yield from leaves_of(item)


def is_open(template: Any) -> bool:
    """Return whether a template depends on a choice."""
    return next(leaves_of(template), None) is not None


def distinct(leaves: Iterable[ValueChoice]) -> tuple[ValueChoice, ...]:
    """Return choices, each once."""
    found: dict[Hashable, ValueChoice] = {}
    for leaf in leaves:
        found.setdefault(leaf.identity, leaf)
    return tuple(found.values())


def resolved(template: Any, chosen: Mapping[Hashable, Any]) -> Any:
    """Return a template with every value in it, those in tuples, lists and dictionaries included, evaluated.

    Raises:
        KeyError: If a choice is missing.
    """
    return _resolved(template, chosen, {})


def _resolved(template: Any, chosen: Mapping[Hashable, Any], known: dict[int, Any]) -> Any:
    if isinstance(template, Value):
        return template._evaluate(chosen, known)
    if isinstance(template, (tuple, list)) and is_open(template):
        items = [_resolved(item, chosen, known) for item in template]
        return type(template)(*items) if hasattr(template, "_fields") else type(template)(items)
    if isinstance(template, dict) and is_open(template):
        return {name: _resolved(item, chosen, known) for name, item in template.items()}
    return template


def combinations(templates: Any, what: str) -> Iterator[dict[Hashable, Any]]:
    """Yield all combinations of options of the choices that some templates depend on.

    Raises:
        SpaceError: If there are very many.
    """
    leaves = distinct(leaves_of(templates))
    number = math.prod(len(leaf.options) for leaf in leaves)
    if number > MAX_COMBINATIONS:
        raise SpaceError(
            f"{what} depends on {len(leaves)} choices with {number} combinations; the limit is {MAX_COMBINATIONS}: "
            "let it depend on fewer"
        )
    names = [leaf.identity for leaf in leaves]
    for options in itertools.product(*[leaf.options for leaf in leaves]):
        yield dict(zip(names, options, strict=True))
