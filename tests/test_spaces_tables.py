"""Declared tables of ready spaces against direct counting on the built networks."""

from __future__ import annotations

import math
import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from nasmw import Space, spaces
from nasmw.errors import SpaceError
from nasmw.profilers.counting import count, count_parameters

Shape = tuple[int, ...]

# Small images and, where arguments allow it, small networks: the formulas are those of great ones.
SMALL: dict[str, tuple[Space, Shape | None]] = {
    "ofa_w1.0": (spaces.ofa_mobilenetv3(resolutions=(32, 36, 57, 64)), None),
    "ofa_w1.2": (spaces.ofa_mobilenetv3(width=1.2, resolutions=(33, 40), num_classes=7), None),
    "compofa_fixed": (spaces.compofa("fixed", resolutions=(32, 50)), None),
    "compofa_elastic": (spaces.compofa("elastic", resolutions=(32, 50)), None),
    "nasbench201": (spaces.nasbench201(input_size=8, channels=4, cells=2), (1, 3, 8, 8)),
    "nats_size": (spaces.nats_size(100), (2, 3, 9, 7)),
    "fbnet": (spaces.fbnet(), (1, 3, 33, 32)),
    "proxylessnas": (spaces.proxylessnas(), (1, 3, 32, 40)),
    "mobilenetv3": (spaces.mobilenetv3(), (1, 3, 32, 32)),
    "autoformer_tiny": (spaces.autoformer("tiny", 10, 32), (2, 3, 32, 32)),
    "autoformer_small": (spaces.autoformer("small", 10, 32), (1, 3, 32, 32)),
    "autoformer_base": (spaces.autoformer("base", 10, 32), (1, 3, 32, 32)),
    "darts": (spaces.darts(cells=4, channels=4), (1, 3, 10, 9)),
}
VARIANTS = ("ofa_w1.2", "compofa_fixed", "compofa_elastic", "autoformer_small", "autoformer_base")
"""What differs from another of them in numbers only."""
# As they come.
PLAIN: dict[str, Space] = {
    "ofa": spaces.ofa_mobilenetv3(),
    "compofa": spaces.compofa("elastic"),
    "nasbench201": spaces.nasbench201(),
    "nats_size": spaces.nats_size(),
    "fbnet": spaces.fbnet(),
    "proxylessnas": spaces.proxylessnas(),
    "mobilenetv3": spaces.mobilenetv3(),
    "autoformer": spaces.autoformer(),
    "darts": spaces.darts(),
}
LOG10_SIZES = {
    "ofa": math.log10(25 * 7371**5),
    "compofa": math.log10(25 * 117**5),
    "nasbench201": math.log10(15625),
    "nats_size": math.log10(32768),
    "fbnet": 22 * math.log10(9),
    "proxylessnas": math.log10(6**6 * 7**15),
    "mobilenetv3": 35.790,
    "autoformer": math.log10(3 * (6**12 + 6**13 + 6**14)),
    "darts": 2 * math.log10(180 * 7**8),
}


class MatmulCounter(TorchFunctionMode):
    def __init__(self) -> None:
        super().__init__()
        self.macs = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if func in (torch.matmul, torch.Tensor.matmul, torch.Tensor.__matmul__):
            self.macs += out.numel() * args[0].shape[-1]
        return out


def direct_macs(model: nn.Module, shape: Shape) -> int:
    """Count by hooks on layers, and products of tensors by intercepting them."""
    macs = 0

    def add(layer: Any, inputs: Any, output: torch.Tensor) -> None:
        nonlocal macs
        macs += output.numel() * layer.weight[0].numel()

    hooks = [layer.register_forward_hook(add) for layer in model.modules() if isinstance(layer, (nn.Conv2d, nn.Linear))]
    with torch.no_grad(), MatmulCounter() as products:
        model.eval()(torch.zeros(shape))
    for hook in hooks:
        hook.remove()
    return macs + products.macs


@contextmanager
def uninitialised() -> Iterator[None]:
    """Leave weights as the memory happens to be: counting does not look at them, and drawing them takes longest."""
    with pytest.MonkeyPatch.context() as patch:
        for layer in (nn.Conv2d, nn.Linear):
            patch.setattr(layer, "reset_parameters", lambda self: None)
        yield


def shape_for(shape: Shape | None, architecture: dict[str, Any]) -> Shape:
    return shape or (1, 3, architecture["resolution"], architecture["resolution"])


def check_tables(space: Space, shape: Shape | None, number: int, seed: int = 0) -> None:
    macs = space.tables["macs"](space, shape)
    params = space.tables["params"](space, shape)
    assert macs.integer and params.integer
    candidates = space.sample(number, np.random.default_rng(seed))
    batch = zip(candidates, macs.evaluate(candidates), params.evaluate(candidates), strict=True)
    for architecture, table_macs, table_params in batch:
        with uninitialised():
            model = space.build(architecture)
        assert count_parameters(model) == table_params == params.value(architecture), architecture
        counted = direct_macs(model, shape_for(shape, architecture))
        assert counted == table_macs == macs.value(architecture), architecture


