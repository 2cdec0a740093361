"""The direct ONNX exporter: its numbers are PyTorch's, for layers, ready spaces and random chains of layers."""

import importlib.util
import logging

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

from nasmw import export, spaces  # noqa: E402
from nasmw.devices import sensible_weights  # noqa: E402
from nasmw.devices.onnx_export import export_onnx, to_onnx  # noqa: E402
from nasmw.errors import DeviceError, MissingExtraError  # noqa: E402


def run(content, *inputs):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    names = [item.name for item in session.get_inputs()]
    return session.run(None, {name: tensor.numpy() for name, tensor in zip(names, inputs, strict=True)})


def random(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


def outputs(model, *inputs):
    with torch.inference_mode():
        result = model.eval()(*inputs)
    return [tensor.numpy() for tensor in (result if isinstance(result, (tuple, list)) else [result])]


def assert_same(model, *inputs, tolerance=2e-6):
    """Check that ONNX Runtime is about as near to the result in double precision as PyTorch is."""
    content = to_onnx(model, inputs)
    assert not content.fallback
    onnx.checker.check_model(content.data, full_check=True)
    eager = outputs(model, *inputs)
    exact = outputs(model.double(), *(x.double() if x.is_floating_point() else x for x in inputs))
    model.float()
    for got, near, true in zip(run(content.data, *inputs), eager, exact, strict=True):
        scale = np.abs(true).max() or 1.0
        assert got.shape == true.shape
        assert np.abs(got - true).max() <= 20 * np.abs(near - true).max() + tolerance * scale
    return onnx.load_model_from_string(content.data)


def kinds(model):
    return [node.op_type for node in model.graph.node]


class Apply(nn.Module):
    def __init__(self, function, *layers):
        super().__init__()
        self.function = function
        self.layers = nn.ModuleList(layers)

    def forward(self, *inputs):
        return self.function(*inputs, *self.layers)


IMAGE = (2, 6, 9, 8)
LAYERS = {
    "conv": nn.Conv2d(6, 4, 3, padding=1),
    "conv stride": nn.Conv2d(6, 4, (3, 5), stride=(2, 1), padding=(0, 2), bias=False),
    "conv groups": nn.Conv2d(6, 9, 3, groups=3, dilation=2),
    "conv depthwise": nn.Conv2d(6, 6, 5, groups=6, padding=2),
    "conv transposed": nn.ConvTranspose2d(6, 4, 3, stride=2, padding=1, output_padding=1),
    "batch norm": nn.BatchNorm2d(6),
    "batch norm plain": nn.BatchNorm2d(6, affine=False),
    "layer norm": nn.LayerNorm(8),
    "layer norm plain": nn.LayerNorm((9, 8), elementwise_affine=False),
    "linear": nn.Linear(8, 5),
    "linear plain": nn.Linear(8, 5, bias=False),
    "relu": nn.ReLU(),
    "relu in place": nn.Sequential(nn.Conv2d(6, 6, 1), nn.ReLU(inplace=True), nn.Hardswish(inplace=True)),
    "relu6": nn.ReLU6(),
    "relu6 in place": nn.Sequential(nn.Conv2d(6, 6, 1), nn.ReLU6(inplace=True)),
    "leaky relu": nn.LeakyReLU(0.1),
    "elu": nn.ELU(),
    "hardtanh": nn.Hardtanh(-0.5, 0.7),
    "hardswish": nn.Hardswish(),
    "hardsigmoid": nn.Hardsigmoid(),
    "sigmoid": nn.Sigmoid(),
    "tanh": nn.Tanh(),
    "gelu": nn.GELU(),
    "gelu tanh": nn.GELU(approximate="tanh"),
    "silu": nn.SiLU(),
    "softmax": nn.Softmax(dim=1),
    "log softmax": nn.LogSoftmax(dim=-1),
    "max pool": nn.MaxPool2d(3, stride=2, padding=1),
    "max pool dilated": nn.MaxPool2d(2, stride=1, dilation=2),
    "max pool up": nn.MaxPool2d(2, ceil_mode=True),
    "average pool": nn.AvgPool2d(3, stride=1, padding=1, count_include_pad=False),
    "average pool counting": nn.AvgPool2d(3, stride=2, padding=1),
    "average pool up": nn.AvgPool2d(2, stride=2, ceil_mode=True),
    "global pool": nn.AdaptiveAvgPool2d(1),
    "adaptive pool": nn.AdaptiveAvgPool2d((3, 4)),
    "adaptive max pool": nn.AdaptiveMaxPool2d(1),
    "flatten": nn.Flatten(),
    "dropout": nn.Sequential(nn.Dropout(0.5), nn.Conv2d(6, 2, 1)),
    "shuffle": nn.ChannelShuffle(3),
    "pixel shuffle": nn.PixelShuffle(1),
    "identity": nn.Sequential(nn.Identity(), nn.ReLU()),
    "attention": nn.Sequential(nn.Flatten(2), nn.TransformerEncoderLayer(72, 4, 16, batch_first=True)),
}
FUNCTIONS = {
    "zeros": lambda x: x * 0.0,
    "add": lambda x: x + x.relu(),
    "add number": lambda x: 1 + x - 0.5,
    "reverse": lambda x: (2 - x) / 3,
    "multiply": lambda x: x * torch.sigmoid(x.mean((2, 3), keepdim=True)),
    "clamp": lambda x: x.clamp(max=0.25),
    "power": lambda x: (x.abs() + 1) ** 0.5 + torch.rsqrt(x * x + 1),
    "concatenate": lambda x: torch.cat([x, -x, x.exp()], dim=1),
    "stack": lambda x: torch.stack([x, x.tanh()], dim=2),
    "flatten": lambda x: x.flatten(2),
    "reshape": lambda x: x.reshape(2, 3, 2, -1).permute(0, 2, 1, 3),
    "view": lambda x: x.view(len(x), -1),
    "transpose": lambda x: x.transpose(1, -1),
    "squeeze": lambda x: x.mean(1, keepdim=True).squeeze(1)[:, None],
    "mean": lambda x: x.mean(dim=1) + x.mean(dim=-1, keepdim=True).mean(dim=1),
    "mean of images": lambda x: x.mean((2, 3)),
    "mean of all": lambda x: x.mean(),
    "sum": lambda x: x.sum((1, 2)) + x.amax(dim=(1, 2)),
    "matmul": lambda x: x @ x.transpose(2, 3),
    "bmm": lambda x: torch.bmm(x.flatten(1, 2), x.flatten(1, 2).mT),
    "einsum": lambda x: torch.einsum("bchw,bdhw->bcd", x, x),
    "softmax": lambda x: x.softmax(-1).log_softmax(1),
    "attention": lambda x: functional.scaled_dot_product_attention(x, x * 0.5, x + 1),
    "attention masked": lambda x: functional.scaled_dot_product_attention(x, x, x, attn_mask=torch.ones(9, 9)),
    "chunk": lambda x: x.chunk(2, dim=1)[1] * x.split([1, 2, 3], dim=1)[2],
    "unbind": lambda x: x.unbind(1)[3],
    "slice": lambda x: x[:, 1:5:2, 1:, -3:],
    "select": lambda x: x[:, -1] + x[:, 0],
    "gather": lambda x: x[:, torch.tensor([0, 2, 2])],
    "pad": lambda x: functional.pad(x, (1, 0, 2, 1), value=0.5),
    "pad by reflection": lambda x: functional.pad(x, (1, 2, 0, 1), mode="reflect"),
    "expand": lambda x: x.mean(1, keepdim=True).expand(-1, 4, -1, -1),
    "convert": lambda x: (4 * x).long().float() + x.double().float(),
    "two": lambda x: (x + 1, x.mean(1)),
    "unused": lambda x: (x.exp(), x + 1)[1],
    "the input": lambda x: (x, x),
    "a constant too": lambda x: (x + 1, torch.arange(3) * 2),
    "made tensors": lambda x: x + torch.arange(8.0) * torch.linspace(0, 1, 8),
    "in place": lambda x: (x + 1).mul_(2).add_(x),
}


@pytest.mark.parametrize("name", LAYERS)
def test_layer(name):
    layer = LAYERS[name]
    torch.manual_seed(0)
    for module in layer.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.5, 2)
    assert_same(layer.eval(), random(*IMAGE))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_function(name):
    assert_same(Apply(FUNCTIONS[name]), random(*IMAGE))


