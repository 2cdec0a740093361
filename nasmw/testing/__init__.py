"""Contract suites and fakes: what nasmw tests itself with, for users' own strategies, middleware and profilers."""

from __future__ import annotations

from nasmw.testing.middleware import FiniteStrategy, MiddlewareContract
from nasmw.testing.profilers import ProfilerContract
from nasmw.testing.strategies import StrategyContract, drive, scored
from nasmw.testing.toy import RecordingStrategy, TableProfiler, build_toy, toy_space

__all__ = [
    "FiniteStrategy",
    "MiddlewareContract",
    "ProfilerContract",
    "RecordingStrategy",
    "StrategyContract",
    "TableProfiler",
    "build_toy",
    "drive",
    "scored",
    "toy_space",
]
