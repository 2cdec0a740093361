"""The protocol: what is visited, what counts as disturbed and is visited again, and what comes out."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import spearmanr
from scripted import Clock, ClockDevice, ScriptedDevice, script
from torch import nn

from nasmw.devices import Artifact, Measurements, measure, noise_report, rank_agreement, sensible_weights
from nasmw.devices.measurements import quantiles
from nasmw.devices.measuring import ANCHOR
from nasmw.errors import DeviceError
from nasmw.spaces import nasbench201

NETWORKS = ("a", "b", "c", "d", "e", "f")
TRUE = {network: 1.0 + number for number, network in enumerate(NETWORKS)} | {ANCHOR: 0.5}


def steady(device: str, network: str, visit: int) -> tuple[float, float]:
    return TRUE[network] * (2.0 if device == "slow" else 1.0), TRUE[network]


def quiet(device: str, network: str, visit: int) -> tuple[float, float]:
    wall, _ = steady(device, network, visit)
    return wall, wall


def run(
    clock: Clock, devices: tuple[str, ...] = ("fast", "slow"), **arguments: Any
) -> tuple[Measurements, list[tuple[str, str]]]:
    calls: list[tuple[str, str]] = []
    made = [ClockDevice(clock, calls, name=name) for name in devices]
    artifacts = {network: {name: script("pass") for name in devices} for network in NETWORKS}
    return measure(artifacts, made, progress=False, **arguments), calls


def visits(calls: list[tuple[str, str]]) -> list[tuple[str, str]]:
    return [call for call in calls if call[1] != ANCHOR]


# -- a quiet machine ----------------------------------------------------------------------------------------------


def test_quiet_machine_needs_no_repetition() -> None:
    found, calls = run(quiet, rounds=4)
    assert Counter(visits(calls)) == {(device, network): 4 for device in ("fast", "slow") for network in NETWORKS}
    assert found.accepted.all()
    assert not found.rejected.any()
    assert not found.unsettled.any()
    assert found.latency("slow") == {network: 2 * TRUE[network] for network in NETWORKS}
    np.testing.assert_array_equal(found.spread_ms, 0.0)
    np.testing.assert_array_equal(found.reference_ms, [0.5, 0.5])


def test_each_round_visits_everything_once_with_devices_interleaved() -> None:
    _, calls = run(quiet, rounds=5)
    seen = visits(calls)
    rounds = [seen[begin : begin + 12] for begin in range(0, 60, 12)]
    for one in rounds:
        assert len(set(one)) == 12
        assert all(one[place][1] == one[place + 1][1] for place in range(0, 12, 2)), (
            "both devices of a network in a row"
        )
    assert len({tuple(one) for one in rounds}) == 5
    assert len({device for device, _ in seen[::2]}) == 2, "either device comes first at times"


def test_order_is_that_of_the_seed() -> None:
    assert run(quiet, seed=1)[1] == run(quiet, seed=1)[1]
    assert run(quiet, seed=1)[1] != run(quiet, seed=2)[1]


@pytest.mark.parametrize(("every", "blocks"), [(1, 12), (5, 3), (8, 2), (100, 1)])
def test_anchor_is_visited_on_the_first_device_around_each_block(every: int, blocks: int) -> None:
    _, calls = run(quiet, rounds=2, anchor_every=every)
    assert [call for call in calls if call[1] == ANCHOR] == [("fast", ANCHOR)] * 2 * (blocks + 1)
    assert calls[0] == calls[-1] == ("fast", ANCHOR)


def test_each_place_has_its_anchor() -> None:
    calls: list[tuple[str, str]] = []
    here = [ClockDevice(quiet, calls, name=name) for name in ("one", "two")]
    there = [ClockDevice(quiet, calls, name=name, host="pi") for name in ("three", "four")]
    artifacts = {"a": {device.name: script("pass") for device in here + there}}
    measure(artifacts, [*here, *there], rounds=1, progress=False)
    assert {device for device, network in calls if network == ANCHOR} == {"one", "three"}


# -- a disturbed one ----------------------------------------------------------------------------------------------


def slow_from(begin: int, end: int) -> Clock:
    """Return a clock that is half as fast again between two visits, the anchor's included."""

    def clock(device: str, network: str, visit: int) -> tuple[float, float]:
        wall, cpu = quiet(device, network, visit)
        factor = 1.5 if begin <= visit < end else 1.0
        return wall * factor, cpu * factor

    return clock


