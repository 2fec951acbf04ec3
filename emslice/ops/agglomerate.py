"""Best-first agglomeration of a region graph, exact, with nodes that must wait.

Edges are taken best first (score, then tie rank), down to the lowest threshold kept:

* both ends closed: they merge, and rows of parallel edges become one by ``union``;
* one end open: both ends are open from now on.

A node is open while it may still gain contacts outside the block. What merges between closed
nodes is what the whole volume would merge: all their contacts are known, and by reducibility no
later merge elsewhere can offer either a better partner. On a whole volume nothing is open.

Edges are half-edges in doubly linked lists, the smaller list moves into the larger, and a table
finds the edge of a pair. Of two parallel edges the better keeps its place in the queue: by
reducibility the key of their union is not above it, so each live edge has exactly one entry, and
an entry that promises too much is put back with its present key. The queue is the array of
initial keys, sorted once, and a binary heap of what was put back.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from emslice.errors import GeometryError
from emslice.ops.linkage import Linkage, base_rows, score_of, tie_ranks, union_rows
from emslice.ops.region_graph import RegionGraph

RANK_BITS = 39  # below a score of 24 bits, in 63
RANK_MASK = 2**RANK_BITS - 1


@dataclass(frozen=True)
class Agglomeration:
    """What a block could decide."""

    merges: NDArray[np.int32]
    """Shape (M, 2): child, parent, dense numbers. In the order made; a cluster is called by its
    smallest fragment, so parent < child and every child appears once."""

    scores: NDArray[np.int32]
    """Shape (M,). Score of each merge, a fraction of 2^24; never rises."""

    open: NDArray[np.bool_]
    """Shape (N + 1,). Nodes that must wait; contagion included."""


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
    rank = tie_ranks(graph, ids)
    waiting = np.zeros(len(ids), np.bool_) if open_nodes is None else open_nodes.copy()
    rows = base_rows(graph, linkage)
    is_mean = linkage.name == "mean"
    key = _keys(is_mean, linkage.quantile, rank, rows)
    queue = np.flatnonzero(key >= np.int64(lowest) << RANK_BITS)
    queue = queue[np.argsort(-key[queue])].astype(np.int32)
    merges, scores = _merge_best_first(
        _adjacency(graph.edges, len(ids)), rows, key, rank, queue, waiting, lowest,
        is_mean, linkage.quantile,
    )  # fmt: skip
    return Agglomeration(merges, scores, waiting)


class Adjacency(NamedTuple):
    """A graph that shrinks (compiled code reads it). Half-edge 2 e is at end 0 of edge e."""

    ends: NDArray[np.int32]
    """Shape (E, 2). Present nodes of each edge."""

    head: NDArray[np.int32]
    """Shape (N + 1,). First half-edge of each node, or -1."""

    ahead: NDArray[np.int32]
    """Shape (2 E,). Next half-edge of the same node, or -1."""

    back: NDArray[np.int32]
    """Shape (2 E,). Previous half-edge of the same node, or -1."""

    degree: NDArray[np.int32]
    """Shape (N + 1,). Edges of each node."""

    table: NDArray[np.int32]
    """Shape (2^k,), k so that at most half is used. Open-addressed: edge of a pair, or -1."""


def _adjacency(edges: NDArray[np.int32], n_nodes: int) -> Adjacency:
    n = len(edges)
    graph = Adjacency(
        edges.copy(),
        np.full(n_nodes, -1, np.int32),
        np.full(2 * n, -1, np.int32),
        np.full(2 * n, -1, np.int32),
        np.zeros(n_nodes, np.int32),
        np.full(1 << max(4, (2 * n - 1).bit_length()), -1, np.int32),
    )
    _connect(graph)
    return graph


@njit(nogil=True, cache=True)
def _key(score, rank):
    """One integer that orders edges: score first, then the smaller rank."""
    return (np.int64(score) << RANK_BITS) | (RANK_MASK - rank)


@njit(nogil=True, cache=True)
def _keys(is_mean, quantile, rank, rows):
    """Keys of all edges."""
    key = np.empty(rank.size, np.int64)
    for e in range(rank.size):
        key[e] = _key(score_of(is_mean, quantile, e, rows), rank[e])
    return key


@njit(nogil=True, cache=True)
def _home(pair, mask):
    """Slot where the search for a pair starts (Fibonacci hashing)."""
    mixed = np.uint64(pair) * np.uint64(0x9E3779B97F4A7C15)
    return np.int64((mixed ^ (mixed >> np.uint64(32))) & np.uint64(mask))


@njit(nogil=True, cache=True)
def _pair(a, b):
    """Both nodes in one integer, the smaller first."""
    return (np.int64(min(a, b)) << 32) | np.int64(max(a, b))


@njit(nogil=True, cache=True)
def _find(graph, a, b):
    """Slot of the edge between two nodes, or the free slot where it belongs."""
    pair, mask = _pair(a, b), graph.table.size - 1
    slot = _home(pair, mask)
    while graph.table[slot] >= 0:
        e = graph.table[slot]
        if _pair(graph.ends[e, 0], graph.ends[e, 1]) == pair:
            break
        slot = (slot + 1) & mask
    return slot


@njit(nogil=True, cache=True)
def _erase(graph, slot):
    """Empty a slot and move later entries up, so that no search meets a gap (Knuth 6.4 R)."""
    table, mask = graph.table, graph.table.size - 1
    gap, probe = slot, (slot + 1) & mask
    while table[probe] >= 0:
        e = table[probe]
        home = _home(_pair(graph.ends[e, 0], graph.ends[e, 1]), mask)
        if ((probe - home) & mask) >= ((probe - gap) & mask):
            table[gap] = e
            gap = probe
        probe = (probe + 1) & mask
    table[gap] = -1


@njit(nogil=True, cache=True)
def _unlink(graph, half):
    """Take a half-edge out of its node's list."""
    node, ahead, back = graph.ends[half // 2, half % 2], graph.ahead[half], graph.back[half]
    if back >= 0:
        graph.ahead[back] = ahead
    else:
        graph.head[node] = ahead
    if ahead >= 0:
        graph.back[ahead] = back
    graph.degree[node] -= 1


@njit(nogil=True, cache=True)
def _link(graph, half):
    """Put a half-edge in front of its node's list."""
    node = graph.ends[half // 2, half % 2]
    first = graph.head[node]
    graph.ahead[half], graph.back[half] = first, -1
    if first >= 0:
        graph.back[first] = half
    graph.head[node] = half
    graph.degree[node] += 1


@njit(nogil=True, cache=True)
def _connect(graph):
    """Fill lists and table from the ends."""
    for e in range(graph.ends.shape[0]):
        graph.table[_find(graph, graph.ends[e, 0], graph.ends[e, 1])] = e
        _link(graph, 2 * e)
        _link(graph, 2 * e + 1)


@njit(nogil=True, cache=True)
def _push(heap, size, edge, promised):
    """Add an edge to the binary heap of ``size`` entries, best promise on top."""
    i = size
    while i > 0 and promised[heap[(i - 1) // 2]] < promised[edge]:
        heap[i] = heap[(i - 1) // 2]
        i = (i - 1) // 2
    heap[i] = edge


@njit(nogil=True, cache=True)
def _pop(heap, size, promised):
    """Take the top of the heap of ``size`` entries."""
    top, edge = heap[0], heap[size - 1]
    size -= 1
    i = 0
    while 2 * i + 1 < size:
        child = 2 * i + 1
        if child + 1 < size and promised[heap[child + 1]] > promised[heap[child]]:
            child += 1
        if promised[heap[child]] <= promised[edge]:
            break
        heap[i] = heap[child]
        i = child
    heap[i] = edge
    return top


@njit(nogil=True, cache=True)
def _move_edge(graph, rows, key, rank, half, into, is_mean, quantile):
    """Reattach a half-edge to node ``into``, or join its edge with the one already there."""
    edge, side = half // 2, half % 2
    other = graph.ends[edge, 1 - side]
    _erase(graph, _find(graph, graph.ends[edge, side], other))
    _unlink(graph, half)
    slot = _find(graph, into, other)
    twin = graph.table[slot]
    graph.ends[edge, side] = into
    if twin < 0:
        graph.table[slot] = edge
        _link(graph, half)
        return
    winner, loser = (twin, edge) if key[twin] >= key[edge] else (edge, twin)
    union_rows(winner, loser, rows)
    rank[winner] = max(rank[winner], rank[loser])
    key[winner] = _key(score_of(is_mean, quantile, winner, rows), rank[winner])
    key[loser] = -1  # no longer an edge
    if winner == edge:
        graph.table[slot] = edge
        _unlink(graph, 2 * twin)
        _unlink(graph, 2 * twin + 1)
        _link(graph, half)
    else:
        _unlink(graph, 2 * edge + 1 - side)


@njit(nogil=True, cache=True)
def _merge_best_first(graph, rows, key, rank, queue, waiting, lowest, is_mean, quantile):
    """Merge down to ``lowest``; ``waiting`` is updated in place."""
    floor = np.int64(lowest) << RANK_BITS
    n_nodes = graph.head.size
    name = np.arange(n_nodes).astype(np.int32)
    merges, scores = np.empty((n_nodes, 2), np.int32), np.empty(n_nodes, np.int32)
    promised = key.copy()
    heap = np.empty(queue.size, np.int32)
    n_merges, n_heap, place = 0, 0, 0
    while place < queue.size or n_heap > 0:
        if n_heap > 0 and (place == queue.size or promised[heap[0]] > promised[queue[place]]):
            edge = _pop(heap, n_heap, promised)
            n_heap -= 1
        else:
            edge = queue[place]
            place += 1
        if key[edge] < floor:
            continue
        if key[edge] < promised[edge]:
            promised[edge] = key[edge]
            _push(heap, n_heap, edge, promised)
            n_heap += 1
            continue
        a, b = graph.ends[edge, 0], graph.ends[edge, 1]
        if waiting[a] or waiting[b]:
            waiting[a] = waiting[b] = True
            continue
        merges[n_merges, 0], merges[n_merges, 1] = max(name[a], name[b]), min(name[a], name[b])
        scores[n_merges] = key[edge] >> RANK_BITS
        n_merges += 1
        if graph.degree[a] < graph.degree[b]:
            a, b = b, a
        name[a] = min(name[a], name[b])
        _erase(graph, _find(graph, a, b))
        _unlink(graph, 2 * edge)
        _unlink(graph, 2 * edge + 1)
        half = graph.head[b]
        while half >= 0:
            following = graph.ahead[half]
            _move_edge(graph, rows, key, rank, half, a, is_mean, quantile)
            half = following
    return merges[:n_merges].copy(), scores[:n_merges].copy()
