"""Spaces that are written in odd ways: choices within choices, odd places for arithmetic, odd devices and dtypes."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from test_nn_mixtures import one_hot
from test_nn_networks import stirred
from torch import Tensor

from nasmw import nn
from nasmw.errors import SpaceError
from nasmw.profilers import ActivationsProfiler, FlopsProfiler, ParamsProfiler, PeakMemoryProfiler


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NASMW_CACHE", str(tmp_path / "cache"))


class Repeated(nn.Module):
    """Layers to choose among, a chosen number of times."""

    def __init__(self, width: Any) -> None:
        super().__init__()
        self.layers = nn.Repeat(lambda at: nn.LayerChoice({"lin": nn.Linear(width, width), "tanh": nn.Tanh()}), (0, 2))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class InCell(nn.ModelSpace):
    """A LayerChoice in a Repeat in a Cell."""

    def __init__(self) -> None:
        super().__init__()
        operators = {"op": lambda node, number, source: Repeated(4), "skip": nn.Identity()}
        self.cell = nn.Cell(operators, num_nodes=2, concat_dim=-1)
        self.out = nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.cell(x))


class Inner(nn.ModelSpace):
    def __init__(self, width: Any, label: str | None) -> None:
        super().__init__()
        self.layer = nn.LayerChoice({"lin": nn.Linear(width, width), "skip": nn.Identity()}, label=label)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)


class Outer(nn.ModelSpace):
    """Model spaces within a model space, labelled and not, in a list and repeated."""

    def __init__(self) -> None:
        super().__init__()
        width = nn.choice("width", (4, 8))
        self.first = nn.Linear(4, width)
        self.pieces = nn.ModuleList([Inner(width, f"piece{at}") for at in range(2)])
        self.repeated = nn.Repeat(lambda at: Inner(width, None), (1, 2))
        self.table = nn.ModuleDict({"last": Inner(width, "piece0"), "out": nn.Linear(width, 2)})

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        for piece in self.pieces:
            x = piece(x)
        return self.table["out"](self.table["last"](self.repeated(x)))


class Sums(nn.ModelSpace):
    """Arithmetic in odd places: rounding, halves, squeeze and excitation, a linear layer behind a flattening."""

    def __init__(self) -> None:
        super().__init__()
        width, ratio, kernel = nn.choice("width", (8, 16)), nn.choice("ratio", (3, 6)), nn.choice("kernel", (3, 5, 7))
        hidden = width * ratio // 4 // 8 * 8 + 8
        self.expand = nn.Conv2d(3, hidden, 1)
        self.depthwise = nn.Conv2d(hidden, hidden, kernel, padding=kernel // 2, groups=hidden)
        self.norm, self.slope = nn.BatchNorm2d(hidden), nn.PReLU(hidden)
        self.squeeze, self.excite = nn.Linear(hidden, hidden // 4), nn.Linear(hidden // 4, hidden)
        self.drop = nn.Dropout(nn.choice("p", (0.1, 0.2)) * 2)
        self.out = nn.Linear(hidden * 2**2, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.slope(self.norm(self.depthwise(self.expand(x))))
        x = x * self.excite(self.squeeze(x.mean((2, 3))).relu()).sigmoid()[:, :, None, None]
        return self.out(self.drop(nn.functional.adaptive_avg_pool2d(x, 2).flatten(1)))


class Heads(nn.ModelSpace):
    """Attention whose number of heads and size of a head are chosen, so that their product is the width."""

    def __init__(self) -> None:
        super().__init__()
        heads, size = nn.choice("heads", (1, 2, 4)), nn.choice("size", (4, 8))
        self.embed, self.norm, self.out = (
            nn.Linear(4, heads * size),
            nn.LayerNorm(heads * size),
            nn.Linear(heads * size, 2),
        )
        self.attention = nn.MultiheadAttention(heads * size, heads, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        return self.out(self.norm(self.attention(x, x, x)[0]))


class Reads(nn.ModelSpace):
    """Inputs that are chosen among: what is not chosen has no effect."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(4, 4 * at) for at in (1, 2, 3)])
        self.outs = nn.ModuleList([nn.Linear(4 * at, 4) for at in (1, 2, 3)])
        self.read = nn.InputChoice(3, None, label="read")

    def forward(self, x: Tensor) -> Tensor:
        return self.read([out(layer(x)) for layer, out in zip(self.layers, self.outs, strict=True)])


class Recurrent(nn.ModelSpace):
    """Recurrent layers, two ways and one, of a chosen width."""

    def __init__(self) -> None:
        super().__init__()
        width = nn.choice("width", (2, 4))
        self.lstm = nn.LSTM(4, width, num_layers=2, bidirectional=True, batch_first=True)
        self.gru = nn.GRU(width * 2, width, nn.choice("layers", (1, 2)), batch_first=True)
        self.out = nn.Linear(width, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.gru(self.lstm(x)[0])[0])


