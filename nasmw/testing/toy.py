"""A small space, a cheap profiler and a strategy that remembers: fakes for tests of searches and of their parts."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from nasmw.candidates import Architecture, Candidates, Floats, Outcomes
from nasmw.choice import Choice
from nasmw.constraint import Constraint
from nasmw.context import Context
from nasmw.errors import ProfilerError
from nasmw.profiler import Bounds, Profiler
from nasmw.space import Space
from nasmw.strategy import Strategy

if TYPE_CHECKING:
    from torch import nn

__all__ = ["RecordingStrategy", "TableProfiler", "build_toy", "toy_space"]

ENUMERABLE = 100_000


def build_toy(architecture: dict[str, Any]) -> nn.Module:
    """Return the tiny network of an architecture of `toy_space`: ``(n, 3, s, s)`` images to ``(n, 10)`` logits."""
    from torch import nn

    width = architecture["width"]
    layers: list[nn.Module] = [nn.Conv2d(3, width, 3, padding=1)]
    for block in range(architecture["depth"]):
        if architecture[f"block{block}.op"] == "pool":
            layers.append(nn.AvgPool2d(3, stride=1, padding=1))
            continue
        kernel = architecture[f"block{block}.kernel"]
        hidden = width * architecture[f"block{block}.expand"]
        layers += [
            nn.Conv2d(width, hidden, kernel, padding=kernel // 2),
            nn.ReLU(),
            nn.Conv2d(hidden, width, 1),
        ]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 10))


def toy_space() -> Space:
    """Return a space of 1,596 tiny convolutional networks: one to three blocks, conditions two deep.

    All blocks share one ``width``; a block's ``kernel`` and ``expand`` matter only where its ``op`` is ``"conv"``,
    and its ``op`` only where ``depth`` reaches it. Networks are built by `build_toy`, so the space can be pickled.

    Example:
        >>> from nasmw.testing import toy_space
        >>> toy_space().size
        1596
    """
    choices = [Choice("width", (4, 8, 12, 16)), Choice("depth", (1, 2, 3))]
    for block in range(3):
        reached = {"depth": tuple(range(block + 1, 4))} if block else None
        choices += [
            Choice(f"block{block}.op", ("conv", "pool"), when=reached),
            Choice(f"block{block}.kernel", (1, 3, 5), when={f"block{block}.op": "conv"}),
            Choice(f"block{block}.expand", (1, 2), when={f"block{block}.op": "conv"}),
        ]
    return Space(choices, build=build_toy, name="toy")


class TableProfiler(Profiler):
    """A cheap analytical profiler: a whole number for each option of each active choice, summed up.

    Values are whole numbers, so they are exact.

    Args:
        space: The space whose architectures are profiled.
        name: The name of the metric.
        unit: The unit of the metric.
        seed: Another number gives another table. With an even one, later options of a choice cost more than earlier
            ones; with an odd one less, for a second metric in conflict with the first.
        std: The standard deviation that `std` gives for every architecture; None where it gives None.

    Example:
        >>> from nasmw.testing import TableProfiler, toy_space
        >>> cost = TableProfiler(toy_space())
        >>> cost.profile({"width": 8, "depth": 1, "block0.op": "pool"})
        16.0
    """

    def __init__(
        self, space: Space, name: str = "cost", unit: str = "", *, seed: int = 0, std: float | None = None
    ) -> None:
        super().__init__(name, unit, space=space)
        if std is not None and not 0.0 <= std < np.inf:
            raise ProfilerError(f"std must be a finite number of at least 0, or None, got {std!r}")
        self.seed = seed
        self._std = std
        direction = -1 if seed % 2 else 1
        self._costs = [
            np.arange(1.0, len(choice.options) + 1.0)[::direction] * (1 + (5 * column + seed * (column + 1)) % 7)
            for column, choice in enumerate(space.choices)
        ]

    def _profile(self, architecture: Architecture) -> float:
        space = self._space()
        row = space.encode(architecture)
        names = space.decode(row)
        columns = (space.column(name) for name in names)
        return float(sum(self._costs[column][row[column]] for column in columns))

    def _profile_batch(self, candidates: Candidates) -> Floats:
        active = self._space().active(candidates.codes)
        total = np.zeros(len(candidates))
        for column, costs in enumerate(self._costs):
            total += np.where(active[:, column], costs[candidates.codes[:, column]], 0.0)
        return total

    def std(self, candidates: Candidates) -> Floats | None:
        """Return the given standard deviation for each candidate, ``(n,)``, or None."""
        return None if self._std is None else np.full(len(candidates), self._std)

    def bounds(self) -> Bounds | None:
        """Return the exact bounds by looking at every architecture; None for spaces of more than 100,000."""
        return self._bounds

    @cached_property
    def _bounds(self) -> Bounds | None:
        space = self._space()
        if space.size > ENUMERABLE:
            return None
        everything = space.at(range(space.size))
        values = self.profile_batch(everything)
        low, high = int(values.argmin()), int(values.argmax())
        return Bounds(
            float(values[low]),
            float(values[high]),
            space.decode(everything.codes[low]),
            space.decode(everything.codes[high]),
        )


class RecordingStrategy(Strategy):
    """Asks for given architectures, or random ones, and keeps all that it gave, was told and was offered.

    Args:
        architectures: What to ask for, in order; exhausted after the last. None for random ones without an end.
        honours: What `offer` answers. The candidates are the same either way, so that a test can see whether
            the one who offered checks all the same.

    Example:
        >>> from nasmw.context import Context
        >>> from nasmw.testing import RecordingStrategy, toy_space
        >>> strategy = RecordingStrategy([{"width": 8, "depth": 1, "block0.op": "pool"}])
        >>> strategy.setup(Context(toy_space()))
        >>> len(strategy.ask(5)), strategy.exhausted, strategy.asked
        (1, True, (Candidates(1 x 11),))
    """

    def __init__(self, architectures: Iterable[Architecture] | None = None, *, honours: bool = False) -> None:
        self.architectures = None if architectures is None else [dict(item) for item in architectures]
        self.honours = honours

    def _setup(self, context: Context) -> None:
        self._given = 0
        self._asked: list[Candidates] = []
        self._told: list[Outcomes] = []
        self._adopted: list[Outcomes] = []
        self._offered: list[Constraint] = []

    @property
    def asked(self) -> tuple[Candidates, ...]:
        """The candidates given since `setup`, one table for each `ask`, with their ids."""
        return tuple(self._asked)

    @property
    def told(self) -> tuple[Outcomes, ...]:
        """The outcomes told since `setup`, one table for each `tell`."""
        return tuple(self._told)

    @property
    def adopted(self) -> tuple[Outcomes, ...]:
        """The outcomes adopted since `setup`."""
        return tuple(self._adopted)

    @property
    def offered(self) -> tuple[Constraint, ...]:
        """The limits offered since `setup`."""
        return tuple(self._offered)

    @property
    def exhausted(self) -> bool:
        """Whether the given architectures have all been asked for."""
        self.context  # noqa: B018  raises before setup
        return self.architectures is not None and self._given >= len(self.architectures)

    def ask(self, n: int) -> Candidates:
        """Return the next candidates and keep them."""
        batch = super().ask(n)
        self._asked.append(batch)
        return batch

    def _ask(self, n: int) -> Candidates:
        context = self.context
        if self.architectures is None:
            return context.space.sample(n, context.rng)
        following = self.architectures[self._given : self._given + n]
        self._given += len(following)
        return context.space.candidates(following)

    def _tell(self, outcomes: Outcomes) -> None:
        self._told.append(outcomes)

    def _adopt(self, outcomes: Outcomes) -> None:
        self._adopted.append(outcomes)

    def _offer(self, term: Constraint) -> bool:
        self._offered.append(term)
        return self.honours
