"""NevergradStrategy: any Nevergrad optimizer as a strategy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from nasmw.candidates import Candidates, Outcomes
from nasmw.context import Context
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
        with self._surroundings.entered():
            parameters = nevergrad.p.Dict(
                **{option.name: choice(range(len(option.options))) for option in context.space.choices}
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
        with self._surroundings.entered():
            points = [self._optimizer.ask() for _ in range(n)]
        ids = np.arange(self._asked, self._asked + n, dtype=np.int64)
        self._asked += n
        self._open.update(zip(ids.tolist(), points, strict=True))
        rows = [[int(point.value[name]) for name in space.names] for point in points]
        return Candidates(space, self._canonical(rows), ids)

    def _tell(self, outcomes: Outcomes) -> None:
        self._learn([self._open.pop(number) for number in outcomes.ids.tolist()], outcomes)

    def _learn(self, points: list[Any], outcomes: Outcomes) -> None:
        """Tell the optimizer; what has no scores waits until the worst are known, if the optimizer can."""
        violations = self._violations(outcomes)
        with self._surroundings.entered():
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
        names = self.context.space.names
        scored = [place for place, scores in enumerate(outcomes.scores) if np.isfinite(scores).all()]
        for place in scored:
            with self._surroundings.entered():
                value = dict(zip(names, outcomes.codes[place].tolist(), strict=True))
                point = self._optimizer.parametrization.spawn_child(new_value=value)
            try:
                self._learn([point], outcomes[[place]])
            except errors.TellNotAskedNotSupportedError:
                return
