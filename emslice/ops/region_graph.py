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
from numba import njit
from numpy.typing import NDArray

from emslice.ops.histograms import Histograms, add_histograms, histograms_of

KEY, CONTACTS, TOTAL, HIGHEST = range(4)  # columns of a table; key 0, which is no pair, is free


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
        table = _scan(affinity, labels, *cut)
        graph, slots = _rows(table)
        if not histograms:
            return graph
        return _with_histograms(graph, table, slots, affinity, labels, *cut)

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


def _rows(table: NDArray[np.int64]) -> tuple[RegionGraph, NDArray[np.int64]]:
    """Rows of a hash table, sorted, and the slot of each."""
    used = np.flatnonzero(table[:, KEY])
    slots = used[np.argsort(table[used, KEY])]
    rows = table[slots]
    edges = np.stack([rows[:, KEY] >> 32, rows[:, KEY] & 0xFFFFFFFF], axis=1).astype(np.int32)
    columns = rows[:, CONTACTS].copy(), rows[:, TOTAL].copy(), rows[:, HIGHEST].astype(np.uint8)
    return RegionGraph(edges, *columns), slots


def _with_histograms(
    graph: RegionGraph,
    table: NDArray[np.int64],
    slots: NDArray[np.int64],
    affinity: NDArray[np.uint8],
    labels: NDArray[np.int32],
    begin: int,
    end: int,
) -> RegionGraph:
    """The graph of some sections with histograms; the table's counts are used up."""
    start = np.r_[0, np.cumsum(graph.contacts)]
    table[slots, CONTACTS] = start[:-1]
    codes = np.empty(start[-1], np.uint8)
    _collect(affinity, labels, begin, end, table, codes)
    row, code, number = _count(codes, start)
    return replace(graph, histograms=histograms_of(row, code, number, len(graph)))


@njit(nogil=True, cache=True)
def _slot(table, key):  # type: ignore[no-untyped-def]
    """Row of ``key`` in an open-addressed table of 2^k rows, or the free row where it belongs.

    The multiplier is that of Fibonacci hashing (Knuth, TAOCP 3, 6.4).
    """
    mixed = np.uint64(key) * np.uint64(0x9E3779B97F4A7C15)
    mixed ^= mixed >> np.uint64(32)
    mask = table.shape[0] - 1
    slot = np.int64(mixed & np.uint64(mask))
    while table[slot, KEY] != 0 and table[slot, KEY] != key:
        slot = (slot + 1) & mask
    return slot


@njit(nogil=True, cache=True)
def _grown(table: NDArray[np.int64]) -> NDArray[np.int64]:
    """The same table with twice the rows."""
    larger = np.zeros((2 * table.shape[0], 4), np.int64)
    for old in range(table.shape[0]):
        if table[old, KEY] != 0:
            larger[_slot(larger, table[old, KEY])] = table[old]
    return larger


@njit(nogil=True, cache=True)
def _scan(
    affinity: NDArray[np.uint8], labels: NDArray[np.int32], begin: int, end: int
) -> NDArray[np.int64]:
    """Hash table of the contacts of sections begin to end with their lower neighbours.

    Neighbours along a row mostly touch the same fragment: a run of equal pairs is added up before
    it is looked up. A row of the table is half a cache line.
    """
    table = np.zeros((1024, 4), np.int64)
    used = 0
    _, height, width = labels.shape
    for z in range(begin, end):
        for axis in range(3):
            if axis == 0 and z == 0:
                continue
            shift = 1 if axis == 2 else 0
            for y in range(1 if axis == 1 else 0, height):
                here = labels[z, y]
                there = labels[z - (axis == 0), y - (axis == 1)]
                code = affinity[axis, z, y]
                x = shift
                while x < width:
                    u, v = here[x], there[x - shift]
                    if u == v or u == 0 or v == 0:
                        x += 1
                        continue
                    contacts, total, highest = 0, 0, 0
                    while x < width and here[x] == u and there[x - shift] == v:
                        contacts += 1
                        total += code[x]
                        highest = max(highest, code[x])
                        x += 1
                    key = (np.int64(min(u, v)) << 32) | np.int64(max(u, v))
                    slot = _slot(table, key)
                    if table[slot, KEY] == 0:
                        if 2 * used > table.shape[0]:
                            table = _grown(table)
                            slot = _slot(table, key)
                        table[slot, KEY] = key
                        used += 1
                    table[slot, CONTACTS] += contacts
                    table[slot, TOTAL] += total
                    table[slot, HIGHEST] = max(table[slot, HIGHEST], highest)
    return table


@njit(nogil=True, cache=True)
def _collect(affinity, labels, begin, end, table, codes):  # type: ignore[no-untyped-def]
    """Codes of the same contacts, one after the other where each pair's row says; rows move on."""
    _, height, width = labels.shape
    for z in range(begin, end):
        for axis in range(3):
            if axis == 0 and z == 0:
                continue
            shift = 1 if axis == 2 else 0
            for y in range(1 if axis == 1 else 0, height):
                here = labels[z, y]
                there = labels[z - (axis == 0), y - (axis == 1)]
                code = affinity[axis, z, y]
                last, slot = np.int64(0), np.int64(0)
                for x in range(shift, width):
                    u, v = here[x], there[x - shift]
                    if u == v or u == 0 or v == 0:
                        continue
                    key = (np.int64(min(u, v)) << 32) | np.int64(max(u, v))
                    if key != last:
                        slot, last = _slot(table, key), key
                    codes[table[slot, CONTACTS]] = code[x]
                    table[slot, CONTACTS] += 1


@njit(nogil=True, cache=True)
def _count(codes, start):  # type: ignore[no-untyped-def]
    """Runs (row, code, number) of codes grouped by row."""
    n_rows = start.size - 1
    n = 0
    seen = np.full(256, -1, np.int64)
    for row in range(n_rows):
        for i in range(start[row], start[row + 1]):
            if seen[codes[i]] != row:
                seen[codes[i]] = row
                n += 1
    rows, kept, numbers = np.empty(n, np.int32), np.empty(n, np.uint8), np.empty(n, np.int64)
    counts, n = np.zeros(256, np.int64), 0
    for row in range(n_rows):
        low, high = 255, 0
        for i in range(start[row], start[row + 1]):
            counts[codes[i]] += 1
            low, high = min(low, codes[i]), max(high, codes[i])
        for code in range(low, high + 1):
            if counts[code] > 0:
                rows[n], kept[n], numbers[n] = row, code, counts[code]
                counts[code] = 0
                n += 1
    return rows, kept, numbers