def test_linear_layers_on_one_and_on_many_tokens():
    layer = nn.Linear(8, 5)
    assert kinds(assert_same(layer, random(3, 8))) == ["Gemm"]
    assert kinds(assert_same(layer, random(3, 4, 8))) == ["MatMul", "Add"]


def ready():
    return {
        "nasbench201": (spaces.nasbench201(cells=2), 32),
        "nats_size": (spaces.nats_size(), 32),
        "ofa_mobilenetv3": (spaces.ofa_mobilenetv3(resolutions=[64]), 64),
        "compofa": (spaces.compofa(resolutions=[64]), 64),
        "mobilenetv3": (spaces.mobilenetv3(input_size=64), 64),
        "fbnet": (spaces.fbnet(input_size=64), 64),
        "proxylessnas": (spaces.proxylessnas(input_size=64), 64),
        "darts": (spaces.darts(cells=3, channels=8), 32),
        "autoformer": (spaces.autoformer("tiny", input_size=64), 64),
    }


@pytest.mark.parametrize("name", ready())
@pytest.mark.parametrize("batch", [1, 3])
def test_networks_of_every_ready_space_without_fallback(name, batch):
    space, size = ready()[name]
    for architecture in space.sample(1, np.random.default_rng(batch)):
        model = sensible_weights(space.build(architecture))
        made = assert_same(model, random(batch, 3, size, size))
        assert [dim.dim_value for dim in made.graph.input[0].type.tensor_type.shape.dim] == [batch, 3, size, size]


