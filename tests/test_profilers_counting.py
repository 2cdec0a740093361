from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from nasmw.errors import ProfilerError
from nasmw.profilers import count, count_parameters
from nasmw.profilers.operators import einsum_macs

IMAGE = torch.zeros(1, 3, 16, 16)
TOKENS = torch.zeros(2, 5, 8)


class Calls(nn.Module):
    """A network of a function and the modules that it uses."""

    def __init__(self, function, **modules):
        super().__init__()
        self.function = function
        for name, module in modules.items():
            setattr(self, name, module)

    def forward(self, *args, **kwargs):
        return self.function(self, *args, **kwargs)


def then_conv(function):
    """The function, then a 1x1 convolution to 4 channels, whose MACs tell the shape that came out of the function."""
    return Calls(lambda net, x: net.conv(function(x)), conv=nn.Conv2d(3, 4, 1))


def tied():
    net = nn.Sequential(nn.Linear(8, 8, bias=False), nn.Linear(8, 8, bias=False))
    net[1].weight = net[0].weight
    return net


MODULES = {
    # name: (network, example, MACs, parameters)
    "conv": (nn.Conv2d(3, 6, 3, bias=True), IMAGE, 14 * 14 * 6 * 27, 168),
    "a bias is no MAC": (nn.Conv2d(3, 6, 3, bias=False), IMAGE, 14 * 14 * 6 * 27, 162),
    "conv grouped": (nn.Conv2d(6, 9, 3, groups=3), torch.zeros(1, 6, 8, 8), 36 * 9 * 2 * 9, 171),
    "conv depthwise": (nn.Conv2d(6, 6, 5, 2, 2, groups=6), torch.zeros(1, 6, 8, 8), 16 * 6 * 25, 156),
    "conv dilated": (nn.Conv2d(3, 2, 3, dilation=2), IMAGE, 12 * 12 * 2 * 27, 56),
    "conv same": (nn.Conv2d(3, 6, 4, padding="same"), IMAGE, 256 * 6 * 48, 294),
    "conv circular": (nn.Conv2d(3, 6, 3, padding=1, padding_mode="circular"), IMAGE, 256 * 6 * 27, 168),
    "conv without a batch": (nn.Conv2d(3, 6, 3), IMAGE[0], 14 * 14 * 6 * 27, 168),
    "conv of a batch": (nn.Conv2d(3, 6, 3), torch.zeros(4, 3, 16, 16), 4 * 14 * 14 * 6 * 27, 168),
    "conv 1d": (nn.Conv1d(5, 4, 3), TOKENS, 2 * 6 * 4 * 15, 64),
    "conv 3d": (nn.Conv3d(3, 2, 3, padding=1), torch.zeros(1, 3, 4, 5, 6), 120 * 2 * 81, 164),
    "conv transposed": (nn.ConvTranspose2d(3, 6, 4, 2, 1, groups=3), IMAGE, 256 * 3 * 2 * 16, 102),
    "linear of sequences": (nn.Linear(8, 4), TOKENS, 10 * 32, 36),
    "bilinear": (nn.Bilinear(8, 8, 4), (TOKENS, TOKENS), 10 * 4 * 64, 260),
    "called twice": (Calls(lambda net, x: net.layer(net.layer(x)), layer=nn.Linear(8, 8)), TOKENS, 2 * 640, 72),
    "at two resolutions": (
        Calls(lambda net, x: net.conv(net.conv(x)[..., ::2, ::2]), conv=nn.Conv2d(3, 3, 3, padding=1)),
        IMAGE,
        (256 + 64) * 81,
        84,
    ),
    "tied weights": (tied(), TOKENS, 2 * 640, 64),
    "unused submodule": (
        Calls(lambda net, x: net.used(x), used=nn.Linear(8, 2), dead=nn.Linear(8, 8)),
        TOKENS,
        160,
        90,
    ),
    "identity": (nn.Sequential(nn.Identity(), nn.Linear(8, 2), nn.Identity()), TOKENS, 160, 18),
    "layer norm": (nn.Sequential(nn.LayerNorm(8), nn.Linear(8, 2)), TOKENS, 160, 34),
    "group norm": (nn.Sequential(nn.GroupNorm(3, 3), nn.Conv2d(3, 2, 1)), IMAGE, 1536, 14),
    "batch norm 1d at batch 1": (nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8)), TOKENS[:1, 0], 64, 88),
    "SiLU": (nn.Sequential(nn.SiLU(), nn.Conv2d(3, 2, 1)), IMAGE, 1536, 8),
    "PReLU": (nn.Sequential(nn.PReLU(3), nn.Conv2d(3, 2, 1)), IMAGE, 1536, 11),
    "self-attention": (nn.MultiheadAttention(8, 2, batch_first=True), (TOKENS,) * 3, 10 * 4 * 64 + 2 * 2 * 25 * 8, 288),
    "encoder layer": (nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), TOKENS, 2560 + 800 + 2560, 600),
    "LSTM": (nn.LSTM(8, 6, batch_first=True), TOKENS, 10 * (24 * 8 + 24 * 6), 384),
    "LSTM of two layers and directions": (
        nn.LSTM(8, 6, 2, bidirectional=True),
        TOKENS,
        10 * 2 * (24 * 8 + 24 * 6 + 24 * 12 + 24 * 6),
        1728,
    ),
    "LSTM projected": (nn.LSTM(8, 6, proj_size=3), TOKENS, 10 * (24 * 8 + 24 * 3 + 18), 330),
    "LSTM cell": (nn.LSTMCell(8, 6), TOKENS[0], 5 * (24 * 8 + 24 * 6), 384),
    "GRU": (nn.GRU(8, 6), TOKENS, 10 * (18 * 8 + 18 * 6), 288),
    "embedding": (nn.Sequential(nn.Embedding(10, 8), nn.Linear(8, 2)), torch.zeros(2, 5, dtype=torch.long), 160, 98),
}

