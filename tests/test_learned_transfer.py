"""Transfer from one device to another, encodings of layers, robust fits and adaptive intervals."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from nasmw import Candidates, Chain, Choice, CostTable, Filter, Search, Space
from nasmw.candidates import Floats
from nasmw.errors import ProfilerError
from nasmw.profilers import FlopsProfiler, TorchLatencyProfiler
from nasmw.profilers.learned import (
    AdaptiveIntervals,
    LayerCounts,
    LayerWork,
    LearnedProfiler,
    PlacedCounts,
    TransferProfiler,
    fit_robust,
)
from nasmw.profilers.learned.layers import operations
from nasmw.profilers.learned.mlp import MLP
from nasmw.spaces import compofa, nasbench201, ofa_mobilenetv3
from nasmw.strategies import Random
from nasmw.tabled import TabledProfiler
from nasmw.testing import ProfilerContract, TableProfiler, toy_space

OFA = ofa_mobilenetv3(resolutions=(160, 192, 224))


def source_and_target(space: Space, noise: float = 0.0) -> tuple[TabledProfiler, Candidates, Floats]:
    """Return a made-up device as a table, 400 networks, and their latencies on another made-up device."""
    networks = space.sample(400, np.random.default_rng(3))
    work = LayerWork()
    names = work.names(space)

    def weights(**shares: float) -> Floats:
        return np.array([shares.get(name.replace(" ", "_"), 0.0) for name in names])

    first = weights(macs=20.0, number=4.0)
    second = weights(macs=5.0, depthwise_elements=30.0, number=2.0)
    table = CostTable(space, work.terms(space, first), 3.0, name="source_ms")
    rng = np.random.default_rng(4)
    values = work.encode(networks).values @ second + 1.0
    return TabledProfiler(table, device="one"), networks, values * (1.0 + noise * rng.normal(size=len(values)))


def relative(profiler: LearnedProfiler, networks: Candidates, values: Floats) -> float:
    return float(np.mean(np.abs(profiler.profile_batch(networks) / values - 1.0)))


class TestTransferProfilerContract(ProfilerContract):
    def make(self, space: Space) -> TransferProfiler:
        known = space.sample(40, np.random.default_rng(7))
        source = TableProfiler(space, name="source")
        profiler = TransferProfiler(space, source)
        profiler.fit(known, 2.0 * source.profile_batch(known) + np.random.default_rng(8).normal(size=40))
        return profiler


@pytest.mark.parametrize("encoding", [LayerCounts(), PlacedCounts(), LayerWork()], ids=str)
def test_encodings_of_layers_are_sums_of_tables(encoding: LayerCounts) -> None:
    networks = OFA.sample(50, np.random.default_rng(0))
    features = encoding.encode(networks)
    weights = np.random.default_rng(1).normal(size=features.values.shape[1])
    table = CostTable(OFA, encoding.terms(OFA, weights))
    assert len(encoding.names(OFA)) == features.values.shape[1]
    assert np.allclose(table.evaluate(networks), features.values @ weights, rtol=1e-12)


@pytest.mark.parametrize("space", [compofa(resolutions=[224]), nasbench201()], ids=lambda space: space.name)
def test_work_agrees_with_the_tables_of_the_space(space: Space) -> None:
    networks = space.sample(20, np.random.default_rng(0))
    amounts = dict(zip(LayerWork().names(space), LayerWork().amounts(networks).T, strict=True))
    assert np.allclose(amounts["macs"], space.tables["macs"](space, None).evaluate(networks), rtol=1e-12)
    assert np.allclose(amounts["weights"], space.tables["params"](space, None).evaluate(networks), rtol=1e-12)


def test_an_inverted_residual_is_taken_apart() -> None:
    space = compofa(resolutions=[224])
    assert space.parts is not None
    placed = [
        layer
        for part in space.parts()
        if part.layers
        for layer in part.layers(*[space.choices[space.column(name)].options[0] for name in part.scope])
    ]
    for layer in placed:
        found = list(operations(layer))
        assert sum(operation.macs for operation in found) == layer.cost().macs
        assert sum(operation.weights for operation in found) == layer.cost().params
    kinds = {operation.kind for layer in placed for operation in operations(layer)}
    assert {"conv3", "pointwise", "depthwise3", "depthwise5", "squeeze", "add", "pool", "linear"} <= kinds


def test_layers_need_a_space_that_describes_them() -> None:
    with pytest.raises(ProfilerError, match="'layers' needs a space that describes its layers"):
        LearnedProfiler(toy_space(), "ridge", "layers")


def test_ten_measurements_correct_a_source() -> None:
    source, networks, values = source_and_target(OFA, noise=0.01)
    transferred = TransferProfiler(OFA, source, device="two")
    rows = transferred.to_measure(networks[:300], 10)
    transferred.fit(networks[rows], values[rows])
    affine = TransferProfiler(OFA, source, method="affine").fit(networks[rows], values[rows])
    alone = LearnedProfiler(OFA, "ridge").fit(networks[rows], values[rows])
    test = slice(300, 400)
    errors = [relative(profiler, networks[test], values[test]) for profiler in (transferred, affine, alone)]
    assert errors[0] < 0.03 and errors[0] < errors[1] < errors[2]
    assert transferred.chosen == "residual of source_ms on one"


def test_an_affine_device_is_met_by_three_samples_and_stays_affine() -> None:
    source, networks, _ = source_and_target(OFA)
    target = 2.5 * source.profile_batch(networks) + 7.0
    profiler = TransferProfiler(OFA, source, method="affine").fit(networks[:3], target[:3])
    assert np.allclose(profiler.profile_batch(networks), target, rtol=1e-6)


def test_the_source_that_fits_is_chosen() -> None:
    source, networks, values = source_and_target(OFA, noise=0.01)
    noise = TabledProfiler(
        CostTable(OFA, [(("stage0.depth",), np.array([3.0, 1.0, 2.0]))], name="other"), device="far from it"
    )
    profiler = TransferProfiler(OFA, [noise, source], method="affine").fit(networks[:12], values[:12])
    assert profiler.chosen == "affine of source_ms on one"


def test_a_table_stays_a_table_and_limits_are_met_by_construction() -> None:
    source, networks, values = source_and_target(OFA, noise=0.01)
    profiler = TransferProfiler(OFA, source).fit(networks[:30], values[:30])
    assert isinstance(profiler.table, CostTable)
    features = profiler.encoding.encode(networks)
    fitted = profiler._ready()
    direct = fitted.predictor.predict(features).mean * fitted.scale + fitted.middle
    assert np.allclose(profiler.profile_batch(networks), direct, rtol=1e-9)
    limit = float(np.quantile(values, 0.01))
    result = Search(OFA, Chain(Random(), Filter(profiler.freeze() <= limit)), lambda trial: 1.0).run(trials=5)
    assert all(profiler.profile(trial.architecture) <= limit for trial in result.completed)


def test_widths_of_source_and_target_may_differ() -> None:
    wide = ofa_mobilenetv3(width=1.2, resolutions=(160, 192, 224))
    source, _, _ = source_and_target(wide)
    _, networks, values = source_and_target(OFA)
    profiler = TransferProfiler(OFA, source).fit(networks[:20], values[:20])
    assert relative(profiler, networks[20:], values[20:]) < 0.03


def test_a_network_is_fine_tuned() -> None:
    space = toy_space()
    table = TableProfiler(space)
    known = space.sample(150, np.random.default_rng(0))
    values = table.profile_batch(known)
    network = LearnedProfiler(space, MLP(widths=(32, 16), epochs=60), "one_hot").fit(known, values)
    other = values + 30.0 * (np.array([architecture["width"] for architecture in known]) == 8)
    tuned = TransferProfiler(space, network, method="fine_tune").fit(known[:60], other[:60])
    affine = TransferProfiler(space, network, method="affine").fit(known[:60], other[:60])
    assert tuned.chosen.startswith("fine_tune of latency_ms") and tuned.table is None
    assert relative(tuned, known[60:], other[60:]) < relative(affine, known[60:], other[60:])
    with pytest.raises(ProfilerError, match="a LearnedProfiler with the predictor 'mlp'"):
        TransferProfiler(space, table, method="fine_tune").fit(known, other)


def test_intervals_hold_as_often_as_they_say() -> None:
    source, networks, values = source_and_target(OFA, noise=0.02)
    held = []
    for seed in range(5):
        rows = np.random.default_rng(seed).permutation(400)
        profiler = TransferProfiler(OFA, source).fit(networks[rows[:60]], values[rows[:60]])
        low, high = profiler.interval(networks[rows[60:]], 0.9)
        held.append(np.mean((low <= values[rows[60:]]) & (values[rows[60:]] <= high)))
    assert 0.82 < np.mean(held) < 0.97


def test_saved_and_loaded_in_a_new_process_it_says_the_same(tmp_path: Path) -> None:
    code = """
