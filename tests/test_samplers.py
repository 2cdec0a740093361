"""Which networks to measure on a new device."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nasmw.errors import ProfilerError
from nasmw.profilers.learned import choose_buckets, choose_cosine, choose_kmeans, choose_random, choose_variance


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


CHOICES: dict[str, Callable[[np.ndarray[Any, Any], int, int], np.ndarray[Any, Any]]] = {
    "random": lambda values, n, seed: choose_random(len(values), n, rng(seed)),
    "buckets": lambda values, n, seed: choose_buckets(values[:, 0], n, rng(seed)),
    "kmeans": lambda values, n, seed: choose_kmeans(values, n, rng(seed)),
    "nearest": lambda values, n, seed: choose_kmeans(values, n, rng(seed), nearest=True),
    "cosine": lambda values, n, seed: choose_cosine(values, n, rng(seed)),
    "variance": lambda values, n, seed: choose_variance(values @ values.T, n, 0.1),
}


@pytest.mark.parametrize("name", CHOICES)
@settings(max_examples=20, deadline=None)
@given(m=st.integers(1, 30), share=st.floats(0.01, 1.0), seed=st.integers(0, 99), distinct=st.booleans())
def test_rows_are_different_and_repeatable(name: str, m: int, share: float, seed: int, distinct: bool) -> None:
    n = max(1, int(share * m))
    values = rng(seed).normal(size=(m, 3)) if distinct else np.ones((m, 3))
    rows = CHOICES[name](values, n, seed)
    assert len(rows) == n == len(set(rows.tolist()))
    assert set(rows.tolist()) <= set(range(m))
    np.testing.assert_array_equal(rows, CHOICES[name](values, n, seed))


@pytest.mark.parametrize("name", CHOICES)
def test_more_than_there_are_cannot_be_chosen(name: str) -> None:
    with pytest.raises(ProfilerError, match="4 of 3 networks cannot be chosen"):
        CHOICES[name](np.arange(9.0).reshape(3, 3), 4, 0)


def test_each_bucket_has_one() -> None:
    costs = rng().permutation(100).astype(float)
    chosen = costs[choose_buckets(costs, 10, rng(1))]
    np.testing.assert_array_equal(np.sort(chosen // 10), np.arange(10))


def test_equal_costs_are_in_no_order() -> None:
    costs = np.repeat([1.0, 2.0], 50)
    firsts = {int(choose_buckets(costs, 2, rng(seed))[0]) for seed in range(40)}
    assert len(firsts) > 15 and max(firsts) < 50


def test_each_cluster_has_one() -> None:
    centres = 100.0 * rng().normal(size=(8, 4))
    values = np.repeat(centres, 20, axis=0) + rng(1).normal(size=(160, 4))
    for nearest in (False, True):
        rows = choose_kmeans(values, 8, rng(2), nearest=nearest)
        np.testing.assert_array_equal(np.sort(rows // 20), np.arange(8))


def test_nearest_is_nearest() -> None:
    values = np.array([[-1.0], [0.1], [1.0], [50.0], [51.2], [52.0]])
    assert set(choose_kmeans(values, 2, rng(), nearest=True).tolist()) == {1, 4}


def test_cosine_spreads_over_similarities() -> None:
    values = np.stack([np.cos(np.linspace(0, np.pi, 90)), np.sin(np.linspace(0, np.pi, 90))], axis=1)
    towards = values @ values.mean(axis=0)
    order = np.argsort(np.argsort(towards))
    np.testing.assert_array_equal(np.sort(order[choose_cosine(values, 3, rng())] // 30), np.arange(3))


def test_variance_falls_most() -> None:
    values = rng(3).normal(size=(12, 5))
    covariance = values @ values.T
    noise = 0.3

    def left(rows: list[int]) -> float:
        own = covariance[np.ix_(rows, rows)] + noise * np.eye(len(rows))
        across = covariance[:, rows]
        return float(np.trace(covariance - across @ np.linalg.solve(own, across.T)))

    chosen = choose_variance(covariance, 4, noise).tolist()
    for count in range(4):
        so_far = chosen[:count]
        others = [row for row in range(12) if row not in so_far]
        assert left(chosen[: count + 1]) == pytest.approx(min(left([*so_far, row]) for row in others))


def test_noise_may_differ_by_row() -> None:
    noises = np.array([1.0, 0.01, 1.0])
    assert choose_variance(np.eye(3), 1, noises).tolist() == [1]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: choose_buckets([1.0, np.nan], 1, rng()), "one finite number for each network"),
        (lambda: choose_buckets(np.ones((2, 2)), 1, rng()), r"shape \(2, 2\)"),
        (lambda: choose_kmeans([[1.0], [np.inf]], 1, rng()), "finite numbers for each network"),
        (lambda: choose_cosine([1.0, 2.0], 1, rng()), r"shape \(2,\)"),
        (lambda: choose_variance(np.ones((2, 3)), 1, 0.1), "square matrix"),
        (lambda: choose_variance(np.eye(2), 1, 0.0), "above 0, got 0"),
        (lambda: choose_variance(np.eye(2), 1, np.inf), "above 0, got inf"),
        (lambda: choose_variance(np.eye(2), 1, [0.1] * 3), "one for all or for each row"),
        (lambda: choose_buckets(["a"], 1, rng()), "costs are numbers"),
        (lambda: choose_kmeans([["a"]], 1, rng()), "encodings are numbers"),
    ],
)
def test_what_cannot_be_chosen_from(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ProfilerError, match=message):
        call()


@pytest.mark.parametrize("name", CHOICES)
@pytest.mark.parametrize("n", [2.0, "2", None, True])
def test_a_number_of_networks_is_a_whole_one(name: str, n: Any) -> None:
    with pytest.raises(TypeError, match="whole number, got"):
        CHOICES[name](np.ones((5, 2)), n, 0)


def test_random_numbers_come_from_a_generator() -> None:
    with pytest.raises(TypeError, match="rng is a generator"):
        choose_random(5, 2, 0)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="rng is a generator"):
        choose_kmeans(np.ones((5, 2)), 2, None)  # type: ignore[arg-type]
