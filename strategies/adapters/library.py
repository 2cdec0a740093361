"""What every adapter does with a foreign library: import it, keep it quiet, and keep its hands off global state."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import logging
import random
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from nasmw.candidates import Codes, Floats, Outcomes
from nasmw.constraint import Constraint
from nasmw.context import Context
from nasmw.errors import AdapterError, MissingExtraError, NasmwError
from nasmw.space import Space
from nasmw.strategy import Strategy

__all__ = ["Adapter", "Surroundings", "checked", "imported", "matters", "required"]


def required(package: str) -> None:
    """Check that a package is installed; the extra that brings it has its name.

    Raises:
        MissingExtraError: If it is not.
    """
    if importlib.util.find_spec(package) is None:
        raise MissingExtraError(package, package)


def imported(module: str) -> Any:
    """Return a module of an optional package.

    Raises:
        MissingExtraError: If the package is not installed.
    """
    package = module.partition(".")[0]
    required(package)
    with quiet(package), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return importlib.import_module(module)


@contextlib.contextmanager
def quiet(package: str) -> Iterator[None]:
    """Let a package log nothing below errors."""
    logger = logging.getLogger(package)
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


class Surroundings:
    """The global state that a library may use: the generators of NumPy and of `random`; seeded, and given back.

    Args:
        package: The library.
        rng: The generator that seeds are drawn from.
    """

    def __init__(self, package: str, rng: np.random.Generator) -> None:
        self._package = package
        self._numpy: Any = np.random.RandomState(int(rng.integers(2**31))).get_state()
        self._python = random.Random(int(rng.integers(2**31))).getstate()

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        """Use the own generators in place of the global ones, log nothing and warn of nothing."""
        before: Any = np.random.get_state(), random.getstate()
        np.random.set_state(self._numpy)
        random.setstate(self._python)
        try:
            with quiet(self._package), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                yield
        finally:
            self._numpy, self._python = np.random.get_state(), random.getstate()
            np.random.set_state(before[0])
            random.setstate(before[1])


class Adapter(Strategy):
    """A strategy that another library makes; a subclass hands codes over and back.

    What limits are offered is noted: where the library knows limits, it is told by how much a candidate that a `Filter`
    turned away is beyond them. None is promised, so that the `Filter` checks.
    """

    package: str

    def _setup(self, context: Context) -> None:
        self._surroundings = Surroundings(self.package, context.rng)
        self._limits: list[Constraint] = []
        self._worst: Floats = np.full(len(context.objectives), np.nan)

    def _offer(self, term: Constraint) -> bool:
        self._limits.append(term)
        return False

    @contextlib.contextmanager
    def _library(self) -> Iterator[None]:
        """Enter the surroundings of the library during a run.

        Raises:
            AdapterError: If the library raises.
        """
        with self._surroundings.entered():
            try:
                yield
            except NasmwError:
                raise
            except Exception as error:
                raise AdapterError(f"{self!r}: {self.package} raised {type(error).__name__}: {error}") from error

    def _violations(self, outcomes: Outcomes) -> Floats:
        """Return how far each candidate is beyond each limit, ``(n, limits)``, as a share of it; 0 where unknown."""
        result = np.zeros((len(outcomes), len(self._limits)))
        for place, limit in enumerate(self._limits):
            values = outcomes.candidates.columns.get(limit.profiler.name)
            if values is not None:
                beyond = np.where(values > limit.high, limit.high, limit.low)
                scale = np.where(np.isfinite(beyond) & (beyond != 0.0), np.abs(beyond), 1.0)
                result[:, place] = np.nan_to_num(limit.excess(values) / scale)
        return result

    def _scored(self, scores: Floats) -> bool:
        """Return whether a candidate has all its scores, ``(m,)``, and take note of the worst ones."""
        if not np.isfinite(scores).all():
            return False
        self._worst = np.fmin(self._worst, scores)
        return True

    def _canonical(self, codes: list[list[int]]) -> Codes:
        space = self.context.space
        return space.canonical(np.array(codes, dtype=space.dtype).reshape(-1, len(space)))


def checked(stage: str, given: Any, base: str, example: str) -> Any:
    """Return what makes a foreign object: its class, the name of one, or a function.

    Raises:
        TypeError: If it is an object itself: every run needs a fresh one.
    """
    if isinstance(given, str) or callable(given):
        return given
    raise TypeError(
        f"{stage} takes the class or the name of {base}, or a function that makes one, since every run starts afresh "
        f"from a seed of its own, as in {example}; got {given!r}"
    )


def matters(space: Space, column: int, row: Sequence[int]) -> bool:
    """Return whether a choice matters, given the codes of the choices before it."""
    gates = space.gates[column]
    return all(row[gate] in allowed and matters(space, gate, row) for gate, allowed in gates.items())
