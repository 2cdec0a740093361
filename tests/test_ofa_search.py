"""The search benchmark of once-for-all networks: the published algorithm, ours, and what is certified."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from nasmw import Candidates, Choice, CostTable, Space, TabledProfiler
from nasmw.strategies import Islands

BENCHMARKS = str(Path(__file__).parent.parent / "benchmarks")
DATA = Path(os.environ.get("NASMW_DATA") or "no folder")
needs_data = pytest.mark.skipif(not (DATA / "ofa").is_dir(), reason="NASMW_DATA names no folder with ofa")


@pytest.fixture(scope="module")
def searches() -> Iterator[Any]:
    """Return the modules of the benchmark."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(BENCHMARKS)
        import ofa_search
        from ofa_searches import additive, genetic, meter, methods

        yield SimpleNamespace(script=ofa_search, additive=additive, genetic=genetic, meter=meter, methods=methods)
        ours = ("tables", "ofa_search", "ofa_searches", "table_search")
        for name in [name for name in sys.modules if name.split(".")[0] in ours]:
            del sys.modules[name]


def small_space() -> Space:
    choices = [Choice("resolution", (160, 192))]
    for stage in range(2):
        depth = f"stage{stage}.depth"
        choices.append(Choice(depth, (1, 2)))
        for block in range(2):
            when = {depth: (2,)} if block else None
            choices.append(Choice(f"stage{stage}.block{block}.kernel", (3, 5, 7), when))
            choices.append(Choice(f"stage{stage}.block{block}.expand", (3, 4, 6), when))
    return Space(choices, name="small")


class Predictor:
    """Accuracies that are no sum: the square of a weighted sum of options."""

    def __init__(self, space: Space) -> None:
        self.space = space
        self._weights = np.random.default_rng(3).random(len(space))

    def predict_batch(self, candidates: Candidates) -> np.ndarray:
        codes = candidates.codes + self.space.active(candidates.codes)
        return 70.0 + (codes @ self._weights) ** 2 / 10.0

    def predict(self, architecture: Any) -> float:
        return float(self.predict_batch(self.space.candidates([architecture]))[0])


def latency_of(space: Space) -> TabledProfiler:
    terms: list[Any] = [(("resolution",), [1.0, 1.5])]
    for stage in range(2):
        for block in range(2):
            scope = (f"stage{stage}.depth", f"stage{stage}.block{block}.kernel", f"stage{stage}.block{block}.expand")
            table = np.arange(1, 10).reshape(1, 3, 3) * np.array([1.0, 1.0]).reshape(2, 1, 1) / 3.0
            table[0] *= not block
            terms.append((scope, table))
    return TabledProfiler(CostTable(space, terms, name="latency"), "latency", "ms")


@pytest.fixture(scope="module")
def everything() -> Candidates:
    space = small_space()
    return space.at(range(space.size))


def test_the_published_algorithm_keeps_its_limit(searches: Any, everything: Candidates) -> None:
    space = everything.space
    predictor, latency = Predictor(space), latency_of(space)
    within = latency.profile_batch(everything) <= 6.0
    assert within.mean() < 0.3
    best = predictor.predict_batch(everything[within]).max()
    first, last = [], []
    for seed in range(5):
        meter = searches.meter.Meter(predictor)
        searches.genetic.Genetic(population=40, generations=20).run(latency <= 6.0, meter, seed)
        assert meter.evaluated == 40 * 21
        assert latency.profile_batch(meter.candidates).max() <= 6.0
        first.append(meter.best_of_first(40))
        last.append(meter.best_of_first(840))
    assert np.mean(last) > np.mean(first) + 0.5
    assert max(last) <= best


def test_the_published_numbers(searches: Any) -> None:
    genetic = searches.genetic.Genetic()
    assert (genetic.population, genetic.generations, genetic.evaluations) == (100, 500, 50_100)


def test_genes_of_missing_blocks_are_inherited(searches: Any) -> None:
    """A child whose parents agree in a gene has it, also where neither network has the block."""
    space = small_space()
    genes = searches.genetic._Genes(space, 0.0, np.random.default_rng(0))
    parents = genes.random(6)
    parents[:, space.column("stage0.depth")] = 0
    parents[:, space.column("stage0.block1.kernel")] = 2
    anything = latency_of(space) <= 1e9
    for children in (genes.pairs(anything, parents, 40), genes.mutants(anything, parents, 40)):
        assert (children[:, space.column("stage0.block1.kernel")] == 2).all()
        assert "stage0.block1.kernel" not in next(iter(genes.candidates(children)))


def test_kernel_and_expansion_of_a_block_are_drawn_together(searches: Any) -> None:
    space = small_space()
    genes = searches.genetic._Genes(space, 0.5, np.random.default_rng(0))
    parents = genes.random(1)
    changed = genes.mutants(latency_of(space) <= 1e9, parents, 4000) != parents
    kernel, expand = (changed[:, space.column(f"stage1.block0.{what}")] for what in ("kernel", "expand"))
    # Half are drawn anew, of which a third are as before.
    assert kernel.mean() == pytest.approx(1 / 3, abs=0.05)
    assert (kernel & expand).mean() == pytest.approx(0.5 * 4 / 9, abs=0.05)


