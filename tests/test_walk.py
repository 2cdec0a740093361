"""Walk: every architecture within limits is reached by exactly one row of decisions, and no other one."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nasmw import CostTable, FeasibleSet, MaxTable, Space, TabledProfiler
from nasmw.choice import Choice
from nasmw.constraint import Constraint, Constraints
from nasmw.errors import ConstraintError
from nasmw.testing import toy_space

CONDITIONAL = Space(
    [
        Choice("depth", (1, 2, 3)),
        Choice("a", (0, 1, 2)),
        Choice("b", (0, 1, 2), when={"depth": (2, 3)}),
        Choice("c", (0, 1), when={"depth": 3}),
        Choice("d", (0, 1, 2), when={"c": 1}),
    ]
)


def cost(space: Space, seed: int, name: str, *, whole: bool) -> TabledProfiler:
    rng = np.random.default_rng(seed)
    tables = []
    for choice in space.choices:
        values = rng.integers(0, 30, len(choice.options))
        tables.append(((choice.name,), values if whole else values * rng.random(len(values))))
    return TabledProfiler(CostTable(space, tables), name)


def leaves(feasible: FeasibleSet) -> list[tuple[int, ...]]:
    """Return what all rows of decisions lead to."""
    found = []
    waiting: list[list[int]] = [[]]
    while waiting:
        taken = waiting.pop()
        walk = feasible.walk()
        for option in taken:
            walk.take(option)
        if walk.variable is None:
            assert not walk.options
            found.append(tuple(walk.codes[0].tolist()))
        else:
            assert len(walk.options) > 1
            waiting += [[*taken, option] for option in walk.options]
    return sorted(found)


def within(space: Space, terms: list[Constraint | Constraints]) -> list[tuple[int, ...]]:
    """Return the architectures within limits by looking at each one."""
    everything = space.at(range(space.size))
    flat = list(itertools.chain(*([term] if isinstance(term, Constraint) else term for term in terms)))
    held = np.ones(len(everything), dtype=bool)
    for term in flat:
        held &= term.holds(term.profiler.profile_batch(everything))
    return sorted(map(tuple, everything.codes[held].tolist()))


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 1000),
    whole=st.booleans(),
    bins=st.sampled_from([None, 3, 1]),
    kind=st.sampled_from(["none", "one", "two", "between"]),
    share=st.floats(0.1, 0.9),
)
def test_leaves_are_the_architectures_within_limits(
    seed: int, whole: bool, bins: int | None, kind: str, share: float
) -> None:
    first, second = (cost(CONDITIONAL, seed + k, f"cost{k}", whole=whole) for k in (0, 1))
    high = float(np.quantile(first.profile_batch(CONDITIONAL.at(range(CONDITIONAL.size))), share))
    terms: list[Any] = {
        "none": [],
        "one": [first <= high],
        "two": [first <= high, second <= 45],
        "between": [(first >= high - 8) & (first <= high)],
    }[kind]
    feasible = FeasibleSet(CONDITIONAL, *terms, bins=bins)
    wanted = within(CONDITIONAL, terms)
    if wanted:
        assert leaves(feasible) == wanted
    else:
        with pytest.raises(ConstraintError, match="No architecture|None of"):
            feasible.walk()


def test_limits_on_maxima_and_conditions_two_deep() -> None:
    space = toy_space()
    peak = TabledProfiler(MaxTable(space, [(("width",), [1.0, 2.0, 3.0, 4.0]), (("depth",), [2.5, 1.0, 3.5])]), "peak")
    terms: list[Any] = [peak <= 3.0, cost(space, 0, "cost", whole=True) <= 170]
    assert leaves(FeasibleSet(space, *terms)) == within(space, terms)


def test_names_only_decisions() -> None:
    """What does not matter, and what the limit leaves one option of, is decided without being asked."""
    walk = FeasibleSet(CONDITIONAL, cost(CONDITIONAL, 0, "cost", whole=True) >= 0).walk()
    taken = {}
    while walk.variable is not None:
        taken[CONDITIONAL.choices[walk.variable].name] = walk.options
        walk.take(walk.options[0])
    assert taken == {"depth": (0, 1, 2), "a": (0, 1, 2)}
    assert walk.codes.tolist() == [[0, 0, 0, 0, 0]]


def test_shows_what_is_decided() -> None:
    space = Space([Choice(f"c{number}", (0, 1, 2)) for number in range(8)])
    walk = FeasibleSet(space).walk()
    for _ in range(3):
        walk.take(2)
    assert sorted(walk.codes[0].tolist()) == [0, 0, 0, 0, 0, 2, 2, 2]


def test_refuses_what_is_not_open() -> None:
    walk = FeasibleSet(toy_space()).walk()
    with pytest.raises(ValueError, match="option 9 is none of"):
        walk.take(9)


def test_nothing_to_walk_in() -> None:
    with pytest.raises(ConstraintError, match="No architecture"):
        FeasibleSet(CONDITIONAL, cost(CONDITIONAL, 0, "cost", whole=True) <= -1).walk()
