"""The benchmarks on tables: figures of merit by hand, chains and loops that waste nothing, runs that are kept."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from nasmw import Chain, Choice, Deduplicate, Filter, Search, Space
from nasmw.strategies import ASHA, NSGA2, Evolution, PredictorGuided, Random

BENCHMARKS = str(Path(__file__).parent.parent / "benchmarks")
MODULES = (
    "table_search",
    "kept_runs",
    "peers",
    "chosen",
    "nb201_problems",
    "strategies_nb201",
    "pareto_nb201",
    "multi_fidelity_nb201",
    "rank_nb201",
    "strategy_choices",
)


@pytest.fixture(scope="module")
def bench() -> Iterator[Any]:
    """The modules of the benchmarks by name, and `tables`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(BENCHMARKS)
        import importlib

        yield SimpleNamespace(**{name: importlib.import_module(name) for name in ("tables", *MODULES)})
        for name in [name for name in sys.modules if name.split(".")[0] in ("tables", *MODULES)]:
            del sys.modules[name]


@pytest.fixture(scope="module")
def data() -> Path:
    folder = os.environ.get("NASMW_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("NASMW_DATA names no folder with published data")
    return Path(folder)


def _parity(architecture: Any) -> int:
    return (int(architecture["a"]) + int(architecture["b"])) % 2


@pytest.fixture
def small(bench: Any) -> Any:
    """Six networks, two of them beyond the limit; validation and test disagree about the best."""
    space = Space([Choice("a", (0, 1)), Choice("b", (0, 1, 2))])
    codes = space.at(range(6)).codes
    columns = {
        "val": [10.0, 50.0, 40.0, 90.0, 30.0, 80.0],
        "test200": [12.0, 45.0, 60.0, 95.0, 20.0, 70.0],
        "cost": [1.0, 1.0, 2.0, 9.0, 2.0, 9.0],
    }
    table = bench.tables.Benchmark(space, codes, columns)
    return bench.table_search.Problem("small", table, ("val",), (table.profiler("cost") <= 2.0,))


# -- figures of merit ---------------------------------------------------------------------------------------------


def test_regret_is_chosen_on_validation_and_reported_on_test(bench: Any, small: Any) -> None:
    """Row 3 is beyond the limit; of rows 2 and 1, validation prefers 1, which test does not."""
    runs = bench.table_search
    rows = np.array([3, 2, 1, 4])
    assert runs.selected(small, rows, [1, 2, 3, 4]) == [-1, 2, 1, 1]
    # The best test accuracy within the limit is 60; the worst network within it has 12.
    assert runs.regrets(small, rows, "test200", [1, 2, 3, 4]).tolist() == [48.0, 0.0, 15.0, 15.0]
    assert runs.regrets(small, rows[:2], "test200", [1, 4]).tolist() == [48.0, 0.0]


def test_waste_is_beyond_the_limit_or_repeated(bench: Any, small: Any) -> None:
    runs = bench.table_search
    assert runs.repeated(small, np.array([1, 2, 1, 3, 3])).tolist() == [False, False, True, False, True]
    assert runs.wasted(small, np.array([1, 2, 1, 3, 3])) == (0.4, 0.2)


def test_repeats_are_of_functions(bench: Any, small: Any) -> None:
    space = Space(small.benchmark.space.choices, function_key=_parity)
    table = bench.tables.Benchmark(space, small.benchmark.codes, small.benchmark.columns)
    where = bench.table_search.Problem("parity", table, ("val",))
    assert len(np.unique(where.networks)) == 2
    assert bench.table_search.wasted(where, np.arange(6)) == (0.0, 4 / 6)


def test_bands_and_differences(bench: Any) -> None:
    assert bench.table_search.band(np.arange(101.0)) == pytest.approx((50.0, 5.0, 95.0))
    rng = np.random.default_rng(0)
    first, second = rng.normal(0, 1, (50, 2)), rng.normal([0, 3], 1, (40, 2))
    gap, low, high = bench.strategies_nb201.difference(first, second)
    assert low[0] < 0 < high[0] and high[1] < 0
    assert gap == pytest.approx(np.median(first, axis=0) - np.median(second, axis=0))


def test_hypervolume_of_boxes(bench: Any) -> None:
    """Two boxes of 2 and 3 that share 1, and points that dominate nothing."""
    volume = bench.pareto_nb201.hypervolume
    boxes = np.array([[1.0, 1.0, 2.0], [3.0, 1.0, 1.0]])
    assert volume(boxes) == pytest.approx(4.0)
    assert volume(np.concatenate([boxes, [[0.5, 0.5, 0.5], [5.0, -1.0, 5.0], [5.0, 0.0, 5.0]]])) == pytest.approx(4.0)
    assert volume(boxes[:0]) == 0.0
    rng = np.random.default_rng(1)
    points = rng.random((40, 3))
    inside = (points[None] >= rng.random((20_000, 1, 3))).all(axis=2).any(axis=1).mean()
    assert volume(points) == pytest.approx(inside, abs=0.02)


def test_fronts(bench: Any) -> None:
    scores = np.array([[1.0, 2.0], [2.0, 1.0], [1.0, 1.0], [2.0, 1.0], [0.0, 3.0]])
    assert bench.pareto_nb201.front(scores).tolist() == [0, 1, 4]


def test_evaluations_and_seconds_to_a_share_of_the_best(bench: Any, small: Any) -> None:
    """Within 25 % of 60 is 45: row 1 by test, once it is selected by validation."""
    count = bench.rank_nb201.evaluations_to
    assert count(small, np.array([3, 0, 1, 2]), 0.25) == 3.0
    assert count(small, np.array([3, 5, 0]), 0.25) == float("inf")
    run = bench.table_search.Run(
        np.array([1, 3, 0, 1]), 0.0, 4, 0, np.array([12.0, 200.0, 200.0, 200.0]), np.array([1.0, 5.0, 7.0, 9.0])
    )
    assert bench.multi_fidelity_nb201.seconds_to(small, run, 0.25) == 9.0


# -- searches -----------------------------------------------------------------------------------------------------


def test_the_lean_loop_is_a_search(bench: Any, data: Path) -> None:
    """The same rows as of Search with a window of 1."""
    where = bench.strategy_choices.problem("Macro, 50 %")
    for strategy in (Evolution(10, 3), PredictorGuided(), NSGA2(10)):
        chain = Chain(strategy, Deduplicate(), Filter(*where.limits))
        lean = bench.table_search.searched(where, chain, 40, seed=3)
        result = Search(where.benchmark.space, chain, where.benchmark.evaluate, seed=3, window=1, progress=False).run(
            trials=40
        )
        assert [where.benchmark.index.row(trial.architecture) for trial in result.trials] == lean.rows.tolist()
        assert lean.proposals >= 40


def test_chains_and_loops_waste_nothing(bench: Any, data: Path) -> None:
    setting = "cifar10, pixel3, 25 %"
    where = bench.nb201_problems.problem(setting)
    assert where.inside.sum() == pytest.approx(15_625 / 4, abs=2)
    for name in ("Random", "Evolution", "LocalSearch", "TPE", "PredictorGuided"):
        for how, wasted in (("chain", False), ("alone", True)):
            unit = bench.kept_runs.Unit(f"{name}, {how}", "", setting, 0, 40)
            run = bench.strategies_nb201.search(unit)
            assert len(run.rows) == 40
            assert (sum(bench.table_search.wasted(where, run.rows)) > 0) == wasted


@pytest.mark.parametrize("peer", ["Optuna TPE", "Optuna NSGA-II", "Nevergrad DiscreteOnePlusOne"])
def test_the_loop_around_peers_wastes_nothing(bench: Any, data: Path, peer: str) -> None:
    pytest.importorskip(peer.split()[0].lower())
    setting = "cifar10, pixel3, 50 %"
    where = bench.nb201_problems.problem(setting)
    runs = {
        how: bench.strategies_nb201.search(bench.kept_runs.Unit(f"{peer}, {how}", "", setting, 1, 30))
        for how in ("bare", "checked")
    }
    assert sum(bench.table_search.wasted(where, runs["checked"].rows)) == 0.0
    assert sum(bench.table_search.wasted(where, runs["bare"].rows)) > 0.0
    assert runs["checked"].proposals > 30
    again = bench.strategies_nb201.search(bench.kept_runs.Unit(f"{peer}, checked", "", setting, 1, 30))
    assert again.rows.tolist() == runs["checked"].rows.tolist()


@pytest.mark.parametrize("peer", ["Optuna TPE", "Nevergrad DiscreteOnePlusOne"])
def test_peers_are_told_of_networks_that_they_did_not_give(bench: Any, data: Path, peer: str) -> None:
    pytest.importorskip(peer.split()[0].lower())
    where = bench.nb201_problems.problem("cifar10, pixel3, 50 %")
    made = bench.strategies_nb201.PEERS[peer](where, 0, 30)
    for row in (17, 4711):
        codes = where.benchmark.codes[row].tolist()
        candidate = made.take(codes)
        given = list(candidate.params.values()) if peer.startswith("Optuna") else list(candidate.value[0])
        assert given == codes
        made.tell(candidate, where.scores[row], where.excess[row])
    assert len(made.ask()[1]) == 6


@pytest.mark.parametrize("kind", ["OptunaPeer", "NevergradPeer"])
def test_peers_need_not_be_told_of_what_is_turned_away(bench: Any, data: Path, kind: str) -> None:
    pytest.importorskip(kind.removesuffix("Peer").lower())
    where = bench.nb201_problems.problem("cifar10, pixel3, 50 %")
    made = getattr(bench.peers, kind)
    told, untold = (
        bench.peers.checked_search(where, bench.peers.Made(made, {"told": told}), 40, seed=0) for told in (True, False)
    )
    assert sum(bench.table_search.wasted(where, untold.rows)) == 0.0
    assert untold.rows.tolist() != told.rows.tolist()


class Stubborn:
    """A peer that gives one network for ever."""

    knows_others = False

    def __init__(self, where: Any, seed: int, budget: int) -> None:
        self.told = 0

    def ask(self) -> tuple[None, list[int]]:
        return None, [0, 0]

    def tell(self, candidate: None, scores: Any, excess: Any) -> None:
        self.told += 1

    def refuse(self, candidate: None, scores: Any, excess: Any) -> None:
        pass


def test_a_loop_that_gets_nothing_new_takes_random_networks(bench: Any, small: Any) -> None:
    run = bench.peers.checked_search(small, Stubborn, 10, seed=0)
    assert sorted(run.rows.tolist()) == [0, 1, 2, 4]
    assert run.rows[0] == 0
    assert run.substitutes == 3


@pytest.mark.parametrize("peer", ["Optuna NSGA-II", "pymoo NSGA-II"])
def test_peers_for_fronts(bench: Any, data: Path, peer: str) -> None:
    pytest.importorskip(peer.split()[0].lower())
    setting = "edgegpu, 50 %"
    where = bench.pareto_nb201.problem(setting)
    for how in ("bare", "checked"):
        run = bench.pareto_nb201.search(bench.kept_runs.Unit(f"{peer}, {how}", "", setting, 0, 50))
        assert len(run.rows) == 50
        assert (sum(bench.table_search.wasted(where, run.rows)) == 0.0) == (how == "checked")
        assert 0.0 < bench.pareto_nb201.scale(setting, "val200").share(run.rows) < 1.0
    everything = np.flatnonzero(where.inside)
    assert bench.pareto_nb201.scale(setting, "val200").share(everything) == pytest.approx(1.0)


def test_the_simulated_clock(bench: Any, data: Path) -> None:
    """One worker's times add up; eight workers finish in the order of time, and earlier."""
    where = bench.nb201_problems.problem("cifar10, no limit")
    seconds = where.benchmark.column("epoch_seconds")
    unit_s = bench.multi_fidelity_nb201.full_training(where)
    run = bench.multi_fidelity_nb201.simulated(where, ASHA((12, 200)), 10 * unit_s, seed=0)
    assert run.finished_s == pytest.approx(np.cumsum(seconds[run.rows] * run.budgets))
    assert set(run.budgets.tolist()) == {12.0, 200.0}
    assert run.finished_s[-1] <= 10 * unit_s
    many = bench.multi_fidelity_nb201.simulated(where, Random(replacement=False), 10 * unit_s, seed=0, workers=8)
    assert (np.diff(many.finished_s) >= 0).all()
    assert len(many.rows) > 50


def test_regret_by_the_simulated_clock(bench: Any, data: Path) -> None:
    """Short trainings select nothing; of the long ones that are finished, the best on validation is selected."""
    where = bench.nb201_problems.problem("cifar10, no limit")
    test = where.benchmark.column("test200")
    good, best = np.argsort(where.scores[:, 0])[-2:]
    run = bench.table_search.Run(
        np.array([best, good, best, 0]), 0.0, 4, 0, np.array([12.0, 200, 200, 200]), np.array([1.0, 2.0, 3.0, 4.0])
    )
    found = bench.multi_fidelity_nb201.regrets_at(where, run, np.array([1.5, 2.0, 2.5, 5.0]))
    highest = test[where.inside].max()
    assert found == pytest.approx(highest - np.array([test[where.inside].min(), test[good], test[good], test[best]]))


# -- what is kept -------------------------------------------------------------------------------------------------


def one_run(unit: Any) -> Any:
    from table_search import Run

    return Run(np.arange(3) + unit.seed, 0.5, 7, 2, np.array([1.5]), np.array([2.25]))


def test_runs_are_kept_and_not_done_again(bench: Any, tmp_path: Path) -> None:
    path = tmp_path / "runs.jsonl"
    units = [bench.kept_runs.Unit("m", "what", "s", seed, 3) for seed in range(3)]
    kept = bench.kept_runs.Kept(path)
    timed = bench.kept_runs._Timed(one_run)
    lines = [timed(unit) for unit in units]
    with path.open("a") as file:
        for _ in kept._noted(lines[:2], file):
            pass
        file.write('{"unit": {"meth')  # a kill in the middle of a line
    again = bench.kept_runs.Kept(path)
    assert [unit in again for unit in units] == [True, True, False]
    assert again[units[1]].rows.tolist() == [1, 2, 3]
    assert (again[units[1]].cpu_s, again[units[1]].proposals) == (0.5, 7)
    assert (again[units[1]].budgets.tolist(), again[units[1]].finished_s.tolist()) == ([1.5], [2.25])
    assert bench.kept_runs.Unit("m", "other", "s", 0, 3) not in again
    assert path.read_text().count("\n") == 2
    assert path.read_text().endswith("\n")
