"""NevergradStrategy: any Nevergrad optimizer as a strategy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from nasmw.candidates import Candidates, Outcomes
from nasmw.context import Context
from nasmw.errors import AdapterError
from nasmw.strategies.adapters.library import Adapter, checked, imported, required
from nasmw.strategies.arguments import flag, whole
from nasmw.strategy import batch_of_none

__all__ = ["NevergradStrategy"]


class NevergradStrategy(Adapter):
    """A Nevergrad optimizer that is asked for all choices at once, and told the scores.

    Nevergrad knows no choices that matter under conditions alone: it decides on all of them, and what does not matter
    is left out of the architecture. A candidate without a score is told with the worst scores so far; where a `Filter`
    turned it away, also by how much it is beyond the limits. No limit is met by construction. Several objectives are
    told as such; Nevergrad takes the hypervolume.

    Args:
        optimizer: The name of an optimizer in Nevergrad's registry, what stands in ``nevergrad.optimizers``, or a
            function that makes one of a parametrization, a budget and a number of workers.
        budget: The number of candidates that the optimizer plans with; None for no plan. Those that a `Filter` turns
            away count.
        workers: How many candidates may be open before it gives no more; an optimizer that works on one at a time has
            one.
        ordinal: Whether the options of a choice have an order, so that it moves among neighbours.

    Raises:
        MissingExtraError: If Nevergrad is not installed.
        TypeError: If an argument is of the wrong kind.
        ValueError: At `setup`, if the registry has no such optimizer.
        AdapterError: During a run, if Nevergrad fails.

    Reference: Rapin, Teytaud, Nevergrad: A gradient-free optimization platform, 2018.
    """

    package = "nevergrad"

    def __init__(
        self,
        optimizer: str | type | Callable[..., Any] = "NGOpt",
        *,
        budget: int | None = None,
        workers: int = 8,
        ordinal: bool = False,
    ) -> None:
        required("nevergrad")
        self._kind = checked("NevergradStrategy", optimizer, "an optimizer", "NevergradStrategy('TwoPointsDE')")
        # What Nevergrad has configured has a name that says how.
        self.optimizer = getattr(optimizer, "name", optimizer) if not isinstance(optimizer, type) else optimizer
        self.budget = None if budget is None else whole("NevergradStrategy", "budget", budget)
        self.workers = whole("NevergradStrategy", "workers", workers)
        self.ordinal = flag("NevergradStrategy", "ordinal", ordinal)

    def _setup(self, context: Context) -> None:
        super()._setup(context)
        nevergrad = imported("nevergrad")
        kind: Any = self._kind
        if isinstance(kind, str):
            registry = nevergrad.optimizers.registry
            if kind not in registry:
                raise ValueError(f"NevergradStrategy: Nevergrad's registry has no optimizer {kind!r}")
            kind = registry[kind]
        choice = nevergrad.p.TransitionChoice if self.ordinal else nevergrad.p.Choice
        # One parameter for all choices with as many options: each option of each parameter costs time at every ask.
        self._alike: dict[int, list[int]] = {}
        for column, each in enumerate(context.space.choices):
            self._alike.setdefault(len(each.options), []).append(column)
        # In a single dimension its CMA needs a further package: one that decides nothing goes with it.
        least = 2 if len(context.space) == 1 else 1
        with self._surroundings.entered():
            parameters = nevergrad.p.Tuple(
                *(choice(range(size), repetitions=max(len(columns), least)) for size, columns in self._alike.items())
            )
            parameters.random_state = np.random.RandomState(int(context.rng.integers(2**31)))
            single = getattr(kind, "no_parallelization", False)
            self._most = 1 if single else self.workers
            self._optimizer = kind(parameters, self.budget, self._most)
        self._asked = 0
        self._open: dict[int, Any] = {}
        self._without: list[tuple[Any, list[float]]] = []

    def _ask(self, n: int) -> Candidates:
        space = self.context.space
        n = min(n, self._most - len(self._open))
        if n < 1:
            return batch_of_none(space)
        with self._library():
            points = [self._optimizer.ask() for _ in range(n)]
        ids = np.arange(self._asked, self._asked + n, dtype=np.int64)
        self._asked += n
        self._open.update(zip(ids.tolist(), points, strict=True))
        return Candidates(space, self._canonical([self._row(point.value) for point in points]), ids)

    def _row(self, value: tuple[tuple[int, ...], ...]) -> list[int]:
        row = [0] * len(self.context.space)
        for columns, codes in zip(self._alike.values(), value, strict=True):
            for column, code in zip(columns, codes, strict=False):  # one may decide nothing
                row[column] = int(code)
        return row

    def _value(self, row: list[int]) -> tuple[tuple[int, ...], ...]:
        alike = self._alike.values()
        if len(row) == 1:
            return ((row[0], 0),)
        return tuple(tuple(row[column] for column in columns) for columns in alike)

    def _tell(self, outcomes: Outcomes) -> None:
        self._learn([self._open.pop(number) for number in outcomes.ids.tolist()], outcomes)

    def _learn(self, points: list[Any], outcomes: Outcomes) -> None:
        """Tell the optimizer; what has no scores waits until the worst are known, if the optimizer can."""
        violations = self._violations(outcomes)
        with self._library():
            for place, point in enumerate(points):
                scores = outcomes.scores[place]
                if self._scored(scores):
                    self._report(point, scores, [])
                else:
                    self._without.append((point, violations[place].tolist()))
            if np.isfinite(self._worst).all() or self._most == 1:
                for point, beyond in self._without:
                    self._report(point, np.nan_to_num(self._worst), beyond)
                self._without = []

    def _report(self, point: Any, scores: Any, violations: list[float]) -> None:
        losses = (-scores).tolist()
        loss = losses[0] if len(losses) == 1 else losses
        if any(violations):
            self._optimizer.tell(point, loss, violations)
        else:
            self._optimizer.tell(point, loss)

    def _adopt(self, outcomes: Outcomes) -> None:
        errors = imported("nevergrad.common.errors")
        scored = [place for place, scores in enumerate(outcomes.scores) if np.isfinite(scores).all()]
        for place in scored:
            with self._library():
                value = self._value(outcomes.codes[place].tolist())
                point = self._optimizer.parametrization.spawn_child(new_value=value)
            try:
                self._learn([point], outcomes[[place]])
            except AdapterError as error:
                if not isinstance(error.__cause__, errors.TellNotAskedNotSupportedError):
                    raise
                return