def test_ours_evaluates_nothing_twice_and_keeps_the_limit(searches: Any, everything: Candidates) -> None:
    predictor, latency = Predictor(everything.space), latency_of(everything.space)
    meter = searches.meter.Meter(predictor, evaluations=700)
    searches.methods.asked_in_batches(Islands(population=20), 20, latency <= 5.0, meter, 1)
    within = everything[latency.profile_batch(everything) <= 5.0]
    keys = meter.candidates.row_keys()
    assert len(set(keys)) == len(keys) == 700 < len(within)
    assert latency.profile_batch(meter.candidates).max() <= 5.0
    assert meter.scores.max() == predictor.predict_batch(within).max()


def test_a_search_is_metered_by_its_trials(searches: Any, everything: Candidates) -> None:
    predictor, latency = Predictor(everything.space), latency_of(everything.space)
    meter = searches.meter.Meter(predictor, evaluations=60)
    searches.methods.METHODS["Search, LocalSearch"].run(latency <= 5.0, meter, 1)
    assert meter.evaluated == 60
    assert meter.scores == pytest.approx(predictor.predict_batch(meter.candidates))
    assert meter.best_of_first(60) == meter.scores.max() == meter.best_within(meter.elapsed)
    assert np.isnan(meter.best_of_first(61)) and np.isnan(meter.best_within(0.0))
    assert 0.0 < meter.seconds_of_first(10) <= meter.seconds_of_first(60) <= meter.elapsed


def test_the_certificate_is_an_upper_bound(searches: Any, everything: Candidates) -> None:
    predictor, latency = Predictor(everything.space), latency_of(everything.space)
    for limit in (3.0, 5.0, 8.0):
        found = searches.additive.certified(predictor, latency <= limit, samples=300, seed=0)
        within = everything[latency.profile_batch(everything) <= limit]
        values = found.model.profiler.profile_batch(within)
        assert found.optimum.exact
        assert found.optimum.value == pytest.approx(values.max(), abs=1e-9)
        assert (values <= found.optimum.bound + 1e-9).all()
        assert latency.profile(found.optimum.architecture) <= limit
        assert found.accuracy == predictor.predict(found.optimum.architecture)
        assert 0.8 < found.model.explained < 1.0


def test_an_additive_accuracy_is_fitted_exactly(searches: Any, everything: Candidates) -> None:
    latency = latency_of(everything.space)
    values = latency.profile_batch(everything)

    class Sum(Predictor):
        def predict_batch(self, candidates: Candidates) -> np.ndarray:
            tables = {0: [0.0, 1.0], 3: [0.5, 0.0, 2.0]}
            return 70.0 + sum(np.array(table)[candidates.codes[:, column]] for column, table in tables.items())

    found = searches.additive.certified(Sum(everything.space), latency <= 5.0, samples=3000, seed=0)
    assert found.model.explained > 0.999
    best = Sum(everything.space).predict_batch(everything[values <= 5.0]).max()
    assert found.accuracy == pytest.approx(best)


@needs_data
def test_the_optimum_of_compofa_is_that_of_brute_force(
    searches: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from tables import OnceForAll

    benchmark = OnceForAll("fixed", DATA)
    every = benchmark.space.at(range(1215))
    accuracy = np.array([benchmark.evaluate.predict(architecture) for architecture in every])
    milliseconds = np.array([benchmark.latency.profile(architecture) for architecture in every])
    searches.script.compofa(str(DATA), [15.0, 25.0])
    lines = capsys.readouterr().out.splitlines()[-2:]
    for line, limit, published in zip(lines, (15.0, 25.0), (14.698, 24.834), strict=True):
        within = milliseconds <= limit
        best = int(np.where(within, accuracy, 0.0).argmax())
        assert [float(cell) for cell in line.split()] == [
            limit,
            within.sum(),
            round(float(accuracy[best]), 2),
            round(float(milliseconds[best]), 3),
        ]
        assert milliseconds[best] == pytest.approx(published, abs=5e-4)


@needs_data
def test_the_script_runs(searches: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    settings = ["--limits", "20", "--seeds", "2", "--seconds", "0.6", "--only", "search", "certificate", "--methods"]
    names = ["published genetic algorithm", "Islands, 200 at a time"]
    monkeypatch.setattr(sys, "argv", ["ofa_search.py", "--data", str(DATA), *settings, *names])
    monkeypatch.setattr(searches.script, "MODEL_SAMPLES", 500)
    searches.script.main()
    printed = capsys.readouterr().out
    rows = {name: line.split() for line in printed.splitlines() for name in names if line.startswith(name)}
    for name in names:
        assert rows[name][-1] == "0"  # nothing beyond the limit
    certificate = printed.splitlines()[-1].split()
    assert certificate[0] == "20" and certificate[5] == "yes"
    assert float(certificate[9]) <= float(certificate[4]) + 0.01  # by the model nothing found is beyond the bound
