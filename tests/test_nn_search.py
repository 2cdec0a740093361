"""Profilers, strategies and middleware work on a model space as on any space."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from model_spaces import Attention, Rich
from test_nn_networks import INPUTS

from nasmw import Chain, Deduplicate, FeasibleSet, Filter, Search, Trial
from nasmw.profilers import ActivationsProfiler, FlopsProfiler, ModelSizeProfiler, ParamsProfiler, PeakMemoryProfiler
from nasmw.strategies import Evolution, Random


def profilers(space: Any, shape: tuple[int, ...]) -> list[Any]:
    example = torch.zeros(shape)
    return [
        FlopsProfiler(space, example, progress=False, uncounted="error"),
        ParamsProfiler(space, progress=False),
        ParamsProfiler(space, name="elements", buffers=True, progress=False),
        ModelSizeProfiler(space, bits=8, progress=False),
        ActivationsProfiler(space, example, progress=False),
        PeakMemoryProfiler(space, example, progress=False),
    ]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NASMW_CACHE", str(tmp_path / "cache"))


@pytest.mark.parametrize("make", [Rich, pytest.param(Attention, marks=pytest.mark.slow)])
def test_tables_equal_the_direct_count_on_200_networks(make: Callable[[], Any]) -> None:
    space = make()
    made = profilers(space, INPUTS[make])
    assert all(profiler.table is not None for profiler in made), made
    drawn = space.sample(200, np.random.default_rng(7))
    said = [profiler.profile_batch(drawn) for profiler in made]
    for at, architecture in enumerate(drawn):
        model = space.build(architecture)
        for profiler, values in zip(made, said, strict=True):
            assert profiler._recount(model, architecture) == values[at], (profiler, architecture)


def evaluate(trial: Trial) -> float:
    model = trial.model()
    return float(model(torch.zeros(INPUTS[Rich])).sum()) + trial.number


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_search_under_a_limit(workers: int, tmp_path: Path) -> None:
    space = Rich()
    params = ParamsProfiler(space, progress=False)
    limit = float(np.median(params.profile_batch(space.sample(100, np.random.default_rng(0)))))
    strategy = Chain(Evolution(population=4), Deduplicate(), Filter(params <= limit))
    log = tmp_path / "run.db"
    result = Search(space, strategy, evaluate, log=log, progress=False, executor=workers).run(trials=10)
    assert len(result.trials) == 10
    assert all(params.profile(trial.architecture) <= limit for trial in result.trials)
    again = Search(Rich(), Chain(Evolution(population=4), Deduplicate(), Filter(params <= limit)), evaluate, log=log)
    assert [trial.architecture for trial in again.run(trials=12).trials][:10] == [t.architecture for t in result.trials]


def test_feasible_sets_count_networks() -> None:
    space = Rich()
    params = ParamsProfiler(space, progress=False)
    values = params.profile_batch(space.at(range(space.size)))
    limit = float(np.quantile(values, 0.3))
    assert FeasibleSet(space, params <= limit).count().low == int((values <= limit).sum())


def test_random_with_a_function_as_filter() -> None:
    space = Rich()
    profiler = ParamsProfiler(space, progress=False)
    strategy = Chain(Random(), Filter(lambda sample: profiler.profile(sample) < 1000))
    result = Search(space, strategy, lambda trial: 0.5, progress=False).run(trials=5)
    assert all(profiler.profile(trial.architecture) < 1000 for trial in result.trials)
