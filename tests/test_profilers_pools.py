"""What profilers of one space share, what they keep on disk, and how they say what is wrong with a `build`."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn

from nasmw import Choice, Space
from nasmw.errors import BuildError, ProfilerError
from nasmw.profilers import (
    ActivationsProfiler,
    BitOpsProfiler,
    FlopsProfiler,
    ModelSizeProfiler,
    ParamsProfiler,
    PeakMemoryProfiler,
)
from nasmw.profilers.cache import LEFT_SECONDS

IMAGE = torch.zeros(1, 3, 8, 8)
CHOICES = [Choice("width", (4, 6, 8)), Choice("kernel", (1, 3, 5, 7)), Choice("depth", (1, 2, 3, 4))]


def build(architecture):
    width = architecture["width"]
    layers = [nn.Conv2d(width if block else 3, width, architecture["kernel"]) for block in range(architecture["depth"])]
    return nn.Sequential(*(nn.Sequential(nn.ZeroPad2d(layer.kernel_size[0] // 2), layer) for layer in layers))


class Builder:
    """Counts what it builds."""

    def __init__(self):
        self.number = 0

    def __call__(self, architecture):
        self.number += 1
        return build(architecture)


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    monkeypatch.setenv("NASMW_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


# -- sharing ----------------------------------------------------------------------------------------------------------

LATER = {
    "params": lambda space: ParamsProfiler(space, progress=False),
    "elements": lambda space: ParamsProfiler(space, buffers=True, progress=False),
    "activations": lambda space: ActivationsProfiler(space, IMAGE, progress=False),
    "memory": lambda space: PeakMemoryProfiler(space, IMAGE, progress=False),
    "size": lambda space: ModelSizeProfiler(space, bits={"0.*": "width", "*": "kernel"}, progress=False),
    "operations": lambda space: BitOpsProfiler(space, IMAGE, bits="width", progress=False),
}


def test_a_further_profiler_builds_only_what_it_counts_on_data():
    builder = Builder()
    space = Space(CHOICES, build=builder)
    FlopsProfiler(space, IMAGE, progress=False)
    assert builder.number > 48
    for make in LATER.values():
        before = builder.number
        profiler = make(space)
        assert profiler.table is not None and builder.number == before + 2
        for architecture in space.sample(3, np.random.default_rng(0)):
            assert profiler.profile(architecture) == profiler._count(build(architecture), architecture)


def test_pools_of_other_inputs_are_others():
    builder = Builder()
    space = Space(CHOICES, build=builder)
    FlopsProfiler(space, IMAGE, progress=False)
    before = builder.number
    wider = FlopsProfiler(space, torch.zeros(2, 3, 8, 8), progress=False)
    assert builder.number > before + 48
    assert wider.profile({"width": 4, "kernel": 1, "depth": 1}) == 2 * 64 * 12


def test_pools_do_not_travel():
    space = Space(CHOICES, build=build)
    profiler = FlopsProfiler(space, IMAGE, progress=False)
    assert vars(space)["_pools"] and not vars(pickle.loads(pickle.dumps(space)))["_pools"]
    assert pickle.loads(pickle.dumps(profiler)).profile({"width": 4, "kernel": 1, "depth": 1}) == 64 * 12


def test_a_build_that_changes_in_a_session_is_probed_again():
    width = {"more": 0}

    def changing(architecture):
        return build({**architecture, "width": architecture["width"] + width["more"]})

    space = Space(CHOICES, build=changing)
    FlopsProfiler(space, IMAGE, progress=False)
    width["more"] = 1
    assert FlopsProfiler(space, IMAGE, progress=False).profile({"width": 4, "kernel": 1, "depth": 1}) == 64 * 15
    assert ParamsProfiler(space, progress=False).profile({"width": 4, "kernel": 1, "depth": 1}) == 20


# -- a build that is wrong --------------------------------------------------------------------------------------------


def sometimes(architecture):
    return architecture["width"] == 8 and architecture["kernel"] == 7


class Torn(nn.Module):
    """Its layers do not fit each other for some architectures."""

    def __init__(self, architecture):
        super().__init__()
        self.first = nn.Conv2d(3, 4, 1)
        self.second = nn.Conv2d(5 if sometimes(architecture) else 4, 2, 1)

    def forward(self, x):
        return self.second(self.first(x))


def test_a_network_that_does_not_run_is_named():
    with pytest.raises(ProfilerError, match=r"the network of \{'width': 8, 'kernel': 7, .* does not run on shapes"):
        FlopsProfiler(Space(CHOICES, build=Torn), IMAGE, progress=False)


def test_a_network_that_is_no_module_is_named():
    space = Space(CHOICES, build=lambda architecture: None if sometimes(architecture) else nn.Linear(2, 2))
    with pytest.raises(BuildError, match=r"got NoneType for \{'width': 8, 'kernel': 7"):
        ParamsProfiler(space, progress=False)


def random_width(architecture):
    return nn.Linear(architecture["width"], int(torch.randint(1, 50, ())))


def rarely_random(architecture):
    return nn.Linear(architecture["width"], architecture["depth"] + int(torch.rand(()) < 0.1))


@pytest.mark.parametrize("function", [random_width, rarely_random])
def test_a_build_that_draws_from_torch_is_random(function):
    with pytest.raises(ProfilerError, match="is random: it gave two different networks for"):
        ParamsProfiler(Space(CHOICES, build=function), progress=False)


def test_a_random_build_is_refused_where_networks_are_counted():
    with pytest.raises(ProfilerError, match="is random: it gave two different networks for"):
        ParamsProfiler(Space(CHOICES, build=random_width), method="count")


class Fourier(nn.Module):
    def forward(self, x):
        return torch.fft.rfft2(x).real


def build_rare_operator(architecture):
    return nn.Sequential(build(architecture), *([Fourier()] if sometimes(architecture) else []))


def test_an_operator_of_few_networks_is_named_also_from_the_disk():
    def made(mode):
        return FlopsProfiler(Space(CHOICES, build=build_rare_operator), IMAGE, uncounted=mode, progress=False)

    for _ in range(2):
        with pytest.warns(UserWarning, match="networks of .* not counted: aten::_fft_r2c; the count is too low"):
            assert made("warn").table is not None
    with pytest.raises(ProfilerError, match="not counted: aten::_fft_r2c"):
        made("error")
    assert made("ignore").table is not None


# -- files ------------------------------------------------------------------------------------------------------------

SCRIPT = """
import os, sys
sys.path.insert(0, sys.argv[1])
from test_profilers_pools import CHOICES, build
from nasmw import Space
from nasmw.cost import CostTable
from nasmw.profilers import ParamsProfiler
if "killed" in sys.argv:
    def save(self, path):
        with open(path, "wb") as file:
            file.write(b"PK half a table")
        os.kill(os.getpid(), 9)
    CostTable.save = save
