"""Search strategies: what is asked for next, given what was told."""

from __future__ import annotations

from nasmw.strategies.evolution import Evolution
from nasmw.strategies.grid import Grid
from nasmw.strategies.random import Random

__all__ = ["Evolution", "Grid", "Random"]
