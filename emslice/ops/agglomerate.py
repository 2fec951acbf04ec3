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
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from emslice.errors import GeometryError
from emslice.ops.linkage import SCALE, Linkage, base_rows, tie_order
from emslice.ops.merging import (
    BATCH,
    RANK_BITS,
    Adjacency,
    Rows,
    connect,
    keys_of,
    merge_best_first,
)
from emslice.ops.radix import stable_order
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
    waiting = np.zeros(len(ids), np.bool_) if open_nodes is None else open_nodes.copy()
    rows, order = base_rows(graph, linkage), tie_order(ids[graph.edges], graph.contacts)
    end = run_best_first(graph.edges, rows, order, waiting, lowest, linkage)
    opened = np.zeros(len(ids), np.bool_)
    opened[end.name[waiting & (end.name >= 0)]] = True
    return Agglomeration(end.merges, end.scores, opened)


class End(NamedTuple):
    """How the loop left a graph; rows and what waits are changed in place."""

    merges: NDArray[np.int32]
    """Shape (M, 2): child, parent, in the order made."""

    scores: NDArray[np.int32]
    """Shape (M,)."""

    name: NDArray[np.int32]
    """Shape (N,). Smallest node of each node's cluster; -1 for a node that was merged away."""

    key: NDArray[np.int64]
    """Shape (E,). Key of each edge; -1 for what is no edge any more."""

    ends: NDArray[np.int32]
    """Shape (E, 2). Nodes that each edge joins in the end; -1 for what is no edge any more."""


def run_best_first(
    edges: NDArray[np.int32],
    rows: Rows,
    order: NDArray[np.int32],
    waiting: NDArray[np.bool_],
    lowest: int,
    linkage: Linkage,
    n_best: int | None = None,
) -> End:
    """Queue the edges that reach ``lowest`` and merge best first; ``waiting`` has a node each.

    ``order`` are the edges in the order of ties. Of those whose score is ``lowest``, only the
    first ``n_best`` in that order count; all, by default.
    """
    if len(edges) >= 2**30:
        raise GeometryError(f"{len(edges)} edges in one graph; at most 2^30 fit. Use more blocks.")
    lowest = min(lowest, SCALE - 1)  # no score reaches it, and 2^24 would leave the key's 63 bits
    is_mean = linkage.name == "mean"
    key = keys_of(is_mean, linkage.quantile, order, rows)
    floor = np.int64(lowest) << RANK_BITS
    if n_best is not None:
        floor += 2**RANK_BITS - n_best  # ranks fall in keys, and 0 is the best
    queue = queue_of(key, order, floor)
    graph = adjacency(edges, len(waiting))
    merges, scores, name = merge_best_first(
        graph, rows, key, order, queue, waiting, floor, is_mean, linkage.quantile
    )
    return End(merges, scores, name, key, graph.ends[:, :2])


def queue_of(
    key: NDArray[np.int64], order: NDArray[np.int32], floor: int | np.int64
) -> NDArray[np.int64]:
    """The keys that reach a floor, falling; ``order`` are the edges in the order of ties."""
    ranked = key[order]
    ranked = ranked[ranked >= floor]
    # Ranks are in order already: only scores, of 24 bits, are sorted by.
    falling = (SCALE - 1 - (ranked >> RANK_BITS)).astype(np.uint64)
    return ranked[stable_order(falling, 0, 24)]


def adjacency(edges: NDArray[np.int32], n_nodes: int) -> Adjacency:
    """Lists and table of a graph."""
    ends = np.full((len(edges), 4), -1, np.int32)
    ends[:, :2] = edges
    graph = Adjacency(
        ends,
        np.full(n_nodes, -1, np.int32),
        np.zeros(n_nodes, np.int32),
        np.empty(1 << max(4, (2 * len(edges) - 1).bit_length()), np.int64),
        np.empty((2, BATCH + 1), np.int64),
    )
    connect(graph)
    return graph
