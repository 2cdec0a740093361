"""build_latency_table: what was measured alone and in whole networks becomes a table that a search looks up."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from nasmw import Choice, Filter, Space
from nasmw.errors import DeviceError, ProfilerError
from nasmw.profilers import (
    DeviceProfiler,
    LatencyTable,
    LookupTableProfiler,
    MeasurementStore,
    build_latency_table,
    required_layers,
)
from nasmw.profilers.device_meter import layer_of
from nasmw.profilers.lookup_choices import ChoiceParts
from nasmw.profilers.lookup_fit import cross_validated, non_negative_least_squares
from nasmw.profilers.lookup_samples import draw
from nasmw.spaces import autoformer, compofa, darts, nasbench201, nats_size
from nasmw.testing import FakeDevice, fake_latency, toy_space

IMAGE = torch.zeros(1, 3, 8, 8)
CIFAR = torch.zeros(1, 3, 32, 32)
CELLS = nasbench201(cells=1)


def build(space: Space, device: Any = None, example: torch.Tensor = IMAGE, **options: Any) -> LatencyTable:
    options = {"rounds": 1, "runs": 2, "store": False, "progress": False, **options}
    return build_latency_table(space, device or FakeDevice(), example, **options)


def errors(space: Space, table: LatencyTable, example: torch.Tensor, n: int = 30) -> np.ndarray:
    """Return the relative errors of a table on networks, by what the fake device says of them without noise."""
    sample = space.sample(n, np.random.default_rng(99))
    device = DeviceProfiler(space, FakeDevice(), example, store=False, rounds=1, runs=1)
    return LookupTableProfiler(space, table).profile_batch(sample) / device.profile_batch(sample) - 1.0


def test_a_sum_of_layers_is_found_again() -> None:
    table = build(CELLS, example=CIFAR, networks=12)
    assert np.abs(errors(CELLS, table, CIFAR)).max() < 1e-3
    assert table.relative_error is not None and table.relative_error < 1e-3
    assert table.notes["networks measured"] == 12 and table.notes["layers measured"] == len(table.layers)


def test_each_distinct_layer_is_measured_once() -> None:
    device = FakeDevice()
    table = build(CELLS, device, CIFAR, networks=8)
    assert len(table.layers) + 8 < device.exported <= len(table.layers) + 8 + 2, "and the anchor of the protocol"


@pytest.mark.parametrize(
    "space",
    [darts(cells=4, channels=4), nats_size(widths=(8, 16)), autoformer("tiny", input_size=32)],
    ids=lambda space: space.name,
)
def test_layers_run_where_they_are_described_and_have_their_parameters(space: Space) -> None:
    for placed in {placed.key: placed for placed in required_layers(space)}.values():
        model, example = layer_of(placed, batch=2)
        assert len(model(example)) == 2
        assert sum(parameter.numel() for parameter in model.parameters()) == placed.cost().params, placed.key


def slower_alone(model: nn.Module, example: torch.Tensor) -> float:
    """What a device takes on which a network pays 0.5 ms once, and its layers are 1.7 times as fast as alone."""
    whole = any(isinstance(module, nn.Flatten) for module in model.modules())
    return 0.5 + (fake_latency(model, example) - 0.2) * (1.0 if whole else 1.7)


@pytest.mark.slow
def test_what_layers_pay_alone_is_taken_off() -> None:
    table = build(CELLS, FakeDevice(slower_alone), CIFAR, networks=25)
    sample = CELLS.sample(20, np.random.default_rng(5))
    wanted = DeviceProfiler(CELLS, FakeDevice(slower_alone), CIFAR, store=False, rounds=1, runs=1).profile_batch(sample)
    found = LookupTableProfiler(CELLS, table).profile_batch(sample)
    alone = sum(table.layers.values())
    assert alone > 0 and np.abs(found / wanted - 1.0).max() < 0.02
    assert table.relative_error is not None and table.relative_error < 0.02


def test_the_stated_error_is_that_of_unseen_networks() -> None:
    table = build(CELLS, FakeDevice(noise=0.2), CIFAR, networks=40)
    stated = table.relative_error
    unseen = float(np.sqrt(np.mean(errors(CELLS, table, CIFAR, 60) ** 2)))
    assert stated is not None and 0.3 * stated < unseen < 3.0 * stated


def test_resolution_changes_the_layers_that_are_measured() -> None:
    space = compofa("fixed", resolutions=(32, 64), num_classes=10)
    table = build(space, example=torch.zeros(1, 3, 64, 64), networks=10)
    latency = LookupTableProfiler(space, table)
    architecture = latency.bounds().low_architecture  # type: ignore[union-attr]
    at = [latency.profile({**architecture, "resolution": size}) for size in (32, 64)]
    assert at[1] > 1.5 * at[0]
    assert np.abs(errors(space, table, torch.zeros(1, 3, 64, 64), 6)).max() < 0.05


def test_any_space_gets_a_table_over_its_choices(tmp_path: Path) -> None:
    space = toy_space()
    table = build(space, networks=150)
    table.save(tmp_path / "toy.json")
    latency = LookupTableProfiler(space, tmp_path / "toy.json")
    assert latency.relative_error is not None and latency.relative_error < 0.05
    assert np.abs(errors(space, table, IMAGE, 60)).mean() < 0.04
    Filter(latency <= 1.0, margin=2.0)


def build_conditional(architecture: dict[str, Any]) -> nn.Module:
    if architecture["op"] == "pool":
        return nn.Sequential(nn.Conv2d(3, 4, 1), nn.AvgPool2d(2))
    return nn.Sequential(nn.Conv2d(3, 16, architecture["kernel"], padding="same"), nn.Conv2d(16, 4, 1))


class Slow(nn.Identity):
    """Takes time and has no multiply-adds."""


def build_activated(architecture: dict[str, Any]) -> nn.Module:
    activation = {"relu": nn.ReLU, "slow": Slow}[architecture["activation"]]()
    return nn.Sequential(nn.Conv2d(3, architecture["width"], 3), activation)


def test_a_choice_without_multiply_adds_has_its_latency() -> None:
    def slowed(model: nn.Module, example: torch.Tensor) -> float:
        return fake_latency(model, example) + 0.15 * any(isinstance(module, Slow) for module in model.modules())

    space = Space([Choice("width", tuple(range(8, 40))), Choice("activation", ("relu", "slow"))], build_activated)
    table = build(space, FakeDevice(slowed), networks=40)
    latency = LookupTableProfiler(space, table)
    slower = [
        latency.profile({"width": width, "activation": "slow"})
        - latency.profile({"width": width, "activation": "relu"})
        for width in (8, 20, 39)
    ]
    assert slower == pytest.approx([0.15] * 3, rel=0.1)


def test_parts_over_choices_know_what_is_inactive() -> None:
    space = Space(
        [Choice("op", ("pool", "conv")), Choice("kernel", (1, 3, 5), {"op": "conv"}), Choice("dropout", (0.0, 0.5))],
        build_conditional,
    )
    parts = ChoiceParts.of(space, IMAGE)
    everything = space.at(range(space.size))
    counts = parts.counts(everything.codes)
    macs = [fake_latency(space.build(architecture), IMAGE) for architecture in everything]
    assert len(set(np.round(counts @ parts.macs).tolist())) == 4
    table = LatencyTable("fake", choices=parts.latencies(parts.macs * 1e-6 + 0.1))
    latency = LookupTableProfiler(space, table)
    assert latency.profile_batch(everything) == pytest.approx(counts @ (parts.macs * 1e-6 + 0.1))
    assert np.corrcoef(macs, latency.profile_batch(everything))[0, 1] > 0.99


def build_random_sum(architecture: dict[str, Any]) -> nn.Module:
    return nn.Sequential(*[nn.Linear(3, 3) for _ in range(architecture["depth"])])


def test_building_goes_on_where_it_was_interrupted(tmp_path: Path) -> None:
    path = tmp_path / "m.db"
    with pytest.raises(DeviceError):
        build(CELLS, FakeDevice(fails_after=35), CIFAR, networks=20, store=path)
    kept = MeasurementStore(path).count()
    device = FakeDevice()
    table = build(CELLS, device, CIFAR, networks=20, store=path)
    assert kept >= len(table.layers) and device.exported <= len(table.layers) + 20 - kept + 3
    fresh = build(CELLS, FakeDevice(), CIFAR, networks=20)
    assert table.layers == pytest.approx(fresh.layers)


def test_measurements_that_say_nothing_make_no_table() -> None:
    def always_alike(model: nn.Module, example: torch.Tensor) -> float:
        whole = any(isinstance(module, nn.Flatten) for module in model.modules())
        return 100.0 if whole else fake_latency(model, example)

    with pytest.raises(ProfilerError, match="has nothing to do with what their parts took"):
        build(CELLS, FakeDevice(always_alike), CIFAR, networks=12)


def test_refusals() -> None:
    with pytest.raises(ProfilerError, match="at least 5 whole networks"):
        build(CELLS, networks=4)
    with pytest.raises(ProfilerError, match="describes its layers for images of 32x32"):
        build(CELLS, example=torch.zeros(1, 3, 64, 64))
    with pytest.raises(ProfilerError, match="fewer than the 5 networks"):
        build(Space([Choice("depth", (1, 2))], build_random_sum), example=torch.zeros(1, 3))


def test_samples_are_distinct_and_spread() -> None:
    space = toy_space()
    for sampler in ("random", "stratified by MACs"):
        sample = draw(space, 60, sampler, IMAGE, np.random.default_rng(0))  # type: ignore[arg-type]
        assert len(sample) == 60 == len(set(sample.row_keys()))
        again = draw(space, 60, sampler, IMAGE, np.random.default_rng(0))  # type: ignore[arg-type]
        assert np.array_equal(sample.codes, again.codes)
    assert len(draw(space, 10_000, "random", IMAGE, np.random.default_rng(0))) == space.size
    assert len(set(draw(space, 1500, "random", IMAGE, np.random.default_rng(0)).row_keys())) == 1500


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 20), st.integers(1, 6))
def test_non_negative_least_squares_meets_its_conditions(seed: int, n: int, p: int) -> None:
    rng = np.random.default_rng(seed)
    matrix, target = rng.standard_normal((n, p)) * 10.0 ** rng.integers(-3, 4, p), rng.standard_normal(n)
    if seed % 3 == 0:
        matrix[:, 0] = matrix[:, -1]
    if seed % 2:
        target = matrix @ rng.uniform(0.0, 1.0, p)
    found = non_negative_least_squares(matrix, target)
    gradient = matrix.T @ (matrix @ found - target) / np.maximum(np.linalg.norm(matrix, axis=0), 1e-30)
    assert (found >= 0).all()
    assert (gradient > -1e-6).all(), "no column could still lower the distance"
    assert np.abs(gradient[found > 0]).max(initial=0.0) < 1e-6


def test_non_negative_least_squares_ends_where_columns_depend_on_each_other() -> None:
    """Rounding makes coefficients of such columns fall to a little below 0."""
    rng = np.random.default_rng(0)
    for _ in range(300):
        n, p, rank = rng.integers(2, 12), rng.integers(4, 16), rng.integers(1, 5)
        matrix = np.abs(rng.standard_normal((n, rank)) @ rng.standard_normal((rank, p)))
        matrix[:, 1] = matrix[:, 2] + matrix[:, 3]
        target = matrix @ rng.uniform(0.0, 1.0, p)
        assert matrix @ non_negative_least_squares(matrix, target) == pytest.approx(target, rel=1e-6)


def test_a_fit_finds_factors_constants_and_overhead() -> None:
    rng = np.random.default_rng(0)
    alone = rng.uniform(0.1, 1.0, 30)
    kinds = ["a"] * 15 + ["b"] * 15
    true = np.where(np.arange(30) < 15, 0.8, 1.3) * alone - 0.05
    counts = rng.integers(0, 3, (40, 30)).astype(float)
    latencies = counts @ true + 2.0
    fit = cross_validated(counts, latencies, alone, [kinds], np.ones(30))
    assert fit.parts == pytest.approx(true, abs=1e-6) and fit.overhead == pytest.approx(2.0)
    assert fit.model == "a factor for each of 2 kinds, less a constant" and fit.relative_error < 1e-6
    with pytest.raises(ValueError, match="at least 5 networks"):
        cross_validated(counts[:4], latencies[:4], alone, [kinds], np.ones(30))


def test_a_simple_fit_is_kept_where_more_is_not_better() -> None:
    rng = np.random.default_rng(1)
    alone = rng.uniform(0.1, 1.0, 10)
    counts = rng.integers(0, 3, (30, 10)).astype(float)
    latencies = (counts @ alone * 1.2 + 1.0) * np.exp(0.05 * rng.standard_normal(30))
    fit = cross_validated(counts, latencies, alone, [["a", "b"] * 5], np.zeros(10))
    assert fit.relative_error == pytest.approx(0.05, rel=0.5)
    assert np.abs(fit.parts / alone / 1.2 - 1.0).max() < 0.25


@pytest.mark.slow
def test_a_table_on_a_real_device() -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    from nasmw.devices import OnnxRuntime

    table = build(CELLS, OnnxRuntime(), CIFAR, networks=12, rounds=3, runs=5)
    sample = CELLS.sample(12, np.random.default_rng(3))
    measured = DeviceProfiler(CELLS, OnnxRuntime(), CIFAR, store=False, rounds=3, runs=5).profile_batch(sample)
    predicted = LookupTableProfiler(CELLS, table).profile_batch(sample)
    assert np.corrcoef(measured, predicted)[0, 1] > 0.5
