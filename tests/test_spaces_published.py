"""Ready spaces against published numbers: costs of whole benchmarks, parameters of known networks, checkpoints."""

from __future__ import annotations

import math
import os
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from nasmw import Space, spaces
from nasmw.errors import SpaceError
from nasmw.profilers.counting import count, count_parameters

DATASETS = [(10, 32), (100, 32), (120, 16)]
"""Classes and size of CIFAR-10, CIFAR-100 and ImageNet16-120."""


@pytest.fixture
def data() -> Path:
    folder = os.environ.get("NASMW_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("NASMW_DATA names no folder with published data")
    return Path(folder)


def costs(space: Space, architecture: dict[str, Any]) -> tuple[float, float]:
    """Return parameters and MACs."""
    return tuple(space.tables[metric](space, None).value(architecture) for metric in ("params", "macs"))  # type: ignore[return-value]


# -- once for all -------------------------------------------------------------------------------------------------


def ofa_architecture(depths: list[int], kernels: list[int], expands: list[list[int]]) -> dict[str, Any]:
    architecture: dict[str, Any] = {"resolution": 224}
    for stage, (depth, kernel, expand) in enumerate(zip(depths, kernels, expands, strict=True)):
        architecture[f"stage{stage}.depth"] = depth
        for block in range(depth):
            architecture[f"stage{stage}.block{block}.kernel"] = kernel
            architecture[f"stage{stage}.block{block}.expand"] = expand[block]
    return architecture


def test_a_measured_once_for_all_network() -> None:
    space = spaces.ofa_mobilenetv3()
    architecture = ofa_architecture(
        [4, 2, 2, 3, 3], [3, 5, 3, 3, 5], [[6, 6, 4, 4], [3, 3], [3, 4], [6, 3, 4], [3, 4, 3]]
    )
    assert costs(space, architecture) == (4_230_072, 229_891_664)
    model = space.build(architecture)
    assert count_parameters(model) == 4_230_072
    assert count(model, torch.zeros(1, 3, 224, 224)).macs == 229_891_664


def test_compofa_networks_are_once_for_all_networks() -> None:
    whole, coupled = spaces.ofa_mobilenetv3(), spaces.compofa("fixed")
    depths = [2, 3, 4, 2, 3]
    expands = [[{2: 3, 3: 4, 4: 6}[depth]] * depth for depth in depths]
    architecture = {"resolution": 160} | {f"stage{stage}.depth": depth for stage, depth in enumerate(depths)}
    same = ofa_architecture(depths, [3, 5, 3, 3, 5], expands) | {"resolution": 160}
    assert costs(coupled, architecture) == costs(whole, same)
    names = [coupled.build(architecture).state_dict(), whole.build(same).state_dict()]
    assert [(name, tensor.shape) for name, tensor in names[0].items()] == [
        (name, tensor.shape) for name, tensor in names[1].items()
    ]


def published_name(name: str) -> str:
    """Return the name that a once-for-all checkpoint has for a tensor of ours."""
    parts = name.split(".")
    if parts[0] == "classifier":
        return f"classifier.linear.{parts[1]}"
    if parts[0] == "first_block":
        return ".".join(["blocks.0.mobile_inverted_conv", *parts[1:]])
    if parts[0] != "stages":
        return name
    start = f"blocks.{1 + 4 * int(parts[1]) + int(parts[2])}.mobile_inverted_conv.{parts[3]}"
    if parts[4] == "se":
        return ".".join([start, "se.fc", *parts[5:]])
    return ".".join([start, parts[4], *parts[4:]])


@pytest.fixture(scope="module")
def checkpoint() -> dict[str, torch.Tensor]:
    """The greatest network's random weights under published names, with matrices that shrink kernels."""
    torch.manual_seed(0)
    greatest = spaces.ofa_mobilenetv3().build(ofa_architecture([4] * 5, [7] * 5, [[6] * 4] * 5))
    tensors = {}
    for name, tensor in greatest.state_dict().items():
        published = published_name(name)
        tensors[published] = torch.rand_like(tensor) if tensor.is_floating_point() else tensor
        if tensor.ndim == 4 and tensor.shape[-1] == 7:
            conv = published.removesuffix("conv.weight")
            tensors[f"{conv}7to5_matrix"] = torch.rand(25, 25)
            tensors[f"{conv}5to3_matrix"] = torch.rand(9, 9)
    return tensors


def test_published_names_are_ours(checkpoint: dict[str, torch.Tensor]) -> None:
    assert "blocks.1.mobile_inverted_conv.inverted_bottleneck.conv.conv.weight" in checkpoint
    assert "blocks.7.mobile_inverted_conv.depth_conv.se.fc.reduce.bias" in checkpoint
    greatest = spaces.ofa_mobilenetv3().build(ofa_architecture([4] * 5, [7] * 5, [[6] * 4] * 5))
    ours = {spaces.ofa_checkpoint_name(name) for name in checkpoint if not name.endswith("_matrix")}
    assert ours == set(greatest.state_dict())
    assert (
        spaces.ofa_checkpoint_name("module.blocks.20.conv.point_linear.bn.bn.bias") == "stages.4.3.point_linear.bn.bias"
    )


def test_weights_of_a_smaller_network(checkpoint: dict[str, torch.Tensor]) -> None:
    space = spaces.ofa_mobilenetv3()
    model = space.build(
        ofa_architecture([2, 3, 4, 2, 3], [3, 5, 7, 3, 5], [[3] * 4, [4] * 4, [6] * 4, [3] * 4, [4] * 4])
    )
    spaces.load_ofa_weights(model, checkpoint)
    weights = model.state_dict()
    block = "blocks.1.mobile_inverted_conv."
    assert torch.equal(
        weights["stages.0.0.inverted_bottleneck.conv.weight"],
        checkpoint[f"{block}inverted_bottleneck.conv.conv.weight"][:48],
    )
    kernel = checkpoint[f"{block}depth_conv.conv.conv.weight"][5, 0]
    kernel = (checkpoint[f"{block}depth_conv.conv.7to5_matrix"] @ kernel[1:6, 1:6].flatten()).view(5, 5)
    kernel = (checkpoint[f"{block}depth_conv.conv.5to3_matrix"] @ kernel[1:4, 1:4].flatten()).view(3, 3)
    torch.testing.assert_close(weights["stages.0.0.depth_conv.conv.weight"][5, 0], kernel)
    whole = "blocks.9.mobile_inverted_conv.depth_conv.conv.conv.weight"
    assert torch.equal(weights["stages.2.0.depth_conv.conv.weight"], checkpoint[whole])
    assert torch.equal(weights["classifier.bias"], checkpoint["classifier.linear.bias"])


def test_weights_of_another_width(checkpoint: dict[str, torch.Tensor]) -> None:
    wide = spaces.ofa_mobilenetv3(width=1.2).build(ofa_architecture([2] * 5, [3] * 5, [[3] * 4] * 5))
    with pytest.raises(
        SpaceError, match=r"first_conv.conv.weight.*\(24, 3, 3, 3\), the checkpoint has \(16, 3, 3, 3\)"
    ):
        spaces.load_ofa_weights(wide, checkpoint)
    with pytest.raises(SpaceError, match="the checkpoint has nothing for 'first_conv.conv.weight'"):
        spaces.load_ofa_weights(wide, {})


# -- benchmarks ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("dataset", "classes", "size"), [(i, *each) for i, each in enumerate(DATASETS)])
def test_costs_of_all_nasbench201_cells(data: Path, dataset: int, classes: int, size: int) -> None:
    operations = np.load(data / "nb201" / "nb201_accuracy.npz")
    published = np.load(data / "nb201" / "nb201_cost.npz")
    space = spaces.nasbench201(classes, size)
    assert tuple(operations["op_names"].astype(str)) == space.choices[0].options
    codes = operations["ops"].astype(space.dtype)
    assert len(codes) == space.size
    assert (space.tables["params"](space, None).evaluate(codes) == published["params"][:, dataset]).all()
    macs = space.tables["macs"](space, None).evaluate(codes) + classes
    assert ((macs / 1e6).astype(np.float32) == published["mflops"][:, dataset]).all()


@pytest.mark.parametrize(("dataset", "classes", "size"), [(i, *each) for i, each in enumerate(DATASETS)])
def test_parameters_of_all_nats_sizes(data: Path, dataset: int, classes: int, size: int) -> None:
    published = np.load(data / "nats_sss" / "nats_sss.npz")
    space = spaces.nats_size(classes, size)
    widths = np.array(space.choices[0].options)
    codes = np.searchsorted(widths, published["channels"]).astype(space.dtype)
    assert (widths[codes] == published["channels"]).all() and len(codes) == space.size
    assert (space.tables["params"](space, None).evaluate(codes) == published["params"][:, dataset]).all()


def test_function_keys_tell_functions_apart() -> None:
    space = spaces.nasbench201()
    # Nonlinear stand-ins that keep zero: sums of them are equal only where the cells are the same function.
    stand_ins = {
        "nor_conv_1x1": lambda x: math.sin(1.37 * x) + 0.71 * x * x,
        "nor_conv_3x3": lambda x: math.expm1(0.53 * x) + 0.29 * x,
        "avg_pool_3x3": lambda x: math.tanh(2.11 * x) - 1.13 * x,
        "skip_connect": lambda x: x,
        "none": lambda x: 0.0,
    }
    functions: dict[Hashable, set[float]] = {}
    candidates = space.at(range(space.size))
    for key, architecture in zip(space.function_keys(candidates), candidates, strict=True):
        values = [0.6180339887]
        for node in (1, 2, 3):
            values.append(sum(stand_ins[architecture[f"edge_{i}_{node}"]](values[i]) for i in range(node)))
        functions.setdefault(key, set()).add(round(values[3], 9))
    assert all(len(values) == 1 for values in functions.values())
    assert len(functions) == len({next(iter(values)) for values in functions.values()}) == 4930


def test_published_fbnet_architectures_are_in_the_space(data: Path) -> None:
    published = np.load(data / "latency" / "fbnet_archs.npz")
    space = spaces.fbnet()
    assert {choice.options for choice in space.choices} == {tuple(published["op_names"].astype(str))}
    assert len(space.candidates(published["ops"].astype(space.dtype))) == 5000


FBNET_32 = (1, 1, 1, 2, 2, 1, 2, 1)
"""The strides of HW-NAS-Bench for images of 32 pixels."""


def test_fbnet_of_hw_nas_bench(data: Path) -> None:
    """Parameters as published for 5,000 networks; the published FLOPs count batch norms as well."""
    networks, published = (np.load(data / "latency" / f"fbnet_{name}.npz") for name in ("archs", "zcp"))
    space = spaces.fbnet(100, 32, 1504, FBNET_32)
    code_of = np.array([space.choices[0].options.index(name) for name in networks["op_names"].tolist()])
    candidates = space.candidates(code_of[networks["ops"]].astype(space.dtype))
    told = dict(zip(published["names"].tolist(), published["zcp"].T, strict=True))
    params, macs = (space.tables[name](space, None).evaluate(candidates) for name in ("params", "macs"))
    assert (params == told["params"]).all()
    share = macs / told["flops"]
    assert share.min() > 0.93 and share.max() < 0.98
    assert np.corrcoef(macs, told["flops"])[0, 1] > 0.999


# -- known networks -----------------------------------------------------------------------------------------------


def test_fbnet_c() -> None:
    """5.5 M parameters, 375 M MACs in table 3 of the paper; 5,572,200 parameters in public implementations."""
    operators = (
        "k3_e1 k3_e6 skip k3_e1 k3_e1 k5_e6 k5_e3 k5_e6 k3_e6 k5_e6 k5_e3 k5_e6 k5_e6 k5_e6 k5_e6 k5_e6 k5_e3 "
        "k5_e6 k5_e6 k5_e6 k5_e6 k3_e6"
    )
    architecture = {f"layer{i}.op": operator for i, operator in enumerate(operators.split())}
    params, macs = costs(spaces.fbnet(), architecture)
    assert params == 5_572_200
    assert macs == pytest.approx(375e6, rel=0.03)


def test_strides_of_fbnet() -> None:
    """They move layers to other sizes of images, in the tables as in the networks, and weigh nothing."""
    usual, small = (spaces.fbnet(10, 32, 64, strides) for strides in ((2, 1, 2, 2, 2, 1, 2, 1), FBNET_32))
    architecture = next(iter(small.sample(1, np.random.default_rng(0))))
    model = small.build(architecture)
    shapes: list[torch.Size] = []
    for layer in model.modules():
        if isinstance(layer, torch.nn.AdaptiveAvgPool2d):
            layer.register_forward_hook(lambda _, inputs, __: shapes.append(inputs[0].shape))
    model.eval()(torch.zeros(1, 3, 32, 32))
    assert shapes == [torch.Size([1, 64, 4, 4])]
    assert costs(small, architecture)[0] == costs(usual, architecture)[0] == count_parameters(model)
    assert costs(small, architecture)[1] == count(model, torch.zeros(1, 3, 32, 32)).macs
    assert costs(small, architecture)[1] > 4 * costs(usual, architecture)[1]
    assert usual.fingerprint == small.fingerprint
    with pytest.raises(SpaceError, match="FBNet has 8 strides, got 7"):
        spaces.fbnet(strides=FBNET_32[1:])
    with pytest.raises(SpaceError, match="`strides` must be a positive whole number, got 0"):
        spaces.fbnet(strides=(0, *FBNET_32[1:]))


def test_proxylessnas_for_mobile_phones() -> None:
    """4.1 M parameters and 320 M MACs as published."""
    operators = (
        "k5_e3 k3_e3 skip skip k7_e3 k3_e3 k5_e3 k5_e3 k7_e6 k5_e3 k5_e3 k5_e3 k5_e6 k5_e3 k5_e3 k5_e3 "
        "k7_e6 k7_e6 k7_e3 k7_e3 k7_e6"
    )
    space = spaces.proxylessnas(widths=(32, 40, 80, 96, 192, 320))
    params, macs = costs(space, dict(zip(space.names, operators.split(), strict=True)))
    assert params == pytest.approx(4.08e6, rel=0.001)
    assert macs == pytest.approx(320e6, rel=0.002)


def test_mobilenetv3_large() -> None:
    """5,483,032 parameters and 217 M MACs, as the public implementation in torchvision has them."""
    space = spaces.mobilenetv3(
        base_widths=(16, 24, 40, 80, 112, 160, 960, 1280), multipliers=(1.0,), expands=(1, 2, 2.3, 2.5, 3, 4, 6)
    )
    stages = [
        (24, [(3, 4), (3, 3)]),
        (40, [(5, 3)] * 3),
        (80, [(3, 6), (3, 2.5), (3, 2.3), (3, 2.3)]),
        (112, [(3, 6)] * 2),
        (160, [(5, 6)] * 3),
    ]
    architecture: dict[str, Any] = {"stem.kernel": 3, "stage0.width": 16, "stage0.kernel": 3}
    architecture |= {"head0.width": 960, "head1.width": 1280}
    for stage, (width, blocks) in enumerate(stages, start=1):
        architecture |= {f"stage{stage}.width": width, f"stage{stage}.depth": len(blocks)}
        for number, (kernel, expand) in enumerate(blocks):
            block = f"stage{stage}.block{number}"
            architecture |= {f"{block}.kernel": kernel, f"{block}.expand": expand}
            if f"{block}.se" in space.names:
                architecture[f"{block}.se"] = True
    params, macs = costs(space, architecture)
    assert params == 5_483_032
    assert macs == pytest.approx(217e6, rel=0.003)


@pytest.mark.parametrize(
    ("preset", "embedding", "heads", "ratios", "params", "macs"),
    [
        ("tiny", 192, "3333333333433", "3.5 3.5 3 3.5 3 3 4 4 3.5 4 3.5 4 3.5", 5.7e6, 1.3e9),
        ("small", 384, "6657555667767", "3 3.5 3 3.5 4 4 4 4 4 4 4 3.5 4", 22.9e6, 5.1e9),
        ("base", 576, "99999A99A9A99A", "3.5 3.5 4 3.5 4 3.5 3.5 3 4 4 3 4 3 3.5", 54e6, 11e9),
    ],
)
def test_autoformer(preset: Any, embedding: int, heads: str, ratios: str, params: float, macs: float) -> None:
    """Table 3 of the paper; its MACs leave out a part of attention."""
    architecture: dict[str, Any] = {"embed_dim": embedding, "depth": len(heads)}
    for number, (head, ratio) in enumerate(zip(heads, ratios.split(), strict=True)):
        architecture |= {f"block{number}.num_heads": int(head, 16), f"block{number}.mlp_ratio": float(ratio)}
    found = costs(spaces.autoformer(preset), architecture)
    assert found[0] == pytest.approx(params, rel=0.03)
    assert macs < found[1] < 1.15 * macs


def test_darts_second_order() -> None:
    """3.3 M parameters in table 1 of the paper; 3,349,342 in the logs of its code."""
    operators = {
        "normal": [*["sep_conv_3x3"] * 4, "skip_connect", "sep_conv_3x3", "skip_connect", "dil_conv_3x3"],
        "reduce": ["max_pool_3x3", "max_pool_3x3", *["max_pool_3x3", "skip_connect"] * 3],
    }
    pairs = {"normal": [(0, 1), (0, 1), (0, 1), (0, 2)], "reduce": [(0, 1), (1, 2), (0, 2), (1, 2)]}
    architecture: dict[str, Any] = {}
    for cell, names in operators.items():
        for node in range(4):
            if node:
                architecture[f"{cell}.node{node + 2}.inputs"] = pairs[cell][node]
            for number in range(2):
                architecture[f"{cell}.node{node + 2}.op{number}"] = names[2 * node + number]
    assert costs(spaces.darts(), architecture)[0] == 3_349_342
