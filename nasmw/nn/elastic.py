"""Classes of layers whose arguments may be value choices: `elastic`, and what it returns."""

from __future__ import annotations

import inspect
from typing import Any, Generic, TypeVar

from torch import nn

from nasmw.errors import SpaceError
from nasmw.nn.elastic_module import ElasticModule, module_class
from nasmw.nn.rules import Rule, rule_for
from nasmw.nn.values import is_open

__all__ = ["Elastic", "elastic"]

M = TypeVar("M", bound=nn.Module)


class Elastic(Generic[M]):
    """A class of layers whose arguments may be value choices; `elastic` makes them.

    Called without value choices it makes a plain layer; with some, an `ElasticModule`, of which a built network has the
    plain layer again. `isinstance` treats it as the plain class, and so does a class statement that derives from it.

    Attributes:
        plain: The class of the plain layers.
        rule: How the greatest layer holds the smaller ones.
    """

    def __init__(self, plain: type[M], rule: Rule) -> None:
        self.plain = plain
        self.rule = rule
        self.__name__ = plain.__name__
        self.__doc__ = f"`{plain.__module__}.{plain.__qualname__}`, with arguments that may be value choices."

    def __call__(self, *args: Any, **kwargs: Any) -> M:
        """Return a layer."""
        if not is_open([args, kwargs]):
            return self.plain(*args, **kwargs)
        try:
            bound = inspect.signature(self.plain).bind(*args, **kwargs)
        except TypeError as error:
            raise TypeError(f"{self.plain.__name__}: {error}") from None
        bound.apply_defaults()
        variadic = {
            parameter.name
            for parameter in bound.signature.parameters.values()
            if parameter.kind in (parameter.VAR_POSITIONAL, parameter.POSITIONAL_ONLY)
        }
        if self.rule.positional and (given := bound.arguments.get("args")) and variadic == {"args"}:
            named = dict(zip(self.rule.positional, given, strict=False))
            if len(named) < len(given) or named.keys() & bound.kwargs.keys():
                raise TypeError(f"{self.plain.__name__} was given too many arguments, or one of them twice")
            return self(**named, **bound.kwargs)
        arguments = {name: value for name, value in bound.arguments.items() if name not in variadic}
        if is_open([bound.arguments.get(name) for name in variadic]):
            raise SpaceError(f"{self.plain.__name__} takes value choices as named arguments only")
        for parameter in bound.signature.parameters.values():
            if parameter.kind == parameter.VAR_KEYWORD:
                arguments.update(arguments.pop(parameter.name, {}))
        return module_class(self.plain)._of(arguments, self.rule)  # type: ignore[return-value]

    def __instancecheck__(self, instance: object) -> bool:
        return isinstance(instance, self.plain)

    def __subclasscheck__(self, subclass: type) -> bool:
        return issubclass(subclass, self.plain)

    def __mro_entries__(self, bases: tuple[Any, ...]) -> tuple[type, ...]:
        return (self.plain,)

    def __reduce__(self) -> tuple[Any, ...]:
        return Elastic, (self.plain, self.rule)

    def __repr__(self) -> str:
        return f"elastic({self.plain.__module__}.{self.plain.__qualname__})"


def elastic(plain: type[M], rule: Rule | None = None) -> Elastic[M]:
    """Return a class of layers whose arguments may be value choices.

    This is how a module of one's own takes value choices where it needs numbers: to make its parameters, say. A module
    that only hands its arguments on to layers of `nasmw.nn`, or uses them in `forward`, needs no such thing.

    Args:
        plain: The class. It is constructed with the greatest arguments, and with the chosen ones in a built network;
            it must make no choices itself.
        rule: Which arguments the greatest layer has, and which part of its tensors a smaller one uses. None: the
            greatest value of each argument, and leading parts.

    Raises:
        TypeError: If `plain` is no class of modules.

    Example:
        >>> import torch
        >>> from nasmw.nn import Linear, ModelSpace, choice, elastic
        >>> class Scale(torch.nn.Module):
        ...     def __init__(self, channels):
        ...         super().__init__()
        ...         self.factor = torch.nn.Parameter(torch.ones(channels))
        ...
        ...     def forward(self, x):
        ...         return x * self.factor
        >>> class Net(ModelSpace):
        ...     def __init__(self):
        ...         super().__init__()
        ...         width = choice("width", (4, 8))
        ...         self.inner, self.scale = Linear(2, width), elastic(Scale)(width)
        ...
        ...     def forward(self, x):
        ...         return self.scale(self.inner(x))
        >>> space = Net()
        >>> with space.activate({"width": 4}):
        ...     print(space(torch.zeros(1, 2)).shape)
        torch.Size([1, 4])
    """
    if not isinstance(plain, type) or not issubclass(plain, nn.Module):
        raise TypeError(f"elastic takes a class that derives from torch.nn.Module, got {plain!r}")
    if issubclass(plain, ElasticModule):
        raise TypeError(f"{plain.__name__} is elastic already")
    return Elastic(plain, rule_for(plain) if rule is None else rule)
