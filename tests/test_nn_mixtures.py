"""A supernet that runs as a mixture: with one weight it is the path, and else the expectation that it says it is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from model_spaces import Attention, Attributes, Cells, Rich
from test_nn_networks import INPUTS, stirred
from torch import Tensor

from nasmw import nn
from nasmw.errors import SpaceError


def one_hot(space: Any, architecture: dict[str, Any]) -> dict[str, Tensor]:
    """Return weights that are 1 for what is chosen; inactive choices have their first option."""
    return {
        choice.name: torch.eye(len(choice.options))[
            choice.options.index(architecture.get(choice.name, choice.options[0]))
        ]
        for choice in space.choices
    }


@pytest.mark.parametrize("make", [Rich, Attention, Cells], ids=lambda make: make.__name__)
def test_mixture_of_one_is_the_path(make: Callable[[], Any]) -> None:
    space = stirred(make)
    if make is Rich:
        space.norm = torch.nn.Identity()  # groups of channels have other members in each width
    x = torch.randn(INPUTS[make])
    for architecture in space.sample(8, np.random.default_rng(0)):
        with torch.no_grad():
            with space.activate(architecture):
                path = space(x)
            with space.mix(one_hot(space, architecture)):
                assert space.activated is None
                mixed = space(x)
        torch.testing.assert_close(mixed, path, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("make", [Rich, Attention, Cells], ids=lambda make: make.__name__)
def test_gates_of_one_option_run_it_alone(make: Callable[[], Any]) -> None:
    space = stirred(make)
    x = torch.randn(INPUTS[make])
    for architecture in space.sample(6, np.random.default_rng(1)):
        gates = {
            name: nn.Gates([space.choices[space.column(name)].options.index(option)], torch.ones(1))
            for name, option in architecture.items()
        }
        with torch.no_grad(), space.activate(architecture):
            path = space(x)
            with space.mix(gates):
                torch.testing.assert_close(space(x), path, rtol=1e-4, atol=1e-4)
            assert space.activated == architecture
            assert torch.equal(space(x), path)


class Ops(nn.ModelSpace):
    def __init__(self) -> None:
        super().__init__()
        self.op = nn.LayerChoice({"a": nn.Linear(3, 3), "b": nn.Tanh(), "c": nn.Identity()}, label="op")
        self.depth = nn.Repeat(lambda at: nn.Linear(3, 3), (0, 2), label="depth")
        self.read = nn.InputChoice(3, 2, label="read")

    def forward(self, x: Tensor) -> Tensor:
        y = self.op(x)
        return self.read([x, y, self.depth(y)])


def test_mixture_is_the_expectation() -> None:
    space = Ops().double()
    x = torch.randn(4, 3, dtype=torch.float64)
    op, depth, read = (torch.rand(3, dtype=torch.float64, requires_grad=True) for _ in range(3))
    y = op[0] * space.op["a"](x) + op[1] * x.tanh() + op[2] * x
    once = space.depth.blocks[0](y)
    z = depth[0] * y + depth[1] * once + depth[2] * space.depth.blocks[1](once)
    expected = read[0] * (x + y) + read[1] * (x + z) + read[2] * (y + z)
    with space.mix({"op": op, "depth": depth, "read": read}):
        mixed = space(x)
    torch.testing.assert_close(mixed, expected)
    mixed.square().sum().backward()
    assert all(weights.grad is not None and weights.grad.abs().min() > 0 for weights in (op, depth, read))


@pytest.mark.parametrize(
    ("make", "shape"),
    [
        (lambda w, k: nn.Conv2d(3, w, k, padding=k // 2), (2, 3, 7, 7)),
        (lambda w, k: nn.Conv2d(3, w, k, padding="same", dilation=2), (2, 3, 9, 9)),
        (lambda w, k: nn.Conv1d(3, w, k, padding=k // 2, bias=False), (2, 3, 7)),
        (lambda w, k: nn.Conv3d(3, w, k, padding=k // 2), (1, 3, 5, 5, 5)),
        (lambda w, k: nn.Conv2d(3, w, 3, padding=k // 2 - k // 2 + 1), (2, 3, 7, 7)),
    ],
)
def test_linear_layers_mix_exactly(make: Callable[[Any, Any], Any], shape: tuple[int, ...]) -> None:
    class Net(nn.ModelSpace):
        def __init__(self) -> None:
            super().__init__()
            self.layer = make(nn.choice("w", (2, 4)), nn.choice("k", (1, 3, 5)))

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(x)

    space = Net().double()
    x = torch.randn(shape, dtype=torch.float64)
    weights = {c.name: torch.rand(len(c.options), dtype=torch.float64).softmax(0) for c in space.choices}
    expected: Any = 0
    for architecture in space.at(range(space.size)):
        with space.activate(architecture):
            output = space(x)
        filled = torch.zeros(output.shape[0], 4, *output.shape[2:], dtype=torch.float64)
        filled[:, : output.shape[1]] = output
        share = torch.stack([weights[c.name][c.options.index(architecture[c.name])] for c in space.choices]).prod()
        expected = expected + share * filled
    with space.mix(weights):
        torch.testing.assert_close(space(x), expected)
    assert all(space.mixable.values())


def test_gradients_of_a_mixture_are_those_of_finite_differences() -> None:
    space = stirred(Attention).double()
    x = torch.randn(INPUTS[Attention], dtype=torch.float64)
    names = space.names
    logits = [torch.randn(len(c.options), dtype=torch.float64, requires_grad=True) for c in space.choices]

    def run(*given: Tensor) -> Tensor:
        with space.mix({name: logit.softmax(0) for name, logit in zip(names, given, strict=True)}):
            return space(x)

    assert torch.autograd.gradcheck(run, logits, fast_mode=True)


class Hidden(nn.ModelSpace):
    """Layers with a hidden width between two that read it; what it goes through on the way looks at single channels."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        width = nn.choice("width", (2, 3, 6))
        if kind == "linear":
            between: Any = nn.BatchNorm1d(width), torch.nn.Tanh(), nn.PReLU(width)
            self.layers = torch.nn.Sequential(nn.Linear(4, width), *between, nn.Linear(width, 2))
        elif kind == "conv":
            depthwise = nn.Conv2d(width * 2, width * 2, 3, padding=1, groups=width * 2)
            between = nn.BatchNorm2d(width * 2), torch.nn.ReLU(), depthwise, nn.BatchNorm2d(width * 2)
            self.layers = torch.nn.Sequential(nn.Conv2d(2, width * 2, 1), *between, nn.Conv2d(width * 2, 2, 3))
        elif kind == "transposed":
            depthwise = nn.ConvTranspose2d(width, width, 2, groups=width)
            self.layers = torch.nn.Sequential(
                nn.ConvTranspose2d(2, width, 2), torch.nn.ReLU(), depthwise, nn.ConvTranspose2d(width, 2, 2)
            )
        elif kind == "embedding":
            self.layers = torch.nn.Sequential(nn.Embedding(7, width), torch.nn.Tanh(), nn.Linear(width, 2))
        else:
            norm = nn.LayerNorm(width) if kind == "layer norm" else nn.GroupNorm(1, width)
            self.layers = torch.nn.Sequential(nn.Linear(4, width), torch.nn.Tanh(), norm, nn.Linear(width, 2))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


