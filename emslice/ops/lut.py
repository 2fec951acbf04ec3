"""Look-up table from fragments to segments."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Lut:
    """Sorted table fragment -> segment of those that change; any other id is its own segment."""

    fragments: NDArray[np.uint64]
    """Shape (N,), ascending."""

    segments: NDArray[np.uint64]
    """Shape (N,). Segment of each fragment."""

    def apply(self, labels: NDArray[np.uint64]) -> NDArray[np.uint64]:
        """Segments of an array of fragment ids, same shape; 0 stays 0."""
        if not len(self.fragments):
            return labels.copy()
        place = np.searchsorted(self.fragments, labels)
        np.minimum(place, len(self.fragments) - 1, out=place)
        return np.where(self.fragments[place] == labels, self.segments[place], labels)

    def then(self, later: Lut) -> Lut:
        """The table that applies this one, then another."""
        keys = np.union1d(self.fragments, later.fragments)
        return Lut(keys, later.apply(self.apply(keys)))

    def of(self, ids: NDArray[np.uint64]) -> Lut:
        """The table of some ids (ascending), also of those that it leaves as they are."""
        return Lut(ids, self.apply(ids))
