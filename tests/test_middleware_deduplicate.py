"""Deduplicate: what is remembered, replayed, held and forgotten, and when it ends."""

from __future__ import annotations

import math

import numpy as np
import pytest

from nasmw.candidates import Outcomes, Status
from nasmw.choice import Choice
from nasmw.context import Context
from nasmw.middleware import Chain, Deduplicate, Filter, Rank
from nasmw.space import Space
from nasmw.testing import RecordingStrategy, drive

SPACE = Space([Choice("a", (0, 1, 2)), Choice("b", (0, 1))], name="six")


def rows(*pairs):
    return [{"a": a, "b": b} for a, b in pairs]


def start(pool, action="skip", *above, space=SPACE, patience=1000):
    inner = RecordingStrategy(pool)
    chain = Chain(inner, Deduplicate(action, patience), *above)
    context = Context(space)
    chain.setup(context)
    return chain, inner, context


def tell(chain, batch, score=0.5, status=Status.COMPLETED):
    scores = np.full((len(batch), 1), score if status is Status.COMPLETED else math.nan)
    metrics = {"accuracy": scores[:, 0], "seconds": np.full(len(batch), 2.0)}
    chain.tell(Outcomes(batch, [status] * len(batch), scores, metrics))


def history(inner):
    return [
        (i, str(status), reason)
        for told in inner.told
        for i, status, reason in zip(told.ids.tolist(), told.status, told.reasons, strict=True)
    ]


def test_duplicates_are_told_without_a_score():
    chain, inner, context = start(rows((0, 0), (0, 0), (1, 0), (0, 0)))
    batch = chain.ask(4)
    assert batch.ids.tolist() == [0, 2], "the second of one batch is a duplicate of the first"
    tell(chain, batch)
    assert history(inner)[:2] == [
        (1, "duplicate", "the same network as candidate 0"),
        (3, "duplicate", "the same network as candidate 0"),
    ]
    assert np.isnan(inner.told[0].scores).all()
    assert dict(context.funnel.counts) == {("Deduplicate", "duplicate", "seen before"): 2}


def test_known_outcomes_are_replayed():
    chain, inner, context = start(rows((0, 0), (0, 0), (1, 0)), "replay")
    tell(chain, chain.ask(1), 0.75)
    assert chain.ask(1).ids.tolist() == [2]
    replayed = inner.told[1]
    assert replayed.ids.tolist() == [1]
    assert replayed.status == (Status.DUPLICATE,)
    assert replayed.scores.tolist() == [[0.75]]
    assert {name: column.tolist() for name, column in replayed.metrics.items()} == {"accuracy": [0.75], "seconds": [2]}
    assert context.funnel.counts["Deduplicate", "duplicate", "seen before"] == 1


def test_duplicates_of_an_unfinished_trial_wait_for_it():
    chain, inner, context = start(rows((0, 0), (0, 0), (0, 0), (1, 0)), "replay")
    batch = chain.ask(2)
    assert batch.ids.tolist() == [0, 3]
    assert inner.told == ()
    tell(chain, batch[[0]], 0.25)
    assert [i for i, _, _ in history(inner)] == [0, 1, 2]
    assert [told.scores.tolist() for told in inner.told[1:]] == [[[0.25]], [[0.25]]]
    assert context.funnel.counts["Deduplicate", "duplicate", "seen before"] == 2


def test_a_failed_trial_is_remembered():
    for action in ("skip", "replay"):
        chain, inner, _ = start(rows((0, 0), (0, 0)), action)
        tell(chain, chain.ask(1), status=Status.FAILED)
        assert len(chain.ask(1)) == 0
        assert inner.told[-1].status == (Status.DUPLICATE,)
        assert np.isnan(inner.told[-1].scores).all()


@pytest.mark.parametrize("status", [Status.INFEASIBLE, Status.SKIPPED, Status.DUPLICATE])
def test_what_was_turned_away_above_is_forgotten(status):
    chain, _, _ = start(rows((0, 0), (0, 0), (0, 0)))
    tell(chain, chain.ask(1), status=status)
    assert chain.ask(1).ids.tolist() == [1]


def test_held_ones_are_skipped_where_the_first_is_turned_away():
    chain, inner, context = start(rows((0, 0), (0, 0), (0, 0), (1, 1)), "replay")
    batch = chain.ask(2)
    tell(chain, batch[[0]], status=Status.INFEASIBLE)
    assert history(inner)[1:] == [(i, "skipped", "the same network was turned away") for i in (1, 2)]
    assert context.funnel.counts["Deduplicate", "skipped", "the same network was turned away"] == 2


