from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nasmw.candidates import Candidates
from nasmw.choice import Choice
from nasmw.constraint import Constraint
from nasmw.cost import CostTable, MaxTable
from nasmw.errors import ConstraintError, ProfilerError
from nasmw.feasible import FeasibleSet
from nasmw.profiler import Profiler
from nasmw.space import Space
from nasmw.tabled import TabledProfiler

WIDTHS = (8, 16, 24, 40)
STAGES = 2


def coupled_space() -> Space:
    """Widths that the next block sees, kernels, and depths that take blocks away: 44,100 architectures."""
    choices = [Choice("resolution", (1, 2, 3, 4))]
    for stage in range(STAGES):
        choices.append(Choice(f"s{stage}.depth", (1, 2)))
        for block in range(2):
            when = {f"s{stage}.depth": 2} if block else None
            choices.append(Choice(f"s{stage}.b{block}.width", WIDTHS[: 3 if block else 4], when=when))
            choices.append(Choice(f"s{stage}.b{block}.kernel", (3, 5, 7)[: 3 - stage], when=when))
    return Space(choices, name="coupled")


def coupled_terms(space: Space, seed: int, integer: bool) -> list[tuple[tuple[str, ...], np.ndarray]]:
    """Costs of blocks that depend on the width of the last block before them."""
    rng = np.random.default_rng(seed)
    terms = []
    for stage in range(STAGES):
        first = (f"s{stage}.b0.width", f"s{stage}.b0.kernel")
        second = (f"s{stage}.depth", f"s{stage}.b0.width", f"s{stage}.b1.width", f"s{stage}.b1.kernel")
        terms.append((("resolution", *first), rng.integers(1, 60, [4, 4, 3 - stage])))
        block = rng.integers(1, 60, [2, 4, 3, 3 - stage])
        block[0] = 0
        terms.append((second, block))
        ends = (f"s{stage}.depth", f"s{stage}.b0.width", f"s{stage}.b1.width")
        after = (f"s{stage + 1}.b0.width",) if stage + 1 < STAGES else ()
        head = rng.integers(1, 60, [4, *(4 for _ in after)])
        table = np.zeros([2, 4, 3, *head.shape[1:]], dtype=np.int64)
        table[0], table[1] = head[:, None], head[None, :3]
        terms.append(((*ends, *after), table))
    return terms if integer else [(names, table * math.pi / 7) for names, table in terms]


def every(space: Space) -> Candidates:
    return space.at(range(space.size))


SPACE = coupled_space()
ALL = every(SPACE)


def profiler(seed: int, *, integer: bool = True) -> TabledProfiler:
    table = CostTable(SPACE, coupled_terms(SPACE, seed, integer), constant=11 if integer else 1.5)
    return TabledProfiler(table, f"cost{seed}")


def limit_of_share(measure: Profiler, share: float) -> float:
    values = np.sort(measure.profile_batch(ALL))
    return float(values[max(int(share * len(values)) - 1, 0)])


def keys_within(*limits: Constraint) -> list[bytes]:
    holds = np.ones(len(ALL), dtype=bool)
    for limit in limits:
        holds &= limit.holds(limit.profiler.profile_batch(ALL))
    return ALL[np.flatnonzero(holds)].row_keys()