profiler = ParamsProfiler(Space(CHOICES, build=build), progress=False)
print(profiler.profile({"width": 4, "kernel": 3, "depth": 2}))
"""


def process(*arguments):
    command = [sys.executable, "-c", SCRIPT, os.path.dirname(__file__), *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_two_processes_fill_one_cache(cache):
    both = [process(), process()]
    said = [each.communicate(timeout=300) for each in both]
    assert said == [("260.0\n", "")] * 2
    assert [path.suffix for path in cache.iterdir()] == [".npz"]
    assert ParamsProfiler(Space(CHOICES, build=build)).profile({"width": 4, "kernel": 3, "depth": 2}) == 260


def test_a_process_that_is_killed_leaves_no_half_table(cache):
    killed = process("killed")
    killed.communicate(timeout=300)
    assert killed.returncode == -signal.SIGKILL
    (left,) = cache.iterdir()
    assert left.suffix == ".part"
    space = Space(CHOICES, build=build)
    assert ParamsProfiler(space, progress=False).profile({"width": 4, "kernel": 3, "depth": 2}) == 260
    assert left.exists()  # it might be of a process that is writing
    os.utime(left, (0, left.stat().st_mtime - LEFT_SECONDS - 1))
    ParamsProfiler(space, buffers=True, progress=False)
    assert [path.suffix for path in cache.iterdir()] == [".npz", ".npz"]


@pytest.mark.parametrize("damage", ["empty", "cut", "flipped", "other"])
def test_a_file_that_is_damaged_is_made_anew(cache, damage):
    space = Space(CHOICES, build=build)
    ParamsProfiler(space, progress=False)
    (file,) = cache.iterdir()
    whole = file.read_bytes()
    middle = len(whole) // 2
    damaged = {
        "empty": b"",
        "cut": whole[:middle],
        "flipped": bytes(255 - byte if 30 < at < 300 else byte for at, byte in enumerate(whole)),
        "other": b"PK\x05\x06" + b"\x00" * 18,
    }
    file.write_bytes(damaged[damage])
    with pytest.warns(UserWarning, match="cannot be read and is made anew"):
        assert ParamsProfiler(space, progress=False).profile({"width": 4, "kernel": 3, "depth": 2}) == 260
    assert ParamsProfiler(space, progress=False).table is not None
