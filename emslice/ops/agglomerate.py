"""Best-first agglomeration of a region graph, exact, with nodes that must wait.

Edges are taken best first (score, then tie rank), down to the lowest threshold kept:

* both ends closed: they merge, and rows of parallel edges become one by ``union``;
* one end open: both ends are open from now on.

A node is open while it may still gain contacts outside the block. What merges between closed
nodes is what the whole volume would merge: all their contacts are known, and by reducibility no
later merge elsewhere can offer either a better partner. On a whole volume nothing is open.

The compiled loop is in ``merging.py``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from emslice.errors import GeometryError
from emslice.ops.linkage import SCALE, Linkage, base_rows, tie_ranks
from emslice.ops.merging import RANK_BITS, RANK_MASK, Adjacency, connect, keys_of, merge_best_first
from emslice.ops.region_graph import RegionGraph


@dataclass(frozen=True)
class Agglomeration:
    """What a block could decide."""

    merges: NDArray[np.int32]
    """Shape (M, 2): child, parent, dense numbers. In the order made; a cluster is called by its
    smallest fragment, so parent < child and every child appears once."""

    scores: NDArray[np.int32]
    """Shape (M,). Score of each merge, a fraction of 2^24; never rises."""

    open: NDArray[np.bool_]
    """Shape (N + 1,). Clusters that must wait, by name; contagion included."""


def agglomerate(
    graph: RegionGraph,
    ids: NDArray[np.uint64],
    lowest: int,
    linkage: Linkage,
    open_nodes: NDArray[np.bool_] | None = None,
) -> Agglomeration:
    """Merge a region graph best first, as far as the block can know.

    Parameters
    ----------
    graph : RegionGraph
        Base pairs.
    ids : uint64, shape (N + 1,)
        Id of each dense number, ascending.
    lowest : int
        Lowest score at which a merge is made, a fraction of 2^24.
    linkage : Linkage
    open_nodes : bool, shape (N + 1,), optional
        Fragments that touch a face behind which the block has not seen; none by default.

    Notes
    -----
    About 90 bytes an edge and 10 a node; O(E log E).
    """
    if len(graph) > RANK_MASK or len(graph) >= 2**30:
        raise GeometryError(f"{len(graph)} edges in one graph; at most 2^30 fit. Use more blocks.")
    lowest = min(lowest, SCALE - 1)  # no score reaches it, and 2^24 would leave the key's 63 bits
    rank = tie_ranks(graph, ids)
    waiting = np.zeros(len(ids), np.bool_) if open_nodes is None else open_nodes.copy()
    rows = base_rows(graph, linkage)
    is_mean = linkage.name == "mean"
    key = keys_of(is_mean, linkage.quantile, rank, rows)
    queue = np.flatnonzero(key >= np.int64(lowest) << RANK_BITS)
    queue = queue[np.argsort(-key[queue])].astype(np.int32)
    merges, scores, name = merge_best_first(
        adjacency(graph.edges, len(ids)), rows, key, rank, queue, waiting, lowest,
        is_mean, linkage.quantile,
    )  # fmt: skip
    opened = np.zeros(len(ids), np.bool_)
    opened[name[waiting & (name >= 0)]] = True
    return Agglomeration(merges, scores, opened)


def adjacency(edges: NDArray[np.int32], n_nodes: int) -> Adjacency:
    """Lists and table of a graph, on a copy of its edges."""
    n = len(edges)
    graph = Adjacency(
        edges.copy(),
        np.full(n_nodes, -1, np.int32),
        np.full(2 * n, -1, np.int32),
        np.full(2 * n, -1, np.int32),
        np.zeros(n_nodes, np.int32),
        np.full(1 << max(4, (2 * n - 1).bit_length()), -1, np.int32),
    )
    connect(graph)
    return graph
