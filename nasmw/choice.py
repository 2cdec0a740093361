"""Choice: one named decision, its options, and the condition under which it matters."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import attrs

from nasmw.errors import SpaceError

__all__ = ["Choice"]


def _options(values: Iterable[Any]) -> tuple[Any, ...]:
    if isinstance(values, (set, frozenset)):
        raise SpaceError(f"the options of a choice have an order, and {values!r} has none; write a tuple or a list")
    if isinstance(values, (str, bytes)) or not isinstance(values, Iterable):
        raise SpaceError(f"the options of a choice are a sequence of values, got {values!r}")
    return tuple(values)


def _when(conditions: Mapping[str, Any] | None) -> dict[str, tuple[Any, ...]]:
    if conditions is not None and not isinstance(conditions, Mapping):
        raise SpaceError(f"`when` maps names of choices to options, got {conditions!r}")
    return {
        gate: tuple(allowed) if isinstance(allowed, (tuple, list, set, frozenset, range)) else (allowed,)
        for gate, allowed in (conditions or {}).items()
    }


@attrs.frozen
class Choice:
    """One named decision and its options; it may matter only under a condition.

    Args:
        name: The name, unique within a space, such as ``"stage1.block3.kernel"``.
        options: The values to choose from: hashable, distinct, at least one. ``1``, ``1.0`` and ``True`` are equal
            in Python, so they are one option.
        when: Maps names of choices declared earlier to options of theirs: the choice matters only where *all* of
            them are active and have one of those options.

    Raises:
        SpaceError: If there is no option, or an option occurs twice, cannot be hashed, or is NaN.

    Example:
        >>> Choice("stage1.block3.kernel", (3, 5, 7), when={"stage1.depth": (4,)}).options
        (3, 5, 7)
    """

    name: str
    options: tuple[Any, ...] = attrs.field(converter=_options)
    when: Mapping[str, tuple[Any, ...]] = attrs.field(default=None, converter=_when)

    def __attrs_post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name:
            raise SpaceError(f"a choice is named by a non-empty string, got {self.name!r}")
        if not self.options:
            raise SpaceError(f"choice {self.name!r} has no options; give at least one")
        try:
            distinct = len(set(self.options)) == len(self.options)
        except TypeError as error:
            raise SpaceError(
                f"choice {self.name!r} has an option that cannot be hashed ({error}); use a tuple for a list"
            ) from None
        if strange := [option for option in self.options if option != option]:
            raise SpaceError(f"choice {self.name!r} has the option {strange[0]!r}, which is not equal to itself")
        if not distinct:
            twice = next(option for option in self.options if self.options.count(option) > 1)
            raise SpaceError(f"choice {self.name!r} has the option {twice!r} more than once")
