"""Scores of one set of fragments that is joined in several ways, each called by its threshold.

Fragments and truth are counted once; every way then renames the rows of that table.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emslice.errors import ConfigError
from emslice.metrics.contingency import count_overlaps


@dataclass(frozen=True)
class SweepRow:
    """A segmentation at a threshold, scored; one row of a sweep."""

    threshold: float
    voi_split: float
    """Bits, as `Scores`; so are the others."""

    voi_merge: float
    voi: float
    arand: float
    segments: int
    """Of the whole segmentation, whatever the box that is scored."""


@dataclass(frozen=True)
class ThresholdScores:
    """Scores of a volume at many thresholds."""

    rows: tuple[SweepRow, ...]
    """Thresholds ascend."""

    chosen: float
    """Threshold that was fixed before the truth was seen."""

    @property
    def default(self) -> SweepRow:
        """The row of the threshold that was fixed before."""
        return next(row for row in self.rows if row.threshold == self.chosen)

    @property
    def best(self) -> SweepRow:
        """The row of the least VOI; of equal ones, that of the highest threshold."""
        return best_row(self.rows)


def best_row(rows: tuple[SweepRow, ...]) -> SweepRow:
    """The row of the least VOI; of equal ones, that of the highest threshold."""
    return min(rows, key=lambda row: (row.voi, -row.threshold))


def score_cuts(
    labels: NDArray[np.integer[Any]],
    segments: Mapping[float, NDArray[np.uint64]],
    truth: NDArray[np.integer[Any]],
    default: float = 0.5,
    ignore: int = 0,
) -> ThresholdScores:
    """Scores at every threshold of which there are segments.

    Parameters
    ----------
    labels : integers, shape (Z, Y, X)
        Numbers of fragments.
    segments : threshold -> uint64, shape (N + 1,)
        Segment of each number.
    truth : integers, shape (Z, Y, X)
        Voxels with the label ``ignore`` are left out.
    default : float
        One of the thresholds.

    Raises
    ------
    ConfigError
        Shapes differ, nothing to score, or no segments at the default.
    """
    if default not in segments:
        known = ", ".join(f"{t:g}" for t in sorted(segments))
        raise ConfigError(f"threshold: {default:g} is not among those that were cut: {known}.")
    table = count_overlaps(labels, truth, ignore)
    rows = []
    for threshold in sorted(segments):
        names = segments[threshold]
        scores = table.renamed(names[table.segment]).scores()
        count = int(np.count_nonzero(np.unique(names)))
        rows.append(SweepRow(threshold, **scores.as_dict(), segments=count))
    return ThresholdScores(tuple(rows), default)
