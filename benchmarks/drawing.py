"""Curves over evaluations or time, a panel for each setting, as a PNG; matplotlib is needed for this alone."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import attrs
import numpy as np

from nasmw.candidates import Floats

__all__ = ["Curve", "draw"]

COLUMNS = 3


@attrs.frozen(eq=False)
class Curve:
    """One line of a panel.

    Attributes:
        at: ``(k,)`` evaluations or seconds.
        values: ``(seeds, k)`` what each run has there; the median is drawn, and the 90 % band shaded.
        style: How matplotlib draws the line.
    """

    at: Floats
    values: Floats
    style: str = "-"


def draw(path: Path, panels: Mapping[str, Mapping[str, Curve]], across: str, upward: str, **scales: str) -> None:
    """Write a picture.

    Args:
        path: Where to.
        panels: The curves by name, by the title of their panel; a name has the same colour in all of them.
        across: The label of the horizontal axis, common to all panels.
        upward: The label of the vertical one.
        scales: ``x`` and ``y``, the scales of the axes by matplotlib's names; regrets take ``"symlog"``, linear up
            to .1.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    rows = -(-len(panels) // COLUMNS)
    names = list(dict.fromkeys(name for curves in panels.values() for name in curves))
    picture, axes = pyplot.subplots(
        rows, COLUMNS, figsize=(4.2 * COLUMNS, 3.0 * rows + 0.3 * -(-len(names) // COLUMNS)), sharex=True, squeeze=False
    )
    for axis, (title, curves) in zip(axes.flat, panels.items(), strict=False):
        for name, curve in curves.items():
            colour = f"C{names.index(name)}"
            low, middle, high = np.quantile(curve.values, [0.05, 0.5, 0.95], axis=0)
            axis.plot(curve.at, middle, curve.style, color=colour, label=name)
            axis.fill_between(curve.at, low, high, alpha=0.08, color=colour, linewidth=0)
        axis.set_title(title, fontsize=9)
        axis.set_xscale(scales.get("x", "linear"))
        if scales.get("y") == "symlog":
            axis.set_yscale("symlog", linthresh=0.1)
            axis.set_ylim(bottom=0.0)
    for axis in axes.flat[len(panels) :]:
        axis.axis("off")
    handles, labels = axes.flat[0].get_legend_handles_labels()
    picture.supxlabel(across)
    picture.supylabel(upward)
    picture.tight_layout()
    picture.legend(handles, labels, loc="upper center", bbox_to_anchor=(0.5, 0.0), ncol=COLUMNS, fontsize=9)
    picture.savefig(path, dpi=110, bbox_inches="tight")
