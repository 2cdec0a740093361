"""A network that is built, a path of the supernet and a mixture with one weight are one function."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from model_spaces import Attention, Attributes, Cells, Rich
from torch import Tensor

from nasmw import Space, nn
from nasmw.errors import SpaceError
from nasmw.nn.decisions import Deciding
from nasmw.nn.values import leaves_of

INPUTS: dict[Callable[[], Any], tuple[int, ...]] = {
    Rich: (2, 3, 12, 12),
    Attention: (2, 5, 6),
    Cells: (2, 4, 9),
    Attributes: (2, 8),
}
SPACES = pytest.mark.parametrize(("make", "shape"), list(INPUTS.items()), ids=[make.__name__ for make in INPUTS])


def stirred(make: Callable[[], Any]) -> Any:
    """Return a space whose normalisation layers have statistics and weights that are not all alike."""
    torch.manual_seed(0)
    space = make()
    for name, tensor in [*space.named_parameters(), *space.named_buffers()]:
        if tensor.is_floating_point():
            tensor.data.uniform_(0.2, 1.0) if "var" in name else tensor.data.normal_()
    return space.eval()


@SPACES
def test_built_network_is_the_path_bit_for_bit(make: Callable[[], Any], shape: tuple[int, ...]) -> None:
    space = stirred(make)
    x = torch.randn(shape)
    for architecture in space.sample(25, np.random.default_rng(0)):
        model = space.build(architecture, weights=True).eval()
        with space.activate(architecture) as running, torch.no_grad():
            assert running is space
            assert space.activated == architecture
            assert torch.equal(space(x), model(x)), architecture
    assert space.activated is None


@SPACES
def test_built_network_has_no_trace_of_the_search(make: Callable[[], Any], shape: tuple[int, ...]) -> None:
    space = make()
    for architecture in space.sample(10, np.random.default_rng(1)):
        model = space.build(architecture)
        assert not isinstance(model, Space)
        assert type(model).__name__ == make.__name__
        for module in model.modules():
            assert not isinstance(module, (Deciding, nn.ElasticModule, Space))
            for value in vars(module).values():
                assert not list(leaves_of(value))
        for copied in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
            x = torch.randn(shape)
            assert torch.equal(copied.eval()(x), model.eval()(x))


@SPACES
def test_a_path_trains_its_own_part_alone(make: Callable[[], Any], shape: tuple[int, ...]) -> None:
    space = stirred(make).train()
    x = torch.randn(shape)
    for architecture in space.sample(6, np.random.default_rng(2)):
        built = space.build(architecture, weights=True).train()
        space.zero_grad(set_to_none=True)
        with space.activate(architecture):
            torch.manual_seed(3)
            mine = space(x)
            mine.square().mean().backward()
        torch.manual_seed(3)
        its = built(x)
        its.square().mean().backward()
        torch.testing.assert_close(mine, its)
        gradients = sum(float(p.grad.square().sum()) for p in space.parameters() if p.grad is not None)
        expected = sum(float(p.grad.square().sum()) for p in built.parameters() if p.grad is not None)
        assert gradients == pytest.approx(expected, rel=1e-4)


def test_batch_statistics_are_updated_within_the_slice() -> None:
    space = stirred(Rich).train()
    architecture = {"width": 4, "depth": 1, "op0": "inverted", "kernel0": 3, "expansion0": 2, "act": 0}
    norm = space.get_submodule("blocks.0.inverted.norm")
    before = norm.running_mean.clone()
    with space.activate(architecture):
        space(torch.randn(4, 3, 12, 12))
    assert (norm.running_mean[:8] != before[:8]).all()
    assert torch.equal(norm.running_mean[8:], before[8:])


@SPACES
def test_spaces_travel(make: Callable[[], Any], shape: tuple[int, ...]) -> None:
    space = stirred(make)
    x = torch.randn(shape)
    (architecture,) = space.sample(1, np.random.default_rng(3))
    with space.activate(architecture):
        expected = space(x)
    for copied in (pickle.loads(pickle.dumps(space)), copy.deepcopy(space)):
        assert copied.fingerprint == space.fingerprint
        assert copied.activated is None
        with copied.activate(architecture):
            assert torch.equal(copied(x), expected)
        assert torch.equal(copied.build(architecture, weights=True).eval()(x), expected)


def test_what_is_set_on_a_layer_stays_when_it_is_copied() -> None:
    class Net(nn.ModelSpace):
        def __init__(self) -> None:
            super().__init__()
            width = nn.choice("width", (4, 8))
            self.layer = nn.Linear(5, width)
            self.layer.gain = 2.0

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(x) * self.layer.gain

    space = Net()
    for copied in (copy.deepcopy(space), space):
        with copied.activate({"width": 4}):
            assert copied(torch.randn(2, 5)).shape == (2, 4)
            assert (copied.layer.gain, copied.layer.out_features) == (2.0, 4)


def test_a_file_of_weights_brings_them_back(tmp_path: Any) -> None:
    space, other = stirred(Rich), Rich().eval()
    torch.save(space.state_dict(), tmp_path / "weights.pt")
    other.load_state_dict(torch.load(tmp_path / "weights.pt", weights_only=True))
    (architecture,) = space.sample(1, np.random.default_rng(3))
    x = torch.randn(INPUTS[Rich])
    with space.activate(architecture), other.activate(architecture):
        assert torch.equal(space(x), other(x))


def test_networks_have_weights_of_their_own() -> None:
    space = Rich()
    (architecture,) = space.sample(1, np.random.default_rng(0))

    def built(seed: int) -> Tensor:
        torch.manual_seed(seed)
        return space.build(architecture).get_parameter("stem.weight")

    assert torch.equal(built(0), built(0))
    assert not torch.equal(built(0), built(1))
    with torch.no_grad():
        built(0).zero_()
    assert space.stem.weight.abs().min() > 0


def test_arguments_are_not_shared_between_networks() -> None:
    class Given(nn.ModelSpace):
        def __init__(self, stem: Any) -> None:
            super().__init__()
            self.stem, self.act = stem, nn.LayerChoice([nn.ReLU(), nn.Tanh()], label="act")

        def forward(self, x: Tensor) -> Tensor:
            return self.act(self.stem(x))

    stem = torch.nn.Linear(2, 2)
    space = Given(stem)
    first, second = space.build({"act": 0}), space.build({"act": 0})
    assert first.stem is not second.stem is not stem
    assert torch.equal(first.stem.weight, stem.weight)


def test_methods_and_super_work_in_a_built_network() -> None:
    class Base(nn.ModelSpace):
        def forward(self, x: Tensor) -> Tensor:
            return self.scaled(x)

        def scaled(self, x: Tensor) -> Tensor:
            return x * self.factor

        @property
        def factor(self) -> float:
            return 2.0

    class Derived(Base):
        def __init__(self) -> None:
            super().__init__()
            self.act = nn.LayerChoice([nn.ReLU(), nn.Identity()], label="act")

        def forward(self, x: Tensor) -> Tensor:
            return self.act(super().forward(x))

        @property
        def factor(self) -> float:
            return super().factor + 1.0

    model = Derived().build({"act": 0})
    assert torch.equal(model(torch.tensor([-1.0, 1.0])), torch.tensor([0.0, 3.0]))


def test_initialisation_of_one_s_own_reaches_every_layer() -> None:
    class Net(nn.ModelSpace):
        def __init__(self) -> None:
            super().__init__()
            width = nn.choice("width", (2, 4))
            self.one, self.two = nn.Linear(3, width), nn.Linear(width, 1)
            for module in self.modules():
                if isinstance(module, nn.Linear):
                    torch.nn.init.constant_(module.weight, 0.5)

        def forward(self, x: Tensor) -> Tensor:
            return self.two(self.one(x))

    space = Net()
    for layer in (space.one, space.build({"width": 2}).one, space.build({"width": 4}).two):
        assert (layer.weight == 0.5).all()


def test_layers_of_factories_are_made_where_they_are_chosen() -> None:
    made: list[str] = []

    def linear() -> torch.nn.Module:
        made.append("linear")
        return nn.Linear(2, nn.ValueChoice((2, 3)))

    class Net(nn.ModelSpace):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.LayerChoice({"linear": linear, "skip": nn.Identity})
            self.last = nn.LayerChoice([nn.ReLU(), nn.Tanh()])

        def forward(self, x: Tensor) -> Tensor:
            return self.last(self.layer(x))

    space = Net()
    assert space.names == ("layer", "layer.linear.out_features", "last")
    made.clear()
    assert isinstance(space.build({"layer": "skip", "last": 1}).last, torch.nn.Tanh)
    assert not made
    assert space.build({"layer": "linear", "layer.linear.out_features": 3, "last": 0}).layer.out_features == 3


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (lambda w: nn.Sequential(nn.Conv1d(3, w, 5, padding=2), nn.BatchNorm1d(w)), (2, 3, 7)),
        (lambda w: nn.Conv3d(3, w, nn.choice("k", (1, 3)), padding=nn.choice("k", (1, 3)) // 2), (2, 3, 4, 4, 4)),
        (lambda w: nn.ConvTranspose2d(3, w, nn.choice("k", (2, 4)), stride=2), (2, 3, 4, 4)),
        (lambda w: nn.Sequential(nn.Conv2d(3, w, 1), nn.ConvTranspose2d(w, w * 2, 3, groups=w)), (2, 3, 4, 4)),
        (lambda w: nn.ConvTranspose2d(4, w * 2, 3, groups=nn.choice("g", (1, 2, 4))), (2, 4, 3, 3)),
        (lambda w: nn.Sequential(nn.Linear(5, w), nn.ConvTranspose1d(3, 9, w // 2, groups=3)), (2, 3, 5)),
        (lambda w: nn.Conv2d(3, w, nn.choice("k", ((1, 3), (3, 1), (3, 3)))), (2, 3, 5, 5)),
        (lambda w: nn.Conv2d(4, 8, 3, groups=nn.choice("g", (1, 2, 4))), (2, 4, 5, 5)),
        (lambda w: nn.Conv2d(3, w, 3, dilation=nn.choice("d", (1, 2)), stride=nn.choice("s", (1, 2))), (2, 3, 9, 9)),
        (lambda w: nn.Linear(3, w, bias=nn.choice("b", (True, False))), (2, 3)),
        (lambda w: nn.Sequential(nn.Linear(3, w), nn.LayerNorm(w)), (2, 5, 3)),
        (lambda w: nn.Sequential(nn.Linear(3, w), nn.LayerNorm((5, w))), (2, 5, 3)),
        (lambda w: nn.Sequential(nn.Linear(3, nn.maximum(w, 6)), nn.Dropout(nn.choice("p", (0.1, 0.5)))), (2, 3)),
        (lambda w: nn.Linear(3, nn.derive(lambda n: n // 3 * 3, w * 2 + 1)), (2, 3)),
    ],
)
def test_layers_of_chosen_sizes(layer: Callable[[Any], Any], shape: tuple[int, ...]) -> None:
    class Net(nn.ModelSpace):
        def __init__(self) -> None:
            super().__init__()
            self.width = nn.choice("width", (4, 6, 8))
            self.layer = layer(self.width)

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(x)

    space = stirred(Net)
    x = torch.randn(shape)
    for architecture in space.at(range(space.size)):
        model = space.build(architecture, weights=True).eval()
        with space.activate(architecture), torch.no_grad():
            assert torch.equal(space(x), model(x)), architecture


def test_attention_with_keys_of_another_size() -> None:
    class Net(nn.ModelSpace):
        def __init__(self) -> None:
            super().__init__()
            width = nn.choice("width", (4, 8))
            self.query = nn.Linear(3, width)
            self.attention = nn.MultiheadAttention(width, 2, kdim=5, vdim=6)

        def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            return self.attention(self.query(q), k, v)[0]

    space = stirred(Net)
    given = torch.randn(4, 2, 3), torch.randn(7, 2, 5), torch.randn(7, 2, 6)
    for width in (4, 8):
        with space.activate({"width": width}), torch.no_grad():
            assert torch.equal(space(*given), space.build({"width": width}, weights=True).eval()(*given))


def test_running_without_a_path_says_what_to_do() -> None:
    space = Rich()
    with pytest.raises(SpaceError, match=r"call space.activate\(architecture\) first"):
        space(torch.zeros(1, 3, 8, 8))
    space.activate({"width": 4, "depth": 1, "op0": "skip", "act": 0})
    space(torch.zeros(1, 3, 8, 8))
    space.deactivate()
    with pytest.raises(SpaceError, match="space.build"):
        space(torch.zeros(1, 3, 8, 8))
