"""Devices in adverse surroundings: odd networks, wrong options, processes that misbehave, damaged files."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scripted import ClockDevice, ScriptedDevice, script
from torch import nn

from nasmw import devices
from nasmw.devices import Device, Measurements, measure, noise_report, sensible_weights
from nasmw.errors import DeviceError, ProfilerError

QUICK = script("sum(range(1000))")
IMAGE = torch.zeros(1, 3, 8, 8)


def fake_python(folder: Path, text: str) -> str:
    path = folder / "python"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


# -- the process --------------------------------------------------------------------------------------------------


def test_files_in_the_current_folder_are_not_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("json", "base64", "numpy", "runner"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('shadowed')")
    monkeypatch.chdir(tmp_path)
    with ScriptedDevice().open() as session:
        session.prepare("a", QUICK)
        np.testing.assert_array_equal(session.infer("a", np.ones(2)), [[2.0, 2.0]])


def test_threads_take_turns() -> None:
    problems: list[Exception] = []
    with ScriptedDevice(timeout=10.0).open() as session:
        session.prepare("a", QUICK)

        def work() -> None:
            try:
                for _ in range(20):
                    session.measure("a", runs=2, warmup=0)
            except Exception as error:
                problems.append(error)

        threads = [threading.Thread(target=work, daemon=True) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert not any(thread.is_alive() for thread in threads)
    assert not problems


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_forked_program_gets_a_process_of_its_own() -> None:
    with ScriptedDevice(timeout=10.0).open() as session:
        session.prepare("a", QUICK)
        mine = session._process
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of forking beside threads, which is what is tested
            child = os.fork()
        if child == 0:
            code = 1
            try:
                session.measure("a", runs=2)
                session.close()
                code = 0
            finally:
                os._exit(code)
        for _ in range(300):
            ended, status = os.waitpid(child, os.WNOHANG)
            if ended:
                break
            time.sleep(0.1)
        else:
            os.kill(child, 9)
            os.waitpid(child, 0)
            pytest.fail("the forked program hangs")
        assert status == 0
        assert session.measure("a", runs=2).wall_ms.shape == (2,)
        assert session._process is mine


def test_flood_of_errors_without_lines_is_cut() -> None:
    flood = "sys.stderr.write('x' * 5_000_000); sys.stderr.flush(); os.kill(os.getpid(), 9)"
    with ScriptedDevice().open() as session:
        session.prepare("a", script(flood))
        with pytest.raises(DeviceError, match="SIGKILL") as caught:
            session.measure("a")
    assert 1000 < len(str(caught.value)) < 100_000


@pytest.mark.parametrize(
    ("end", "says"),
    [("exec sleep 1000", "did not describe within 1 s and was ended"), ("exit 3", "ended with exit code 3")],
)
def test_half_an_answer_is_shown(end: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nasmw.devices.session.GRACE", 0.5)
    python = fake_python(tmp_path, f'read line\nprintf \'{{"id": 1, "ok"\'\n{end}')
    with ScriptedDevice(python=python, timeout=1.0).open() as session:
        with pytest.raises(DeviceError, match=rf"{says}.*in the middle of its answer '\{{\"id\": 1"):
            session.describe()


def test_answer_that_nests_too_deep_is_rubbish(tmp_path: Path) -> None:
    python = fake_python(tmp_path, f"read line\nexec {sys.executable} -c \"print('[' * 200_000)\"")
    with ScriptedDevice(python=python).open() as session:
        with pytest.raises(DeviceError, match="answered rubbish"):
            session.describe()


@pytest.mark.parametrize("more", ["", ', "seconds": NaN', ', "seconds": "2"', ', "seconds": true'])
def test_preparing_takes_a_number_of_seconds(more: str, tmp_path: Path) -> None:
    python = fake_python(tmp_path, f"read l\nprintf '%s\\n' '{{\"id\": 1, \"ok\": true{more}}}'\nexec cat >/dev/null")
    with ScriptedDevice(python=python).open() as session:
        with pytest.raises(DeviceError, match="gave no time in seconds"):
            session.prepare("a", QUICK)


def test_number_that_no_float_holds_is_no_time(tmp_path: Path) -> None:
    answers = ['{"id":1,"ok":true,"seconds":1}', f'{{"id":2,"ok":true,"wall_ms":[1{"0" * 400}],"cpu_ms":[1]}}']
    said = "\n".join(f"read l\nprintf '%s\\n' '{answer}'" for answer in answers)
    with ScriptedDevice(python=fake_python(tmp_path, f"read hello\n{said}\nexec cat >/dev/null")).open() as session:
        session.prepare("a", QUICK)
        with pytest.raises(DeviceError, match="gave no 1 times"):
            session.measure("a", runs=1)


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="this system cannot pin processes")
def test_more_threads_than_cores_are_refused() -> None:
    with ScriptedDevice(threads=4096).open() as session:
        with pytest.raises(DeviceError, match=r"cannot run 4096 threads on a core each"):
            session.describe()


def test_processes_are_started_without_a_warning(tmp_path: Path) -> None:
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); from scripted import ScriptedDevice, script\n"
        "with ScriptedDevice().open() as session:\n"
        "    session.prepare('a', script('1')); session.measure('a', 2)"
    )
    command = [sys.executable, "-W", "error", "-c", code, str(Path(__file__).parent)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


# -- options ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("timeout", [1e12, float("inf"), float("nan"), 0, "5"])
def test_time_out_that_clocks_cannot_hold_is_refused(timeout: Any) -> None:
    with pytest.raises(ValueError, match=r"positive number of seconds, at most 1e\+06"):
        ScriptedDevice(timeout=timeout)


@pytest.mark.parametrize("host", ["-oProxyCommand=x", " -oProxyCommand=x", "two words", "two\nlines"])
def test_host_is_no_option_of_ssh(host: str) -> None:
    with pytest.raises(ValueError, match="takes a destination of ssh"):
        ScriptedDevice(host=host)


def test_shapes_of_numpy_travel() -> None:
    artifact = devices.Artifact({"run": b"1"}, ((np.int64(1), np.int64(3)),))
    with ScriptedDevice().open() as session:
        session.prepare("a", artifact)
    assert artifact.shapes == ((1, 3),)


@pytest.mark.parametrize("runs", [0, 1.5, float("nan"), "2"])
def test_runs_are_whole_numbers(runs: Any) -> None:
    with ScriptedDevice().open() as session, pytest.raises(ValueError, match="whole numbers"):
        session.measure("a", runs=runs)


# -- networks -----------------------------------------------------------------------------------------------------


class Words(nn.Module):
    """Takes whole numbers below 2."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(2, 4)
        self.norm = nn.BatchNorm1d(4)

    def forward(self, words: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.norm(self.embedding(words).mean(1))
        return result


class Draws(nn.Module):
    """Draws random numbers."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + torch.randn_like(x)


def each_device() -> list[Any]:
    made = [("torch", {}), ("onnxruntime", {}), ("onnxruntime", {"precision": "int8"}), ("openvino", {}), ("ncnn", {})]
    available = {known.name for known in devices.list() if known.available}
    return [
        pytest.param(
            name,
            arguments,
            id="-".join([name, *arguments.values()]),
            marks=() if name in available else pytest.mark.skip(reason=f"{name} is not installed"),
        )
        for name, arguments in made
    ]


@pytest.mark.parametrize(("name", "arguments"), each_device())
def test_odd_networks_are_refused_by_name(name: str, arguments: dict[str, str]) -> None:
    device: Device = devices.get(name, **arguments)
    conv, other = nn.Conv2d(3, 4, 3), torch.float16
    with pytest.raises(DeviceError, match=r"Conv2d cannot be exported: weight is torch.float16.*single precision"):
        device.export(nn.Conv2d(3, 4, 3).to(other), IMAGE.to(other))
    with pytest.raises(DeviceError, match=r"the example is torch.float64"):
        device.export(conv, IMAGE.double())
    lazy = nn.Sequential(nn.LazyConv2d(4, 3))
    with pytest.raises(DeviceError, match="0.weight has no numbers yet"):
        device.export(lazy, IMAGE)
    lazy(IMAGE).sum().backward()
    with pytest.raises(TypeError, match="takes one tensor as the example"):
        device.export(conv, (IMAGE, IMAGE))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"takes a network, an nn.Module, got function"):
        device.export(lambda x: x, IMAGE)  # type: ignore[arg-type]


@pytest.mark.parametrize(("name", "arguments"), each_device())
def test_export_leaves_network_and_random_state(name: str, arguments: dict[str, str]) -> None:
    device: Device = devices.get(name, **arguments)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(), nn.ReLU()).train()
    model[1].eval()
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    state = torch.get_rng_state()
    device.export(model, IMAGE)
    if name == "torch":
        device.export(Draws(), IMAGE)
    assert torch.equal(torch.get_rng_state(), state)
    assert [module.training for module in model] == [True, False, True, True]
    assert all(torch.equal(tensor, before[key]) for key, tensor in model.state_dict().items())
    assert all(parameter.grad is not None and (parameter.grad == 1).all() for parameter in model.parameters())
    model(torch.randn(2, 3, 8, 8)).sum().backward()


@pytest.mark.parametrize(("name", "arguments"), [case for case in each_device() if case.values[0] != "ncnn"])
def test_networks_of_whole_numbers_are_measured(name: str, arguments: dict[str, str]) -> None:
    device: Device = devices.get(name, **arguments)
    words = torch.tensor([[0, 1, 1]])
    model = sensible_weights(Words(), words)
    with device.open() as session:
        session.prepare("words", device.export(model, words))
        assert session.measure("words", runs=2).wall_ms.shape == (2,)
        (output,) = session.infer("words", words.numpy())
    tolerance = 0.2 if arguments else 1e-5
    np.testing.assert_allclose(output, model(words).detach().numpy(), atol=tolerance)


@pytest.mark.parametrize("name", ["onnxruntime", "ncnn"])
def test_network_that_does_not_run_on_the_example_says_so(name: str) -> None:
    device = devices.get(name)
    if device.missing():
        pytest.skip(f"{name} is not installed")
    with pytest.raises(DeviceError, match=r"does not run on an example of shape \(1, 3, 8, 8\): RuntimeError: .*chan"):
        device.export(nn.Conv2d(5, 4, 3), IMAGE)


# -- measuring ----------------------------------------------------------------------------------------------------


def constant(milliseconds: float, cpu: float | None = None, **numbers: Any) -> Measurements:
    device = ClockDevice(lambda *_: (milliseconds, milliseconds if cpu is None else cpu), [])
    return measure({"a": QUICK, "b": QUICK, "c": QUICK}, [device], progress=False, **numbers)


@pytest.mark.parametrize("name", ["(anchor)", "", 3, None])
def test_names_of_networks_are_strings_and_not_the_anchor(name: Any) -> None:
    with pytest.raises(DeviceError, match="a network is named by a string"):
        measure({name: QUICK}, [ScriptedDevice()], progress=False)


def test_what_is_no_artifact_is_named() -> None:
    with pytest.raises(TypeError, match=r"made of the network 'a', got bytes"):
        measure({"a": b"..."}, [ScriptedDevice()], progress=False)  # type: ignore[dict-item]
    with pytest.raises(DeviceError, match="'a' was not exported for scripted-fp32"):
        measure({"a": {"scripted-fp32": b"..."}}, [ScriptedDevice()], progress=False)  # type: ignore[dict-item]


def test_anchor_that_does_not_load_is_named() -> None:
    bad = script("pass", load="raise ValueError('no such layer')")
    with pytest.raises(DeviceError, match="^the anchor: "):
        measure({"a": QUICK}, [ScriptedDevice()], anchor={"scripted-fp32": bad}, progress=False)


@pytest.mark.parametrize("milliseconds", [float("nan"), 0.0, -1.0])
def test_reference_is_a_positive_time(milliseconds: float) -> None:
    with pytest.raises(ValueError, match="reference of positive milliseconds"):
        constant(1.0, reference={"clock-fp32": milliseconds})


def test_runs_without_processor_time_are_disturbed() -> None:
    found = constant(1.0, cpu=0.0, rounds=1, repeats=0)
    assert found.unsettled.all()
    assert np.isinf(found.wall_over_cpu).all()


def test_halves_that_disagree_have_no_whole() -> None:
    times = {"a": [1.0, 9.0], "b": [9.0, 1.0], "c": [5.0, 5.0]}
    device = ClockDevice(lambda _, network, visit: (times[network].pop(),) * 2 if network in times else (1.0, 1.0), [])
    found = measure(dict.fromkeys(times, QUICK), [device], progress=False, rounds=2, repeats=0)
    row = noise_report(found)["clock-fp32"]
    assert row.halves < 0
    assert np.isnan(row.whole)


def test_no_splits_are_refused() -> None:
    with pytest.raises(ValueError, match="splits of at least 1"):
        noise_report(constant(1.0, rounds=2, repeats=0), splits=0)


def damaged(content: bytes) -> dict[str, bytes]:
    middle = len(content) // 2
    flipped = bytearray(content)
    flipped[70] ^= 255
    flipped[middle] ^= 255
    return {
        "empty": b"",
        "beginning": content[:10],
        "half": content[:middle],
        "end": content[:-5],
        "flipped": bytes(flipped),
        "text": b"hello",
    }


def test_damaged_measurements_are_an_error(tmp_path: Path) -> None:
    path = tmp_path / "found.npz"
    constant(1.0, rounds=2, repeats=0).save(path)
    assert Measurements.load(path).names == ("a", "b", "c")
    for content in damaged(path.read_bytes()).values():
        path.write_bytes(content)
        with pytest.raises(DeviceError, match="holds no measurements"):
            Measurements.load(path)
    with path.open("wb") as file:
        np.save(file, np.zeros(3))
    with pytest.raises(DeviceError, match="holds no measurements"):
        Measurements.load(path)


def test_damaged_predictor_of_nn_meter_is_an_error(tmp_path: Path) -> None:
    from nasmw.profilers.nn_meter_forest import Forest
    from nasmw.profilers.nn_meter_predictor import NnMeterPredictor

    place, number = np.zeros(1, dtype=np.int64), np.ones(1)
    path = tmp_path / "predictor.npz"
    NnMeterPredictor({"fc": Forest(place, place, number, place, place, number)}).save(path)
    assert list(NnMeterPredictor.load(path).forests) == ["fc"]
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files}
    for content in damaged(path.read_bytes()).values():
        path.write_bytes(content)
        with pytest.raises(ProfilerError, match="is no nasmw nn-meter predictor"):
            NnMeterPredictor.load(path)
    for header in ("[]", "3", '{"format": "nasmw nn-meter predictor", "version": "x"}'):
        np.savez(path, **{**arrays, "header": np.array(header)})
        with pytest.raises(ProfilerError, match="is no nasmw nn-meter predictor"):
            NnMeterPredictor.load(path)
    np.savez(path, **{**arrays, "fc/feature": np.array([0.5])})
    with pytest.raises(ProfilerError, match="the file is damaged"):
        NnMeterPredictor.load(path)


# -- registered ---------------------------------------------------------------------------------------------------


def test_broken_entry_point_hides_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    from importlib.metadata import EntryPoint

    from nasmw.devices import registry

    broken = EntryPoint("theirs", "no_such_module:Device", registry.GROUP)
    monkeypatch.setattr(registry, "entry_points", lambda group: [broken])
    found = {known.name: known for known in devices.list()}
    assert found["torch"].available
    assert not found["theirs"].available
    assert "cannot be imported: ModuleNotFoundError: No module named 'no_such_module'" in found["theirs"].missing


# -- MLonMCU ------------------------------------------------------------------------------------------------------


def mlonmcu(folder: Path, text: str, **arguments: Any) -> float:
    pytest.importorskip("onnx")
    from nasmw.profilers import MlonmcuProfiler
    from nasmw.testing import toy_space

    space = toy_space()
    (architecture,) = space.sample(1, np.random.default_rng(0))
    command = fake_python(folder, f"for last; do :; done\nreport=$last/report.csv\n{text}")
    given = {"target": "spike", "executable": command, **arguments}
    return MlonmcuProfiler(space, IMAGE, **given)["cycles"].profile(architecture)


def test_report_with_odd_bytes_is_read(tmp_path: Path) -> None:
    text = r"printf '\357\273\277Cycles,Total ROM,Total RAM,Reason\n10,20,30,caf\351\n' > $report"
    assert mlonmcu(tmp_path, text) == 10.0


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (r"printf 'Cycles,Total ROM,Total RAM\n1\n' > $report", "reported Total ROM = None"),
        ("head -c 300000 /dev/zero | tr '\\000' 1 > $report; echo >> $report; echo 1 >> $report", "is no table"),
    ],
)
def test_report_that_is_none_is_an_error(text: str, says: str, tmp_path: Path) -> None:
    with pytest.raises(ProfilerError, match=says):
        mlonmcu(tmp_path, text)


def test_long_lines_of_mlonmcu_are_cut(tmp_path: Path) -> None:
    with pytest.raises(ProfilerError, match="ended with exit code 1") as caught:
        mlonmcu(tmp_path, "head -c 3000000 /dev/zero; exit 1")
    assert len(str(caught.value)) < 2000


@pytest.mark.skipif(sys.platform == "win32", reason="needs a shell")
def test_simulator_is_ended_with_mlonmcu(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    with pytest.raises(ProfilerError, match="took over 1 s"):
        mlonmcu(tmp_path, f"sleep 1000 &\necho $! > {pid}\nwait", timeout=1.0)
    for _ in range(50):
        try:
            os.kill(int(pid.read_text()), 0)
        except ProcessLookupError:
            return
        status = Path(f"/proc/{pid.read_text().strip()}/stat")
        if status.exists() and status.read_text().rsplit(")", 1)[1].split()[0] == "Z":
            return
        time.sleep(0.1)
    pytest.fail("the simulator still runs")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"timeout": 0}, "positive number of seconds"),
        ({"timeout": float("nan")}, "positive number of seconds"),
        ({"timeout": None}, "positive number of seconds"),
        ({"target": "--help"}, "name of one"),
        ({"backend": ""}, "name of one"),
        ({"features": "abc"}, "takes a list of names"),
    ],
)
def test_options_of_mlonmcu_are_checked(arguments: dict[str, Any], says: str, tmp_path: Path) -> None:
    with pytest.raises((TypeError, ValueError), match=says):
        mlonmcu(tmp_path, "exit 1", **arguments)
