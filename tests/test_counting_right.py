"""MACs and parameters against closed formulas, where it is easy to be silently wrong: alone, and as a candidate."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nasmw import profile
from nasmw.errors import ProfilerError
from nasmw.nn import LayerChoice, ModelSpace
from nasmw.profilers import ActivationsProfiler, FlopsProfiler, ParamsProfiler, PeakMemoryProfiler
from nasmw.profilers.shapes import trace


@attrs.frozen
class Case:
    """A module, the shape of its input, its multiply-adds and its parameters."""

    make: Callable[[], nn.Module]
    shape: tuple[int, ...]
    macs: int
    params: int


class Function(nn.Module):
    """A function of its input and one layer."""

    def __init__(self, function: Callable[[Any, Tensor], Tensor], layer: nn.Module | None = None) -> None:
        super().__init__()
        self.function = function
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self.layer, x)


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(16, 16, bias=False), nn.Linear(16, 16, bias=False)
        self.two.weight = self.one.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.two(self.one(x))


class Unused(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.used, self.dead = nn.Linear(4, 8), nn.Linear(4, 16)

    def forward(self, x: Tensor) -> Tensor:
        return self.used(x)


class Heads(nn.Module):
    """Attention as it is written by hand."""

    def __init__(self, fused: bool) -> None:
        super().__init__()
        self.fused = fused
        self.qkv, self.out = nn.Linear(8, 24), nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (part.unflatten(2, (2, 4)).transpose(1, 2) for part in self.qkv(x).chunk(3, dim=-1))
        if self.fused:
            mixed = F.scaled_dot_product_attention(q, k, v)
        else:
            mixed = (q * 4**-0.5 @ k.transpose(-2, -1)).softmax(-1) @ v
        return self.out(mixed.transpose(1, 2).flatten(2))


class Adapted(nn.Module):
    """A linear layer whose weight is a product of two others, computed in each pass."""

    def __init__(self) -> None:
        super().__init__()
        self.down, self.up = nn.Parameter(torch.zeros(2, 4)), nn.Parameter(torch.zeros(6, 2))

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.up @ self.down)


class Wasteful(nn.Module):
    """Computes what nothing needs; an exported network lacks it."""

    def __init__(self) -> None:
        super().__init__()
        self.used, self.dead = nn.Linear(4, 8), nn.Linear(4, 16)

    def forward(self, x: Tensor) -> Tensor:
        self.dead(x).relu_()
        return self.used(x)


@attrs.define
class Record:
    """Outputs with names."""

    scores: Tensor
    more: dict[str, Any]


class Recording(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(4, 8), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Record:
        return Record(self.one(x), {"all": [self.two(x)]})


HEADS = 5 * 8 * 24 + 2 * (5 * 5 * 4) * 2 + 5 * 8 * 8
CONV = 3 * 3 * 3 * 8
"""Multiply-adds of a convolution with kernels of 3 by 3 from 3 to 8 channels, at each place."""


def conv(**arguments: Any) -> nn.Conv2d:
    return nn.Conv2d(3, 8, 3, bias=False, **arguments)


def at_two_resolutions(layer: Any, x: Tensor) -> Tensor:
    return layer(x).sum() + layer(F.avg_pool2d(x, 2))


def pooled(pool: type[nn.Module]) -> Callable[[], nn.Module]:
    return lambda: nn.Sequential(pool(2, 2, ceil_mode=True), nn.Conv2d(3, 8, 1, bias=False))


CASES = {
    "a module called twice": Case(
        lambda: Function(lambda layer, x: layer(layer(x)), nn.Conv2d(8, 8, 3, padding=1, bias=False)),
        (1, 8, 16, 16),
        2 * 8 * 8 * 9 * 16 * 16,
        8 * 8 * 9,
    ),
    "one module at two resolutions": Case(
        lambda: Function(at_two_resolutions, conv(padding=1)), (1, 3, 16, 16), CONV * (16 * 16 + 8 * 8), CONV
    ),
    "tied weights": Case(Tied, (1, 16), 2 * 256, 256),
    "max pool with ceil_mode": Case(pooled(nn.MaxPool2d), (1, 3, 33, 33), 17 * 17 * 24, 24),
    "average pool with ceil_mode": Case(pooled(nn.AvgPool2d), (1, 3, 33, 33), 17 * 17 * 24, 24),
    "padding 'same'": Case(lambda: conv(padding="same"), (1, 3, 9, 9), CONV * 81, CONV),
    "padding 'same', dilated, even kernel": Case(
        lambda: nn.Conv2d(3, 8, 4, padding="same", dilation=2), (1, 3, 9, 9), 3 * 8 * 16 * 81, 3 * 8 * 16 + 8
    ),
    "padding 'valid'": Case(lambda: conv(padding="valid"), (1, 3, 9, 9), CONV * 49, CONV),
    "padding 'circular'": Case(lambda: conv(padding=1, padding_mode="circular"), (1, 3, 9, 9), CONV * 81, CONV),
    "layer norm": Case(lambda: nn.LayerNorm(16), (1, 5, 16), 0, 32),
    "layer norm without affine": Case(lambda: nn.LayerNorm(16, elementwise_affine=False), (1, 5, 16), 0, 0),
    "identity": Case(nn.Identity, (1, 3, 8, 8), 0, 0),
    "weights computed from weights": Case(Adapted, (1, 4), 6 * 2 * 4 + 4 * 6, 20),
    "a result that nothing needs": Case(Wasteful, (1, 4), 32, 4 * 8 + 8 + 4 * 16 + 16),
    "outputs in a record": Case(Recording, (1, 4), 4 * 8 + 4 * 2, 50),
    "unused submodule": Case(Unused, (1, 4), 32, 4 * 8 + 8 + 4 * 16 + 16),
    "attention by matmuls": Case(lambda: Heads(False), (1, 5, 8), HEADS, 8 * 24 + 24 + 8 * 8 + 8),
    "scaled dot product attention": Case(lambda: Heads(True), (1, 5, 8), HEADS, 8 * 24 + 24 + 8 * 8 + 8),
    "multi-head attention": Case(
        lambda: Function(lambda layer, x: layer(x, x, x)[0], nn.MultiheadAttention(8, 2, batch_first=True)),
        (1, 5, 8),
        HEADS,
        8 * 24 + 24 + 8 * 8 + 8,
    ),
    "transformer encoder layer": Case(
        lambda: nn.TransformerEncoderLayer(8, 2, 16, batch_first=True),
        (1, 5, 8),
        HEADS + 2 * 5 * 8 * 16,
        8 * 24 + 24 + 8 * 8 + 8 + 2 * 8 * 16 + 16 + 8 + 2 * 16,
    ),
    "group norm": Case(lambda: nn.Sequential(conv(), nn.GroupNorm(4, 8)), (1, 3, 6, 6), CONV * 16, CONV + 16),
    "instance norm": Case(
        lambda: nn.Sequential(conv(), nn.InstanceNorm2d(8, affine=True)), (1, 3, 6, 6), CONV * 16, CONV + 16
    ),
    "batch norm of one example": Case(lambda: nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8)), (1, 4), 32, 40 + 16),
    "SiLU": Case(lambda: nn.Sequential(conv(), nn.SiLU()), (1, 3, 6, 6), CONV * 16, CONV),
    "PReLU": Case(lambda: nn.Sequential(conv(), nn.PReLU(8)), (1, 3, 6, 6), CONV * 16, CONV + 8),
    "Conv1d": Case(lambda: nn.Conv1d(4, 8, 3, stride=2, groups=2), (1, 4, 9), 4 * 8 * (2 * 3), 8 * 2 * 3 + 8),
    "Conv3d": Case(lambda: nn.Conv3d(2, 4, (1, 3, 3)), (1, 2, 3, 5, 5), 3 * 3 * 3 * 4 * 2 * 9, 4 * 2 * 9 + 4),
    "depthwise": Case(lambda: nn.Conv2d(8, 8, 5, padding=2, groups=8), (1, 8, 6, 6), 36 * 8 * 25, 8 * 25 + 8),
    "ConvTranspose1d": Case(lambda: nn.ConvTranspose1d(4, 8, 3, stride=2), (1, 4, 7), 7 * 4 * 8 * 3, 4 * 8 * 3 + 8),
    "ConvTranspose2d": Case(
        lambda: nn.ConvTranspose2d(4, 8, 3, stride=2, groups=2, output_padding=1),
        (1, 4, 7, 7),
        49 * 4 * 4 * 9,
        4 * 4 * 9 + 8,
    ),
    "LSTM": Case(
        lambda: Function(lambda layer, x: layer(x)[0], nn.LSTM(3, 5, num_layers=2, bidirectional=True)),
        (7, 1, 3),
        7 * 2 * 4 * 5 * ((3 + 5) + (10 + 5)),
        2 * 4 * 5 * ((3 + 5 + 2) + (10 + 5 + 2)),
    ),
    "GRU": Case(
        lambda: Function(lambda layer, x: layer(x)[0], nn.GRU(3, 5)), (7, 1, 3), 7 * 3 * 5 * 8, 3 * 5 * (8 + 2)
    ),
    "embedding": Case(lambda: Function(lambda layer, x: layer(x.long()), nn.Embedding(10, 4)), (1, 5), 0, 40),
    "interpolate": Case(
        lambda: Function(lambda layer, x: layer(F.interpolate(x, scale_factor=2.0, mode="bilinear")), conv()),
        (1, 3, 5, 5),
        CONV * 64,
        CONV,
    ),
    "pixel shuffle": Case(lambda: nn.Sequential(nn.PixelShuffle(2), conv()), (1, 12, 3, 3), CONV * 16, CONV),
    "chunk": Case(lambda: Function(lambda layer, x: layer(x.chunk(2, dim=1)[1]), conv()), (1, 6, 5, 5), CONV * 9, CONV),
    "split": Case(
        lambda: Function(lambda layer, x: layer(torch.split(x, [1, 3], 1)[1]), conv()), (1, 4, 5, 5), CONV * 9, CONV
    ),
    "transpose": Case(
        lambda: Function(lambda layer, x: layer(x.transpose(1, 2)), nn.Linear(7, 4)), (1, 7, 5), 5 * 7 * 4, 7 * 4 + 4
    ),
    "scaled in forward": Case(
        lambda: Function(lambda layer, x: layer(x * 2.0 - 1.0) / 3.0 + x.mean() ** 2, nn.Linear(4, 4)), (1, 4), 16, 20
    ),
    "flattened, stacked, squeezed": Case(
        lambda: Function(
            lambda layer, x: layer(torch.flatten(torch.stack([x, x], 1), 1).unsqueeze(1).squeeze(1)), nn.Linear(8, 4)
        ),
        (1, 2, 2),
        32,
        36,
    ),
    "einsum": Case(lambda: Function(lambda layer, x: torch.einsum("bij,bkj->bik", x, x)), (1, 3, 5), 3 * 3 * 5, 0),
    "bilinear": Case(
        lambda: Function(lambda layer, x: layer(x, x), nn.Bilinear(3, 3, 2, bias=False)), (1, 3), 2 * 3 * 3, 18
    ),
}
EACH = pytest.mark.parametrize("case", CASES.values(), ids=list(CASES))


class Candidate(ModelSpace):
    """A network that has a module, or nothing in its place."""

    def __init__(self, make: Callable[[], nn.Module]) -> None:
        super().__init__()
        self.layer = LayerChoice({"it": make, "none": nn.Identity}, label="layer")

    def forward(self, x: Tensor) -> Any:
        return self.layer(x)


@EACH
def test_alone(case: Case) -> None:
    model, example = case.make(), torch.zeros(case.shape)
    profilers = [FlopsProfiler(None, example, uncounted="error"), ParamsProfiler(None)]
    assert profile(model, profilers) == {"macs": case.macs, "params": case.params}


@EACH
def test_as_a_candidate(case: Case, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NASMW_CACHE", str(tmp_path))
    space = Candidate(case.make)
    macs = FlopsProfiler(space, torch.zeros(case.shape), uncounted="error", progress=False)
    params = ParamsProfiler(space, progress=False)
    assert macs.table is not None
    for profiler, expected in ((macs, case.macs), (params, case.params)):
        assert profiler.profile({"layer": "it"}) == expected
        assert profiler.profile({"layer": "none"}) == 0


@EACH
def test_a_batch_of_three_costs_three_times_as_much(case: Case) -> None:
    axis = 1 if case.make().__class__ is Function and isinstance(getattr(case.make(), "layer", None), nn.RNNBase) else 0
    shape = [*case.shape]
    shape[axis] = 3
    counted = profile(case.make(), [FlopsProfiler(None, torch.zeros(shape), uncounted="error")])
    of_weights = 6 * 2 * 4 if case.make is Adapted else 0
    assert counted["macs"] == 3 * (case.macs - of_weights) + of_weights


@EACH
def test_the_mode_changes_nothing(case: Case) -> None:
    """Inference mode and gradients; made and run in it, or outside."""

    def counted(model: nn.Module) -> dict[str, float]:
        example = torch.zeros(case.shape)
        profilers = [
            FlopsProfiler(None, example, uncounted="error"),
            ParamsProfiler(None),
            ActivationsProfiler(None, example),
            PeakMemoryProfiler(None, example),
        ]
        return profile(model, profilers)

    expected = counted(case.make())
    assert (expected["macs"], expected["params"]) == (case.macs, case.params)
    with torch.inference_mode():
        made = case.make()
        assert counted(made) == expected
    assert counted(made) == expected
    with torch.inference_mode():
        assert counted(case.make()) == expected
        assert counted(case.make().train()) == expected


@EACH
def test_shapes_alone_say_the_same_of_a_network_with_data(case: Case) -> None:
    traced = trace(case.make(), torch.zeros(case.shape))
    empty = trace(case.make().to("meta"), torch.zeros(case.shape))
    assert traced.macs == empty.macs == case.macs
    assert not traced.uncounted
    assert [operation.written for operation in traced.operations] == [each.written for each in empty.operations]


def test_a_network_without_outputs_is_refused() -> None:
    class Silent(Unused):
        def forward(self, x: Tensor) -> None:  # type: ignore[override]
            self.last = self.used(x)

    for profiler in (FlopsProfiler(None, torch.zeros(1, 4)), ActivationsProfiler(None, torch.zeros(1, 4))):
        with pytest.raises(ProfilerError, match="a Silent returns no tensors but None; .* let `forward` return them"):
            profile(Silent(), [profiler])
