"""Tap: a callback sees what passes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from nasmw.candidates import Candidates, Outcomes
from nasmw.strategy import Middleware

__all__ = ["Tap"]


class Tap(Middleware):
    """Shows a callback what passes, and changes nothing.

    Where it stands in the chain decides what it sees: candidates that all stages below have passed, and outcomes as
    the stage below is about to be told them. A callback may print, plot or count; what it returns is dropped, and
    what it raises ends the run. A run that goes on from its log replays what happened before, and the callbacks see
    that again.

    Args:
        asked: Takes the `Candidates` that pass on their way to training; None for no such callback.
        told: Takes the `Outcomes` on their way back; None for no such callback.

    Raises:
        TypeError: If there is neither, or one is not callable.

    Example:
        >>> seen = []
        >>> Tap(told=lambda outcomes: seen.append(outcomes.scores))
        Tap(asked=None, told=<lambda>)
    """

    def __init__(
        self,
        asked: Callable[[Candidates], Any] | None = None,
        told: Callable[[Outcomes], Any] | None = None,
    ) -> None:
        if asked is None and told is None:
            raise TypeError("Tap needs a callback: asked=function of candidates, told=function of outcomes, or both")
        for name, callback in (("asked", asked), ("told", told)):
            if callback is not None and not callable(callback):
                raise TypeError(f"Tap({name}=...) takes a callable, got {callback!r}")
        self.asked = asked
        self.told = told

    def _ask(self, n: int) -> Candidates:
        candidates = self.inner.ask(n)
        if self.asked is not None and len(candidates):
            self.asked(candidates)
        return candidates

    def _amend(self, outcomes: Outcomes) -> Outcomes:
        if self.told is not None:
            self.told(outcomes)
        return outcomes
