"""Look-up table from fragments to segments."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Lut:
    """Sorted table fragment -> segment; 0 stays 0."""

    fragments: NDArray[np.uint64]
    """Shape (N,), ascending, without 0."""

    segments: NDArray[np.uint64]
    """Shape (N,). Segment of each fragment."""

    @property
    def n_segments(self) -> int:
        """Number of different segments."""
        return len(np.unique(self.segments))

    def of_dense(self) -> NDArray[np.uint64]:
        """Shape (N + 1,): segment of dense fragment numbers, which are places in the table."""
        return np.concatenate([np.zeros(1, np.uint64), self.segments])

    def apply(self, labels: NDArray[np.uint64]) -> NDArray[np.uint64]:
        """Segments of an array of fragment ids.

        Raises
        ------
        KeyError
            An id that is not in the table: labels and table are of different runs.
        """
        place = np.searchsorted(self.fragments, labels)
        clipped = np.minimum(place, max(0, len(self.fragments) - 1))
        known = (labels == 0) | (len(self.fragments) > 0)
        if len(self.fragments):
            known &= (labels == 0) | (self.fragments[clipped] == labels)
        if not known.all():
            raise KeyError(f"fragment {labels[~known].flat[0]} is not in the table")
        segments = np.zeros(labels.shape, np.uint64)
        inside = labels != 0
        segments[inside] = self.segments[place[inside]]
        return segments
