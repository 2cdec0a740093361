"""OpenVINO, ncnn and PyTorch as devices: their numbers are PyTorch's, and they say what they cannot do."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from nasmw import devices, spaces
from nasmw.devices import Ncnn, OpenVino, Torch, sensible_weights
from nasmw.devices.base import key_of
from nasmw.devices.ncnn_export import export_ncnn
from nasmw.errors import DeviceError

SPACES = {
    "nasbench201": (spaces.nasbench201(cells=2), 32),
    "nats_size": (spaces.nats_size(), 32),
    "ofa_mobilenetv3": (spaces.ofa_mobilenetv3(resolutions=[64]), 64),
    "fbnet": (spaces.fbnet(input_size=64), 64),
    "mobilenetv3": (spaces.mobilenetv3(input_size=64), 64),
    "proxylessnas": (spaces.proxylessnas(input_size=64), 64),
    "darts": (spaces.darts(cells=3, channels=8), 32),
    "autoformer": (spaces.autoformer("tiny", input_size=64), 64),
}
CONVOLUTIONAL = [name for name in SPACES if name != "autoformer"]


def random(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


def network(name, seed=0):
    space, size = SPACES[name]
    (architecture,) = space.sample(1, np.random.default_rng(seed))
    return sensible_weights(space.build(architecture)), random(1, 3, size, size)


def assert_same(session, model, x, tolerance=1e-4):
    """Check what the far side computes against PyTorch, then that it takes time."""
    session.prepare("network", session.device.export(model, x))
    (got,) = session.infer("network", x.numpy())
    with torch.inference_mode():
        wanted = model.eval()(x).numpy()
    assert got.shape == wanted.shape
    np.testing.assert_allclose(got, wanted, rtol=0, atol=tolerance * np.abs(wanted).max())
    sample = session.measure("network", runs=2, warmup=1)
    assert (sample.wall_ms > 0).all()


@pytest.fixture(scope="module")
def openvino():
    pytest.importorskip("openvino")
    with OpenVino().open() as session:
        yield session


@pytest.fixture(scope="module")
def ncnn():
    pytest.importorskip("ncnn")
    with Ncnn().open() as session:
        yield session


@pytest.fixture(scope="module", params=["eager", "channels_last"])
def pytorch(request):
    with Torch(mode=request.param).open() as session:
        yield session


def test_names_and_the_registry():
    assert devices.get("openvino", precision="bf16").name == "openvino-bf16"
    assert devices.get("ncnn", threads=2).name == "ncnn-fp32-2threads"
    assert devices.get("torch", mode="channels_last").name == "torch-channels_last"
    assert devices.get("torch", device="cuda").name == "torch-eager-cuda"
    assert {"ncnn", "onnxruntime", "openvino", "torch"} <= {known.name for known in devices.list()}


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: OpenVino(precision="int8"), r"OpenVino\(precision=\.\.\.\) is one of \('f32', 'bf16'\), got 'int8'"),
        (lambda: Torch(mode="jit"), r"Torch\(mode=\.\.\.\) is one of .*, got 'jit'"),
        (lambda: Torch(device="tpu"), r"Torch\(device=\.\.\.\) is one of \('cpu', 'cuda'\), got 'tpu'"),
        (lambda: Ncnn(threads=0), r"Ncnn\(threads=\.\.\.\) takes at least 1, got 0"),
    ],
)
def test_wrong_settings(make, match):
    with pytest.raises(ValueError, match=match):
        make()


@pytest.mark.parametrize(("device", "extra"), [(OpenVino, "openvino"), (Ncnn, "ncnn")])
def test_a_missing_runtime_names_its_extra(device, extra, monkeypatch):
    import importlib.util

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert f"nasmw[{extra}]" in device.missing()
    with pytest.raises(ImportError, match=rf"nasmw\[{extra}\]"):
        device().export(nn.ReLU(), random(1, 3))


# -- OpenVINO ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["nasbench201", "ofa_mobilenetv3", "fbnet", "darts", "autoformer"])
def test_openvino_computes_the_same(openvino, name):
    assert_same(openvino, *network(name))


def test_openvino_takes_batches(openvino):
    model, x = network("nasbench201")
    assert_same(openvino, model, random(3, *x.shape[1:]))


def test_openvino_names_the_precision_in_use(openvino):
    about = openvino.describe()
    assert (about["runtime"], about["precision"]) == ("openvino", "f32")
    assert "FP32" in about["capabilities"]


def test_bf16_is_computed_in_bf16_or_refused():
    pytest.importorskip("openvino")
    model, x = network("nasbench201")
    with OpenVino(precision="bf16").open() as session:
        about = session.describe()
        artifact = session.device.export(model, x)
        if "BF16" not in about["capabilities"]:
            assert about["precision"] == "f32"
            assert ", f32, " in session.device.key
            with pytest.raises(DeviceError, match=r"asked for bf16 and runs at f32: this processor offers it FP32"):
                session.prepare("network", artifact)
            return
        assert about["precision"] == "bf16"
        assert_same(session, model, x, tolerance=0.1)


# -- ncnn -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CONVOLUTIONAL)
def test_ncnn_computes_the_same(ncnn, name):
    assert_same(ncnn, *network(name))


def test_ncnn_refuses_what_it_cannot_write_by_name(ncnn):
    model, x = network("autoformer")
    with pytest.raises(DeviceError, match=r"_VisionTransformer cannot be written for ncnn: .* operator transpose"):
        ncnn.device.export(model, x)


def test_ncnn_has_no_batches():
    with pytest.raises(DeviceError, match=r"batch size 1, got shape \(2, 3, 8, 8\)"):
        export_ncnn(nn.ReLU(), random(2, 3, 8, 8))


class Apply(nn.Module):
    def __init__(self, function, *layers):
        super().__init__()
        self.function = function
        self.layers = nn.ModuleList(layers)

    def forward(self, x):
        return self.function(x, *self.layers)


PARTS = {
    "conv": nn.Conv2d(6, 4, (3, 5), stride=(2, 1), padding=(0, 2), dilation=(1, 2)),
    "conv groups": nn.Conv2d(6, 9, 3, groups=3, bias=False),
    "conv relu6": nn.Sequential(nn.Conv2d(6, 4, 1), nn.ReLU6()),
    "conv hardswish": nn.Sequential(nn.Conv2d(6, 6, 3, groups=6), nn.Hardswish()),
    "conv leaky": nn.Sequential(nn.Conv2d(6, 6, 3), nn.LeakyReLU(0.2)),
    "conv sigmoid": nn.Sequential(nn.Conv2d(6, 6, 3), nn.Sigmoid()),
    "conv read twice": Apply(lambda x, conv: conv(x).relu() - conv(x), nn.Conv2d(6, 6, 3)),
    "linear": nn.Sequential(nn.Flatten(), nn.Linear(6 * 9 * 8, 5), nn.ReLU()),
    "linear on tokens": nn.Sequential(nn.Flatten(2), nn.Linear(72, 5)),
    "relu": nn.ReLU(),
    "hardtanh": nn.Hardtanh(-0.5, 0.7),
    "clamp": Apply(lambda x: x.clamp(min=-0.25)),
    "hardsigmoid": nn.Hardsigmoid(),
    "silu": nn.SiLU(),
    "tanh": nn.Tanh(),
    "gelu": nn.GELU(),
    "gelu tanh": nn.GELU(approximate="tanh"),
    "softmax": nn.Softmax(dim=1),
    "layer norm": nn.LayerNorm(8),
    "batch norm": nn.BatchNorm2d(6),
    "max pool": nn.MaxPool2d(3, stride=2, padding=1),
    "average pool": nn.AvgPool2d(3, stride=1, padding=1, count_include_pad=False),
    "average pool counting": nn.AvgPool2d(3, stride=2, padding=1),
    "adaptive pool": nn.AdaptiveAvgPool2d((3, 4)),
    "global pool": nn.AdaptiveAvgPool2d(1),
    "pool, flatten": nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()),
    "pool, conv": nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(6, 5, 1), nn.Hardswish()),
    "pool, grouped conv": nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(6, 6, 1, groups=2)),
    "mean": Apply(lambda x: x.mean((2, 3))),
    "mean over channels": Apply(lambda x: x.mean(1, keepdim=True)),
    "gates": Apply(lambda x: x * torch.sigmoid(x.mean((2, 3), keepdim=True))),
    "sum of gates": Apply(lambda x: x.mean((2, 3), keepdim=True) + x.mean((2, 3), keepdim=True).relu()),
    "zeros": Apply(lambda x: x * 0.0),
    "reverse": Apply(lambda x: (2 - x) / 3 + 1 / (x * x + 1)),
    "constants": Apply(lambda x: x + torch.linspace(0, 1, 8) * torch.ones(9, 1)),
    "concatenate": Apply(lambda x: torch.cat([x, x.relu(), x], dim=1)),
    "reshape": Apply(lambda x: x.reshape(1, 3, 18, 8).flatten(2)),
    "slice and pad": Apply(lambda x: functional.pad(x[:, :, 1:, 1:], (0, 1, 0, 1))),
    "slice of channels": Apply(lambda x: x[:, 2:5]),
    "shuffle": nn.ChannelShuffle(3),
    "the input": nn.Identity(),
    "dropout": nn.Sequential(nn.Dropout(), nn.ReLU()),
}


@pytest.mark.parametrize("name", PARTS)
def test_ncnn_layer(ncnn, name):
    torch.manual_seed(0)
    for module in PARTS[name].modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 2)
    assert_same(ncnn, PARTS[name], random(1, 6, 9, 8), tolerance=2e-5 if name != "gelu" else 1e-3)


@pytest.mark.parametrize(
    ("function", "operator"),
    [
        (lambda x: x.transpose(2, 3), "transpose"),
        (lambda x: x.flatten(0, 1)[None].squeeze(0), r"flatten \(that moves the batch"),
        (lambda x: x.std(1), "std"),
        (lambda x: functional.max_pool2d(x, 2, ceil_mode=True), r"max_pool2d \(ceil_mode that adds a window"),
        (lambda x: functional.pad(x, (1, 1, 0, 0), mode="reflect"), r"pad \(reflect"),
        (lambda x: torch.cat([x, x], dim=0), "an operator along the batch"),
    ],
)
def test_ncnn_names_an_operator(function, operator):
    with pytest.raises(
        DeviceError, match=f"Apply cannot be written for ncnn: nasmw does not write its operator {operator}"
    ):
        export_ncnn(Apply(function), random(1, 6, 9, 8))


def test_ncnn_takes_norms_and_activations_into_convolutions():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 2, 1), nn.Hardswish())
    param, weights = export_ncnn(model, random(1, 3, 8, 8))
    kinds = [line.split()[0] for line in param.decode().splitlines()[2:]]
    assert kinds == ["Input", "Convolution", "Convolution", "Noop"]
    assert len(weights) == 4 * (1 + 3 * 4 * 9 + 4 + 1 + 4 * 2 + 2)


# -- PyTorch ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["nasbench201", "ofa_mobilenetv3", "fbnet", "darts", "autoformer"])
def test_torch_computes_the_same(pytorch, name):
    assert_same(pytorch, *network(name))


@pytest.mark.slow
def test_torch_compiled_computes_the_same():
    with Torch(mode="compiled").open() as session:
        assert_same(session, *network("nats_size"))


def test_a_network_travels_without_the_classes_of_its_space(tmp_path):
    """What is sent can be loaded by a Python that has PyTorch and no nasmw."""
    model, x = network("darts")
    (tmp_path / "model.pt").write_bytes(Torch().export(model, x).files["model.pt"])
    torch.save(x, tmp_path / "x.pt")
    code = (
        "import sys, torch\n"
        "sys.modules['nasmw'] = None\n"
        "model = torch.load('model.pt', weights_only=False)\n"
        "with torch.inference_mode(): torch.save(model(torch.load('x.pt')), 'y.pt')\n"
        "assert not any(name.startswith('nasmw.') for name in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)
    with torch.inference_mode():
        assert torch.equal(torch.load(tmp_path / "y.pt"), model(x))


class Branching(nn.Module):
    """Takes a course that depends on values, which torch.fx cannot trace."""

    def forward(self, x):
        return x + 1 if x.sum() > 0 else x - 1


def test_a_network_that_cannot_be_traced_stays_in_this_environment():
    with pytest.raises(
        DeviceError, match=r"Branching cannot travel .* torch.fx cannot trace it .*this environment only"
    ):
        Torch(python=sys.executable).export(Branching(), random(2, 3))


def test_a_class_that_the_far_side_cannot_import(pytorch):
    with pytest.raises(DeviceError, match=r"Its classes have to be importable there"):
        pytorch.prepare("network", pytorch.device.export(Branching(), random(2, 3)))


def test_a_network_that_is_importable_travels_pickled(pytorch, monkeypatch):
    monkeypatch.setattr("nasmw.devices.torch._plain", lambda *_: 1 / 0)
    assert_same(pytorch, *network("nasbench201"))


def test_a_network_that_cannot_be_pickled():
    model = Apply(lambda x: x + 1 if x.sum() > 0 else x)
    with pytest.raises(DeviceError, match=r"Apply cannot travel to .*: it cannot be pickled"):
        Torch().export(model, random(2, 3))


def test_a_trace_that_computes_something_else_is_not_sent(monkeypatch):
    import torch.fx

    monkeypatch.setattr(torch.fx, "symbolic_trace", lambda model: torch.fx.GraphModule(nn.Module(), wrong()))
    with pytest.raises(DeviceError, match="torch.fx cannot trace it"):
        Torch(host="elsewhere").export(nn.ReLU(), random(2, 3))


def wrong():
    graph = torch.fx.Graph()
    graph.output(graph.call_function(torch.neg, (graph.placeholder("x"),)))
    return graph


def test_the_network_is_left_as_it_was():
    model = nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), nn.Dropout())
    Torch().export(model, random(1, 3, 4, 4))
    assert all(module.training for module in model.modules())


def test_a_gpu_that_is_not_there_is_an_error():
    if torch.cuda.is_available():
        pytest.skip("there is one")
    with Torch(device="cuda").open() as session:
        with pytest.raises(DeviceError, match="finds no CUDA device here"):
            session.describe()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("mode", ["eager", "channels_last"])
def test_torch_on_a_gpu(mode):
    with Torch(mode=mode, device="cuda").open() as session:
        assert "CUDA" in session.describe()["accelerator"]
        assert_same(session, *network("nasbench201"))


def test_the_key_names_an_accelerator_in_place_of_the_processor():
    about = {"runtime": "torch", "version": "2.13", "precision": "fp32", "threads": 1, "cpu": "some CPU"}
    assert key_of("torch-eager", about) == "torch-eager: torch 2.13, fp32, 1 thread, some CPU"
    about["accelerator"] = "some GPU, CUDA 12"
    assert key_of("torch-eager-cuda", about).endswith("1 thread, some GPU, CUDA 12")
