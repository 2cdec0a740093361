"""Chain: a strategy with middleware around it, which is a strategy again."""

from __future__ import annotations

import collections

from nasmw.candidates import Candidates, Outcomes
from nasmw.constraint import Constraint
from nasmw.context import Context
from nasmw.penalty import Penalty
from nasmw.profiler import Profiler
from nasmw.strategy import Middleware, Strategy

__all__ = ["Chain"]


class Chain(Strategy):
    """A strategy with middleware around it, the first middleware nearest to the strategy.

    ``Chain(Chain(a, m), k)`` is ``Chain(a, m, k)``, and ``Chain(a)`` is ``a``. Generators are spawned by position in
    the flattened chain, so how a chain was put together does not matter.

    Args:
        strategy: The strategy, or a chain.
        *middleware: The stages around it, in the order in which candidates pass them.

    Raises:
        TypeError: If the first is no strategy, or one of the others no middleware.
        ValueError: If one object occurs twice.
    """

    _stages: tuple[Strategy, ...]

    def __new__(cls, strategy: Strategy, *middleware: Middleware) -> Chain:
        """Return the chain, or the strategy itself where there is no middleware."""
        if not isinstance(strategy, Strategy):
            raise TypeError(f"a Chain starts with a strategy (an object, not a class), got {strategy!r}")
        if isinstance(strategy, Middleware):
            raise TypeError(f"a Chain starts with a strategy; {strategy!r} is middleware and goes behind one")
        for stage in middleware:
            if not isinstance(stage, Middleware):
                raise TypeError(f"a Chain goes on with middleware, got {stage!r}")
        if not middleware:
            return strategy  # type: ignore[return-value]  # Chain(a) is a
        self = super().__new__(cls)
        self._stages = (*strategy.stages, *middleware)
        if len({id(stage) for stage in self._stages}) < len(self._stages):
            raise ValueError("one stage occurs twice in a Chain; make a second one")
        return self

    @property
    def stages(self) -> tuple[Strategy, ...]:
        """The stages, the strategy first."""
        return self._stages

    @property
    def profilers(self) -> tuple[Profiler, ...]:
        """The profilers that the stages consult, in order."""
        return tuple(profiler for stage in self._stages for profiler in stage.profilers)

    def __repr__(self) -> str:
        return f"Chain({', '.join(repr(stage) for stage in self._stages)})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Chain) and other._stages == self._stages

    def __hash__(self) -> int:
        return hash(self._stages)

    def __reduce__(self) -> tuple[type[Chain], tuple[Strategy, ...]]:
        return Chain, self._stages

    def setup(self, context: Context) -> None:
        """Bind the stages to each other, and start a run in each, the innermost first."""
        self._context = context
        seen: collections.Counter[str] = collections.Counter()
        names = []
        for stage in self._stages:
            name = type(stage).__name__
            seen[name] += 1
            names.append(name if seen[name] == 1 else f"{name}#{seen[name]}")
        contexts = []
        for position in range(len(self._stages) - 1, -1, -1):
            contexts.append(context.at(position, names[position]))
            stage = self._stages[position]
            if isinstance(stage, Middleware):
                context = stage.inner_context(context)
        for position, own in enumerate(reversed(contexts)):
            stage = self._stages[position]
            if isinstance(stage, Middleware):
                stage.bind(self._stages[position - 1])
            stage.setup(own)

    @property
    def exhausted(self) -> bool:
        """Whether the outermost stage is exhausted."""
        return self._stages[-1].exhausted

    @property
    def message(self) -> str:
        """Why a stage ended the run; empty where none did."""
        return self._stages[-1].message

    def ask(self, n: int) -> Candidates:
        """Ask the outermost stage."""
        return self._stages[-1].ask(n)

    def tell(self, outcomes: Outcomes) -> None:
        """Tell the outermost stage."""
        self._stages[-1].tell(outcomes)

    def adopt(self, outcomes: Outcomes) -> None:
        """Have the outermost stage adopt the outcomes."""
        self._stages[-1].adopt(outcomes)

    def train(self, context: Context) -> None:
        """Have each stage do what it must before the first ask, the innermost first."""
        for stage in self._stages:
            stage.train(stage.context)

    def offer(self, term: Constraint | Penalty) -> bool:
        """Offer a term to the outermost stage."""
        return self._stages[-1].offer(term)

    def _ask(self, n: int) -> Candidates:
        return self.ask(n)

    def _tell(self, outcomes: Outcomes) -> None:
        self.tell(outcomes)
