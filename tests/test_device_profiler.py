"""DeviceProfiler and its store: each network once, found again by every process."""

from __future__ import annotations

import json
import multiprocessing
import os
import pickle
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from nasmw import Chain, Choice, Filter, Search, Space
from nasmw.errors import DeviceError, ProfilerError
from nasmw.profilers import DeviceProfiler, Measured, MeasuredDataset, MeasurementStore, create_dataset
from nasmw.profilers.device_meter import Meter
from nasmw.spaces import ofa_mobilenetv3
from nasmw.strategies import Random
from nasmw.testing import FakeDevice, ProfilerContract, fake_latency, toy_space

SPACE = toy_space()
IMAGE = torch.zeros(1, 3, 8, 8)
SMALL = {"width": 8, "depth": 1, "block0.op": "pool"}


class TestDeviceProfiler(ProfilerContract):
    samples = 6

    def make(self, space: Space) -> DeviceProfiler:
        return DeviceProfiler(space, FakeDevice(), IMAGE, store=False, rounds=1, runs=2)


def made(path: Any, device: FakeDevice | None = None, **options: Any) -> tuple[DeviceProfiler, FakeDevice]:
    device = device or FakeDevice()
    return DeviceProfiler(options.pop("space", SPACE), device, IMAGE, store=path, rounds=1, runs=2, **options), device


def test_values_are_those_of_the_device(tmp_path: Path) -> None:
    profiler, _ = made(tmp_path / "m.db")
    expected = fake_latency(SPACE.build(SMALL), IMAGE)
    assert profiler.profile(SMALL) == pytest.approx(expected)
    assert profiler.profile_model(SPACE.build(SMALL)) == pytest.approx(expected)
    assert (profiler.kind, profiler.pure, profiler.unit, profiler.device) == ("measured", False, "ms", "fake-fp32")


def test_std_comes_from_the_spread_of_the_visits() -> None:
    quiet, _ = made(False)
    noisy = DeviceProfiler(SPACE, FakeDevice(noise=0.5), IMAGE, store=False, rounds=5, runs=2)
    sample = SPACE.sample(3, np.random.default_rng(0))
    assert quiet.std(sample).tolist() == [0.0, 0.0, 0.0]
    assert (noisy.std(sample) > 0).all()


def test_each_architecture_is_measured_once_and_inactive_choices_make_no_entry(tmp_path: Path) -> None:
    profiler, device = made(tmp_path / "m.db")
    first = profiler.profile(SMALL)
    exported = device.exported
    everything = {choice.name: choice.options[-1] for choice in SPACE.choices} | SMALL
    assert profiler.profile(everything) == first and device.exported == exported
    profiler.profile_batch(SPACE.candidates([SMALL, SMALL, everything]))
    assert device.exported == exported
    assert MeasurementStore(tmp_path / "m.db").count() == 1


def test_the_store_serves_other_profilers_of_the_space_and_no_other_space_device_or_protocol(tmp_path: Path) -> None:
    path = tmp_path / "m.db"
    made(path)[0].profile(SMALL)

    def measures(device: FakeDevice | None = None, image: torch.Tensor = IMAGE, rounds: int = 1, **other: Any) -> bool:
        device = device or FakeDevice()
        profiler = DeviceProfiler(other.get("space", SPACE), device, image, store=path, rounds=rounds, runs=2)
        profiler.profile(SMALL)
        return device.measured > 0

    assert not measures()
    assert not measures(space=toy_space())
    assert measures(FakeDevice(version="2"))
    assert measures(FakeDevice(name="another"))
    assert measures(image=torch.zeros(2, 3, 8, 8))
    assert measures(rounds=2)
    assert measures(space=Space(SPACE.choices, build=build_wider, name="toy"))


def build_wider(architecture: dict[str, Any]) -> torch.nn.Module:
    return torch.nn.Sequential(torch.nn.Conv2d(3, 7, 1), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())


def test_spaces_that_differ_in_their_networks_only_are_kept_apart() -> None:
    image, subjects = torch.zeros(1, 3, 64, 64), set()
    for width in (1.0, 1.2):
        space = ofa_mobilenetv3(width=width, resolutions=[32, 64], num_classes=10)
        subjects.add(Meter(Space(space.choices, space.build, name="same"), FakeDevice(), image).subject)
    assert len(subjects) == 2


def build_convolution(architecture: dict[str, Any]) -> torch.nn.Module:
    return torch.nn.Conv2d(3, 4, 3)


def test_resolution_is_part_of_what_is_measured(tmp_path: Path) -> None:
    space = Space([Choice("resolution", (8, 16))], build_convolution)
    profiler, _ = made(tmp_path / "m.db", space=space)
    small, large = (profiler.profile({"resolution": size}) for size in (8, 16))
    assert small == pytest.approx(0.2 + 0.01 + 4 * 27 * 36e-6)
    assert large == pytest.approx(0.2 + 0.01 + 4 * 27 * 196e-6)
    assert MeasurementStore(tmp_path / "m.db").count() == 2


