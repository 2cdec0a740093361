"""An additive model of accuracy, and the network that tables prove to be its best within a limit.

Accuracy is fitted as a constant and a sum of small tables, one for each decision of a block together with the depth of
its stage. That is a `CostTable` like a latency, so `FeasibleSet.maximum` finds its optimum within a limit by dynamic
programming, with a bound that nothing within the limit exceeds.
"""

from __future__ import annotations

import time

import attrs
import numpy as np
import numpy.typing as npt
from tables import AccuracyPredictor

from nasmw import Candidates, Constraint, CostTable, FeasibleSet, Space, TabledProfiler
from nasmw.candidates import Floats
from nasmw.findings import Optimum

__all__ = ["Additive", "Certificate", "certified", "fitted"]

RIDGE = 1.0


@attrs.frozen(eq=False)
class Additive:
    """A fitted model.

    Attributes:
        profiler: Its values, in percent.
        explained: The share of the variance that it explains on networks that it was not fitted on.
        error: The root of its mean squared error on them, in points of accuracy.
    """

    profiler: TabledProfiler
    explained: float
    error: float


def _scopes(space: Space) -> list[tuple[str, ...]]:
    """Return what decides each table: a choice, for a choice of a block together with its stage's depth."""
    scopes = []
    for name in space.names:
        depth = f"{name.partition('.')[0]}.depth"
        scopes.append((depth, name) if depth in space.names and name != depth else (name,))
    return scopes


def fitted(space: Space, train: tuple[Candidates, Floats], test: tuple[Candidates, Floats]) -> Additive:
    """Fit the model by ridge regression.

    Args:
        space: The space.
        train: Networks and their accuracies in percent, ``(n,)``, to fit.
        test: Others, to state the error on.
    """
    sizes = {choice.name: len(choice.options) for choice in space.choices}
    scopes = _scopes(space)
    shapes = [tuple(sizes[name] for name in scope) for scope in scopes]
    first = np.cumsum([0, *(int(np.prod(shape)) for shape in shapes)])
    candidates, accuracies = train
    ones = np.zeros((len(candidates), first[-1]))
    for place, (scope, shape) in enumerate(zip(scopes, shapes, strict=True)):
        codes = tuple(candidates.codes[:, space.column(name)].astype(np.intp) for name in scope)
        ones[np.arange(len(ones)), first[place] + np.ravel_multi_index(codes, shape)] = 1.0
    mean = float(accuracies.mean())
    weights = np.linalg.solve(ones.T @ ones + RIDGE * np.eye(first[-1]), ones.T @ (accuracies - mean))
    terms: list[tuple[tuple[str, ...], npt.NDArray[np.float64]]] = [
        (scope, weights[first[place] : first[place + 1]].reshape(shape))
        for place, (scope, shape) in enumerate(zip(scopes, shapes, strict=True))
    ]
    table = CostTable(space, terms, mean, name="additive_accuracy")
    profiler = TabledProfiler(table, unit="%", kind="learned")
    wrong = profiler.profile_batch(test[0]) - test[1]
    return Additive(profiler, float(1.0 - np.mean(wrong**2) / np.var(test[1])), float(np.sqrt(np.mean(wrong**2))))


@attrs.frozen(eq=False)
class Certificate:
    """The best network of an additive model within a limit.

    Attributes:
        model: The model.
        optimum: Its best network, its value, and what nothing within the limit exceeds.
        accuracy: What the predictor says of that network, in percent.
        cpu_s: CPU seconds to draw and evaluate the networks, to fit the model and to find the optimum.
    """

    model: Additive
    optimum: Optimum
    accuracy: float
    cpu_s: float


def certified(predictor: AccuracyPredictor, *limits: Constraint, samples: int, seed: int) -> Certificate:
    """Fit the model on random networks within limits, and find its best network within them.

    Args:
        predictor: The accuracy.
        *limits: Upper and lower limits on profilers with tables.
        samples: How many networks the model is fitted on; its error is stated on as many others.
        seed: The seed of the draws.
    """
    start = time.process_time()
    feasible = FeasibleSet(predictor.space, *limits)
    drawn = feasible.sample(2 * samples, np.random.default_rng(seed))
    accuracies = predictor.predict_batch(drawn)
    rows = np.arange(samples)
    model = fitted(
        predictor.space,
        (drawn[rows], accuracies[rows]),
        (drawn[rows + samples], accuracies[rows + samples]),
    )
    optimum = feasible.maximum(model.profiler)
    accuracy = predictor.predict(optimum.architecture)
    return Certificate(model, optimum, accuracy, time.process_time() - start)
