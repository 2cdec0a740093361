"""Chain: the algebra of stages, as properties, and its errors."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nasmw.context import Context
from nasmw.errors import OrderError
from nasmw.middleware import Chain, Deduplicate, Filter, Penalize, Rank
from nasmw.strategy import Middleware
from nasmw.testing import RecordingStrategy, TableProfiler, drive, toy_space

SPACE = toy_space()
COST = TableProfiler(SPACE)
MAKERS = {
    "identity": Middleware,
    "filter": lambda: Filter(COST <= 60),
    "penalize": lambda: Penalize(COST, target=30),
    "deduplicate": Deduplicate,
    "rank": lambda: Rank(COST, groups_of=3),
}
names = st.lists(st.sampled_from(sorted(MAKERS)), min_size=1, max_size=4)


def codes(strategy, seed):
    return drive(strategy, SPACE, 12, n=2, seed=seed).codes.tolist()


@settings(max_examples=25, deadline=None)
@given(names, st.integers(0, 4), st.integers(0, 100))
def test_nesting_does_not_matter(kinds, cut, seed):
    cut = min(cut, len(kinds))
    strategy = RecordingStrategy()
    stages = [MAKERS[kind]() for kind in kinds]
    flat = Chain(strategy, *stages)
    nested = Chain(Chain(strategy, *stages[:cut]), *stages[cut:])
    assert nested == flat
    assert hash(nested) == hash(flat)
    assert repr(nested) == repr(flat)
    assert nested.stages == flat.stages
    assert codes(nested, seed) == codes(Chain(RecordingStrategy(), *(MAKERS[kind]() for kind in kinds)), seed)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 1000), st.integers(1, 3))
def test_identity_changes_nothing(seed, number):
    bare = codes(RecordingStrategy(), seed)
    assert codes(Chain(RecordingStrategy(), *(Middleware() for _ in range(number))), seed) == bare


def test_chain_of_a_strategy_is_the_strategy():
    strategy = RecordingStrategy()
    assert Chain(strategy) is strategy
    chain = Chain(strategy, Middleware())
    assert Chain(chain) is chain


def test_other_stages_are_another_chain():
    strategy = RecordingStrategy()
    assert Chain(strategy, Middleware()) != Chain(strategy, Middleware())
    assert Chain(strategy, Middleware()) != strategy


def test_stages_are_named_by_class_and_number():
    chain = Chain(RecordingStrategy(), Filter(COST <= 50), Filter(COST >= 10), Deduplicate())
    chain.setup(Context(SPACE))
    assert [stage.context.stage for stage in chain.stages] == ["RecordingStrategy", "Filter", "Filter#2", "Deduplicate"]
    assert [stage.context.position for stage in chain.stages] == [0, 1, 2, 3]
    draws = {stage.context.rng.random() for stage in chain.stages}
    assert len(draws) == 4, "each stage has a generator of its own"


def test_profilers_are_those_of_the_stages():
    other = TableProfiler(SPACE, name="other", seed=1)
    chain = Chain(RecordingStrategy(), Filter(COST <= 50), Penalize(other, 10))
    assert chain.profilers == (COST, other)


def test_message_and_exhaustion_are_those_of_the_stage_that_ends():
    chain = Chain(RecordingStrategy(), Filter(lambda architecture: False, patience=5), Deduplicate())
    chain.setup(Context(SPACE))
    assert not chain.exhausted and chain.message == ""
    assert len(chain.ask(1)) == 0
    assert chain.exhausted
    assert "Filter turned away 5 candidates in a row" in chain.message
    assert len(chain.ask(1)) == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((RecordingStrategy,), "starts with a strategy"),
        ((5,), "starts with a strategy"),
        ((Middleware(),), "goes behind one"),
        ((RecordingStrategy(), RecordingStrategy()), "goes on with middleware"),
        ((RecordingStrategy(), Filter), "goes on with middleware"),
    ],
)
def test_what_is_no_stage_is_refused(arguments, message):
    with pytest.raises(TypeError, match=message):
        Chain(*arguments)


def test_one_object_cannot_be_two_stages():
    stage = Middleware()
    with pytest.raises(ValueError, match="occurs twice"):
        Chain(RecordingStrategy(), stage, stage)


def test_a_chain_is_out_of_order_before_setup():
    with pytest.raises(OrderError, match=r"before setup"):
        Chain(RecordingStrategy(), Middleware()).ask(1)
    with pytest.raises(OrderError, match=r"wraps no strategy; write Chain"):
        Middleware().setup(Context(SPACE))