@pytest.mark.parametrize("name", SMALL)
def test_tables_equal_direct_counting(name: str) -> None:
    check_tables(*SMALL[name], number=10 if name in VARIANTS else 100)


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL)
def test_tables_equal_direct_counting_of_a_thousand(name: str) -> None:
    check_tables(*SMALL[name], number=1000, seed=1)


@pytest.mark.parametrize("name", PLAIN)
def test_tables_of_spaces_as_they_come(name: str) -> None:
    space = PLAIN[name]
    macs, params = space.tables["macs"](space, None), space.tables["params"](space, None)
    size = {"nasbench201": 32, "nats_size": 32, "darts": 32}.get(name, 224)
    for architecture in space.sample(2, np.random.default_rng(2)):
        model = space.build(architecture)
        side = architecture.get("resolution", size)
        counted = count(model, torch.zeros(1, 3, side, side))
        assert not counted.uncounted
        assert counted.macs == macs.value(architecture)
        assert count_parameters(model) == params.value(architecture)


@pytest.mark.parametrize("name", SMALL)
def test_networks_learn(name: str) -> None:
    space, shape = SMALL[name]
    architecture = next(iter(space.sample(1, np.random.default_rng(3))))
    torch.manual_seed(0)
    model = space.build(architecture)
    _, channels, height, width = shape_for(shape, architecture)
    scores = model(torch.randn(4, channels, height, width))
    assert scores.ndim == 2 and len(scores) == 4
    scores.logsumexp(dim=1).sum().backward()
    without = [tensor_name for tensor_name, tensor in model.named_parameters() if tensor.grad is None]
    # In a cell, an edge into a node that nothing reads learns nothing.
    assert not without or name == "nasbench201", without


@pytest.mark.parametrize("name", PLAIN)
def test_sizes(name: str) -> None:
    assert math.log10(PLAIN[name].size) == pytest.approx(LOG10_SIZES[name], abs=1e-3)


@pytest.mark.parametrize("name", PLAIN)
def test_spaces_pickle_with_builder_and_tables(name: str) -> None:
    space = PLAIN[name]
    copy = pickle.loads(pickle.dumps(space))
    assert copy.fingerprint == space.fingerprint
    candidates = space.sample(5, np.random.default_rng(4))
    for metric in ("macs", "params"):
        original = space.tables[metric](space, None).evaluate(candidates)
        assert (copy.tables[metric](copy, None).evaluate(candidates.codes) == original).all()
    with uninitialised():
        assert isinstance(copy.build(next(iter(candidates))), nn.Module)


@pytest.mark.parametrize("name", PLAIN)
def test_a_batch_multiplies_macs_and_not_parameters(name: str) -> None:
    space = PLAIN[name]
    side = 32 if name in ("nasbench201", "nats_size", "darts") else 224
    candidates = space.sample(3, np.random.default_rng(5))
    one = space.tables["macs"](space, (1, 3, side, side)).evaluate(candidates)
    four = space.tables["macs"](space, (4, 3, side, side)).evaluate(candidates)
    assert (four == 4 * one).all()
    assert (one == space.tables["macs"](space, None).evaluate(candidates)).all()


@pytest.mark.parametrize("shape", [(3, 224, 224), (1, 1, 224, 224), (0, 3, 224, 224)])
def test_a_shape_that_is_no_batch_of_images(shape: Shape) -> None:
    space = PLAIN["fbnet"]
    with pytest.raises(SpaceError, match=r"take images of shape \(n, 3, height, width\), got an input of shape"):
        space.tables["macs"](space, shape)


def test_a_transformer_takes_one_size_only() -> None:
    space = spaces.autoformer("tiny", input_size=64)
    with pytest.raises(SpaceError, match="64 x 64 only, got 224 x 224"):
        space.tables["macs"](space, (1, 3, 224, 224))


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: spaces.ofa_mobilenetv3(width=0.0), "`width` must be positive"),
        (lambda: spaces.ofa_mobilenetv3(resolutions=()), "`resolutions` is empty"),
        (lambda: spaces.ofa_mobilenetv3(resolutions=(160.5,)), "`resolutions` must be a positive whole number"),
        (lambda: spaces.compofa("free"), "'fixed' or 'elastic', got 'free'"),
        (lambda: spaces.nasbench201(cells=0), "`cells` must be a positive whole number, got 0"),
        (lambda: spaces.nats_size(widths=()), "`widths` is empty"),
        (lambda: spaces.fbnet(head=-1), "`head` must be a positive whole number"),
        (lambda: spaces.proxylessnas(widths=(8, 8)), "`widths` needs 6 numbers"),
        (lambda: spaces.mobilenetv3(base_widths=(16,)), "`base_widths` needs 8 numbers"),
        (lambda: spaces.mobilenetv3(expands=()), "`expands` must be positive numbers, at least one"),
        (lambda: spaces.autoformer("tinny"), "no preset 'tinny'; did you mean 'tiny'"),
        (lambda: spaces.autoformer(input_size=100), "multiple of 16"),
        (lambda: spaces.darts(channels=7), "`channels` must be even"),
        (
            lambda: spaces.darts(operators=("sep_conv_3x33",)),
            "no operator 'sep_conv_3x33'; did you mean 'sep_conv_3x3'",
        ),
    ],
)
def test_bad_arguments(make: Any, match: str) -> None:
    with pytest.raises(SpaceError, match=match):
        make()
