"""Hypothesis strategies for conditional variables and spaces, and their enumeration by brute force."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from hypothesis import strategies as st

from nasmw.choice import Choice
from nasmw.elimination import Variable
from nasmw.space import Space


@st.composite
def conditional_variables(draw: st.DrawFn, most: int = 6) -> list[Variable]:
    """Up to `most` variables of up to 4 options, each gated by up to 2 earlier ones."""
    variables: list[Variable] = []
    for index in range(draw(st.integers(1, most))):
        gates = {}
        for gate in draw(st.lists(st.integers(0, index - 1), max_size=2, unique=True)) if index else []:
            codes = st.integers(0, variables[gate].options - 1)
            gates[gate] = frozenset(draw(st.lists(codes, min_size=1, max_size=3, unique=True)))
        variables.append(Variable(draw(st.integers(1, 4)), gates))
    return variables


def space_of(variables: Sequence[Variable]) -> Space:
    """A space whose choices are the variables; option 2 of the fourth is ``"3:2"``."""
    return Space(
        Choice(
            f"c{index}",
            [f"{index}:{code}" for code in range(variable.options)],
            when={f"c{gate}": [f"{gate}:{code}" for code in sorted(codes)] for gate, codes in variable.gates.items()},
        )
        for index, variable in enumerate(variables)
    )


conditional_spaces = conditional_variables().map(space_of)


def matters(variables: Sequence[Variable], row: Sequence[int]) -> list[bool]:
    """Which variables matter in a row, by the definition."""
    active: list[bool] = []
    for variable in variables:
        active.append(all(active[gate] and row[gate] in allowed for gate, allowed in variable.gates.items()))
    return active


def enumerate_distinct(variables: Sequence[Variable]) -> set[tuple[int, ...]]:
    """All distinct assignments, by trying everything."""
    return {
        tuple(code if active else 0 for code, active in zip(row, matters(variables, row), strict=True))
        for row in itertools.product(*(range(variable.options) for variable in variables))
    }
