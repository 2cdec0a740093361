from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from nasmw.candidates import Candidates, Outcomes, Status
from nasmw.choice import Choice
from nasmw.context import Context, MemoryRecorder, Recorded, recorded
from nasmw.errors import OrderError, ProfilerError
from nasmw.objective import Objective
from nasmw.profiler import Profiler
from nasmw.space import Space
from nasmw.strategy import Strategy, batch_of_none, describe
from nasmw.testing import RecordingStrategy, TableProfiler, drive, scored, toy_space


class Scripted(Strategy):
    """Gives what a function of the context and the number asked for returns."""

    def __init__(self, script: Callable[[Context, int], Candidates]) -> None:
        self.script = script

    def _setup(self, context: Context) -> None:
        self._told = 0

    def _ask(self, n: int) -> Candidates:
        return self.script(self.context, n)

    def _tell(self, outcomes: Outcomes) -> None:
        self._told += len(outcomes)


def started(script: Callable[[Context, int], Candidates], space: Space | None = None) -> Scripted:
    strategy = Scripted(script)
    strategy.setup(Context(toy_space() if space is None else space))
    return strategy


def sample(context: Context, n: int) -> Candidates:
    return context.space.sample(n, context.rng)


class Noisy(Profiler):
    """Measures: another value each time."""

    def __init__(self, space: Space, name: str = "noisy") -> None:
        super().__init__(name, "ms", space=space, kind="measured")
        self.calls = 0

    def _profile_batch(self, candidates: Candidates) -> Any:
        self.calls += len(candidates)
        return np.arange(self.calls, self.calls + len(candidates), dtype=float)


# -- asking and telling -------------------------------------------------------------------------------------------


def test_ids_are_issued_in_order() -> None:
    strategy = started(sample)
    assert strategy.ask(3).ids.tolist() == [0, 1, 2]
    assert strategy.ask(2).ids.tolist() == [3, 4]
    assert (strategy.given, strategy.pending) == (5, 5)


def test_ids_of_a_stage_below_are_kept() -> None:
    strategy = started(lambda context, n: sample(context, n).with_ids(np.arange(100, 100 + n)))
    assert strategy.ask(2).ids.tolist() == [100, 101]
    with pytest.raises(OrderError, match=r"Scripted issued an id that is pending already, among \[100\]"):
        strategy.ask(1)


def test_pending_counts_down() -> None:
    strategy = started(sample)
    batch = strategy.ask(4)
    strategy.tell(scored(batch[[2, 0]]))
    assert (strategy.given, strategy.pending) == (4, 2)
    strategy.tell(scored(batch[[3]]))
    strategy.tell(scored(batch[[1]]))
    assert strategy.pending == 0 and strategy._told == 4


def test_giving_more_than_asked_for_is_an_error() -> None:
    strategy = started(lambda context, n: sample(context, n + 1))
    with pytest.raises(OrderError, match="Scripted was asked for 2 candidates and gave 3"):
        strategy.ask(2)


def test_candidates_of_another_space_are_an_error() -> None:
    other = Space([Choice("a", (1, 2))], name="other")
    strategy = started(lambda context, n: other.sample(n, context.rng))
    with pytest.raises(OrderError, match=r"gave candidates of <Space 'other'.*the run is on <Space 'toy'"):
        strategy.ask(1)


@pytest.mark.parametrize("n", [0, -1])
def test_at_least_one_is_asked_for(n: int) -> None:
    with pytest.raises(ValueError, match=f"at least 1, got {n}"):
        started(sample).ask(n)


def test_nothing_may_be_given_and_told() -> None:
    strategy = started(lambda context, n: batch_of_none(context.space))
    batch = strategy.ask(3)
    assert len(batch) == 0 and batch.codes.shape == (0, 11)
    strategy.tell(scored(batch))
    assert strategy._told == 0


def test_telling_what_is_not_pending() -> None:
    strategy = started(sample)
    batch = strategy.ask(3)
    with pytest.raises(OrderError, match=r"Scripted was told of ids \[7, 8\], which are not pending"):
        strategy.tell(scored(batch.with_ids(np.array([0, 7, 8]))))
    with pytest.raises(OrderError, match="told twice of one id"):
        strategy.tell(scored(batch[[0, 0]]))
    with pytest.raises(OrderError, match=r"told 2 scores a candidate; its objectives are \['maximize accuracy'\]"):
        strategy.tell(scored(batch, objectives=2))
    strategy.tell(scored(batch))
    with pytest.raises(OrderError, match="not pending"):
        strategy.tell(scored(batch[:1]))
    assert strategy._told == 3


