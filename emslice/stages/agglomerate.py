"""Affinities to fragments by any method, a tree of merges, segments without dust, in memory."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from emslice.geometry.boxes import Roi
from emslice.ops.fragments import RADIUS
from emslice.ops.oversegmentation import Oversegmentation, clear_dust, grow
from emslice.ops.region_graph import extract_edges
from emslice.stages.fragment_methods import INVARIANT, fragments_by

__all__ = ["VERSION", "Oversegmentation", "clear_dust", "grow", "oversegment"]

VERSION = 1
"""Raised when the same parameters would give other fragments or merges."""


def oversegment(
    affinity: NDArray[np.uint8],
    roi: Roi | None = None,
    domain: Roi | None = None,
    radius: int = RADIUS,
    workers: int = 1,
    dimensions: int = 2,
    histograms: bool = False,
    method: str = INVARIANT,
) -> Oversegmentation:
    """Fragments of a box, whose faces count as the volume's, and which of them touch.

    Parameters
    ----------
    affinity : uint8, shape (3, Z, Y, X)
    histograms : bool
        Whether the linkage needs them.
    """
    fragments = fragments_by(method, affinity, roi, domain, radius, workers, dimensions=dimensions)
    graph = extract_edges(affinity, fragments.labels, workers, histograms)
    return Oversegmentation(fragments, graph)
