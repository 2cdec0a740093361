"""The benchmark tables against published check values: optima, counts, single networks."""

from __future__ import annotations

import os
import pickle
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nasmw import Chain, Choice, FeasibleSet, Filter, Search, Space
from nasmw.feasible import by_construction
from nasmw.strategies import ASHA, NSGA2, TPE, Evolution, LocalSearch, PredictorGuided, Random, SuccessiveHalving
from nasmw.strategy import Strategy
from nasmw.trial import Task, Trial

BENCHMARKS = str(Path(__file__).parent.parent / "benchmarks")


@pytest.fixture(scope="module")
def tables() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(BENCHMARKS)
        import tables

        yield tables
        for name in [name for name in sys.modules if name.split(".")[0] == "tables"]:
            del sys.modules[name]


@pytest.fixture(scope="module")
def data() -> Path:
    folder = os.environ.get("NASMW_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("NASMW_DATA names no folder with published data")
    return Path(folder)


@pytest.fixture(scope="module")
def nb201(tables: Any, data: Path) -> Any:
    return tables.NASBench201("cifar10", data)


def trial_of(space: Space, architecture: Any, **task: Any) -> Trial:
    return Trial(Task(0, dict(architecture), 5, **task), space)


# -- NAS-Bench-201 ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dataset", "best", "row"), [("cifar10", 94.373, 6111), ("cifar100", 73.513, 9930), ("ImageNet16-120", 47.311, 857)]
)
def test_optima_of_nasbench201(tables: Any, data: Path, dataset: str, best: float, row: int) -> None:
    found = tables.NASBench201(dataset, data).best("test200")
    assert (round(found.value, 3), found.row) == (best, row)


def test_the_first_architecture_of_nasbench201(nb201: Any) -> None:
    """Row 0 is |avg_pool_3x3~0|+|nor_conv_1x1~0|skip_connect~1|+|nor_conv_1x1~0|skip_connect~1|skip_connect~2|."""
    assert nb201.space.decode(nb201.codes[0]) == {
        "edge_0_1": "avg_pool_3x3",
        "edge_0_2": "nor_conv_1x1",
        "edge_1_2": "skip_connect",
        "edge_0_3": "nor_conv_1x1",
        "edge_1_3": "skip_connect",
        "edge_2_3": "skip_connect",
    }


def test_codes_are_joined_to_the_official_index(nb201: Any) -> None:
    """Parameters of the space's own tables are those of the row, for every architecture."""
    every = nb201.space.candidates(nb201.codes)
    own = nb201.space.tables["params"](nb201.space, None).evaluate(every)
    assert np.array_equal(own, nb201.column("params"))
    assert np.array_equal(nb201.rows_of(every), np.arange(15_625))
    assert [nb201.index.row(architecture) for architecture in every[:50]] == list(range(50))


def test_evaluate_knows_both_budgets(nb201: Any) -> None:
    architecture = nb201.best("test200").architecture
    full = nb201.evaluate(trial_of(nb201.space, architecture))
    assert full["test_accuracy"] == pytest.approx(94.3733, abs=1e-4)
    short = nb201.evaluate(trial_of(nb201.space, architecture, budget=12.0))
    assert short["accuracy"] == nb201.column("val12")[6111] < full["accuracy"]
    assert full["seconds"] == pytest.approx(short["seconds"] * 200 / 12)
    with pytest.raises(ValueError, match=r"knows the budgets \[12, 200\], got 50"):
        nb201.evaluate(trial_of(nb201.space, architecture, budget=50.0))


def test_evaluate_can_be_pickled(nb201: Any) -> None:
    copy = pickle.loads(pickle.dumps(nb201.evaluate))
    trial = trial_of(nb201.space, nb201.space.decode(nb201.codes[7]))
    assert copy(trial) == nb201.evaluate(trial)


