"""The compiled part of fragments in sections: heights, pointers uphill, and where paths end.

What costs time here is branches that are guessed wrong, and every voxel is passed several times:
passes are in the order of memory and without branches.

All of it stands in one file: numba caches a compiled function by the time stamp of its own file
only, so code called from another file would go stale unnoticed.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

BOUNDARY = 255
"""Largest sum of two codes that is not inside: below 1/2 is below 2 x 127.5."""


@njit(nogil=True, cache=True)
def find_inside(along_y, along_x, inside):  # type: ignore[no-untyped-def]
    """Fill ``inside``, shape (Y, X), from the codes of a section."""
    for y in range(inside.shape[0]):
        for x in range(inside.shape[1]):
            inside[y, x] = np.uint16(along_y[y, x]) + np.uint16(along_x[y, x]) > BOUNDARY


@njit(nogil=True, cache=True)
def add_boundary(along_y, along_x, height):  # type: ignore[no-untyped-def]
    """Turn squared distances into heights: 1 + sum on the boundary, 256 + distance inside."""
    for y in range(height.shape[0]):
        for x in range(height.shape[1]):
            total = np.uint16(along_y[y, x]) + np.uint16(along_x[y, x])
            above = height[y, x] + np.uint16(BOUNDARY + 1)
            height[y, x] = above if total > BOUNDARY else total + np.uint16(1)


@njit(nogil=True, cache=True)
def mask_heights(affinity, height):  # type: ignore[no-untyped-def]
    """Set heights to 0 where all three affinities, shape (3, Y, X), are 0."""
    for y in range(height.shape[0]):
        for x in range(height.shape[1]):
            if affinity[0, y, x] | affinity[1, y, x] | affinity[2, y, x] == 0:
                height[y, x] = 0


@njit(nogil=True, cache=True)
def point_uphill(height: NDArray[np.uint16], target: NDArray[np.int32]) -> None:
    """Linear index of the highest of a voxel and its 8 neighbours; height 0 is never chosen.

    The highest of nine is the highest of three rows' highest of three, so one pass over the
    rows keeps the three last. ``target`` has the shape (Y, X) of ``height``.
    """
    rows, width = height.shape
    best = np.zeros((3, width), np.int64)  # (height, index) packed, per row modulo 3
    key = np.empty(width + 2, np.int64)
    key[0] = key[width + 1] = 0
    for y in range(rows + 1):
        last = best[y % 3]
        if y < rows:
            for x in range(width):
                key[x + 1] = (np.int64(height[y, x]) << 32) | (y * width + x)
            for x in range(width):
                last[x] = max(key[x], key[x + 1], key[x + 2])
        else:
            last[:] = 0
        if y > 0:
            for x in range(width):
                highest = max(best[0, x], best[1, x], best[2, x])
                target[y - 1, x] = np.int32(highest & 0xFFFFFFFF)


@njit(nogil=True, cache=True)
def label_ends(height, target, top, left, labels, number, waiting):  # type: ignore[no-untyped-def]
    """Label a core by the end of each path: roots 1, 2 ... and exits -1, -2 ...; their places.

    ``height`` and ``target`` cover the core and what its voxels may point to; the core begins at
    (top, left) and has the shape of ``labels``. Roots are numbered in linear order, exits as they
    are met. Both arrays are used up; ``number`` and ``waiting``, int32, have one entry more.
    """
    rows, width = labels.shape
    full = height.shape[1]
    pointer, heights = target.reshape(-1), height.reshape(-1)
    number[: pointer.size] = 0
    exits = _number_exits(heights, pointer, number, (rows, width, full, top, left))
    _wall_in(height, target, top, left, labels.shape)
    roots = _sweep_forward(heights, pointer, waiting)
    _sweep_backward(pointer)
    _follow_rest(pointer, waiting)
    for i in range(roots.size):
        number[roots[i]] = i + 1
    for y in range(rows):
        first = (y + top) * full + left
        for x in range(width):
            labels[y, x] = number[pointer[first + x]]
    return roots, exits


@njit(nogil=True, cache=True)
def _number_exits(heights, pointer, number, core):  # type: ignore[no-untyped-def]
    """Number the voxels outside the core that its voxels point to -1, -2 ...; their places."""
    rows, width, full, top, left = core
    exits, n_exits = np.empty(2 * (rows + width), np.int64), 0
    for y in range(rows):  # only the outermost voxels of the core point out of it
        step = 1 if y == 0 or y == rows - 1 else max(1, width - 1)
        for x in range(0, width, step):
            p = (y + top) * full + x + left
            q = pointer[p]
            qy, qx = q // full - top, q % full - left
            outside = qy < 0 or qy >= rows or qx < 0 or qx >= width
            if outside and heights[p] != 0 and number[q] == 0:
                exits[n_exits] = q
                n_exits += 1
                number[q] = -n_exits
    return exits[:n_exits].copy()


@njit(nogil=True, cache=True)
def _wall_in(height, target, top, left, core):  # type: ignore[no-untyped-def]
    """End paths around a core of that shape: nothing there is a root, or points further."""
    rows, width = core
    for y in range(height.shape[0]):
        skipped = width if top <= y < top + rows else 0
        for i in range(height.shape[1] - skipped):
            x = i if i < left else i + skipped
            height[y, x] = 0
            target[y, x] = y * height.shape[1] + x


@njit(nogil=True, cache=True)
def _sweep_forward(heights, pointer, roots):  # type: ignore[no-untyped-def]
    """Point every voxel to where its target points; places of the roots, in linear order.

    In the order of memory, so that a path against this order is walked to its end at once. What is
    0 points to itself. The voxel just passed is remembered: to load what was stored a moment ago
    would stall.
    """
    size = np.uint64(pointer.size)
    n_roots = np.uint64(0)
    end = np.int32(0)
    for p in range(size):
        q = np.uint64(pointer[p])
        is_masked, is_last = heights[p] == 0, q + np.uint64(1) == p
        further = pointer[p if is_last else q]
        end = end if is_last else further
        end = np.int32(p) if is_masked else end
        pointer[p] = end
        roots[n_roots] = p
        n_roots += np.uint64((q == p) & (not is_masked))
    return roots[:n_roots].astype(np.int64)


@njit(nogil=True, cache=True)
def _sweep_backward(pointer):  # type: ignore[no-untyped-def]
    """The same against the order of memory."""
    size = np.uint64(pointer.size)
    end = np.int32(0)
    for i in range(size):
        p = size - np.uint64(1) - i
        q = np.uint64(pointer[p])
        is_last = q == p + np.uint64(1)
        further = pointer[p if is_last else q]
        end = end if is_last else further
        pointer[p] = end


@njit(nogil=True, cache=True)
def _follow_rest(pointer, waiting):  # type: ignore[no-untyped-def]
    """Point every voxel to the end of its path; each round at least halves what is left of it."""
    size = np.uint64(pointer.size)
    n = np.uint64(0)
    for p in range(size):
        q = np.uint64(pointer[p])
        waiting[n] = p
        n += np.uint64(np.uint64(pointer[q]) != q)
    while n > 0:
        n_left = np.uint64(0)
        for i in range(n):
            p = np.uint64(waiting[i])
            end = np.uint64(pointer[np.uint64(pointer[p])])
            pointer[p] = end
            waiting[n_left] = p
            n_left += np.uint64(np.uint64(pointer[end]) != end)
        n = n_left


@njit(nogil=True, cache=True)
def shift_labels(labels, first_root, first_exit):  # type: ignore[no-untyped-def]
    """Count on from earlier sections: roots from one number, exits from another."""
    for y in range(labels.shape[0]):
        for x in range(labels.shape[1]):
            if labels[y, x] > 0:
                labels[y, x] += first_root
            elif labels[y, x] < 0:
                labels[y, x] = first_exit - labels[y, x]
