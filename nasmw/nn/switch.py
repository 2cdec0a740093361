"""Which path of a supernet runs: one architecture, or a mixture of several."""

from __future__ import annotations

import itertools
import math
from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import Any

import attrs
import torch
from torch import Tensor

from nasmw.errors import SpaceError
from nasmw.nn.values import ValueChoice, distinct, leaves_of, resolved

__all__ = ["Gates", "MixtureError", "Switch", "Weighted"]

MAX_MIXED = 4096


class MixtureError(SpaceError):
    """A module of a supernet cannot run as a mixture of its options."""


@attrs.frozen(eq=False)
class Gates:
    """Weights of some options of a choice; the others do not run.

    Attributes:
        codes: The numbers of the options.
        weights: ``(len(codes),)`` their weights.
    """

    codes: Sequence[int]
    weights: Tensor


@attrs.frozen(eq=False)
class Weighted:
    """One combination of options of the choices that something depends on.

    Attributes:
        chosen: The options by the names of the choices.
        weight: The product of the weights of those that are mixed; None where none is.
    """

    chosen: dict[Hashable, Any]
    weight: Tensor | None


class Switch:
    """What all modules of one supernet ask what to run; it belongs to its `ModelSpace`.

    Attributes:
        chosen: The options by name, of the choices that are not mixed; None where nothing runs.
        gates: The weights by name, of the choices that are mixed.
        once: Whether sizes are cut off in a mixture where they are read alone.
    """

    def __init__(self) -> None:
        self.chosen: Mapping[Hashable, Any] | None = None
        self.gates: Mapping[str, Gates] = {}
        self.once = False

    @property
    def mixing(self) -> bool:
        """Whether a mixture runs."""
        return bool(self.gates)

    def mixed(self, template: Any) -> bool:
        """Return whether a value depends on a choice that is mixed."""
        return bool(self.gates) and any(leaf.label in self.gates for leaf in leaves_of(template))

    def value(self, template: Any) -> Any:
        """Return what a value is on the path that runs.

        Raises:
            SpaceError: If no path runs, or the architecture lacks a choice.
            MixtureError: If the value depends on a choice that is mixed.
        """
        chosen = self._running()
        try:
            return resolved(template, chosen)
        except KeyError as error:
            name = error.args[0]
        if name in self.gates:
            raise MixtureError(f"choice {name!r} is mixed, and has no single value")
        raise self._lacks(name)

    def combinations(self, template: Any) -> list[Weighted]:
        """Return the combinations of options that a value takes, with their weights; one where nothing is mixed.

        Raises:
            SpaceError: As `value`.
            MixtureError: If there are very many.
        """
        chosen = self._running()
        leaves = distinct(leaves_of(template))
        fixed = {leaf.identity: self._option(leaf, chosen) for leaf in leaves if leaf.label not in self.gates}
        mixed = [(leaf, self.gates[str(leaf.label)]) for leaf in leaves if leaf.label in self.gates]
        if not mixed:
            return [Weighted(fixed, None)]
        if (number := math.prod(len(gates.codes) for _, gates in mixed)) > MAX_MIXED:
            raise MixtureError(f"{number} combinations of {len(mixed)} choices are mixed; the limit is {MAX_MIXED}")
        found = []
        for codes in itertools.product(*[range(len(gates.codes)) for _, gates in mixed]):
            options = dict(fixed)
            weight: Tensor | None = None
            for at, (leaf, gates) in zip(codes, mixed, strict=True):
                options[leaf.identity] = leaf.options[gates.codes[at]]
                weight = gates.weights[at] if weight is None else weight * gates.weights[at]
            found.append(Weighted(options, weight))
        return found

    def _running(self) -> Mapping[Hashable, Any]:
        if self.chosen is None:
            raise SpaceError(
                "a model space runs only as one of its architectures: call space.activate(architecture) first, or "
                "space.build(architecture) for a network of its own"
            )
        return self.chosen

    def _option(self, leaf: ValueChoice, chosen: Mapping[Hashable, Any]) -> Any:
        try:
            return chosen[leaf.identity]
        except KeyError:
            raise self._lacks(leaf.label) from None

    def _lacks(self, name: object) -> SpaceError:
        return SpaceError(f"the forward pass needs an option of choice {name!r}, and the architecture has none")


def total(terms: Iterator[tuple[Tensor | None, Any]], what: str) -> Any:
    """Return the weighted sum of outputs.

    Raises:
        MixtureError: If they are no tensors of one shape.
    """
    summed: Any = None
    for weight, output in terms:
        if weight is None:
            return output
        if not isinstance(output, Tensor):
            raise MixtureError(f"{what} gives a {type(output).__name__}, and only tensors can be mixed")
        if summed is not None and summed.shape != output.shape:
            raise MixtureError(
                f"the options of {what} give the shapes {tuple(summed.shape)} and {tuple(output.shape)}, which cannot "
                "be mixed; give them one shape, or run one path at a time"
            )
        term = weight.to(output.dtype) * output
        summed = term if summed is None else summed + term
    if summed is None:
        raise MixtureError(f"{what} has no option with a weight")
    return summed


def gates_of(options: int, given: Tensor | Gates, name: str) -> Gates:
    """Return the gates of a choice from what was given for it.

    Raises:
        MixtureError: If the shape is not that of the options.
    """
    gates = given if isinstance(given, Gates) else Gates(tuple(range(options)), given)
    codes = [int(code) for code in gates.codes]
    wanted = (options,) if not isinstance(given, Gates) else (len(codes),)
    if not isinstance(gates.weights, torch.Tensor) or tuple(gates.weights.shape) != wanted or not codes:
        shape = tuple(gates.weights.shape) if isinstance(gates.weights, torch.Tensor) else repr(gates.weights)
        raise MixtureError(f"the weights of choice {name!r} are a tensor of shape {wanted}, got {shape}")
    if len(set(codes)) < len(codes) or not all(0 <= code < options for code in codes):
        raise MixtureError(f"the gates of choice {name!r} are of distinct options 0 to {options - 1}, got {codes}")
    return Gates(tuple(codes), gates.weights)
