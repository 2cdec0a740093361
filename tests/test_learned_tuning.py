"""Tuning on inner splits, learning curves, and their pictures."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from nasmw.errors import ProfilerError
from nasmw.profilers import LearnedProfiler
from nasmw.profilers.learned import MLP, Ridge, learning_curve, tune
from nasmw.profilers.learned.plots import plot_learning_curves, plot_losses, plot_predictions
from nasmw.profilers.learned.tuning import error_of
from nasmw.testing import TableProfiler, toy_space

SPACE = toy_space()
COST = TableProfiler(SPACE)
PNG = b"\x89PNG\r\n"


def known(n: int = 80, seed: int = 0):
    rng = np.random.default_rng(seed)
    candidates = SPACE.sample(n, rng)
    return candidates, COST.profile_batch(candidates) + rng.normal(0, 1, n)


def test_the_best_setting_is_fitted_to_all_samples() -> None:
    candidates, values = known()
    profiler = LearnedProfiler(SPACE, name="ms")
    found = tune(profiler, candidates, values, grid={"penalty": (1e-3, 1.0, 1e6)}, encodings=["counts", "one_hot"])
    assert len(found.tried) == 6 and found.best.parameters["penalty"] != 1e6
    assert found.best.encoding == "one_hot" and len(found.best.errors) == 3
    errors = [tried.error for tried in found.tried]
    assert errors == sorted(errors)
    assert len(found.profiler.samples) == 80 and found.profiler.name == "ms" and not profiler.fitted
    again = LearnedProfiler(SPACE, Ridge(**found.best.parameters), found.best.encoding).fit(candidates, values)
    assert np.array_equal(again.profile_batch(candidates), found.profiler.profile_batch(candidates))


def test_errors_are_those_of_samples_left_out() -> None:
    candidates, _ = known(60)
    noise = np.random.default_rng(1).normal(0, 1, 60)
    found = tune(LearnedProfiler(SPACE), candidates, noise, grid={"penalty": (1e-9,)}, encodings=["slots"], folds=4)
    assert found.best.error > 0.9 * np.abs(noise).mean()


def test_random_settings_are_drawn_without_repetition() -> None:
    candidates, values = known()
    found = tune(LearnedProfiler(SPACE), candidates, values, trials=5, seed=4)
    assert len({tried.parameters["penalty"] for tried in found.tried}) == 5
    same = tune(LearnedProfiler(SPACE), candidates, values, trials=5, seed=4)
    assert [tried.parameters for tried in same.tried] == [tried.parameters for tried in found.tried]


def test_tuning_that_cannot_be() -> None:
    candidates, values = known()
    with pytest.raises(ProfilerError, match="no parameter 'penalti' to tune; did you mean 'penalty'"):
        tune(LearnedProfiler(SPACE), candidates, values, grid={"penalti": (1.0,)})
    with pytest.raises(ProfilerError, match="minimises one of"):
        tune(LearnedProfiler(SPACE), candidates, values, measure="r2")  # type: ignore[arg-type]
    with pytest.raises(ProfilerError, match="in 3 parts leave fewer than the 10"):
        tune(LearnedProfiler(SPACE, "mlp"), candidates[:12], values[:12])


def test_measures() -> None:
    said, values = np.array([1.0, 2.0, 4.0]), np.array([1.0, 4.0, 2.0])
    assert error_of(said, values, "mae") == pytest.approx(4 / 3)
    assert error_of(said, values, "rmse") == pytest.approx(np.sqrt(8 / 3))
    assert error_of(said, values, "mape") == pytest.approx(50.0)
    assert error_of(said, values, "spearman") == pytest.approx(0.5)


def test_errors_fall_with_more_samples(tmp_path: Path) -> None:
    curves = [
        learning_curve(LearnedProfiler(SPACE, "ridge", encoding), known(200), known(100, 1), (10, 40, 200), repeats=4)
        for encoding in ("one_hot", "counts")
    ]
    means = curves[0].errors.mean(axis=1)
    assert curves[0].errors.shape == (3, 4) and means[0] > means[1] > means[2]
    assert curves[0].unit == "ms" and curves[0].measure == "mae"
    plot_learning_curves(curves, tmp_path / "curves.png")
    assert (tmp_path / "curves.png").read_bytes().startswith(PNG)
    with pytest.raises(ProfilerError, match="needs as many, got 20"):
        learning_curve(LearnedProfiler(SPACE), known(20), known(20), (30,))
    with pytest.raises(ProfilerError, match="at least one of them"):
        plot_learning_curves([], tmp_path / "none.png")


def test_pictures(tmp_path: Path) -> None:
    candidates, values = known(60)
    profiler = LearnedProfiler(SPACE, MLP(widths=(8,), epochs=3)).fit(candidates, values)
    plot_losses(profiler, tmp_path / "losses.png")
    plot_predictions(profiler, candidates, values, tmp_path / "predictions.png")
    for name in ("losses.png", "predictions.png"):
        assert (tmp_path / name).read_bytes().startswith(PNG)
    with pytest.raises(ProfilerError, match="keeps no losses"):
        plot_losses(LearnedProfiler(SPACE).fit(candidates, values), tmp_path / "none.png")


def test_matplotlib_is_an_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    profiler = LearnedProfiler(SPACE, MLP(widths=(8,), epochs=3)).fit(*known(60))
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r"nasmw\[plot\]"):
        plot_losses(profiler, tmp_path / "losses.png")
