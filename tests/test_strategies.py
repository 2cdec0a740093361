from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from nasmw import CostTable, TabledProfiler
from nasmw.candidates import Candidates, Outcomes, Status
from nasmw.choice import Choice
from nasmw.context import Context
from nasmw.space import Space
from nasmw.strategies import Evolution, Grid, Random
from nasmw.strategies.drawing import TABULATED, Independent, Permutation
from nasmw.strategy import Strategy
from nasmw.testing import RecordingStrategy, StrategyContract, TableProfiler, drive, scored, toy_space
from nasmw.testing.strategies import context_for


class TestRandom(StrategyContract):
    def make(self) -> Strategy:
        return Random()


class TestRandomWithoutReplacement(StrategyContract):
    def make(self) -> Strategy:
        return Random(replacement=False)


class TestGrid(StrategyContract):
    random = False

    def make(self) -> Strategy:
        return Grid()


class TestGridShuffled(StrategyContract):
    def make(self) -> Strategy:
        return Grid(shuffle=True)


class TestEvolution(StrategyContract):
    def make(self) -> Strategy:
        return Evolution(population=10, tournament=3)


class TestEvolutionWithEverything(StrategyContract):
    def make(self) -> Strategy:
        return Evolution(population=8, tournament=4, mutation_probability=0.2, crossover=0.5, repeats=False)


class TestRecordingStrategy(StrategyContract):
    def make(self) -> Strategy:
        return RecordingStrategy()


class TestRandomInAHugeSpace(StrategyContract):
    def make(self) -> Strategy:
        return Random(replacement=False)

    def make_space(self) -> Space:
        return huge_space()


class TestEvolutionInAHugeSpace(StrategyContract):
    def make(self) -> Strategy:
        return Evolution(population=10, repeats=False)

    def make_space(self) -> Space:
        return huge_space()


def huge_space() -> Space:
    """About 1e80 architectures, half of the choices conditional."""
    choices = []
    for number in range(60):
        choices.append(Choice(f"depth{number}", (1, 2, 3, 4)))
        choices.append(Choice(f"kernel{number}", (1, 3, 5, 7, 9), when={f"depth{number}": (2, 3, 4)}))
        choices.append(Choice(f"width{number}", (8, 16)))
    return Space(choices, name="huge")


def rows(candidates: Candidates) -> set[bytes]:
    return set(candidates.row_keys())


# -- random and grid ----------------------------------------------------------------------------------------------


def test_random_with_replacement_is_uniform() -> None:
    space = Space([Choice("a", (0, 1)), Choice("b", (0, 1, 2), when={"a": 1})])
    codes = drive(Random(), space, 8000, n=50).codes
    counts = np.unique(codes, axis=0, return_counts=True)[1]
    chi_square = ((counts - 2000) ** 2 / 2000).sum()
    assert len(counts) == space.size == 4
    assert chi_square < 16.3  # 0.1 % at 3 degrees of freedom


@pytest.mark.parametrize("n", [1, 3, 255, 256, 257, 600])
def test_random_does_not_depend_on_how_many_are_asked_at_a_time(n: int) -> None:
    space = toy_space()
    for replacement in (True, False):
        first = drive(Random(replacement), space, 600, n=n).codes
        assert np.array_equal(first, drive(Random(replacement), space, 600, n=100).codes)


@pytest.mark.parametrize("strategy", [Random(replacement=False), Grid(), Grid(shuffle=True)], ids=repr)
def test_everything_once(strategy: Strategy) -> None:
    space = toy_space()
    asked = drive(strategy, space, 5000, n=7)
    assert len(asked) == space.size == len(rows(asked))
    assert strategy.exhausted
    assert not len(strategy.ask(3))


def test_grid_goes_by_rank() -> None:
    space = toy_space()
    assert np.array_equal(drive(Grid(), space, 5000, n=9).codes, space.at(range(space.size)).codes)
    assert not np.array_equal(drive(Grid(shuffle=True), space, 5000, n=9).codes, space.at(range(space.size)).codes)


