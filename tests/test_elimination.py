from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from conditional import conditional_variables, enumerate_distinct, matters
from hypothesis import given
from hypothesis import strategies as st

from nasmw.elimination import Program, Variable, least


def rows(codes: np.ndarray) -> list[tuple[int, ...]]:
    return [tuple(row) for row in codes.tolist()]


@given(conditional_variables())
def test_size_is_what_enumeration_counts(variables: list[Variable]) -> None:
    assert Program(variables).size == len(enumerate_distinct(variables))


@given(conditional_variables())
def test_ranks_are_a_bijection(variables: list[Variable]) -> None:
    program = Program(variables)
    everything = rows(program.unrank(range(program.size)))
    assert len(everything) == len(set(everything))
    assert set(everything) == enumerate_distinct(variables)


@given(conditional_variables())
def test_ranks_are_lexicographic_in_the_order_walked(variables: list[Variable]) -> None:
    program = Program(variables)
    walked = [tuple(row[index] for index in program.order) for row in rows(program.unrank(range(program.size)))]
    assert walked == sorted(walked)


@given(conditional_variables())
def test_gates_are_walked_before_what_they_gate(variables: list[Variable]) -> None:
    program = Program(variables)
    place = {index: number for number, index in enumerate(program.order)}
    assert sorted(place) == list(range(len(variables)))
    assert all(place[gate] < place[index] for index, variable in enumerate(variables) for gate in variable.gates)


@given(conditional_variables(), st.integers(0, 2**32))
def test_samples_are_distinct_assignments(variables: list[Variable], seed: int) -> None:
    sampled = rows(Program(variables).sample(50, np.random.default_rng(seed)))
    for row in sampled:
        active = matters(variables, row)
        assert all(0 <= code < variable.options for code, variable in zip(row, variables, strict=True))
        assert not any(code for code, own in zip(row, active, strict=True) if not own)


GATED = [
    Variable(3),
    Variable(4, {0: frozenset({1, 2})}),
    Variable(2, {0: frozenset({2}), 1: frozenset({0, 3})}),
    Variable(3, {2: frozenset({1})}),
    Variable(2),
]


@pytest.mark.parametrize(
    "variables",
    [
        GATED,
        [Variable(5)],
        [Variable(2), *(Variable(3, {0: frozenset({1})}) for _ in range(3))],
        # A variable that depends on two options of a gate that exclude each other further down never matters.
        [Variable(2), Variable(2, {0: frozenset({0})}), Variable(4, {0: frozenset({1}), 1: frozenset({1})})],
    ],
)
def test_samples_are_uniform(variables: list[Variable]) -> None:
    program = Program(variables)
    everything = {row: number for number, row in enumerate(sorted(enumerate_distinct(variables)))}
    drawn = 400 * program.size
    sampled = rows(program.sample(drawn, np.random.default_rng(20)))
    counts = np.bincount([everything[row] for row in sampled], minlength=program.size)
    freedom = program.size - 1
    chi_square = ((counts - 400) ** 2 / 400).sum()
    # Wilson and Hilferty's approximation of the 99.9 % quantile of chi-square.
    quantile = freedom * (1 - 2 / (9 * freedom) + 3.09 * (2 / (9 * freedom)) ** 0.5) ** 3
    assert chi_square < quantile


def test_sizes_are_exact_beyond_float64() -> None:
    program = Program([Variable(7) for _ in range(100)])
    assert program.size == 7**100
    last = program.unrank([0, 7**100 - 1, 7**99])
    assert rows(last)[:2] == [(0,) * 100, (6,) * 100]
    assert last[2].sum() == 1


def test_depths_of_many_stages_stay_cheap() -> None:
    variables: list[Variable] = []
    for _ in range(20):
        depth = len(variables)
        variables.append(Variable(5))
        variables += [Variable(9, {depth: frozenset(range(block, 5))}) for block in range(5)]
    program = Program(variables)
    assert program.size == sum(9**depth for depth in range(1, 6)) ** 20
    assert len(program.unrank([program.size - 1])) == 1


@pytest.mark.parametrize("rank", [-1, 12])
def test_ranks_out_of_range(rank: int) -> None:
    with pytest.raises(IndexError, match=f"rank {rank} of 12 assignments"):
        Program([Variable(3), Variable(4)]).unrank([rank])


def test_types_are_wide_enough() -> None:
    for options, dtype in ((256, np.uint8), (257, np.uint16), (65536, np.uint16), (65537, np.uint32)):
        program = Program([Variable(options)])
        codes = program.unrank([options - 1])
        assert codes.dtype == dtype
        assert codes[0, 0] == options - 1
        assert program.sample(3, np.random.default_rng(0)).dtype == dtype


# -- the least of tables ------------------------------------------------------------------------------------------


@st.composite
def tables(draw: st.DrawFn) -> tuple[list[tuple[tuple[int, ...], np.ndarray]], list[int]]:
    sizes = draw(st.lists(st.integers(1, 4), min_size=1, max_size=5))
    made = []
    for _ in range(draw(st.integers(0, 5))):
        scope = tuple(sorted(draw(st.lists(st.integers(0, len(sizes) - 1), max_size=3, unique=True))))
        shape = [sizes[index] for index in scope]
        number = int(np.prod(shape))
        entries = draw(st.lists(st.integers(-50, 50), min_size=number, max_size=number))
        made.append((scope, np.array(entries, dtype=np.int64).reshape(shape)))
    return made, sizes


@pytest.mark.parametrize("combine", [np.add, np.maximum])
@given(tables())
def test_least_is_what_enumeration_finds(combine: np.ufunc, made: Any) -> None:
    given_tables, sizes = made

    def value(row: tuple[int, ...]) -> int:
        entries = [int(table[tuple(row[index] for index in scope)]) for scope, table in given_tables]
        return (sum(entries) if combine is np.add else max(entries)) if entries else 0

    best, codes = least(given_tables, sizes, combine)
    assert best == min(value(row) for row in itertools.product(*map(range, sizes)))
    assert best == value(tuple(codes))
