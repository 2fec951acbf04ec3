"""Scores of a segmentation whose segments are merged step by step.

One contingency table is made of the finest segmentation; each step joins the rows of the segments
that merge in it. Rows of other segments are neither sorted nor summed again.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from emslice.metrics.contingency import Contingency, Scores, score_counts, sum_rows


class MergingSegments:
    """A contingency table that follows merges.

    Parameters
    ----------
    table : Contingency
        Of the segments before any merge.
    names : uint64, shape (N,)
        Of every segment that a merge will speak of; not all need to be in the table.

    Notes
    -----
    A step sorts the rows of the segments that it merges and copies the others; scores take one
    logarithm a row that is left. Memory: about 100 bytes a row and 20 bytes a name.
    """

    def __init__(self, table: Contingency, names: NDArray[np.uint64]) -> None:
        self._names = np.union1d(names, table.segment)
        self._segment = np.searchsorted(self._names, table.segment)
        self._truth, self._count = table.truth, table.count
        self._into = np.arange(len(self._names))
        self._size = np.zeros(len(self._names), np.int64)
        np.add.at(self._size, self._segment, self._count)
        labels, place = np.unique(table.truth, return_inverse=True)
        self._per_truth = np.zeros(len(labels), np.int64)
        np.add.at(self._per_truth, place, table.count)

    def merge(self, child: NDArray[np.uint64], parent: NDArray[np.uint64]) -> None:
        """Let segments join others, by name; those may themselves be among the children."""
        gone, into = np.searchsorted(self._names, child), self._into
        into[gone] = np.searchsorted(self._names, parent)
        while True:  # pointer doubling: as many rounds as the logarithm of the longest chain
            end = into[into[gone]]
            if np.array_equal(end, into[gone]):
                break
            into[gone] = end
        np.add.at(self._size, end, self._size[gone])
        self._size[gone] = 0
        changed = np.zeros(len(self._names), np.bool_)
        changed[gone] = changed[end] = True
        self._join_rows(changed)

    def _join_rows(self, changed: NDArray[np.bool_]) -> None:
        moved = changed[self._segment]
        joined = sum_rows(self._into[self._segment[moved]], self._truth[moved], self._count[moved])
        kept = ~moved
        self._segment = np.concatenate([self._segment[kept], joined[0]])
        self._truth = np.concatenate([self._truth[kept], joined[1]])
        self._count = np.concatenate([self._count[kept], joined[2]])

    def scores(self) -> Scores:
        """Scores as the segments stand.

        Raises
        ------
        ConfigError
            No voxel with a true label.
        """
        return score_counts(self._count, self._size[self._size > 0], self._per_truth)
