"""Zero-cost proxies: against small networks worked out by hand, and as profilers that leave no trace."""

from __future__ import annotations

import copy
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nasmw import Chain, Choice, Filter, Profiler, Rank, Search, Space, profile
from nasmw.errors import BuildError, ConstraintError, ProfilerError
from nasmw.profilers import LearnedProfiler, ParamsProfiler
from nasmw.profilers.zero_cost import (
    GradNormProfiler,
    JacovProfiler,
    NaswotProfiler,
    RankEnsembleProfiler,
    SnipProfiler,
    SynflowProfiler,
    ZenProfiler,
    ZeroCostProfiler,
    proxy_encoding,
)
from nasmw.profilers.zero_cost.batches import DRAWS, Batch, generator
from nasmw.spaces import nasbench201
from nasmw.strategies import Random
from nasmw.testing import ProfilerContract, TableProfiler, toy_space

PROXIES: list[type[ZeroCostProfiler]] = [
    SynflowProfiler,
    NaswotProfiler,
    SnipProfiler,
    GradNormProfiler,
    JacovProfiler,
    ZenProfiler,
]
IMAGES = torch.zeros(4, 3, 8, 8)
every_proxy = pytest.mark.parametrize("proxy", PROXIES, ids=lambda proxy: proxy.metric)


class _Contract(ProfilerContract):
    samples = 4


class TestSynflow(_Contract):
    def make(self, space: Space) -> SynflowProfiler:
        return SynflowProfiler(space, IMAGES)


class TestNaswot(_Contract):
    def make(self, space: Space) -> NaswotProfiler:
        return NaswotProfiler(space, IMAGES)


class TestSnip(_Contract):
    def make(self, space: Space) -> SnipProfiler:
        return SnipProfiler(space, IMAGES, torch.tensor([0, 3, 3, 9]), repeats=2)


class TestGradNorm(_Contract):
    def make(self, space: Space) -> GradNormProfiler:
        return GradNormProfiler(space, IMAGES)


class TestJacov(_Contract):
    def make(self, space: Space) -> JacovProfiler:
        return JacovProfiler(space, IMAGES)


class TestZen(_Contract):
    def make(self, space: Space) -> ZenProfiler:
        return ZenProfiler(space, IMAGES)


class TestRankEnsemble(_Contract):
    def make(self, space: Space) -> RankEnsembleProfiler:
        parts = [SynflowProfiler(space, IMAGES), TableProfiler(space)]
        return RankEnsembleProfiler(parts, weights=[2.0, -1.0], reference=8, progress=False)


# -- closed forms ---------------------------------------------------------------------------------------------------


def layers(*modules: nn.Module) -> nn.Sequential:
    torch.manual_seed(5)
    return nn.Sequential(*modules)


def test_synflow_of_two_layers_by_hand() -> None:
    model = layers(nn.Linear(3, 2), nn.BatchNorm1d(2), nn.ReLU(), nn.Linear(2, 2))
    first, second = np.array([[1.0, -2.0, 3.0], [-4.0, 5.0, -6.0]]), np.array([[-1.0, 2.0], [0.5, -3.0]])
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor(first))
        model[0].bias.copy_(torch.tensor([-7.0, 8.0]))
        model[1].running_mean.fill_(100.0)
        model[3].weight.copy_(torch.tensor(second))
    hidden = np.abs(first).sum(axis=1) + np.array([7.0, 8.0])  # batch norm passes on what comes in
    leaving = np.abs(second).sum(axis=0)
    flow = (leaving * hidden).sum() + (leaving * np.abs(first).sum(axis=1)).sum()
    assert SynflowProfiler(None, torch.zeros(9, 3)).profile_model(model) == pytest.approx(math.log(flow), rel=1e-12)


def test_synflow_is_not_cut_by_relu6() -> None:
    model = layers(nn.Linear(4, 4, bias=False), nn.ReLU6(), nn.Linear(4, 2, bias=False))
    nn.init.constant_(model[0].weight, 5.0)
    nn.init.constant_(model[2].weight, 1.0)
    assert SynflowProfiler(None, torch.zeros(1, 4)).profile_model(model) == pytest.approx(math.log(2 * 2 * 4 * 20))


