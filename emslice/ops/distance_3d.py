"""Squared distance to the nearest outside voxel, in the volume, capped.

Exact integers, one axis after the other: two scans along z give the distance within a column of
sections, then each section takes the lower envelope of parabolas along y and along x (Meijster,
Roerdink and Hesselink 2000). What reached the cap is no parabola. Time O(voxels), whatever the
radius; a line of integers is all the working memory.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray


@njit(nogil=True, cache=True)
def distance_along_z(
    inside: NDArray[np.bool_],
    radius: int,
    first: int,
    rows: tuple[int, int],
    out: NDArray[np.uint16],
) -> None:
    """Fill rows of ``out`` with ``min(distance to the nearest outside voxel along z, radius)``.

    ``inside`` has shape (Z, Y, X), ``out`` that of the sections from ``first`` on that are asked
    for. What lies beyond the array counts as inside.
    """
    depth, _, width = inside.shape
    last = first + out.shape[0] - 1
    near = np.empty(width, np.uint16)
    for y in range(rows[0], rows[1]):
        near[:] = radius
        for z in range(last + 1):
            for x in range(width):
                near[x] = min(near[x] + 1, radius) if inside[z, y, x] else 0
            if z >= first:
                out[z - first, y] = near
        near[:] = radius
        for z in range(depth - 1, first - 1, -1):
            for x in range(width):
                near[x] = min(near[x] + 1, radius) if inside[z, y, x] else 0
            if z <= last:
                for x in range(width):
                    out[z - first, y, x] = min(out[z - first, y, x], near[x])


@njit(nogil=True, cache=True)
def distance_in_section(near: NDArray[np.uint16], radius: int, rows: tuple[int, int]) -> None:
    """Turn distances along z into ``min(squared distance, radius ** 2)`` in place.

    ``near`` is a section of what `distance_along_z` made, shape (Y, X); only ``rows`` are finished.
    ``radius`` is at most 255, so that its square fits uint16.
    """
    height, width = near.shape
    longest, cap = max(height, width), np.int64(radius) * np.int64(radius)
    line, stack = np.empty(longest, np.int64), np.empty((3, longest), np.int64)
    for x in range(width):
        for y in range(height):
            line[y] = np.int64(near[y, x]) * np.int64(near[y, x])
        _envelope(line[:height], cap, stack)
        for y in range(height):
            near[y, x] = line[y]
    for y in range(rows[0], rows[1]):
        for x in range(width):
            line[x] = near[y, x]
        _envelope(line[:width], cap, stack)
        for x in range(width):
            near[y, x] = line[x]


@njit(nogil=True, cache=True, error_model="numpy")
def _envelope(line, cap, stack):  # type: ignore[no-untyped-def]
    """Replace ``line[x]`` by the least ``(x - u) ** 2 + line[u]`` over all u, or by the cap.

    Parabola k of the envelope stands at ``spot[k]``, ``low[k]`` high, and is the lowest from
    ``start[k]`` on.
    """
    spot, low, start = stack[0], stack[1], stack[2]
    n, top = len(line), -1
    for u in range(n):
        if line[u] >= cap:
            continue
        begin = 0
        while top >= 0:
            at, v = start[top], spot[top]
            if (at - v) ** 2 + low[top] > (at - u) ** 2 + line[u]:
                top -= 1
                continue
            # Not negative: at its start the older parabola is not above the newer one.
            begin = 1 + (u * u - v * v + line[u] - low[top]) // (2 * (u - v))
            break
        if begin < n:
            top += 1
            spot[top], low[top], start[top] = u, line[u], begin
    if top < 0:
        line[:] = cap
        return
    end = n
    for k in range(top, -1, -1):
        for x in range(start[k], end):
            line[x] = min((x - spot[k]) ** 2 + low[k], cap)
        end = start[k]
