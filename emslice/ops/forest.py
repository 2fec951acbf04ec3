"""When rows become connected, if they are taken best first: the compiled part of the ladder.

Rows are pairs of numbers 0 to N - 1, in the order in which they are taken; row t is taken at time
t. Union by size without compression keeps who joined whom and when: trees are as deep as the
logarithm of their size, and times rise on the way up.
"""

from __future__ import annotations

import numpy as np
from numba import njit

NEVER = 2**62


@njit(nogil=True, cache=True)
def _root(parent, node):
    """Root of a node, halving the path."""
    while parent[node] != node:
        parent[node] = parent[parent[node]]
        node = parent[node]
    return node


@njit(nogil=True, cache=True)
def spanning(rows, n_nodes):  # type: ignore[no-untyped-def]
    """Mask of the rows, shape (E, 2), that connect what the rows before them do not."""
    parent, joins = np.arange(n_nodes), np.zeros(rows.shape[0], np.bool_)
    for t in range(rows.shape[0]):
        a, b = _root(parent, rows[t, 0]), _root(parent, rows[t, 1])
        if a != b:
            parent[max(a, b)] = min(a, b)
            joins[t] = True
    return joins


@njit(nogil=True, cache=True)
def plant(rows, n_nodes):  # type: ignore[no-untyped-def]
    """Parent of each node and the time at which it joined it; every row joins two trees."""
    parent, time = np.arange(n_nodes), np.full(n_nodes, NEVER, np.int64)
    size = np.ones(n_nodes, np.int64)
    for t in range(rows.shape[0]):
        a, b = rows[t, 0], rows[t, 1]
        while parent[a] != a:
            a = parent[a]
        while parent[b] != b:
            b = parent[b]
        if size[a] < size[b]:
            a, b = b, a
        parent[b], time[b] = a, t
        size[a] += size[b]
    return parent, time


@njit(nogil=True, cache=True)
def meeting_times(parent, time, pairs):  # type: ignore[no-untyped-def]
    """Time at which the nodes of each pair, shape (P, 2), are connected; `NEVER` if not."""
    out = np.empty(pairs.shape[0], np.int64)
    for i in range(pairs.shape[0]):
        a, b, last = pairs[i, 0], pairs[i, 1], -1
        while a != b and last < NEVER:
            if time[a] > time[b]:
                a, b = b, a
            last = time[a]
            a = parent[a]
        out[i] = last
    return out


@njit(nogil=True, cache=True)
def longest_prefix(rows, n_nodes, grows, limit):  # type: ignore[no-untyped-def]
    """How many rows can be taken until a component weighs more than ``limit``; at least one.

    Parameters
    ----------
    grows : int64, shape (E,)
        Weight that the component gets, of what is connected at that time.
    """
    parent, weight = np.arange(n_nodes), np.zeros(n_nodes, np.int64)
    for t in range(rows.shape[0]):
        a, b = _root(parent, rows[t, 0]), _root(parent, rows[t, 1])
        parent[max(a, b)] = min(a, b)
        weight[min(a, b)] = weight[a] + weight[b] + grows[t]
        if weight[min(a, b)] > limit and t > 0:
            return t
    return rows.shape[0]


@njit(nogil=True, cache=True)
def components_at(parent, time, end):  # type: ignore[no-untyped-def]
    """A node for each node: the same for those that are connected before a time."""
    out = np.empty(parent.size, np.int64)
    for node in range(parent.size):
        top = node
        while time[top] < end:
            top = parent[top]
        out[node] = top
    return out


@njit(nogil=True, cache=True)
def fill_bins(weight, limit):  # type: ignore[no-untyped-def]
    """Bin of each component, in order; a bin weighs at most ``limit``, or has one component."""
    out, held, number = np.empty(weight.size, np.int64), 0, 0
    for i in range(weight.size):
        if held > 0 and held + weight[i] > limit:
            number, held = number + 1, 0
        held += weight[i]
        out[i] = number
    return out


@njit(nogil=True, cache=True)
def rename(label, child, parent):  # type: ignore[no-untyped-def]
    """Note merges, sorted by child, in place: the present name of each name."""
    for i in range(child.size):
        label[child[i]] = label[parent[i]]  # parents are smaller: theirs is known