def test_block_between_slow_anchors_is_disturbed_and_visited_again() -> None:
    found, calls = run(slow_from(20, 30), rounds=3, anchor_every=4)
    assert found.latency("fast") == {network: TRUE[network] for network in NETWORKS}
    assert found.rejected.sum() >= 8, "more visits than those that were slow: all of a block"
    assert (found.accepted.sum(axis=2) == 3).all()
    assert len(visits(calls)) == 36 + found.rejected.sum()
    np.testing.assert_array_equal(found.reference_ms, 0.5)


def test_slow_anchor_disturbs_the_blocks_on_both_sides_of_it_alone() -> None:
    def clock(device: str, network: str, visit: int) -> tuple[float, float]:
        wall, _ = quiet(device, network, visit)
        return (wall * (1.5 if visit == 6 else 1.0),) * 2

    found, calls = run(clock, rounds=3, anchor_every=4)
    assert calls[5] == ("fast", ANCHOR)
    assert found.rejected.sum() == 8


def test_anchor_just_within_its_tolerance_disturbs_nothing() -> None:
    def clock(device: str, network: str, visit: int) -> tuple[float, float]:
        return (TRUE[network] * (1.09 if network == ANCHOR and visit > 40 else 1.0),) * 2

    assert run(clock)[0].accepted.all()
    assert not run(clock, anchor_tolerance=1.05)[0].accepted.all()


def test_visit_with_more_time_by_the_clock_than_of_the_processor_is_visited_again() -> None:
    seen: Counter[tuple[str, str]] = Counter()

    def clock(device: str, network: str, visit: int) -> tuple[float, float]:
        seen[device, network] += 1
        preempted = (device, network) == ("slow", "c") and seen[device, network] in (1, 3)
        wall, cpu = quiet(device, network, visit)
        return wall * (4.0 if preempted else 1.0), cpu

    found, calls = run(clock, rounds=3)
    assert found.rejected[1, 2] == found.rejected.sum() == 2
    assert Counter(visits(calls))["slow", "c"] == 5
    assert found.latency("slow")["c"] == 2 * TRUE["c"]


def test_gpu_is_not_asked_for_processor_time() -> None:
    calls: list[tuple[str, str]] = []
    device = ClockDevice(lambda *_: (1.0, 0.1), calls, name="gpu")
    device.on_cpu = False
    found = measure({"a": {"gpu": script("pass")}}, [device], progress=False)
    assert found.accepted.all()


def test_repetition_is_bounded_and_what_stays_disturbed_is_said(caplog: pytest.LogCaptureFixture) -> None:
    def clock(device: str, network: str, visit: int) -> tuple[float, float]:
        wall, cpu = quiet(device, network, visit)
        return wall * (2.0 if network == "b" else 1.0), cpu

    with caplog.at_level(logging.WARNING):
        found, calls = run(clock, rounds=3, repeats=2)
    assert Counter(visits(calls))["fast", "b"] == 5
    assert Counter(visits(calls))["fast", "a"] == 3
    np.testing.assert_array_equal(found.unsettled, [[network == "b" for network in NETWORKS]] * 2)
    assert found.latency("fast")["b"] == 2 * TRUE["b"]
    assert "2 of 12 latencies come from disturbed visits alone" in caplog.text


def test_earlier_reference_finds_a_run_that_is_slow_throughout() -> None:
    slow = slow_from(0, 10_000)
    assert run(slow, rounds=2, repeats=0)[0].accepted.all()
    assert not run(slow, rounds=2, repeats=0, reference={"fast": 0.5})[0].accepted.any()


@given(noise=st.floats(0.0, 0.04), quantile=st.floats(0.0, 0.5))
def test_latency_is_within_the_noise_and_never_below(noise: float, quantile: float) -> None:
    rng = np.random.default_rng(0)

    def clock(device: str, network: str, visit: int) -> tuple[float, float]:
        return (TRUE[network] * (1.0 + noise * rng.random()),) * 2

    found, _ = run(clock, quantile=quantile)
    ratio = found.latency_ms / [TRUE[network] for network in NETWORKS]
    assert (ratio >= 1.0).all()
    assert (ratio <= 1.0 + noise + 1e-9).all()


# -- what is refused ----------------------------------------------------------------------------------------------


def test_failure_names_the_network_and_gives_no_number() -> None:
    artifacts = {"good": {"scripted-fp32": script("pass")}, "bad": {"scripted-fp32": script("os.kill(os.getpid(), 9)")}}
    with pytest.raises(DeviceError, match=r"^bad: .*was ended by signal 9"):
        measure(artifacts, [ScriptedDevice()], progress=False)


