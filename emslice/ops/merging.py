"""The compiled part of agglomeration: keys, lists, table, queue, the loop.

Edges are half-edges in doubly linked lists, the smaller list moves into the larger, and a table
finds the edge of a pair. Of two parallel edges the better keeps its place in the queue: by
reducibility the key of their union is not above it, so each live edge has exactly one entry, and
an entry that promises too much is put back with its present key. The queue is the array of
initial keys, sorted once, and a binary heap of what was put back.

All of it stands in one file: numba caches a compiled function by the time stamp of its own file
only, so code called from another file would go stale unnoticed.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

RANK_BITS = 39  # below a score of 24 bits, in 63
RANK_MASK = 2**RANK_BITS - 1


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


@njit(nogil=True, cache=True)
def score_of(is_mean, quantile, edge, rows):  # type: ignore[no-untyped-def]
    """Score of a pair as a fraction of 2^24."""
    number = rows.number[edge]
    if is_mean:
        return (rows.total[edge] << 16) // number
    # floor(q n / 100) without the product, which could leave 64 bits
    rank = quantile * (number // 100) + quantile * (number % 100) // 100
    link = rows.run[edge]
    while rows.run_number[link] <= rank:
        rank -= rows.run_number[link]
        link = rows.run_next[link]
    return np.int64(rows.run_code[link]) << 16


@njit(nogil=True, cache=True)
def union_rows(winner, loser, rows):  # type: ignore[no-untyped-def]
    """Add the statistics of ``loser`` to ``winner``: sums, numbers, and histograms run by run.

    Two ascending linked lists are merged in place; nothing is allocated.
    """
    rows.number[winner] += rows.number[loser]
    rows.total[winner] += rows.total[loser]
    a, b = rows.run[winner], rows.run[loser]
    tail = np.int32(-1)
    while a >= 0 or b >= 0:
        if b < 0 or (a >= 0 and rows.run_code[a] <= rows.run_code[b]):
            link, a = a, rows.run_next[a]
        else:
            link, b = b, rows.run_next[b]
        if tail >= 0 and rows.run_code[tail] == rows.run_code[link]:
            rows.run_number[tail] += rows.run_number[link]
            continue
        if tail < 0:
            rows.run[winner] = link
        else:
            rows.run_next[tail] = link
        tail = link
    if tail >= 0:
        rows.run_next[tail] = -1


@njit(nogil=True, cache=True)
def _key(score, rank):
    """One integer that orders edges: score first, then the smaller rank."""
    return (np.int64(score) << RANK_BITS) | (RANK_MASK - rank)


@njit(nogil=True, cache=True)
def keys_of(is_mean, quantile, rank, rows):
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
def connect(graph):
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
def merge_best_first(graph, rows, key, rank, queue, waiting, lowest, is_mean, quantile):
    """Merges down to ``lowest``, their scores, and each node's cluster name, -1 if merged away.

    ``graph``, ``rows``, ``key`` (-1 for what is no edge any more), ``rank`` and ``waiting`` are
    left as the loop leaves them.
    """
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
        key[edge] = -1
        n_merges += 1
        if graph.degree[a] < graph.degree[b]:
            a, b = b, a
        name[a], name[b] = min(name[a], name[b]), -1
        _erase(graph, _find(graph, a, b))
        _unlink(graph, 2 * edge)
        _unlink(graph, 2 * edge + 1)
        half = graph.head[b]
        while half >= 0:
            following = graph.ahead[half]
            _move_edge(graph, rows, key, rank, half, a, is_mean, quantile)
            half = following
    return merges[:n_merges].copy(), scores[:n_merges].copy(), name


@njit(nogil=True, cache=True)
def gather_runs(edges, rows):  # type: ignore[no-untyped-def]
    """Histograms of some edges, one after the other: first run of each, codes, numbers."""
    start = np.zeros(edges.size + 1, np.int64)
    for i in range(edges.size):
        link, n = rows.run[edges[i]], 0
        while link >= 0:
            link, n = rows.run_next[link], n + 1
        start[i + 1] = start[i] + n
    codes, numbers = np.empty(start[-1], np.uint8), np.empty(start[-1], np.int64)
    for i in range(edges.size):
        link, at = rows.run[edges[i]], start[i]
        while link >= 0:
            codes[at], numbers[at] = rows.run_code[link], rows.run_number[link]
            link, at = rows.run_next[link], at + 1
    return start, codes, numbers