def test_zero_edges_stay_in_the_graph():
    space = spaces.nasbench201(cells=1)
    architecture = dict.fromkeys(space.names, "none")
    model = space.build(architecture)
    made = assert_same(sensible_weights(model), random(1, 3, 32, 32))
    assert kinds(made).count("Mul") == 3 * 6  # three stages of one cell with six edges


def test_batch_norms_after_a_convolution_are_merged_and_others_kept():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)
            self.second, self.read_twice = nn.Conv2d(4, 4, 1, bias=False), nn.BatchNorm2d(4)

        def forward(self, x):
            x = self.norm(self.first(x))
            y = self.second(x)
            return self.read_twice(y) + y

    net = Net().eval()
    for module in (net.norm, net.read_twice):
        for tensor in (module.running_mean, module.running_var, module.weight, module.bias):
            nn.init.uniform_(tensor, 0.5, 2)
    made = assert_same(net, random(1, 3, 8, 8))
    assert kinds(made) == ["Conv", "Conv", "BatchNormalization", "Add"]
    names = {tensor.name for tensor in made.graph.initializer}
    assert {"first.weight", "first.bias", "second.weight", "read_twice.running_mean"} <= names


def test_a_shared_layer_is_merged_with_each_of_its_batch_norms():
    conv, one, two = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), nn.BatchNorm2d(3)
    nn.init.uniform_(two.running_mean)
    net = nn.Sequential(conv, one, conv, two).eval()
    assert kinds(assert_same(net, random(1, 3, 4, 4))) == ["Conv", "Conv"]


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_random_chains_of_layers(data):
    torch.manual_seed(data.draw(st.integers(0, 1000)))
    channels = 6
    layers = []
    for _ in range(data.draw(st.integers(1, 6))):
        kind = data.draw(st.sampled_from(["conv", "norm", "act", "pool", "shuffle"]))
        if kind == "conv":
            groups = data.draw(st.sampled_from([1, 2, channels]))
            kernel = data.draw(st.sampled_from([1, 3, 5]))
            wider = channels * data.draw(st.sampled_from([1, 2]))
            stride = data.draw(st.integers(1, 2))
            layers.append(nn.Conv2d(channels, wider, kernel, stride, kernel // 2, groups=groups))
            channels = wider
        elif kind == "norm":
            norm = nn.BatchNorm2d(channels)
            for tensor in (norm.running_mean, norm.running_var, norm.weight, norm.bias):
                nn.init.uniform_(tensor, 0.5, 1.5)
            layers.append(norm)
        elif kind == "act":
            layer = data.draw(st.sampled_from([nn.ReLU, nn.ReLU6, nn.Hardswish, nn.Hardsigmoid, nn.SiLU]))
            layers.append(layer(inplace=data.draw(st.booleans())))
        elif kind == "pool":
            layers.append(data.draw(st.sampled_from([nn.MaxPool2d(3, 1, 1), nn.AvgPool2d(3, 1, 1)])))
        else:
            layers.append(nn.ChannelShuffle(data.draw(st.sampled_from([1, 2, 3]))))
    assert_same(nn.Sequential(*layers).eval(), random(data.draw(st.integers(1, 3)), 6, 12, 11))


def test_several_inputs_and_outputs_have_numbered_names():
    model = Apply(lambda x, y: (x * y, (x - y).mean(1)))
    made = onnx.load_model_from_string(export_onnx(model, (random(2, 3), random(2, 3))))
    assert [item.name for item in made.graph.input] == ["input0", "input1"]
    assert [item.name for item in made.graph.output] == ["output0", "output1"]
    assert_same(model, random(2, 3), random(2, 3))


def test_tokens_as_input():
    model = nn.Sequential(nn.Embedding(11, 8), nn.LayerNorm(8), nn.Linear(8, 3))
    assert_same(model, torch.tensor([[1, 2, 10], [0, 0, 3]]))


def test_the_network_is_left_as_it_was():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.Dropout())
    net[3].eval()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    x = random(2, 3, 8, 8)
    kept = x.clone()
    export_onnx(net, x)
    assert [module.training for module in net] == [True, True, True, False]
    assert all(torch.equal(before[name], tensor) for name, tensor in net.state_dict().items())
    assert torch.equal(x, kept)


def test_results_of_spaces_that_pytorch_cannot_export(tmp_path):
    """FBNet shuffles channels, for which PyTorch's exporter has nothing."""
    space, size = ready()["fbnet"]
    architecture = dict.fromkeys(space.names, "k3_e1_g2")
    path = tmp_path / "model.onnx"
    model = sensible_weights(space.build(architecture))
    assert export.export_onnx(model, random(2, 3, size, size), path) < 1e-4
    assert "ChannelShuffle" in str(model)
    assert len(run(path.read_bytes(), random(2, 3, size, size))) == 1


# -- what is not known ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("function", "operator"),
    [
        (lambda x: x / x.std(dim=1, keepdim=True), "std"),
        (lambda x: functional.interpolate(x, scale_factor=2, mode="bicubic"), ""),
        (lambda x: functional.adaptive_avg_pool2d(x, (2, 3)), "adaptive_avg_pool2d"),
    ],
)
def test_an_unknown_operator_goes_to_pytorch_and_says_so(function, operator, caplog):
    model, x = Apply(function), random(*IMAGE)
    if operator == "adaptive_avg_pool2d":  # windows of unequal sizes, which PyTorch does not export either
        with pytest.raises(DeviceError, match=r"Apply cannot be exported.*adaptive_avg_pool2d \(windows of unequal"):
            to_onnx(model, x)
        return
    with caplog.at_level(logging.INFO, logger="nasmw"):
        made = to_onnx(model, x)
    assert made.fallback.startswith(operator)
    assert f"Apply is exported by PyTorch, for it has the operator {operator}" in caplog.text
    np.testing.assert_allclose(run(made.data, x)[0], outputs(model, x)[0], rtol=1e-4, atol=1e-5)


