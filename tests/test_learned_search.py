"""Refit and configurations: profilers that learn during a search, by name, and runs that go on after a kill."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
from pathlib import Path

import learned_search
import numpy as np
import pytest

from nasmw import Chain, Filter, Outcomes, Refit, Search, Status
from nasmw.context import Context
from nasmw.errors import OrderError, ProfilerError
from nasmw.profilers import LearnedProfiler, PredictorStore, from_config
from nasmw.strategies import Random
from nasmw.testing import MiddlewareContract, TableProfiler, toy_space

SPACE = toy_space()
COST = TableProfiler(SPACE)


def learned(metric: str = "measured_ms", name: str = "latency_ms", n: int = 40) -> LearnedProfiler:
    known = SPACE.sample(n, np.random.default_rng(0))
    return LearnedProfiler(SPACE, "ridge", "one_hot", name=name, metric=metric).fit(known, COST.profile_batch(known))


class TestRefit(MiddlewareContract):
    def make(self) -> Refit:
        return Refit(learned("accuracy"), every=5)


class TestRefitSeveral(MiddlewareContract):
    def make(self) -> Refit:
        return Refit(learned("accuracy"), learned("accuracy", "energy") + COST, every=1)


def measured(trial) -> dict[str, float]:
    cost = learned_search.truth(trial.architecture)
    return {"accuracy": -cost, "measured_ms": cost}


# -- Refit --------------------------------------------------------------------------------------------------------


def test_it_teaches_every_so_often() -> None:
    latency = learned()
    seen: list[int] = []

    def evaluate(trial) -> dict[str, float]:
        seen.append(latency.version)
        return measured(trial)

    Search(SPACE, Chain(Random(), Refit(latency, every=10)), evaluate, window=1, progress=False).run(trials=35)
    assert seen == [1] * 10 + [2] * 10 + [3] * 10 + [4] * 5
    assert len(latency.samples) == 40 + 30


def test_predictions_come_near_to_what_is_measured() -> None:
    latency = learned()
    test = SPACE.sample(200, np.random.default_rng(9))
    values = np.array([learned_search.truth(architecture) for architecture in test])
    before = np.abs(latency.profile_batch(test) - values).mean()
    Search(SPACE, Chain(Random(), Refit(latency)), measured, progress=False).run(trials=150)
    assert np.abs(latency.profile_batch(test) - values).mean() < 0.5 * before


def test_limits_are_checked_under_the_newest_version() -> None:
    latency = learned()
    latency.update_weight = 100.0
    chain = Chain(Random(), Filter(latency <= 80), Refit(latency, every=5))
    result = Search(SPACE, chain, measured, progress=False).run(trials=80)
    costs = np.array([trial.metrics["measured_ms"] for trial in result.trials])
    assert (costs[:8] > 85).any() and (costs[50:] <= 85).all()
    for trial in result.trials:
        assert trial.columns["latency_ms"] <= 80


def test_a_second_run_starts_from_what_was_before_the_first() -> None:
    latency = learned()
    chain = Chain(Random(), Filter(latency <= 80), Refit(latency, every=5))
    first = Search(SPACE, chain, measured, seed=1, progress=False).run(trials=30)
    version = latency.version
    second = Search(SPACE, chain, measured, seed=1, progress=False).run(trials=30)
    assert version == latency.version > 1
    assert learned_search.rows(first) == learned_search.rows(second)


def test_what_somebody_else_taught_in_between_is_kept() -> None:
    latency = learned()
    refit = Refit(latency, every=5)
    Search(SPACE, Chain(Random(), refit), measured, progress=False).run(trials=20)
    known = SPACE.sample(30, np.random.default_rng(5))
    latency.fit(known, 7 * COST.profile_batch(known))
    value = latency.profile(next(iter(known)))
    Chain(Random(), refit).setup(Context(SPACE))
    assert latency.profile(next(iter(known))) == value


def test_a_log_is_gone_on_with(tmp_path: Path) -> None:
    def run(log: str, *trials: int):
        latency = learned()
        chain = Chain(Random(), Filter(latency <= 80), Refit(latency, every=4))
        for number in trials:
            result = Search(SPACE, chain, measured, seed=2, log=tmp_path / log, progress=False).run(trials=number)
        return learned_search.rows(result)

    assert run("parts.db", 9, 23, 40) == run("whole.db", 40)


def test_profilers_that_cannot_be_taught() -> None:
    with pytest.raises(TypeError, match="at least one profiler"):
        Refit()
    with pytest.raises(TypeError, match="Refit takes a Profiler"):
        Refit(3)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"every=\.\.\.\) takes an integer of at least 1"):
        Refit(learned(), every=0)
    with pytest.raises(ProfilerError, match="two profilers are named 'latency_ms'"):
        Refit(learned(), learned())
    for fixed in (COST, learned().freeze()):
        with pytest.raises(ProfilerError, match="Refit cannot teach .* it is fixed"):
            Chain(Random(), Refit(fixed)).setup(Context(SPACE))


def test_a_metric_that_nobody_returns() -> None:
    latency = learned(metric="measurd_ms")
    search = Search(SPACE, Chain(Random(), Refit(latency, every=3)), measured, progress=False)
    with pytest.raises(ProfilerError, match=r"none of the last 3 finished trials has the metric 'measurd_ms'"):
        search.run(trials=10)


def test_failed_trials_teach_nothing() -> None:
    latency = learned()

    def evaluate(trial) -> dict[str, float]:
        if trial.number % 2:
            raise RuntimeError("no")
        return measured(trial)

    Search(SPACE, Chain(Random(), Refit(latency, every=5)), evaluate, progress=False).run(trials=20)
    assert len(latency.samples) == 40 + 10


class Counter(TableProfiler):
    """Changes in place by what it is told."""

    def __init__(self) -> None:
        super().__init__(SPACE, "counter")
        self.told: list[int] = []

    @property
    def fixed(self) -> bool:
        return False

    def update(self, outcomes: Outcomes) -> None:
        self.told.append(len(outcomes))
        self.version += 1


def test_profilers_of_any_kind_are_brought_back() -> None:
    counter = Counter()
    refit = Refit(counter, every=2)
    chain = Chain(Random(), refit)
    for _ in range(2):
        chain.setup(Context(SPACE))
        assert counter.told == [] and counter.version == 0 and counter.space is SPACE
        for _ in range(3):
            batch = chain.ask(2)
            chain.tell(Outcomes(batch, [Status.COMPLETED] * 2, np.zeros((2, 1))))
        assert counter.told == [2, 2, 2]
    assert pickle.loads(pickle.dumps(chain)).stages[1].every == 2


# -- configurations -----------------------------------------------------------------------------------------------


def test_five_profilers_by_name(tmp_path: Path) -> None:
    learned_search.prepare(tmp_path)
    profilers = from_config(SPACE, tmp_path / "profilers.toml")
    assert list(profilers) == ["latency_ms", "energy_mj", "memory_kb", "macs", "weights"]
    assert {name: profiler.kind for name, profiler in profilers.items()} == {
        "latency_ms": "learned",
        "energy_mj": "learned",
        "memory_kb": "learned",
        "macs": "analytical",
        "weights": "analytical",
    }
    assert all(profiler.name == name for name, profiler in profilers.items())
    assert profilers["latency_ms"].metric == "measured_ms"  # type: ignore[attr-defined]
    assert profilers["energy_mj"].fixed and not profilers["latency_ms"].fixed
    assert profilers["memory_kb"].predictor.parameters["learnt_on"] == 50  # type: ignore[attr-defined]
    assert profilers["energy_mj"].device == "phone"


@pytest.mark.slow
@pytest.mark.parametrize("number", [5, 31])
def test_a_killed_run_goes_on_with_equal_rows(tmp_path: Path, number: int) -> None:
    learned_search.prepare(tmp_path)
    whole = learned_search.search(tmp_path, "whole.db").run(trials=learned_search.TRIALS)
    killed = subprocess.run(
        [sys.executable, learned_search.__file__, str(tmp_path), "killed.db"],
        env={**os.environ, "KILL_AT": str(number)},
        capture_output=True,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    resumed = learned_search.search(tmp_path, "killed.db").run(trials=learned_search.TRIALS)
    assert len(resumed.trials) == learned_search.TRIALS
    assert learned_search.rows(resumed) == learned_search.rows(whole)


def test_the_search_learns(tmp_path: Path) -> None:
    learned_search.prepare(tmp_path)
    search = learned_search.search(tmp_path, "run.db")
    result = search.run(trials=30)
    versions = {profiler.name: profiler.version for profiler in search.columns}
    assert versions == {"latency_ms": 5, "energy_mj": 1, "memory_kb": 5, "macs": 0, "weights": 0}
    assert set(result.trials[-1].columns) >= set(versions)


def test_a_dictionary_does_as_well(tmp_path: Path) -> None:
    learned().save(tmp_path / "p.npz")
    config = {"profilers": {"ms": {"kind": "learned", "file": str(tmp_path / "p.npz")}, "cost": {"kind": "toy"}}}
    kinds = {"toy": lambda space, name, settings, folder: TableProfiler(space, name)}
    profilers = from_config(SPACE, config, kinds=kinds)
    assert profilers["ms"].name == "ms" and profilers["cost"].profile(SPACE.decode(SPACE.at([0]).codes[0])) > 0
    both = Search(SPACE, Random(), lambda trial: 1.0, profilers=profilers.values(), progress=False).run(trials=3)
    assert set(both.trials[0].columns) == {"ms", "cost"}


@pytest.mark.parametrize(
    ("tables", "message"),
    [
        ({}, "lists no profilers"),
        ({"profilers": {}}, "lists no profilers"),
        ({"profilers": {"a": 3}}, "is to be a table of settings"),
        ({"profilers": {"a": {}}}, "has the kind None"),
        ({"profilers": {"a": {"kind": "flop"}}}, "did you mean 'flops'"),
        ({"profilers": {"a": {"kind": "flops"}}}, r"\[profilers.a\] .* lacks the setting 'input'"),
        ({"profilers": {"a": {"kind": "flops", "input": "big"}}}, "`input` is the shape"),
        ({"profilers": {"a": {"kind": "params", "x": 1}}}, "does not take: x"),
        ({"profilers": {"a": {"kind": "learned"}}}, "lacks the setting 'predictor'"),
        ({"profilers": {"a": {"kind": "learned", "predictor": "rigde"}}}, "did you mean 'ridge'"),
        ({"profilers": {"a": {"kind": "learned", "predictor": "ridge", "encoding": "x"}}}, "no encoding 'x'"),
        ({"profilers": {"a": {"kind": "wrong name"}}}, "is to give a profiler named 'a'"),
    ],
)
def test_configurations_that_do_not_fit(tables: dict[str, object], message: str) -> None:
    kinds = {"wrong name": lambda space, name, settings, folder: TableProfiler(space, "other")}
    with pytest.raises(ProfilerError, match=message):
        from_config(SPACE, tables, kinds=kinds)


def test_files_that_do_not_fit(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        from_config(SPACE, tmp_path / "none.toml")
    (tmp_path / "twice.toml").write_text("[profilers.a]\nkind='params'\n[profilers.a]\nkind='params'\n")
    with pytest.raises(ProfilerError, match="is no TOML file"):
        from_config(SPACE, tmp_path / "twice.toml")
    (tmp_path / "lookup.toml").write_text("[profilers.a]\nkind='lookup'\nfile='there is none.json'\n")
    with pytest.raises(FileNotFoundError):
        from_config(SPACE, tmp_path / "lookup.toml")
    with pytest.raises(TypeError, match="takes a Space first"):
        from_config(tmp_path / "none.toml", {})  # type: ignore[arg-type]


# -- the store ----------------------------------------------------------------------------------------------------


def test_a_store_keeps_profilers_by_space_and_device(tmp_path: Path) -> None:
    store = PredictorStore(tmp_path / "store")
    assert store.list() == ()
    phones = {}
    for device in ("Galaxy Note10", "galaxy note10", None):
        profiler = learned()
        profiler.device = device
        phones[device] = profiler
        store.save(profiler)
    energy = learned(name="energy")
    energy.device = "Galaxy Note10"
    path = store.save(energy)
    assert path == store.path(SPACE, "Galaxy Note10", "energy") and path.is_file()
    assert len(store.list()) == len(store.list(SPACE)) == 4
    entry = next(entry for entry in store.list() if entry.name == "energy")
    assert (entry.device, entry.predictor, entry.encoding, entry.samples) == ("Galaxy Note10", "ridge", "one_hot", 40)
    test = SPACE.sample(5, np.random.default_rng(1))
    for device, profiler in phones.items():
        loaded = store.get(SPACE, device)
        assert loaded.device == device and np.array_equal(loaded.profile_batch(test), profiler.profile_batch(test))


def test_what_a_store_does_not_have(tmp_path: Path) -> None:
    store = PredictorStore(tmp_path)
    with pytest.raises(ProfilerError, match="nothing for this space"):
        store.get(SPACE, "phone")
    store.save(learned())
    with pytest.raises(ProfilerError, match="has no 'latency_m' on None .* did you mean 'latency_ms on None'"):
        store.get(SPACE, name="latency_m")
    with pytest.raises(TypeError, match="keeps learned profilers"):
        store.save(COST)  # type: ignore[arg-type]
    with pytest.raises(OrderError, match="learnt nothing yet"):
        store.save(LearnedProfiler(SPACE))
