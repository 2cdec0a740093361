from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from torch import nn

from nasmw import Choice, Space, profile
from nasmw.errors import ProfilerError, SpaceError
from nasmw.profilers import FlopsProfiler, ParamsProfiler
from nasmw.testing import ProfilerContract, toy_space

built: list[dict] = []


def build(architecture):
    built.append(architecture)
    layers = [nn.Conv2d(3, architecture["width"], architecture["kernel"], padding="same"), nn.BatchNorm2d(8)]
    layers[1] = nn.BatchNorm2d(architecture["width"])
    if architecture["depth"] == 2:
        layers.append(nn.Conv2d(architecture["width"], architecture["extra"], 1))
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())


CHOICES = [
    Choice("resolution", (8, 16)),
    Choice("depth", (1, 2)),
    Choice("width", (4, 8)),
    Choice("kernel", (1, 3)),
    Choice("extra", (2, 6), when={"depth": 2}),
]
IMAGE = torch.zeros(1, 3, 8, 8)


def small_space():
    return Space(CHOICES, build=build)


def macs_by_hand(architecture):
    pixels = architecture["resolution"] ** 2
    macs = pixels * 3 * architecture["width"] * architecture["kernel"] ** 2
    return macs + pixels * architecture["width"] * architecture.get("extra", 0)


def params_by_hand(architecture):
    width, extra = architecture["width"], architecture.get("extra", 0)
    return 3 * width * architecture["kernel"] ** 2 + width + 2 * width + (width + 1) * extra


class TestFlopsProfilerContract(ProfilerContract):
    samples = 12

    def make(self, space):
        return FlopsProfiler(space, IMAGE)


class TestParamsProfilerContract(ProfilerContract):
    samples = 12

    def make(self, space):
        return ParamsProfiler(space)


def test_every_architecture_equals_the_formula():
    space = small_space()
    everything = space.at(range(space.size))
    macs, params = FlopsProfiler(space, IMAGE), ParamsProfiler(space)
    assert macs.profile_batch(everything).tolist() == [macs_by_hand(architecture) for architecture in everything]
    assert params.profile_batch(everything).tolist() == [params_by_hand(architecture) for architecture in everything]


def test_an_architecture_is_built_once():
    space = small_space()
    profiler = ParamsProfiler(space)
    built.clear()
    batch = space.sample(64, np.random.default_rng(0))
    profiler.profile_batch(batch)
    assert len(built) == len(set(batch.row_keys()))
    profiler.profile_batch(batch)
    profiler.profile(next(iter(batch)))
    assert len(built) == len(set(batch.row_keys()))


def test_what_is_remembered_is_bounded(monkeypatch):
    monkeypatch.setattr("nasmw.profilers.network.REMEMBERED", 3)
    space = small_space()
    profiler = ParamsProfiler(space)
    profiler.profile_batch(space.at(range(8)))
    built.clear()
    profiler.profile_batch(space.at([5, 6, 7]))
    assert not built
    profiler.profile_batch(space.at([0]))
    assert len(built) == 1


def test_building_draws_no_random_number_of_the_run():
    state = torch.random.get_rng_state()
    FlopsProfiler(small_space(), IMAGE)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_networks_outside_a_space():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    assert profile(net, [FlopsProfiler(None, IMAGE), ParamsProfiler(None)]) == {"macs": 36 * 108.0, "params": 120.0}
    with_buffers = ParamsProfiler(None, name="all", buffers=True)
    assert with_buffers.profile_model(net) == 129.0
    with pytest.raises(ProfilerError, match="without a space"):
        FlopsProfiler(None, IMAGE).profile({"depth": 1})


def test_counts_by_operator():
    counted = FlopsProfiler(None, IMAGE).count(nn.Sequential(nn.Conv2d(3, 4, 1), nn.Flatten(), nn.Linear(256, 2)))
    assert counted.by_operator == {"conv": 768, "linear": 512}


def test_the_resolution_is_a_choice_of_any_name():
    choices = [Choice("pixels", (8, (4, 6)))]
    space = Space(choices, build=lambda architecture: nn.Conv2d(3, 2, 1))
    assert FlopsProfiler(space, IMAGE, resolution="pixels").profile({"pixels": (4, 6)}) == 24 * 6
    assert FlopsProfiler(space, {"input": IMAGE}, resolution="pixels").profile({"pixels": 8}) == 64 * 6
    assert FlopsProfiler(space, IMAGE).profile({"pixels": (4, 6)}) == 64 * 6
    with pytest.raises(SpaceError, match="did you mean 'pixels'"):
        FlopsProfiler(space, IMAGE, resolution="pixel")


def test_a_choice_named_resolution_may_mean_something_else():
    space = Space([Choice("resolution", ("high", "low"))], build=lambda architecture: nn.Conv2d(3, 2, 1))
    with pytest.raises(ProfilerError, match=r"'high' is no size in pixels .* pass resolution=None"):
        FlopsProfiler(space, IMAGE)
    assert FlopsProfiler(space, IMAGE, resolution=None).profile({"resolution": "low"}) == 64 * 6
    gated = Space(
        [Choice("a", (1, 2)), Choice("resolution", (8,), when={"a": 1})], build=lambda architecture: nn.ReLU()
    )
    with pytest.raises(ProfilerError, match="may have no condition"):
        FlopsProfiler(gated, IMAGE)
    tokens = Space([Choice("resolution", (8,))], build=lambda architecture: nn.Linear(8, 2))
    with pytest.raises(ProfilerError, match="an image has three axes or more"):
        FlopsProfiler(tokens, torch.zeros(1, 8))


def test_a_wrong_shape_names_architecture_and_shape_at_construction():
    with pytest.raises(ProfilerError, match=r"the network of \{'resolution': 8.* input of shape \(1, 4, 8, 8\)"):
        FlopsProfiler(small_space(), torch.zeros(1, 4, 8, 8))


def test_a_space_that_cannot_build():
    with pytest.raises(ProfilerError, match="made without `build`"):
        ParamsProfiler(Space([Choice("a", (1, 2))]))


class Fourier(nn.Module):
    def forward(self, x):
        return torch.fft.rfft2(x)


def test_uncounted_operators():
    with pytest.warns(UserWarning, match=r"not counted: aten::fft_rfft2 \(1 times\)"):
        profiler = FlopsProfiler(None, IMAGE)
        assert profiler.profile_model(Fourier()) == 0.0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        profiler.profile_model(Fourier())  # the warning comes once
        FlopsProfiler(None, IMAGE, uncounted="ignore").profile_model(Fourier())
    with pytest.raises(ProfilerError, match="aten::fft_rfft2"):
        FlopsProfiler(None, IMAGE, uncounted="error").profile_model(Fourier())
    with pytest.raises(ProfilerError, match="`uncounted` is one of"):
        FlopsProfiler(None, IMAGE, uncounted="raise")


def test_the_toy_space_is_counted():
    assert FlopsProfiler(toy_space(), IMAGE).profile_batch(toy_space().at([0])) > 0