def test_writing_into_a_tensor_with_views_is_not_guessed_at():
    def function(x):
        y = x + 1
        half = y[:, :3]
        y.mul_(2)
        return half + 0

    model, x = Apply(function), random(*IMAGE)
    made = to_onnx(model, x)
    assert "views" in made.fallback


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x + 1 if x.sum() > 0 else x - 1,
        lambda x: x * x.max().item(),
        lambda x: x * float(x.mean()),
        lambda x: x[x > 0],
        lambda x: x.std() if x.std() > 1 else x,
        lambda x: x + torch.from_numpy(x.numpy()),
        lambda x: x + torch.tensor(x.tolist()),
        lambda x: torch.nonzero(x),
    ],
)
def test_a_course_that_depends_on_values_is_an_error(function):
    with pytest.raises(DeviceError, match=r"Apply cannot be exported: it reads numbers that depend on its input"):
        export_onnx(Apply(function), random(*IMAGE))


def test_a_course_that_depends_on_shapes_or_constants_is_none():
    scale = nn.BatchNorm1d(1)
    assert_same(Apply(lambda x, layer: x + 1 if x.shape[1] > 3 and layer.eps < 1 else x - 1, scale), random(*IMAGE))


def test_random_numbers_are_an_error():
    with pytest.raises(DeviceError, match="it draws random numbers by"):
        export_onnx(Apply(lambda x: x + torch.rand_like(x)), random(*IMAGE))
    with pytest.raises(DeviceError, match="it draws random numbers by"):
        export_onnx(Apply(lambda x: functional.dropout(x, training=True)), random(*IMAGE))


def test_no_tensor_comes_out():
    with pytest.raises(DeviceError, match="it returns no tensor, but 3"):
        export_onnx(Apply(lambda x: 3), random(*IMAGE))


def test_errors_of_the_network_are_its_own():
    with pytest.raises(RuntimeError, match="shape"):
        export_onnx(nn.Linear(3, 4), random(2, 5))


def test_without_onnx_the_extra_is_named(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"nasmw\[onnx\]"):
        export_onnx(nn.ReLU(), random(1, 3))