class Norms(nn.ModelSpace):
    """Normalisation of every kind as candidates."""

    def __init__(self) -> None:
        super().__init__()
        width = nn.choice("width", (8, 16))
        self.conv = nn.Conv2d(3, width, 1)
        self.norm = nn.LayerChoice({
            "batch": nn.BatchNorm2d(width),
            "group": nn.GroupNorm(nn.choice("groups", (2, 4)), width),
            "instance": nn.InstanceNorm2d(width, affine=True),
            "none": nn.Identity(),
        })  # fmt: skip
        self.out = nn.Conv2d(width, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.norm(self.conv(x)))


class Single(nn.ModelSpace):
    """Choices of one option, and repetitions of nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.LayerChoice({"only": nn.Linear(4, nn.choice("width", (4,)))}, label="layer")
        self.none = nn.Repeat(lambda at: nn.Linear(4, 4), 0)
        self.some = nn.Repeat(lambda at: nn.Linear(4, 4), (0, 1), label="some")
        self.read = nn.InputChoice(1)

    def forward(self, x: Tensor) -> Tensor:
        return self.read([self.some(self.none(self.layer(x)))])


class Tied(nn.ModelSpace):
    """One module at several places, and one tensor in several modules."""

    def __init__(self) -> None:
        super().__init__()
        width = nn.choice("width", (4, 8))
        self.first = nn.Linear(4, width)
        self.middle = nn.LayerChoice({"lin": nn.Linear(width, width), "tanh": nn.Tanh()}, label="middle")
        self.again = self.middle
        self.one, self.two = nn.Linear(width, width), nn.Linear(width, width)
        self.two.weight = self.one.weight
        self.out = nn.Linear(width, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.two(self.one(self.middle(self.again(self.middle(self.first(x)))))))


ODD: dict[Callable[[], Any], tuple[tuple[int, ...], int]] = {
    InCell: ((2, 4), 128),
    Outer: ((2, 4), 48),
    Sums: ((2, 3, 8, 8), 24),
    Heads: ((2, 5, 4), 6),
    Reads: ((2, 4), 7),
    Recurrent: ((2, 5, 4), 4),
    Norms: ((2, 3, 8, 8), 10),
    Single: ((2, 4), 2),
    Tied: ((2, 4), 4),
}
EACH = pytest.mark.parametrize(
    ("make", "shape", "size"), [(make, *of) for make, of in ODD.items()], ids=[make.__name__ for make in ODD]
)


@EACH
def test_paths_are_the_networks_and_tables_their_counts(
    make: Callable[[], Any], shape: tuple[int, ...], size: int
) -> None:
    space = stirred(make)
    assert space.size == size
    x = torch.randn(shape)
    profilers = [
        FlopsProfiler(space, x, progress=False, uncounted="error"),
        ParamsProfiler(space, progress=False),
        ActivationsProfiler(space, x, progress=False),
        PeakMemoryProfiler(space, x, progress=False),
    ]
    assert all(profiler.table is not None for profiler in profilers), profilers
    for architecture in space.sample(12, np.random.default_rng(0)):
        model = space.build(architecture, weights=True).eval()
        with space.activate(architecture), torch.no_grad():
            assert torch.equal(space(x), model(x)), architecture
        for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
            assert torch.equal(other(x), model(x))
        for profiler in profilers:
            direct = profiler._count(model, architecture)
            assert profiler.profile(architecture) == direct == profiler._recount(model, architecture), profiler


@pytest.mark.parametrize("make", [InCell, Outer, Sums, Heads, Reads, Norms, Single, Tied])
def test_what_can_be_mixed_mixes(make: Callable[[], Any]) -> None:
    space = stirred(make)
    assert all(space.mixable.values())
    x = torch.randn(ODD[make][0])
    for architecture in space.sample(4, np.random.default_rng(0)):
        with torch.no_grad():
            with space.activate(architecture):
                path = space(x)
            with space.mix(one_hot(space, architecture)):
                torch.testing.assert_close(space(x), path, rtol=1e-3, atol=1e-3)


def test_gates_and_directions_of_recurrent_layers_keep_their_places() -> None:
    space = stirred(Recurrent)
    built = space.build({"width": 2, "layers": 2}, weights=True)
    rows = [0, 1, 4, 5, 8, 9, 12, 13]
    assert torch.equal(built.lstm.weight_ih_l0, space.lstm.weight_ih_l0[rows])
    assert torch.equal(built.lstm.weight_ih_l1_reverse, space.lstm.weight_ih_l1_reverse[rows][:, [0, 1, 4, 5]])
    assert torch.equal(built.gru.bias_hh_l1, space.gru.bias_hh_l1[rows[:6]])


class Block(torch.nn.Module):
    def __init__(self, width: int, kernel: int) -> None:
        super().__init__()
        self.conv = torch.nn.Conv1d(width, width, kernel, padding=kernel // 2)
        self.attention = torch.nn.MultiheadAttention(width, 2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x).mT
        return self.attention(y, y, y)[0].mT


def test_layers_within_an_elastic_module_share_as_they_do_alone() -> None:
    class Net(nn.ModelSpace):
        def __init__(self) -> None:
            super().__init__()
            width = nn.choice("width", (4, 8))
            self.first = nn.Conv1d(3, width, 1)
            self.block = nn.elastic(Block)(width, nn.choice("kernel", (1, 3)))

        def forward(self, x: Tensor) -> Tensor:
            return self.block(self.first(x))

    space = stirred(Net)
    architecture = {"width": 4, "kernel": 1}
    built = space.build(architecture, weights=True).eval()
    assert torch.equal(built.block.conv.weight, space.block.conv.weight[:4, :4, 1:2])
    parts = [0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19]
    assert torch.equal(built.block.attention.in_proj_weight, space.block.attention.in_proj_weight[parts][:, :4])
    x = torch.randn(2, 3, 5)
    with space.activate(architecture), torch.no_grad():
        assert torch.equal(space(x), built(x))
    weights = {"width": torch.tensor([0.5, 0.5]), "kernel": torch.tensor([0.0, 1.0])}
    with (
        space.mix(weights),
        pytest.raises(nn.MixtureError, match="module 'block', a Block, cannot be mixed: its sizes"),
    ):
        space(x)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_networks_have_the_dtype_of_the_supernet(dtype: torch.dtype) -> None:
    space = stirred(Tied).to(dtype)
    architecture = {"width": 4, "middle": "lin"}
    model = space.build(architecture, weights=True).eval()
    assert {parameter.dtype for parameter in model.parameters()} == {dtype}
    assert model.one.weight is model.two.weight
    x = torch.randn(2, 4, dtype=dtype)
    with space.activate(architecture), torch.no_grad():
        assert torch.equal(space(x), model(x))
    assert model.one.weight.data_ptr() != space.one.weight.data_ptr()


def test_autocast_reaches_paths_and_mixtures() -> None:
    space = stirred(Outer)
    x = torch.randn(2, 4)
    weights = {choice.name: torch.full((len(choice.options),), 0.5) for choice in space.choices}
    with torch.autocast("cpu", dtype=torch.bfloat16):
        with space.activate(next(iter(space.at([0])))):
            assert space(x).dtype == torch.bfloat16
        with space.mix(weights):
            assert space(x).dtype == torch.bfloat16


def test_a_fresh_space_is_the_same_with_other_weights() -> None:
    space = stirred(Outer)
    before = torch.get_rng_state()
    torch.manual_seed(1)
    one = space.fresh()
    torch.manual_seed(1)
    two, three = space.fresh(), space.fresh()
    torch.set_rng_state(before)
    assert one.fingerprint == space.fingerprint
    assert torch.equal(one.first.weight, two.first.weight)
    assert not torch.equal(one.first.weight, three.first.weight)
    assert not torch.equal(one.first.weight, space.first.weight)
    assert one.activated is None


def test_a_fresh_space_that_is_another_one_is_refused() -> None:
    class Net(nn.ModelSpace):
        made = 0

        def __init__(self) -> None:
            super().__init__()
            Net.made += 1
            self.layer = nn.Linear(2, nn.choice("width", (2, 2 + Net.made)))

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(x)

    with pytest.raises(SpaceError, match="Net drafted another space the second time"):
        Net().fresh()


def net(parts: Callable[[], Any]) -> Any:
    class Net(nn.ModelSpace):
        def __init__(self) -> None:
            super().__init__()
            self.act = nn.LayerChoice([nn.ReLU(), nn.Tanh()], label="act")
            self.part = parts()

        def forward(self, x: Tensor) -> Tensor:
            return self.act(x)

    return Net()


def test_a_model_space_that_was_made_before_is_no_part() -> None:
    inner = Inner(4, "inner")
    with pytest.raises(SpaceError, match=r"module 'part' of Net is the model space 'Inner'.*make it within `__init__`"):
        net(lambda: inner)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        (lambda: [nn.Linear(2, nn.ValueChoice((2, 3)))], r"the choice of \(2, 3\) was made and no module uses it"),
        (lambda: [nn.LayerChoice([nn.ReLU(), nn.Tanh()])], "in a plain list are unknown to PyTorch"),
        (lambda: nn.LayerChoice({"training": nn.ReLU()}), "can be called 'training'"),
        (lambda: nn.LayerChoice({"": nn.ReLU()}), "can be called ''"),
        (lambda: nn.Linear(2, nn.choice("w", (2.0, 4.0))), "no Linear can be made that holds all.*'out_features': 4.0"),
        (lambda: nn.Linear(2, nn.choice("act", (2, 4))), r"'act' and have different options: \(0, 1\) at 'act'"),
        (lambda: nn.Linear(2, nn.choice("act", (1, 0)) + 1), r"'part' \(out_features\), a Linear"),
        (lambda: nn.LSTM(2, nn.choice("w", (2, 4)), hidden_size=3), "too many arguments, or one of them twice"),
    ],
)
def test_what_is_wrong_is_said(parts: Callable[[], Any], message: str) -> None:
    with pytest.raises((SpaceError, TypeError), match=f"(?s){message}"):
        net(parts)


def test_a_label_may_serve_a_layer_choice_and_a_value() -> None:
    space = net(lambda: nn.Linear(2, nn.choice("act", (0, 1)) + 1))
    assert space.names == ("act",)
    assert space.build({"act": 1}).part.out_features == 2


def test_a_slope_for_all_channels_is_not_mixed_with_slopes_for_each() -> None:
    space = net(lambda: nn.PReLU(nn.choice("slopes", (1, 4))))
    assert space.mixable == {"act": True, "slopes": False}


def test_forward_may_call_itself_what_it_likes() -> None:
    class Net(nn.ModelSpace):
        def __init__(this) -> None:  # noqa: N805
            super().__init__()
            this.times, this.layer = nn.choice("times", (1, 2)), nn.Linear(3, 3)

        def forward(this, x: Tensor) -> Tensor:  # noqa: N805
            for _ in range(this.times):
                x = this.layer(x)
            return x

    with Net().mix({"times": torch.ones(2)}) as space, pytest.raises(nn.MixtureError, match="at its attribute 'times'"):
        space(torch.zeros(1, 3))


class Looking(nn.ModelSpace):
    """`__init__` and `forward` look at sizes of layers, which are chosen."""

    def __init__(self) -> None:
        super().__init__()
        width, kernel = nn.choice("width", (4, 8)), nn.choice("kernel", (1, 3))
        self.first = nn.Linear(4, width)
        self.conv = nn.Conv1d(5, 6, kernel, padding=kernel // 2)
        self.attention = nn.MultiheadAttention(width, 2, batch_first=True)
        torch.nn.init.constant_(self.first.weight, self.first.out_features**-0.5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x) * self.attention.head_dim**-0.5
        return self.attention(x, x, x)[0].reshape(-1, self.first.out_features) / self.conv.kernel_size[0]


def test_layers_show_the_sizes_that_run() -> None:
    space = stirred(Looking)
    assert float(space.fresh().first.weight[0, 0].detach()) == pytest.approx(8**-0.5)
    x = torch.randn(2, 5, 4)
    for copied in (space, pickle.loads(pickle.dumps(space)), copy.deepcopy(space)):
        assert (copied.first.out_features, copied.conv.kernel_size) == (8, (3,))
        for architecture in space.at(range(4)):
            model = space.build(architecture, weights=True).eval()
            with copied.activate(architecture), torch.no_grad():
                assert copied.first.out_features == 2 * copied.attention.head_dim == architecture["width"]
                assert copied.conv.kernel_size == (architecture["kernel"],)
                assert torch.equal(copied(x), model(x))


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["width"], "module 'attention', a MultiheadAttention, was asked for its attribute 'head_dim'.*of tensors say"),
        (["kernel"], "the space itself, a Looking, looks at conv.kernel_size in `forward`.*space.activate"),
    ],
)
def test_sizes_that_are_mixed_cannot_be_looked_at(names: list[str], message: str) -> None:
    space = Looking()
    rest = {choice.name: choice.options[0] for choice in space.choices if choice.name not in names}
    with space.mix({name: torch.tensor([0.5, 0.5]) for name in names}, rest):
        with pytest.raises(nn.MixtureError, match=f"(?s){message}"):
            space(torch.zeros(2, 5, 4))
        if names == ["kernel"]:
            assert space.first.out_features == 4


def test_the_error_of_a_mixture_s_own_code_stays_what_it_is() -> None:
    class Wrong(Looking):
        def forward(self, x: Tensor) -> Tensor:
            return self.first(x) + "text"

    with (
        Wrong().mix({"width": torch.tensor([0.5, 0.5])}, {"kernel": 1}) as space,
        pytest.raises(TypeError, match="unsupported"),
    ):
        space(torch.zeros(2, 5, 4))