@pytest.mark.parametrize(
    ("kind", "shape"),
    [
        ("linear", (5, 4)),
        ("conv", (3, 2, 5, 5)),
        ("transposed", (3, 2, 4, 4)),
        ("embedding", (5,)),
        ("layer norm", (5, 4)),
        ("group norm", (5, 4)),
    ],
)
def test_sizes_cut_where_they_are_read(kind: str, shape: tuple[int, ...]) -> None:
    """The mixture is the expectation over widths then, and an option without weight has the gradient it should have."""
    space = stirred(lambda: Hidden(kind)).double().eval()
    x = torch.randint(7, shape) if kind == "embedding" else torch.randn(shape, dtype=torch.float64)
    with torch.no_grad():
        paths = []
        for width in (2, 3, 6):
            with space.activate({"width": width}):
                paths.append(space(x))
    weights = torch.tensor([0.5, 0.2, 0.3], dtype=torch.float64)
    with torch.no_grad(), space.mix({"width": weights}, once=True):
        torch.testing.assert_close(space(x), sum(w * path for w, path in zip(weights, paths, strict=True)))
    through = torch.tensor([1.0, 0.0], dtype=torch.float64, requires_grad=True)
    for once, seen in ((True, True), (False, False)):
        through.grad = None
        with space.mix({"width": nn.Gates([0, 2], through)}, once=once):
            mixed = space(x)
        torch.testing.assert_close(mixed, paths[0])
        mixed.square().sum().backward()
        wanted = (2 * paths[0] * (paths[2] - paths[0])).sum()
        gap = through.grad[1] - through.grad[0]
        assert torch.isclose(gap, wanted) == seen


