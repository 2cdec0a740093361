"""What a method of few-shot transfer is here, and the list of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import attrs
import numpy as np
import numpy.typing as npt

from nasmw import Candidates
from nasmw.candidates import Floats

__all__ = ["METHODS", "Known", "Method", "Trained", "register"]

Rows = npt.NDArray[np.intp]


@attrs.frozen(eq=False)
class Known:
    """What a method may know before a target is measured.

    Attributes:
        everything: ``n`` networks, all those that are asked for later; nothing is said of what they take.
        rows: ``(m,)``, which of them were measured on the sources.
        milliseconds: ``(m, k)``, on each source, all finite.
        sources: ``(k,)`` names.
    """

    everything: Candidates
    rows: Rows
    milliseconds: Floats
    sources: tuple[str, ...]

    @property
    def measured(self) -> Candidates:
        """The networks that were measured on the sources."""
        return self.everything[self.rows]


class Trained(Protocol):
    """A method that has learnt the sources."""

    def choose(self, allowed: Rows, n: int, rng: np.random.Generator) -> Rows:
        """Return ``n`` different rows of `Known.everything`, out of those allowed, to measure on a target."""

    def predict(self, rows: Rows, milliseconds: Floats, rng: np.random.Generator) -> Floats:
        """Return what all of `Known.everything` take on a target, ``(n,)``.

        It may be called for several targets in turn and keeps nothing of one for the next.

        Args:
            rows: ``(S,)``, which were measured on the target.
            milliseconds: ``(S,)``, what they took.
            rng: For what is random.
        """


@attrs.frozen(eq=False)
class Method:
    """One way to transfer.

    Attributes:
        name: As tables call it and as the command line names it.
        costs: Whether it is told what networks cost (MACs, elements, layers): such methods have a section of their own.
        train: Learns the sources; takes what is `Known`, and a seed.
        slow: Whether it takes part only where it is named.
    """

    name: str
    costs: bool
    train: Callable[[Known, int], Trained]
    slow: bool = False


METHODS: dict[str, Method] = {}
"""The methods by name, in the order of the tables."""


def register(methods: Sequence[Method]) -> None:
    """Add methods to the list.

    Raises:
        ValueError: If a name is taken.
    """
    for method in methods:
        if method.name in METHODS:
            raise ValueError(f"there is a method {method.name!r} already")
        METHODS[method.name] = method
