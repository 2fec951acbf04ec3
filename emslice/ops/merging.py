"""The compiled part of agglomeration: keys, lists, table, queue, the loop.

Each node has a list of half-edges; the smaller list moves into the larger, and a table finds the
edge of a pair. Of two parallel edges the better keeps its place in the queue: by reducibility the
key of their union is not above it, so each live edge has exactly one entry, and an entry that
promises too much is put back with its present key. The queue is the array of initial keys, sorted
once, and a binary heap of what was put back. What dies is left where it is, in lists and table,
until somebody passes by: to take it out at once took half of the time. Time is cache misses: for
the same reason all that is read of an edge at one time lies side by side, and what it takes to move
some edges is loaded before the first of them moves, so that misses are waited for together.

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

EDGE_BITS = 31  # of a slot of the table; the hash of the pair stands above
EDGE_MASK = 2**EDGE_BITS - 1

BATCH = 32  # half-edges moved together

CODE_BITS = 8  # of a link of a histogram; the next link stands above


class Rows(NamedTuple):
    """Statistics of E pairs, those of one pair side by side in memory."""

    pair: NDArray[np.int64]
    """Shape (E, 2). Contacts (base pairs, of quantile_max) behind each pair; then the sum of their
    codes (mean) or the first link of their histogram."""

    link: NDArray[np.int64]
    """Shape (R, 2). Of each run of equal codes its length; then 2^8 x next link of the pair, -1
    after the last, + code. Codes of a pair ascend."""


class Adjacency(NamedTuple):
    """A graph that shrinks. Half-edge 2 e + side is that of edge e in the list of its end."""

    ends: NDArray[np.int32]
    """Shape (E, 4). Present nodes of each edge, -1 for a dead one, and the next half-edge in the
    list of each of the two, or -1. Dead half-edges stay in their lists until these are moved."""

    head: NDArray[np.int32]
    """Shape (N + 1,). First half-edge of each node, or -1."""

    degree: NDArray[np.int32]
    """Shape (N + 1,). Live edges of each node."""

    table: NDArray[np.int64]
    """Shape (2^k,), at most half of it live. Open-addressed: edge of a pair below the hash of that
    pair, or -1. Slots of pairs that are no more are swept when it fills up."""

    batch: NDArray[np.int64]
    """Shape (2, BATCH + 1). Half-edges about to move and the slots where they are looked for."""


@njit(nogil=True, cache=True)
def mean_of(total, number):  # type: ignore[no-untyped-def]
    """Integer part of 2^16 total / number, exact for any two numbers of 63 bits."""
    if total < 2**47:
        return (total << 16) // number
    # Long division, a bit at a time: the product would leave 64 bits.
    score, divisor = total // number, np.uint64(number)
    rest = np.uint64(total % number)
    for _ in range(16):
        rest, score = rest << np.uint64(1), score << 1
        if rest >= divisor:
            rest, score = rest - divisor, score + 1
    return score


@njit(nogil=True, cache=True)
def score_of(is_mean, quantile, edge, rows):  # type: ignore[no-untyped-def]
    """Score of a pair as a fraction of 2^24."""
    number = rows.pair[edge, 0]
    if is_mean:
        return mean_of(rows.pair[edge, 1], number)
    # floor(q n / 100) without the product, which could leave 64 bits
    rank = quantile * (number // 100) + quantile * (number % 100) // 100
    link = rows.pair[edge, 1]
    while rows.link[link, 0] <= rank:
        rank -= rows.link[link, 0]
        link = rows.link[link, 1] >> CODE_BITS
    return (rows.link[link, 1] & 255) << 16


@njit(nogil=True, cache=True)
def union_rows(is_mean, winner, loser, rows):  # type: ignore[no-untyped-def]
    """Add the statistics of ``loser`` to ``winner``: sums, numbers, and histograms run by run.

    Two ascending linked lists are merged in place, as far as both go; nothing is allocated.
    """
    pair, links = rows.pair, rows.link
    pair[winner, 0] += pair[loser, 0]
    if is_mean:
        pair[winner, 1] += pair[loser, 1]
        return
    a, b, last = pair[winner, 1], pair[loser, 1], -1
    while a >= 0 and b >= 0:
        a_code, b_code = links[a, 1] & 255, links[b, 1] & 255
        if a_code < b_code:
            last, a = a, links[a, 1] >> CODE_BITS
        elif a_code == b_code:
            links[a, 0] += links[b, 0]
            b = links[b, 1] >> CODE_BITS
        else:
            after = links[b, 1] >> CODE_BITS
            links[b, 1] = a << CODE_BITS | b_code
            _set_next(pair, links, winner, last, b)
            last, b = b, after
    if b >= 0:
        _set_next(pair, links, winner, last, b)


@njit(nogil=True, cache=True)
def _set_next(pair, links, edge, last, link):  # type: ignore[no-untyped-def]
    """Put a link behind ``last``, or first in the list of an edge if that is -1."""
    if last < 0:
        pair[edge, 1] = link
    else:
        links[last, 1] = link << CODE_BITS | (links[last, 1] & 255)


@njit(nogil=True, cache=True)
def keys_of(is_mean, quantile, order, rows):
    """Keys of all edges: the score, and below it the place in the order of ties, falling."""
    key = np.empty(order.size, np.int64)
    for e in range(order.size):
        key[e] = score_of(is_mean, quantile, e, rows)
    for rank in range(order.size):
        key[order[rank]] = key[order[rank]] << RANK_BITS | (RANK_MASK - rank)
    return key


@njit(nogil=True, cache=True)
def _pair(a, b):
    """Both nodes in one integer, the smaller first."""
    return (np.int64(min(a, b)) << 32) | np.int64(max(a, b))


@njit(nogil=True, cache=True)
def _hash(graph, a, b):
    """Both nodes in one integer, the slot where the search for them begins, and their hash.

    Fibonacci hashing (Knuth, TAOCP 3, 6.4).
    """
    pair, mask = _pair(a, b), graph.table.size - 1
    mixed = np.uint64(pair) * np.uint64(0x9E3779B97F4A7C15)
    upper = mixed >> np.uint64(32)
    return pair, np.int64((mixed ^ upper) & np.uint64(mask)), np.int64(upper)


@njit(nogil=True, cache=True)
def _find(graph, a, b):
    """Slot of the edge between two nodes, or a free one, and the hash of the pair.

    A slot that was left behind by a move never answers: its edge is dead, or has other ends.
    """
    table, ends = graph.table, graph.ends
    mask = table.size - 1
    pair, slot, tag = _hash(graph, a, b)
    while table[slot] >= 0:
        if table[slot] >> EDGE_BITS == tag:
            e = table[slot] & EDGE_MASK
            if _pair(ends[e, 0], ends[e, 1]) == pair:
                break
        slot = (slot + 1) & mask
    return slot, tag


@njit(nogil=True, cache=True)
def _sweep(graph):
    """Fill the table anew with live edges; their number."""
    n, table, ends = 0, graph.table, graph.ends
    table[:] = -1
    for e in range(ends.shape[0]):
        if ends[e, 0] >= 0:
            slot, tag = _find(graph, ends[e, 0], ends[e, 1])
            table[slot] = tag << EDGE_BITS | e
            n += 1
    return n


@njit(nogil=True, cache=True)
def _link(graph, edge, side):
    """Put a half-edge in front of its node's list."""
    node = graph.ends[edge, side]
    graph.ends[edge, 2 + side] = graph.head[node]
    graph.head[node] = 2 * edge + side