def z_of_uniform(drawn: Candidates, keys: list[bytes], seed: int = 0, weights: np.ndarray | None = None) -> float:
    """Return how many standard deviations the chi-square statistic is above its mean, if draws are uniform on keys.

    Or have the weights of keys. Rows are pooled at random where fewer than 10 draws are expected on each.
    """
    place = {key: number for number, key in enumerate(keys)}
    cells = min(len(keys), max(len(drawn) // 10, 1))
    pool = np.random.default_rng(seed).permutation(len(keys)) % cells
    counts = np.bincount(pool[[place[key] for key in drawn.row_keys()]], minlength=cells)
    weights = np.ones(len(keys)) if weights is None else weights
    expected = np.bincount(pool, weights, minlength=cells) * len(drawn) / weights.sum()
    statistic = ((counts - expected) ** 2 / expected).sum()
    return float((statistic - (cells - 1)) / math.sqrt(2 * max(cells - 1, 1)))


@pytest.mark.parametrize("integer", [True, False])
@pytest.mark.parametrize("share", [0.5, 1e-2, 1e-4])
def test_draws_within_one_limit_are_uniform_and_counted(share: float, integer: bool) -> None:
    cost = profiler(1, integer=integer)
    limit = cost <= limit_of_share(cost, share)
    keys = keys_within(limit)
    feasible = FeasibleSet(SPACE, limit)
    drawn = feasible.sample(200_000, np.random.default_rng(3))
    assert set(drawn.row_keys()) <= set(keys)
    assert abs(z_of_uniform(drawn, keys)) < 5
    count = feasible.count()
    assert count.low <= len(keys) <= count.high
    assert count.exact == (len(keys) if integer else None)
    assert feasible.accepted > 0.95


@pytest.mark.parametrize("integer", [True, False])
@pytest.mark.parametrize("share", [0.5, 1e-2, 1e-4])
def test_draws_within_two_limits_are_uniform_and_counted(share: float, integer: bool) -> None:
    first, second = profiler(1, integer=integer), profiler(2, integer=integer)
    pair = np.maximum(*(np.argsort(np.argsort(each.profile_batch(ALL), kind="stable")) for each in (first, second)))
    rank = int(np.sort(pair)[max(int(share * len(ALL)) - 1, 0)])
    limits = [each <= float(np.sort(each.profile_batch(ALL))[rank]) for each in (first, second)]
    keys = keys_within(*limits)
    feasible = FeasibleSet(SPACE, *limits)
    drawn = feasible.sample(200_000, np.random.default_rng(3))
    assert set(drawn.row_keys()) <= set(keys)
    assert abs(z_of_uniform(drawn, keys)) < 5
    count = feasible.count()
    assert count.low <= len(keys) <= count.high
    assert count.exact == (len(keys) if integer else None)


def test_draws_are_uniform_where_no_cost_is_limited() -> None:
    """Choices that matter have more options than those that do not, and no slack tells them apart."""
    space = Space(
        [
            Choice("a", ("p", "q")),
            Choice("b", (0, 1, 2), when={"a": ["p", "q"]}),
            Choice("c", (0, 1, 2)),
            Choice("d", (0, 1), when={"c": [2], "a": ["q"]}),
        ]
    )
    table = np.zeros((2, 3, 3))
    table[1, 1] = [0, 5, 5]
    peak = TabledProfiler(MaxTable(space, [(("a", "b", "c"), table)]), "peak")
    for limits in ((), (peak <= 1,)):
        feasible = FeasibleSet(space, *limits)
        kept = every(space)
        kept = kept[np.flatnonzero(feasible.holds(kept))]
        assert abs(z_of_uniform(feasible.sample(100_000, np.random.default_rng(0)), kept.row_keys())) < 5
        options = np.array([len(choice.options) for choice in space.choices])
        weights = np.where(space.active(kept.codes), 1, options).prod(axis=1).astype(float)
        drawn = feasible.sample(100_000, np.random.default_rng(1), by_choice=True)
        assert abs(z_of_uniform(drawn, kept.row_keys(), weights=weights)) < 5


def a_limit_on_the_greatest() -> Constraint:
    peak = TabledProfiler(MaxTable(SPACE, coupled_terms(SPACE, 5, True)), "peak")
    return peak <= limit_of_share(peak, 0.3)


@pytest.mark.parametrize(
    "limits",
    [
        lambda: (),
        lambda: (profiler(1) <= limit_of_share(profiler(1), 0.01),),
        lambda: (profiler(1, integer=False) <= 80, profiler(2, integer=False) >= 80),
        lambda: (a_limit_on_the_greatest(), profiler(3) <= limit_of_share(profiler(3), 0.4)),
        lambda: (Doubled(profiler(1)) <= 2 * limit_of_share(profiler(1), 0.3),),
    ],
    ids=["none", "integers", "floats", "greatest", "by rejection"],
)
def test_draws_by_choice_have_the_weights_of_their_choices(limits: Callable[[], tuple[Constraint, ...]]) -> None:
    """A network is drawn as often as codes stand for it: those of choices that do not matter are all the same."""
    given = limits()
    keys = keys_within(*given)
    kept = SPACE.candidates(ALL.codes[np.flatnonzero(np.isin(ALL.row_keys(), keys))])
    options = np.array([len(choice.options) for choice in SPACE.choices])
    weights = np.where(SPACE.active(kept.codes), 1, options).prod(axis=1).astype(float)
    drawn = FeasibleSet(SPACE, *given).sample(100_000, np.random.default_rng(4), by_choice=True)
    assert abs(z_of_uniform(drawn, kept.row_keys(), weights=weights)) < 5
    assert z_of_uniform(drawn, kept.row_keys()) > 50


@pytest.mark.parametrize("bins", [1, 2, 7, 50])
def test_few_bins_only_cost_rejected_draws(bins: int) -> None:
    cost, other = profiler(1, integer=False), profiler(2, integer=False)
    limits = (cost <= limit_of_share(cost, 0.2), other >= limit_of_share(other, 0.6))
    keys = keys_within(*limits)
    feasible = FeasibleSet(SPACE, *limits, bins=bins)
    drawn = feasible.sample(50_000, np.random.default_rng(0))
    assert abs(z_of_uniform(drawn, keys)) < 5
    count = feasible.count()
    assert count.low <= len(keys) <= count.high and count.exact is None
    found = [key for block in feasible.enumerate() for key in block.row_keys()]
    assert sorted(found) == sorted(keys)


@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    integer=st.booleans(),
    bins=st.sampled_from([None, 3, 40]),
    window=st.tuples(st.floats(0, 1), st.floats(0, 1)),
    other=st.floats(0.05, 1),
    peak=st.floats(0.3, 1),
)
def test_counts_and_enumeration_equal_brute_force(seed, integer, bins, window, other, peak) -> None:
    cost, second = profiler(seed, integer=integer), profiler(seed + 1, integer=not integer)
    most = TabledProfiler(MaxTable(SPACE, coupled_terms(SPACE, seed + 2, integer), constant=2), "peak")
    low, high = sorted(limit_of_share(cost, share) for share in window)
    limits = (cost >= low, cost <= high, second <= limit_of_share(second, other), most <= limit_of_share(most, peak))
    keys = keys_within(*limits)
    feasible = FeasibleSet(SPACE, *limits, bins=bins)
    assert sorted(key for block in feasible.enumerate() for key in block.row_keys()) == sorted(keys)
    count = feasible.count()
    assert count.low <= len(keys) <= count.high
    assert count.exact in (None, len(keys))
    if feasible.empty:
        assert not keys
    if keys:
        drawn = feasible.sample(50, np.random.default_rng(0))
        assert set(drawn.row_keys()) <= set(keys)
        total = feasible.ranks
        assert total is not None
        assert sorted(feasible.at(range(total)).row_keys()) == sorted(keys)


def test_the_greatest_of_layers_is_limited_from_both_sides() -> None:
    peak = TabledProfiler(MaxTable(SPACE, coupled_terms(SPACE, 5, True)), "peak")
    values = peak.profile_batch(ALL)
    low, high = np.quantile(values, [0.3, 0.6])
    limits = (peak >= float(low), peak <= float(high))
    keys = keys_within(*limits)
    feasible = FeasibleSet(SPACE, *limits)
    assert feasible.count().exact == len(keys)
    assert abs(z_of_uniform(feasible.sample(50_000, np.random.default_rng(0)), keys)) < 5


@pytest.mark.parametrize("limits", [1, 2])
@pytest.mark.parametrize("share", [0.3, 1e-2, 1e-3])
def test_nearest_is_as_near_as_brute_force_finds(limits: int, share: float) -> None:
    costs = [profiler(1, integer=False), profiler(2)][:limits]
    terms = [cost <= limit_of_share(cost, share ** (1 / limits) if limits > 1 else share) for cost in costs]
    keys = set(keys_within(*terms))
    members = ALL[np.flatnonzero([key in keys for key in ALL.row_keys()])]
    asked = SPACE.sample(60, np.random.default_rng(4))
    active, members_active = SPACE.active(asked.codes), SPACE.active(members.codes)
    for rng in (None, np.random.default_rng(5)):
        found = FeasibleSet(SPACE, *terms).nearest(asked, rng)
        assert set(found.row_keys()) <= keys
        for row in range(len(asked)):
            both = active[row] & members_active
            least = ((members.codes != asked.codes[row]) & both).sum(axis=1).min()
            own = (found.codes[row] != asked.codes[row]) & active[row] & SPACE.active(found.codes[row : row + 1])[0]
            assert own.sum() == least


def test_nearest_within_a_window_and_a_maximum() -> None:
    cost = profiler(1)
    peak = TabledProfiler(MaxTable(SPACE, coupled_terms(SPACE, 5, True)), "peak")
    limits = (cost >= limit_of_share(cost, 0.4), cost <= limit_of_share(cost, 0.42), peak <= limit_of_share(peak, 0.5))
    feasible = FeasibleSet(SPACE, *limits)
    assert feasible.holds(feasible.nearest(SPACE.sample(30, np.random.default_rng(0)))).all()
    only = FeasibleSet(SPACE, limits[2])
    assert only.holds(only.nearest(SPACE.sample(30, np.random.default_rng(0)))).all()


def test_nearest_leaves_what_meets_the_limits() -> None:
    cost = profiler(1)
    feasible = FeasibleSet(SPACE, cost <= limit_of_share(cost, 0.1))
    inside = feasible.sample(20, np.random.default_rng(0))
    assert feasible.nearest(inside).row_keys() == inside.row_keys()


@pytest.mark.parametrize("share", [0.5, 1e-2])
def test_least_and_greatest_values_under_a_limit(share: float) -> None:
    cost, other = profiler(1, integer=False), profiler(2)
    limit = cost <= limit_of_share(cost, share)
    within = ALL[np.flatnonzero(limit.holds(cost.profile_batch(ALL)))]
    values = other.profile_batch(within)
    feasible = FeasibleSet(SPACE, limit)
    for best, found in ((values.min(), feasible.minimum(other)), (values.max(), feasible.maximum(other))):
        assert found.value == other.profile(found.architecture)
        assert feasible.holds(SPACE.candidates([found.architecture])).all()
        assert min(found.value, found.bound) <= best <= max(found.value, found.bound)
        if found.exact:
            assert found.value == best
    assert FeasibleSet(SPACE).minimum(other).value == other.bounds().low
    with pytest.raises(TypeError, match="it has no CostTable"):
        feasible.minimum(TabledProfiler(MaxTable(SPACE, coupled_terms(SPACE, 5, True)), "peak"))


def test_no_limit_is_the_whole_space() -> None:
    cost = profiler(1)
    for feasible in (FeasibleSet(SPACE), FeasibleSet(SPACE, cost <= cost.bounds().high, cost >= cost.bounds().low)):
        assert feasible.count().exact == SPACE.size
        assert abs(z_of_uniform(feasible.sample(100_000, np.random.default_rng(0)), ALL.row_keys())) < 5


class Doubled(Profiler):
    """A profiler without a table."""

    def __init__(self, cost: Profiler) -> None:
        super().__init__("doubled", space=cost.space)
        self.cost = cost

    def _profile_batch(self, candidates: Candidates) -> np.ndarray:
        return 2 * self.cost.profile_batch(candidates)


def test_a_limit_without_a_table_is_met_by_rejection_and_named() -> None:
    cost = profiler(1)
    limits = (Doubled(cost) <= 2 * limit_of_share(cost, 0.1), cost >= limit_of_share(cost, 0.02))
    feasible = FeasibleSet(SPACE, *limits)
    assert feasible.rejected == (limits[0],)
    assert "by rejection alone: doubled <= " in repr(feasible)
    assert set(feasible.sample(500, np.random.default_rng(0)).row_keys()) <= set(keys_within(*limits))
    assert feasible.count().exact is None


def test_a_small_budget_rejects_more_and_says_so() -> None:
    cost = profiler(1, integer=False)
    limit = cost <= limit_of_share(cost, 0.05)
    large, small = FeasibleSet(SPACE, limit), FeasibleSet(SPACE, limit, budget_bytes=2**15)
    assert small.bytes <= 2**15 < large.bytes
    assert small.accepted < large.accepted
    none = FeasibleSet(SPACE, limit, budget_bytes=2**10)
    assert none.rejected == (limit,) and "by rejection alone" in repr(none)
    for feasible in (small, none):
        assert abs(z_of_uniform(feasible.sample(30_000, np.random.default_rng(0)), keys_within(limit))) < 5


def test_an_empty_set_says_which_limits_conflict_and_what_is_nearest() -> None:
    cost, other = profiler(1), profiler(2)
    harmless = profiler(3) <= 10**6
    low = cost.bounds().low
    alone = FeasibleSet(SPACE, harmless, cost <= low - 1)
    assert alone.empty and alone.count().exact == 0 and "empty" in repr(alone)
    with pytest.raises(ConstraintError, match=rf"No architecture meets cost1 <= .*The least cost1 .* is {low:g}"):
        alone.sample(1, np.random.default_rng(0))
    with pytest.raises(ConstraintError, match="No architecture meets"):
        alone.nearest(ALL[:1])
    at_most = cost <= limit_of_share(cost, 0.001)
    value = FeasibleSet(SPACE, at_most).maximum(other).value
    above = other >= value + 1
    both = FeasibleSet(SPACE, harmless, at_most, above)
    report = both.diagnose()
    assert report.conflict == (at_most, above) and report.share == 0
    assert [term for term, _, _ in report.nearest] == [at_most, above]
    assert dict(report.nearest[1][2]) in list(ALL) and report.nearest[1][1] == value
    with pytest.raises(ConstraintError, match=r"meets cost1 <= .* and cost2 >= .* together.*The greatest cost2"):
        both.sample(1, np.random.default_rng(0))


def test_a_diagnosis_says_what_each_limit_leaves() -> None:
    cost, other = profiler(1), profiler(2)
    limits = (cost <= limit_of_share(cost, 0.25), other <= limit_of_share(other, 0.5))
    report = FeasibleSet(SPACE, *limits).diagnose()
    assert [round(item.share, 2) for item in report.limits] == [0.25, 0.5]
    assert report.share == pytest.approx(len(keys_within(*limits)) / SPACE.size)
    assert report.limits[0].low == cost.bounds().low
    assert "leaves 0.5 of the space" in str(report)


def test_bad_input_is_named() -> None:
    cost = profiler(1)
    with pytest.raises(TypeError, match="takes limits such as"):
        FeasibleSet(SPACE, 25.0)
    with pytest.raises(TypeError, match="takes a Space first"):
        FeasibleSet(cost <= 3)
    with pytest.raises(ConstraintError, match="is NaN"):
        FeasibleSet(SPACE, Constraint(cost, high=math.nan))
    with pytest.raises(ConstraintError, match="contradict each other"):
        FeasibleSet(SPACE, cost <= 100, cost >= 200)
    with pytest.raises(ConstraintError, match="must be finite"):
        FeasibleSet(SPACE, cost <= math.inf)
    with pytest.raises(ProfilerError, match="the feasible set is of"):
        FeasibleSet(Space([Choice("a", (1, 2))]), cost <= 3)
    with pytest.raises(IndexError, match="ranks are from 0"):
        FeasibleSet(SPACE, cost <= limit_of_share(cost, 0.1)).at([-1])


def test_shares_of_the_space_become_numbers() -> None:
    feasible = FeasibleSet(SPACE, profiler(1).at_most("10%"))
    assert feasible.count().exact / SPACE.size == pytest.approx(0.1, abs=0.02)


def test_same_generator_same_draws() -> None:
    cost = profiler(1, integer=False)
    first, second = (FeasibleSet(SPACE, cost <= limit_of_share(cost, 0.1)) for _ in range(2))
    first.sample(100, np.random.default_rng(9))
    draws = [each.sample(300, np.random.default_rng(1)).row_keys() for each in (first, second)]
    assert draws[0] == draws[1]


def test_counts_beyond_two_to_the_hundred_stay_bounds() -> None:
    space = Space([Choice(f"c{i}", (0, 1, 2, 3)) for i in range(120)])
    cost = TabledProfiler(CostTable(space, [((f"c{i}",), [0, 1, 2, 3]) for i in range(120)]), "cost")
    exact = [1]
    for _ in range(120):
        exact = [sum(exact[max(r - 3, 0) : r + 1]) for r in range(len(exact) + 3)]
    count = FeasibleSet(space, cost <= 180).count()
    wanted = sum(exact[:181])
    assert count.low <= wanted <= count.high
    assert (count.high - count.low) / wanted < 1e-6


@pytest.mark.parametrize(
    ("n", "rng", "error", "text"),
    [
        (-1, np.random.default_rng(0), ValueError, "at least 0, got -1"),
        (1.5, np.random.default_rng(0), TypeError, "an integer, got 1.5"),
        (2, 0, TypeError, "rng is a generator such as"),
    ],
)
def test_bad_draws(n: object, rng: object, error: type[Exception], text: str) -> None:
    space = Space([Choice("width", (8, 16))])
    cost = TabledProfiler(CostTable(space, [(("width",), [1, 2])]), "cost")
    for drawn in (space, FeasibleSet(space, cost <= 1)):
        with pytest.raises(error, match=text):
            drawn.sample(n, rng)  # type: ignore[arg-type]