def test_latencies_of_devices(nb201: Any) -> None:
    assert len(nb201.devices) == 41
    latency = nb201.latency("1080ti_1")
    assert (latency.kind, latency.fixed, latency.unit, latency.device) == ("measured", True, "ms", "1080ti_1")
    assert latency.measured.all()
    with np.load(Path(os.environ["NASMW_DATA"]) / "latency" / "nb201_latency.npz") as file:
        column = file["latency_ms"][:, file["devices"].tolist().index("1080ti_1")]
    assert np.allclose(latency.profile_batch(nb201.space.candidates(nb201.codes)), column)
    with pytest.raises(ValueError, match="no table of 'abacus'"):
        nb201.latency("abacus")


def test_what_was_not_measured_is_beyond_every_limit_of_use(nb201: Any) -> None:
    latency = nb201.latency("embedded_tpu_edgetpu_large")
    assert int((~latency.measured).sum()) == 823
    values = latency.profile_batch(nb201.space.candidates(nb201.codes))
    assert values[~latency.measured].min() == 10 * values[latency.measured].max()


def test_limits_on_measured_columns_are_met_by_construction(nb201: Any) -> None:
    latency, energy = nb201.latency("raspi4"), nb201.hardware("edgegpu_energy")
    limits = latency <= 8.0, energy <= 20.0
    assert all(by_construction(limit) for limit in limits)
    inside = int(nb201.within(*limits).sum())
    assert 0 < inside < 15_625
    assert FeasibleSet(nb201.space, *limits).count().exact in (inside, None)
    assert FeasibleSet(nb201.space, limits[0]).sample(500, np.random.default_rng(0)).codes.shape == (500, 6)
    found = nb201.best("val200", *limits)
    assert latency.profile(found.architecture) <= 8.0


def test_hardware_metrics(tables: Any, data: Path, nb201: Any) -> None:
    assert len(nb201.hardware_metrics) == 10
    energy = nb201.hardware("edgegpu_energy")
    assert (energy.unit, energy.device, int(energy.measured.sum())) == ("mJ", "edgegpu", 12_555)
    assert int(nb201.hardware("edgetpu_latency").measured.sum()) == 12_555 - 3_768
    with pytest.raises(ValueError, match="has no 'weight'"):
        nb201.hardware("weight")
    with pytest.raises(ValueError, match="about cifar10, and this is cifar100"):
        tables.NASBench201("cifar100", data).hardware("edgegpu_energy")


def test_a_search_on_nasbench201(nb201: Any) -> None:
    latency = nb201.latency("raspi4")
    chain = Chain(Random(replacement=False), Filter(latency <= 8.0))
    result = Search(nb201.space, chain, nb201.evaluate, progress=False).run(trials=30)
    assert len(result.completed) == 30
    assert result.funnel.proposed == 30
    assert set(result.best.metrics) == {"accuracy", "test_accuracy", "seconds"}


# -- sizes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("dataset", "best"), [("cifar10", 93.65), ("cifar100", 71.34), ("ImageNet16-120", 47.40)])
def test_optima_of_nats_size(tables: Any, data: Path, dataset: str, best: float) -> None:
    nats = tables.NATSSize(dataset, data)
    assert nats.best("test90").value == pytest.approx(best, abs=0.005)
    every = nats.space.candidates(nats.codes)
    assert np.array_equal(nats.space.tables["params"](nats.space, None).evaluate(every), nats.column("params"))


def test_optima_of_the_macro_spaces(tables: Any, data: Path) -> None:
    macro = tables.NASBenchMacro(data)
    best = macro.best("accuracy")
    assert best.value == pytest.approx(93.127, abs=5e-4)
    assert (
        "".join(str(("identity", "mb3_k3", "mb6_k5").index(each)) for each in best.architecture.values()) == "22212202"
    )
    for family, value in (("resnet", 93.893), ("mobilenet", 91.887)):
        channels = tables.ChannelBenchMacro(family, data)
        assert channels.space.size == 16_384
        assert channels.best("accuracy").value == pytest.approx(value, abs=5e-4)