def test_open_session_is_used_and_left_open() -> None:
    with ScriptedDevice().open() as session:
        artifacts = {"a": {"scripted-fp32": script("sum(range(1000))")}}
        measure(artifacts, [session], rounds=1, repeats=0, progress=False)
        process = session._process
        assert process is not None
        measure({"a": script("pass")}, [session], rounds=1, repeats=0, progress=False)
        assert session._process is process
        with pytest.raises(KeyError):
            session.measure("a")


@pytest.mark.parametrize(
    ("artifacts", "names", "message"),
    [
        ({"a": {"one": script("pass")}}, ["one", "two"], "network 'a' was not exported for two"),
        ({"a": {"one": script("pass")}}, ["one", "one"], "two devices have the same name"),
        ({}, ["one"], "at least one network"),
        ({"a": {}}, [], "at least one network and one device"),
    ],
)
def test_what_cannot_be_measured_is_refused_first(
    artifacts: Mapping[str, Mapping[str, Artifact]], names: list[str], message: str
) -> None:
    calls: list[tuple[str, str]] = []
    with pytest.raises(DeviceError, match=message):
        measure(artifacts, [ClockDevice(quiet, calls, name=name) for name in names], progress=False)
    assert not calls


@pytest.mark.parametrize(
    ("number", "message"),
    [
        ({"rounds": 0}, "rounds as a whole number of at least 1"),
        ({"repeats": -1}, "repeats as a whole number"),
        ({"quantile": 0.9}, "low quantile"),
        ({"anchor_tolerance": 0.9}, "anchor_tolerance of at least 1"),
        ({"anchor_every": 2.5}, "anchor_every as a whole number"),
    ],
)
def test_numbers_of_the_protocol_are_checked(number: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        run(quiet, **number)


# -- files --------------------------------------------------------------------------------------------------------


def test_file_gives_back_what_was_saved(tmp_path: Path) -> None:
    found, _ = run(slow_from(20, 30), rounds=3)
    path = tmp_path / "found.npz"
    found.save(path, codes=np.arange(3))
    again = Measurements.load(path)
    assert (again.names, again.devices, again.environment) == (found.names, found.devices, found.environment)
    for field in ("wall_ms", "cpu_ms", "anchor_ms", "latency_ms", "spread_ms", "accepted"):
        np.testing.assert_array_equal(getattr(again, field), getattr(found, field))
    with np.load(path) as file:
        np.testing.assert_array_equal(file["codes"], np.arange(3))
        np.testing.assert_array_equal(file["latency_ms"], found.latency_ms)
    assert [file.name for file in tmp_path.iterdir()] == ["found.npz"]


def test_array_of_a_name_that_is_taken_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="arrays called wall_ms already"):
        run(quiet)[0].save(tmp_path / "found.npz", wall_ms=1)


def test_other_file_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "other.npz", a=1)
    with pytest.raises(DeviceError, match="holds no measurements"):
        Measurements.load(tmp_path / "other.npz")


def test_joined_parts_share_the_lowest_reference() -> None:
    def part(clock: Clock, name: str) -> Measurements:
        device = ClockDevice(clock, [], name="one")
        return measure({name: {"one": script("pass")}}, [device], rounds=2, repeats=0, progress=False)

    def clock(device: str, network: str, visit: int) -> tuple[float, float]:
        return 1.0, 1.0

    def slower(device: str, network: str, visit: int) -> tuple[float, float]:
        return 2.0, 2.0

    fast, slow = part(clock, "a"), part(slower, "b")
    assert slow.accepted.all()
    joined = Measurements.join([fast, slow])
    assert joined.names == ("a", "b")
    assert joined.reference_ms.tolist() == [1.0]
    assert joined.unsettled.tolist() == [[False, True]]
    with pytest.raises(DeviceError, match="several of the parts to join: a"):
        Measurements.join([fast, fast])


@given(st.lists(st.lists(st.floats(0, 1) | st.none(), min_size=4, max_size=4), min_size=1, max_size=5), st.floats(0, 1))
def test_quantiles_are_numpys(rows: list[list[float | None]], quantile: float) -> None:
    values = np.array([[1.0 if value is None else value for value in [*row, 0.5]] for row in rows])
    used = np.array([[value is not None for value in [*row, 0.5]] for row in rows])
    wanted = [np.quantile(row[which], quantile) for row, which in zip(values, used, strict=True)]
    np.testing.assert_allclose(quantiles(values, used, quantile), wanted, atol=1e-12)


