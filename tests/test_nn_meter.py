"""NnMeterProfiler: kernels, forests, calibration on a device whose kernel times are known, files and refusals."""

from __future__ import annotations

import importlib.util
import json
import os
import pickle
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from nasmw import Choice, FeasibleSet, Space, spaces
from nasmw.devices import Artifact, Device, Sample
from nasmw.errors import DeviceError, MissingExtraError, ProfilerError
from nasmw.profilers import NnMeterPredictor, NnMeterProfiler, build_nn_meter
from nasmw.profilers.nn_meter_build import BLOCKS, calibrated, kernel_network
from nasmw.profilers.nn_meter_forest import Forest
from nasmw.profilers.nn_meter_kernels import FOLDED, Kernel, kernels_of
from nasmw.profilers.nn_meter_package import package
from nasmw.profilers.nn_meter_space import Networks, parts_of
from nasmw.spaces.family import Part
from nasmw.spaces.layers import Conv, GlobalPool, InvertedResidual, Linear, Placed
from nasmw.testing import ProfilerContract, toy_space

if importlib.util.find_spec("nn_meter") is None:
    pytest.skip("needs the extra nn-meter", allow_module_level=True)

IMAGE = (16, 16)
OVERHEAD = 0.125
SURCHARGE = {"conv-bn-relu": 1.5, "dwconv-bn-relu": 2.0, "add": 1.25}
"""What a kernel takes by itself on the device of these tests, as a multiple of what it takes in a network."""


def milliseconds(kernel: Kernel) -> float:
    """What a kernel takes in a network on the device of these tests."""
    weight = {"conv-bn-relu": 3.0, "dwconv-bn-relu": 5.0, "hswish": 2.0, "add": 1.0, "global-avgpool": 0.5}
    return weight.get(kernel.predictor, 1.0) * (1.0 + sum(kernel.features[:5])) / 100.0


class KnownSession:
    """Answers what its device's artifacts say, without a process."""

    def __init__(self) -> None:
        self.prepared: dict[str, float] = {}

    def __enter__(self) -> KnownSession:
        return self

    def __exit__(self, *exc: object) -> None:
        pass

    def describe(self) -> dict[str, Any]:
        return {"runtime": "known", "version": "1", "precision": "fp32", "threads": 1, "cpu": "none"}

    def prepare(self, key: str, artifact: Artifact) -> float:
        self.prepared[key] = json.loads(artifact.files["ms"])
        return 0.0

    def measure(self, key: str, runs: int = 10, warmup: int = 3) -> Sample:
        times = np.full(runs, self.prepared[key])
        return Sample(times, times)

    def forget(self, key: str) -> None:
        self.prepared.pop(key, None)

    def __contains__(self, key: object) -> bool:
        return key in self.prepared


class Known(Device):
    """A device on which each kernel takes a known time."""

    runtime = "known"
    extra = "none"
    far = "none"

    def __init__(self) -> None:
        super().__init__()
        self.exported: list[list[Kernel]] = []

    @property
    def variant(self) -> str:
        return "fp32"

    def export(self, model: nn.Module, example: torch.Tensor) -> Artifact:
        kernels = [] if example.numel() == 1 else kernels_of(model, example)
        self.exported.append(kernels)
        alone = len(kernels) == 1
        taken = sum(milliseconds(one) * (SURCHARGE.get(one.predictor, 1.0) if alone else 1.0) for one in kernels)
        return Artifact({"ms": json.dumps(OVERHEAD + taken).encode()}, (tuple(example.shape),))

    def open(self) -> Any:
        return KnownSession()