FUNCTIONS = {
    # name: (function of an image, height times width of what comes out)
    "max pool, ceil": (lambda x: F.max_pool2d(F.pad(x, (0, 1, 0, 1)), 2, ceil_mode=True), 81),
    "average pool, ceil": (lambda x: F.avg_pool2d(F.pad(x, (0, 1, 0, 1)), 2, ceil_mode=True), 81),
    "adaptive pool": (lambda x: F.adaptive_avg_pool2d(x, (None, 1)), 16),
    "interpolate": (lambda x: F.interpolate(x, scale_factor=2), 1024),
    "interpolate bilinear": (lambda x: F.interpolate(x, size=(5, 7), mode="bilinear"), 35),
    "chunk": (lambda x: x.chunk(2, dim=2)[0], 128),
    "split": (lambda x: x.split(4, 3)[1], 64),
    "transpose": (lambda x: x[..., :4].transpose(2, 3), 64),
    "scaled": (lambda x: (x * 2.0 - 1.0) / 3.0, 256),
    "reshape": (lambda x: x.reshape(x.shape[0], 3, -1, 1), 256),
    "flatten": (lambda x: x.flatten(2).unsqueeze(-1).contiguous(), 256),
    "stack": (lambda x: torch.stack([x, x]).sum(0), 256),
    "pad": (lambda x: F.pad(x, (1, 1, 1, 1), mode="reflect"), 324),
    "roll": (lambda x: torch.roll(x, 3, dims=2).clamp(0, 1), 256),
    "where": (lambda x: torch.where(x > 0, x, x.exp()), 256),
    "normalized": (lambda x: F.normalize((x - x.mean((2, 3), True)) / x.std((2, 3), keepdim=True)), 256),
    "softmax": (lambda x: F.softmax(x, 1) + F.silu(x) + torch.sigmoid(x), 256),
    "expand": (lambda x: x[..., :1].expand(-1, -1, -1, 5).repeat(1, 1, 2, 1), 160),
    "pixel unshuffle": (lambda x: F.pixel_unshuffle(x, 2)[:, ::4], 64),
    "scalar shape arithmetic": (lambda x: x[..., : x.shape[2] // 2, : int(x.shape[3] * 0.5)], 64),
}

PRODUCTS = {
    "matmul": (lambda a, b: a @ b, (2, 4, 5), (2, 5, 6), 240, "matmul"),
    "matmul broadcast": (lambda a, b: a @ b, (4, 5), (3, 2, 5, 6), 720, "matmul"),
    "matmul of a vector": (lambda a, b: a @ b, (2, 4, 5), (5,), 40, "matmul"),
    "dot": (lambda a, b: a @ b, (5,), (5,), 5, "matmul"),
    "bmm": (torch.bmm, (2, 4, 5), (2, 5, 6), 240, "matmul"),
    "baddbmm": (lambda a, b: torch.baddbmm(torch.zeros(4, 6), a, b), (2, 4, 5), (2, 5, 6), 240, "matmul"),
    "addbmm": (lambda a, b: torch.addbmm(torch.zeros(4, 6), a, b), (2, 4, 5), (2, 5, 6), 240, "matmul"),
    "addmm": (lambda a, b: torch.addmm(torch.zeros(6), a, b), (4, 5), (5, 6), 120, "linear"),
    "tensordot": (lambda a, b: torch.tensordot(a, b, dims=([2], [1])), (2, 4, 5), (2, 5, 6), 480, "matmul"),
    "einsum": (lambda a, b: torch.einsum("bhqd,bhkd->bhqk", a, b), (2, 3, 4, 5), (2, 3, 6, 5), 720, "einsum"),
    "einsum with dots": (lambda a, b: torch.einsum("...ij,jk", a, b), (2, 7, 3, 4), (4, 5), 840, "einsum"),
    "cross-attention": (
        lambda q, k: F.scaled_dot_product_attention(q, k, k[..., :3]),
        (2, 4, 7, 8),
        (2, 4, 9, 8),
        8 * 7 * 9 * (8 + 3),
        "attention",
    ),
    "causal attention": (
        lambda q, k: F.scaled_dot_product_attention(q, k, k, is_causal=True),
        (1, 2, 6, 4),
        (1, 2, 6, 4),
        2 * 36 * 8,
        "attention",
    ),
    "grouped queries": (
        lambda q, k: F.scaled_dot_product_attention(q, k, k, enable_gqa=True),
        (2, 4, 7, 8),
        (2, 2, 9, 8),
        8 * 63 * 16,
        "attention",
    ),
    "attention by hand": (
        lambda q, k: (q @ k.transpose(-2, -1)).softmax(-1) @ k,
        (2, 4, 7, 8),
        (2, 4, 9, 8),
        8 * 63 * 16,
        "matmul",
    ),
}


@pytest.mark.parametrize("name", MODULES)
def test_modules(name):
    net, example, macs, parameters = MODULES[name]
    counted = count(net, example)
    assert counted.macs == macs
    assert sum(counted.by_operator.values()) == macs
    assert counted.uncounted == {}
    assert count_parameters(net) == parameters


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_keep_the_shape_right(name):
    function, pixels = FUNCTIONS[name]
    counted = count(then_conv(function), IMAGE)
    assert counted.by_operator == {"conv": pixels * 12}
    assert counted.uncounted == {}


@pytest.mark.parametrize("name", PRODUCTS)
def test_products(name):
    function, first, second, macs, kind = PRODUCTS[name]
    counted = count(Calls(lambda net, a, b: function(a, b)), (torch.zeros(first), torch.zeros(second)))
    assert counted.by_operator == {kind: macs}
    assert counted.uncounted == {}


ACTIVATIONS = [
    "ReLU",
    "ReLU6",
    "SiLU",
    "GELU",
    "Hardswish",
    "Hardsigmoid",
    "Hardtanh",
    "ELU",
    "SELU",
    "CELU",
    "LeakyReLU",
    "RReLU",
    "Sigmoid",
    "LogSigmoid",
    "Softplus",
    "Softshrink",
    "Softsign",
    "Tanh",
    "Tanhshrink",
    "Mish",
    "Hardshrink",
    "Dropout",
    "Dropout2d",
    "Flatten",
    "Softmax2d",
]


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_cost_no_macs_and_are_not_reported(name):
    counted = count(getattr(nn, name)(), IMAGE)
    assert (counted.macs, counted.uncounted) == (0, {})


def test_packed_sequences():
    def run(net, x):
        packed = nn.utils.rnn.pack_padded_sequence(x, [5, 3], batch_first=True)
        return nn.utils.rnn.pad_packed_sequence(net.layer(packed)[0])[0]

    counted = count(Calls(run, layer=nn.LSTM(8, 6, batch_first=True)), TOKENS)
    assert counted.by_operator == {"recurrent": 8 * (24 * 8 + 24 * 6)}


@pytest.mark.parametrize(
    ("equation", "shapes", "path", "macs"),
    [
        ("ij,jk,kl->il", [(2, 3), (3, 4), (4, 5)], None, 24 + 40),
        ("ij,jk,kl->il", [(2, 3), (3, 4), (4, 5)], [1, 2, 0, 1], 60 + 30),
        ("ij->i", [(3, 4)], None, 0),
        ("ij,kl->i", [(2, 3), (4, 5)], None, 2),
        ("a...,b...->ab", [(2, 4, 5), (3, 4, 5)], None, 2 * 3 * 20),
        ("a...b,b", [(2, 4, 5), (5,)], None, 40),
    ],
)
def test_einsum_goes_by_pairs(equation, shapes, path, macs):
    assert einsum_macs(equation, shapes, path) == macs


def test_einsum_of_three_is_counted_as_torch_runs_it():
    net = Calls(lambda net, a, b, c: torch.einsum("ij,jk,kl->il", a, b, c))
    counted = count(net, (torch.zeros(2, 3), torch.zeros(3, 4), torch.zeros(4, 5)))
    assert counted.macs in (24 + 40, 60 + 30)  # the second order is taken where opt_einsum is installed


@settings(max_examples=25, deadline=None)
@given(
    groups=st.integers(1, 3),
    inner=st.integers(1, 3),
    outer=st.integers(1, 3),
    kernel=st.integers(1, 4),
    stride=st.integers(1, 3),
    padding=st.integers(0, 3),
    dilation=st.integers(1, 2),
    size=st.integers(7, 12),
)
def test_convolutions_follow_the_closed_formula(groups, inner, outer, kernel, stride, padding, dilation, size):
    net = nn.Conv2d(groups * inner, groups * outer, kernel, stride, padding, dilation, groups=groups)
    out = (size + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1
    counted = count(net, torch.zeros(1, groups * inner, size, size))
    assert counted.macs == out * out * groups * outer * inner * kernel * kernel


def test_normalization_and_pooling_stand_apart():
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.AdaptiveAvgPool2d(1))
    counted = count(net, IMAGE)
    assert counted.by_operator == {"conv": 256 * 12}
    assert counted.normalization == 1024
    assert counted.pooling == 1024 + 256


class Square(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x @ x.transpose(-2, -1)


@pytest.mark.parametrize(
    ("function", "name"),
    [
        (torch.fft.rfft2, "aten::fft_rfft2"),
        (lambda x: torch.cdist(x, x), "aten::cdist"),
        (Square.apply, "prim::PythonOp.Square"),
    ],
)
def test_what_cannot_be_counted_is_named(function, name):
    counted = count(Calls(lambda net, x: function(x)), IMAGE)
    assert counted.uncounted == {name: 1}


def test_example_inputs_of_all_kinds():
    net = nn.MultiheadAttention(8, 2, batch_first=True)
    positional = count(net, (TOKENS, TOKENS, TOKENS))
    by_name = count(net, {"query": TOKENS, "key": TOKENS, "value": TOKENS, "need_weights": False})
    assert positional.macs == by_name.macs == 3360
    nested = Calls(lambda net, pair, scale: {"out": [net.layer(pair["x"]) * scale, None]}, layer=nn.Linear(8, 2))
    assert count(nested, ({"x": TOKENS}, 2.0)).macs == 160


@pytest.mark.parametrize("example", [None, 3, "image", {1: IMAGE}, (), {"x": 1}])
def test_what_is_no_example_input(example):
    with pytest.raises(TypeError, match=r"example input (is a tensor|needs at least one tensor)"):
        count(nn.Conv2d(3, 2, 1), example)


def test_a_wrong_shape_names_network_and_shape():
    with pytest.raises(ProfilerError, match=r"a Conv2d does not run on an example input of shape \(1, 4, 8, 8\)"):
        count(nn.Conv2d(3, 2, 1), torch.zeros(1, 4, 8, 8))


def test_lazy_and_scripted_networks_are_refused():
    with pytest.raises(ProfilerError, match="lazy layers"):
        count(nn.LazyLinear(3), TOKENS)
    with pytest.raises(ProfilerError, match="lazy layers"):
        count_parameters(nn.LazyLinear(3))
    scripted = Calls(lambda net, x: net.layer(x), layer=torch.jit.trace(nn.Linear(8, 2), TOKENS))
    with pytest.raises(ProfilerError, match="scripted modules"):
        count(scripted, TOKENS)


class Restless(nn.Module):
    """Batch norm, dropout, a buffer that forward replaces, a random number, and a fault on demand."""

    def __init__(self, fails=False):
        super().__init__()
        self.norm = nn.BatchNorm2d(3)
        self.drop = nn.Dropout(0.5)
        self.register_buffer("calls", torch.zeros(()))
        self.fails = fails

    def forward(self, x):
        self.calls = self.calls + 1
        self.norm.running_mean.add_(1.0)
        if self.fails:
            raise RuntimeError("broken on purpose")
        return self.drop(self.norm(x)) + torch.rand(())


@pytest.mark.parametrize("fails", [False, True])
def test_the_network_stays_as_it_was(fails):
    net = Restless(fails)
    net.norm.eval()
    seen = []
    net.register_forward_hook(lambda *_: seen.append(torch.is_grad_enabled() or net.training))
    before = copy.deepcopy(net.state_dict())
    buffer = net.calls
    random = torch.random.get_rng_state()
    fused = torch.backends.mha.get_fastpath_enabled()
    if fails:
        with pytest.raises(ProfilerError, match="broken on purpose"):
            count(net, IMAGE)
    else:
        count(net, IMAGE)
        assert seen == [False]
    assert [module.training for module in net.modules()] == [True, False, True]
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())
    assert net.calls is buffer
    assert torch.equal(torch.random.get_rng_state(), random)
    assert torch.backends.mha.get_fastpath_enabled() == fused
    assert len(net._forward_hooks) == 1 and not net.norm._forward_hooks
    assert not any(parameter.grad is not None for parameter in net.parameters())
    assert torch.is_grad_enabled()


def test_counts_agree_with_the_counter_of_torch():
    from torch.utils.flop_counter import FlopCounterMode

    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1),
        nn.BatchNorm2d(8),
        nn.Hardswish(),
        nn.Conv2d(8, 8, 5, groups=8, padding=2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 10),
    ).eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        net(IMAGE)
    assert count(net, IMAGE).macs == counter.get_total_flops() // 2


def test_buffers_are_counted_on_demand():
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    assert count_parameters(net) == 16 + 8
    assert count_parameters(net, buffers=True) == 24 + 9


def test_counts_are_integers():
    counted = count(nn.Conv2d(3, 4, 1), IMAGE)
    assert all(type(value) is int for value in (counted.macs, counted.normalization, counted.pooling))
    assert all(isinstance(value, int) and not isinstance(value, np.integer) for value in counted.by_operator.values())
