from __future__ import annotations

import math
import operator
import pickle
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

import nasmw
from nasmw.candidates import Architecture, Candidates, Outcomes, Status
from nasmw.choice import Choice
from nasmw.constraint import Constraint, Constraints
from nasmw.context import Context
from nasmw.errors import ConstraintError, ProfilerError, SpaceError
from nasmw.profiler import Combination, MultiProfiler, Profiler, check_names
from nasmw.space import Space
from nasmw.testing import ProfilerContract, TableProfiler, toy_space


class OneByOne(Profiler):
    """Implements the scalar path only."""

    def __init__(self, space: Space, values: Mapping[int, float] | None = None) -> None:
        super().__init__("width", "channels", space=space)
        self._values = values or {}

    def _profile(self, architecture: Architecture) -> float:
        self._space().encode(architecture)
        return float(self._values.get(architecture["width"], architecture["width"]))


class ByTable(Profiler):
    """Implements the table path only."""

    def _profile_batch(self, candidates: Candidates) -> Any:
        return candidates.codes.sum(axis=1)


class Growing(Profiler):
    """Learns: its values are all the number of outcomes that it was told."""

    def __init__(self, space: Space) -> None:
        super().__init__("growing", space=space, kind="learned")
        self._told = 0

    def _profile_batch(self, candidates: Candidates) -> Any:
        return np.full(len(candidates), float(self._told))

    def update(self, outcomes: Outcomes) -> None:
        self._told += len(outcomes)
        self.version += 1


class Sizes(MultiProfiler):
    def __init__(self, space: Space, metrics: tuple[str, ...] = ("rom", "ram")) -> None:
        super().__init__(space, {"rom": "B", "ram": "B"}, kind="measured", device="board")
        self.metrics = metrics
        self.passes = 0

    def _profile_all(self, architecture: Architecture) -> Mapping[str, float]:
        self.passes += 1
        return {name: 10.0 * architecture["width"] + number for number, name in enumerate(self.metrics)}


class TestTableProfiler(ProfilerContract):
    def make(self, space: Space) -> Profiler:
        return TableProfiler(space, std=2.5)


class TestOneByOne(ProfilerContract):
    def make(self, space: Space) -> Profiler:
        return OneByOne(space)


class TestByTable(ProfilerContract):
    def make(self, space: Space) -> Profiler:
        return ByTable("codes", space=space)


class TestGrowing(ProfilerContract):
    def make(self, space: Space) -> Profiler:
        return Growing(space)


class TestCombination(ProfilerContract):
    def make(self, space: Space) -> Profiler:
        return 0.5 * TableProfiler(space, std=1.0) - TableProfiler(space, "other", seed=1) + 3


class TestOneOfSeveralMetrics(ProfilerContract):
    def make(self, space: Space) -> Profiler:
        return Sizes(space)["ram"]


@pytest.fixture
def space() -> Space:
    return toy_space()


@pytest.fixture
def cost(space: Space) -> TableProfiler:
    return TableProfiler(space)


@pytest.fixture
def batch(space: Space) -> Candidates:
    return space.sample(50, np.random.default_rng(0))


# -- what a profiler is made of -----------------------------------------------------------------------------------


