from __future__ import annotations

import os
import pickle
import re
import warnings

import numpy as np
import pytest
import torch
from torch import nn

from nasmw import Chain, Choice, Filter, Search, Space, profile
from nasmw.errors import BuildError, ProfilerError, SpaceError
from nasmw.executors import Processes, Serial
from nasmw.profilers import ActivationsProfiler, FlopsProfiler, ModelSizeProfiler, ParamsProfiler, PeakMemoryProfiler
from nasmw.profilers.cache import cache_folder
from nasmw.strategies import Random
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
        return FlopsProfiler(space, IMAGE, progress=False)


class TestFlopsProfilerCountingContract(ProfilerContract):
    samples = 12

    def make(self, space):
        return FlopsProfiler(space, IMAGE, method="count")


class TestParamsProfilerContract(ProfilerContract):
    samples = 12

    def make(self, space):
        return ParamsProfiler(space, progress=False)


class TestModelSizeProfilerContract(ProfilerContract):
    samples = 12

    def make(self, space):
        return ModelSizeProfiler(space, bits=4, progress=False)


class TestActivationsProfilerContract(ProfilerContract):
    samples = 12

    def make(self, space):
        return ActivationsProfiler(space, IMAGE, progress=False)


class TestPeakMemoryProfilerContract(ProfilerContract):
    samples = 12

    def make(self, space):
        return PeakMemoryProfiler(space, IMAGE, progress=False)


@pytest.mark.parametrize("method", ["probe", "count"])
def test_every_architecture_equals_the_formula(method):
    space = small_space()
    everything = space.at(range(space.size))
    macs, params = FlopsProfiler(space, IMAGE, method=method), ParamsProfiler(space, method=method)
    assert (macs.table is None) == (method == "count")
    assert macs.profile_batch(everything).tolist() == [macs_by_hand(architecture) for architecture in everything]
    assert params.profile_batch(everything).tolist() == [params_by_hand(architecture) for architecture in everything]


def test_an_architecture_is_built_once():
    space = small_space()
    profiler = ParamsProfiler(space, method="count")
    built.clear()
    profiler._values.clear()
    batch = space.sample(64, np.random.default_rng(0))
    profiler.profile_batch(batch)
    assert len(built) == len(set(batch.row_keys()))
    profiler.profile_batch(batch)
    profiler.profile(next(iter(batch)))
    assert len(built) == len(set(batch.row_keys()))


def test_what_is_remembered_is_bounded(monkeypatch):
    monkeypatch.setattr("nasmw.profilers.network.REMEMBERED", 3)
    space = small_space()
    profiler = ParamsProfiler(space, method="count")
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
    with pytest.raises(ProfilerError, match=r"the network of \{'resolution': .* input of shape \(1, 4, \d+, \d+\)"):
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


