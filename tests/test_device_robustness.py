"""What measures on devices, where things go wrong: failing networks, killed processes, files of something else."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import pytest
import torch
from torch import nn

from nasmw import Chain, Choice, Filter, Search, Space, Verify
from nasmw.context import Context
from nasmw.errors import DeviceError, ProfilerError, SpaceError
from nasmw.profilers import (
    DeviceProfiler,
    LatencyTable,
    LookupTableProfiler,
    MeasuredDataset,
    MeasurementStore,
    build_latency_table,
    create_dataset,
)
from nasmw.profilers.device_meter import Meter
from nasmw.profilers.lookup_samples import draw
from nasmw.strategies import Grid, Random
from nasmw.testing import FakeDevice, TableProfiler, fake_latency, toy_space

SPACE = toy_space()
IMAGE = torch.zeros(1, 3, 8, 8)
QUICK: dict[str, Any] = {"rounds": 1, "runs": 2}


def dataset(path: Path, device: FakeDevice | None = None, n: int = 30, **options: Any) -> MeasuredDataset:
    options = {"store": path.with_suffix(".db"), "progress": False, "example_input": IMAGE, **QUICK, **options}
    return create_dataset(options.pop("space", SPACE), device or FakeDevice(), n, "random", path, **options)


def fails_on(width: int) -> Any:
    def latency(model: Any, example: torch.Tensor) -> float:
        if model[0].out_channels == width:
            raise DeviceError("an operator is not supported")
        return fake_latency(model, example)

    return latency


# -- networks that fail -----------------------------------------------------------------------------------------------


def test_a_dataset_leaves_out_what_the_device_fails_on(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "d.npz"
    dataset(path, FakeDevice(fails_on(8)), progress=True)
    data = MeasuredDataset.load(path)
    whole = dataset(tmp_path / "whole.npz")
    left_out = [architecture["width"] == 8 for architecture in whole.candidates(SPACE)]
    assert 0 < sum(left_out) == len(data.about["failed"])
    assert np.array_equal(data.codes, whole.codes[np.logical_not(left_out)])
    assert data.latency_ms.tolist() == whole.latency_ms[np.logical_not(left_out)].tolist()
    assert all(one["architecture"]["width"] == 8 and "is not supp" in one["reason"] for one in data.about["failed"])
    assert "of 30 networks, which are left out; the first: the network of {'width': 8" in caplog.text
    device = FakeDevice()
    assert len(dataset(path, device)) == 30 and device.exported <= sum(left_out) + 1, "they are tried again, alone"


def test_a_device_that_always_fails_makes_no_dataset(tmp_path: Path) -> None:
    device = FakeDevice(fails_after=0)
    with pytest.raises(DeviceError, match="the network of {'width'.*fails after 0 requests"):
        dataset(tmp_path / "d.npz", device)
    assert device.exported < 30 and not (tmp_path / "d.npz").exists()
    few = FakeDevice(fails_after=0)
    with pytest.raises(DeviceError, match="fails on all 3 networks"):
        dataset(tmp_path / "e.npz", few, 3)


def test_what_was_measured_before_a_failure_is_kept_and_the_error_names_the_network(tmp_path: Path) -> None:
    pool = [{"width": width, "depth": 1, "block0.op": "pool"} for width in (4, 16, 8, 12)]
    profiler = DeviceProfiler(SPACE, FakeDevice(fails_on(8)), IMAGE, store=tmp_path / "m.db", **QUICK)
    with pytest.raises(DeviceError, match="^the network of {'width': 8, .*: an operator is not supported"):
        profiler.profile_batch(SPACE.candidates(pool))
    assert MeasurementStore(tmp_path / "m.db").count() == 2


def test_a_failure_while_measuring_names_the_network() -> None:
    profiler = DeviceProfiler(SPACE, FakeDevice(fails_after=1), IMAGE, store=False, **QUICK)
    with pytest.raises(
        DeviceError, match=r"^the network of {'width': 8, 'depth': 1, 'block0.op': 'pool'}: <FakeDevice"
    ):
        profiler.profile({"width": 8, "depth": 1, "block0.op": "pool"})


@pytest.mark.parametrize("latency", [0.0, -1.0])
def test_no_time_is_a_failure_of_the_device(latency: float) -> None:
    profiler = DeviceProfiler(SPACE, FakeDevice(lambda model, example: latency), IMAGE, store=False, **QUICK)
    with pytest.raises(DeviceError, match=rf"the network of .* says that it takes {latency} ms"):
        profiler.profile({"width": 8, "depth": 1, "block0.op": "pool"})


def test_a_network_that_does_not_run_is_a_device_error() -> None:
    space = Space([Choice("inputs", (3, 5))], lambda architecture: nn.Conv2d(architecture["inputs"], 4, 3))
    with pytest.raises(DeviceError, match="the network of {'inputs': 5}: Conv2d cannot be exported"):
        DeviceProfiler(space, FakeDevice(), IMAGE, store=False, **QUICK).profile({"inputs": 5})


# -- files and stores -------------------------------------------------------------------------------------------------


def test_a_store_that_cannot_be_written_is_found_before_measuring(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    for path in (tmp_path / "file" / "m.db", tmp_path):
        device = FakeDevice()
        profiler = DeviceProfiler(SPACE, device, IMAGE, store=path, **QUICK)
        with pytest.raises(ProfilerError, match="cannot be used as a store of measurements"):
            profiler.profile({"width": 8, "depth": 1, "block0.op": "pool"})
        assert device.exported == 0


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_a_store_without_the_right_to_write_serves_what_it_has(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "m.db"
    path.parent.mkdir()
    known, other = ({"width": width, "depth": 1, "block0.op": "pool"} for width in (8, 12))
    DeviceProfiler(SPACE, FakeDevice(), IMAGE, store=path, **QUICK).profile(known)
    path.chmod(0o444)
    path.parent.chmod(0o555)
    try:
        profiler = DeviceProfiler(SPACE, FakeDevice(), IMAGE, store=path, **QUICK)
        assert profiler.profile(known) > 0
        with pytest.raises(ProfilerError, match="cannot be used as a store"):
            profiler.profile(other)
        with pytest.raises(ProfilerError, match="cannot be written to"):
            dataset(path.parent / "d.npz", store=tmp_path / "other.db")
    finally:
        path.parent.chmod(0o755)


def test_a_cut_store_is_refused(tmp_path: Path) -> None:
    dataset(tmp_path / "d.npz", n=120)
    content = (tmp_path / "d.db").read_bytes()
    (tmp_path / "cut.db").write_bytes(content[: len(content) // 2])
    device = FakeDevice()
    with pytest.raises(ProfilerError, match="cannot be used as a store"):
        dataset(tmp_path / "e.npz", device, n=120, store=tmp_path / "cut.db")
    assert device.measured == 0


@pytest.mark.parametrize("store", [None, 1, b"m.db"])
def test_what_is_no_store_is_refused(store: Any) -> None:
    with pytest.raises(TypeError, match="takes a path, a MeasurementStore, True or False"):
        Meter(SPACE, FakeDevice(), IMAGE, store=store)


def test_only_a_dataset_of_the_same_kind_is_written_over(tmp_path: Path) -> None:
    path, device = tmp_path / "d.npz", FakeDevice()
    dataset(path, n=5)
    assert len(dataset(path, n=np.int64(6))) == 6  # type: ignore[arg-type]
    again = dataset(path, n=np.int64(6))  # type: ignore[arg-type]
    assert again.about["environment"]["protocol"]["rounds"] == 1, "known though nothing was measured"
    before = path.read_bytes()
    other = Space(SPACE.choices[:1], lambda architecture: nn.Conv2d(3, architecture["width"], 3), name="other")
    for wrong, options in (
        ("space", {"space": other}),
        ("device", {"device": FakeDevice(version="2")}),
        ("input", {"example_input": torch.zeros(2, 3, 8, 8)}),
        ("protocol", {"rounds": 2}),
    ):
        with pytest.raises(ProfilerError, match=f"another {wrong} than what is to be measured; name another file"):
            dataset(path, **{"device": device, **options})
    assert path.read_bytes() == before
    path.write_bytes(before[:200])
    with pytest.raises(ProfilerError, match="is no data set of measured networks: .*; name another file to write to"):
        dataset(path, device)
    (tmp_path / "folder").mkdir()
    with pytest.raises(ProfilerError, match="is a folder; name a file"):
        dataset(tmp_path / "folder", device)
    assert device.measured == 0


def test_cut_and_other_files_are_no_data(tmp_path: Path) -> None:
    table = LatencyTable("a phone", {"Conv on 3x3": 1.0})
    table.save(tmp_path / "t.npz")
    dataset(tmp_path / "d.npz", n=5)
    np.save(tmp_path / "array.npy", np.zeros(3))
    for file in ("t.npz", "d.npz", "array.npy"):
        content = (tmp_path / file).read_bytes()
        for end in (0, 10, len(content) // 2, len(content) - 3) if file != "array.npy" else (len(content),):
            (tmp_path / "cut.npz").write_bytes(content[:end])
            with pytest.raises(ProfilerError, match="is no nasmw latency table: it is no npz file, or not all of one"):
                LatencyTable.load(tmp_path / "cut.npz")
            with pytest.raises(ProfilerError, match="is no data set of measured networks: it is no npz file, or not"):
                MeasuredDataset.load(tmp_path / "cut.npz")
    with pytest.raises(ProfilerError, match="lacks the arrays"):
        MeasuredDataset.load(tmp_path / "t.npz")


def test_arguments_that_cannot_be_measured() -> None:
    with pytest.raises(ProfilerError, match="made without a space"):
        create_dataset(None, FakeDevice(), 3, "random", "d.npz", example_input=IMAGE)  # type: ignore[arg-type]
    with pytest.raises(ProfilerError, match="made without a space"):
        build_latency_table(None, FakeDevice(), IMAGE, store=False)  # type: ignore[arg-type]
    with pytest.raises(ProfilerError, match="at least one element"):
        Meter(SPACE, FakeDevice(), torch.zeros(0, 3, 8, 8))


SLOW = """
import sys, time
from pathlib import Path
import torch
from nasmw.profilers import create_dataset
from nasmw.testing import FakeDevice, fake_latency, toy_space