@njit(nogil=True, cache=True)
def connect(graph):
    """Fill lists and table from the ends."""
    for e in range(graph.ends.shape[0]):
        for side in range(2):
            _link(graph, e, side)
            graph.degree[graph.ends[e, side]] += 1
    _sweep(graph)


@njit(nogil=True, cache=True)
def _push(heap, size, promise, edge):
    """Add an edge to the binary heap of ``size`` entries, best promise on top."""
    i = size
    while i > 0 and heap[(i - 1) // 2, 0] < promise:
        heap[i] = heap[(i - 1) // 2]
        i = (i - 1) // 2
    heap[i, 0], heap[i, 1] = promise, edge


@njit(nogil=True, cache=True)
def _drop_top(heap, size):
    """Take the top off the heap of ``size`` entries."""
    last, i = size - 1, 0
    while 2 * i + 1 < last:
        child = 2 * i + 1
        if child + 1 < last and heap[child + 1, 0] > heap[child, 0]:
            child += 1
        if heap[child, 0] <= heap[last, 0]:
            break
        heap[i] = heap[child]
        i = child
    heap[i] = heap[last]


@njit(nogil=True, cache=True)
def _move_edge(graph, rows, key, edge, side, into, is_mean, quantile):
    """Reattach an edge to node ``into``, or join it with the one already there; slots taken."""
    ends, table = graph.ends, graph.table
    other = ends[edge, 1 - side]
    slot, tag = _find(graph, into, other)
    ends[edge, side] = into
    if table[slot] < 0:
        table[slot] = tag << EDGE_BITS | edge
        _link(graph, edge, side)
        graph.degree[into] += 1
        return 1
    twin = table[slot] & EDGE_MASK
    winner, loser = (twin, edge) if key[twin] >= key[edge] else (edge, twin)
    union_rows(is_mean, winner, loser, rows)
    worse = min(key[winner] & RANK_MASK, key[loser] & RANK_MASK)
    key[winner] = np.int64(score_of(is_mean, quantile, winner, rows)) << RANK_BITS | worse
    key[loser] = ends[loser, 0] = ends[loser, 1] = -1
    graph.degree[other] -= 1
    if winner == edge:
        table[slot] = tag << EDGE_BITS | edge
        _link(graph, edge, side)
    return 0


@njit(nogil=True, cache=True)
def _gather(graph, half):
    """Fill the batch with live half-edges of a list; their number, and the half-edge after them."""
    ends, batch, n = graph.ends, graph.batch, 0
    while half >= 0 and n < BATCH:
        batch[0, n] = half
        edge, side = half >> 1, half & 1
        n += ends[edge, 0] >= 0
        half = ends[edge, 2 + side]
    return n, half


@njit(nogil=True, cache=True)
def _touch(graph, rows, key, n, into, is_mean):
    """Load what moving the batch of ``n`` half-edges will read, first theirs, then their twins'.

    No load waits for one before it. The sum means nothing; it keeps the loads in the program.
    """
    ends, table, batch, loaded = graph.ends, graph.table, graph.batch, np.int64(0)
    for i in range(n):
        edge, side = batch[0, i] >> 1, batch[0, i] & 1
        _, batch[1, i], _ = _hash(graph, into, ends[edge, 1 - side])
        loaded += table[batch[1, i]] + key[edge] + rows.pair[edge, 0]
        if not is_mean:
            loaded += rows.link[rows.pair[edge, 1], 0]
    for i in range(n):
        # Of a free slot edge 0, of a slot in use mostly the twin.
        twin = max(0, table[batch[1, i]]) & EDGE_MASK
        loaded += ends[twin, 0] + key[twin] + rows.pair[twin, 0]
        if not is_mean:
            loaded += rows.link[rows.pair[twin, 1], 0]
    return loaded


@njit(nogil=True, cache=True)
def contract(graph, rows, key, edge, n_slots, is_mean, quantile):
    """Merge the ends of an edge: the smaller list moves into the larger; both, and slots in use."""
    ends = graph.ends
    a, b = ends[edge, 0], ends[edge, 1]
    if graph.degree[a] < graph.degree[b]:
        a, b = b, a
    if n_slots + graph.degree[b] > graph.table.size // 4 * 3:
        n_slots = _sweep(graph)
    key[edge] = ends[edge, 0] = ends[edge, 1] = -1
    graph.degree[a] -= 1
    half = graph.head[b]
    while half >= 0:
        n, half = _gather(graph, half)
        graph.batch[1, BATCH] = _touch(graph, rows, key, n, a, is_mean)
        for i in range(n):
            moved, side = graph.batch[0, i] >> 1, graph.batch[0, i] & 1
            n_slots += _move_edge(graph, rows, key, moved, side, a, is_mean, quantile)
    return a, b, n_slots


@njit(nogil=True, cache=True)
def take_best(queue, place, heap, n_heap, key, order, floor):
    """The best edge whose key is what was promised, -1 if none reaches ``floor``.

    With it the place in the queue and the entries of the heap that are left.
    """
    while place < queue.size or n_heap > 0:
        if n_heap > 0 and (place == queue.size or heap[0, 0] > queue[place]):
            promise, edge = heap[0, 0], heap[0, 1]
            _drop_top(heap, n_heap)
            n_heap -= 1
        else:
            promise = queue[place]
            edge = np.int64(order[RANK_MASK - (promise & RANK_MASK)])
            place += 1
        if key[edge] >= promise:
            return edge, place, n_heap
        if key[edge] >= floor:
            _push(heap, n_heap, key[edge], edge)
            n_heap += 1
    return np.int64(-1), place, n_heap


@njit(nogil=True, cache=True)
def merge_best_first(graph, rows, key, order, queue, waiting, floor, is_mean, quantile):
    """Merges down to a key, their scores, and each node's cluster name, -1 if merged away.

    ``queue`` has the keys that reach ``floor``, falling; ``order`` the edge of each rank.
    ``graph``, ``rows``, ``key`` (-1 for what is no edge any more) and ``waiting`` are left as the
    loop leaves them.
    """
    n_nodes = graph.head.size
    name = np.arange(n_nodes).astype(np.int32)
    merges, scores = np.empty((n_nodes, 2), np.int32), np.empty(n_nodes, np.int32)
    heap = np.empty((queue.size, 2), np.int64)
    n_merges, n_slots = 0, graph.ends.shape[0]
    edge, place, n_heap = take_best(queue, 0, heap, 0, key, order, floor)
    while edge >= 0:
        a, b = graph.ends[edge, 0], graph.ends[edge, 1]
        if waiting[a] or waiting[b]:
            waiting[a] = waiting[b] = True
        else:
            low, high = min(name[a], name[b]), max(name[a], name[b])
            merges[n_merges, 0], merges[n_merges, 1] = high, low
            scores[n_merges] = key[edge] >> RANK_BITS
            n_merges += 1
            a, b, n_slots = contract(graph, rows, key, edge, n_slots, is_mean, quantile)
            name[a], name[b] = low, -1
        edge, place, n_heap = take_best(queue, place, heap, n_heap, key, order, floor)
    return merges[:n_merges].copy(), scores[:n_merges].copy(), name


@njit(nogil=True, cache=True)
def gather_runs(edges, rows):  # type: ignore[no-untyped-def]
    """Histograms of some edges, one after the other: first run of each, codes, numbers."""
    start = np.zeros(edges.size + 1, np.int64)
    for i in range(edges.size):
        link, n = rows.pair[edges[i], 1], 0
        while link >= 0:
            link, n = rows.link[link, 1] >> CODE_BITS, n + 1
        start[i + 1] = start[i] + n
    codes, numbers = np.empty(start[-1], np.uint8), np.empty(start[-1], np.int64)
    for i in range(edges.size):
        link, at = rows.pair[edges[i], 1], start[i]
        while link >= 0:
            codes[at], numbers[at] = rows.link[link, 1] & 255, rows.link[link, 0]
            link, at = rows.link[link, 1] >> CODE_BITS, at + 1
    return start, codes, numbers
