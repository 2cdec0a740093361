"""Bits: how many bits the weights or the inputs of each layer have, as numbers or as choices of a space."""

from __future__ import annotations

import fnmatch
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeAlias

from nasmw.candidates import Architecture
from nasmw.errors import ProfilerError, did_you_mean
from nasmw.space import Space

__all__ = ["LAYER", "Bits", "BitsLike", "BitsOfLayer", "report_unused"]

LAYER = "{layer}"
BitsOfLayer: TypeAlias = Callable[[Architecture, str], "int | None"]
BitsLike: TypeAlias = "int | str | Mapping[str, int | str] | BitsOfLayer"


class Bits:
    """The bits of each layer of the networks of a space.

    Args:
        bits: One of

            - a whole number: all layers have so many bits;
            - the name of a choice: its option is the bits of all layers;
            - a name in which ``{layer}`` stands for the path of a layer, as in ``"{layer}.bits"``: each layer has the
              bits of the choice of its own or, if there is none, of the nearest module that it is in;
            - a mapping of patterns (as of file names: ``"stage1.*"``) to these: a layer has the bits of the first
              pattern that its path matches;
            - a function of an architecture and a path that returns whole numbers, or None for no bits of its own.

            A choice that is inactive is passed over, as if its pattern did not match.
        space: The space that has the choices; None where there are none.
        other: The bits of layers that have none by `bits`.
        what: What messages call `bits`.

    Raises:
        ProfilerError: If a number or an option is no whole number above 0, choices are named without a space, or no
            choice is named like ``"{layer}.bits"``.
        SpaceError: If the space has no such choice; names the near ones.
        TypeError: If `bits` is something else.

    Example:
        >>> from nasmw import Choice, Space
        >>> space = Space([Choice("body.bits", (2, 4, 8))])
        >>> bits = Bits({"head": 8, "*": "{layer}.bits"}, space)
        >>> bits.of({"body.bits": 4}, "head"), bits.of({"body.bits": 4}, "body"), bits.of({"body.bits": 4}, "stem")
        (8, 4, 32)
    """

    def __init__(self, bits: BitsLike, space: Space | None = None, *, other: int = 32, what: str = "bits") -> None:
        self.what = what
        self.other = _checked(other, f"`other_bits` beside `{what}`")
        self.function: BitsOfLayer | None = None
        self.rules: dict[str, int | str] = {}
        self._used: set[str] = set()
        if isinstance(bits, Mapping):
            self.rules = dict(bits)
        elif callable(bits):
            self.function = bits
        else:
            self.rules = {"*": bits}
        self._choices = {name for rule in self.rules.values() for name in self._named(rule, space)}

    def _named(self, rule: object, space: Space | None) -> list[str]:
        """Return the choices that a rule may mean, after a check of their options."""
        if not isinstance(rule, str):
            if isinstance(rule, bool) or not isinstance(rule, int):
                raise TypeError(
                    f"`{self.what}` is a whole number, the name of a choice, a mapping of patterns to these, or a "
                    f"function of an architecture and a path, got {rule!r}"
                )
            _checked(rule, f"`{self.what}`")
            return []
        if space is None:
            raise ProfilerError(f"`{self.what}` takes bits from choice {rule!r}, so the profiler needs a space")
        if LAYER in rule:
            before, _, after = rule.partition(LAYER)
            names = [name for name in space.names if name.startswith(before) and name.endswith(after)]
            if not names:
                raise ProfilerError(
                    f"`{self.what}` takes bits from choices named like {rule!r}, and {space!r} has none"
                    + did_you_mean(rule.replace(LAYER, ""), space.names)
                )
        else:
            names = [space.choices[space.column(rule)].name]
        for name in names:
            for option in space.choices[space.column(name)].options:
                _checked(option, f"choice {name!r}, which `{self.what}` takes bits from,")
        return names

    @property
    def varying(self) -> bool:
        """Whether the bits depend on more than the layer."""
        return self.function is not None or bool(self._choices)

    def describe(self) -> str | None:
        """Return the rules as text; None for a function, which no text describes."""
        return None if self.function is not None else repr((self.rules, self.other))

    def of(self, architecture: Architecture | None, layer: str) -> int:
        """Return the bits of a layer.

        Args:
            architecture: The architecture of the network; None for one outside any space.
            layer: The path of the layer in the network, as in ``"stage1.0.conv"``.

        Raises:
            ProfilerError: If they depend on a choice and there is no architecture, or a function returns no whole
                number above 0.
        """
        if self.function is not None:
            given = self.function(architecture or {}, layer)
            what = f"`{self.what}` for layer {layer!r} of {dict(architecture or {})!r}"
            return self.other if given is None else _checked(given, what)
        for pattern, rule in self.rules.items():
            if not fnmatch.fnmatchcase(layer, pattern):
                continue
            if not isinstance(rule, str):
                self._used.add(pattern)
                return rule
            if architecture is None:
                raise ProfilerError(
                    f"`{self.what}` takes the bits of layer {layer!r} from choice {rule!r}, and a network by itself "
                    "has no choices; profile an architecture instead"
                )
            for path in _enclosing(layer) if LAYER in rule else [layer]:
                name = rule.replace(LAYER, path)
                if name in architecture and name in self._choices:
                    self._used |= {pattern, name}
                    bits: int = architecture[name]
                    return bits
        return self.other

    def unused(self) -> list[str]:
        """Return the patterns, but for ``"*"``, and the choices that were about no layer so far."""
        return sorted({*self.rules, *self._choices} - self._used - {"*"})


def _enclosing(layer: str) -> Iterator[str]:
    """Yield the path of a layer and of the modules that it is in, from the inside out."""
    while layer:
        yield layer
        layer = layer.rpartition(".")[0]


def _checked(bits: Any, what: str) -> int:
    if isinstance(bits, bool) or not isinstance(bits, int) or bits < 1:
        raise ProfilerError(f"{what} must give whole numbers of bits above 0, got {bits!r}")
    return bits


def report_unused(bits: Bits, networks: int) -> None:
    """Warn of patterns and choices that were about no layer, which misspelt names are.

    Args:
        bits: The bits, after they were asked for.
        networks: In how many networks.
    """
    if bits.unused():
        names = ", ".join(map(repr, bits.unused()))
        warnings.warn(
            f"`{bits.what}` names {names}, and no layer of {networks} networks has its bits from there; patterns and "
            "'{layer}' mean the paths of `model.named_modules()`",
            stacklevel=2,
        )