def test_an_option_without_weight_has_the_gradient_that_it_should_have() -> None:
    """Sizes and what is no size, in one layer: an option that has no weight is the likeliest of none."""

    class Net(nn.ModelSpace):
        def __init__(self) -> None:
            super().__init__()
            width, dilation = nn.choice("width", (4, 8)), nn.choice("dilation", (1, 2))
            self.first = nn.Conv1d(3, width, 3, padding=dilation, dilation=dilation)
            self.last = nn.Conv1d(width, 2, 1, bias=False)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(self.first(x))

    space = stirred(Net).double()
    x = torch.randn(5, 3, 9, dtype=torch.float64)
    width = torch.tensor([0.5, 0.5], dtype=torch.float64)
    for once in (False, True):
        dilation = torch.tensor([1.0, 0.0], dtype=torch.float64, requires_grad=True)
        outputs = []
        for weights in (dilation, torch.tensor([0.0, 1.0], dtype=torch.float64)):
            with space.mix({"width": width, "dilation": weights}, once=once):
                outputs.append(space(x))
        outputs[0].sum().backward()
        assert dilation.grad is not None
        torch.testing.assert_close(dilation.grad[1], outputs[1].sum())


@pytest.mark.parametrize("case", ["own sizes", "chosen sizes", "mask", "images"])
def test_only_inputs_of_the_size_are_cut_for_layers_that_run_apart(case: str) -> None:
    class Net(nn.ModelSpace):
        def __init__(self) -> None:
            super().__init__()
            width = nn.choice("width", (4, 8))
            if case == "images":
                self.first, self.norm = nn.Conv2d(3, width, 1), nn.LayerNorm((width, 6, 6))
            else:
                own = {"own sizes": {"kdim": 20, "vdim": 20}, "chosen sizes": {"kdim": width // 2, "vdim": width}}
                self.key, self.value = nn.Linear(20, width // 2), nn.Linear(20, width)
                self.first, self.attention = nn.Linear(5, width), nn.MultiheadAttention(width, 2, **own.get(case, {}))
            self.last = nn.Conv2d(width, 3, 1) if case == "images" else nn.Linear(width, 3)

        def forward(self, x: Tensor, other: Tensor | None = None) -> Tensor:
            x = self.first(x)
            if case == "images":
                return self.last(self.norm(x))
            if case == "own sizes":
                return self.last(self.attention(x, other, value=other)[0])
            if case == "chosen sizes":
                return self.last(self.attention(x, self.key(other), self.value(other))[0])
            return self.last(self.attention(x, x, x, key_padding_mask=other)[0])

    space = stirred(Net).eval()
    inputs = {
        "own sizes": (torch.randn(3, 2, 5), torch.randn(7, 2, 20)),
        "chosen sizes": (torch.randn(3, 2, 5), torch.randn(7, 2, 20)),
        "mask": (torch.randn(11, 2, 5), torch.arange(11) * torch.ones(2, 1) > 8),
        "images": (torch.randn(2, 3, 6, 6),),
    }[case]
    for width in (4, 8):
        with space.activate({"width": width}), torch.no_grad():
            path = space(*inputs)
        for once in (False, True):
            with space.mix(one_hot(space, {"width": width}), once=once), torch.no_grad():
                torch.testing.assert_close(space(*inputs), path)


def test_two_paths_run_two_options() -> None:
    calls: list[str] = []

    class Noting(torch.nn.Module):
        def __init__(self, name: str) -> None:
            super().__init__()
            self.name = name

        def forward(self, x: Tensor) -> Tensor:
            calls.append(self.name)
            return x

    class Net(nn.ModelSpace):
        def __init__(self) -> None:
            super().__init__()
            self.op = nn.LayerChoice([Noting(name) for name in "abcd"], label="op")

        def forward(self, x: Tensor) -> Tensor:
            return self.op(x)

    space = Net()
    with space.mix({"op": nn.Gates((3, 1), torch.tensor([0.5, 0.25]))}):
        assert space(torch.ones(1)).item() == 0.75
    assert calls == ["d", "b"]


def test_choices_that_are_not_mixed_take_the_architecture() -> None:
    space = stirred(Rich)
    x = torch.randn(INPUTS[Rich])
    rest = {"width": 4, "depth": 1, "kernel0": 3, "expansion0": 2}
    with space.mix({"op0": torch.tensor([0.5, 0.0, 0.0, 0.5])}, {**rest, "act": 0}):
        assert space(x).shape == (2, 5)
    with (
        space.mix({"op0": torch.tensor([0.5, 0.0, 0.0, 0.5])}, rest),
        pytest.raises(SpaceError, match="option of choice 'act'"),
    ):
        space(x)


def depthwise(*widths: int) -> Any:
    width = nn.choice("w", widths)
    return torch.nn.Sequential(nn.Conv2d(3, width, 1), nn.Conv2d(width, width, 3, groups=width))


@pytest.mark.parametrize(
    ("layer", "names", "message"),
    [
        (lambda: nn.Conv2d(3, 4, nn.choice("k", (1, 3))), ["k"], "module 'layer', a Conv2d, cannot be mixed"),
        (lambda: nn.Conv2d(3, 4, 3, stride=nn.choice("s", (1, 2))), ["s"], r"give the shapes \(1, 4, 6, 6\)"),
        (lambda: nn.LayerChoice([nn.Conv2d(3, 2, 1), nn.Identity()], label="c"), ["c"], "the layer choice 'layer'"),
        (lambda: nn.Repeat(lambda at: nn.MaxPool2d(2), (1, 2), label="d"), ["d"], "the repetition 'layer'"),
        (lambda: nn.Cell([nn.Identity()], 2, merge_op="loose_end", label="c"), ["c/input_2_0"], "merge_op='all'"),
        (lambda: nn.Conv2d(3, nn.choice("w", (3, 6)), 1, groups=3), ["w"], "of several widths that changes"),
        (lambda: depthwise(1, 3), ["w"], "module 'layer.1', a Conv2d, .* several widths, one of which is 1"),
        (lambda: nn.LayerNorm((nn.choice("w", (4, 8)), nn.choice("w", (4, 8)))), ["w"], "differs along several axes"),
        (lambda: torch.nn.MaxPool2d(nn.choice("m", (1, 2))), ["m"], "'layer', a MaxPool2d, looks at its attribute"),
    ],
)  # fmt: skip
def test_what_cannot_be_mixed_says_so(layer: Callable[[], Any], names: list[str], message: str) -> None:
    class Net(nn.ModelSpace):
        def __init__(self) -> None:
            super().__init__()
            self.layer = layer()

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(x)

    space = Net()
    fixed = {choice.name: choice.options[0] for choice in space.choices}
    weights = {name: torch.full((2,), 0.5) for name in names}
    with space.mix(weights, fixed), pytest.raises(nn.MixtureError, match=message):
        space(torch.zeros(1, 3, 8, 8))
    assert space.activated is None


def test_mixable_says_beforehand_what_cannot_be_mixed() -> None:
    assert Attributes().mixable == {"groups": False, "scale": False, "rows": False, "window": True}
    cells = Cells("loose_end").mixable
    assert [name for name, mixable in cells.items() if not mixable] == ["last.input_1_0", "last.input_2_0"]


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"op": torch.ones(2)}, r"choice 'op' are a tensor of shape \(3,\), got \(2,\)"),
        ({"op": [0.5, 0.5, 0.0]}, "are a tensor of shape"),
        ({"op": nn.Gates((0, 0), torch.ones(2))}, "distinct options 0 to 2"),
        ({"deep": torch.ones(2)}, "did you mean 'depth'"),
    ],
)
def test_weights_that_do_not_fit_are_refused(weights: Any, message: str) -> None:
    with pytest.raises(SpaceError, match=message):
        Ops().mix(weights)
