"""The compiled part of the region graph: runs of contacts, the rows they add up to, their order.

A contact is a voxel and its lower neighbour along an axis, in different fragments. Whole lines of
voxels along x are compared with the lines of their neighbours. Fragments are small, so what costs
time is branches that are guessed wrong: where runs of a pair begin is found without any, and only
runs are looked up in a hash table.

All of it stands in one file: numba caches a compiled function by the time stamp of its own file
only, so code called from another file would go stale unnoticed.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

KEY, CONTACTS, TOTAL, HIGHEST = range(4)
"""Columns of a row; its key is that of the pair, the smaller number in the upper 32 bits."""

PLACE = 1
"""Column of a row of `collect_codes`: where its next code goes."""


@njit(nogil=True, cache=True)
def _lines(affinity, labels, z, line):  # type: ignore[no-untyped-def]
    """Labels of a line, those of its lower neighbours, and the codes of their contacts.

    Lines of a section: first all rows along z, then along y, then along x. A row on the lower face
    has no neighbours; it is compared with itself, and a row has no contacts with that.
    """
    axis, y = divmod(line, labels.shape[1])
    if axis == 0:
        return labels[z, y], labels[max(z - 1, 0), y], affinity[0, z, y]
    if axis == 1:
        return labels[z, y], labels[z, max(y - 1, 0)], affinity[1, z, y]
    return labels[z, y, 1:], labels[z, y, :-1], affinity[2, z, y, 1:]


@njit(nogil=True, cache=True)
def _find_runs(here, there, changes, begin, end):  # type: ignore[no-untyped-def]
    """Fill ``begin`` and ``end`` with the runs of contacts of one pair along a line; their number.

    Positions are written whether they count or not, and the next takes the place of what does not.
    ``changes`` is work space of a byte a voxel; ``begin`` and ``end`` take one more than voxels.
    """
    width = here.size
    if width == 0:
        return 0
    u, v, u_before, v_before = here[1:], there[1:], here[: width - 1], there[: width - 1]
    for x in range(u.size):  # bytes, so that this compiles to vector instructions
        touch = (u[x] != v[x]) | (u_before[x] != v_before[x])
        changes[x] = touch & ((u[x] != u_before[x]) | (v[x] != v_before[x]))
    n = 1
    begin[0] = 0
    for x in range(1, width):
        begin[n] = x
        n += changes[x - 1]
    begin[n] = width
    n_runs = 0
    for i in range(n):
        first, last = begin[i], begin[i + 1]
        begin[n_runs], end[n_runs] = first, last
        a, b = here[first], there[first]
        n_runs += (a != b) & (a != 0) & (b != 0)
    return n_runs


@njit(nogil=True, cache=True)
def _slot_of(slots, rows, first, u, v):  # type: ignore[no-untyped-def]
    """Slot of a pair in an open-addressed table of 2^k row numbers, or a free one; and its key.

    A slot that holds a number below ``first`` is free. The multiplier is that of Fibonacci hashing
    (Knuth, TAOCP 3, 6.4).
    """
    key = (np.int64(min(u, v)) << 32) | np.int64(max(u, v))
    mixed = np.uint64(key) * np.uint64(0x9E3779B97F4A7C15)
    mixed ^= mixed >> np.uint64(32)
    mask = slots.size - 1
    slot = np.int64(mixed & np.uint64(mask))
    while slots[slot] >= first and rows[slots[slot], KEY] != key:
        slot = (slot + 1) & mask
    return slot, key


@njit(nogil=True, cache=True)
def _table_of(rows, first, last, most):  # type: ignore[no-untyped-def]
    """Table of rows ``first`` to ``last`` with four slots or more for each of ``most``."""
    size = 1024
    while size < 4 * most:
        size *= 2
    slots = np.full(size, -1, np.int32)
    for row in range(first, last):
        u, v = rows[row, KEY] >> 32, rows[row, KEY] & 0xFFFFFFFF
        slots[_slot_of(slots, rows, first, u, v)[0]] = row
    return slots


@njit(nogil=True, cache=True)
def _enough_rows(rows, n_rows, n_more):  # type: ignore[no-untyped-def]
    """The rows, or a larger array that begins with them."""
    if n_rows + n_more <= rows.shape[0]:
        return rows
    larger = np.empty((2 * (n_rows + n_more), 4), np.int64)
    larger[:n_rows] = rows[:n_rows]
    return larger


@njit(nogil=True, cache=True)
def add_up_contacts(
    affinity: NDArray[np.uint8], labels: NDArray[np.int32], begin: int, end: int
) -> NDArray[np.int64]:
    """Rows of the contacts of sections begin to end with their lower neighbours, shape (R, 4).

    A row of an earlier section is not looked for, so that table and rows in use stay in the cache:
    a pair of fragments that both extend over sections has a row for each. In no order.
    """
    _, height, width = labels.shape
    changes = np.empty(width, np.uint8)
    starts, stops = np.empty(width + 2, np.int32), np.empty(width + 2, np.int32)
    rows, n_rows = np.empty((1024, 4), np.int64), 0
    slots = _table_of(rows, 0, 0, 0)
    for z in range(begin, end):
        first = n_rows
        for line in range(3 * height):
            here, there, code = _lines(affinity, labels, z, line)
            n_runs = _find_runs(here, there, changes, starts, stops)
            rows = _enough_rows(rows, n_rows, n_runs)
            if slots.size < 4 * (n_rows + n_runs - first):
                slots = _table_of(rows, first, n_rows, n_rows + n_runs - first)
            for i in range(n_runs):
                total, highest = 0, 0
                for x in range(starts[i], stops[i]):
                    total += code[x]
                    highest = max(highest, code[x])
                slot, key = _slot_of(slots, rows, first, here[starts[i]], there[starts[i]])
                if slots[slot] < first:
                    slots[slot] = n_rows
                    rows[n_rows, KEY] = key
                    rows[n_rows, CONTACTS:] = 0
                    n_rows += 1
                row = rows[slots[slot]]
                row[CONTACTS] += stops[i] - starts[i]
                row[TOTAL] += total
                row[HIGHEST] = max(row[HIGHEST], highest)
    return rows[:n_rows]


@njit(nogil=True, cache=True)
def collect_codes(affinity, labels, begin, end, rows, codes):  # type: ignore[no-untyped-def]
    """Codes of the same contacts, those of a row one after the other.

    ``rows``, shape (E, 2), has each pair once, and where its first code goes; the places move on.
    """
    _, height, width = labels.shape
    changes = np.empty(width, np.uint8)
    starts, stops = np.empty(width + 2, np.int32), np.empty(width + 2, np.int32)
    slots = _table_of(rows, 0, rows.shape[0], rows.shape[0])
    for z in range(begin, end):
        for line in range(3 * height):
            here, there, code = _lines(affinity, labels, z, line)
            n_runs = _find_runs(here, there, changes, starts, stops)
            for i in range(n_runs):
                slot, _ = _slot_of(slots, rows, 0, here[starts[i]], there[starts[i]])
                row = slots[slot]
                for x in range(starts[i], stops[i]):
                    codes[rows[row, PLACE]] = code[x]
                    rows[row, PLACE] += 1


@njit(nogil=True, cache=True)
def _sort_by(number, before, n_nodes, after):  # type: ignore[no-untyped-def]
    """Fill ``after`` with rows sorted by their numbers, equal ones in the order of ``before``."""
    place = np.zeros(n_nodes + 1, np.int32)
    for row in range(number.size):
        place[number[row] + 1] += 1
    for node in range(n_nodes):
        place[node + 1] += place[node]
    for row in before:
        after[place[number[row]]] = row
        place[number[row]] += 1


@njit(nogil=True, cache=True)
def sort_rows(rows):  # type: ignore[no-untyped-def]
    """Pairs in ascending order, and for each its contacts, sum and maximum; equal pairs add up.

    Two counting sorts, by the larger number of a pair and then by the smaller.
    """
    n, n_nodes = rows.shape[0], 1
    for row in range(n):
        n_nodes = max(n_nodes, (rows[row, KEY] & 0xFFFFFFFF) + 1)
    by_larger, order = np.empty(n, np.int32), np.empty(n, np.int32)
    _sort_by(rows[:, KEY] & 0xFFFFFFFF, np.arange(n), n_nodes, by_larger)
    _sort_by(rows[:, KEY] >> 32, by_larger, n_nodes, order)
    edges, highest = np.empty((n, 2), np.int32), np.empty(n, np.uint8)
    contacts, total = np.empty(n, np.int64), np.empty(n, np.int64)
    last, i = np.int64(-1), -1
    for row in order:
        key = rows[row, KEY]
        if key == last:
            contacts[i] += rows[row, CONTACTS]
            total[i] += rows[row, TOTAL]
            highest[i] = max(highest[i], rows[row, HIGHEST])
            continue
        last, i = key, i + 1
        edges[i, 0], edges[i, 1] = key >> 32, key & 0xFFFFFFFF
        contacts[i], total[i] = rows[row, CONTACTS], rows[row, TOTAL]
        highest[i] = rows[row, HIGHEST]
    return edges[: i + 1], contacts[: i + 1], total[: i + 1], highest[: i + 1]


@njit(nogil=True, cache=True)
def count_runs(codes, start):  # type: ignore[no-untyped-def]
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
