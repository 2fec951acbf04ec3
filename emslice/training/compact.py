"""Ids of any size to small ones: equal stays equal, different stays different, 0 is background."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


class Compactor:
    """Numbers ids 1, 2, 3 ... as they come, the same over all arrays it is called with."""

    def __init__(self) -> None:
        self._ids: NDArray[Any] = np.empty(0, np.uint64)
        self._codes: NDArray[np.int32] = np.empty(0, np.int32)

    def __call__(self, labels: NDArray[Any]) -> NDArray[np.int32]:
        """Codes of the labels, int32, same shape; ids of 0 or less become 0."""
        flat = labels.ravel()
        # Objects are long along x: looking at where they begin is much less than sorting voxels.
        starts = np.flatnonzero(np.concatenate([[True], flat[1:] != flat[:-1]]))
        ids, which = np.unique(flat[starts], return_inverse=True)
        codes = self._number(ids.astype(np.uint64), ids > 0)[which]
        lengths = np.diff(starts, append=flat.size)
        return np.repeat(codes, lengths).reshape(labels.shape)

    def _number(self, ids: NDArray[np.uint64], positive: NDArray[np.bool_]) -> NDArray[np.int32]:
        """Codes of sorted, different ids."""
        new = np.setdiff1d(ids[positive], self._ids, assume_unique=True)
        first = len(self._ids) + 1
        joined = np.concatenate([self._ids, new])
        codes = np.concatenate([self._codes, np.arange(first, first + len(new), dtype=np.int32)])
        order = np.argsort(joined)
        self._ids, self._codes = joined[order], codes[order]
        numbered = np.zeros(len(ids), np.int32)
        numbered[positive] = self._codes[np.searchsorted(self._ids, ids[positive])]
        return numbered


def compact(labels: NDArray[Any]) -> NDArray[np.int32]:
    """Labels of one array as 1, 2, 3 ..., background as 0.

    >>> compact(np.array([[[7, 7, 0, 2**40, -1, 7]]])).tolist()
    [[[1, 1, 0, 2, 0, 1]]]
    """
    return Compactor()(labels)
