"""Best first as in ``ops/merging.py``: a cut anywhere in the key, and the lone open neighbour."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from emslice.ops.agglomerate import adjacency, queue_of
from emslice.ops.linkage import Linkage, tie_order
from emslice.ops.merging import RANK_BITS, RANK_MASK, contract, keys_of, take_best
from emslice.ops.open_graph import OpenGraph, _rest, _rows


class Step(NamedTuple):
    """What is left after a loop over a graph of names."""

    graph: OpenGraph
    """All live rows, closed ones too."""

    key: NDArray[np.int64]
    """Of each row, with ranks of the graph before."""

    links: NDArray[np.uint64]
    """Shape (M, 2): child, name that it goes by from now on."""

    waiting: NDArray[np.uint64]
    """Names that wait."""


def floor_of(graph: OpenGraph, score: int, contacts: int = 0) -> int:
    """Key that a row has at least if it has that score, and with it that many contacts."""
    if not contacts:
        return score << RANK_BITS
    better = int((graph.tie_contacts >= contacts).sum())
    return score << RANK_BITS | (RANK_MASK - better + 1)


def keys(graph: OpenGraph, linkage: Linkage) -> NDArray[np.int64]:
    """Key of every row."""
    order = tie_order(graph.tie_pairs, graph.tie_contacts)
    return keys_of(linkage.name == "mean", linkage.quantile, order, _rows(graph, linkage))


def step(
    graph: OpenGraph, floor: int, open_names: NDArray[np.uint64], linkage: Linkage, lone: bool
) -> Step:
    """Merge best first down to a key."""
    nodes = np.unique(graph.pairs)
    edges = np.searchsorted(nodes, graph.pairs).astype(np.int32)
    order, rows = tie_order(graph.tie_pairs, graph.tie_contacts), _rows(graph, linkage)
    waiting, how = np.isin(nodes, open_names), (linkage.name == "mean", linkage.quantile)
    key = keys_of(*how, order, rows)
    queue, lists = queue_of(key, order, floor), adjacency(edges, len(nodes))
    links, name = _loop(lists, rows, key, order, queue, waiting, floor, *how, lone)
    left = np.flatnonzero(key >= 0)
    names = nodes[name[lists.ends[left, :2]]]
    rest = _rest(graph, rows, left, names, order[RANK_MASK - (key[left] & RANK_MASK)], linkage)
    names = np.sort(names, axis=1)
    ordered = key[left][np.lexsort((names[:, 1], names[:, 0]))]
    return Step(rest, ordered, nodes[links], nodes[name[waiting & (name >= 0)]])


@njit(nogil=True)
def _n_waiting(graph, node, waiting):  # type: ignore[no-untyped-def]
    """Neighbours of a node that wait, as far as two."""
    half, first = graph.head[node], -1
    while half >= 0:
        edge, side = half >> 1, half & 1
        half = graph.ends[edge, 2 + side]
        other = graph.ends[edge, 1 - side]
        if other >= 0 and waiting[other] and other != first:
            if first >= 0:
                return 2
            first = other
    return 1


@njit(nogil=True)
def _loop(graph, rows, key, order, queue, waiting, floor, is_mean, quantile, lone):  # type: ignore[no-untyped-def]
    name = np.arange(graph.head.size).astype(np.int32)
    links, heap = np.empty((graph.head.size, 2), np.int32), np.empty((queue.size, 2), np.int64)
    n_links, n_slots = 0, graph.ends.shape[0]
    edge, place, n_heap = take_best(queue, 0, heap, 0, key, order, floor)
    while edge >= 0:
        a, b = graph.ends[edge, 0], graph.ends[edge, 1]
        if waiting[b]:
            a, b = b, a
        keeps = waiting[a]  # an open one keeps its name, which others know
        if keeps and (waiting[b] or not (lone and _n_waiting(graph, b, waiting) == 1)):
            waiting[b] = True
        else:
            stays = name[a] if keeps else min(name[a], name[b])
            links[n_links, 0], links[n_links, 1] = name[a] + name[b] - stays, stays
            n_links += 1
            a, b, n_slots = contract(graph, rows, key, edge, n_slots, is_mean, quantile)
            waiting[a], waiting[b] = keeps, False
            name[a], name[b] = stays, -1
        edge, place, n_heap = take_best(queue, place, heap, n_heap, key, order, floor)
    return links[:n_links].copy(), name