def test_without_replacement_in_a_huge_space_repeats_nothing_and_keeps_nothing() -> None:
    space = huge_space()
    assert space.size > 10**75
    strategy = Random(replacement=False)
    asked = drive(strategy, space, 500, n=50)
    assert len(rows(asked)) == 500
    assert not strategy.exhausted
    # Options of the first choices show the same frequencies as uniform draws do.
    deep = (asked.codes[:, ::3] > 0).mean()
    assert abs(deep - 15 / 16) < 0.01


@pytest.mark.parametrize("size", [1, 2, 3, 10, 1596, TABULATED, TABULATED + 1])
def test_a_permutation_hits_everything_once(size: int) -> None:
    permutation = Permutation(size, np.random.default_rng(0))
    numbers = [permutation(number) for number in range(size)]
    assert sorted(numbers) == list(range(size))


@pytest.mark.parametrize("size", [10**6 + 3, 10**20, 10**80, 10**400])
def test_a_permutation_of_many_is_spread_evenly(size: int) -> None:
    permutation = Permutation(size, np.random.default_rng(0))
    numbers = [permutation(number) for number in range(2000)]
    assert all(0 <= number < size for number in numbers)
    assert len(set(numbers)) == 2000
    counts = np.bincount([number * 10 // size for number in numbers], minlength=10)
    assert ((counts - 200) ** 2 / 200).sum() < 27.9  # 0.1 % at 9 degrees of freedom
    last_digits = np.bincount([number % 10 for number in numbers], minlength=10)
    assert ((last_digits - 200) ** 2 / 200).sum() < 27.9
    other = Permutation(size, np.random.default_rng(1))
    assert [other(number) for number in range(5)] != numbers[:5]


def test_a_permutation_is_of_its_size_only() -> None:
    permutation = Permutation(10, np.random.default_rng(0))
    with pytest.raises(IndexError, match="number 10 of a permutation of 10"):
        permutation(10)
    with pytest.raises(ValueError, match="at least one number"):
        Permutation(0, np.random.default_rng(0))


def test_independent_draws_do_not_depend_on_the_pattern() -> None:
    space = toy_space()
    whole = Independent(space, np.random.default_rng(0)).take(1000)
    piecewise = Independent(space, np.random.default_rng(0))
    parts = [piecewise.take(n) for n in (1, 300, 0, 255, 400, 44)]
    assert np.array_equal(np.concatenate(parts), whole)


@pytest.mark.parametrize("make", [lambda: Random(1), lambda: Grid(shuffle="yes")])  # type: ignore[arg-type]
def test_flags_are_bools(make: Any) -> None:
    with pytest.raises(TypeError, match="is True or False, got"):
        make()


# -- evolution ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"population": 0}, ValueError, "population is at least 1, got 0"),
        ({"population": 2.5}, TypeError, "population is a whole number, got 2.5"),
        ({"population": True}, TypeError, "population is a whole number, got True"),
        ({"population": 10, "tournament": 11}, ValueError, "whole population of 10, got 11"),
        ({"tournament": 0}, ValueError, "tournament is at least 1"),
        ({"mutation_probability": 1.5}, ValueError, "mutation_probability is from 0 to 1, got 1.5"),
        ({"mutation_probability": "often"}, TypeError, "mutation_probability is a number from 0 to 1, got 'often'"),
        ({"crossover": -0.1}, ValueError, "crossover is from 0 to 1"),
        ({"crossover": float("nan")}, ValueError, "crossover is from 0 to 1, got nan"),
        ({"repeats": 0}, TypeError, "repeats is True or False, got 0"),
    ],
)
def test_evolution_checks_its_arguments(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        Evolution(**arguments)


def test_evolution_has_the_papers_defaults() -> None:
    assert (Evolution().population, Evolution().tournament) == (100, 25)
    assert Evolution(population=3).tournament == 1


def test_evolution_wants_one_objective() -> None:
    with pytest.raises(ValueError, match=r"score0.*score1.*Reward"):
        Evolution().setup(context_for(toy_space(), objectives=2))


def hamming(first: np.ndarray, second: np.ndarray) -> int:
    return int((first != second).sum())


def flat_space() -> Space:
    return Space([Choice(f"c{number}", (0, 1, 2, 3)) for number in range(12)])


def test_evolution_follows_the_algorithm() -> None:
    """With a tournament of (nearly surely) everyone, each child is one change from the best of the living."""
    space = flat_space()
    strategy = Evolution(population=4, tournament=4)
    strategy.setup(context_for(space))
    living: list[tuple[float, np.ndarray]] = []
    parents = 0
    for step in range(60):
        batch = strategy.ask(1)
        if step >= 4:
            distances = [hamming(batch.codes[0], row) for _, row in living]
            assert 1 in distances
            best = max(living, key=lambda member: member[0])[1]
            parents += hamming(batch.codes[0], best) == 1
        outcomes = scored(batch)
        strategy.tell(outcomes)
        living = [*living, (outcomes.scores[0, 0], batch.codes[0])][-4:]
    assert parents > 25


def test_evolution_forgets_the_oldest_even_if_it_is_the_best() -> None:
    space = flat_space()
    strategy = Evolution(population=2, tournament=2)
    strategy.setup(context_for(space))
    first = strategy.ask(1)
    strategy.tell(Outcomes(first, [Status.COMPLETED], np.array([[1e9]])))
    later = [strategy.ask(1) for _ in range(2)]
    for batch in later:
        strategy.tell(Outcomes(batch, [Status.COMPLETED], np.array([[0.0]])))
    children = strategy.ask(50).codes
    assert all(min(hamming(child, batch.codes[0]) for batch in later) == 1 for child in children)


def test_evolution_stays_random_until_the_population_has_scores() -> None:
    space = toy_space()
    strategy = Evolution(population=5, tournament=5)
    strategy.setup(context_for(space, seed=3))
    batch = strategy.ask(40)
    nan = Outcomes.turned_away(batch[:30], Status.INFEASIBLE, ["no"] * 30, 1)
    strategy.tell(nan)
    assert not strategy._members
    strategy.tell(scored(batch[30:]))
    assert len(strategy._members) == 5
    assert {member.tobytes() for member in strategy._members} == rows(batch[35:])


def test_evolution_changes_exactly_one_choice() -> None:
    space = flat_space()
    strategy = Evolution(population=1, tournament=1)
    strategy.setup(context_for(space))
    parent = strategy.ask(1)
    strategy.tell(scored(parent))
    children = strategy.ask(300).codes
    assert {hamming(child, parent.codes[0]) for child in children} == {1}
    assert {int(np.flatnonzero(child != parent.codes[0])[0]) for child in children} == set(range(12))


def test_evolution_with_a_probability_changes_one_or_more() -> None:
    space = flat_space()
    strategy = Evolution(population=1, tournament=1, mutation_probability=0.5)
    strategy.setup(context_for(space))
    parent = strategy.ask(1)
    strategy.tell(scored(parent))
    distances = [hamming(child, parent.codes[0]) for child in strategy.ask(500).codes]
    assert min(distances) >= 1
    assert abs(np.mean(distances) - 6.0) < 0.3


def test_crossover_takes_choices_of_both_parents() -> None:
    space = Space([Choice(f"c{number}", tuple(range(50))) for number in range(20)])
    strategy = Evolution(population=2, tournament=1, crossover=1.0)
    strategy.setup(context_for(space))
    parents = strategy.ask(2)
    strategy.tell(scored(parents))
    first, second = parents.codes
    children = strategy.ask(100).codes
    strange = (children != first) & (children != second)
    assert (strange.sum(axis=1) <= 1).all()
    both = [(child == first).any() and (child == second).any() for child in children]
    assert 30 < sum(both) < 70  # half of the pairs are one parent twice


@pytest.mark.parametrize("limited", [False, True])
def test_many_children_at_a_time_are_like_children_one_by_one(limited: bool) -> None:
    """Children of one population: the same shares of each number of changes, all within the limit."""
    space = flat_space()
    table = TabledProfiler(CostTable(space, [((f"c{i}",), [0, 1, 2, 3]) for i in range(12)]), "sum")
    counts = []
    for n in (5, 1000):
        strategy = Evolution(population=1, tournament=1, mutation_probability=0.2)
        strategy.setup(context_for(space))
        assert not limited or strategy.offer(table <= 12)
        parent = strategy.ask(1)
        strategy.tell(scored(parent))
        children = Candidates.join([strategy.ask(n) for _ in range(1000 // n)])
        assert not limited or table.profile_batch(children).max() <= 12
        distances = (children.codes != parent.codes).sum(axis=1)
        counts.append(np.bincount(np.minimum(distances, 6), minlength=7))
    expected = (counts[0] + counts[1])[1:] / 2
    assert counts[0][0] == counts[1][0] == 0
    chi_square = ((counts[0][1:] - counts[1][1:]) ** 2 / (2 * np.maximum(expected, 1))).sum()
    assert chi_square < 22.5  # 0.1 % at 6 degrees of freedom


@pytest.mark.parametrize("n", [4, 30])
@pytest.mark.parametrize("arguments", [{}, {"crossover": 0.5}, {"mutation_probability": 0.3}], ids=str)
def test_evolution_without_repeats_asks_for_everything_once(arguments: dict[str, Any], n: int) -> None:
    space = Space([Choice("a", (0, 1, 2)), Choice("b", tuple(range(9)), when={"a": (1, 2)}), Choice("c", (0, 1, 2))])
    strategy = Evolution(population=6, tournament=3, repeats=False, **arguments)
    asked = drive(strategy, space, 1000, n=n)
    assert len(asked) == len(rows(asked)) == space.size == 57
    assert strategy.exhausted


def test_evolution_without_repeats_does_not_ask_for_what_it_adopted() -> None:
    space = toy_space()
    strategy = Evolution(population=6, tournament=3, repeats=False)
    strategy.setup(context_for(space))
    known = space.at(range(1000))
    strategy.adopt(scored(known))
    asked = strategy.ask(596)
    assert not rows(asked) & rows(known)
    assert strategy.exhausted


def test_evolution_beats_random_search() -> None:
    space = Space([Choice(f"c{number}", tuple(range(6))) for number in range(16)])

    def best(strategy: Strategy, seed: int) -> float:
        asked = drive(strategy, space, 400, seed=seed)
        return float(-TableProfiler(space).profile_batch(asked).min())

    ours = [best(Evolution(population=30, tournament=10), seed) for seed in range(5)]
    theirs = [best(Random(), seed) for seed in range(5)]
    assert min(ours) > max(theirs)


def test_setup_of_another_run_takes_another_space() -> None:
    strategy = Evolution(population=4, repeats=False)
    drive(strategy, toy_space(), 50)
    other = flat_space()
    strategy.setup(Context(other))
    assert strategy.ask(2).space is other


@pytest.mark.parametrize("strategy", [Grid(), Grid(shuffle=True), Random(replacement=False)], ids=repr)
def test_what_was_adopted_is_not_asked_again(strategy: Strategy) -> None:
    space = toy_space()
    known = space.at(range(0, space.size, 3))
    strategy.setup(Context(space))
    scores = np.zeros((len(known), 1))
    strategy.adopt(Outcomes(known, [Status.COMPLETED] * len(known), scores))
    asked = strategy.ask(space.size)
    assert strategy.exhausted
    assert len(asked) == space.size - len(known)
    assert not set(asked.row_keys()) & set(known.row_keys())