# -- tables -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def cache(monkeypatch, tmp_path):
    monkeypatch.setenv("NASMW_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_tables_are_kept_on_disk(cache):
    first = ParamsProfiler(small_space())
    assert len(list(cache.iterdir())) == 1
    built.clear()
    second = ParamsProfiler(small_space())
    assert len(built) < 10
    assert repr(first) == repr(second)
    everything = small_space().at(range(small_space().size))
    assert np.array_equal(first.profile_batch(everything), second.profile_batch(everything))


def build_wider(architecture):
    return build({**architecture, "width": architecture["width"] + 1})


build_wider.__module__, build_wider.__qualname__ = build.__module__, build.__qualname__


def test_a_changed_build_is_noticed(cache):
    ParamsProfiler(small_space())
    space = Space(CHOICES, build=build_wider)
    architecture = {"resolution": 8, "depth": 1, "width": 4, "kernel": 1}
    assert ParamsProfiler(space).profile(architecture) == params_by_hand({**architecture, "width": 5})


def test_a_damaged_file_is_made_anew(cache):
    ParamsProfiler(small_space())
    (file,) = cache.iterdir()
    file.write_bytes(b"no table")
    with pytest.warns(UserWarning, match="cannot be read and is made anew"):
        ParamsProfiler(small_space())
    ParamsProfiler(small_space())


def test_a_cache_that_cannot_be_written_is_a_warning(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("NASMW_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.warns(UserWarning, match="tables cannot be kept .* set NASMW_CACHE"):
        ParamsProfiler(small_space())


def test_where_the_cache_is(monkeypatch):
    monkeypatch.delenv("NASMW_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert str(cache_folder()) == "/somewhere/nasmw"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder().parts[-2:] == (".cache", "nasmw")


def test_the_repr_says_how_sure_the_tables_are():
    assert "under 1% wrong at 95% confidence" in repr(ParamsProfiler(small_space()))
    assert "counted one by one" in repr(ParamsProfiler(small_space(), method="count"))


def test_bounds_are_exact():
    space = small_space()
    values = FlopsProfiler(space, IMAGE).profile_batch(space.at(range(space.size)))
    bounds = FlopsProfiler(space, IMAGE).bounds()
    assert (bounds.low, bounds.high) == (values.min(), values.max())


def test_declared_tables_are_taken_and_checked():
    def table(space, shape):
        declared.append(shape)
        return ParamsProfiler(small_space()).table

    declared = []
    space = Space(CHOICES, build=build, tables={"params": table})
    profiler = ParamsProfiler(space)
    assert declared == [None] and "declared tables" in repr(profiler)
    assert "probing" in repr(ParamsProfiler(space, method="probe")) and declared == [None]
    wrong = Space(CHOICES, build=build, tables={"params": lambda space, shape: table(space, shape) + 1})
    with pytest.raises(ProfilerError, match=r"declares give params = .* correct them"):
        ParamsProfiler(wrong)
    unbuildable = Space(CHOICES, tables={"params": table})
    assert ParamsProfiler(unbuildable).profile(space.decode(space.at([0]).codes[0])) > 0


class Erratic:
    """A build that gives another network each time."""

    def __init__(self):
        self.calls = 0

    def __call__(self, architecture):
        self.calls += 1
        return nn.Linear(architecture["width"], self.calls)


def test_a_random_build_is_refused():
    space = Space([Choice("width", (4, 8))], build=Erratic())
    with pytest.raises(ProfilerError, match="is random: it gave two different networks"):
        ParamsProfiler(space)


def build_sometimes(architecture):
    if architecture["width"] == 8 and architecture["kernel"] == 3:
        raise ValueError("no such network")
    return build(architecture)


def test_a_build_that_fails_names_the_architecture():
    with pytest.raises(BuildError, match=r"building \{.*'width': 8, 'kernel': 3.* no such network"):
        ParamsProfiler(Space(CHOICES, build=build_sometimes))


def build_product(architecture):
    total = 1 + sum(value * 3**place for place, value in enumerate(architecture.values()))
    return nn.Linear(total * total % 1009 + 1, 1)


def test_a_space_that_does_not_decompose_is_counted():
    space = Space([Choice(f"c{number}", tuple(range(3))) for number in range(9)], build=build_product)
    with pytest.warns(UserWarning, match="counts each network .* by itself: layers named by"):
        profiler = ParamsProfiler(space)
    assert profiler.table is None and "counted one by one" in repr(profiler)
    for architecture in space.sample(5, np.random.default_rng(0)):
        assert profiler.profile(architecture) == sum(p.numel() for p in space.build(architecture).parameters())


def test_a_space_with_one_option():
    space = Space([Choice("width", (8,))], build=lambda architecture: nn.Conv2d(3, architecture["width"], 1))
    assert ParamsProfiler(space, method="probe").profile({"width": 8}) == 32
    assert FlopsProfiler(space, IMAGE).bounds().low == 64 * 24


def test_networks_that_ask_for_values_are_counted():
    class Asking(nn.Module):
        def __init__(self, width):
            super().__init__()
            self.conv = nn.Conv2d(3, width, 1)

        def forward(self, x):
            return self.conv(x) if x.sum().item() == 0 else x

    space = Space([Choice("width", (4, 8))], build=lambda architecture: Asking(architecture["width"]))
    with pytest.warns(UserWarning, match="does not run on shapes"):
        profiler = FlopsProfiler(space, IMAGE)
    assert profiler.profile({"width": 8}) == 64 * 24


def test_audit_compares():
    space = small_space()
    profiler = ParamsProfiler(space)
    architecture = {"resolution": 8, "depth": 1, "width": 4, "kernel": 1}
    assert profiler.audit(space.build(architecture), architecture) == params_by_hand(architecture)
    other = build_wider(architecture)
    with pytest.raises(ProfilerError, match=r"says 24 of .* whose network has 30"):
        profiler.audit(other, architecture)
    with pytest.warns(UserWarning, match="from now on each network is counted by itself"):
        profiler.audit(other, architecture, mismatch="count")
    assert profiler.table is None and profiler.version == 1
    assert profiler.profile(architecture) == params_by_hand(architecture)


def test_methods_are_checked():
    with pytest.raises(ProfilerError, match="`method` is one of"):
        ParamsProfiler(None, method="guess")
    with pytest.raises(ProfilerError, match="`bits` is a positive number"):
        ModelSizeProfiler(None, bits=0)
    with pytest.raises(ProfilerError, match="`float_bytes` is a positive number"):
        PeakMemoryProfiler(None, IMAGE, float_bytes=0)


def test_sizes_in_bytes():
    net = nn.Sequential(nn.Conv2d(3, 4, 1, bias=False), nn.BatchNorm2d(4))
    assert ModelSizeProfiler(None).profile_model(net) == 20 * 4
    assert ModelSizeProfiler(None, bits=4).profile_model(net) == 10
    assert ModelSizeProfiler(None, bits=8, buffers=True).profile_model(net) == 29


# -- activations ------------------------------------------------------------------------------------------------------


def test_activations_are_what_operators_write():
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.AvgPool2d(2), nn.Flatten())
    assert ActivationsProfiler(None, IMAGE).profile_model(net) == 3 * 256 + 64


class Kept(nn.Module):
    """The input is needed to the end: as a shortcut."""

    def __init__(self, width):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, width, 1), nn.Conv2d(width, 3, 1)

    def forward(self, x):
        return x + self.second(self.first(x))


def test_peak_memory_follows_what_is_needed_later():
    profiler = PeakMemoryProfiler(None, IMAGE)
    chain = nn.Sequential(nn.Conv2d(3, 8, 1), nn.Conv2d(8, 3, 1), nn.Conv2d(3, 2, 1))
    assert profiler.profile_model(chain) == 64 * 4 * (3 + 8)
    assert profiler.profile_model(Kept(8)) == 64 * 4 * (3 + 8 + 3)
    assert PeakMemoryProfiler(None, IMAGE, float_bytes=1).profile_model(Kept(8)) == 64 * 14
    assert PeakMemoryProfiler(None, torch.zeros(5, 3, 8, 8)).profile_model(chain) == 5 * 64 * 4 * 11
    in_place = nn.Sequential(nn.Conv2d(3, 8, 1), nn.ReLU(inplace=True), nn.Flatten())
    copying = nn.Sequential(nn.Conv2d(3, 8, 1), nn.ReLU(), nn.Flatten())
    assert profiler.profile_model(in_place) == 64 * 4 * 11
    assert profiler.profile_model(copying) == 64 * 4 * 16


def test_peak_memory_over_a_space():
    space = Space([Choice("width", (4, 8, 16))], build=lambda architecture: Kept(architecture["width"]))
    profiler = PeakMemoryProfiler(space, IMAGE)
    assert profiler.profile({"width": 16}) == 64 * 4 * 22
    assert (profiler.bounds().low, profiler.bounds().high) == (64 * 4 * 10, 64 * 4 * 22)


def build_widened(architecture):
    """Build a network that an environment variable, which workers inherit, makes wider."""
    return nn.Sequential(nn.Conv2d(3, architecture["width"] + int(os.environ.get("NASMW_TEST_WIDER", "0")), 1))


def evaluate_built(trial):
    return float(sum(parameter.sum().item() for parameter in trial.model().parameters()))


class TestAuditsOfTrials:
    def run(self, profilers, executor=None):
        return Search(self.space, Random(), evaluate_built, profilers=profilers, executor=executor).run(trials=3)

    @pytest.fixture(autouse=True)
    def _space(self, tmp_path, monkeypatch):
        monkeypatch.setenv("NASMW_CACHE", str(tmp_path))
        self.space = Space([Choice("width", (4, 8, 12))], build=build_widened)

    @pytest.mark.parametrize("executor", [Serial, Processes])
    def test_a_network_that_is_another_one_fails_its_trial(self, executor, monkeypatch):
        profilers = [ParamsProfiler(self.space), FlopsProfiler(self.space, IMAGE)]
        honest = self.run(profilers, executor())
        assert len(honest.completed) == 3
        monkeypatch.setenv("NASMW_TEST_WIDER", "1")
        changed = self.run(profilers, executor())
        assert not changed.completed
        for trial in changed.trials:
            width = trial.architecture["width"]
            assert re.match(r"ProfilerError: <ParamsProfiler 'params'.* has changed", trial.reason)
            assert f"says {4 * width} of" in trial.reason and f"has {4 * width + 4}:" in trial.reason

    def test_an_honest_audit_changes_no_result(self):
        counted = self.run([ParamsProfiler(self.space, method="count")])
        assert [trial.metrics for trial in self.run([FlopsProfiler(self.space, IMAGE)]).trials] == [
            trial.metrics for trial in counted.trials
        ]

    def test_parts_of_a_combination_and_profilers_of_the_chain_audit(self, monkeypatch):
        params, macs = ParamsProfiler(self.space), FlopsProfiler(self.space, IMAGE)
        cost = (params + 2 * macs).named("cost")
        assert cost.auditors == (params, macs)
        monkeypatch.setenv("NASMW_TEST_WIDER", "1")
        model = self.space.build({"width": 4})
        with pytest.raises(ProfilerError, match="says 16 of"):
            cost.audit(model, {"width": 4})
        search = Search(self.space, Chain(Random(), Filter(macs <= 1e9)), evaluate_built)
        assert all("FlopsProfiler" in trial.reason for trial in search.run(trials=2).trials)

    def test_what_counts_or_measures_is_not_audited(self, monkeypatch):
        counting = ParamsProfiler(self.space, method="count")
        assert counting.auditors == (counting + 1.0).auditors == ()
        assert counting.audit(self.space.build({"width": 4}), {"width": 4}) == 16.0
        monkeypatch.setenv("NASMW_TEST_WIDER", "1")
        assert len(self.run([counting]).completed) == 3

    def test_a_profiler_that_cannot_travel_is_left_out(self):
        params = ParamsProfiler(self.space)
        params.hook = lambda: None
        with pytest.warns(UserWarning, match="cannot be sent to workers .* are not compared"):
            assert len(self.run([params], Processes(1)).completed) == 3

    def test_what_was_counted_does_not_travel(self):
        params = ParamsProfiler(self.space, method="count")
        params.profile_batch(self.space.at(range(3)))
        assert params._values
        assert not pickle.loads(pickle.dumps(params))._values