import sys
import numpy as np
from nasmw.profilers.learned import TransferProfiler
from nasmw.testing import TableProfiler, toy_space
space = toy_space()
source = TableProfiler(space, name="source")
known = space.sample(30, np.random.default_rng(0))
if sys.argv[1] == "save":
    profiler = TransferProfiler(space, source, device="two").fit(known, source.profile_batch(known) ** 1.1)
    profiler.save(sys.argv[2])
else:
    profiler = TransferProfiler.load(sys.argv[2], space, source)
print(profiler, profiler.chosen, profiler.profile_batch(known).tobytes().hex(), profiler.std(known).tobytes().hex())
"""
    path = str(tmp_path / "transfer.npz")
    said = [
        subprocess.run([sys.executable, "-c", code, what, path], capture_output=True, text=True, check=True).stdout
        for what in ("save", "load")
    ]
    assert said[0] == said[1] and len(said[0]) > 100


def test_other_sources_and_other_files_are_refused(tmp_path: Path) -> None:
    space = toy_space()
    source = TableProfiler(space, name="source")
    known = space.sample(30, np.random.default_rng(0))
    values = source.profile_batch(known)
    TransferProfiler(space, source).fit(known, values).save(tmp_path / "transfer.npz")
    with pytest.raises(ProfilerError, match="saved with other sources"):
        TransferProfiler.load(tmp_path / "transfer.npz", space, 2 * source)
    with pytest.raises(ProfilerError, match="saved by another class; load it by TransferProfiler.load"):
        LearnedProfiler.load(tmp_path / "transfer.npz", space)
    LearnedProfiler(space).fit(known, values).save(tmp_path / "learned.npz")
    with pytest.raises(ProfilerError, match="saved by no TransferProfiler"):
        TransferProfiler.load(tmp_path / "learned.npz", space, source)


def test_wrong_sources_and_samples_are_refused() -> None:
    space = toy_space()
    source = TableProfiler(space)
    other = Space([Choice("width", (1, 2))])
    with pytest.raises(ProfilerError, match="needs the same choices on both sides"):
        TransferProfiler(other, source)
    with pytest.raises(ProfilerError, match="at least one source"):
        TransferProfiler(space, [])
    with pytest.raises(TypeError, match="the source of a transfer is a Profiler"):
        TransferProfiler(space, ["macs"])  # type: ignore[list-item]
    with pytest.raises(ProfilerError, match="made without a space"):
        import torch

        TransferProfiler(space, TorchLatencyProfiler(None, torch.zeros(1, 3, 8, 8)))
    with pytest.raises(ProfilerError, match="the method of a transfer is one of"):
        TransferProfiler(space, source, method="best")  # type: ignore[arg-type]
    known = space.sample(10, np.random.default_rng(0))
    profiler = TransferProfiler(space, source)
    with pytest.raises(ProfilerError, match="at least 3 samples"):
        profiler.fit(known[:2], [1.0, 2.0])
    with pytest.raises(ProfilerError, match="not finite"):
        profiler.fit(known, np.full(10, np.nan))
    with pytest.raises(ProfilerError, match="nothing can be learnt from a constant"):
        profiler.fit(known, np.ones(10))
    with pytest.raises(ProfilerError, match="11 of 10 candidates cannot be chosen"):
        profiler.to_measure(known, 11)
    with pytest.raises(ProfilerError, match="learns from a TransferEncoding"):
        LearnedProfiler(space, "transfer").fit(known, np.arange(10.0))


def test_what_to_measure_is_distinct_and_tells_more_than_chance() -> None:
    source, networks, values = source_and_target(OFA)
    profiler = TransferProfiler(OFA, source)
    rows = profiler.to_measure(networks, 12)
    assert len(set(rows.tolist())) == 12
    chosen = relative(profiler.fit(networks[rows], values[rows]), networks, values)
    chance = []
    for seed in range(5):
        some = np.random.default_rng(seed).choice(400, 12, replace=False)
        chance.append(relative(TransferProfiler(OFA, source).fit(networks[some], values[some]), networks, values))
    assert chosen < np.mean(chance)


def test_multiply_adds_are_a_source_too() -> None:
    import torch

    _, networks, values = source_and_target(OFA)
    macs = FlopsProfiler(OFA, torch.zeros(1, 3, 224, 224))
    profiler = TransferProfiler(OFA, macs).fit(networks[:30], values[:30])
    assert relative(profiler, networks[30:], values[30:]) < 0.02


def test_robust_fits_bear_disturbed_measurements() -> None:
    source, networks, values = source_and_target(OFA, noise=0.01)
    disturbed = np.where(np.arange(400) % 10 == 0, 2.0 * values, values)
    plain = TransferProfiler(OFA, source).fit(networks[:200], disturbed[:200])
    robust = fit_robust(TransferProfiler(OFA, source), networks[:200], disturbed[:200])
    errors = [relative(profiler, networks[200:], values[200:]) for profiler in (plain, robust)]
    assert errors[1] < 0.5 * errors[0]
    with pytest.raises(ProfilerError, match="at least 1, got 0"):
        fit_robust(robust, networks, values, rounds=0)


def test_adaptive_intervals_follow_a_drift() -> None:
    source, networks, values = source_and_target(OFA, noise=0.02)
    profiler = TransferProfiler(OFA, source).fit(networks[:100], values[:100])
    drifted = values * np.where(np.arange(400) > 200, 1.1, 1.0)
    intervals = AdaptiveIntervals(profiler, 0.9)
    held = intervals.held(networks[100:], drifted[100:])
    low, high = profiler.interval(networks[100:], 0.9)
    fixed = (low <= drifted[100:]) & (drifted[100:] <= high)
    assert fixed.mean() < 0.6 < 0.85 < held.mean() < 0.95
    low, high = intervals.interval(networks[:1])
    assert low[0] < profiler.profile_batch(networks[:1])[0] < high[0]


def test_adaptive_intervals_check_what_they_are_given() -> None:
    space = toy_space()
    with pytest.raises(ProfilerError, match="above 0 and below 1"):
        AdaptiveIntervals(TableProfiler(space), 1.0)
    with pytest.raises(ProfilerError, match="takes a number above 0"):
        AdaptiveIntervals(TableProfiler(space), step=0.0)
    with pytest.raises(ProfilerError, match="has no standard deviations"):
        AdaptiveIntervals(TableProfiler(space)).interval(space.sample(1, np.random.default_rng(0)))
