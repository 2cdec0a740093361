"""PymooStrategy: any pymoo algorithm as a strategy."""

from __future__ import annotations

import copy
import inspect
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from nasmw.candidates import Candidates, Floats, Outcomes
from nasmw.context import Context
from nasmw.strategies.adapters.library import Adapter, checked, imported, required
from nasmw.strategy import batch_of_none

__all__ = ["PymooStrategy"]

FOLDERS = ("pymoo.algorithms.moo", "pymoo.algorithms.soo.nonconvex")
SINGLE = "pymoo.algorithms.soo."


class PymooStrategy(Adapter):
    """A pymoo algorithm whose generations are handed out, and told when all of one are told.

    A choice is a real number from 0 to 1, whose range is divided among the options in their order; so every algorithm
    works with the operators that it has. Choices that do not matter are left out of the architecture. While the last
    ones of a generation are open, it gives nothing.

    A limit is a constraint of pymoo's problem: how far a candidate that a `Filter` turned away is beyond it, is told. A
    last constraint is violated by candidates without a score. Their objectives are the worst so far, for algorithms
    that know no constraints. No limit is met by construction.

    Args:
        algorithm: The class of an algorithm, its name, such as ``"NSGA2"``, or a function that makes one.
        **options: What the class is made with.

    Raises:
        MissingExtraError: If pymoo is not installed.
        TypeError: If the algorithm is an object, or ``seed`` is among the options.
        ValueError: At `setup`, if pymoo has no such algorithm, it takes one objective and there are several, or fails
            in two generations that are made to try it.
        AdapterError: During a run, if it fails later.

    Reference: Blank, Deb, pymoo: Multi-Objective Optimization in Python, IEEE Access 8, 2020.
    """

    package = "pymoo"

    def __init__(self, algorithm: str | type | Callable[..., Any], **options: Any) -> None:
        required("pymoo")
        self.algorithm = checked("PymooStrategy", algorithm, "an algorithm", "PymooStrategy('NSGA2', pop_size=40)")
        if "seed" in options:
            raise TypeError("PymooStrategy seeds its algorithm from the seed of the run; leave `seed` out")
        self.options = options

    def _setup(self, context: Context) -> None:
        super()._setup(context)
        self._seed = int(context.rng.integers(2**31))
        self._sizes = np.array([len(choice.options) for choice in context.space.choices])
        with self._surroundings.entered():
            algorithm = self._made()
        if len(context.objectives) > 1 and type(algorithm).__module__.startswith(SINGLE):
            raise ValueError(
                f"PymooStrategy: {type(algorithm).__name__} takes one objective, and this search has "
                f"{[str(each) for each in context.objectives]}; join them to one score with the middleware Reward"
            )
        self._begin()
        self._rehearse()
        self._begin()

    def _begin(self) -> None:
        self._asked = 0
        self._algorithm: Any = None
        self._constrained = False
        self._generation: Any = None
        self._waiting: list[int] = []  # places of the generation that were not asked for yet
        self._open: dict[int, int] = {}  # by id: places
        self._told: Floats = np.zeros((0, len(self.context.objectives)))
        self._beyond: Floats = np.zeros((0, 0))

    def _rehearse(self) -> None:
        """Go through two generations with scores of no meaning: what the algorithm cannot do shows before any trial.

        Raises:
            ValueError: If it raises.
        """
        objectives = len(self.context.objectives)
        scores = np.random.default_rng(0)  # few values, so that there are equal ones
        try:
            with self._surroundings.entered():
                for _ in range(2):
                    if self._algorithm is not None and not self._algorithm.has_next():
                        break
                    self._advance()
                    self._told = scores.integers(0, 2, self._told.shape).astype(float)
                    self._learn()
        except Exception as error:
            raise ValueError(
                f"PymooStrategy: {self._name} cannot be used here, with {objectives} objective(s): {error}"
            ) from error

    @property
    def _name(self) -> str:
        return self.algorithm if isinstance(self.algorithm, str) else self.algorithm.__name__

    def _made(self) -> Any:
        kind: Any = self.algorithm
        if isinstance(kind, str):
            kind = _named(kind)
        try:
            algorithm = copy.deepcopy(kind(**self.options))  # default operators are shared, and some have a state
        except Exception as error:
            raise ValueError(
                f"PymooStrategy: {self._name} cannot be made with the options {sorted(self.options)}: {error}"
            ) from error
        if inspect.isclass(algorithm) or not hasattr(algorithm, "infill"):
            raise TypeError(f"PymooStrategy: {self.algorithm!r} made {algorithm!r}, which is no algorithm")
        return algorithm

    def _start(self) -> None:
        """Set the algorithm up, at the first use, when all limits are known."""
        problem = type("Asked", (imported("pymoo.core.problem").Problem,), {"_evaluate": _refuse})
        endless = imported("pymoo.core.termination").NoTermination
        objectives = len(self.context.objectives)
        for constraints in (len(self._limits) + 1, 0):
            algorithm = self._made()
            about = problem(
                n_var=len(self._sizes), n_obj=objectives, n_ieq_constr=constraints, xl=0.0, xu=1.0, vtype=float
            )
            try:
                algorithm.setup(about, termination=endless(), seed=self._seed, verbose=False)
            except Exception:
                if not constraints:
                    raise
                continue
            self._algorithm, self._constrained = algorithm, bool(constraints)
            return

    @property
    def exhausted(self) -> bool:
        """Whether the algorithm has come to its end, and all that it gave was told."""
        self.context  # noqa: B018  raises before setup
        if self._algorithm is None or self._waiting or self._open:
            return False
        return not self._algorithm.has_next()

    def _ask(self, n: int) -> Candidates:
        space = self.context.space
        if not self._waiting and not self._open and not self.exhausted:
            with self._library():
                self._advance()
        places, self._waiting = self._waiting[:n], self._waiting[n:]
        if not places:
            return batch_of_none(space)
        ids = np.arange(self._asked, self._asked + len(places), dtype=np.int64)
        self._asked += len(places)
        self._open.update(zip(ids.tolist(), places, strict=True))
        points = self._new.get("X")[places].astype(float)
        codes = np.minimum((points * self._sizes).astype(int), self._sizes - 1)
        return Candidates(space, self._canonical(codes.tolist()), ids)

    def _advance(self) -> None:
        """Get the next generation."""
        if self._algorithm is None:
            self._start()
        gathered = imported("pymoo.core.population").Population.create
        while self._algorithm.has_next():
            self._generation = self._algorithm.ask()
            given = self._generation
            new = (
                [] if given is None else [one for one in ([given] if hasattr(given, "X") else given) if not one.F.size]
            )
            if new:
                self._new = gathered(*new)
                self._waiting = list(range(len(new)))
                self._told = np.full((len(new), len(self.context.objectives)), np.nan)
                self._beyond = np.zeros((len(new), len(self._limits)))
                return
            self._algorithm.tell(infills=given)

    def _tell(self, outcomes: Outcomes) -> None:
        violations = self._violations(outcomes)
        for row, number in enumerate(outcomes.ids.tolist()):
            place = self._open.pop(number)
            if self._scored(outcomes.scores[row]):
                self._told[place] = outcomes.scores[row]
            else:
                self._beyond[place] = violations[row]
        if not self._open and not self._waiting:
            with self._library():
                self._learn()

    def _learn(self) -> None:
        """Tell the algorithm of a generation."""
        static = imported("pymoo.problems.static").StaticProblem
        without = np.isnan(self._told[:, :1])
        values = {"F": -np.where(without, np.nan_to_num(self._worst), self._told)}
        if self._constrained:
            values["G"] = np.hstack([self._beyond, without.astype(float)])
        self._algorithm.evaluator.eval(static(self._algorithm.problem, **values), self._new)
        self._algorithm.tell(infills=self._generation)

    def _adopt(self, outcomes: Outcomes) -> None:
        """Leave the algorithm as it is: a generation is what it made itself."""


def _refuse(problem: Any, points: Any, out: Any, *arguments: Any, **settings: Any) -> None:
    """Raise: pymoo's problem cannot evaluate.

    Raises:
        TypeError: Always.
    """
    raise TypeError("the algorithm evaluates candidates on its own, and cannot be asked for them")


def _named(name: str) -> Any:
    """Return the class of an algorithm by its name."""
    written = re.compile(rf"^class {re.escape(name)}\b", re.MULTILINE)
    for folder in FOLDERS:
        for path in imported(folder).__path__:
            for file in sorted(Path(path).glob("*.py")):  # some modules need further packages: import the one alone
                if not written.search(file.read_text(encoding="utf-8")):
                    continue
                try:
                    return getattr(imported(f"{folder}.{file.stem}"), name)
                except Exception as error:
                    raise ValueError(f"PymooStrategy: pymoo cannot import {name}: {error}") from error
    raise ValueError(f"PymooStrategy: pymoo has no algorithm {name!r} in {' or '.join(FOLDERS)}; give the class itself")