def test_below_a_filter_the_turned_away_are_told_again():
    chain, _, context = start(rows((0, 0), (0, 0), (1, 0)), "skip", Filter(lambda a: a["a"] == 1))
    assert chain.ask(1).ids.tolist() == [2]
    assert context.funnel.counts["Filter", "infeasible", "<lambda>"] == 2
    assert not any(stage == "Deduplicate" for stage, _, _ in context.funnel.counts)


def test_below_rank_the_ranked_out_may_come_again():
    pool = rows((0, 0), (2, 0), (0, 0), (1, 0))
    chain, _, _ = start(pool, "skip", Rank(lambda a: a["a"], groups_of=2))
    assert chain.ask(2).ids.tolist() == [1, 3]


def test_few_are_held_at_once():
    chain, inner, _ = start(rows((0, 0), *[(0, 0)] * 100, (1, 0)), "replay")
    batch = chain.ask(2)
    assert batch.ids.tolist() == [0]
    assert sum(len(asked) for asked in inner.asked) < 50, "it waits for the outcome instead of asking on"
    tell(chain, batch)
    assert chain.ask(1).ids.tolist() == [101]


def test_function_keys_say_what_is_the_same():
    space = Space([Choice("a", (0, 1, 2)), Choice("b", (0, 1))], function_key=lambda architecture: architecture["a"])
    chain, _, _ = start(rows((0, 0), (0, 1), (1, 0)), space=space)
    assert chain.ask(3).ids.tolist() == [0, 2]


def test_architectures_may_be_what_is_compared():
    space = Space([Choice("a", (0, 1, 2)), Choice("b", (0, 1))], function_key=lambda architecture: architecture["a"])
    inner = RecordingStrategy(rows((0, 0), (0, 1), (0, 0), (1, 0)))
    chain = Chain(inner, Deduplicate(same="architecture"))
    chain.setup(Context(space))
    assert chain.ask(3).ids.tolist() == [0, 1, 3]
    with pytest.raises(ValueError, match="'function' or 'architecture', got 'row'"):
        Deduplicate(same="row")


def test_it_ends_once_all_has_been_tried():
    strategy = RecordingStrategy()
    chain = Chain(strategy, Deduplicate())
    codes = drive(chain, SPACE, n=4).codes
    assert len({row.tobytes() for row in codes}) == len(codes) == 6
    assert chain.exhausted
    assert "all 6 architectures of <Space 'six'" in chain.message


def test_it_waits_while_the_last_ones_are_unfinished():
    chain, inner, _ = start(None)
    batch = chain.ask(20)
    assert len(batch) == 6
    asked = len(inner.asked)
    assert len(chain.ask(5)) == 0 and len(inner.asked) == asked
    assert not chain.exhausted
    tell(chain, batch[:5])
    assert not chain.exhausted
    tell(chain, batch[5:], status=Status.SKIPPED)
    assert not chain.exhausted, "one was ranked out above, and may come again"
    again = chain.ask(1)
    assert again.row_keys() == batch[5:].row_keys()
    tell(chain, again)
    assert chain.exhausted


def test_patience_ends_the_run():
    chain, _, _ = start(rows((0, 0)) * 50, patience=7)
    tell(chain, chain.ask(1))
    assert len(chain.ask(1)) == 0
    assert chain.exhausted
    assert "Deduplicate saw 7 duplicates in a row; 1 networks have been tried and 0 are under way" in chain.message


def test_adopted_trials_are_remembered():
    chain, inner, _ = start(rows((0, 0), (1, 0), (2, 0)), "replay")
    foreign = SPACE.candidates(rows((0, 0), (1, 0))).with_ids(np.arange(2))
    status = [Status.COMPLETED, Status.INFEASIBLE]
    chain.adopt(Outcomes(foreign, status, np.array([[0.5], [math.nan]])))
    codes = chain.ask(3).codes.tolist()
    assert codes == [[1, 0], [2, 0]], "what was turned away in the earlier run may come again"
    assert inner.told[0].scores.tolist() == [[0.5]]
    assert inner.told[0].reasons == ("the same network as a trial of an earlier run",)


def test_adopting_everything_ends_the_run():
    chain, _, _ = start(None)
    everything = SPACE.at(range(6)).with_ids(np.arange(6))
    chain.adopt(Outcomes(everything, [Status.COMPLETED] * 6, np.zeros((6, 1))))
    assert chain.exhausted


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"action": "drop"}, ValueError),
        ({"patience": 0}, ValueError),
        ({"patience": None}, TypeError),
    ],
)
def test_wrong_arguments_are_refused(options, error):
    with pytest.raises(error, match="Deduplicate"):
        Deduplicate(**options)