def test_a_refused_tell_changes_nothing() -> None:
    strategy = started(sample)
    batch = strategy.ask(3)
    with pytest.raises(OrderError):
        strategy.tell(scored(batch.with_ids(np.array([0, 1, 9]))))
    strategy.tell(scored(batch))
    assert strategy._told == 3


@pytest.mark.parametrize(
    "call",
    [
        lambda strategy, outcomes: strategy.ask(1),
        lambda strategy, outcomes: strategy.tell(outcomes),
        lambda strategy, outcomes: strategy.adopt(outcomes),
        lambda strategy, outcomes: strategy.offer(TableProfiler(toy_space()) <= 5),
        lambda strategy, outcomes: strategy.context,
    ],
)
def test_before_setup(call: Any) -> None:
    outcomes = scored(toy_space().sample(1, np.random.default_rng(0)))
    with pytest.raises(OrderError, match=r"Scripted was .* before setup\(context\)"):
        call(Scripted(sample), outcomes)


def test_setup_starts_another_run() -> None:
    strategy = started(sample)
    strategy.ask(5)
    strategy.setup(Context(toy_space()))
    assert (strategy.given, strategy.pending) == (0, 0)
    assert strategy.ask(1).ids.tolist() == [0]


def test_adopted_outcomes_get_ids_of_their_own() -> None:
    strategy = RecordingStrategy()
    strategy.setup(Context(toy_space()))
    foreign = toy_space().sample(2, np.random.default_rng(0)).with_ids(np.array([50, 51]))
    first = strategy.ask(2)
    strategy.adopt(scored(foreign))
    assert strategy.adopted[0].ids.tolist() == [2, 3]
    assert strategy.ask(1).ids.tolist() == [4]
    strategy.tell(scored(first))
    assert [len(outcomes) for outcomes in strategy.told] == [2]


def test_the_first_candidate_has_a_checksum() -> None:
    first, second = started(sample), started(sample)
    assert first.take_first() == 0
    first.ask(3)
    second.ask(3)
    checksum = first.take_first()
    assert checksum and checksum == second.take_first()
    assert first.take_first() == 0
    first.ask(1)
    assert first.take_first() not in (0, checksum)


# -- the strategy of the testing kit ------------------------------------------------------------------------------


def test_recording_strategy_gives_what_it_was_given() -> None:
    space = toy_space()
    architectures = list(space.at([3, 1, 2]))
    strategy = RecordingStrategy(architectures, honours=True)
    asked = drive(strategy, space, n=2)
    assert list(asked) == architectures
    assert strategy.exhausted and len(strategy.ask(1)) == 0
    assert [len(batch) for batch in strategy.asked] == [2, 1, 0]
    assert [outcomes.ids.tolist() for outcomes in strategy.told] == [[0, 1], [2]]
    limit = TableProfiler(space) <= 5
    assert strategy.offer(limit)
    assert strategy.offered == (limit,)
    assert not RecordingStrategy().honours


# -- contexts -----------------------------------------------------------------------------------------------------


def test_generators_depend_on_seed_and_position_alone() -> None:
    space = toy_space()
    draws = {
        (seed, position): Context(space, seed=seed).at(position, "x").rng.random()
        for seed in range(3)
        for position in range(3)
    }
    assert len(set(draws.values())) == 9
    for (seed, position), draw in draws.items():
        used = Context(space, seed=seed)
        used.rng.random(10)
        again = used.at(position, "another name")
        assert again.rng.random() == draw
        assert (again.position, again.stage) == (position, "another name")


def test_stages_share_recorder_and_funnel() -> None:
    context = Context(toy_space())
    other = context.at(1, "Filter")
    assert other.recorder is context.recorder
    assert other.funnel is context.funnel
    assert Context(toy_space()).recorder is not context.recorder
    other.funnel.add("Filter", "infeasible", "cost <= 5", 3)
    other.funnel.add("Filter", "infeasible", "cost <= 5")
    assert context.funnel.counts["Filter", "infeasible", "cost <= 5"] == 4


def test_recorded_values_are_computed_once_and_one_by_one() -> None:
    space = toy_space()
    batch = space.at([5, 9, 5, 700])
    sizes = []

    def compute(part: Candidates) -> list[float]:
        sizes.append(len(part))
        return [float(part.codes.sum()) + 100 * len(sizes)]

    recorder = MemoryRecorder()
    first = recorder.recorded("proxy", batch, compute)
    assert sizes == [1, 1, 1]
    assert first[0] == first[2]
    assert np.array_equal(recorder.recorded("proxy", batch[::-1], compute), first[::-1])
    assert sizes == [1, 1, 1]
    recorder.recorded("another", batch[:1], compute)
    assert sizes == [1, 1, 1, 1]


