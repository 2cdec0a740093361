from __future__ import annotations

import pickle

import numpy as np
import pytest

from nasmw.candidates import Candidates, Outcomes, Status
from nasmw.errors import OrderError
from nasmw.testing import toy_space


@pytest.fixture
def batch() -> Candidates:
    space = toy_space()
    sampled = space.sample(6, np.random.default_rng(0)).with_ids(np.arange(10, 16))
    return sampled.with_columns({"latency": np.arange(6.0)})


def test_a_table_has_length_and_mappings(batch: Candidates) -> None:
    assert len(batch) == 6
    for architecture, row in zip(batch, batch.codes, strict=True):
        assert architecture == toy_space().decode(row)
    assert repr(batch) == "Candidates(6 x 11, columns=['latency'])"
    assert repr(batch[:0].with_columns({})) == "Candidates(0 x 11, columns=['latency'])"


@pytest.mark.parametrize(
    ("index", "ids"),
    [
        (slice(1, 3), [11, 12]),
        ([True, False, False, False, False, True], [10, 15]),
        (np.array([5, 0, 0]), [15, 10, 10]),
        ([], []),
        (np.array([], dtype=int), []),
        (np.zeros(6, dtype=bool), []),
        (2, [12]),
        (-1, [15]),
        (np.int64(3), [13]),
    ],
)
def test_rows_are_selected(batch: Candidates, index: object, ids: list[int]) -> None:
    chosen = batch[index]
    assert chosen.ids.tolist() == ids
    assert chosen.columns["latency"].tolist() == [i - 10 for i in ids]
    assert np.array_equal(chosen.codes, batch.codes[[i - 10 for i in ids]].reshape(len(ids), 11))


@pytest.mark.parametrize("index", [6, -7])
def test_a_row_out_of_range(batch: Candidates, index: int) -> None:
    with pytest.raises(IndexError, match=f"row {index} of 6 candidates"):
        batch[index]


def test_nothing_can_be_written(batch: Candidates) -> None:
    for array in (batch.codes, batch.ids, batch.columns["latency"]):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0
    with pytest.raises(AttributeError):
        batch.ids = np.arange(6)  # type: ignore[misc]


def test_a_new_column_leaves_the_old_table_alone(batch: Candidates) -> None:
    wider = batch.with_columns({"macs": np.ones(6), "latency": np.zeros(6)})
    assert sorted(wider.columns) == ["latency", "macs"]
    assert wider.columns["latency"].sum() == 0
    assert batch.columns["latency"].sum() == 15
    assert batch.with_columns({}) is batch


def test_keys_are_equal_where_rows_are(batch: Candidates) -> None:
    doubled = Candidates.join([batch, batch[::-1]])
    keys = doubled.row_keys()
    for i in range(12):
        for j in range(12):
            assert (keys[i] == keys[j]) == np.array_equal(doubled.codes[i], doubled.codes[j])


def test_joined_tables_keep_order_and_fill_columns(batch: Candidates) -> None:
    bare = batch[:2].with_ids(np.array([1, 2]))
    bare = Candidates(bare.space, bare.codes, bare.ids)
    joined = Candidates.join([bare, batch])
    assert joined.ids.tolist() == [1, 2, 10, 11, 12, 13, 14, 15]
    assert np.isnan(joined.columns["latency"][:2]).all()
    assert joined.columns["latency"][2:].tolist() == [0, 1, 2, 3, 4, 5]
    assert Candidates.join([batch]) is batch


def test_candidates_pickle(batch: Candidates) -> None:
    copy = pickle.loads(pickle.dumps(batch))
    assert np.array_equal(copy.codes, batch.codes)
    assert list(copy) == list(batch)


# -- outcomes -----------------------------------------------------------------------------------------------------


def completed(batch: Candidates) -> Outcomes:
    values = np.arange(len(batch), dtype=float)
    return Outcomes(batch, [Status.COMPLETED] * len(batch), values[:, None], {"accuracy": values})


def test_outcomes_must_fit(batch: Candidates) -> None:
    with pytest.raises(ValueError, match=r"outcomes of 6 candidates need 6 statuses, \(6, m\) scores.*got 5 statuses"):
        Outcomes(batch, [Status.COMPLETED] * 5, np.zeros((6, 1)))
    with pytest.raises(ValueError, match=r"scores \(6,\)"):
        Outcomes(batch, [Status.COMPLETED] * 6, np.zeros(6))
    with pytest.raises(ValueError, match="columns of 6"):
        Outcomes(batch, [Status.COMPLETED] * 6, np.zeros((6, 1)), {"accuracy": np.zeros(3)})


def test_outcomes_are_frozen(batch: Candidates) -> None:
    outcomes = completed(batch)
    for array in (outcomes.scores, outcomes.metrics["accuracy"]):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 5.0


def test_turned_away_have_no_score(batch: Candidates) -> None:
    outcomes = Outcomes.turned_away(batch[:2], Status.INFEASIBLE, ["too slow", "too big"], 3)
    assert outcomes.scores.shape == (2, 3)
    assert np.isnan(outcomes.scores).all()
    assert outcomes.reasons == ("too slow", "too big")
    assert repr(outcomes) == "Outcomes(2: 2 infeasible)"
    bad = Outcomes.turned_away(batch[:2], Status.INFEASIBLE, ["a", "b"], 1, score=-1e9)
    assert bad.scores.tolist() == [[-1e9], [-1e9]]


@pytest.mark.parametrize("index", [slice(1, 4), [1, 2, 3], np.array([0, 1, 1, 1, 0, 0], dtype=bool)])
def test_outcomes_are_selected(batch: Candidates, index: object) -> None:
    chosen = completed(batch)[index]
    assert chosen.ids.tolist() == [11, 12, 13]
    assert chosen.scores[:, 0].tolist() == chosen.metrics["accuracy"].tolist() == [1, 2, 3]
    assert chosen.status == (Status.COMPLETED,) * 3
    assert len(completed(batch)[2]) == 1


def test_evolving_keeps_metrics(batch: Candidates) -> None:
    outcomes = completed(batch)
    other = outcomes.evolve(scores=np.zeros((6, 1)), status=[Status.DUPLICATE] * 6, reasons=["known"] * 6)
    assert other.metrics["accuracy"].tolist() == outcomes.metrics["accuracy"].tolist()
    assert other.scores.sum() == 0 and outcomes.scores.sum() == 15
    assert repr(other) == "Outcomes(6: 6 duplicate)"
    with pytest.raises(OrderError, match="5 candidates for 6 outcomes"):
        outcomes.evolve(candidates=batch[:5])


def test_joined_outcomes_fill_metrics(batch: Candidates) -> None:
    away = Outcomes.turned_away(batch[:1], Status.FAILED, ["ran out of memory"], 1)
    joined = Outcomes.join([completed(batch), away])
    assert joined.status[-1] is Status.FAILED
    assert joined.reasons[-1] == "ran out of memory"
    assert np.isnan(joined.metrics["accuracy"][-1])
    assert joined.ids.tolist() == [10, 11, 12, 13, 14, 15, 10]


def test_a_status_is_its_word() -> None:
    assert str(Status.INFEASIBLE) == "infeasible" == Status.INFEASIBLE
    assert Status("stopped") is Status.STOPPED
