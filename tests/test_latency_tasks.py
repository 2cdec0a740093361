"""The benchmark of few-shot transfer: tasks, methods, scores and the choice of hyper-parameters on sources only."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from nasmw.candidates import Floats
from nasmw.profilers.learned import LayerWork, MultiSource, MultiSourceProfiler, SourceDevices
from nasmw.spaces import nasbench201

BENCHMARKS = str(Path(__file__).parent.parent / "benchmarks")
DATA = Path(os.environ.get("NASMW_DATA") or "no folder")
SPACE = nasbench201()
NETWORKS = SPACE.sample(300, np.random.default_rng(0))


@pytest.fixture(scope="module")
def few_shot() -> Iterator[SimpleNamespace]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(BENCHMARKS)
        names = ("gp_methods", "methods", "runs", "selection", "tasks")
        modules = {name: importlib.import_module(f"few_shot.{name}") for name in names}
        yield SimpleNamespace(**modules)
        for name in [name for name in sys.modules if name.split(".")[0] in ("tables", "few_shot", "latency_limits")]:
            del sys.modules[name]


@pytest.fixture
def data() -> str:
    if not (DATA / "latency" / "tasks.json").is_file():
        pytest.skip("NASMW_DATA names no folder with latency/tasks.json")
    return str(DATA)


def made_up(seed: int, names: tuple[str, ...] = ("one", "two", "three", "four", "five")) -> dict[str, Floats]:
    rng = np.random.default_rng(seed)
    work = LayerWork().encode(NETWORKS).values
    return {name: 1.0 + work @ rng.random(work.shape[1]) for name in names}


def task_of(few_shot: Any, seed: int = 0) -> Any:
    columns = made_up(seed)
    columns["five"][:40] = np.nan
    devices = few_shot.tasks.Devices("nb201", NETWORKS, columns)
    return few_shot.tasks.Task("made up", devices, ("one", "two", "three"), ("four", "five"))


def test_every_quick_method_runs_and_is_scored(few_shot: Any) -> None:
    task = task_of(few_shot)
    quick = [few_shot.methods.METHODS[name] for name in ("nearest", "ridge", "gp", "gp-costs", "gp-costs-alone")]
    for method in quick:
        scores = list(few_shot.runs.run(task, method, [5, 12], [0]))
        assert [(one.target, one.samples) for one in scores] == [("four", 5), ("four", 12), ("five", 5), ("five", 12)]
        assert all(-1 <= one.rho <= 1 and 0 <= one.within <= 1 for one in scores)
        assert all(one.train_s > 0 and one.target_s > 0 for one in scores)
        if method.name == "gp-costs":
            assert min(one.rho for one in scores if one.samples == 12) > 0.97


def test_runs_repeat(few_shot: Any) -> None:
    def rhos() -> list[float]:
        method = few_shot.methods.METHODS["gp-costs"]
        return [one.rho for one in few_shot.runs.run(task_of(few_shot), method, [6], [3])]

    assert rhos() == rhos()


def test_the_method_is_the_profiler(few_shot: Any) -> None:
    task = task_of(few_shot)
    known = few_shot.runs.known_of(task, 0)
    trained = few_shot.methods.METHODS["gp-costs"].train(known, 0)
    rows = trained.choose(np.arange(300), 10, np.random.default_rng(1))
    measured = task.devices.milliseconds["four"][rows]
    said = trained.predict(rows, measured, np.random.default_rng(1))
    sources = SourceDevices(SPACE, known.sources, few_shot.gp_methods.COSTS).fit(known.measured, known.milliseconds)
    profiler = MultiSourceProfiler(SPACE, sources, predictor=MultiSource(seed=0)).fit(NETWORKS[rows], measured)
    np.testing.assert_allclose(said, profiler.profile_batch(NETWORKS), rtol=1e-6)


def test_no_method_is_told_of_a_target(few_shot: Any) -> None:
    task = task_of(few_shot)
    known = few_shot.runs.known_of(task, 0)
    assert known.sources == task.sources and known.milliseconds.shape == (len(known.rows), 3)
    other = few_shot.tasks.Task("other", task.devices, task.sources, ("five",))
    np.testing.assert_array_equal(few_shot.runs.known_of(other, 0).rows, known.rows)


@pytest.mark.parametrize("sampler", ["random", "cost buckets", "k-means", "cosine", "variance"])
def test_samplers_choose_what_is_allowed(few_shot: Any, sampler: str) -> None:
    known = few_shot.runs.known_of(task_of(few_shot), 0)
    trained = few_shot.gp_methods.gaussian_process(known, 0, sampler=sampler)
    allowed = np.arange(50, 300, 2)
    rows = trained.choose(allowed, 7, np.random.default_rng(0))
    assert len(set(rows.tolist())) == 7 and set(rows.tolist()) <= set(allowed.tolist())


def test_ablations_change_one_thing(few_shot: Any) -> None:
    names = list(few_shot.gp_methods.ablations())
    assert names[0] == "gp-costs" and "no sources" in names and "sampler: random" in names


def test_scores(few_shot: Any) -> None:
    assert few_shot.runs.spearman(np.array([1.0, 2.0, 2.0]), np.array([5.0, 6.0, 6.0])) == pytest.approx(1.0)
    assert few_shot.runs.spearman(np.array([1.0, 1.0]), np.array([5.0, 6.0])) == 0.0
    assert few_shot.runs.mean_and_error([1.0, 3.0]) == pytest.approx((2.0, 1.0))
    scores = [
        few_shot.runs.Score("t", "m", target, 20, seed, rho, 0.0, 0.0, 0.0)
        for target, seed, rho in (("a", 0, 0.5), ("b", 0, 0.7), ("a", 1, 0.9), ("b", 1, 0.9))
    ]
    np.testing.assert_allclose(few_shot.runs.over_seeds(scores), [0.6, 0.9])


def test_names_are_taken_once(few_shot: Any) -> None:
    with pytest.raises(ValueError, match="'gp' already"):
        few_shot.methods.register([few_shot.methods.METHODS["gp"]])


def test_helps_rule() -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(BENCHMARKS)
        from latency_limits import best, by_rule

        latencies = np.array([9.0, 3.0, 5.0, 4.0, 1.0])
        accuracy = np.array([99.0, 60.0, 70.0, 65.0, 90.0])
        assert by_rule(latencies, accuracy, 5.0) == 2  # the fifth keeps the limit, and comes too late
        assert best(latencies, accuracy, 5.0) == 4
        assert by_rule(latencies, accuracy, 0.5) is None and best(latencies, accuracy, 0.5) is None
    for name in [name for name in sys.modules if name.split(".")[0] in ("tables", "few_shot", "latency_limits")]:
        del sys.modules[name]


def test_published_tasks_are_read(few_shot: Any, data: str) -> None:
    found = few_shot.tasks.published_tasks(data)
    assert list(found) == ["ND", "N1", "N2", "N3", "N4", "NA", "FD", "F1", "F2", "F3", "F4", "FA"]
    assert {name: (len(task.sources), len(task.targets)) for name, task in found.items()} == {
        "ND": (9, 6),
        "N1": (5, 5),
        "N2": (5, 5),
        "N3": (5, 5),
        "N4": (9, 3),
        "NA": (17, 3),
        "FD": (9, 3),
        "F1": (5, 5),
        "F2": (5, 5),
        "F3": (5, 5),
        "F4": (10, 3),
        "FA": (15, 4),
    }
    assert not any(set(task.sources) & set(task.targets) for task in found.values())
    rows = found["N1"].source_rows(0)
    assert len(rows) == 900 and np.isfinite(found["N1"].devices.matrix(found["N1"].sources)[rows]).all()
    assert len(found["F1"].source_rows(1)) == 800
    assert len(found["N1"].devices.eagle) == 14
    # More multiply-adds take longer: options are read in the right order.
    macs = LayerWork().encode(found["FD"].devices.candidates).values[:, 0]
    assert few_shot.runs.spearman(macs, found["FD"].devices.milliseconds["fpga"]) > 0.8


def test_hyper_parameters_are_chosen_on_sources_only(few_shot: Any, data: str) -> None:
    found = few_shot.tasks.published_tasks(data)
    targets = {
        space: {target for task in found.values() if task.devices.name == space for target in task.targets}
        for space in ("nb201", "fbnet")
    }
    fresh = list(few_shot.selection.fresh_tasks(found))
    assert len(fresh) == 2 * few_shot.selection.PARTITIONS
    for task in fresh:
        assert not {*task.sources, *task.targets} & targets[task.devices.name]
        assert not set(task.sources) & set(task.targets)
    for task in few_shot.selection.held_out(found):
        (target,) = task.targets
        # The held-out device was a source of the task whose other sources are known.
        assert any({*task.sources, target} == set(whole.sources) for whole in found.values())
