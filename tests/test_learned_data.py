"""Learned profilers on published latencies of once-for-all networks: errors, intervals, tables."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nasmw.feasible import FeasibleSet
from nasmw.profilers import LearnedProfiler

BENCHMARKS = str(Path(__file__).parent.parent / "benchmarks")


@pytest.fixture(scope="module")
def measured() -> dict[str, tuple[Any, np.ndarray]]:
    """Return candidates and milliseconds of every table."""
    folder = os.environ.get("NASMW_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("NASMW_DATA names no folder with published data")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(BENCHMARKS)
        from tables.ofa_latencies import help_latencies, paired_latencies

        found = [paired_latencies(folder), help_latencies(folder)]
        for name in [name for name in sys.modules if name.split(".")[0] == "tables"]:
            del sys.modules[name]
    return {device: (data.candidates, values) for data in found for device, values in data.milliseconds.items()}


@pytest.mark.slow
def test_intervals_hold_on_test_networks_of_every_table(measured: dict[str, tuple[Any, np.ndarray]]) -> None:
    assert len(measured) == 15
    for device, (candidates, values) in measured.items():
        order = np.random.default_rng(0).permutation(len(values))
        train, test = order[:3000], order[-1500:]
        profiler = LearnedProfiler(candidates.space, "ridge", device=device).fit(candidates[train], values[train])
        low, high = profiler.interval(candidates[test])
        held = ((low <= values[test]) & (values[test] <= high)).mean()
        assert 0.87 < held < 0.93, f"{device}: {held}"


def test_errors_with_700_samples_of_a_gpu(measured: dict[str, tuple[Any, np.ndarray]]) -> None:
    candidates, values = measured["p40"]
    test = slice(8500, None)
    ridge = LearnedProfiler(candidates.space, "ridge").fit(candidates[:700], values[:700])
    assert np.abs(ridge.profile_batch(candidates[test]) - values[test]).mean() < 0.45


def test_limits_on_a_frozen_profiler_are_met_by_construction(measured: dict[str, tuple[Any, np.ndarray]]) -> None:
    candidates, values = measured["note10"]
    space = candidates.space
    profiler = LearnedProfiler(space, "ridge").fit(candidates[:2000], values[:2000]).freeze()
    limit = profiler <= profiler.bounds().low * 1.1  # type: ignore[union-attr]
    feasible = FeasibleSet(space, limit)
    assert not feasible.rejected
    drawn = feasible.sample(200, np.random.default_rng(0))
    assert limit.holds(profiler.profile_batch(drawn)).all()
