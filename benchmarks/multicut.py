"""The published multicut baseline ("LMC" of CAD, EM-SliceCrafter and SSNS), by bioimage-cpp.

Parameters of ``utils/lmc.py``: boundary max(1 - A_y, 1 - A_x); in each section a watershed from the
maxima of the smoothed distance transform (threshold 0.25, sigma 2, alpha 0.9, 100 pixels at least);
costs log((1 - p) / p) of the mean boundary p of a pair, times its contacts over the largest number
of contacts; Kernighan-Lin from a greedy start, over the whole volume at once. No lifted edges.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

import emslice
from emslice.ops.block_fragments import fragments_of_sections
from emslice.ops.region_graph import RegionGraph, extract_edges

BOUNDARY, SIGMA, ALPHA, MIN_SIZE = 0.25, 2.0, 0.9, 100


def measure(
    codes: NDArray[np.uint8], truth: NDArray[Any], others: dict[str, NDArray[np.int32]]
) -> list[dict[str, Any]] | str:
    """Scores of the multicut of its own fragments and of others; a reason if there is none."""
    try:
        import bioimage_cpp  # noqa: F401
    except ImportError as error:
        return f"left out: {error}"
    start = time.perf_counter()
    own = fragments_of_sections(lmc_section, codes).labels
    made = time.perf_counter() - start
    rows = []
    for name, labels in {"its own": own, **others}.items():
        start = time.perf_counter()
        graph = extract_edges(codes, labels)
        segments = cut_graph(graph, int(labels.max()) + 1)[labels]
        seconds = time.perf_counter() - start
        scores = emslice.evaluate(segments, truth)
        rows.append(
            {
                "fragments": name,
                "n_fragments": int(labels.max()),
                "segments": len(np.unique(segments)),
                "seconds": seconds,
                "fragment_seconds": made if name == "its own" else None,
                **scores.as_dict(),
            }
        )
    return rows


def lmc_section(codes: NDArray[np.uint8]) -> NDArray[np.int32]:
    """Fragments of a section, as elf's ``distance_transform_watershed`` makes them."""
    from skimage.morphology import local_maxima
    from skimage.segmentation import watershed

    boundary = 1 - np.minimum(codes[1], codes[2]).astype(np.float32) / 256
    inside = boundary <= BOUNDARY
    distance = ndimage.distance_transform_edt(inside).astype(np.float32)
    smooth = ndimage.gaussian_filter(distance, SIGMA)
    seeds, _ = ndimage.label(local_maxima(smooth), np.ones((3, 3)))
    height = ALPHA * ndimage.gaussian_filter(boundary, SIGMA)
    height += (1 - ALPHA) * (1 - distance / max(1.0, float(distance.max())))
    labels = watershed(height, seeds)
    small = np.bincount(labels.ravel()) < MIN_SIZE
    small[0] = False
    if small.any() and not small[1:].all():
        labels = watershed(height, np.where(small[labels], 0, labels))
    made: NDArray[np.int32] = labels
    return made


def cut_graph(graph: RegionGraph, n_nodes: int) -> NDArray[np.uint64]:
    """Segment of each fragment; costs above 0 hold a pair together."""
    from bioimage_cpp.graph import UndirectedGraph
    from bioimage_cpp.graph.multicut import (
        GreedyAdditiveMulticut,
        KernighanLinMulticut,
        MulticutObjective,
    )

    boundary = 0.998 * (1 - graph.total / (256 * graph.contacts)) + 0.001
    costs = np.log((1 - boundary) / boundary) * graph.contacts / graph.contacts.max()
    edges = UndirectedGraph.from_edges(n_nodes, graph.edges.astype(np.uint64))
    objective = MulticutObjective(edges, costs)
    objective.set_labels(GreedyAdditiveMulticut().optimize(objective))
    segments = np.asarray(KernighanLinMulticut().optimize(objective), np.uint64) + 1
    segments[0] = 0  # the background is no fragment
    return segments
