"""Limits that are offered to strategies: nothing infeasible gets through, and what Random yields stays uniform."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nasmw.candidates import Candidates, Outcomes, Status
from nasmw.constraint import Constraint
from nasmw.context import Context
from nasmw.cost import CostTable, MaxTable
from nasmw.errors import ConstraintError
from nasmw.feasible import FeasibleSet
from nasmw.middleware import Chain, Deduplicate, Filter, Penalize, Rank
from nasmw.profiler import Profiler
from nasmw.space import Choice, Space
from nasmw.strategies import Evolution, Grid, Random
from nasmw.strategy import Strategy
from nasmw.tabled import TabledProfiler


def space_of_stages() -> Space:
    choices = [Choice("resolution", (1, 2, 3))]
    for stage in range(2):
        choices.append(Choice(f"s{stage}.depth", (1, 2)))
        for block in range(2):
            when = {f"s{stage}.depth": 2} if block else None
            choices.append(Choice(f"s{stage}.b{block}.width", (1, 2, 3, 4), when))
    return Space(choices)


SPACE = space_of_stages()
ALL = SPACE.at(range(SPACE.size))


def tabled(name: str, seed: int, kind: type[CostTable] | type[MaxTable] = CostTable) -> TabledProfiler:
    rng = np.random.default_rng(seed)
    terms = []
    for stage in range(2):
        terms.append((("resolution", f"s{stage}.b0.width"), rng.integers(1, 30, (3, 4))))
        pair = rng.integers(1, 30, (2, 4, 4))
        pair[0] = 0
        terms.append(((f"s{stage}.depth", f"s{stage}.b0.width", f"s{stage}.b1.width"), pair))
    return TabledProfiler(kind(SPACE, terms), name)


MACS, PARAMS, PEAK = tabled("macs", 1), tabled("params", 2), tabled("peak", 3, MaxTable)


def at_share(profiler: Profiler, share: float) -> Constraint:
    values = np.sort(profiler.profile_batch(ALL))
    return profiler <= float(values[int(share * (len(values) - 1))])


def keys_within(limits: list[Constraint]) -> set[bytes]:
    return set(ALL[np.flatnonzero(FeasibleSet(SPACE, *limits).holds(ALL))].row_keys())


STRATEGIES = {
    "random": Random,
    "random without replacement": lambda: Random(replacement=False),
    "grid": Grid,
    "shuffled grid": lambda: Grid(shuffle=True),
    "evolution": lambda: Evolution(population=6, tournament=3),
    "evolution with crossover": lambda: Evolution(6, 3, mutation_probability=0.3, crossover=0.7),
    "evolution without repeats": lambda: Evolution(6, 3, repeats=False),
}
STAGES = {
    "deduplicate": Deduplicate,
    "penalize": lambda: Penalize(MACS, target=60),
    "rank": lambda: Rank(PARAMS, groups_of=3, maximize=False),
    "callable": lambda: Filter(lambda architecture: architecture["resolution"] != 2, patience=200),
    "bad score": lambda: Filter(PARAMS >= 1, tell="bad score"),
}


def told(batch: Candidates) -> Outcomes:
    return Outcomes(batch, [Status.COMPLETED] * len(batch), (100.0 - PARAMS.profile_batch(batch))[:, None])


def drive(strategy: Strategy, asks: int, n: int, seed: int) -> Candidates:
    strategy.setup(Context(SPACE, seed=seed))
    batches = []
    for _ in range(asks):
        if strategy.exhausted:
            break
        batch = strategy.ask(n)
        batches.append(batch)
        strategy.tell(told(batch))
    return Candidates.join(batches)


@settings(max_examples=50, deadline=None)
@given(
    strategy=st.sampled_from(sorted(STRATEGIES)),
    below=st.lists(st.sampled_from(sorted(STAGES)), unique=True, max_size=3),
    above=st.lists(st.sampled_from(sorted(STAGES)), unique=True, max_size=2),
    macs=st.floats(0.02, 1),
    peak=st.floats(0.1, 1),
    pushdown=st.booleans(),
    seed=st.integers(0, 99),
)
def test_nothing_infeasible_gets_through(strategy, below, above, macs, peak, pushdown, seed) -> None:
    limits = [at_share(MACS, macs), at_share(PEAK, peak)]
    keys = keys_within(limits)
    inner, outer = ([STAGES[name]() for name in names] for names in (below, above))
    chain = Chain(STRATEGIES[strategy](), *inner, Filter(*limits, pushdown=pushdown, patience=200), *outer)
    if not keys:
        with pytest.raises(ConstraintError, match="No architecture meets"):
            drive(chain, 1, 1, seed)
        return
    assert set(drive(chain, 10, 5, seed).row_keys()) <= keys


@pytest.mark.parametrize("limits", [[at_share(MACS, 0.1)], [at_share(MACS, 0.4), at_share(PARAMS, 0.3)]])
def test_random_is_uniform_over_what_limits_leave(limits: list[Constraint]) -> None:
    keys = sorted(keys_within(limits))
    chain = Chain(Random(), Penalize(MACS, target=60), Filter(*limits))
    drawn = drive(chain, 100, 400, seed=1)
    assert chain.stages[-1].honoured
    place = {key: number for number, key in enumerate(keys)}
    counts = np.bincount([place[key] for key in drawn.row_keys()], minlength=len(keys))
    expected = len(drawn) / len(keys)
    assert expected > 10
    z = (((counts - expected) ** 2 / expected).sum() - (len(keys) - 1)) / np.sqrt(2 * (len(keys) - 1))
    assert abs(z) < 5


@pytest.mark.parametrize("name", ["random without replacement", "grid", "shuffled grid", "evolution without repeats"])
def test_each_feasible_architecture_comes_once(name: str) -> None:
    limits = [at_share(MACS, 0.1), at_share(PEAK, 0.8)]
    chain = Chain(STRATEGIES[name](), Filter(*limits))
    found = drive(chain, 10_000, 7, seed=3).row_keys()
    assert chain.exhausted
    assert sorted(found) == sorted(keys_within(limits))


def test_distinct_draws_where_ranks_are_too_many() -> None:
    space = Space([Choice(f"c{i}", (0, 1, 2, 3)) for i in range(60)])
    cost = TabledProfiler(CostTable(space, [((f"c{i}",), [0, 1, 2, 3]) for i in range(60)]), "cost")
    for strategy in (Random(replacement=False), Grid(), Grid(shuffle=True), Evolution(5, repeats=False)):
        chain = Chain(strategy, Filter(cost <= 60))
        chain.setup(Context(space))
        keys = []
        for _ in range(40):
            batch = chain.ask(10)
            assert (cost.profile_batch(batch) <= 60).all()
            keys += batch.row_keys()
            scores = cost.profile_batch(batch)[:, None]
            chain.tell(Outcomes(batch, [Status.COMPLETED] * len(batch), scores))
        assert len(set(keys)) == 400


@pytest.mark.parametrize("name", sorted(STRATEGIES))
def test_only_limits_on_fixed_tables_are_honoured(name: str) -> None:
    class Plain(Profiler):
        def _profile_batch(self, candidates: Candidates) -> np.ndarray:
            return np.zeros(len(candidates))

    learned = TabledProfiler(MACS.table, "learned", kind="learned")
    strategy = STRATEGIES[name]()
    strategy.setup(Context(SPACE))
    assert strategy.offer(MACS <= 60) and strategy.offer(PEAK <= 25) and strategy.offer(2 * MACS + PARAMS <= 200)
    assert not strategy.offer(Plain("plain", space=SPACE) <= 1)
    assert not strategy.offer(learned <= 60)
    strategy.ask(1)
    assert not strategy.offer(MACS <= 59)


def test_a_rare_limit_costs_no_patience() -> None:
    limit = at_share(MACS, 0.002)
    chain = Chain(Evolution(population=10), Filter(limit, patience=1))
    assert len(drive(chain, 20, 8, seed=0)) == 160
    with_rejection = Chain(Random(), Filter(limit, patience=20, pushdown=False))
    assert len(drive(with_rejection, 20, 8, seed=0)) < 160


def test_limits_that_conflict_are_named_before_the_search() -> None:
    low = at_share(MACS, 0.01)
    other = PARAMS
    best = FeasibleSet(SPACE, low).maximum(other)
    with pytest.raises(ConstraintError, match=r"No architecture meets macs <= .* together\. .*The greatest params"):
        Chain(Random(), Filter(low, other >= best.value + 1)).setup(Context(SPACE))


def test_the_order_does_not_depend_on_how_many_are_asked_at_a_time() -> None:
    for name in sorted(STRATEGIES):
        if name.startswith("evolution"):
            continue
        limits = [at_share(MACS, 0.3)]
        few, many = (drive(Chain(STRATEGIES[name](), Filter(*limits)), 60 // n, n, seed=5) for n in (3, 20))
        assert few.row_keys() == many.row_keys()
