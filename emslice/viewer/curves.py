"""Scores against the threshold, as a picture."""

from __future__ import annotations

import io
from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

ORANGE, BLUE, BLACK, PURPLE = "#d55e00", "#0072b2", "#000000", "#cc79a7"
"""Colours that colour-blind eyes tell apart (Okabe and Ito 2008)."""

LINES = (("#009e73", "-"), ("0.3", "--"), ("0.3", ":"))
"""Colour and style at marked thresholds, in their order."""

ROOM = 3
"""Height of a frame in units of its lowest value: at 1 every fragment is alone, off any scale."""


def draw_scores(
    columns: Mapping[str, NDArray[np.float64]], marks: Mapping[str, float], title: str
) -> bytes:
    """PNG with VOI above, ARAND below, and a vertical line at each marked threshold.

    Parameters
    ----------
    columns : arrays of one length
        ``threshold`` (ascending), ``voi_split``, ``voi_merge``, ``voi`` (bits), ``arand``.
    marks : label -> threshold, at most three
    """
    figure = Figure(figsize=(9, 7), dpi=120, layout="constrained")  # no pyplot: no global state
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
    figure.suptitle(title)
    at = columns["threshold"]
    above.plot(at, columns["voi"], color=BLACK, marker=".", label="VOI, their sum")
    above.plot(at, columns["voi_split"], color=ORANGE, marker=".", label="split")
    above.plot(at, columns["voi_merge"], color=BLUE, marker=".", label="merge")
    below.plot(at, columns["arand"], color=PURPLE, marker=".", label="ARAND")
    _frame(above, columns["voi"], marks)
    _frame(below, columns["arand"], marks)
    above.set_ylabel("VOI (bits)")
    below.set_ylabel("ARAND")
    below.set_xlabel("agglomeration threshold")
    picture = io.BytesIO()
    figure.savefig(picture, format="png")
    return picture.getvalue()


def _frame(axes: Axes, highest: NDArray[np.float64], marks: Mapping[str, float]) -> None:
    """Grid, legend, marks, and a height at which the lowest part of the curves can be read."""
    top, least = float(highest.max()), float(highest.min())
    height = min(1.05 * top, ROOM * least) if least > 0 else 1.05 * top
    axes.set_ylim(0, height or 1)
    if top > height > 0:
        note = f"curves that leave the frame reach {top:.3g}"
        axes.set_title(note, loc="right", fontsize="small", color="0.3")
    axes.grid(color="0.9")
    axes.set_axisbelow(True)
    for (colour, style), (label, threshold) in zip(LINES, marks.items(), strict=False):
        axes.axvline(threshold, color=colour, linestyle=style, label=label, zorder=1.5)
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False)
