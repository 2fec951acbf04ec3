"""Fragments of a box held in memory to a tree of merges, and segments without dust."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from emslice.ops.agglomerate import agglomerate
from emslice.ops.contacts import contacts_of
from emslice.ops.dust import DustRule, add_up, segment_rows, settle
from emslice.ops.fragments import Fragments
from emslice.ops.linkage import Linkage, integer_threshold
from emslice.ops.lut import Lut
from emslice.ops.merge_tree import MergeTree, merge_tree
from emslice.ops.region_graph import RegionGraph


@dataclass(frozen=True)
class Oversegmentation:
    """Fragments of a box and their region graph."""

    fragments: Fragments
    graph: RegionGraph


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