def test_measurements_survive_a_failure_half_way(tmp_path: Path) -> None:
    sample = SPACE.sample(40, np.random.default_rng(0))
    profiler, device = made(tmp_path / "m.db", FakeDevice(fails_after=30))
    with pytest.raises(DeviceError, match="fails after 30 requests"):
        profiler.profile_batch(sample)
    kept = MeasurementStore(tmp_path / "m.db").count()
    assert 0 < kept < 40
    again, device = made(tmp_path / "m.db")
    again.profile_batch(sample)
    distinct = len(set(sample.row_keys()))
    assert kept == 16 and device.exported <= distinct - kept + 2, "24 networks and the anchor of two calls"
    assert MeasurementStore(tmp_path / "m.db").count() == distinct


def test_pickles_without_its_process(tmp_path: Path) -> None:
    profiler, _ = made(tmp_path / "m.db")
    value = profiler.profile(SMALL)
    copy = pickle.loads(pickle.dumps(profiler))
    assert copy.profile(SMALL) == value
    profiler.close()
    assert profiler.profile({**SMALL, "width": 16}) > value


def test_needs_a_space_that_builds_and_one_tensor() -> None:
    with pytest.raises(ProfilerError, match="made without `build`"):
        DeviceProfiler(Space([Choice("a", (1, 2))]), FakeDevice(), IMAGE)
    with pytest.raises(ProfilerError, match="on one tensor"):
        DeviceProfiler(SPACE, FakeDevice(), (IMAGE, IMAGE))
    with pytest.raises(TypeError, match="a device is one of nasmw.devices"):
        DeviceProfiler(SPACE, 5, IMAGE)  # type: ignore[arg-type]
    with pytest.raises(DeviceError, match="no device is called 'onnxruntim'; did you mean 'onnxruntime'"):
        DeviceProfiler(SPACE, "onnxruntim", IMAGE)
    with pytest.raises(ProfilerError, match="without a space"):
        DeviceProfiler(None, FakeDevice(), IMAGE, store=False).profile(SMALL)


def score(trial: Any) -> float:
    return float(trial.architecture["width"])


def test_a_resumed_search_measures_nothing_twice(tmp_path: Path) -> None:
    def search(device: FakeDevice) -> Search:
        latency = DeviceProfiler(SPACE, device, IMAGE, store=False, rounds=1, runs=2)
        chain = Chain(Random(), Filter(latency <= 1.0))
        return Search(SPACE, chain, score, log=tmp_path / "run.db", progress=False)

    search(FakeDevice()).run(trials=10)
    device = FakeDevice()
    result = search(device).run(trials=10)
    assert device.exported == 0 and len(result.trials) == 10
    assert all(trial.columns["latency_ms"] <= 1.0 for trial in result.trials)


# -- the store ------------------------------------------------------------------------------------------------------


def test_what_was_stored_first_stays(tmp_path: Path) -> None:
    store = MeasurementStore(tmp_path / "m.db")
    store.put("device", "space", {"a": Measured(1.0, 0.1)})
    store.put("device", "space", {"a": Measured(2.0, 0.1), "b": Measured(3.0, 0.1)})
    found = store.get("device", "space", ["a", "b", "c"])
    assert {key: one.latency_ms for key, one in found.items()} == {"a": 1.0, "b": 3.0}
    assert store.get("another", "space", ["a"]) == {} == store.get("device", "another", ["a"])


def test_many_keys(tmp_path: Path) -> None:
    store = MeasurementStore(tmp_path / "m.db")
    keys = [str(number) for number in range(1300)]
    store.put("device", "space", {key: Measured(1.0 + int(key), 0.0) for key in keys})
    assert [one.latency_ms for one in store.get("device", "space", keys).values()] and store.count("device") == 1300
    assert len(store.get("device", "space", keys)) == 1300


@pytest.mark.parametrize(("latency", "spread"), [(0.0, 0.0), (-1.0, 0.0), (float("nan"), 0.0), (1.0, float("inf"))])
def test_no_measurement_without_a_number(latency: float, spread: float) -> None:
    with pytest.raises(ProfilerError, match="a positive number of milliseconds"):
        Measured(latency, spread)


def test_a_later_version_and_another_file_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "later.db"
    with sqlite3.connect(path) as file:
        file.execute("PRAGMA user_version = 99")
    file.close()
    with pytest.raises(ProfilerError, match="has version 99 of measurements"):
        MeasurementStore(path).get("device", "space", ["a"])
    other = tmp_path / "text.db"
    other.write_text("no database, " * 200)
    with pytest.raises(ProfilerError, match="cannot be used as a store"):
        MeasurementStore(other).get("device", "space", ["a"])


def fill(path: str, name: str) -> None:
    store = MeasurementStore(path)
    for number in range(100):
        store.put("device", "space", {str(number): Measured(1.0 if name == "one" else 2.0, 0.0)})


