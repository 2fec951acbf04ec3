"""Scores of several checkpoints on several volumes, as bars side by side."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from emslice.viewer.curves import BLACK, BLUE, ORANGE, PURPLE


class Bar(NamedTuple):
    """A checkpoint on a volume."""

    volume: str
    checkpoint: str
    voi_split: float
    voi_merge: float
    arand: float
    best_voi: float
    """At the best threshold of a sweep; so is the next."""

    best_arand: float


def draw_bars(bars: Sequence[Bar]) -> bytes:
    """PNG with a group of bars for each volume: VOI above, split on merge; ARAND below."""
    groups = list(dict.fromkeys(bar.volume for bar in bars))
    ordered = sorted(bars, key=lambda bar: groups.index(bar.volume))
    at = [float(i + groups.index(bar.volume)) for i, bar in enumerate(ordered)]
    width = max(6.0, 2.5 + 0.55 * (len(bars) + len(groups)))
    figure = Figure(figsize=(width, 7), dpi=120, layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
    merge = [bar.voi_merge for bar in ordered]
    above.bar(at, merge, color=BLUE, label="merge")
    above.bar(at, [bar.voi_split for bar in ordered], bottom=merge, color=ORANGE, label="split")
    below.bar(at, [bar.arand for bar in ordered], color=PURPLE, label="ARAND")
    _mark(above, at, [bar.best_voi for bar in ordered])
    _mark(below, at, [bar.best_arand for bar in ordered])
    above.set_ylabel("VOI (bits)")
    below.set_ylabel("ARAND")
    below.set_xticks(at, [bar.checkpoint for bar in ordered], rotation=60, ha="right")
    for name in groups:
        own = [x for x, bar in zip(at, ordered, strict=True) if bar.volume == name]
        place = {"ha": "center", "va": "bottom", "transform": above.get_xaxis_transform()}
        above.text(sum(own) / len(own), 1.02, name, **place)
    picture = io.BytesIO()
    figure.savefig(picture, format="png")
    return picture.getvalue()


def _mark(axes: Axes, at: list[float], best: list[float]) -> None:
    """A dash where a bar would end at its best threshold; grid and legend."""
    axes.hlines(
        best,
        [x - 0.4 for x in at],
        [x + 0.4 for x in at],
        color=BLACK,
        label="at the best VOI\nof a sweep",
    )
    axes.set_ylim(bottom=0)
    axes.grid(axis="y", color="0.9")
    axes.set_axisbelow(True)
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False)