class Blocks:
    """A small described space: a stem, up to three inverted residual blocks, a head."""

    stem = Conv(3, 8, 3, activation="h_swish")

    def choices(self) -> list[Choice]:
        found = [Choice("depth", (1, 2, 3))]
        for number in range(3):
            deeper = tuple(depth for depth in (1, 2, 3) if depth > number)
            when = {"depth": deeper} if number else {}
            found += [
                Choice(f"block{number}.kernel", (3, 5), when),
                Choice(f"block{number}.expand", (2, 4), when),
            ]
        return found

    def block(self, number: int, kernel: int, expand: int) -> InvertedResidual:
        inputs, outputs = (8, 16) if not number else (16, 16)
        return InvertedResidual(inputs, outputs, inputs * expand, kernel, 1 if number else 2, "h_swish")

    def build(self, architecture: dict[str, Any]) -> nn.Module:
        blocks = [
            self.block(number, architecture[f"block{number}.kernel"], architecture[f"block{number}.expand"]).module()
            for number in range(architecture["depth"])
        ]
        return nn.Sequential(
            self.stem.module(), *blocks, GlobalPool(16).module(), nn.Flatten(), Linear(16, 10).module()
        )

    def ends(self) -> list[Placed]:
        ends = [(self.stem, IMAGE), (GlobalPool(16), (8, 8)), (Linear(16, 10), 1)]
        return [Placed(layer, at, IMAGE) for layer, at in ends]

    def layers(self, number: int, depth: int, *chosen: int) -> list[Placed]:
        return [Placed(self.block(number, *chosen), (8, 8) if number else IMAGE, IMAGE)] if depth > number else []

    def parts(self) -> list[Part]:
        scopes = [("depth", f"block{number}.kernel", f"block{number}.expand") for number in range(3)]
        blocks = [Part.of(scope, partial(self.layers, number)) for number, scope in enumerate(scopes)]
        return [Part.of((), self.ends), *blocks]

    def space(self) -> Space:
        return Space(self.choices(), build=self.build, name="blocks", parts=self.parts)


def stub(value: float) -> Forest:
    """Return a forest of one tree that asks for the second feature."""
    return Forest(
        np.array([0]),
        np.array([1, 0, 0]),
        np.array([8.0, 0.0, 0.0]),
        np.array([1, 1, 2]),
        np.array([2, 1, 2]),
        np.array([0.0, value, 2.0 * value]),
    )


def predictor(**changes: Any) -> NnMeterPredictor:
    forests = {name: stub(1.0 + number) for number, name in enumerate(BLOCKS)}
    given: dict[str, Any] = {"device": "a phone", "overhead_ms": 0.5, "relative_error": 0.1}
    return NnMeterPredictor(forests, **(given | changes))


class TestNnMeterProfilerWithoutTable(ProfilerContract):
    samples = 8

    def make(self, space: Space) -> NnMeterProfiler:
        return NnMeterProfiler(space, predictor(), torch.zeros(1, 3, 8, 8))


class TestNnMeterProfilerWithTable(ProfilerContract):
    def make_space(self) -> Space:
        return Blocks().space()

    def make(self, space: Space) -> NnMeterProfiler:
        return NnMeterProfiler(space, predictor(), progress=False)


# -- kernels ------------------------------------------------------------------------------------------------------


def kinds(model: nn.Module, *shape: int) -> Counter[str]:
    return Counter(kernel.op for kernel in kernels_of(model, torch.zeros(shape)))


def test_operators_are_fused_as_the_rules_say() -> None:
    block = InvertedResidual(8, 8, 16, 3, activation="h_swish", squeeze=True).module()
    assert kinds(block, 1, 8, 14, 14) == {"conv-bn": 2, "hswish": 2, "dwconv-bn": 1, "se": 1, "add": 1}
    assert kinds(Conv(8, 8, 3, activation="relu").module(), 1, 8, 14, 14) == {"conv-bn-relu": 1}
    (kernel,) = kernels_of(nn.Conv2d(8, 24, 5, 2, 2), torch.zeros(1, 8, 14, 14))
    assert kernel.predictor == "conv-bn-relu" and kernel.features[:5] == (14, 8, 24, 5, 2)
    assert str(kernel).startswith("conv(14, 8, 24, 5, 2")


def test_every_kind_of_a_single_operator_is_a_kernel() -> None:
    assert kinds(nn.AdaptiveAvgPool2d(1), 1, 8, 14, 14) == {"gap": 1}
    assert kinds(nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()), 1, 8, 14, 14) == {"gap": 1}
    assert kinds(nn.Linear(8, 3), 1, 8) == {"fc": 1}
    assert kinds(nn.MaxPool2d(3, 2, 1), 1, 8, 14, 14) == {"maxpool": 1}
    assert kinds(nn.ChannelShuffle(2), 1, 8, 14, 14) == {"channelshuffle": 1}
    assert kinds(nn.ReLU6(inplace=True), 1, 8, 14, 14) == {"relu": 1}


