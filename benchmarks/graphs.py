"""Agglomeration alone: time per edge from small graphs to large, and on odd volumes.

Large graphs are those of the real volume, mirrored in its last section again and again: every
section of a copy has its real neighbours, and neurons run through all copies.
"""

from __future__ import annotations

import time
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.pipelines import LOWEST, Watch, our_tree
from emslice.ops.agglomerate import agglomerate
from emslice.ops.fragments import make_fragments
from emslice.ops.linkage import Linkage, integer_threshold
from emslice.ops.region_graph import RegionGraph, extract_edges


def growth(codes: NDArray[np.uint8], edges: list[int]) -> list[dict[str, float]]:
    """Time per edge of graphs of about the given numbers of edges."""
    fragments = make_fragments(codes)
    graph = extract_edges(codes, fragments.labels)
    firsts = np.array([section[section > 0].min() for section in fragments.labels])
    rows = []
    for wanted in edges:
        if wanted < len(graph):
            large, n = _few_sections(graph, firsts, wanted)
        else:
            large, n = mirrored(graph, firsts, fragments.n_roots, round(wanted / len(graph)))
        seconds = median(_seconds(large, n) for _ in range(3 if wanted < 3_000_000 else 1))
        rows.append(
            {"edges": len(large), "fragments": n, "ns_per_edge": 1e9 * seconds / len(large)}
        )
    return rows


def _few_sections(graph: RegionGraph, firsts: NDArray[Any], wanted: int) -> tuple[RegionGraph, int]:
    """The first sections of a graph, up to about as many edges as wanted."""
    largest = np.sort(graph.edges[:, 1])
    before = np.searchsorted(largest, firsts)  # edges that end before each section
    first = firsts[min(int(np.searchsorted(before, wanted)), len(firsts) - 1)]
    return _taken(graph, graph.edges[:, 1] < first), int(first) - 1


def mirrored(
    graph: RegionGraph, firsts: NDArray[Any], n_nodes: int, copies: int
) -> tuple[RegionGraph, int]:
    """(Graph of a volume mirrored in its end sections, its number of nodes).

    Parameters
    ----------
    firsts : (Z,)
        Smallest number of a fragment of each section; numbers ascend with the sections.
    """
    depth = len(firsts)
    sizes = np.diff(np.append(firsts, n_nodes + 1))
    order = [np.arange(depth)]
    for copy in range(1, copies):
        order.append(np.arange(depth - 2, -1, -1) if copy % 2 else np.arange(1, depth))
    starts = np.cumsum([1, *sizes[np.concatenate(order)]])
    section = np.searchsorted(firsts, graph.edges, side="right") - 1
    within = graph.edges - firsts[section]
    parts = []
    for copy in range(copies):
        shared = depth - 1 if copy % 2 else 0
        keep = np.full(len(graph), True) if copy == 0 else ~(section == shared).all(axis=1)
        turned = depth - 1 - section if copy % 2 else section
        edges = starts[copy * (depth - 1) + turned[keep]] + within[keep]
        part = _taken(graph, keep)
        edges = np.sort(edges, axis=1).astype(np.int32)
        parts.append(RegionGraph(edges, part.contacts, part.total, part.highest))
    return _joined(parts), int(starts[-1]) - 1


def _joined(parts: list[RegionGraph]) -> RegionGraph:
    """Rows of all parts, sorted by pair; no pair is in two."""
    edges = np.concatenate([part.edges for part in parts])
    order = np.argsort((edges[:, 0].astype(np.int64) << 32) | edges[:, 1])
    columns = ("contacts", "total", "highest")
    return RegionGraph(
        edges[order],
        *(np.concatenate([getattr(part, name) for part in parts])[order] for name in columns),
    )


def _taken(graph: RegionGraph, keep: NDArray[np.bool_]) -> RegionGraph:
    return RegionGraph(
        graph.edges[keep], graph.contacts[keep], graph.total[keep], graph.highest[keep]
    )


def _seconds(graph: RegionGraph, n_nodes: int) -> float:
    ids = np.arange(n_nodes + 1, dtype=np.uint64)
    start = time.process_time()
    agglomerate(graph, ids, integer_threshold(LOWEST), Linkage())
    return time.process_time() - start


def odd_volumes(codes: NDArray[np.uint8]) -> list[dict[str, Any]]:
    """Time of degenerate affinities of the real volume's shape, against the real ones."""
    rng = np.random.default_rng(0)
    some = codes[:, : max(2, codes.shape[1] // 4)]
    volumes = {
        "real": some,
        "all 0": np.zeros_like(some),
        "all 1": np.ones_like(some),
        "all 255": np.full_like(some, 255),
        "random": rng.integers(0, 256, some.shape).astype(np.uint8),
    }
    rows = []
    for name, volume in volumes.items():
        watch = Watch()
        tree, fragments, edges = our_tree(volume, watch)
        grown = watch.seconds["agglomerate"]
        rows.append(
            {
                "volume": name,
                "fragments": fragments.n_roots,
                "edges": edges,
                "merges": len(tree.child),
                "mvox_per_s": some[0].size / sum(watch.seconds.values()) / 1e6,
                "ns_per_edge": 1e9 * grown / edges if edges else None,
            }
        )
    normal = rows[0]["ns_per_edge"]
    for row in rows:
        row["by_real"] = row["ns_per_edge"] / normal if row["ns_per_edge"] else None
    return rows
