"""Rainfall in the volume, for isotropic voxels: every voxel points to the highest of its 27.

With the codes ``A`` of all three affinities:

    inside(p) = A_z(p) + A_y(p) + A_x(p) > 382
    d2(p)     = min(squared distance to the nearest voxel that is not inside, radius ** 2)
    height(p) = (d2(p), A_z(p) + A_y(p) + A_x(p) if d2(p) == 0 else 0, linear index of p)

compared as in ``ops/fragments.py``, which has the sections, the checks and the ids. Labels hold the
pointers until the paths are walked: there is no second array of their kind.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import TypeVar

import numpy as np
from numba import njit
from numpy.typing import NDArray

from emslice.errors import GeometryError
from emslice.ops.distance_3d import distance_along_z, distance_in_section

MOST_VOXELS = 2**31 - 2
"""Of a block: an int32 label holds the place that a voxel points to."""

BOUNDARY = 382
"""Largest sum of three codes that is not inside: below 1/2 is below 3 x 127.5."""

EXIT = -(2**31)
"""Label of a voxel that points out of the core, until exits have numbers."""

T = TypeVar("T")


def label_box(
    affinity: NDArray[np.uint8],
    radius: int,
    core: tuple[slice, slice, slice],
    labels: NDArray[np.int32],
    workers: int = 1,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Label a core: roots 1, 2 ... in linear order, then exits; 0 is masked.

    Parameters
    ----------
    affinity : uint8, shape (3, Z, Y, X)
        Codes of the read box.
    core : slices
        What is labelled. Between its faces and those of the read box lie ``radius`` voxels, or
        the face is one of the volume's.
    labels : int32, C-contiguous, shape of the core
        Filled.

    Returns
    -------
    roots, exits : int64
        Linear indices in the read box, ascending.

    Notes
    -----
    Besides codes and labels: first 1 byte a voxel of the read box and 2 a voxel of those of its
    sections that are in the core or next to it, then 1 byte a voxel of the core. O(voxels).
    """
    if labels.size > MOST_VOXELS:
        raise GeometryError(
            f"fragments.dimensions: a block of {labels.size} voxels cannot be labelled in 3D, the "
            f"most is {MOST_VOXELS}. Use smaller blocks."
        )
    ends = _point_uphill(affinity, radius, core, labels, workers)
    n_roots = _number_roots(labels)
    inner = np.flatnonzero(labels > 0)
    exits, number = np.unique(ends[:, 1], return_inverse=True)
    if n_roots + len(exits) >= 2**31 - 1:
        raise GeometryError(f"{n_roots} fragments in one block; use smaller blocks.")
    labels.reshape(-1)[ends[:, 0]] = n_roots + 1 + number
    _resolve(labels.reshape(-1))
    z, y, x = np.unravel_index(inner, labels.shape)
    place = (z + core[0].start, y + core[1].start, x + core[2].start)
    return np.ravel_multi_index(place, affinity.shape[1:]).astype(np.int64), exits


def _point_uphill(
    affinity: NDArray[np.uint8],
    radius: int,
    core: tuple[slice, slice, slice],
    labels: NDArray[np.int32],
    workers: int,
) -> NDArray[np.int64]:
    """Make labels pointers; (who points out of the core, whereto in the read box), shape (N, 2)."""
    # Where a voxel points to depends on its neighbours: the core and one voxel around it.
    low = [max(0, s.start - 1) for s in core]
    high = [min(n, s.stop + 1) for s, n in zip(core, affinity.shape[1:], strict=True)]
    height = volume_heights(affinity, radius, (low[0], high[0]), (low[1], high[1]), workers)
    begin = (core[0].start - low[0], core[1].start, core[2].start)
    ends = np.concatenate(
        _each_slab(lambda slab: _point(height, begin, slab, labels), len(labels), workers)
    )
    ends[:, 1] += low[0] * height[0].size  # from the sections with heights to the read box
    return ends


def volume_heights(
    affinity: NDArray[np.uint8],
    radius: int,
    sections: tuple[int, int],
    rows: tuple[int, int],
    workers: int = 1,
) -> NDArray[np.uint16]:
    """Heights without their index, one number each: 1 + sum on the boundary, 383 + d2 inside.

    Of whole ``sections`` of the read box, but finished in ``rows`` only; 0 is masked.
    """
    _, depth, width, length = affinity.shape
    inside = np.empty((depth, width, length), np.bool_)
    _each_slab(lambda slab: _find_inside(affinity, slab, inside), depth, workers)
    height = np.empty((sections[1] - sections[0], width, length), np.uint16)
    _each_slab(
        lambda slab: distance_along_z(inside, radius, sections[0], slab, height), width, workers
    )

    def finish(slab: tuple[int, int]) -> None:
        for z in range(*slab):
            distance_in_section(height[z], radius, rows)
            _add_boundary(affinity[:, sections[0] + z], rows, height[z])

    _each_slab(finish, len(height), workers)
    return height


def _each_slab(work: Callable[[tuple[int, int]], T], n: int, workers: int) -> list[T]:
    """Results of work on the parts of a range of ``n``, one part a thread."""
    cuts = np.linspace(0, n, min(n, workers) + 1).astype(int).tolist()
    with ThreadPoolExecutor(workers) as pool:
        return list(pool.map(work, pairwise(cuts)))


@njit(nogil=True, cache=True)
def _find_inside(affinity, sections, inside):  # type: ignore[no-untyped-def]
    """Fill some sections of ``inside``."""
    for z in range(sections[0], sections[1]):
        for y in range(inside.shape[1]):
            for x in range(inside.shape[2]):
                total = (
                    np.uint16(affinity[0, z, y, x]) + affinity[1, z, y, x] + affinity[2, z, y, x]
                )
                inside[z, y, x] = total > BOUNDARY