def test_synflow_of_a_hundred_layers_stays_in_range() -> None:
    model = nn.Sequential(*[nn.Linear(64, 64, bias=False) for _ in range(100)])
    for layer in model:
        nn.init.constant_(layer.weight, -8.0)
    # 100 layers each carry the whole of 64 * (64 * 8) ** 100, far beyond single precision
    expected = math.log(100 * 64) + 100 * math.log(512)
    assert SynflowProfiler(None, torch.zeros(1, 64)).profile_model(model) == pytest.approx(expected, rel=1e-12)


class Thresholds(nn.Module):
    """Three rectifiers that open at 0, 1 and -1.5."""

    def __init__(self, functional: bool) -> None:
        super().__init__()
        self.linear = nn.Linear(1, 3)
        self.relu = nn.ReLU(inplace=True)
        self.functional = functional
        with torch.no_grad():
            self.linear.weight.fill_(1.0)
            self.linear.bias.copy_(torch.tensor([0.0, -1.0, 1.5]))

    def forward(self, x: Tensor) -> Tensor:
        inner = self.linear(x)
        return F.relu(inner) if self.functional else self.relu(inner)


@pytest.mark.parametrize("functional", [False, True])
def test_naswot_kernel_by_hand(functional: bool) -> None:
    batch = torch.tensor([[-1.0], [0.5], [2.0]])  # open: 001, 101, 111
    kernel = np.array([[3, 2, 1], [2, 3, 2], [1, 2, 3]])
    naswot = NaswotProfiler(None, batch)
    assert naswot.profile_model(Thresholds(functional)) == pytest.approx(math.log(8.0), rel=1e-12)
    # A second layer of rectifiers, all open, adds a kernel of threes.
    double = nn.Sequential(Thresholds(functional), nn.Linear(3, 3), nn.Hardswish())
    nn.init.constant_(double[1].bias, 100.0)
    assert naswot.profile_model(double) == pytest.approx(np.linalg.slogdet(kernel + 3.0)[1], rel=1e-12)


def test_naswot_splits_long_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    naswot, model = NaswotProfiler(None, torch.zeros(5, 3, 8, 8)), layers(nn.Conv2d(3, 4, 3), nn.ReLU())
    whole = naswot.profile_model(model)
    monkeypatch.setattr("nasmw.profilers.zero_cost.kernels.COLUMNS", 7)
    assert naswot.profile_model(model) == pytest.approx(whole, rel=1e-12)


def softmax_gradient(weight: np.ndarray[Any, Any], x: np.ndarray[Any, Any], y: list[int]) -> np.ndarray[Any, Any]:
    scores = np.exp(x @ weight.T)
    probability = scores / scores.sum(axis=1, keepdims=True)
    gradient: np.ndarray[Any, Any] = (probability - np.eye(len(weight))[y]).T @ x / len(x)
    return gradient


def test_snip_and_grad_norm_by_hand() -> None:
    model = layers(nn.Linear(4, 3, bias=False))
    x, y = torch.randn(6, 4, generator=generator(1, 0, 0)), [0, 2, 1, 1, 0, 2]
    weight = model[0].weight.detach().double().numpy()
    gradient = softmax_gradient(weight, x.double().numpy(), y)
    snip = SnipProfiler(None, x, torch.tensor(y)).profile_model(model)
    norm = GradNormProfiler(None, x, torch.tensor(y)).profile_model(model)
    assert snip == pytest.approx(np.abs(weight * gradient).sum(), rel=1e-5)
    assert norm == pytest.approx(np.sqrt((gradient**2).sum()), rel=1e-5)


def test_gradients_of_each_layer_are_added_and_biases_left_out() -> None:
    model = layers(nn.Linear(2, 2), nn.Linear(2, 1))
    x, targets = torch.tensor([[1.0, 2.0], [3.0, -1.0]]), torch.tensor([[0.5], [2.0]])
    twice = copy.deepcopy(model)
    F.mse_loss(twice(x), targets).backward()
    norms = [float(layer.weight.grad.norm()) for layer in twice]
    grad_norm = GradNormProfiler(None, x, targets, loss=F.mse_loss)
    assert grad_norm.profile_model(model) == pytest.approx(sum(norms), rel=1e-6)
    assert "loss mse_loss" in repr(grad_norm)


