"""How once-for-all networks are searched with this library: by name, what asks for networks and how it is driven."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import attrs

from nasmw import Chain, Constraint, Filter, Outcomes, Search, Status, Strategy
from nasmw.context import Context
from nasmw.strategies import Evolution, Islands, LocalSearch, PredictorGuided
from ofa_searches.genetic import Genetic
from ofa_searches.meter import Meter

__all__ = ["CHOICES", "METHODS", "PUBLISHED", "Method", "asked_in_batches"]

PUBLISHED = "published genetic algorithm"


@attrs.frozen
class Method:
    """A way to search.

    Attributes:
        run: Takes a limit, a meter and a seed; searches until the meter says that nothing is left, or so many trials
            are done as it says.
        about: What it is, in a line.
    """

    run: Callable[[Constraint, Meter, int], None]
    about: str


def asked_in_batches(strategy: Strategy, batch: int, limit: Constraint, meter: Meter, seed: int) -> None:
    """Ask a strategy within a limit for many networks at a time, have them evaluated at once, and tell it.

    That is what a `Search` does, without a log and without the loop's cost for every single trial.
    """
    space = meter.predictor.space
    chain = Chain(strategy, Filter(limit))
    chain.setup(Context(space, seed=seed))
    while (left := meter.left) > 0 and not chain.exhausted:
        candidates = chain.ask(int(min(batch, left)))
        scores = meter(candidates)
        status = (Status.COMPLETED,) * len(candidates)
        chain.tell(Outcomes(candidates, status, scores[:, None], {"accuracy": scores}))


def _batches(make: Callable[[], Strategy], batch: int) -> Method:
    return Method(
        lambda limit, meter, seed: asked_in_batches(make(), batch, limit, meter, seed),
        f"{make()!r} under Filter, {batch} asked for at a time",
    )


def _search(make: Callable[[], Strategy], trials: int) -> Method:
    def run(limit: Constraint, meter: Meter, seed: int) -> None:
        chain = Chain(make(), Filter(limit))
        number = int(min(trials, meter.left))
        Search(meter.predictor.space, chain, meter.trial, seed=seed, progress=False).run(trials=number)

    return Method(run, f"Search of {trials} trials, window 8: {make()!r} under Filter")


METHODS: Mapping[str, Method] = {
    PUBLISHED: Method(Genetic(generations=float("inf")).run, "population 100; 500 generations are 50,100 evaluations"),
    "Islands, 200 at a time": _batches(lambda: Islands(crossover=0.7), 200),
    "Islands of 30, 25 at a time": _batches(lambda: Islands(30), 25),
    "Search, Islands": _search(lambda: Islands(population=30), 2500),
    "Search, Evolution": _search(lambda: Evolution(population=50, crossover=0.5, repeats=False), 2500),
    "Search, LocalSearch": _search(LocalSearch, 2500),
    "Search, PredictorGuided": _search(PredictorGuided, 300),
}

CHOICES: Mapping[str, Method] = {
    PUBLISHED: METHODS[PUBLISHED],
    "60 members, 200 at a time": _batches(Islands, 200),
    "30 members, 100 at a time": _batches(lambda: Islands(30), 100),
    "30 members, 200 at a time": _batches(lambda: Islands(30), 200),
    "60 members, 500 at a time": _batches(Islands, 500),
    "100 members, 200 at a time": _batches(lambda: Islands(100), 200),
    "30 members, 25 at a time": _batches(lambda: Islands(30), 25),
    "60 members, patience 5": _batches(lambda: Islands(patience=5), 200),
    "60 members, patience 20": _batches(lambda: Islands(patience=20), 200),
    "60 members, crossover 0.7": _batches(lambda: Islands(crossover=0.7), 200),
}
"""What the numbers of the islands were chosen from: those with the best mean after 3 s, and after 300 and 1,000."""
