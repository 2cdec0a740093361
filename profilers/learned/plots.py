"""Curves of learned profilers as PNG files."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from nasmw.errors import MissingExtraError, ProfilerError
from nasmw.profilers.learned.base import LearnedProfiler
from nasmw.profilers.learned.tuning import Curve

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["plot_learning_curves", "plot_losses", "plot_predictions"]


def _axes(title: str, across: str, up: str) -> tuple[Any, Axes]:
    """Return a figure that belongs to no window, and its axes."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError("matplotlib", "plot") from error
    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.set(title=title, xlabel=across, ylabel=up)
    axes.grid(alpha=0.3)
    return figure, axes


def plot_losses(profiler: LearnedProfiler, path: str | os.PathLike[str]) -> None:
    """Draw the losses of a network after each epoch as a PNG.

    Args:
        profiler: A fitted profiler whose predictor keeps its losses, such as ``"mlp"``.
        path: The file.

    Raises:
        ProfilerError: If the predictor keeps no losses.
        MissingExtraError: If matplotlib is not installed.
    """
    history = getattr(profiler.predictor, "history", None)
    if history is None or not len(history):
        raise ProfilerError(f"{profiler!r} keeps no losses; a predictor trained in epochs does, such as 'mlp'")
    figure, axes = _axes(profiler.name, "epoch", "mean squared error (standardised)")
    epochs = np.arange(1, len(history) + 1)
    axes.semilogy(epochs, history[:, 0], label="samples trained on")
    if np.isfinite(history[:, 1]).any():
        axes.semilogy(epochs, history[:, 1], label="samples left out")
    axes.legend()
    figure.savefig(path, format="png", dpi=120)


def plot_learning_curves(curves: Curve | Sequence[Curve], path: str | os.PathLike[str]) -> None:
    """Draw errors against the number of samples as a PNG: means over the draws, and from the least to the greatest.

    Args:
        curves: One or several, of one measure.
        path: The file.

    Raises:
        ProfilerError: If there is none, or the measures differ.
        MissingExtraError: If matplotlib is not installed.
    """
    curves = [curves] if isinstance(curves, Curve) else list(curves)
    if len({(curve.measure, curve.unit) for curve in curves}) != 1:
        raise ProfilerError("learning curves of one measure and unit are drawn together, at least one of them")
    unit = f" [{curves[0].unit}]" if curves[0].unit else ""
    figure, axes = _axes("error against samples", "samples", curves[0].measure + unit)
    for curve in curves:
        (line,) = axes.loglog(curve.sizes, curve.errors.mean(axis=1), marker="o", label=curve.name)
        axes.fill_between(
            curve.sizes, curve.errors.min(axis=1), curve.errors.max(axis=1), alpha=0.2, color=line.get_color()
        )
    axes.legend(fontsize="small")
    figure.savefig(path, format="png", dpi=120)


def plot_predictions(
    profiler: LearnedProfiler, architectures: Any, values: Any, path: str | os.PathLike[str], coverage: float = 0.9
) -> None:
    """Draw predictions with their intervals against measured values as a PNG.

    Args:
        profiler: A fitted profiler.
        architectures: ``n`` candidates, codes or mappings.
        values: ``(n,)``, measured.
        path: The file.
        coverage: Of the intervals.

    Raises:
        MissingExtraError: If matplotlib is not installed.
    """
    candidates = profiler._candidates(architectures)
    said = profiler.profile_batch(candidates)
    low, high = profiler.interval(candidates, coverage)
    unit = f" [{profiler.unit}]" if profiler.unit else ""
    figure, axes = _axes(profiler.name, f"measured{unit}", f"predicted{unit}")
    axes.errorbar(values, said, yerr=[said - low, high - said], fmt=".", elinewidth=0.6, alpha=0.6)
    ends = [float(np.min(values)), float(np.max(values))]
    axes.plot(ends, ends, color="black", linewidth=0.8)
    figure.savefig(path, format="png", dpi=120)