@pytest.mark.parametrize("value", [[np.nan], [np.inf], [1.0, 2.0], []])
def test_recorded_values_are_one_finite_number(value: list[float]) -> None:
    batch = toy_space().at([5])
    with pytest.raises(ProfilerError, match=r"'proxy' gave .* for \{.*one finite number was wanted"):
        Context(toy_space()).recorded("proxy", batch, lambda part: value)


def test_measured_profilers_go_through_the_records() -> None:
    space = toy_space()
    batch = space.at([5, 9, 5])
    context = Context(space)
    noisy = Noisy(space)
    values = context.profile(noisy, batch)
    assert noisy.calls == 2
    assert values[0] == values[2]
    assert np.array_equal(context.profile(noisy, batch), values)
    assert noisy.calls == 2


def test_the_measured_part_of_a_formula_goes_through_the_records() -> None:
    space = toy_space()
    batch = space.at([5, 9, 5])
    context = Context(space)
    noisy, cost = Noisy(space), TableProfiler(space)
    values = context.profile(noisy, batch)
    assert np.allclose(context.profile(2 * noisy + cost - 1, batch), 2 * values + cost.profile_batch(batch) - 1)
    assert noisy.calls == 2


def test_analytical_profilers_are_asked_as_a_table() -> None:
    space = toy_space()
    batch = space.at([5, 9, 5])
    assert np.array_equal(
        Context(space).profile(TableProfiler(space), batch), TableProfiler(space).profile_batch(batch)
    )
    # An equal space will do, another one will not.
    assert Context(toy_space()).profile(TableProfiler(space), batch).shape == (3,)
    other = TableProfiler(Space([Choice("a", (1, 2))], name="other"))
    with pytest.raises(ProfilerError, match="is about <Space 'other'.*this search is on <Space 'toy'"):
        Context(space).profile(other, batch)


def width(architecture: Any) -> float:
    return float(architecture["width"])


def test_callables_are_applied_to_mappings() -> None:
    space = toy_space()
    batch = space.sample(4, np.random.default_rng(0))
    assert Context(space).apply(width, batch).tolist() == [architecture["width"] for architecture in batch]


def test_impure_callables_go_through_the_records() -> None:
    space = toy_space()
    batch = space.at([5, 9, 5])
    calls = []

    def proxy(architecture: Any) -> float:
        calls.append(architecture)
        return float(len(calls))

    context = Context(space)
    assert context.apply(recorded(proxy), batch).tolist() == [1.0, 2.0, 1.0]
    assert context.apply(recorded(proxy), batch).tolist() == [1.0, 2.0, 1.0]
    assert context.apply(recorded(proxy, name="other"), batch[:1]).tolist() == [3.0]


def test_a_recorded_callable_needs_a_name() -> None:
    assert recorded(width).name == "width"
    assert recorded(lambda architecture: 1, name="one").name == "one"
    assert recorded(width)({"width": 8}) == 8.0
    for nameless in (lambda architecture: 1, functools.partial(width)):
        with pytest.raises(ValueError, match="needs a name"):
            recorded(nameless)


# -- how configuration reads --------------------------------------------------------------------------------------


class Plain:
    pass


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (3, "3"),
        (None, "None"),
        ("a", "'a'"),
        ([1, (2, "x")], "[1, [2, 'x']]"),
        ({"b": None, "a": [width]}, "{'b': None, 'a': [width]}"),
        ({"b", "c", "a"}, "{'a', 'b', 'c'}"),
        (width, "width"),
        (functools.partial(width), "partial"),
        (Recorded(width, "proxy"), "recorded proxy"),
        (Plain(), "Plain"),
        (TableProfiler(toy_space()) <= 5, "<Constraint cost <= 5>"),
    ],
)
def test_configuration_reads_the_same_everywhere(value: Any, text: str) -> None:
    assert describe(value) == text


def test_repr_shows_public_attributes() -> None:
    assert repr(Scripted(sample)) == "Scripted(script=sample)"
    assert repr(RecordingStrategy()) == "RecordingStrategy(architectures=None, honours=False)"


def test_a_strategy_is_a_chain_of_itself() -> None:
    strategy = Scripted(sample)
    assert strategy.stages == (strategy,)
    assert strategy.profilers == ()
    assert strategy.message == ""
    assert not strategy.exhausted


def test_outcomes_of_several_objectives() -> None:
    strategy = RecordingStrategy()
    objectives = (Objective("accuracy"), Objective("cost", "minimize"))
    strategy.setup(Context(toy_space(), objectives))
    batch = strategy.ask(2)
    strategy.tell(Outcomes.turned_away(batch, Status.FAILED, ["a", "b"], 2))
    assert strategy.told[0].scores.shape == (2, 2)