def test_two_processes_agree(tmp_path: Path) -> None:
    path, context = str(tmp_path / "m.db"), multiprocessing.get_context("spawn")
    processes = [context.Process(target=fill, args=(path, name)) for name in ("one", "two")]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
        assert process.exitcode == 0
    assert MeasurementStore(path).count() == 100


WRITER = """
import sys
from nasmw.profilers import Measured, MeasurementStore
store, number = MeasurementStore(sys.argv[1]), 0
while True:
    store.put("device", "space", {f"{number}.{part}": Measured(1.0, 0.0) for part in range(20)})
    number += 1
    print(number, flush=True)
"""


def test_a_killed_process_leaves_whole_measurements(tmp_path: Path) -> None:
    path = tmp_path / "m.db"
    process = subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE)
    assert process.stdout is not None
    for _ in range(5):
        process.stdout.readline()
    time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    said = [int(line) for line in process.stdout.read().split()]
    process.wait()
    process.stdout.close()
    store = MeasurementStore(path)
    assert store.count() % 20 == 0 and store.count() >= 20 * max(said, default=5)
    store.put("device", "space", {"after": Measured(1.0, 0.0)})


# -- data sets ------------------------------------------------------------------------------------------------------


def dataset(path: Path, device: FakeDevice, n: int = 30, sampler: Any = "random", **options: Any) -> MeasuredDataset:
    options = {"rounds": 1, "runs": 2, "store": path.with_suffix(".db"), "progress": False, **options}
    return create_dataset(SPACE, device, n, sampler, path, example_input=IMAGE, **options)


def test_a_dataset_holds_what_was_measured(tmp_path: Path) -> None:
    dataset(tmp_path / "d.npz", FakeDevice())
    data = MeasuredDataset.load(tmp_path / "d.npz")
    candidates = data.candidates(SPACE)
    assert len(data) == 30 == len(set(candidates.row_keys()))
    expected = [fake_latency(SPACE.build(architecture), IMAGE) for architecture in candidates]
    assert data.latency_ms == pytest.approx(expected)
    assert candidates.columns["latency_ms"].tolist() == data.latency_ms.tolist()
    assert data.about["device"] == FakeDevice().key and data.about["sampler"] == "random"
    assert data.about["environment"]["protocol"]["rounds"] == 1
    assert [choice["name"] for choice in data.choices] == list(SPACE.names)
    with pytest.raises(ProfilerError, match="is about a space with the fingerprint"):
        data.candidates(Space([Choice("a", (1, 2))]))


def test_a_dataset_goes_on_where_it_was_interrupted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(DeviceError):
        dataset(tmp_path / "d.npz", FakeDevice(fails_after=25))
    assert not (tmp_path / "d.npz").exists()
    device = FakeDevice()
    data = dataset(tmp_path / "d.npz", device, progress=True)
    said = capsys.readouterr().out
    assert "30 networks of toy on fake-fp32: 16 are measured already." in said and "for the rest" in said
    assert device.exported < 30
    whole = dataset(tmp_path / "whole.npz", FakeDevice())
    assert data.latency_ms.tolist() == whole.latency_ms.tolist() and np.array_equal(data.codes, whole.codes)


def test_a_stratified_dataset_is_spread_over_the_macs(tmp_path: Path) -> None:
    even = dataset(tmp_path / "e.npz", FakeDevice(), 40, "stratified by MACs").latency_ms
    uniform = dataset(tmp_path / "u.npz", FakeDevice(), 40).latency_ms
    edges = np.linspace(even.min(), even.max(), 6)
    assert np.histogram(even, edges)[0].min() > np.histogram(uniform, edges)[0].min()
    assert len(set(even.tolist())) > 30


def test_refusals_of_datasets(tmp_path: Path) -> None:
    with pytest.raises(ProfilerError, match="a sampler is one of"):
        dataset(tmp_path / "d.npz", FakeDevice(), sampler="rand")
    with pytest.raises(ProfilerError, match="there is no folder"):
        dataset(tmp_path / "no" / "d.npz", FakeDevice())
    with pytest.raises(ProfilerError, match="into a store"):
        dataset(tmp_path / "d.npz", FakeDevice(), store=False)
    with pytest.raises(ProfilerError, match="a positive number"):
        dataset(tmp_path / "d.npz", FakeDevice(), 0)
    np.savez(tmp_path / "other.npz", a=np.zeros(1))
    with pytest.raises(ProfilerError, match="lacks the arrays"):
        MeasuredDataset.load(tmp_path / "other.npz")
    header = json.dumps({})
    np.savez(
        tmp_path / "l.npz", format=9, header=header, codes=np.zeros(1), latency_ms=np.zeros(1), spread_ms=np.zeros(1)
    )
    with pytest.raises(ProfilerError, match="has format 9"):
        MeasuredDataset.load(tmp_path / "l.npz")