def test_one_of_two_hooks_is_needed() -> None:
    with pytest.raises(TypeError, match="Empty must implement `_profile` or `_profile_batch`"):
        type("Empty", (Profiler,), {})


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"name": ""}, ProfilerError, "named by a non-empty string, got ''"),
        ({"name": 5}, ProfilerError, "named by a non-empty string, got 5"),
        ({"name": "a", "space": "toy"}, TypeError, "ByTable takes a Space first, got str"),
        ({"name": "a", "kind": "guessed"}, ProfilerError, "the kind of a profiler is one of .* got 'guessed'"),
    ],
)
def test_a_profiler_checks_its_arguments(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        ByTable(**arguments)


def test_repr_has_name_unit_and_device(space: Space) -> None:
    assert repr(TableProfiler(space, "latency", "ms")) == "<TableProfiler 'latency' [ms]>"
    assert repr(Sizes(space)["ram"]) == "<_Part 'ram' [B] on board>"


def test_only_measured_profilers_are_impure(space: Space) -> None:
    assert TableProfiler(space).pure
    assert Growing(space).pure
    assert not Sizes(space)["rom"].pure


def test_without_a_space_there_are_no_architectures() -> None:
    with pytest.raises(ProfilerError, match="made without a space; pass one to profile architectures"):
        ByTable("codes").profile({"width": 4})


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_values_must_be_finite(space: Space, batch: Candidates, value: float) -> None:
    broken = OneByOne(space, {8: value})
    architecture = {"width": 8, "depth": 1, "block0.op": "pool"}
    with pytest.raises(
        ProfilerError, match=r"'width' \[channels\]> gave .* for \{'width': 8.*must give a finite number"
    ):
        broken.profile(architecture)
    with pytest.raises(ProfilerError, match=r"gave .* for \{'width': 8.*must give finite numbers"):
        broken.profile_batch(batch)
    assert broken.profile({**architecture, "width": 4}) == 4.0


def test_values_must_be_one_per_candidate(space: Space, batch: Candidates) -> None:
    class Scalar(Profiler):
        def _profile_batch(self, candidates: Candidates) -> Any:
            return 1.0

    with pytest.raises(ProfilerError, match=r"gave shape \(\) for 50 candidates"):
        Scalar("scalar", space=space).profile_batch(batch)


def test_unknown_options_name_the_near_ones(cost: TableProfiler) -> None:
    with pytest.raises(SpaceError, match="did you mean 'width'"):
        cost.profile({"widht": 8, "depth": 1, "block0.op": "pool"})


# -- the table profiler of the testing kit ------------------------------------------------------------------------


def test_table_profiler_bounds_are_those_of_all(space: Space, cost: TableProfiler) -> None:
    values = cost.profile_batch(space.at(range(space.size)))
    bounds = cost.bounds()
    assert bounds is not None
    assert (bounds.low, bounds.high) == (values.min(), values.max())
    large = Space([Choice(f"c{number}", range(10)) for number in range(6)])
    assert TableProfiler(large).bounds() is None


def test_table_profilers_of_even_and_odd_seeds_are_in_conflict(space: Space) -> None:
    everything = space.at(range(space.size))
    first, second = (TableProfiler(space, seed=seed).profile_batch(everything) for seed in (0, 1))
    assert first.argmin() != second.argmin()
    assert (first == np.round(first)).all() and (first > 0).all()


def test_table_profiler_std(space: Space, batch: Candidates) -> None:
    assert TableProfiler(space).std(batch) is None
    std = TableProfiler(space, std=2.0).std(batch)
    assert std is not None and std.tolist() == [2.0] * 50
    with pytest.raises(ProfilerError, match="std must be a finite number of at least 0, or None, got -1"):
        TableProfiler(space, std=-1)


# -- limits -------------------------------------------------------------------------------------------------------


def test_comparisons_read_as_they_are(cost: TableProfiler) -> None:
    assert repr(cost <= 300e6) == "<Constraint cost <= 3e+08>"
    assert repr(cost >= 5) == "<Constraint cost >= 5>"
    assert repr(cost < 25) == "<Constraint cost < 25>"
    assert repr(cost > 25) == "<Constraint cost > 25>"
    assert str(Constraint(cost, 5, 25)) == "5 <= cost <= 25"
    assert repr((cost >= 5) & (cost <= 25)) == "<Constraints (cost >= 5) & (cost <= 25)>"


@pytest.mark.parametrize("number", [25, 25.0, np.float64(25), np.float32(25), np.int64(25)])
def test_numbers_of_any_kind_are_limits_on_either_side(cost: TableProfiler, number: Any) -> None:
    for constraint in (cost <= number, number >= cost):
        assert isinstance(constraint, Constraint)
        assert (constraint.low, constraint.high) == (-math.inf, 25.0)
        assert type(constraint.high) is float
    for constraint in (cost >= number, number <= cost):
        assert (constraint.low, constraint.high) == (25.0, math.inf)


def test_strict_limits_are_strict(cost: TableProfiler) -> None:
    values = np.array([24.0, 25.0, 26.0])
    assert (cost < 25).holds(values).tolist() == [True, False, False]
    assert (cost <= 25).holds(values).tolist() == [True, True, False]
    assert (cost > 25).holds(values).tolist() == [False, False, True]
    assert (cost >= 25).holds(values).tolist() == [False, True, True]


def test_excess_is_how_far_beyond(cost: TableProfiler) -> None:
    values = np.array([3.0, 5.0, 10.0, 25.0, 30.0])
    assert (cost <= 25).excess(values).tolist() == [0, 0, 0, 0, 5]
    assert (cost >= 5).excess(values).tolist() == [2, 0, 0, 0, 0]
    assert Constraint(cost, 5, 25).excess(values).tolist() == [2, 0, 0, 0, 5]


def test_a_chained_comparison_is_refused(cost: TableProfiler) -> None:
    message = r"write \(latency >= 5\) & \(latency <= 25\), not 5 <= latency <= 25"
    with pytest.raises(TypeError, match=message):
        5 <= cost <= 25  # noqa: B015
    with pytest.raises(TypeError, match=message):
        bool(cost <= 25)
    with pytest.raises(TypeError, match=message):
        (cost <= 25) and (cost >= 5)  # noqa: B018
    with pytest.raises(TypeError, match="join them with &, not with `and`"):
        bool((cost >= 5) & (cost <= 25))


@pytest.mark.parametrize("compare", [operator.le, operator.lt, operator.ge, operator.gt])
@pytest.mark.parametrize(
    ("limit", "error", "message"),
    [
        ("25", TypeError, r"a limit on 'cost' is a number, got '25'; for a share .* \.at_most\('60%'\)"),
        (None, TypeError, "a limit on 'cost' is a number, got None"),
        (True, TypeError, "a limit on 'cost' is a number, got True"),
        ([25], TypeError, r"is a number, got \[25\]"),
        (np.array([25.0]), TypeError, "a limit on 'cost' is a number"),
        (1j, TypeError, "a limit on 'cost' is a number"),
        (math.nan, ConstraintError, "a limit on 'cost' must be finite, got nan"),
        (math.inf, ConstraintError, "must be finite, got inf; leave it out for no limit"),
    ],
)
def test_limits_of_the_wrong_kind(
    cost: TableProfiler, compare: Any, limit: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        compare(cost, limit)


def test_two_profilers_are_compared_by_their_difference(space: Space, cost: TableProfiler) -> None:
    other = TableProfiler(space, "other", seed=1)
    with pytest.raises(TypeError, match=r"to compare two profilers write cost - other <= 0"):
        cost <= other  # noqa: B015
    assert isinstance(cost - other <= 0, Constraint)


def test_limits_are_joined(cost: TableProfiler) -> None:
    a, b, c = cost >= 5, cost <= 25, cost <= 20
    assert list(a & b & c) == list(a & (b & c)) == [a, b, c]
    assert len((a & b) & (b & c)) == 4
    assert isinstance(a & b, Constraints)
    with pytest.raises(TypeError):
        a & 5  # type: ignore[operator]


@pytest.mark.parametrize("share", ["5%", "50%", "60 %", "99.5%", "100%"])
def test_shares_of_the_space(space: Space, cost: TableProfiler, share: str) -> None:
    part = float(share.rstrip(" %")) / 100
    values = cost.profile_batch(space.at(range(space.size)))
    for limit, compare in ((cost.at_most(share), values.__le__), (cost.at_least(share), values.__ge__)):
        assert not limit.resolved
        with pytest.raises(ConstraintError, match=r"is a share of a space; call resolve\(...\) first"):
            limit.holds(values)
        with pytest.raises(ConstraintError, match="is a share of a space"):
            limit.excess(values)
        resolved = limit.resolve(Context(space).profile, space)
        assert resolved.resolved and resolved.resolve(Context(space).profile, space) is resolved
        number = resolved.high if math.isfinite(resolved.high) else resolved.low
        # At least that share is within the limit, up to the error of 4,096 samples; a step less would miss it.
        assert compare(number).mean() >= part - 0.03
        strictly = (values < number) if math.isfinite(resolved.high) else (values > number)
        assert strictly.mean() <= part + 0.03


def test_shares_of_the_greatest_value(space: Space, cost: TableProfiler) -> None:
    bounds = cost.bounds()
    assert bounds is not None
    profile = Context(space).profile
    assert cost.at_most("60% of max").resolve(profile, space).high == 0.6 * bounds.high
    assert cost.at_least("25%of max").resolve(profile, space).low == 0.25 * bounds.high
    # Without bounds, the greatest value of the sample stands in.
    unbounded = ByTable("codes", space=space)
    high = unbounded.at_most("50% of max").resolve(profile, space).high
    assert high == 0.5 * unbounded.profile_batch(space.at(range(space.size))).max()


def test_shares_read_as_they_are(cost: TableProfiler) -> None:
    assert str(cost.at_most("60%")) == "cost <= 60% of the space"
    assert str(cost.at_least("2.5 % of max")) == "cost >= 2.5% of max"


def test_at_most_a_number_is_a_plain_limit(cost: TableProfiler) -> None:
    assert cost.at_most(25).high == 25.0
    assert cost.at_least(5).low == 5.0


@pytest.mark.parametrize("share", ["60", "0%", "101%", "-5%", "half", "%", "..%", "60% of min", "nan%", ""])
def test_shares_that_are_none(cost: TableProfiler, share: str) -> None:
    with pytest.raises(ConstraintError, match="a share is written '60%' or '60% of max', above 0 and up to 100 %"):
        cost.at_most(share)


def test_constraints_pickle(cost: TableProfiler) -> None:
    copy = pickle.loads(pickle.dumps(cost < 25))
    assert str(copy) == "cost < 25"
    assert copy.holds(np.array([24.0, 25.0])).tolist() == [True, False]


# -- arithmetic ---------------------------------------------------------------------------------------------------


def test_arithmetic_is_what_it_says(space: Space, cost: TableProfiler, batch: Candidates) -> None:
    other = TableProfiler(space, "other", seed=1)
    a, b = cost.profile_batch(batch), other.profile_batch(batch)
    cases: list[tuple[Profiler, np.ndarray]] = [
        (cost + other, a + b),
        (cost - other, a - b),
        (2 * cost, 2 * a),
        (cost * 2.5, 2.5 * a),
        (np.float64(2) * cost, 2 * a),
        (1 + cost, 1 + a),
        (np.int64(1) + cost, 1 + a),
        (cost - 1, a - 1),
        (-cost, -a),
        (2 * (cost + 3) - (other - cost), 3 * a + 6 - b),
        (cost - cost, 0 * a),
        (cost.__add__(0.0), a),
    ]
    for formula, expected in cases:
        assert isinstance(formula, Combination)
        assert np.allclose(formula.profile_batch(batch), expected)
        assert math.isclose(formula.profile(next(iter(batch))), expected[0], abs_tol=1e-12)


def test_formulas_have_names(space: Space, cost: TableProfiler) -> None:
    other = TableProfiler(space, "other", seed=1)
    assert (cost + other).name == "cost + other"
    assert (2 * cost + 1).name == "2*cost + 1"
    named = (cost + other).named("both")
    assert named.name == "both"
    assert str(named <= 5) == "both <= 5"


def test_sums_are_opened_and_equal_parts_merged(space: Space, cost: TableProfiler) -> None:
    other = TableProfiler(space, "other", seed=1)
    formula = (cost + other) + 2 * (cost + 1)
    assert formula.terms == ((3.0, cost), (1.0, other))
    assert formula.constant == 2.0


def test_combinations_keep_what_their_parts_share(space: Space) -> None:
    first, second = TableProfiler(space, "a", "ms"), TableProfiler(space, "b", "ms", seed=1)
    assert (first + second).unit == "ms"
    assert (first + TableProfiler(space, "c", "MB")).unit == ""
    assert (first + Growing(space)).kind == "learned"
    assert (first + Sizes(space)["rom"]).kind == "measured"
    assert (first + second).space is space


def test_combinations_add_variances(space: Space, batch: Candidates) -> None:
    first, second = TableProfiler(space, "a", std=3.0), TableProfiler(space, "b", std=2.0)
    std = (first - 2 * second).std(batch)
    assert std is not None and np.allclose(std, 5.0)
    assert (first + TableProfiler(space, "c")).std(batch).max() == 3.0  # type: ignore[union-attr]
    assert (TableProfiler(space, "c") + 1).std(batch) is None


def test_combinations_learn_through_their_parts(space: Space, batch: Candidates) -> None:
    growing = Growing(space)
    formula = 2 * growing + 1
    outcomes = Outcomes(batch[:3], [Status.COMPLETED] * 3, np.zeros((3, 1)))
    formula.update(outcomes)
    assert formula.profile_batch(batch)[0] == 7.0
    assert formula.version == growing.version == 1


@pytest.mark.parametrize(
    ("formula", "message"),
    [
        (lambda cost: cost * cost, "multiplied by a number.*see Reward"),
        (lambda cost: cost * "2", "multiplied by a number, got '2'"),
        (lambda cost: cost + "2", "added to a profiler or a finite number, got '2'"),
        (lambda cost: cost + math.nan, "added to a profiler or a finite number, got nan"),
        (lambda cost: None + cost, "added to a profiler or a finite number, got None"),
    ],
)
def test_arithmetic_of_the_wrong_kind(cost: TableProfiler, formula: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        formula(cost)


def test_profilers_of_different_spaces_do_not_combine(cost: TableProfiler) -> None:
    other = TableProfiler(Space([Choice("a", (1, 2))]), "other")
    with pytest.raises(ProfilerError, match="cannot combine profilers of different spaces"):
        cost + other
    assert (cost + TableProfiler(toy_space(), "twin")).terms  # equal spaces do


# -- several metrics from one pass --------------------------------------------------------------------------------


def test_each_architecture_is_passed_once(space: Space, batch: Candidates) -> None:
    sizes = Sizes(space)
    rom, ram = sizes["rom"], sizes["ram"]
    assert (rom.profile_batch(batch) + 1 == ram.profile_batch(batch)).all()
    assert sizes.passes == len(set(batch.row_keys()))
    assert (rom.name, rom.unit, rom.kind, rom.device) == ("rom", "B", "measured", "board")


def test_unknown_and_missing_metrics(space: Space, batch: Candidates) -> None:
    with pytest.raises(ProfilerError, match="Sizes has no metric 'flash'; it has rom, ram"):
        Sizes(space)["flash"]
    with pytest.raises(ProfilerError, match=r"Sizes promised \['ram'\] and gave \['rom'\]"):
        Sizes(space, ("rom",))["rom"].profile_batch(batch)


# -- outside a search ---------------------------------------------------------------------------------------------


def test_profile_outside_a_search(space: Space, cost: TableProfiler) -> None:
    architecture = {"width": 8, "depth": 1, "block0.op": "pool"}
    other = TableProfiler(space, "other", seed=1)
    assert nasmw.profile(architecture, [cost, other]) == {
        "cost": cost.profile(architecture),
        "other": other.profile(architecture),
    }
    assert nasmw.profile(architecture, cost) == {"cost": 16.0}  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"takes a torch.nn.Module or a mapping of choices, got int"):
        nasmw.profile(5, [cost])  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="knows architectures only, not networks"):
        nasmw.profile(space.build(architecture), [cost])


def test_names_are_unique(space: Space, cost: TableProfiler) -> None:
    with pytest.raises(ProfilerError, match="two profilers are named 'cost'.*give one of them another name"):
        nasmw.profile({}, [cost, TableProfiler(space)])
    assert check_names([cost, cost]) == {"cost": cost}
    with pytest.raises(TypeError, match="expected a Profiler, got 'cost'"):
        check_names(["cost"])  # type: ignore[list-item]