class Counting(FakeDevice):
    def export(self, model, example):
        with open(sys.argv[2], "a") as file:
            file.write("x")
        time.sleep(float(sys.argv[3]))
        return super().export(model, example)

create_dataset(
    toy_space(), Counting(), 60, "random", sys.argv[1], example_input=torch.zeros(1, 3, 8, 8),
    store=sys.argv[1] + ".db", rounds=1, runs=2, progress=False,
)
"""


def test_a_killed_dataset_goes_on_and_measures_nothing_twice(tmp_path: Path) -> None:
    path, marks = tmp_path / "d.npz", tmp_path / "exported"
    store = MeasurementStore(f"{path}.db")
    process = subprocess.Popen([sys.executable, "-c", SLOW, str(path), str(marks), "0.02"])
    try:
        deadline = time.monotonic() + 120
        while store.count() < 16 and time.monotonic() < deadline:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    finally:
        process.wait()
    kept = store.count()
    assert kept >= 16 and kept % 16 == 0 and not path.exists()
    marks.unlink()
    device = FakeDevice()
    data = dataset(path, device, 60, store=store)
    assert device.exported == 60 - kept + 1, "what was not kept, and the anchor"
    assert data.latency_ms.tolist() == dataset(tmp_path / "whole.npz", n=60).latency_ms.tolist()
    assert [file.name for file in tmp_path.glob("*.part")] == []


# -- tables -----------------------------------------------------------------------------------------------------------


def build_sized(architecture: dict[str, Any]) -> nn.Module:
    width = architecture["width"]
    return nn.Sequential(nn.Conv2d(3, width, 3, padding=1), nn.Conv2d(width, 8, 3, padding=1))


def test_a_resolution_of_another_name_is_in_the_table_and_the_sample() -> None:
    space = Space([Choice("size", (8, 16, 32)), Choice("width", (4, 8, 12, 16))], build_sized)
    options: dict[str, Any] = {"resolution": "size", "store": False, **QUICK}
    table = build_latency_table(space, FakeDevice(), IMAGE, networks=10, progress=False, **options)
    everything = space.at(range(space.size))
    measured = DeviceProfiler(space, FakeDevice(), IMAGE, **options).profile_batch(everything)
    assert LookupTableProfiler(space, table).profile_batch(everything) == pytest.approx(measured, rel=1e-6)
    sample = draw(space, 3, "stratified by MACs", IMAGE, np.random.default_rng(0), resolution="size")
    assert len({architecture["size"] for architecture in sample}) > 1


def test_a_choice_called_resolution_may_mean_something_else() -> None:
    space = Space([Choice("resolution", (8, 16, 32)), Choice("width", (4, 8, 12, 16))], build_sized)
    options: dict[str, Any] = {"resolution": None, "store": False, **QUICK}
    table = build_latency_table(space, FakeDevice(), IMAGE, networks=10, progress=False, **options)
    assert table.relative_error is not None and table.relative_error < 1e-6


def test_a_space_whose_multiply_adds_never_change_has_no_table() -> None:
    space = Space([Choice("kernel", (1, 3, 5)), Choice("stride", (1, 2))], lambda architecture: nn.AvgPool2d(2))
    with pytest.raises(ProfilerError, match="have the same multiply-adds.*DeviceProfiler"):
        build_latency_table(space, FakeDevice(), IMAGE, networks=5, store=False, progress=False, **QUICK)


# -- searches ---------------------------------------------------------------------------------------------------------


def test_verify_refuses_another_unit() -> None:
    predicted = TableProfiler(SPACE, "predicted", "ms", std=1.0)
    with pytest.raises(ProfilerError, match="predicted is in 'ms', and what is measured in 's'"):
        Verify(predicted <= 20.0, TableProfiler(SPACE, "measured", "s"))


class Off(TableProfiler):
    """Measures what a table says, times a factor."""

    def __init__(self, latency: LookupTableProfiler, factor: float) -> None:
        super().__init__(SPACE, "measured", "ms")
        self.latency = latency
        self.factor = factor

    def _profile(self, architecture: Any) -> float:
        return self.factor * self.latency.profile(architecture)

    def _profile_batch(self, candidates: Any) -> Any:
        return self.factor * self.latency.profile_batch(candidates)


@pytest.mark.parametrize("pushdown", [True, False])
def test_margins_and_verify_agree_with_enumeration(pushdown: bool) -> None:
    table = build_latency_table(SPACE, FakeDevice(), IMAGE, networks=40, store=False, progress=False, **QUICK)
    latency = LookupTableProfiler(SPACE, attrs.evolve(table, relative_error=0.05))
    everything = SPACE.at(range(SPACE.size))
    values, std = latency.profile_batch(everything), latency.std(everything)
    assert std is not None
    limit = float(np.median(values))

    def passed(stage: Any) -> set[bytes]:
        found: set[bytes] = set()
        chain = Chain(Grid(), stage)
        chain.setup(Context(SPACE))
        while len(batch := chain.ask(500)):
            found |= {codes.tobytes() for codes in batch.codes}
        return found

    def rows(mask: Any) -> set[bytes]:
        return {codes.tobytes() for codes in everything.codes[mask]}

    assert passed(Filter(latency <= limit, margin=2.0, pushdown=pushdown)) == rows(values + 2.0 * std <= limit)
    assert passed(Filter(latency >= limit, margin=2.0, pushdown=pushdown)) == rows(values - 2.0 * std >= limit)
    for factor in (0.95, 1.0, 1.05):
        measured = Off(latency, factor)
        assert passed(Verify(latency <= limit, measured, pushdown=pushdown)) == rows(factor * values <= limit)
        assert passed(Verify(latency >= limit, measured, pushdown=pushdown)) == rows(factor * values >= limit)


def test_remeasuring_checks_its_arguments_and_names_the_trial() -> None:
    result = Search(SPACE, Random(), lambda trial: float(trial.number), progress=False).run(trials=12)
    options: dict[str, Any] = {"example_input": IMAGE, "progress": False, **QUICK}
    assert len(result.remeasure(FakeDevice(), top=20, **options)) == 12
    with pytest.raises(TypeError, match="a device is one of nasmw.devices"):
        result.remeasure(FakeDevice, **options)  # type: ignore[arg-type]
    with pytest.raises(SpaceError, match="has no choice 'size'"):
        result.remeasure(FakeDevice(), resolution="size", **options)
    with pytest.raises(TypeError, match="an example input"):
        result.remeasure(FakeDevice(), **{**options, "example_input": None})
    width = result.best.architecture["width"]
    with pytest.raises(DeviceError, match="the network of trial 11: an operator is not supported"):
        result.remeasure(FakeDevice(fails_on(width)), **options)