def test_products_with_constants_are_batch_norms() -> None:
    class Scaled(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * 0.0 + x

    assert kinds(Scaled(), 1, 8, 14, 14) == {"bn": 1, "add": 1}
    assert kinds(Plus(torch.ones(8, 1, 1)), 1, 8, 14, 14) == {"bn": 1}


class Plus(nn.Module):
    """Adds a constant, or the means of its input."""

    def __init__(self, constant: torch.Tensor | None) -> None:
        super().__init__()
        self.constant = constant

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + (nn.functional.adaptive_avg_pool2d(x, 1) if self.constant is None else self.constant)


@pytest.mark.parametrize("kind", BLOCKS)
def test_builder_makes_networks_of_one_kernel(kind: str) -> None:
    features = {"fc": (16, 24), "global-avgpool": (1, 16)}.get(kind, (14, 16, 16, 3, 2))
    model, example = kernel_network(Kernel(kind, kind, tuple(map(float, features)), 14))
    model.eval()
    with torch.no_grad():
        model(example)
    if kind not in ("se", "channelshuffle", "split", "bnrelu", "addrelu"):  # made of what is taken apart otherwise
        (kernel,) = kernels_of(model, example)
        assert kernel.predictor == kind and kernel.features[:2] == features[:2]


@pytest.mark.parametrize(
    ("model", "shape", "message"),
    [
        (nn.Sequential(nn.Conv2d(8, 8, 3, groups=2)), (1, 8, 14, 14), r"conv2d of 2 groups.*count as 0"),
        (nn.Sequential(nn.Conv2d(8, 8, 3, dilation=2)), (1, 8, 14, 14), r"dilated conv2d"),
        (nn.Sequential(nn.Conv2d(8, 8, 3)), (1, 8, 14, 28), r"map of 14x28 .*square maps only"),
        (nn.Conv2d(8, 8, (1, 3)), (1, 8, 14, 14), r"its kernel is .*equal ones only"),
        (nn.Sequential(nn.Linear(8, 8)), (1, 5, 8), r"linear \(nn-Meter knows it on one row only\)"),
        (nn.Sequential(nn.Sigmoid()), (1, 8, 14, 14), r"no kernel for sigmoid in a Sequential"),
        (
            nn.Sequential(nn.Conv2d(8, 8, 1), nn.Hardsigmoid()),
            (1, 8, 14, 14),
            r"no kernels for 'hardsigmoid' \(1 times\)",
        ),
        (nn.AdaptiveAvgPool2d(2), (1, 8, 14, 14), r"global pooling only"),
        (nn.ReLU(), (1, 5, 8), r"an operator on 3 axes \(nn-Meter knows images and rows only\)"),
        (Plus(None), (1, 8, 14, 14), r"add \(of shapes \(1, 8, 14, 14\) and \(1, 8, 1, 1\)\) in a Plus"),
        (Plus(torch.ones(1, 8, 14, 14)), (1, 8, 14, 14), r"add \(of a map and a constant map\)"),
        (nn.Linear(8, 8), (4, 8), r"one input and a batch of 1, got an example of shape \(4, 8\)"),
        (
            nn.Linear(8, 8),
            (1, 9),
            r"Linear cannot be exported: it does not run on an example of shape \(1, 9\): RuntimeError",
        ),
    ],
)
def test_refuses_by_name_what_is_not_covered(model: nn.Module, shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(ProfilerError, match=message):
        kernels_of(model, torch.zeros(shape))


def test_refuses_kernels_without_predictor() -> None:
    lacking = predictor()
    del lacking.forests["hswish"]  # type: ignore[attr-defined]
    with pytest.raises(ProfilerError, match=r"no predictor for kernels 'hswish' .*count as 0. It has conv-bn-relu"):
        NnMeterProfiler(Blocks().space(), lacking, progress=False)


# -- forests ------------------------------------------------------------------------------------------------------


def fitted(kind: str = "conv-bn-relu", features: int = 7) -> tuple[Any, Any]:
    rng = np.random.default_rng(0)
    rows = rng.integers(1, 200, size=(80, features)).astype(float)
    forest = package().new_forest(kind, "tflite_cpu").set_params(n_estimators=20)
    return forest.fit(rows, 1e-3 * rows[:, 0] * rows[:, 1] + 0.1), rng.integers(1, 200, size=(50, features)).astype(
        float
    )


@pytest.mark.filterwarnings("ignore:Some inputs do not have OOB scores")
def test_forest_answers_as_scikit_learn_does() -> None:
    theirs, rows = fitted()
    ours = Forest.of(theirs)
    np.testing.assert_allclose(ours.predict(rows), theirs.predict(rows), rtol=1e-12)
    np.testing.assert_array_equal(ours.scaled(2.0).predict(rows), 2.0 * ours.predict(rows))
    with pytest.raises(ProfilerError, match=r"compares 7 features, got rows of shape \(50, 2\)"):
        ours.predict(rows[:, :2])
    with pytest.raises(ProfilerError, match=r"no fitted random forest for regression, but a dict"):
        Forest.of({})


def test_damaged_forests_are_found() -> None:
    arrays = stub(1.0).arrays()
    with pytest.raises(ProfilerError, match=r"do not belong together"):
        Forest.from_arrays(arrays | {"left": np.array([1, 1, 3])})
    with pytest.raises(ProfilerError, match=r"make no trees"):
        Forest.from_arrays(arrays | {"left": np.array([1, 0, 2])})


# -- tables -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make", [Blocks().space, lambda: spaces.nasbench201(cells=1), lambda: spaces.compofa(resolutions=[96])]
)
def test_sum_over_the_table_is_what_the_package_adds_up(make: Callable[[], Space]) -> None:
    space = make()
    mine = predictor(scales={"conv-bn-relu": 0.75})
    latency = NnMeterProfiler(space, mine, progress=False)
    assert latency.table is not None
    for architecture in space.sample(3, np.random.default_rng(5)):
        model, example = space.build(architecture), Networks.of(space, None, None).input(architecture)
        theirs = 0.5 + mine.predict_by_package(model, example)
        assert latency.profile(architecture) == pytest.approx(theirs, rel=1e-9)
        assert mine.predict(model, example) == pytest.approx(theirs, rel=1e-9)


def test_follows_the_resolution() -> None:
    space = spaces.compofa(resolutions=[64, 96])
    forests = {name: stub(1.0) for name in BLOCKS}
    by_size = Forest(**stub(1.0).arrays() | {"feature": np.array([0, 0, 0]), "threshold": np.array([40.0, 0.0, 0.0])})
    latency = NnMeterProfiler(space, NnMeterPredictor(forests | {"conv-bn-relu": by_size}), progress=False)
    (architecture,) = space.sample(1, np.random.default_rng(0))
    small, large = (latency.profile({**architecture, "resolution": size}) for size in (64, 96))
    assert large > small


def test_without_described_layers_networks_are_taken_apart() -> None:
    space, other = Blocks().space(), Space(Blocks().choices(), build=Blocks().build, name="opaque")
    described = NnMeterProfiler(space, predictor(), progress=False)
    opaque = NnMeterProfiler(other, predictor(), torch.zeros(1, 3, 16, 16))
    assert opaque.table is None and opaque.bounds() is None
    batch = space.sample(5, np.random.default_rng(0))
    np.testing.assert_allclose(opaque.profile_batch(other.candidates(list(batch))), described.profile_batch(batch))
    with pytest.raises(ProfilerError, match=r"does not describe its layers, so say what its networks are run on"):
        NnMeterProfiler(other, predictor())


def test_kernels_across_layers_give_no_table() -> None:
    layers = [Conv(3, 4, 3), Conv(4, 4, 3, activation="relu", preactivated=True), Conv(4, 4, 3)]

    def build(architecture: dict[str, Any]) -> nn.Module:
        return nn.Sequential(layers[0].module(), layers[1 if architecture["active"] else 2].module())

    def parts() -> list[Part]:
        return [
            Part.of((), lambda: [Placed(layers[0], (8, 8), (8, 8))]),
            Part.of(("active",), lambda active: [Placed(layers[1 if active else 2], (8, 8), (8, 8))]),
        ]

    space = Space([Choice("active", (False, True))], build=build, parts=parts, name="fused")
    assert parts_of(Networks.of(space, None, None), FOLDED) is None  # the ReLU is merged into the layer before
    latency = NnMeterProfiler(space, predictor())
    assert latency.table is None
    assert latency.profile({"active": True}) == latency.profile({"active": False}) == 0.5 + 1.0 + 1.0


def test_table_serves_bounds_and_feasible_sets() -> None:
    space = Blocks().space()
    latency = NnMeterProfiler(space, predictor(), progress=False)
    bounds = latency.bounds()
    assert bounds is not None and bounds.low < bounds.high
    limit = (bounds.low + bounds.high) / 2
    drawn = FeasibleSet(space, latency <= limit).sample(20, np.random.default_rng(0))
    assert (latency.profile_batch(drawn) <= limit).all()
    assert (latency.kind, latency.unit, latency.device, latency.fixed) == ("learned", "ms", "a phone", True)
    spread = latency.std(drawn)
    assert spread is not None
    np.testing.assert_allclose(spread, 0.1 * latency.profile_batch(drawn))


def test_profiles_networks_outside_of_spaces() -> None:
    latency = NnMeterProfiler(None, predictor(relative_error=None), torch.zeros(1, 3, 8, 8))
    assert latency.profile_model(nn.Conv2d(3, 9, 3)) == 0.5 + 1.0  # three channels are fewer than eight
    assert latency.std(toy_space().sample(2, np.random.default_rng(0))) is None
    with pytest.raises(ProfilerError, match=r"without a space"):
        latency.profile({"depth": 1})
    with pytest.raises(ProfilerError, match=r"without an example input"):
        NnMeterProfiler(None, predictor()).profile_model(nn.Conv2d(3, 9, 3))


# -- building -----------------------------------------------------------------------------------------------------


def test_calibration_recovers_known_kernel_times(tmp_path: Path) -> None:
    space, device = Blocks().space(), Known()
    built = build_nn_meter(space, device, networks=16, rounds=1, progress=False)
    latency = NnMeterProfiler(space, built, progress=False)
    assert built.overhead_ms == OVERHEAD and built.device == "known-fp32"
    batch = space.sample(30, np.random.default_rng(7))
    true = [OVERHEAD + sum(map(milliseconds, kernels_of(space.build(one), torch.zeros(1, 3, *IMAGE)))) for one in batch]
    np.testing.assert_allclose(latency.profile_batch(batch), true, rtol=0.02)
    assert built.relative_error is not None and built.relative_error < 0.02
    assert built.notes["mean_absolute_relative_error_uncalibrated"] > 0.2
    built.save(tmp_path / "known.npz")
    assert NnMeterPredictor.load(tmp_path / "known.npz").notes == built.notes
    assert built.scales["conv-bn-relu"] == pytest.approx(1 / 1.5, rel=0.15)


def test_builds_from_kernels_of_the_space_alone() -> None:
    space, device = Blocks().space(), Known()
    parts = parts_of(Networks.of(space, None, None), FOLDED)
    assert parts is not None
    few = build_nn_meter(space, device, kernels=19, networks=10, rounds=1, progress=False)
    alone = [found[0] for found in device.exported if len(found) == 1]
    assert len(alone) == len(set(alone)) == sum(few.notes["kernels"].values()) <= 19
    assert set(alone) <= set(parts.distinct) and few.notes["kernels_of_space"] == len(parts.distinct)
    assert any(error is not None for error in few.notes["median_relative_error_of_kernels"].values())


@pytest.mark.slow
def test_an_opaque_space_is_built_from_its_networks() -> None:
    space = Space(Blocks().choices(), build=Blocks().build, name="opaque")
    built = build_nn_meter(
        space, Known(), example_input=torch.zeros(1, 3, *IMAGE), networks=12, rounds=1, progress=False
    )
    assert set(built.forests) == {"conv-bn-relu", "dwconv-bn-relu", "hswish", "add", "global-avgpool", "fc"}


def test_build_refuses_too_little() -> None:
    with pytest.raises(ProfilerError, match=r"5 networks are too few for 6 kinds of kernels; measure 8 or more"):
        build_nn_meter(Blocks().space(), Known(), networks=5, progress=False)
    with pytest.raises(ProfilerError, match=r"8 kernels are too few for 6 kinds of them; measure 18 or more"):
        build_nn_meter(Blocks().space(), Known(), kernels=8, progress=False)
    with pytest.raises(ProfilerError, match=r"kind 'concat' cannot be built one by one"):
        kernel_network(Kernel("concat", "concat", (14.0, 2.0, 8.0, 8.0, 0.0, 0.0), 14))


def test_a_failing_device_gives_no_predictor() -> None:
    class Failing(KnownSession):
        def measure(self, key: str, runs: int = 10, warmup: int = 3) -> Sample:
            raise DeviceError("the runner was ended")

    device = Known()
    device.open = Failing  # type: ignore[method-assign]
    with pytest.raises(DeviceError, match=r"the runner was ended"):
        build_nn_meter(Blocks().space(), device, networks=10, rounds=1, progress=False)


def test_calibration_states_the_error_on_networks_left_out() -> None:
    rng = np.random.default_rng(0)
    convs = [Kernel("conv", "conv-bn-relu", (float(n), 1.0, 0, 0, 0, 0, 0), 1) for n in range(12)]
    networks = [[convs[n] for n in rng.integers(0, 12, size=number)] for number in range(3, 23)]
    true = np.array([2.0 * len(network) for network in networks])
    noisy = true * rng.normal(1.0, 0.1, size=len(true))
    found = calibrated(NnMeterPredictor({"conv-bn-relu": stub(1.0)}), networks, noisy)
    assert found.scales["conv-bn-relu"] == pytest.approx(2.0, rel=0.1)
    assert found.relative_error == pytest.approx(0.1, rel=0.5)


# -- files --------------------------------------------------------------------------------------------------------


def test_saved_predictors_are_arrays(tmp_path: Path) -> None:
    mine = predictor(scales={"add": 0.5}, notes={"key": "a phone: 1"})
    mine.save(tmp_path / "phone.npz")
    with np.load(tmp_path / "phone.npz", allow_pickle=False) as file:
        assert all(file[name].dtype.kind != "O" for name in file.files)
    again = NnMeterPredictor.load(tmp_path / "phone.npz")
    for name in ("device", "overhead_ms", "relative_error", "rules", "scales", "notes"):
        assert getattr(again, name) == getattr(mine, name)
    space = Blocks().space()
    batch = space.sample(5, np.random.default_rng(0))
    values = [NnMeterProfiler(space, which, progress=False).profile_batch(batch) for which in (mine, again)]
    np.testing.assert_array_equal(*values)
    np.testing.assert_array_equal(NnMeterProfiler(space, tmp_path / "phone.npz").profile_batch(batch), values[0])


def folder_of(path: Path, *names: str) -> dict[str, Any]:
    """Write a folder as nn-Meter has them."""
    path.mkdir()
    (path / "fusion_rules.json").write_text(
        json.dumps({name: {"obey": obey} for name, obey in FOLDED.items()} | {"MON": {"obey": 0}})
    )
    forests = {}
    for name in names:
        forests[name], _ = fitted("conv-bn-relu")
        (path / f"{name}.pkl").write_bytes(pickle.dumps(forests[name]))
    return forests


@pytest.mark.filterwarnings("ignore:Some inputs do not have OOB scores")
def test_reads_a_folder_of_nn_meter(tmp_path: Path) -> None:
    forests = folder_of(tmp_path / "phone", "conv-bn-relu")
    latency = NnMeterProfiler(None, os.fspath(tmp_path / "phone"), torch.zeros(1, 8, 14, 14))
    model = nn.Sequential(nn.Conv2d(8, 16, 3), nn.ReLU())
    (kernel,) = latency.predictor.kernels(model, torch.zeros(1, 8, 14, 14))
    assert latency.profile_model(model) == pytest.approx(
        forests["conv-bn-relu"].predict([kernel.features])[0], rel=1e-12
    )
    assert latency.device == "phone"
    assert latency.predictor.predict_by_package(model, torch.zeros(1, 8, 14, 14)) == latency.profile_model(model)
    with pytest.raises(ProfilerError, match=r"no predictor for kernels 'hswish'"):
        latency.profile_model(nn.Hardswish())


@pytest.mark.filterwarnings("ignore:Some inputs do not have OOB scores")
def test_another_version_of_scikit_learn_is_an_error(tmp_path: Path) -> None:
    import sklearn

    folder_of(tmp_path / "phone", "fc")
    file = tmp_path / "phone" / "fc.pkl"
    now, content = sklearn.__version__, file.read_bytes()
    patch = now[:-1] + ("0" if now[-1] != "0" else "1")
    file.write_bytes(content.replace(now.encode(), patch.encode()))
    assert list(NnMeterPredictor.load(tmp_path / "phone").forests) == ["fc"]
    file.write_bytes(content.replace(now.encode(), "0.23.1".ljust(len(now), "0")[: len(now)].encode()))
    with pytest.raises(ProfilerError, match=rf"fc.pkl' was written by scikit-learn 0\.23.*, and {now} is installed"):
        NnMeterPredictor.load(tmp_path / "phone")


@pytest.mark.filterwarnings("ignore:Some inputs do not have OOB scores")
def test_folders_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(ProfilerError, match=r"there is no predictor .*neither a folder nor a file"):
        NnMeterPredictor.load(tmp_path / "nothing")
    folder_of(tmp_path / "bare")
    with pytest.raises(ProfilerError, match=r"lacks a \.pkl file"):
        NnMeterPredictor.load(tmp_path / "bare")
    folder_of(tmp_path / "ruleless", "fc")
    (tmp_path / "ruleless" / "fusion_rules.json").unlink()
    with pytest.raises(ProfilerError, match=r"lacks fusion_rules\.json"):
        NnMeterPredictor.load(tmp_path / "ruleless")
    folder_of(tmp_path / "odd", "fc")
    (tmp_path / "odd" / "fusion_rules.json").write_text("[]")
    with pytest.raises(ProfilerError, match=r"holds no rules of nn-Meter"):
        NnMeterPredictor.load(tmp_path / "odd")
    folder_of(tmp_path / "damaged", "fc")
    (tmp_path / "damaged" / "fc.pkl").write_bytes(b"no pickle")
    with pytest.raises(ProfilerError, match=r"fc.pkl' cannot be read: "):
        NnMeterPredictor.load(tmp_path / "damaged")
    (tmp_path / "text.npz").write_text("no file")
    with pytest.raises(ProfilerError, match=r"is no nasmw nn-meter predictor"):
        NnMeterPredictor.load(tmp_path / "text.npz")
    with pytest.raises(TypeError, match=r"takes an NnMeterPredictor or the path of one, got dict"):
        NnMeterProfiler(None, {})  # type: ignore[arg-type]


# -- the package --------------------------------------------------------------------------------------------------


def run(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )


def test_importing_the_package_leaves_the_home_directory_alone(tmp_path: Path) -> None:
    code = "import os\nfrom nasmw.profilers.nn_meter_package import package\npackage()\nprint(os.path.expanduser('~'))"
    done = run(code, HOME=str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(tmp_path) and list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("missing", "named"), [("nn_meter", "nn-meter"), ("pkg_resources", "setuptools<81")])
def test_a_missing_package_names_the_extra(missing: str, named: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "nn_meter"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, missing, None)
    package.cache_clear()
    with pytest.raises(MissingExtraError, match=rf"the package '{named}', which is not installed.*nasmw\[nn-meter\]"):
        NnMeterProfiler(None, predictor(), torch.zeros(1, 3, 8, 8)).profile_model(nn.Conv2d(3, 9, 5))
    package.cache_clear()