def test_one_of_three_runs(tables: Any, data: Path) -> None:
    macro = tables.NASBenchMacro(data)
    architecture = macro.space.decode(macro.codes[100])
    runs = {macro.evaluate_once(Trial(Task(0, architecture, seed), macro.space))["accuracy"] for seed in range(6)}
    assert len(runs) == 3
    mean = macro.evaluate(trial_of(macro.space, architecture))["accuracy"]
    assert np.mean(sorted(runs)) == pytest.approx(mean)


# -- once-for-all -------------------------------------------------------------------------------------------------


def once_for_all(depths: list[int], expands: list[int], resolution: int) -> dict[str, int]:
    architecture = {"resolution": resolution}
    kernels = [3] * 4 + [5] * 4 + [3] * 8 + [5] * 4
    for stage, depth in enumerate(depths):
        architecture[f"stage{stage}.depth"] = depth
        for block in range(depth):
            architecture[f"stage{stage}.block{block}.kernel"] = kernels[4 * stage + block]
            architecture[f"stage{stage}.block{block}.expand"] = expands[4 * stage + block]
    return architecture


@pytest.mark.parametrize(
    ("expands", "depths", "resolution", "accuracy", "latency"),
    [
        ([3] * 4 + [4] * 4 + [3] * 4 + [4] * 8, [2, 3, 2, 3, 3], 192, 79.64891, 19.886882),
        ([3] * 4 + [4] * 8 + [6] * 4 + [4] * 4, [2, 3, 3, 4, 3], 224, 81.71636, 34.616259),
    ],
)
def test_check_values_of_once_for_all(
    tables: Any, data: Path, expands: list[int], depths: list[int], resolution: int, accuracy: float, latency: float
) -> None:
    ofa = tables.OnceForAll("all", data)
    architecture = once_for_all(depths, expands, resolution)
    assert ofa.evaluate.predict(architecture) == pytest.approx(accuracy, abs=2e-4)
    assert ofa.evaluate(trial_of(ofa.space, architecture)) == pytest.approx(accuracy, abs=2e-4)
    assert ofa.evaluate.predict_batch(ofa.space.candidates([architecture]))[0] == pytest.approx(accuracy, abs=2e-4)
    assert ofa.latency.profile(architecture) == pytest.approx(latency, abs=1e-4)


@pytest.mark.parametrize("networks", ["all", "elastic", "fixed"])
def test_the_predictor_says_the_same_of_one_and_of_many(tables: Any, data: Path, networks: str) -> None:
    ofa = tables.OnceForAll(networks, data)
    batch = ofa.space.sample(200, np.random.default_rng(0))
    together = ofa.evaluate.predict_batch(batch)
    assert np.allclose(together, [ofa.evaluate.predict(each) for each in batch], atol=2e-4)
    whole = tables.OnceForAll("all", data)
    if networks == "fixed":  # the same networks, with every choice said
        full = [
            once_for_all(
                depths := [each[f"stage{s}.depth"] for s in range(5)],
                [{2: 3, 3: 4, 4: 6}[d] for d in depths for _ in range(4)],
                each["resolution"],
            )
            for each in batch
        ]
        assert np.allclose(whole.evaluate.predict_batch(whole.space.candidates(full)), together, atol=2e-4)


def test_exact_optima_of_compofa(tables: Any, data: Path) -> None:
    """A published search found the networks of these latencies; they are the best of all 1,215."""
    ofa = tables.OnceForAll("fixed", data)
    every = ofa.space.at(range(ofa.space.size))
    assert len(every) == 1215
    accuracy, latency = ofa.evaluate.predict_batch(every), ofa.latency.profile_batch(every)
    best = [latency[np.argmax(np.where(latency <= limit, accuracy, -1.0))] for limit in (15, 20, 25, 30, 35)]
    assert best == pytest.approx([14.698, 19.887, 24.834, 29.513, 34.792], abs=1e-3)


