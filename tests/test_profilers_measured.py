"""TorchLatencyProfiler measures what it says, and leaves everything as it was."""

from __future__ import annotations

import time
from typing import Any

import pytest
import torch

from nasmw import Chain, Choice, Filter, Search, Space, profile
from nasmw.errors import ProfilerError
from nasmw.profilers import TorchLatencyProfiler
from nasmw.strategies import Random
from nasmw.testing import ProfilerContract, toy_space


class TestTorchLatencyProfiler(ProfilerContract):
    samples = 4
    tolerance = 1000.0  # a measurement: only the order of magnitude of a busy machine is the same twice

    def make(self, space: Space) -> TorchLatencyProfiler:
        return TorchLatencyProfiler(space, torch.zeros(1, 3, 8, 8), warmup=1, rounds=2)


class Sleeping(torch.nn.Module):
    """Takes a given time, longer by a second in given calls; keeps what it saw."""

    def __init__(self, seconds: float, slow: tuple[int, ...] = ()) -> None:
        super().__init__()
        self.seconds = seconds
        self.slow = slow
        self.seen: list[Any] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        time.sleep(self.seconds + (0.3 if len(self.seen) in self.slow else 0.0))
        self.seen.append((x, self.training, torch.is_grad_enabled(), torch.get_num_threads()))
        return x


def test_value_is_the_minimum_over_rounds_in_milliseconds() -> None:
    model = Sleeping(0.01, slow=(0, 1, 3))  # the warm-up and one of the rounds
    value = TorchLatencyProfiler(None, torch.zeros(1), warmup=2, rounds=4).profile_model(model)
    assert 10.0 <= value < 300.0
    assert len(model.seen) == 2 + 4


def test_runs_in_eval_mode_without_gradients_and_with_its_threads() -> None:
    model, threads = Sleeping(0.0), torch.get_num_threads()
    TorchLatencyProfiler(None, torch.zeros(1), threads=2).profile_model(model)
    assert {(training, grad, used) for _, training, grad, used in model.seen} == {(False, False, 2)}
    assert model.training and torch.is_grad_enabled() and torch.get_num_threads() == threads


def test_zeros_become_random_numbers_and_other_inputs_stay() -> None:
    model, given = Sleeping(0.0), torch.ones(2, 3)
    TorchLatencyProfiler(None, torch.zeros(2, 3)).profile_model(model)
    assert all(seen.unique().numel() == 6 for seen, *_ in model.seen)
    model = Sleeping(0.0)
    TorchLatencyProfiler(None, given).profile_model(model)
    assert all(seen is given for seen, *_ in model.seen)


def test_random_state_of_torch_stays() -> None:
    space = toy_space()
    profiler = TorchLatencyProfiler(space, torch.zeros(1, 3, 8, 8), rounds=1)
    before = torch.get_rng_state()
    profiler.profile({"width": 8, "depth": 1, "block0.op": "pool"})
    assert torch.equal(before, torch.get_rng_state())


class Halving(torch.nn.Module):
    """Forty layers that PyTorch's own initial weights let fade out; keeps its last output."""

    kept: list[Any] = []  # noqa: RUF012

    def __init__(self, resolution: int) -> None:
        super().__init__()
        layers = [torch.nn.Conv2d(3, 3, 3, padding=1, bias=False) for _ in range(40)]
        self.layers = torch.nn.Sequential(*[part for layer in layers for part in (layer, torch.nn.ReLU())])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        output = self.layers(x)
        self.kept.append(output)
        return output


def build_halving(architecture: dict[str, Any]) -> torch.nn.Module:
    return Halving(architecture["resolution"])


def test_activations_of_deep_networks_keep_their_size_and_the_input_follows_the_resolution() -> None:
    space = Space([Choice("resolution", (8, 16))], build_halving)
    profiler = TorchLatencyProfiler(space, torch.zeros(1, 3, 8, 8), warmup=1, rounds=1)
    Halving.kept.clear()
    profiler.profile({"resolution": 16})
    output = Halving.kept[-1]
    assert output.shape == (1, 3, 16, 16)
    assert not output.any() or output.abs().max() > 1e-6, "the activations fade towards denormal numbers"
    plain = Halving(16)(torch.randn(1, 3, 16, 16))
    assert plain.abs().max() < 1e-6


def test_a_search_measures_each_network_once_and_logs_it(tmp_path: Any) -> None:
    space = toy_space()

    def search(trials: int) -> Any:
        latency = TorchLatencyProfiler(space, torch.zeros(1, 3, 8, 8), warmup=1, rounds=2)
        chain = Chain(Random(), Filter(latency <= 1e6))
        return Search(space, chain, lambda trial: 1.0, window=1, log=tmp_path / "run.db").run(trials=trials)

    first, more = search(3), search(5)
    values = [trial.columns["latency_ms"] for trial in first.trials]
    assert all(value > 0 for value in values)
    assert [trial.columns["latency_ms"] for trial in more.trials][:3] == values


@pytest.mark.parametrize("argument", ["threads", "warmup", "rounds"])
@pytest.mark.parametrize("value", [0, 1.5, True])
def test_numbers_are_checked(argument: str, value: object) -> None:
    with pytest.raises(ValueError, match=rf"TorchLatencyProfiler\({argument}=\.\.\.\) takes a whole number"):
        TorchLatencyProfiler(None, torch.zeros(1), **{argument: value})


def test_a_space_without_build_is_refused() -> None:
    with pytest.raises(ProfilerError, match=r"made without `build`; pass Space\(choices, build=function\)"):
        TorchLatencyProfiler(Space([Choice("width", (8, 16))]), torch.zeros(1))


def test_a_network_that_does_not_run_is_named() -> None:
    with pytest.raises(ProfilerError, match=r"a Linear does not run on an example input of shape \(1, 3\)"):
        profile(torch.nn.Linear(4, 4), [TorchLatencyProfiler(None, torch.zeros(1, 3))])