def test_batch_norm_normalises_by_the_batch_and_dropout_is_off() -> None:
    x, y = torch.randn(8, 4, generator=generator(2, 0, 0)), torch.arange(8) % 3
    model = layers(nn.BatchNorm1d(4), nn.Dropout(0.9), nn.Linear(4, 3, bias=False))
    model[0].running_mean.fill_(50.0)
    centred = (x - x.mean(0)) / (x.var(0, unbiased=False) + model[0].eps).sqrt()
    plain = SnipProfiler(None, centred, y).profile_model(model[2])
    assert SnipProfiler(None, x, y).profile_model(model) == pytest.approx(plain, rel=1e-5)


class Squares(nn.Module):
    """Its Jacobian at a sample is twice the sample."""

    def forward(self, x: Tensor) -> Tensor:
        return x.square().sum(dim=1, keepdim=True)


def test_jacov_by_hand() -> None:
    batch = torch.tensor([[1.0, 2.0, 4.0], [3.0, 1.0, 2.0]])
    correlation = np.corrcoef(batch.numpy())[0, 1]
    expected = -sum(math.log(v + 1e-5) + 1.0 / (v + 1e-5) for v in (1.0 - correlation, 1.0 + correlation))
    jacov = JacovProfiler(None, batch)
    assert jacov.profile_model(Squares()) == pytest.approx(expected, rel=1e-9)
    alike = -(math.log(2.0 + 1e-5) + 1.0 / (2.0 + 1e-5) + math.log(1e-5) + 1e5)
    assert jacov.profile_model(layers(nn.Linear(3, 4))) == pytest.approx(alike, rel=1e-6)  # one Jacobian for all


def test_zen_is_what_its_definition_says() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5), nn.ReLU(), nn.Conv2d(5, 4, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    )
    random = generator(3, 0, DRAWS)
    first, second = torch.randn(5, 3, 3, 3, generator=random), torch.randn(4, 5, 1, 1, generator=random)
    x, e = torch.randn(6, 3, 8, 8, generator=random), torch.randn(6, 3, 8, 8, generator=random)

    def features(z: Tensor) -> tuple[Tensor, float]:
        inner = F.conv2d(z.double(), first.double())
        variance = inner.var(dim=(0, 2, 3), unbiased=False)
        mean = inner.mean(dim=(0, 2, 3))
        normed = (inner - mean[:, None, None]) / (variance + 1e-5).sqrt()[:, None, None]
        return F.conv2d(normed.relu(), second.double()), float(variance.mean().sqrt())

    (before, scale), (after, _) = features(x), features(x + 0.1 * e)
    expected = math.log((before - after).flatten(1).norm(dim=1).mean()) + math.log(scale)
    zen = ZenProfiler(None, torch.zeros(6, 3, 8, 8), gamma=0.1, seed=3)
    assert zen.profile_model(model) == pytest.approx(expected, abs=1e-4)


def test_zen_takes_the_input_of_the_last_layer_where_nothing_is_pooled() -> None:
    model = layers(nn.Linear(6, 3), nn.Linear(3, 2))
    random = generator(0, 0, DRAWS)
    first = torch.randn(3, 6, generator=random)
    torch.randn(2, 3, generator=random), torch.randn(5, 6, generator=random)
    change = 0.01 * torch.randn(5, 6, generator=random) @ first.T  # the features are linear
    expected = math.log(change.norm(dim=1).mean())
    assert ZenProfiler(None, torch.zeros(5, 6)).profile_model(model) == pytest.approx(expected, abs=1e-4)


def test_zen_goes_on_in_double_precision() -> None:
    model = layers(*[nn.Linear(64, 64) for _ in range(80)])  # each layer grows by about 8
    score = ZenProfiler(None, torch.zeros(4, 64)).profile_model(model)
    assert 80 * math.log(8.0) - 20.0 < score < 80 * math.log(8.0) + 20.0


# -- networks without a score ---------------------------------------------------------------------------------------