def test_the_predictor_knows_some_sizes_of_images(tables: Any, data: Path) -> None:
    from nasmw.spaces import ofa_mobilenetv3

    with pytest.raises(ValueError, match="steps of 16, got 164"):
        tables.AccuracyPredictor.load(ofa_mobilenetv3(1.2, [160, 164]), data)


# -- what is wrong ------------------------------------------------------------------------------------------------


def test_missing_data_says_where_it_is_to_be_had(tables: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FileNotFoundError, match=r"nb201_accuracy.npz in .*NATS-Bench.*NASMW_DATA"):
        tables.NASBench201("cifar10", tmp_path)
    monkeypatch.delenv("NASMW_DATA", raising=False)
    with pytest.raises(tables.MissingDataError, match="no data folder is named"):
        tables.NASBenchMacro()
    with pytest.raises(ValueError, match="'cifar10', 'cifar100', 'ImageNet16-120'.*got 'mnist'"):
        tables.NATSSize("mnist", tmp_path)


def test_tables_have_every_architecture_once(tables: Any) -> None:
    space = Space([Choice("a", (0, 1)), Choice("b", (0, 1, 2))])
    codes = space.at(range(6)).codes
    benchmark = tables.Benchmark(space, codes[::-1], {"x": np.arange(6.0)})
    assert benchmark.best("x").architecture == {"a": 0, "b": 0}
    with pytest.raises(KeyError, match="has no column 'y'; it has x"):
        benchmark.column("y")
    with pytest.raises(ValueError, match="no architecture .* is within x <= -1"):
        benchmark.best("x", benchmark.profiler("x") <= -1)
    with pytest.raises(ValueError, match="every architecture"):
        tables.Benchmark(space, codes[:5], {})
    with pytest.raises(ValueError, match="1 architectures .* in no row"):
        tables.Benchmark(space, codes[[0, 0, 2, 3, 4, 5]], {})
    conditional = Space([Choice("a", (0, 1)), Choice("b", (0, 1), when={"a": 1})])
    with pytest.raises(ValueError, match="every architecture"):
        tables.Benchmark(conditional, conditional.at(range(3)).codes, {})


# -- strategies ---------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    "strategy",
    [Evolution(20, 5, repeats=False), LocalSearch(), TPE(), PredictorGuided(), NSGA2(20)],
    ids=lambda each: type(each).__name__,
)
def test_strategies_beat_random_search_on_macro(tables: Any, data: Path, strategy: Strategy) -> None:
    macro = tables.NASBenchMacro(data)
    best = macro.best("accuracy").value

    def regret(chosen: Strategy, seed: int) -> float:
        result = Search(macro.space, chosen, macro.evaluate, seed=seed, progress=False).run(trials=150)
        return float(best - result.best.metrics["accuracy"])

    ours = [regret(strategy, seed) for seed in range(8)]
    theirs = [regret(Random(replacement=False), seed) for seed in range(8)]
    assert np.mean(ours) < 0.5 * np.mean(theirs)


@pytest.mark.slow
@pytest.mark.parametrize(
    "strategy", [ASHA((12, 200), eta=8), SuccessiveHalving((12, 200), 40, eta=8)], ids=lambda each: type(each).__name__
)
def test_short_trainings_save_time_on_nasbench201(nb201: Any, strategy: Strategy) -> None:
    """Within the simulated time of 30 full trainings, what was fully trained is better than at random."""
    best = nb201.best("val200").value
    limit = 30 * 200 * float(nb201.column("epoch_seconds").mean())

    def regret(chosen: Strategy, seed: int) -> float:
        result = Search(nb201.space, chosen, nb201.evaluate, seed=seed, progress=False).run(trials=400)
        spent, found = 0.0, 0.0
        for trial in result.trials:
            spent += trial.metrics["seconds"]
            if spent <= limit and trial.columns.get("budget", 200) == 200:
                found = max(found, trial.metrics["accuracy"])
        return best - found

    ours = [regret(strategy, seed) for seed in range(12)]
    theirs = [regret(Random(replacement=False), seed) for seed in range(12)]
    assert np.mean(ours) < np.mean(theirs)
