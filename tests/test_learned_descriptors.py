"""Latencies on devices that were never measured, from their descriptors."""

from __future__ import annotations

from pathlib import Path

import attrs
import numpy as np
import pytest

from nasmw import Space
from nasmw.candidates import Candidates, Floats
from nasmw.errors import OrderError, ProfilerError
from nasmw.profilers.learned import (
    GPUS,
    DescriptorProfiler,
    DeviceMeasurements,
    HardwareDescriptor,
    HardwareModel,
    LearnedProfiler,
    TransferProfiler,
)
from nasmw.spaces import compofa
from nasmw.testing import ProfilerContract, toy_space

SPACE = compofa(resolutions=(128, 160, 192, 224))
NETWORKS = SPACE.sample(60, np.random.default_rng(0))
LAUNCH_US = {"V100": 60.0, "Titan RTX": 30.0, "P40": 50.0, "Titan Xp": 50.0, "RTX 2080 Ti": 70.0}


def latency(name: str, batch: int, networks: Candidates = NETWORKS) -> Floats:
    """Return made-up milliseconds: memory or launches, with older chips less good at depthwise work."""
    hardware = GPUS[name]
    work, number = HardwareModel(SPACE).work(networks)
    old = 2.0 if hardware.cache_mb < 5 else 1.0
    busy = batch * (work @ np.array([2.0, old, 0.5, 1.0, 1.5 * old, 0.5])) / hardware.bandwidth_gbs * 4.0
    return np.maximum(busy, 1e-3 * LAUNCH_US[name] * number)


def measured(*names: str) -> list[DeviceMeasurements]:
    return [
        DeviceMeasurements(GPUS[name], batch, NETWORKS, latency(name, batch)) for name in names for batch in (1, 32, 64)
    ]


MODEL = HardwareModel(SPACE).fit(measured("V100", "Titan RTX", "P40"), calibrate=False)


class TestDescriptorProfilerContract(ProfilerContract):
    def make_space(self) -> Space:
        return SPACE

    def make(self, space: Space) -> DescriptorProfiler:
        return MODEL.on(GPUS["Titan Xp"], 64)


@pytest.mark.parametrize("name", ["Titan Xp", "RTX 2080 Ti"])
def test_a_device_that_was_never_measured(name: str) -> None:
    test = SPACE.sample(100, np.random.default_rng(1))
    said = MODEL.on(GPUS[name], 64).profile_batch(test)
    assert np.mean(np.abs(said / latency(name, 64, test) - 1.0)) < 0.1


def test_the_host_decides_on_a_batch_of_one() -> None:
    known = attrs.evolve(GPUS["RTX 2080 Ti"], launch_us=LAUNCH_US["RTX 2080 Ti"])
    expected = latency("RTX 2080 Ti", 1)
    errors = [
        np.mean(np.abs(MODEL.on(hardware, 1).profile_batch(NETWORKS) / expected - 1.0))
        for hardware in (known, GPUS["RTX 2080 Ti"])
    ]
    assert errors[0] < 0.05 < 0.2 < errors[1]


def test_the_standard_deviation_is_the_error_on_devices_left_out() -> None:
    assert MODEL.on(GPUS["Titan Xp"], 64).std(NETWORKS) is None
    model = HardwareModel(SPACE).fit(measured("V100", "Titan RTX", "P40", "RTX 2080 Ti"))
    profiler = model.on(GPUS["Titan Xp"], 64)
    std = profiler.std(NETWORKS)
    assert std is not None
    share = std / profiler.profile_batch(NETWORKS)
    assert np.allclose(share, share[0]) and 0.01 < share[0] < 1.0


def test_it_is_a_source_of_a_transfer() -> None:
    source = MODEL.on(GPUS["Titan Xp"], 64)
    expected = latency("Titan Xp", 64)
    transferred = TransferProfiler(SPACE, source, device="Titan Xp").fit(NETWORKS[:8], expected[:8])
    before, after = (
        np.mean(np.abs(profiler.profile_batch(NETWORKS[8:]) / expected[8:] - 1.0)) for profiler in (source, transferred)
    )
    assert after < before


def test_saved_and_loaded_it_says_the_same(tmp_path: Path) -> None:
    MODEL.save(tmp_path / "model.npz")
    again = HardwareModel.load(tmp_path / "model.npz", SPACE)
    first, second = (model.on(GPUS["Titan Xp"], 32).profile_batch(NETWORKS) for model in (MODEL, again))
    assert np.array_equal(first, second)
    with pytest.raises(ProfilerError, match="saved for the space"):
        HardwareModel.load(tmp_path / "model.npz", toy_space())
    known = SPACE.sample(20, np.random.default_rng(0))
    LearnedProfiler(SPACE).fit(known, np.arange(20.0)).save(tmp_path / "learned.npz")
    with pytest.raises(ProfilerError, match="saved by no HardwareModel"):
        HardwareModel.load(tmp_path / "learned.npz", SPACE)


def test_what_is_wrong_is_refused() -> None:
    with pytest.raises(ProfilerError, match=r"HardwareDescriptor\(bandwidth_gbs=...\) takes a number above 0, got -1"):
        HardwareDescriptor("a chip", 100, 1000, 4, -1, 1)
    with pytest.raises(ProfilerError, match="needs a space that describes its layers"):
        HardwareModel(toy_space())
    with pytest.raises(ProfilerError, match="at least two devices"):
        HardwareModel(SPACE).fit(measured("V100"))
    with pytest.raises(OrderError, match="has learnt nothing yet"):
        HardwareModel(SPACE).on(GPUS["V100"], 1)
    with pytest.raises(OrderError, match="has learnt nothing yet"):
        HardwareModel(SPACE).save("never.npz")
    with pytest.raises(ProfilerError, match="a batch is a whole number of at least 1, got 0"):
        MODEL.on(GPUS["V100"], 0)
    with pytest.raises(ProfilerError, match="one positive number for each of 60 candidates"):
        DeviceMeasurements(GPUS["V100"], 1, NETWORKS, np.zeros(60))
    with pytest.raises(ProfilerError, match="at least 3 networks, got 2"):
        DeviceMeasurements(GPUS["V100"], 1, NETWORKS[:2], np.ones(2))
    other = toy_space().sample(5, np.random.default_rng(0))
    with pytest.raises(ProfilerError, match="was given candidates of"):
        HardwareModel(SPACE).fit([DeviceMeasurements(GPUS["V100"], 1, other, np.ones(5))])


def test_descriptors_are_what_the_makers_publish() -> None:
    assert GPUS["V100"].teraflops == pytest.approx(14.1, abs=0.1)
    assert GPUS["Titan RTX"].teraflops == pytest.approx(16.3, abs=0.1)
    assert GPUS["P40"].teraflops == pytest.approx(11.76, abs=0.1)
