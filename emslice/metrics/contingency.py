"""Overlaps of two labellings, and the scores that follow from them.

The table is sparse and adds up: tables of pieces give the table of the whole, so a volume of any
size is scored in one pass. Voxels whose truth is 0 are not counted, or another label that is chosen
to be ignored; a segmentation's 0 is a label like any other (scikit-image with
``ignore_labels=(0,)``, the convention of CAD).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from emslice.errors import ConfigError


@dataclass(frozen=True)
class Scores:
    """Errors of a segmentation; 0 is perfect."""

    voi_split: float
    """Bits. H(segmentation | truth): neurons cut in pieces."""

    voi_merge: float
    """Bits. H(truth | segmentation): neurons grown together."""

    voi: float
    """Bits. Their sum, the variation of information (Meila 2003)."""

    arand: float
    """1 - F score of the Rand index on pairs of voxels (Arganda-Carreras et al. 2015)."""

    def as_dict(self) -> dict[str, float]:
        """Plain numbers for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Contingency:
    """Voxels of every pair of labels that occurs, sorted by pair, none twice."""

    segment: NDArray[np.uint64]
    """Shape (P,)."""

    truth: NDArray[np.uint64]
    """Shape (P,). Never the ignored label."""

    count: NDArray[np.int64]
    """Shape (P,). Voxels."""

    @classmethod
    def joined(cls, tables: Sequence[Contingency]) -> Contingency:
        """The table of the whole from those of its pieces, at least one."""
        return _table(
            np.concatenate([table.segment for table in tables]),
            np.concatenate([table.truth for table in tables]),
            np.concatenate([table.count for table in tables]),
        )

    def __add__(self, other: Contingency) -> Contingency:
        return Contingency.joined([self, other])

    def scores(self) -> Scores:
        """Variation of information and adapted Rand error.

        Raises
        ------
        ConfigError
            No voxel with a true label.
        """
        return score_counts(
            self.count, _sums(self.segment, self.count), _sums(self.truth, self.count)
        )

    def renamed(self, segment: NDArray[np.uint64]) -> Contingency:
        """The table with another name for the segment of each row; equal names add up."""
        return _table(segment, self.truth, self.count)


def score_counts(
    joint: NDArray[np.int64], per_segment: NDArray[np.int64], per_truth: NDArray[np.int64]
) -> Scores:
    """Scores from voxels of every pair, of every segment and of every true label.

    Raises
    ------
    ConfigError
        No voxel with a true label.
    """
    n = int(joint.sum())
    if n == 0:
        raise ConfigError("the truth holds ignored labels only in this box: nothing to score.")
    both = _entropy(joint, n)
    split, merge = both - _entropy(per_truth, n), both - _entropy(per_segment, n)
    together = _pairs(joint)
    either = _pairs(per_segment) + _pairs(per_truth)
    arand = 1 - 2 * together / either if either else 0.0
    # Entropies of equal tables may differ by rounding.
    split, merge = max(0.0, split), max(0.0, merge)
    return Scores(split, merge, split + merge, float(arand))


def count_overlaps(
    segmentation: NDArray[np.integer[Any]], truth: NDArray[np.integer[Any]], ignore: int = 0
) -> Contingency:
    """Contingency table of two arrays of the same shape, without voxels of one true label.

    Raises
    ------
    ConfigError
        Shapes differ, or labels are not whole numbers from 0 on.

    Notes
    -----
    Sections are counted one by one, equal pairs in a row as one run. Peak memory: 24 bytes a voxel
    of a section, and about 24 bytes a run of the whole.
    """
    if segmentation.shape != truth.shape:
        raise ConfigError(f"shapes differ: segmentation {segmentation.shape}, truth {truth.shape}.")
    parts = []
    for mine, theirs in zip(np.atleast_1d(segmentation), np.atleast_1d(truth), strict=True):
        flat, true = _labels(mine, "segmentation"), _labels(theirs, "truth")
        start = _run_starts(flat, true)
        length = np.diff(start, append=flat.size)
        kept = true[start] != np.uint64(ignore)
        parts.append((flat[start][kept], true[start][kept], length[kept]))
    if not parts:
        nothing = np.zeros(0, np.uint64)
        return Contingency(nothing, nothing, np.zeros(0, np.int64))
    return _table(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


def _labels(section: NDArray[Any], name: str) -> NDArray[np.uint64]:
    """Flat uint64; never a cast that makes other labels."""
    if section.dtype.kind not in "bui":
        raise ConfigError(f"{name}: holds {section.dtype}; labels are integers (or booleans).")
    if section.dtype.kind == "i" and section.size and (least := int(section.min())) < 0:
        raise ConfigError(f"{name}: holds the label {least}; labels are 0 or more.")
    return np.ravel(section).astype(np.uint64, copy=False)


@njit(nogil=True, cache=True)
def _run_starts(segment, truth):  # type: ignore[no-untyped-def]
    """Places where either label changes."""
    n = 0
    starts = np.empty(segment.size, np.int64)
    for i in range(segment.size):
        if i == 0 or segment[i] != segment[i - 1] or truth[i] != truth[i - 1]:
            starts[n] = i
            n += 1
    return starts[:n].copy()


def _table(
    segment: NDArray[np.uint64], truth: NDArray[np.uint64], count: NDArray[np.int64]
) -> Contingency:
    return Contingency(*sum_rows(segment, truth, count))


def sum_rows(
    segment: NDArray[Any], truth: NDArray[np.uint64], count: NDArray[np.int64]
) -> tuple[NDArray[Any], NDArray[np.uint64], NDArray[np.int64]]:
    """Rows sorted by (segment, truth), counts of equal pairs added up."""
    if not len(segment):
        return segment, truth, count
    order = np.lexsort((truth, segment))
    segment, truth = segment[order], truth[order]
    changes = np.r_[True, (np.diff(segment) != 0) | (np.diff(truth) != 0)]
    first = np.flatnonzero(changes)
    return segment[first], truth[first], np.add.reduceat(count[order], first)


def _sums(labels: NDArray[np.uint64], count: NDArray[np.int64]) -> NDArray[np.int64]:
    """Voxels of every label, exact integers."""
    if not len(labels):
        return count
    order = np.argsort(labels, kind="stable")
    first = np.flatnonzero(np.r_[True, np.diff(labels[order]) != 0])
    return np.add.reduceat(count[order], first)


def _entropy(count: NDArray[np.int64], n: int) -> float:
    p = count / n
    return float(-(p * np.log2(p)).sum())


def _pairs(count: NDArray[np.int64]) -> int:
    """Ordered pairs of different voxels with equal labels; Python integers do not overflow."""
    n = int(count.sum())
    if n < 2**31:  # the sum of squares is not above n squared
        return int((count * count).sum()) - n
    square = count.astype(object) ** 2 if count.max(initial=0) >= 2**31 else count**2
    return int(sum(square.tolist())) - n
