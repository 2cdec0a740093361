"""Every public strategy, middleware and profiler is held to the contract suite of its kind."""

from __future__ import annotations

import importlib
import inspect
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import nasmw.middleware
import nasmw.profiler
import nasmw.profilers
import nasmw.profilers.zero_cost
import nasmw.strategies
import nasmw.strategies.adapters
import nasmw.strategies.oneshot
import nasmw.testing
from nasmw import Chain, Middleware, Profiler, Strategy
from nasmw.testing import MiddlewareContract, ProfilerContract, StrategyContract

PUBLIC: dict[type, list[ModuleType]] = {
    StrategyContract: [nasmw.strategies, nasmw.strategies.adapters, nasmw.strategies.oneshot, nasmw.testing],
    MiddlewareContract: [nasmw.middleware],
    ProfilerContract: [nasmw.profilers, nasmw.profilers.zero_cost, nasmw.profiler, nasmw.testing],
}
KINDS: dict[type, type] = {StrategyContract: Strategy, MiddlewareContract: Middleware, ProfilerContract: Profiler}
NO_STAGES = {Chain, nasmw.testing.FiniteStrategy}  # a chain is its stages; a fake that ends on purpose


def made(contract: type) -> set[type]:
    """Return the classes that the test modules hold to a contract."""
    classes: set[type] = set()
    for path in sorted(Path(__file__).parent.glob("test_*.py")):
        for suite in vars(importlib.import_module(path.stem)).values():
            if inspect.isclass(suite) and issubclass(suite, contract) and suite.__name__.startswith("Test"):
                instance: Any = suite()
                arguments = [instance.make_space()] if contract is ProfilerContract else []
                classes.add(type(instance.make(*arguments)))
    return classes


@pytest.mark.parametrize("contract", list(PUBLIC), ids=lambda contract: contract.__name__)
def test_every_public_class_has_a_contract(contract: type) -> None:
    kind = KINDS[contract]
    public = {
        member
        for module in PUBLIC[contract]
        for member in (getattr(module, name) for name in module.__all__)
        if inspect.isclass(member) and issubclass(member, kind) and not inspect.isabstract(member)
    }
    public -= NO_STAGES | {kind}
    assert public
    missing = public - made(contract)
    assert not missing, f"no contract suite in tests/ makes a {sorted(cls.__name__ for cls in missing)}"
