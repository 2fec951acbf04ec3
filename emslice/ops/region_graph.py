"""Which fragments touch, and with what affinity: one row per pair, made of exact integers.

A row holds the number of contacts, the sum and the maximum of their codes, and where a linkage
needs it their histogram, so that rows of one pair seen in two places `combine` exactly: numbers,
sums and histograms add, maxima take the maximum. What a row is worth, and how rows of *two* pairs
that became one by a merge join, is the linkage's affair (``ops/linkage.py``).
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emslice.ops.contact_runs import add_up_contacts, collect_codes, count_runs, sort_rows
from emslice.ops.histograms import Histograms, add_histograms, histograms_of


@dataclass(frozen=True)
class RegionGraph:
    """Pairs of touching fragments and their contacts; E rows, sorted by pair, none twice."""

    edges: NDArray[np.int32]
    """Shape (E, 2), u < v, dense fragment numbers (1 is the first)."""

    contacts: NDArray[np.int64]
    """Shape (E,). Pairs of voxels, one offset apart, in u and v."""

    total: NDArray[np.int64]
    """Shape (E,). Sum of the codes of the contacts."""

    highest: NDArray[np.uint8]
    """Shape (E,). Largest code of the contacts."""

    histograms: Histograms = field(default_factory=Histograms)
    """Of the codes of each pair; of no rows if nobody needs them."""

    def __len__(self) -> int:
        return len(self.edges)


def extract_edges(
    affinity: NDArray[np.uint8],
    labels: NDArray[np.int32],
    workers: int = 1,
    histograms: bool = False,
) -> RegionGraph:
    """Region graph of a box: every contact inside it, counted once.

    Parameters
    ----------
    affinity : uint8, shape (3, Z, Y, X)
        Code k of voxel p is that of the contact of p with its lower neighbour along axis k.
    labels : int32, shape (Z, Y, X)
        Dense fragment numbers; 0 has no contacts.
    workers : int
        Threads, each on a run of sections.
    histograms : bool
        Also count the codes of each pair; a second pass, and a byte for each contact on the way.
    """
    depth = labels.shape[0]
    cuts = np.linspace(0, depth, min(workers, depth) + 1).astype(int)

    def slab(cut: tuple[int, int]) -> RegionGraph:
        graph = RegionGraph(*sort_rows(add_up_contacts(affinity, labels, *cut)))
        return _with_histograms(graph, affinity, labels, *cut) if histograms else graph

    with ThreadPoolExecutor(workers) as pool:
        return combine(list(pool.map(slab, pairwise(cuts.tolist()))))


def combine(graphs: list[RegionGraph]) -> RegionGraph:
    """One graph from rows of the same fragments seen in several places.

    Numbers, sums and histograms add, maxima take the maximum: associative and commutative, so it
    does not matter where a contact was counted.
    """
    edges = np.concatenate([g.edges for g in graphs])
    if len(graphs) == 1 or len(edges) == 0:
        return graphs[0]
    key = (edges[:, 0].astype(np.int64) << 32) | edges[:, 1]
    order = np.argsort(key, kind="stable")
    is_first = np.diff(key[order], prepend=-1) != 0
    first = np.flatnonzero(is_first)
    into = np.empty(len(edges), np.int64)
    into[order] = np.cumsum(is_first) - 1

    def reduced(operation: np.ufunc, name: str) -> NDArray[Any]:
        column = np.concatenate([getattr(g, name) for g in graphs])
        return operation.reduceat(column[order], first)

    return RegionGraph(
        edges[order[first]],
        reduced(np.add, "contacts"),
        reduced(np.add, "total"),
        reduced(np.maximum, "highest"),
        add_histograms([g.histograms for g in graphs], into, len(first)),
    )


def _with_histograms(
    graph: RegionGraph,
    affinity: NDArray[np.uint8],
    labels: NDArray[np.int32],
    begin: int,
    end: int,
) -> RegionGraph:
    """The graph of some sections with histograms."""
    start = np.r_[0, np.cumsum(graph.contacts)]
    codes = np.empty(start[-1], np.uint8)
    u, v = graph.edges.astype(np.int64).T
    places = np.stack([u << 32 | v, start[:-1]], axis=1)
    collect_codes(affinity, labels, begin, end, places, codes)
    row, code, number = count_runs(codes, start)
    return replace(graph, histograms=histograms_of(row, code, number, len(graph)))
