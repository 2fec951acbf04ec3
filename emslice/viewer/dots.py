"""What several runs of each variant measured, every run a dot."""

from __future__ import annotations

import io
import statistics
from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from emslice.viewer.curves import BLACK, BLUE

SPREAD = 0.25
"""Half the width that the dots of a variant take, variants being 1 apart."""


def draw_dots(measures: Mapping[str, Mapping[str, Sequence[float]]]) -> bytes:
    """PNG with a frame for each measure: dots of every variant, their mean and deviation.

    Parameters
    ----------
    measures : name -> variant -> values
        Every measure has the same variants, some perhaps without a value.
    """
    variants = list(next(iter(measures.values())))
    width = max(4.0, 1.6 + 0.7 * len(variants))
    figure = Figure(figsize=(width, 0.8 + 2.6 * len(measures)), dpi=120, layout="constrained")
    frames = figure.subplots(len(measures), 1, sharex=True, squeeze=False)[:, 0]
    for axes, (name, values) in zip(frames, measures.items(), strict=True):
        for i, variant in enumerate(variants):
            _column(axes, i, values[variant])
        axes.set_ylabel(name)
        axes.grid(axis="y", color="0.9")
        axes.set_axisbelow(True)
    frames[-1].set_xticks(range(len(variants)), variants, rotation=45, ha="right")
    frames[-1].set_xlim(-0.6, len(variants) - 0.4)
    frames[0].set_title(
        "dots: seeds; bar: mean; whiskers: standard deviation",
        loc="left", fontsize="small", color="0.3",
    )  # fmt: skip
    picture = io.BytesIO()
    figure.savefig(picture, format="png")
    return picture.getvalue()


def _column(axes: Axes, at: int, values: Sequence[float]) -> None:
    if not values:
        return
    n, mean = len(values), statistics.fmean(values)
    aside = [0.0] if n == 1 else [SPREAD * (2 * i / (n - 1) - 1) for i in range(n)]
    axes.hlines(mean, at - 0.35, at + 0.35, color=BLACK)
    if n > 1:
        axes.errorbar(at, mean, statistics.stdev(values), color=BLACK, capsize=4, linewidth=1)
    axes.plot([at + x for x in aside], list(values), "o", color=BLUE, alpha=0.8)
