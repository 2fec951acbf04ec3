"""Affinities to segments, ours and the published way, with the seconds of each step.

Published (CAD and EM-SliceCrafter, ``inference.py``): in each section, seeds on the maxima of the
distance transform and a flood; then waterz, quantile 50 of 256 bins of pair maxima, to 0.5.
"""

from __future__ import annotations

import time
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from emslice.ops.agglomerate import agglomerate
from emslice.ops.block_fragments import fragments_of_sections
from emslice.ops.flood import flood_section
from emslice.ops.fragments import make_fragments
from emslice.ops.linkage import Linkage, integer_threshold
from emslice.ops.merge_tree import MergeTree, merge_tree
from emslice.ops.region_graph import extract_edges
from emslice.ops.waterz_method import merge_by_waterz

THRESHOLD, LOWEST = 0.5, 0.3


class Result(NamedTuple):
    """Segments of a pipeline, and how long its steps took."""

    labels: NDArray[np.int32]
    """Fragments."""

    segments: NDArray[np.uint64]
    seconds: dict[str, float]
    """Of each step. Looking segments up is not among them."""

    edges: int


class Watch:
    """Seconds of CPU between calls: on one core those of a clock, less what others took."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.process_time()

    def lap(self, name: str) -> None:
        """Book the time since the last lap."""
        now = time.process_time()
        self.seconds[name] = now - self._last
        self._last = now


def our_tree(codes: NDArray[np.uint8], watch: Watch) -> tuple[MergeTree, Any, int]:
    """Codes to every merge down to 0.3, on one thread."""
    fragments = make_fragments(codes)
    watch.lap("fragments")
    graph = extract_edges(codes, fragments.labels)
    watch.lap("region graph")
    lowest = integer_threshold(LOWEST)
    merged = agglomerate(graph, fragments.ids, lowest, Linkage())
    tree = merge_tree(merged, fragments.ids, lowest)
    watch.lap("agglomerate")
    return tree, fragments, len(graph)


def run_ours(codes: NDArray[np.uint8]) -> Result:
    """Rainfall fragments and exact agglomeration."""
    watch = Watch()
    tree, fragments, edges = our_tree(codes, watch)
    lut = tree.cut(THRESHOLD)
    segments = lut.apply(fragments.ids)[fragments.labels]
    return Result(fragments.labels, segments, watch.seconds, edges)


def run_published(affinity: NDArray[np.float32], codes: NDArray[np.uint8]) -> Result:
    """Flood and waterz. The flood reads the codes, waterz the same numbers as floats."""
    watch = Watch()
    fragments = fragments_of_sections(flood_section, codes)
    watch.lap("flood")
    segments = merge_by_waterz(affinity, fragments.labels, THRESHOLD, Linkage())
    watch.lap("waterz")
    return Result(fragments.labels, segments, watch.seconds, 0)


def as_floats(codes: NDArray[np.uint8]) -> NDArray[np.float32]:
    """What waterz reads."""
    return codes.astype(np.float32) / np.float32(256)
