"""OnnxRuntime, and how devices are found by name."""

from __future__ import annotations

import logging
from importlib.metadata import EntryPoint
from pathlib import Path

import numpy as np
import pytest
import torch
from scripted import ScriptedDevice
from torch import nn

from nasmw import devices
from nasmw.devices import Artifact, Device, OnnxRuntime, registry, sensible_weights
from nasmw.errors import DeviceError, MissingExtraError
from nasmw.spaces import nasbench201

EXAMPLE = torch.zeros(1, 3, 32, 32)


def network(seed: int = 0) -> nn.Module:
    space = nasbench201(cells=1)
    (architecture,) = space.sample(1, np.random.default_rng(seed))
    return sensible_weights(space.build(dict(architecture)), EXAMPLE, seed=seed)


@pytest.mark.parametrize("seed", range(3))
def test_computes_what_pytorch_does(seed: int) -> None:
    model, given = network(seed), torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(seed))
    with OnnxRuntime().open() as session, torch.no_grad():
        session.prepare("a", OnnxRuntime().export(model, EXAMPLE))
        (output,) = session.infer("a", given.numpy())
        np.testing.assert_allclose(output, model(given).numpy(), rtol=1e-4, atol=1e-5)


def test_eight_bits_compute_nearly_that(caplog: pytest.LogCaptureFixture) -> None:
    model = sensible_weights(nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3)), EXAMPLE)
    given = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    device = OnnxRuntime(precision="int8")
    with caplog.at_level(logging.WARNING):
        artifact = device.export(model, EXAMPLE)
    assert not caplog.records, "the quantiser found fault with the network"
    with device.open() as session, torch.no_grad():
        session.prepare("a", artifact)
        (output,) = session.infer("a", given.numpy())
    wanted = model(given).detach().numpy()
    error = np.sqrt(np.mean((output - wanted) ** 2)) / wanted.std()
    assert 1e-4 < error < 0.05


def test_weights_of_eight_bits_take_less_room() -> None:
    import onnx

    exported = {precision: OnnxRuntime(precision).export(network(), EXAMPLE) for precision in ("fp32", "int8")}
    sizes = {precision: len(artifact.files["model.onnx"]) for precision, artifact in exported.items()}
    assert sizes["int8"] < 0.5 * sizes["fp32"]
    graph = onnx.load_model_from_string(exported["int8"].files["model.onnx"]).graph
    scales = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer if "scale" in tensor.name}
    assert max(scale.size for scale in scales.values()) == 64, "a scale for each channel of the widest convolution"


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_export_is_a_function_of_network_and_seed(precision: str) -> None:
    made = [OnnxRuntime(precision).export(network(), EXAMPLE).digest for _ in range(2)]
    assert made[0] == made[1]
    assert made[0] != OnnxRuntime(precision).export(network(1), EXAMPLE).digest


def test_export_leaves_the_network_as_it_was() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout()).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    OnnxRuntime("int8").export(model, EXAMPLE)
    assert model.training
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_key_names_what_a_latency_depends_on() -> None:
    import onnxruntime

    key = OnnxRuntime("int8").key
    assert key.startswith(f"onnxruntime-int8: onnxruntime {onnxruntime.__version__}, int8, 1 thread, ")
    assert OnnxRuntime("int8", name="mine").key.startswith("mine: ")


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"precision": "fp16"}, ValueError, "precision=...\\) is one of \\('fp32', 'int8'\\), got 'fp16'"),
        ({"calibration": 0}, ValueError, "calibration=...\\) takes a whole number of at least 1"),
        ({"threads": 0}, ValueError, "threads=...\\) takes at least 1, got 0"),
        ({"threads": 1.5}, TypeError, "threads=...\\) takes a whole number"),
        ({"core": -1}, ValueError, "core=...\\) takes at least 0"),
        ({"timeout": 0}, ValueError, "timeout=...\\) takes a positive number of seconds"),
        ({"host": ""}, TypeError, "host=...\\) takes a non-empty string"),
        ({"host": "-oProxyCommand=true"}, ValueError, "destination of ssh"),
    ],
)
def test_arguments_are_checked(arguments: dict[str, object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        OnnxRuntime(**arguments)  # type: ignore[arg-type]


def test_names_tell_devices_apart() -> None:
    made = [
        OnnxRuntime(),
        OnnxRuntime("int8"),
        OnnxRuntime(threads=2),
        OnnxRuntime(host="me@pi"),
        OnnxRuntime(name="mine"),
    ]
    assert [device.name for device in made] == [
        "onnxruntime-fp32",
        "onnxruntime-int8",
        "onnxruntime-fp32-2threads",
        "onnxruntime-fp32@pi",
        "mine",
    ]


def test_artifact_is_told_apart_by_files_and_shapes() -> None:
    made = [
        Artifact({"a": b"1"}, ((1,),)),
        Artifact({"a": b"2"}, ((1,),)),
        Artifact({"b": b"1"}, ((1,),)),
        Artifact({"a": b"1"}, ((2,),)),
        Artifact({"a": b"1", "b": b""}, ((1,),)),
    ]
    assert len({artifact.digest for artifact in made}) == len(made)
    assert Artifact({"a": b"1"}, [[1]]).digest == made[0].digest


# -- by name ------------------------------------------------------------------------------------------------------


def test_device_is_found_by_name() -> None:
    assert isinstance(devices.get("onnxruntime", precision="int8"), OnnxRuntime)
    with pytest.raises(DeviceError, match="no device is called 'onxruntime'; did you mean 'onnxruntime'"):
        devices.get("onxruntime")


def test_list_says_what_is_available() -> None:
    found = {device.name: device for device in devices.list()}
    assert set(registry.OURS) <= set(found)
    assert found["onnxruntime"].available
    assert str(found["onnxruntime"]).split() == ["onnxruntime", "available"]


class Lacking(ScriptedDevice):
    extra = "onnx"
    far_packages = ("no_such_runtime",)


def test_what_is_missing_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(registry.OURS, "lacking", f"{__name__}:Lacking")
    (lacking,) = (device for device in devices.list() if device.name == "lacking")
    assert not lacking.available
    assert "'no_such_runtime'" in lacking.missing and "nasmw[onnx]" in lacking.missing
    with pytest.raises(MissingExtraError, match=r"nasmw\[onnx\]"):
        devices.get("lacking").open()
    assert devices.get("lacking", host="pi").open(), "another host may have it"


def test_runtime_that_another_interpreter_lacks_is_an_error_of_the_device(tmp_path: Path) -> None:
    import venv

    venv.create(tmp_path / "env", with_pip=False)
    with OnnxRuntime(python=str(tmp_path / "env/bin/python")).open() as session:
        with pytest.raises(DeviceError, match=r"(?s)failed to describe.*ModuleNotFoundError: No module named 'numpy'"):
            session.describe()


def test_others_register_theirs_by_entry_point(monkeypatch: pytest.MonkeyPatch) -> None:
    points = [
        EntryPoint("theirs", "scripted:ScriptedDevice", registry.GROUP),
        EntryPoint("broken", "no_such_module:Device", registry.GROUP),
        EntryPoint("wrong", "builtins:int", registry.GROUP),
    ]
    monkeypatch.setattr(registry, "entry_points", lambda group: points if group == registry.GROUP else [])
    found = {device.name: device for device in devices.list()}
    assert found["theirs"].available
    assert "cannot be imported: ModuleNotFoundError" in found["broken"].missing
    assert "is no Device class" in found["wrong"].missing
    theirs: Device = devices.get("theirs", threads=2)
    assert theirs.name == "scripted-fp32-2threads"
