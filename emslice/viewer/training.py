"""What a training looks like: curves of its metrics, sections of what it predicts.

``metrics.csv`` has a row for each number: step, split (``train`` or ``validate``), name, value.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import AutoLocator, LogLocator, NullLocator, StrMethodFormatter
from numpy.typing import NDArray

from emslice.errors import VolumeError
from emslice.training.metrics import COLUMNS, whole_rows
from emslice.viewer.curves import BLACK, BLUE, ORANGE, PURPLE, ROOM
from emslice.viewer.panels import affinity_colours, grey, label_colours, save_panels

COLOURS = (BLACK, BLUE, ORANGE, PURPLE, "#009e73", "#56b4e9", "#e69f00")

SCORES = {"voi_split": ORANGE, "voi_merge": BLUE, "voi": BLACK, "arand": PURPLE}
"""Colour of each score; a name may have something in front, such as ``best_voi``."""

UNDRAWN = ("_s", "_bytes", "threshold", "segments", "wait_share")
"""Ends of names that are neither loss nor score."""

RATE = "learning_rate"

CHOSEN = "chosen"
"""The VOI that chooses the best step: that at one of the two thresholds."""

SMOOTH = 40
"""Points of a smoothed curve: each is the mean over this part of all steps."""

TWO_KINDS = "solid: best threshold\ndotted: default threshold"

Points = tuple[NDArray[np.float64], NDArray[np.float64]]
"""Steps, ascending, and values."""


def read_curves(path: str | Path) -> dict[tuple[str, str], Points]:
    """Every curve of a table of metrics, by split and name, without what is not finite.

    A step that is there twice, as after a resume, has its last value. A last line that is still
    being written is left out.

    Raises
    ------
    VolumeError
        No such table, or a line that is none of it.
    """
    curves: dict[tuple[str, str], dict[int, float]] = {}
    try:
        reader = whole_rows(Path(path))
        if tuple(reader.fieldnames or ()) != COLUMNS:
            raise ValueError(f"its columns are {reader.fieldnames}, expected {list(COLUMNS)}")
        for row in reader:
            curve = curves.setdefault((row["split"], row["name"]), {})
            try:
                curve[int(row["step"])] = float(row["value"])
            except (ValueError, TypeError) as error:
                raise ValueError(f"line {reader.line_num}: {error}") from error
    except (OSError, ValueError) as error:
        raise VolumeError(f"{path}: is no table of metrics: {error}.") from error
    return {key: _points(curve) for key, curve in curves.items()}


def _points(curve: Mapping[int, float]) -> Points:
    kept = sorted((step, value) for step, value in curve.items() if math.isfinite(value))
    at, values = np.array(kept, np.float64).reshape(-1, 2).T
    return at, values


def draw_training_curves(csv_path: str | Path, png_path: str | Path) -> None:
    """Write `training_figure` as a PNG."""
    training_figure(csv_path).savefig(png_path, format="png")


def training_figure(csv_path: str | Path) -> Figure:
    """Losses, validation VOI and learning rate by step, those that there are.

    Losses of training are smoothed, on a logarithmic axis; what they were is drawn faintly. Scores
    at the best threshold are solid, those at the default one dotted.

    Raises
    ------
    VolumeError
        As `read_curves`, or a table without a number.
    """
    curves = {
        (split, name): points
        for (split, name), points in read_curves(csv_path).items()
        if len(points[0]) and not name.endswith(UNDRAWN)
    }
    if not curves:
        raise VolumeError(f"{csv_path}: holds no number yet; draw it after the first steps.")
    scores = {key: p for key, p in curves.items() if score_of(key[1]) or key[1] == CHOSEN}
    rates = {key: p for key, p in curves.items() if key[1] == RATE}
    losses = {key: p for key, p in curves.items() if key not in scores and key not in rates}
    drawn = [
        (draw, part)
        for draw, part in ((_losses, losses), (_scores, scores), (_rates, rates))
        if part
    ]
    heights = [1 if part is rates else 2 for _, part in drawn]
    figure = Figure(figsize=(9, 0.8 + 1.7 * sum(heights)), dpi=120, layout="constrained")
    frames = figure.subplots(len(drawn), 1, sharex=True, height_ratios=heights, squeeze=False)
    for axes, (draw, part) in zip(frames[:, 0], drawn, strict=True):
        draw(axes, part)
        axes.grid(color="0.9")
        axes.set_axisbelow(True)
        names = {name for _, name in part}
        axes.legend(
            loc="upper left",
            bbox_to_anchor=(1, 1),
            frameon=False,
            title=TWO_KINDS if any(f"default_{name}" in names for name in SCORES) else None,
            title_fontsize="small",
        )
    frames[-1, 0].set_xlabel("step")
    return figure


def _losses(axes: Axes, curves: Mapping[tuple[str, str], Points]) -> None:
    names = list(dict.fromkeys(name for _, name in curves))
    for (split, name), (at, values) in curves.items():
        colour = COLOURS[names.index(name) % len(COLOURS)]
        if split == "train":
            axes.plot(at, values, color=colour, alpha=0.2, linewidth=0.8)
            axes.plot(*smoothed(at, values), color=colour, label=name)
        else:
            axes.plot(
                at, values, color=colour, linestyle="--", marker=".", label=f"{name}, {split}"
            )
    if all((values > 0).all() for _, values in curves.values()):
        axes.set_yscale("log")
        _label_logarithms(axes)
    axes.set_ylabel("loss")


def _label_logarithms(axes: Axes) -> None:
    """Plain numbers along y, some of them in any range: alone, powers of ten may be none."""
    low, high = axes.get_ylim()
    if high < 10 * low:
        axes.yaxis.set_major_locator(AutoLocator())
        axes.yaxis.set_minor_locator(NullLocator())
    elif high < 1000 * low:
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))


def smoothed(at: NDArray[np.float64], values: NDArray[np.float64]) -> Points:
    """Means over equal parts of a curve, each at its middle; few points stay as they are."""
    if len(at) <= SMOOTH:
        return at, values
    parts = [np.array_split(line, SMOOTH) for line in (at, values)]
    middle, mean = (np.array([part.mean() for part in line]) for line in parts)
    return middle, mean


def score_of(name: str) -> str | None:
    """Which of the scores a name speaks of.

    >>> score_of("best_voi"), score_of("voi_split"), score_of("loss")
    ('voi', 'voi_split', None)
    """
    return next((score for score in SCORES if f"_{name}".endswith(f"_{score}")), None)


def _scores(axes: Axes, curves: Mapping[tuple[str, str], Points]) -> None:
    for (split, name), (at, values) in curves.items():
        score = score_of(name)
        if score is not None:
            solid = split == "validate" and name in (score, f"best_{score}")
            axes.plot(
                at,
                values,
                "-" if solid else ":",
                color=SCORES[score],
                marker="o",
                markersize=4,
                markerfacecolor=SCORES[score] if solid else "white",
                label=name if split == "validate" else f"{name}, {split}",
            )
    for name in (CHOSEN, "voi"):
        if ("validate", name) in curves:
            at, values = curves["validate", name]
            best = int(values.argmin())
            note = f"chosen, {values[best]:.3f} at {at[best]:.0f}"
            axes.plot(at[best], values[best], "o", color="#009e73", zorder=3, label=note)
            break
    top = max(float(values.max()) for _, values in curves.values())
    sums = [values for (_, name), (_, values) in curves.items() if score_of(name) == "voi"]
    if sums:  # the first steps merge everything: off any scale
        least = min(float(values.min()) for values in sums)
        top = min(top, ROOM * least) if least > 0 else top
    axes.set_ylim(0, 1.05 * top or 1)
    axes.set_ylabel("VOI (bits), ARAND")


def _rates(axes: Axes, curves: Mapping[tuple[str, str], Points]) -> None:
    for at, values in curves.values():
        axes.plot(at, values, color=BLACK, label="learning rate")
    axes.set_ylim(bottom=0)
    axes.ticklabel_format(axis="y", style="sci", scilimits=(-2, 2))
    axes.set_ylabel("learning rate")


def affinity_panels(
    raw: NDArray[np.uint8],
    codes: NDArray[np.uint8],
    truth: NDArray[np.integer],
    png_path: str | Path,
    previous: NDArray[np.integer] | None = None,
) -> None:
    """Write a PNG of a section: raw, its affinities, those of the truth, the truth.

    Parameters
    ----------
    raw : uint8, shape (Y, X)
    codes : uint8, shape (3, Y, X)
        Predicted, channels z, y, x.
    truth : integers, shape (Y, X)
        0 is no object.
    previous : integers, shape (Y, X), optional
        Truth of the section before; without it nothing of the truth's affinity is along z.
    """
    labels = truth.astype(np.uint64)
    panels = [
        ("raw", grey(raw)),
        ("affinity (z, y, x = red, green, blue)", affinity_colours(codes)),
        ("affinity of the truth", affinity_colours(true_affinity(labels, previous))),
        ("truth", label_colours(labels, raw)),
    ]
    save_panels(png_path, panels)


def true_affinity(
    truth: NDArray[np.uint64], previous: NDArray[np.integer] | None = None
) -> NDArray[np.uint8]:
    """Affinity codes of true labels, 255 in one object and 0 elsewhere, shape (3, Y, X).

    The first row and column are compared with themselves. Without the section before, the first
    channel is the smaller of the others: grey in a picture.
    """
    above = np.concatenate([truth[:1], truth[:-1]])
    left = np.concatenate([truth[:, :1], truth[:, :-1]], axis=1)
    along_y, along_x = truth == above, truth == left
    along_z = along_y & along_x if previous is None else truth == previous
    same = np.stack([along_z, along_y, along_x]) & (truth != 0)
    return np.where(same, np.uint8(255), np.uint8(0))