@njit(nogil=True, cache=True)
def _add_boundary(affinity, rows, height):  # type: ignore[no-untyped-def]
    """Turn the squared distances of a section's rows into heights; shapes (3, Y, X) and (Y, X)."""
    for y in range(rows[0], rows[1]):
        for x in range(height.shape[1]):
            total = np.uint16(affinity[0, y, x]) + affinity[1, y, x] + affinity[2, y, x]
            if total > BOUNDARY:
                height[y, x] += BOUNDARY + 1
            else:
                height[y, x] = total + 1 if total else 0


@njit(nogil=True, cache=True)
def _point(height, begin, sections, labels):  # type: ignore[no-untyped-def]
    """Point every voxel of some sections of a core uphill; gives who points out of it, and whereto.

    The highest of 27 is the highest of three sections' highest of nine. What is compared is the
    height and a direction: z, y and x plus one of the neighbour, two bits each. Directions rise
    with the linear index, so ties are decided as by the index. A label becomes -1 - (index in the
    core of the voxel pointed to), 0 where masked. Columns of the result: index in the core, index
    in ``height``, where the core begins at ``begin``.
    """
    depth, rows, width = labels.shape
    first, last = sections
    best = np.zeros((3, rows, width), np.uint32)  # of a section, modulo 3
    uphill = np.empty(width, np.uint32)
    n_surface = 2 * rows * width + 2 * (last - first) * (rows + width)
    ends, n_ends = np.empty((n_surface, 2), np.int64), 0
    _best_of_nine(height, first - 1, begin, best[(first - 1) % 3])
    _best_of_nine(height, first, begin, best[first % 3])
    for z in range(first, last):
        _best_of_nine(height, z + 1, begin, best[(z + 1) % 3])
        below, here, above = best[(z - 1) % 3], best[z % 3], best[(z + 1) % 3]
        for y in range(rows):
            for x in range(width):
                uphill[x] = max(below[y, x], here[y, x] | 0b010000, above[y, x] | 0b100000) & 63
            own = height[z + begin[0], y + begin[1], begin[2] : begin[2] + width]
            _set_pointers(own, uphill, (z * rows + y) * width, rows, labels[z, y])
            whole_row = z in (0, depth - 1) or y in (0, rows - 1)
            for x in range(0, width, 1 if whole_row else max(1, width - 1)):
                dz, dy, dx = (uphill[x] >> 4) - 1, ((uphill[x] >> 2) & 3) - 1, (uphill[x] & 3) - 1
                qz, qy, qx = z + dz, y + dy, x + dx
                inside = 0 <= qz < depth and 0 <= qy < rows and 0 <= qx < width
                if own[x] == 0 or inside:
                    continue
                ends[n_ends, 0] = (z * rows + y) * width + x
                row = (qz + begin[0]) * height.shape[1] + qy + begin[1]
                ends[n_ends, 1] = row * height.shape[2] + qx + begin[2]
                labels[z, y, x] = EXIT
                n_ends += 1
    return ends[:n_ends].copy()


@njit(nogil=True, cache=True)
def _best_of_nine(height, z, begin, best):  # type: ignore[no-untyped-def]
    """Highest (height, direction along y and x) of a section's rows as far as there are any.

    ``z`` counts from the core on; ``best`` has the shape (Y, X) of the core.
    """
    rows, width = best.shape
    best[:] = 0
    if not 0 <= z + begin[0] < height.shape[0]:
        return
    padded, row = np.zeros(width + 2, np.uint32), np.empty(width, np.uint32)
    low, high = max(0, begin[2] - 1), min(height.shape[2], begin[2] + width + 1)
    shift = low - (begin[2] - 1)
    for y in range(-1, rows + 1):
        if not 0 <= y + begin[1] < height.shape[1]:
            continue
        line = height[z + begin[0], y + begin[1], low:high]
        for x in range(len(line)):
            padded[x + shift] = np.uint32(line[x]) << 6
        for x in range(width):
            row[x] = max(padded[x], padded[x + 1] | 0b01, padded[x + 2] | 0b10)
        for dy in range(-1, 2):  # the row lies dy beyond the row that it is compared for
            if 0 <= y - dy < rows:
                target, bits = best[y - dy], np.uint32((dy + 1) << 2)
                for x in range(width):
                    target[x] = max(target[x], row[x] | bits)


@njit(nogil=True, cache=True)
def _set_pointers(own, uphill, start, rows, labels):  # type: ignore[no-untyped-def]
    """Labels of a row, that begins at ``start`` in the core, from heights and directions."""
    width = len(labels)
    step = np.empty(64, np.int64)
    for code in range(43):
        step[code] = (((code >> 4) - 1) * rows + ((code >> 2) & 3) - 1) * width + (code & 3) - 1
    for x in range(width):
        labels[x] = -1 - (start + x + step[uphill[x]]) if own[x] else 0


@njit(nogil=True, cache=True)
def _number_roots(labels):  # type: ignore[no-untyped-def]
    """Label the voxels that point to themselves 1, 2 ... in linear order; how many there are."""
    flat, n = labels.reshape(-1), 0
    for p in range(len(flat)):
        if flat[p] == -1 - p:
            n += 1
            flat[p] = n
    return n


@njit(nogil=True, cache=True)
def _resolve(labels):  # type: ignore[no-untyped-def]
    """Replace pointers by the labels where their paths end."""
    for p in range(len(labels)):
        q = p
        while labels[q] < 0:
            q = -1 - labels[q]
        end = labels[q]
        q = p
        while labels[q] < 0:
            further = -1 - labels[q]
            labels[q] = end
            q = further