# -- repeatability ------------------------------------------------------------------------------------------------


def noisy(spread: float, networks: int = 400, rounds: int = 4) -> Measurements:
    """Return measurements of a true value with unit variance among networks and normal noise in each visit."""
    rng = np.random.default_rng(0)
    wall = 10.0 + rng.standard_normal((1, networks, 1)) + spread * rng.standard_normal((1, networks, rounds))
    protocol = {"quantile": 0.5, "anchor_tolerance": 1.1, "wall_tolerance": 1.05}
    ones = np.ones_like(wall)
    names = tuple(map(str, range(networks)))
    return Measurements(names, ("one",), wall, wall, ones, ones, np.ones(1), {"protocol": protocol})


def test_measurements_without_noise_agree_with_themselves() -> None:
    report = noise_report(noisy(0.0))
    assert report["one"].halves == pytest.approx(1.0)
    assert report["one"].whole == pytest.approx(1.0)
    assert report["one"].spread == 0.0


def test_measurements_of_noise_alone_do_not_agree() -> None:
    assert abs(noise_report(noisy(1000.0))["one"].halves) < 0.1


def test_agreement_is_what_the_noise_allows() -> None:
    # The mean of two visits has noise of variance 1/2, so halves correlate by 1 / (1 + 1/2), wholes by 1 / (1 + 1/4);
    # Spearman's coefficient of normal numbers is 6 / pi * arcsin(r / 2).
    row = noise_report(noisy(1.0))["one"]
    assert row.halves == pytest.approx(6 / np.pi * np.arcsin(1 / 3), abs=0.06)
    assert row.whole == pytest.approx(6 / np.pi * np.arcsin(0.4), abs=0.06)
    assert (row.networks, row.visits) == (400, 4)


def test_report_is_a_table() -> None:
    lines = str(noise_report(run(quiet)[0])).splitlines()
    assert lines[0].split() == ["device", "networks", "visits", "disturbed", "unsettled", "spread", "halves", "whole"]
    assert lines[1].split() == ["fast", "6", "5.0", "0.0%", "0", "0.0%", "1.000", "1.000"]
    assert len(lines) == 3


def test_one_visit_has_no_halves() -> None:
    row = noise_report(run(quiet, rounds=1)[0])["fast"]
    assert row.networks == 0
    assert np.isnan(row.halves) and np.isnan(row.whole)


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=2, max_size=30))
def test_rank_agreement_is_spearmans(pairs: list[tuple[int, int]]) -> None:
    first, second = np.array(pairs).T
    if len(set(first)) == 1 or len(set(second)) == 1:
        assert np.isnan(rank_agreement(first, second))
    else:
        assert rank_agreement(first, second) == pytest.approx(spearmanr(first, second).statistic)


# -- weights ------------------------------------------------------------------------------------------------------


def activations(model: nn.Module) -> list[float]:
    """Return the largest activation of each convolution and batch norm on a normal input."""
    found: list[float] = []
    for module in model.modules():
        if isinstance(module, (nn.Conv2d, nn.BatchNorm2d)):
            module.register_forward_hook(lambda module, args, output: found.append(float(output.abs().max())))
    with torch.no_grad():
        model(torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(5)))
    return found


def test_activations_keep_an_ordinary_size() -> None:
    space, example = nasbench201(), torch.zeros(1, 3, 32, 32)
    for architecture in space.sample(5, np.random.default_rng(0)):
        sizes = activations(sensible_weights(space.build(dict(architecture)), example))
        assert max(sizes) < 1e3
        assert min(size for size in sizes if size) > 1e-3


def test_weights_are_those_of_the_seed_and_leave_the_random_state() -> None:
    state = torch.get_rng_state()
    example = torch.zeros(1, 3, 8, 8)

    def made(seed: int) -> dict[str, torch.Tensor]:
        with torch.random.fork_rng():
            model = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.Dropout())
        assert not sensible_weights(model, example, seed=seed).training
        assert model[1].momentum == 0.1
        return model.state_dict()

    one, same, other = made(1), made(1), made(2)
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not torch.equal(one["0.weight"], other["0.weight"])
    assert one["1.running_var"].ne(1).all()
    assert torch.equal(state, torch.get_rng_state())