class Disconnected(nn.Module):
    """Multiplies what reaches it by zero."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.head = nn.Linear(4, 10)

    def forward(self, x: Tensor) -> Tensor:
        inner = F.relu(self.norm(0.0 * self.conv(x)))
        return self.head(inner.mean((2, 3)))


FLOORS = {"synflow": -745.0, "naswot": 0.0, "snip": 0.0, "grad_norm": 0.0, "zen": -745.0}


@every_proxy
def test_a_network_without_a_path_gets_the_floor(proxy: type[ZeroCostProfiler]) -> None:
    score = proxy(None, IMAGES).profile_model(Disconnected())
    least = -(3 * (math.log(1e-5) + 1e5) + math.log(4.0 + 1e-5) + 1.0 / (4.0 + 1e-5))
    assert score == pytest.approx(FLOORS.get(proxy.metric, least), abs=1e-6)


@every_proxy
def test_cells_that_join_nothing_come_last(proxy: type[ZeroCostProfiler]) -> None:
    space = nasbench201(input_size=8, channels=4, cells=1)
    whole = dict.fromkeys(space.names, "nor_conv_3x3")
    parted = {**whole, "edge_0_3": "none", "edge_1_3": "none", "edge_2_3": "none"}
    dead_branch = {**whole, "edge_0_1": "none"}
    profiler = proxy(space, torch.zeros(8, 3, 8, 8))
    assert profiler.profile(parted) < min(profiler.profile(whole), profiler.profile(dead_branch))


class Exploding(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.linear(x)) * math.inf


def test_overflow_gets_the_floor_and_for_synflow_an_error() -> None:
    torch.manual_seed(0)
    batch = torch.ones(3, 3)
    for proxy in (SnipProfiler, GradNormProfiler, ZenProfiler):
        profiler = proxy(None, batch)
        assert profiler.profile_model(nn.Sequential(Exploding(), nn.Linear(2, 2))) == profiler.floor
    jacov = JacovProfiler(None, batch)
    assert jacov.profile_model(Exploding()) == jacov.floor < -1e5
    with pytest.raises(ProfilerError, match="no number in double precision"):
        SynflowProfiler(None, batch).profile_model(Exploding())


def test_a_linear_network_opens_no_rectifier() -> None:
    assert NaswotProfiler(None, torch.zeros(4, 3)).profile_model(layers(nn.Linear(3, 2))) == 0.0


# -- determinism and what stays as it was ---------------------------------------------------------------------------


PROGRAM = """
import numpy as np
import torch
from nasmw.profilers.zero_cost import *
from nasmw.testing import toy_space
torch.manual_seed({state})
torch.randn(100)
space = toy_space()
batch = space.sample(3, np.random.default_rng(0))
images = torch.zeros(4, 3, 8, 8)
proxies = [SynflowProfiler, NaswotProfiler, SnipProfiler, GradNormProfiler, JacovProfiler, ZenProfiler]
made = [proxy(space, images, repeats=2) for proxy in proxies]
made.append(RankEnsembleProfiler(made[:2], reference=5, progress=False))
said = [repr(made)] + [value.hex() for profiler in made for value in profiler.profile_batch(batch).tolist()]
print(*said, sep="\\n")
"""


def test_values_are_the_same_in_every_process() -> None:
    names: dict[str, Any] = {}
    with torch.random.fork_rng(devices=[]):
        exec(PROGRAM.format(state=1), names)
    program = [sys.executable, "-c", PROGRAM.format(state=2)]
    printed = subprocess.run(program, capture_output=True, text=True, check=True).stdout
    assert len(names["said"]) == 1 + 7 * 3
    assert printed.splitlines() == names["said"]


@every_proxy
def test_random_state_and_modes_of_torch_stay(proxy: type[ZeroCostProfiler]) -> None:
    space = toy_space()
    profiler = proxy(space, IMAGES)
    architecture = {"width": 8, "depth": 1, "block0.op": "conv", "block0.kernel": 3, "block0.expand": 1}
    before, numbers = torch.get_rng_state(), np.random.get_state()[1].copy()
    with torch.no_grad():
        value = profiler.profile(architecture)
        assert not torch.is_grad_enabled()
    with torch.inference_mode():
        assert proxy(space, torch.zeros(4, 3, 8, 8)).profile(architecture) == value
    assert torch.equal(before, torch.get_rng_state())
    assert np.array_equal(numbers, np.random.get_state()[1])


@every_proxy
def test_a_given_network_stays_as_it_is(proxy: type[ZeroCostProfiler]) -> None:
    model = layers(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    model.append(nn.Linear(4, 10))
    model[0].weight.requires_grad_(False)
    kept = copy.deepcopy(model.state_dict())
    first = profile(model, [proxy(None, IMAGES)])
    assert all(torch.equal(kept[name], value) for name, value in model.state_dict().items())
    assert model.training and not model[0].weight.requires_grad
    assert all(parameter.grad is None for parameter in model.parameters())
    assert profile(model, [proxy(None, IMAGES)]) == first


@every_proxy
def test_seeds_and_repeats_draw_anew(proxy: type[ZeroCostProfiler]) -> None:
    space = toy_space()
    architecture = {"width": 8, "depth": 1, "block0.op": "conv", "block0.kernel": 3, "block0.expand": 1}
    values = [proxy(space, IMAGES, seed=seed).profile(architecture) for seed in (0, 1)]
    twice = proxy(space, IMAGES, repeats=2).profile(architecture)
    assert len({*values, twice}) == 3
    assert 2 * twice - values[0] != values[1]  # the second draw of a seed is not the first of the next one


def test_a_value_is_computed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    space, profiler = toy_space(), SynflowProfiler(toy_space(), IMAGES)
    batch = space.sample(5, np.random.default_rng(0))
    first = profiler.profile_batch(batch)
    monkeypatch.setattr(SynflowProfiler, "_score", None)
    assert np.array_equal(profiler.profile_batch(batch), first)


# -- the batch ------------------------------------------------------------------------------------------------------


def test_data_counts_where_a_proxy_reads_it() -> None:
    one, other = (torch.rand(4, 3, 8, 8, generator=generator(seed, 0, 0)) for seed in (0, 1))
    space = toy_space()
    architecture = {"width": 8, "depth": 1, "block0.op": "conv", "block0.kernel": 3, "block0.expand": 1}
    for proxy in PROXIES:
        first, second = proxy(space, one), proxy(space, other)
        assert (first.profile(architecture) != second.profile(architecture)) == proxy.reads_data
        assert (repr(first) != repr(second)) == proxy.reads_data
    assert "(4, 3, 8, 8) data " in repr(SnipProfiler(space, one)) and "noise" in repr(SnipProfiler(space, IMAGES))


def test_the_batch_is_kept_as_it_was_given() -> None:
    images = torch.rand(4, 3, 8, 8)
    naswot = NaswotProfiler(None, images)
    said = repr(naswot)
    images.zero_()
    assert repr(naswot) == said


def build_resizable(architecture: dict[str, Any]) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * architecture["resolution"] ** 2, 4), nn.ReLU())


def test_images_follow_the_resolution() -> None:
    space = Space([Choice("resolution", (8, 16))], build_resizable)
    for images in (torch.zeros(2, 3, 8, 8), torch.rand(2, 3, 8, 8)):
        for proxy in PROXIES:
            proxy(space, images).profile({"resolution": 16})
    constant = Batch.of(torch.full((2, 3, 8, 8), 0.25), space, "resolution").shaped({"resolution": 16})
    assert torch.allclose(constant.args[0], torch.full((2, 3, 16, 16), 0.25))


class TwoInputs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(5, 3)

    def forward(self, x: Tensor, *, scale: float, numbers: Tensor) -> Tensor:
        return F.relu(self.linear(x) * scale + numbers[:, None])


@every_proxy
def test_networks_may_take_several_arguments(proxy: type[ZeroCostProfiler]) -> None:
    torch.manual_seed(0)
    example = {"x": torch.zeros(4, 5), "scale": 2.0, "numbers": torch.arange(4)}
    assert math.isfinite(proxy(None, example).profile_model(TwoInputs()))


# -- in a search ----------------------------------------------------------------------------------------------------


def test_a_search_records_the_values(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    space = toy_space()
    scored = []
    score = SynflowProfiler._score

    def counted(self: SynflowProfiler, *args: Any) -> float:
        scored.append(1)
        return score(self, *args)

    monkeypatch.setattr(SynflowProfiler, "_score", counted)

    def search(trials: int) -> Any:
        synflow = SynflowProfiler(space, IMAGES)
        chain = Chain(Random(), Filter(synflow >= 1.0), Rank(synflow, groups_of=4))
        return Search(space, chain, lambda trial: 1.0, window=1, log=tmp_path / "run.db").run(trials=trials)

    search(2)
    first = len(scored)
    assert first >= 8
    assert len(search(2).trials) == 2
    assert len(scored) == first, "what the log has is read back"
    search(4)
    assert len(scored) > first


def test_a_share_of_the_space_is_no_limit_on_a_proxy() -> None:
    synflow = SynflowProfiler(toy_space(), IMAGES)
    assert not synflow.pure and not synflow.fixed
    with pytest.raises(ConstraintError, match="would take 4096 measurements"):
        synflow.at_most("60%").resolve(lambda one, batch: one.profile_batch(batch), toy_space())


# -- ranks ----------------------------------------------------------------------------------------------------------


def test_places_are_shares_of_the_reference_and_go_on_beyond_it() -> None:
    space = Space([Choice("x", tuple(range(10)))])
    cost = TableProfiler(space)
    whole = RankEnsembleProfiler([cost], reference=10, progress=False)
    everything = space.at(range(10))
    assert whole.profile_batch(everything) == pytest.approx((np.arange(10) + 0.5) / 10)
    some = RankEnsembleProfiler([cost], reference=4, seed=1, progress=False)
    places = some.profile_batch(everything)
    drawn = np.sort(some._ranks.sample().codes[:, 0])
    assert len(set(drawn.tolist())) == 4
    assert places[drawn] == pytest.approx([0.125, 0.375, 0.625, 0.875])
    assert (np.diff(places) > 0).all() and places.min() > 0.0 and places.max() < 1.0
    assert drawn[0] > 0 or drawn[-1] < 9, "some lie beyond the reference"
    assert RankEnsembleProfiler([-1 * cost], reference=4, seed=1).profile_batch(everything) == pytest.approx(1 - places)


def test_weights_and_equal_values() -> None:
    space = Space([Choice("x", (1, 2, 3, 4)), Choice("y", (1, 2))])

    class Constant(Profiler):
        def _profile(self, architecture: Any) -> float:
            return 5.0

    rising, flat = TableProfiler(space), Constant("constant", space=space)
    batch = space.at(range(8))
    alone = RankEnsembleProfiler([rising], reference=8, progress=False).profile_batch(batch)
    assert RankEnsembleProfiler([flat], reference=8).profile_batch(batch) == pytest.approx(0.5)
    both = RankEnsembleProfiler([rising, flat], weights=[-3.0, 1.0], reference=8, progress=False)
    assert both.profile_batch(batch) == pytest.approx(0.75 * (1 - alone) + 0.25 * 0.5)
    assert both.fixed and both.pure and both.kind == "analytical"


def test_an_ensemble_of_proxies_ranks_in_a_search(tmp_path: Path) -> None:
    space = toy_space()
    parts = [SynflowProfiler(space, IMAGES), NaswotProfiler(space, IMAGES), ParamsProfiler(space, progress=False)]
    votes = RankEnsembleProfiler(parts, reference=6, progress=False)
    assert votes.kind == "measured" and not votes.pure
    result = Search(space, Chain(Random(), Rank(votes, groups_of=3)), lambda trial: 1.0, log=tmp_path / "run.db").run(
        trials=3
    )
    assert len(result.trials) == 3
    assert (
        0.0 < profile(space.build(next(iter(space.sample(1, np.random.default_rng(0))))), [votes])["proxy_rank"] < 1.0
    )


def test_proxies_are_an_encoding_for_learned_profilers() -> None:
    space = toy_space()
    proxies = proxy_encoding([SynflowProfiler(space, IMAGES), TableProfiler(space)], reference=10, progress=False)
    batch = space.sample(12, np.random.default_rng(1))
    assert proxies.names(space) == ("synflow", "cost")
    learned = LearnedProfiler(space, "ridge", "counts + proxies", given={"proxies": proxies})
    values = TableProfiler(space).profile_batch(batch)
    assert learned.fit(batch, values).profile_batch(batch).shape == (12,)


# -- errors ---------------------------------------------------------------------------------------------------------


@every_proxy
def test_arguments_are_checked(proxy: type[ZeroCostProfiler]) -> None:
    bare = Space([Choice("x", (1, 2))])
    with pytest.raises(ProfilerError, match="was made without `build`"):
        proxy(bare, IMAGES)
    with pytest.raises(ProfilerError, match="at least one sample"):
        proxy(None, torch.zeros(0, 3))
    with pytest.raises(ProfilerError, match="needs a tensor of floats"):
        proxy(None, torch.zeros(4, 3, dtype=torch.long))
    with pytest.raises(TypeError, match="an example input is a tensor"):
        proxy(None, 5)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"seed=.*at least 0, got -1"):
        proxy(None, IMAGES, seed=-1)
    with pytest.raises(ValueError, match=r"repeats=.*at least 1, got 0"):
        proxy(None, IMAGES, repeats=0)


@pytest.mark.parametrize("proxy", [NaswotProfiler, JacovProfiler], ids=lambda proxy: proxy.metric)
def test_one_sample_cannot_be_compared(proxy: type[ZeroCostProfiler]) -> None:
    with pytest.raises(ProfilerError, match=r"compares samples.*at least 2 of them.*got \(1, 3, 8, 8\)"):
        proxy(None, torch.zeros(1, 3, 8, 8))


def test_targets_and_loss_are_checked() -> None:
    with pytest.raises(TypeError, match="a tensor of class numbers"):
        SnipProfiler(None, IMAGES, [0, 1, 2, 3])  # type: ignore[arg-type]
    with pytest.raises(ProfilerError, match=r"one target for each of the 4 samples.*\(3,\)"):
        SnipProfiler(None, IMAGES, torch.zeros(3, dtype=torch.long))
    with pytest.raises(TypeError, match="a function of outputs and targets"):
        GradNormProfiler(None, IMAGES, loss="mse")  # type: ignore[arg-type]
    with pytest.raises(ProfilerError, match=r"\(n, classes\) logits.*returned \(4,\)"):
        SnipProfiler(None, torch.zeros(4, 3)).profile_model(layers(nn.Linear(3, 1), nn.Flatten(0)))
    with pytest.raises(ValueError, match="a finite number above 0, got 0"):
        ZenProfiler(None, IMAGES, gamma=0)


class Pair(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 2)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x, self.linear(x)


@every_proxy
def test_networks_that_do_not_fit_are_named(proxy: type[ZeroCostProfiler]) -> None:
    with pytest.raises(ProfilerError, match="return one tensor of floats, and a Pair returned a tuple"):
        proxy(None, torch.zeros(4, 3)).profile_model(Pair())
    with pytest.raises(ProfilerError, match=r"cannot score a Linear on a batch of \(4, 5\): RuntimeError"):
        proxy(None, torch.zeros(4, 5)).profile_model(nn.Linear(3, 2))


def test_what_a_proxy_needs_is_said() -> None:
    with pytest.raises(ProfilerError, match="whose norms are batch norms.*'1' of a Sequential is a LayerNorm"):
        ZenProfiler(None, torch.zeros(4, 3)).profile_model(layers(nn.Linear(3, 3), nn.LayerNorm(3)))
    with pytest.raises(ProfilerError, match="naswot looks at rectifiers .* a Sequential has tanh instead"):
        NaswotProfiler(None, torch.zeros(4, 3)).profile_model(layers(nn.Linear(3, 3), nn.Tanh()))
    for proxy in (SynflowProfiler, SnipProfiler, GradNormProfiler):
        with pytest.raises(ProfilerError, match="sums over weights, and a ReLU has no parameter with two axes"):
            proxy(None, torch.zeros(4, 3)).profile_model(nn.ReLU())


def build_nothing(architecture: dict[str, Any]) -> nn.Module:
    raise OSError("no weights")


def test_a_network_that_cannot_be_built() -> None:
    with pytest.raises(BuildError, match="no weights"):
        SynflowProfiler(Space([Choice("x", (1, 2))], build_nothing), IMAGES).profile({"x": 1})


def test_errors_of_ensembles() -> None:
    space = toy_space()
    cost, other = TableProfiler(space), TableProfiler(space, "other")
    with pytest.raises(ProfilerError, match="at least one profiler"):
        RankEnsembleProfiler([])
    with pytest.raises(ProfilerError, match="two profilers are named 'cost'"):
        RankEnsembleProfiler([cost, TableProfiler(space)])
    with pytest.raises(ProfilerError, match="one profiler twice"):
        RankEnsembleProfiler([cost, cost])
    with pytest.raises(ProfilerError, match="one and the same space"):
        RankEnsembleProfiler([cost, TableProfiler(nasbench201(), "elsewhere")])
    with pytest.raises(ProfilerError, match="one and the same space"):
        proxy_encoding([SynflowProfiler(None, IMAGES)])
    with pytest.raises(ProfilerError, match="learns during a search"):
        RankEnsembleProfiler([LearnedProfiler(space, "ridge")])
    for weights in ([1.0], [0.0, 0.0], [1.0, math.nan]):
        with pytest.raises(ProfilerError, match="one finite weight for each of 2 profilers"):
            RankEnsembleProfiler([cost, other], weights=weights)
    with pytest.raises(ValueError, match=r"reference=.*at least 2, got 1"):
        RankEnsembleProfiler([cost], reference=1)
