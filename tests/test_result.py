"""The result: front, best, values, table, export."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from nasmw import Chain, Filter, Objective, Search, Trial
from nasmw.errors import ConstraintError, EvaluationError, ExportError, ProfilerError
from nasmw.export import export_onnx
from nasmw.profiler import Profiler
from nasmw.result import Result, load, pareto_front
from nasmw.strategies import Random
from nasmw.testing import FakeDevice, TableProfiler, fake_latency, toy_space

small = st.sampled_from([0.0, 1.0, 2.0, 3.0, float("nan")])


@given(hnp.arrays(np.float64, hnp.array_shapes(min_dims=2, max_dims=2, max_side=12), elements=small))
def test_front_is_what_nothing_dominates(scores: Any) -> None:
    expected = [
        not np.isnan(row).any()
        and not any((other >= row).all() and (other > row).any() for other in scores if not np.isnan(other).any())
        for row in scores
    ]
    assert pareto_front(scores).tolist() == expected


def evaluate(trial: Trial) -> dict[str, float]:
    draw = random.Random(trial.seed)
    if draw.random() < 0.1:
        raise ValueError("one in ten fails")
    return {"accuracy": draw.random(), "loss": draw.random()}


@pytest.fixture
def result() -> Result:
    space = toy_space()
    limit = TableProfiler(space) <= 50.0
    return Search(space, Chain(Random(), Filter(limit)), evaluate, progress=False).run(trials=50)


def test_best_has_the_greatest_score(result: Result) -> None:
    assert result.best.metrics["accuracy"] == max(trial.metrics["accuracy"] for trial in result.completed)


def test_pareto_by_names_and_profilers(result: Result) -> None:
    space = result.space
    cost, other = TableProfiler(space), TableProfiler(space, "other", seed=1)
    front = result.pareto("accuracy", cost)
    assert [t.number for t in front] == [t.number for t in result.pareto("accuracy", "cost")]
    points = [(trial.metrics["accuracy"], -trial.columns["cost"]) for trial in result.completed]
    for trial in front:
        own = (trial.metrics["accuracy"], -trial.columns["cost"])
        assert not any(p[0] >= own[0] and p[1] >= own[1] and p != own for p in points)
    assert result.pareto("accuracy", other)  # a profiler that was no part of the run is asked now
    assert result.pareto(Objective("loss", "minimize"))[0].metrics["loss"] == min(
        t.metrics["loss"] for t in result.completed
    )


def test_values_of_an_unknown_metric(result: Result) -> None:
    with pytest.raises(ProfilerError, match="no trial has a metric 'acuracy'; did you mean 'accuracy'"):
        result.values("acuracy")

    class Measured(Profiler):
        def _profile(self, architecture: Any) -> float:
            raise AssertionError("measured after the run")

    with pytest.raises(ProfilerError, match="no trial has a metric 'latency'"):
        result.values(Measured("latency", space=result.space, kind="measured"))


def test_table_has_a_row_per_trial(result: Result) -> None:
    table = result.table()
    assert {len(column) for column in table.values()} == {50}
    assert table["number"] == list(range(50))
    failed = table["status"].index("failed")
    assert table["accuracy"][failed] is None
    assert table["cost"][failed] == result.trials[failed].columns["cost"]


def test_funnel_adds_up(result: Result) -> None:
    text = str(result.funnel)
    away = sum(result.funnel.turned_away.values())
    assert result.funnel.proposed == 50 + away
    assert f"-{away}" in text
    assert "cost <= 50" in text


def training(trial: Trial) -> float:
    model = trial.model()
    trial.save(model)
    return float(sum(parameter.sum() for parameter in model.parameters()))


def test_export_of_kept_weights(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    space = toy_space()
    result = Search(space, Random(), training, log=tmp_path / "run.db", progress=False).run(trials=4)
    for found in (result, load(tmp_path / "run.db", space)):
        written = found.export(tmp_path / "best")
        assert sorted(written) == ["architecture", "weights"]
        description = json.loads(written["architecture"].read_text())
        assert description["architecture"] == result.best.architecture
        weights = torch.load(written["weights"], weights_only=True)
        total = float(sum(weights[name].sum() for name in weights))
        assert total == pytest.approx(result.best.metrics["accuracy"], rel=1e-5)


def test_export_to_onnx_computes_the_same(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    pytest.importorskip("onnxruntime")
    space = toy_space()
    result = Search(space, Random(), training, log=tmp_path / "run.db", progress=False).run(trials=2)
    written = result.export(tmp_path / "best", example_input=torch.randn(2, 3, 8, 8))
    assert written["onnx"].stat().st_size > 0


def test_export_notices_a_difference(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    pytest.importorskip("onnxruntime")

    class Noisy(torch.nn.Module):  # type: ignore[misc]
        calls = 0

        def forward(self, x: Any) -> Any:
            Noisy.calls += 1
            return x * Noisy.calls

    with pytest.raises(ExportError, match="differs from PyTorch's by"):
        export_onnx(Noisy(), torch.ones(1, 3), tmp_path / "model.onnx")


def by_width(trial: Trial) -> float:
    return float(trial.architecture["width"])


def test_remeasure_compares_with_what_was_predicted() -> None:
    torch = pytest.importorskip("torch")
    space = toy_space()
    image = torch.zeros(1, 3, 8, 8)
    predicted = TableProfiler(space, "latency_ms", "ms")
    result = Search(space, Chain(Random(), Filter(predicted <= 60.0)), by_width, progress=False).run(trials=30)
    options: dict[str, Any] = {"example_input": image, "rounds": 1, "runs": 2, "progress": False}
    found = result.remeasure(FakeDevice(), top=5, limit=predicted <= 0.8, **options)
    expected = [fake_latency(space.build(trial.architecture), image) for trial in found.trials]
    assert found.measured == pytest.approx(expected) and len(found) == 5
    assert found.scores.tolist() == sorted((t.metrics["accuracy"] for t in result.completed), reverse=True)[:5]
    assert len({trial.codes for trial in found.trials}) == 5
    assert found.predicted.tolist() == [trial.columns["latency_ms"] for trial in found.trials]
    assert found.keeps.tolist() == [value <= 0.8 for value in expected] and found.kept == sum(found.keeps)
    lines = str(found).splitlines()
    assert " ".join(lines[0].split()) == "trial accuracy predicted ms measured ms spread latency_ms <= 0.8"
    assert len(lines) == 1 + 5 + 1 and lines[-1] == f"{found.kept} of 5 keep latency_ms <= 0.8 on fake-fp32"
    plain = result.remeasure(FakeDevice(), top=100, **options)
    assert (
        len(plain) == len({trial.codes for trial in result.trials}) and len(str(plain).splitlines()) == len(plain) + 1
    )


def test_remeasure_refuses() -> None:
    torch = pytest.importorskip("torch")
    space = toy_space()
    result = Search(space, Random(), by_width, progress=False).run(trials=2)
    options: dict[str, Any] = {"example_input": torch.zeros(1, 3, 8, 8), "progress": False}
    with pytest.raises(ValueError, match="at least 1, got 0"):
        result.remeasure(FakeDevice(), 0, **options)
    with pytest.raises(TypeError, match="takes a limit such as"):
        result.remeasure(FakeDevice(), limit=5, **options)
    with pytest.raises(ProfilerError, match="is milliseconds"):
        result.remeasure(FakeDevice(), limit=TableProfiler(space) <= 5, **options)
    with pytest.raises(ConstraintError, match="takes a number as the limit"):
        result.remeasure(FakeDevice(), limit=TableProfiler(space, unit="ms").at_most("60%"), **options)

    def fails(trial: Trial) -> float:
        raise ValueError("never")

    with pytest.raises(EvaluationError, match="nothing to measure again"):
        Search(space, Random(), fails, progress=False).run(trials=2).remeasure(FakeDevice(), **options)
