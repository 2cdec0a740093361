"""Splitting devices into little-correlated sources and targets."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nasmw.candidates import Floats
from nasmw.errors import ProfilerError
from nasmw.profilers.learned import rank_correlations, split_devices
from nasmw.profilers.learned.device_split import _bisected


def devices(kinds: int, each: int, noise: float = 0.3, n: int = 80) -> Floats:
    rng = np.random.default_rng(1)
    return np.exp(np.repeat(rng.normal(size=(n, kinds)), each, axis=1) + noise * rng.normal(size=(n, kinds * each)))


def test_correlations_are_spearmans() -> None:
    first = np.array([1.0, 2.0, 3.0, 4.0])
    values = np.stack([first, -first, first**3, [1.0, 1.0, 2.0, 2.0]], axis=1)
    found = rank_correlations(values)
    np.testing.assert_allclose(found[0], [1.0, -1.0, 1.0, np.sqrt(0.8)], atol=1e-12)
    np.testing.assert_allclose(found, found.T)


def test_only_networks_that_both_have_count() -> None:
    values = devices(2, 2)
    holes = values.copy()
    holes[:20, 0] = np.nan
    holes[70:, 1] = np.nan
    expected = rank_correlations(values[20:70, :2])[0, 1]
    assert rank_correlations(holes)[0, 1] == pytest.approx(expected)
    assert rank_correlations(holes)[2, 3] == pytest.approx(rank_correlations(values)[2, 3])


def test_kinds_are_kept_apart() -> None:
    for seed in range(10):
        split = split_devices(devices(2, 6), 4, 3, np.random.default_rng(seed))
        assert (len(split.sources), len(split.targets)) == (4, 3)
        assert len({device // 6 for device in split.sources}) == 1
        assert {device // 6 for device in split.sources}.isdisjoint({device // 6 for device in split.targets})
        weights = rank_correlations(devices(2, 6))
        assert split.correlation == pytest.approx(weights[np.ix_(split.sources, split.targets)].mean())


def test_both_kinds_become_sources() -> None:
    firsts = {split_devices(devices(2, 5), 3, 3, np.random.default_rng(seed)).sources[0] // 5 for seed in range(20)}
    assert firsts == {0, 1}


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 1000), st.integers(4, 9), st.integers(1, 8))
def test_no_exchange_of_two_lowers_the_cut(seed: int, d: int, size: int) -> None:
    size = min(size, d - 1)
    rng = np.random.default_rng(seed)
    weights = rng.normal(size=(d, d))
    weights = weights + weights.T
    first, second = _bisected(weights, size, rng)
    assert len(first) == size and sorted([*first, *second]) == list(range(d))
    cut = weights[np.ix_(first, second)].sum()
    for one, other in itertools.product(first, second):
        left = [one if node == other else other if node == one else node for node in range(d)]
        relabelled = weights[np.ix_(left, left)]
        assert relabelled[np.ix_(first, second)].sum() >= cut - 1e-9


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 6), st.integers(1, 6), st.integers(0, 99))
def test_any_sizes_that_fit(sources: int, targets: int, seed: int) -> None:
    values = devices(3, 3, noise=1.0)
    if sources + targets > 9:
        with pytest.raises(ProfilerError, match="cannot be had of 9 devices"):
            split_devices(values, sources, targets, np.random.default_rng(seed))
        return
    split = split_devices(values, sources, targets, np.random.default_rng(seed))
    assert (len(split.sources), len(split.targets)) == (sources, targets)
    assert not set(split.sources) & set(split.targets)


def test_what_cannot_be_split() -> None:
    values = devices(2, 2)
    with pytest.raises(ProfilerError, match="at least one of each"):
        split_devices(values, 0, 2, np.random.default_rng(0))
    apart = values.copy()
    apart[:40, 0] = np.nan
    apart[40:, 2] = np.nan
    with pytest.raises(ProfilerError, match="devices 0 and 2 share 0 networks"):
        rank_correlations(apart)
    constant = values.copy()
    constant[:, 1] = 3.0
    with pytest.raises(ProfilerError, match="devices 0 and 1 share are equal on device 1; leave it out"):
        rank_correlations(constant)
    for count in (1.5, True, "1"):
        with pytest.raises(TypeError, match="whole number, got"):
            split_devices(values, count, 2, np.random.default_rng(0))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="rng is a generator"):
        split_devices(values, 1, 1, 0)  # type: ignore[arg-type]
    with pytest.raises(ProfilerError, match="latencies are numbers"):
        rank_correlations([["a", "b"]])
    with pytest.raises(ProfilerError, match="networks and devices"):
        rank_correlations(values[:, 0])
