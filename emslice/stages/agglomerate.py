"""Affinities to fragments, a tree of merges, segments without dust, for a box held in memory."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from emslice.geometry.boxes import Roi
from emslice.ops.agglomerate import agglomerate
from emslice.ops.contacts import contacts_of
from emslice.ops.dust import DustRule, add_up, segment_rows, settle
from emslice.ops.fragments import RADIUS, Fragments
from emslice.ops.linkage import Linkage, integer_threshold
from emslice.ops.lut import Lut
from emslice.ops.merge_tree import MergeTree, merge_tree
from emslice.ops.region_graph import RegionGraph, extract_edges
from emslice.stages.fragment_methods import INVARIANT, fragments_by

VERSION = 1
"""Raised when the same parameters would give other fragments or merges."""


@dataclass(frozen=True)
class Oversegmentation:
    """Fragments of a box and their region graph."""

    fragments: Fragments
    graph: RegionGraph


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


def grow(parts: Oversegmentation, linkage: Linkage, lowest_threshold: float) -> MergeTree:
    """Every merge down to the lowest threshold."""
    lowest = integer_threshold(lowest_threshold)
    merged = agglomerate(parts.graph, parts.fragments.ids, lowest, linkage)
    return merge_tree(merged, parts.fragments.ids, lowest)


def clear_dust(parts: Oversegmentation, segments: Lut, rule: DustRule) -> Lut:
    """Fragments to segments without small ones, from the segments of a cut."""
    ids, voxels = parts.fragments.ids, parts.fragments.voxels
    rows = segment_rows(contacts_of(parts.graph, ids), segments)
    sizes = add_up(segments.apply(ids), voxels)
    return segments.then(settle(rows, sizes, np.zeros(0, np.uint64), rule).targets)
