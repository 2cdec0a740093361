"""NetworkProfiler: a number that is computed from the built network, remembered for each architecture."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING

import numpy as np
import torch

from nasmw.candidates import Architecture, Candidates, Codes, Floats
from nasmw.errors import ProfilerError
from nasmw.profiler import Profiler
from nasmw.space import Space

if TYPE_CHECKING:
    from torch import nn

__all__ = ["NetworkProfiler"]

REMEMBERED = 65_536


class NetworkProfiler(Profiler):
    """Builds the network of an architecture and computes one number from it; each architecture is built once.

    A subclass implements `_measure`. The values of the last 65,536 architectures are kept.

    Args:
        space: The space whose architectures are profiled, made with a `build`; None where only networks are.
        name: The name of the metric.
        unit: Its unit.

    Raises:
        ProfilerError: If the space cannot build networks.
    """

    def __init__(self, space: Space | None, name: str, unit: str = "") -> None:
        super().__init__(name, unit, space=space, kind="analytical")
        if space is not None and not space.buildable:
            raise ProfilerError(
                f"{type(self).__name__} builds the networks of {space!r}, which was made without `build`; "
                "pass Space(choices, build=function)"
            )
        self._values: dict[bytes, float] = {}

    @abstractmethod
    def _measure(self, model: nn.Module, architecture: Architecture | None) -> float:
        """Return the value of a network, and leave the network as it is.

        Args:
            model: The network.
            architecture: The architecture that it was built from; None for a network outside any space.
        """

    def _profile(self, architecture: Architecture) -> float:
        return self._value(self._space().encode(architecture))

    def _profile_batch(self, candidates: Candidates) -> Floats:
        return np.array([self._value(row) for row in candidates.codes], dtype=np.float64)

    def _profile_model(self, model: nn.Module) -> float:
        return self._measure(model, None)

    def _value(self, row: Codes) -> float:
        key = row.tobytes()
        if key not in self._values:
            space = self._space()
            architecture = space.decode(row)
            with torch.random.fork_rng(devices=[]):  # initial weights are drawn from the random state of the run
                model = space.build(architecture)
            value = float(self._measure(model, architecture))
            if len(self._values) >= REMEMBERED:
                del self._values[next(iter(self._values))]
            self._values[key] = value
        return self._values[key]
