"""Contract suites and fakes: what nasmw tests itself with, for users' own strategies, middleware and profilers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nasmw.errors import MissingExtraError
from nasmw.testing.device import FakeDevice, fake_latency
from nasmw.testing.profilers import ProfilerContract
from nasmw.testing.strategies import StrategyContract, drive, scored
from nasmw.testing.toy import RecordingStrategy, TableProfiler, build_toy, toy_space

if TYPE_CHECKING:
    from nasmw.testing.middleware import FiniteStrategy, MiddlewareContract

__all__ = [
    "FakeDevice",
    "FiniteStrategy",
    "MiddlewareContract",
    "ProfilerContract",
    "RecordingStrategy",
    "StrategyContract",
    "TableProfiler",
    "build_toy",
    "drive",
    "fake_latency",
    "scored",
    "toy_space",
]


def __getattr__(name: str) -> Any:
    # These need pytest, which the fakes do without.
    if name not in ("FiniteStrategy", "MiddlewareContract"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        from nasmw.testing import middleware
    except ModuleNotFoundError as error:
        if error.name != "pytest":
            raise
        raise MissingExtraError("pytest", "test") from None
    return getattr(middleware, name)
