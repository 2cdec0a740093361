"""What goes on while the `__init__` of a model space runs: a draft with all options, or a network of some of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from nasmw.errors import SpaceError

if TYPE_CHECKING:
    from nasmw.nn.values import ValueChoice

__all__ = ["Building", "Construction", "Drafting", "constructing", "current"]

Key = tuple[Hashable, ...]
"""Where in the course of an `__init__` a choice is made; the same in every draft and every build."""


class Construction:
    """The course of an `__init__`: numbers the choices that it makes, within nested scopes.

    What is made by a function that is only called where it is needed stands in a scope of its own, so the numbers of
    other choices do not depend on whether it was called.
    """

    def __init__(self) -> None:
        self._scope: Key = ()
        self._made: Counter[Key] = Counter()

    def key(self) -> Key:
        """Return a new key."""
        number = self._made[self._scope]
        self._made[self._scope] += 1
        return (*self._scope, number)

    @contextmanager
    def within(self, key: Key, part: Hashable) -> Iterator[None]:
        """Number the choices that are made meanwhile on their own, as those of a part of what a key stands for."""
        outer = self._scope
        self._scope = (*key, part)
        try:
            yield
        finally:
            self._scope = outer


class Drafting(Construction):
    """All options are made, and values that are chosen stay open.

    Attributes:
        values: The values that were made, by their identity.
    """

    def __init__(self) -> None:
        super().__init__()
        self.values: dict[Hashable, ValueChoice] = {}


class Building(Construction):
    """One architecture is made; values are those that it chooses.

    Args:
        architecture: The architecture; what is inactive is missing.
        names: The names of the choices by their keys.
    """

    def __init__(self, architecture: Mapping[str, Any], names: Mapping[Key, str]) -> None:
        super().__init__()
        self._architecture = architecture
        self._names = names

    def option(self, label: str | None, options: tuple[Any, ...]) -> Any:
        """Return the option of the choice that is being made; the first one where it does not matter."""
        key = self.key()
        name = self._names.get(key) if label is None else label
        return options[0] if name is None else self._architecture.get(name, options[0])


_CURRENT: ContextVar[Construction | None] = ContextVar("nasmw_construction", default=None)


def current(what: str) -> Construction:
    """Return the construction that goes on.

    Args:
        what: What asks, for the message.

    Raises:
        SpaceError: If there is none.
    """
    found = _CURRENT.get()
    if found is None:
        raise SpaceError(
            f"{what} is made outside a model space; make it while the `__init__` of a class runs that derives from "
            "nasmw.nn.ModelSpace (functions and modules that this `__init__` calls may make choices too)"
        )
    return found


def ongoing() -> Construction | None:
    """Return the construction that goes on, or None."""
    return _CURRENT.get()


@contextmanager
def constructing(construction: Construction) -> Iterator[None]:
    """Let choices that are made meanwhile belong to a construction."""
    token = _CURRENT.set(construction)
    try:
        yield
    finally:
        _CURRENT.reset(token)
